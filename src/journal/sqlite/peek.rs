//! A look into the journal of another process, to read only.

use std::collections::HashMap;
use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use crate::event::AccountId;
use crate::refusals::Refusals;

/// The refused logins that the journal in this directory knows of; none where it cannot be read.
pub fn refusals(dir: &Path) -> HashMap<AccountId, Refusals> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let read = || -> rusqlite::Result<HashMap<AccountId, Refusals>> {
        let db = Connection::open_with_flags(dir.join("journal.db"), flags)?;
        let mut statement = db.prepare("SELECT account, logins FROM refusals")?;
        let rows = statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?;
        let known = rows.filter_map(Result::ok).filter_map(|(account, logins)| {
            Some((AccountId::new(account), serde_json::from_str(&logins).ok()?))
        });
        Ok(known.collect())
    };
    read().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::journal::sqlite::SqliteJournal;
    use crate::journal::{Entry, Journal};
    use crate::messages::{Batch, Note};

    #[test]
    fn refused_logins_are_seen_while_the_monitor_runs_and_nothing_is_where_there_is_no_journal() {
        let dir = tempfile::tempdir().unwrap();
        assert!(refusals(dir.path()).is_empty());
        assert!(!dir.path().join("journal.db").exists());
        let (mut journal, _) = SqliteJournal::open(dir.path(), false, false).unwrap();
        let mut logins = Refusals::default();
        logins.add(None, None, Timestamp::now());
        let note = Note::Refusals { account: AccountId::from("work"), refusals: logins.clone() };
        let batch = Batch { events: Vec::new(), checkpoint: None, notes: vec![note] };
        journal.commit(&[Entry::new(batch)], &[]).unwrap();
        assert_eq!(refusals(dir.path()).get(&AccountId::from("work")), Some(&logins));
    }
}
