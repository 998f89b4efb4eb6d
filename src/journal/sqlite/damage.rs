//! Is an existing journal what we wrote? SQLite's pages have no checksums; our rows do, and they are looked at before
//! anything is made of them.

use rusqlite::{Connection, ErrorCode, ffi};

use super::rows::{EVENT_COLUMNS, LANE_COLUMNS, cursor_at, event_at, lane_at};
use super::schema::SCHEMA;
use crate::text;

/// What is wrong with it, in words.
pub(super) fn find(db: &Connection) -> rusqlite::Result<Option<String>> {
    let verdict: String = db.pragma_query_value(None, "quick_check", |row| row.get(0))?;
    if verdict != "ok" {
        return Ok(Some(text::line(&verdict, 200)));
    }
    let expected = Connection::open_in_memory()?;
    expected.execute_batch(SCHEMA)?;
    if columns(db)? != columns(&expected)? {
        return Ok(Some("its tables are not what was made".to_owned()));
    }
    Ok(damaged_event(db)?.or(damaged_cursor(db)?).or(damaged_lane(db)?))
}

/// All tables' columns, in an order that upgrades do not change.
fn columns(db: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut statement = db.prepare(
        "SELECT format('%s %s %s %d', made.name, field.name, field.type, field.pk)
         FROM sqlite_schema AS made, pragma_table_info(made.name) AS field ORDER BY 1",
    )?;
    statement.query_map([], |row| row.get(0))?.collect()
}

/// The events that are kept are the newest, without a hole: a number that is damaged would be passed over.
fn damaged_event(db: &Connection) -> rusqlite::Result<Option<String>> {
    let mut last = None;
    let mut statement = db.prepare(&format!("SELECT {EVENT_COLUMNS} FROM events ORDER BY sequence"))?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (sequence, event) = event_at(row)?;
        if event.is_none() || last.is_some_and(|last| sequence != last + 1) {
            return Ok(Some(format!("event {sequence} is not what was written")));
        }
        last = Some(sequence);
    }
    let given = last_given(db)?;
    let lost = last.is_some_and(|last| last != given);
    Ok(lost.then(|| format!("event {given} is missing")))
}

fn last_given(db: &Connection) -> rusqlite::Result<u64> {
    db.query_row("SELECT COALESCE(MAX(seq), 0) FROM sqlite_sequence WHERE name = 'events'", [], |row| {
        row.get(0)
    })
}

fn damaged_cursor(db: &Connection) -> rusqlite::Result<Option<String>> {
    let mut statement = db.prepare("SELECT * FROM cursors")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let account: String = row.get("account")?;
        let (mailbox, _, sound) = cursor_at(row, &account)?;
        if !sound {
            return Ok(Some(text::line(
                &format!("the cursor of {account}/{mailbox} is not what was written"),
                200,
            )));
        }
    }
    Ok(None)
}

/// A position that is too far on would pass over events without a word.
fn damaged_lane(db: &Connection) -> rusqlite::Result<Option<String>> {
    let given = last_given(db)?;
    let mut statement = db.prepare(&format!("SELECT {LANE_COLUMNS} FROM lanes"))?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (name, position, sound) = lane_at(row)?;
        if !sound || position.sequence > given {
            return Ok(Some(text::line(
                &format!("the position of output {name} is not what was written"),
                200,
            )));
        }
    }
    Ok(None)
}

/// Whether an error is of the journal's own content, and not of the disk or the system.
pub(super) fn is_of_content(error: &rusqlite::Error) -> bool {
    let rusqlite::Error::SqliteFailure(cause, _) = error else { return true };
    let system = [
        ErrorCode::DiskFull,
        ErrorCode::CannotOpen,
        ErrorCode::ReadOnly,
        ErrorCode::PermissionDenied,
        ErrorCode::SystemIoFailure,
        ErrorCode::OutOfMemory,
        ErrorCode::DatabaseBusy,
        ErrorCode::DatabaseLocked,
    ];
    cause.extended_code == ffi::SQLITE_IOERR_SHORT_READ || !system.contains(&cause.code)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use jiff::Timestamp;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use crate::event::{Cursor, Event, EventBody, MailboxKey, MailboxName, MonitorState};
    use crate::journal::sqlite::SqliteJournal;
    use crate::journal::{Entry, FileEnd, Journal, LanePosition, StateOrigin};
    use crate::messages::{Batch, Checkpoint, Replaces};

    fn key() -> MailboxKey {
        MailboxKey { account: "a".into(), mailbox: MailboxName::inbox() }
    }

    /// Ten events that nobody has yet, but for the first three.
    fn fill(dir: &Path) {
        let (mut journal, _) = SqliteJournal::open(dir, false, false).unwrap();
        journal.lanes(&["out".to_owned(), "second".to_owned()]).unwrap();
        for number in 1..=10 {
            let body = EventBody::MonitorState(MonitorState::Started);
            let id = format!("event-{number}");
            let events = vec![Event {
                at: Timestamp::UNIX_EPOCH,
                id,
                account: None,
                body,
                filtered: None,
                redacted: Vec::new(),
            }];
            let checkpoint = Some(Checkpoint {
                key: key(),
                cursor: Cursor::baseline(7, number, None),
                replaces: Replaces::Anything,
            });
            let file = Some(FileEnd { generation: "1:2".to_owned(), offset: 77 });
            let position = ("out".to_owned(), LanePosition { sequence: u64::from(number.min(3)), file });
            journal
                .commit(&[Entry::new(Batch { events, checkpoint, ..Batch::default() })], &[position])
                .unwrap();
        }
        journal.forget(2).unwrap();
        journal.tidy();
    }

    /// All that matters of it, or why there is no start.
    fn content(dir: &Path) -> Result<String, String> {
        let (mut journal, origin) =
            SqliteJournal::open(dir, false, false).map_err(|error| error.to_string())?;
        assert_eq!(origin, StateOrigin::Existing);
        let lanes = journal.lanes(&["out".to_owned(), "second".to_owned()]);
        let lanes = lanes.map_err(|error| error.to_string())?;
        let events = journal.pending(0, 100).unwrap();
        let cursor = journal.cursor(&key()).unwrap();
        Ok(format!("{events:?} {cursor:?} {lanes:?}"))
    }

    #[test]
    fn a_flipped_bit_is_found_or_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        fill(dir.path());
        let path = dir.path().join("journal.db");
        let sound = fs::read(&path).unwrap();
        let expected = content(dir.path()).unwrap();
        let seed = std::env::var("PROPTEST_RNG_SEED").ok().and_then(|seed| seed.parse().ok());
        let mut random = StdRng::seed_from_u64(seed.unwrap_or(1));
        // Most of a page is empty; what is not is more worth trying.
        let used: Vec<_> = (0..sound.len()).filter(|&at| sound[at] != 0).collect();
        let mut found = 0;
        for _ in 0..500 {
            let at = used[random.random_range(0..used.len())];
            let bit = random.random_range(0..8);
            let mut bytes = sound.clone();
            bytes[at] ^= 1 << bit;
            for name in ["journal.db-wal", "journal.db-shm"] {
                let _ = fs::remove_file(dir.path().join(name));
            }
            fs::write(&path, bytes).unwrap();
            match content(dir.path()) {
                Ok(content) => assert_eq!(content, expected, "bit {bit} of byte {at}"),
                Err(_) => found += 1,
            }
        }
        assert!(found > 100, "{found}");
    }
}
