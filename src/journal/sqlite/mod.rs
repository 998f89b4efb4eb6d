//! The journal in SQLite: WAL, one fsync per commit; `sqlite3 journal.db` shows all of it.

mod copying;
mod damage;
mod entries;
pub mod knowledge;
mod opening;
pub mod peek;
pub mod repair;
mod rows;
mod schema;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, ErrorCode, OptionalExtension, Row, ffi, params};

use self::entries::{FIRST_CONTACT, FORGET_GONE, insert, keep_alive};
use self::rows::{EVENT_COLUMNS, LANE_COLUMNS, cursor_at, event_at, lane_at};
use self::schema::create;
use super::checksum::lane_crc;
use super::{
    Configured, Entry, Journal, JournalError, JournalledEvent, KEPT, LanePosition, Receipt, Unstored,
};
use crate::event::{AccountId, Cursor, MailboxKey};
use crate::memory::{Fingerprint, Memory, Told};
use crate::refusals::Refusals;

/// A journal in a file.
#[derive(Debug)]
pub struct SqliteJournal {
    db: Connection,
    bytes: u64,
}

impl SqliteJournal {
    /// A journal that is gone with the process.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn in_memory() -> Result<Self, JournalError> {
        let mut db = Connection::open_in_memory().map_err(failed)?;
        create(&mut db).map_err(failed)?;
        Ok(Self { db, bytes: 0 })
    }
}

impl SqliteJournal {
    pub(super) fn connection(&mut self) -> &mut Connection {
        &mut self.db
    }
}

/// What may be lost with the machine's power. It is durable with the next commit, or when the kernel writes it.
fn unsynced<T>(
    db: &Connection,
    write: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    db.pragma_update(None, "synchronous", "NORMAL")?;
    let written = write(db);
    db.pragma_update(None, "synchronous", "FULL")?;
    written
}

/// A full disk passes; whatever else a write meets is known again only after a restart.
fn failed(error: rusqlite::Error) -> JournalError {
    match &error {
        rusqlite::Error::SqliteFailure(cause, _)
            if cause.code == ErrorCode::DiskFull
                || [ffi::SQLITE_IOERR_WRITE, ffi::SQLITE_IOERR_SHMSIZE].contains(&cause.extended_code) =>
        {
            JournalError::DiskFull
        }
        _ => JournalError::Failed(error.to_string()),
    }
}

fn select_pending() -> String {
    format!("SELECT {EVENT_COLUMNS} FROM events WHERE sequence > ?1 ORDER BY sequence LIMIT ?2")
}

impl Journal for SqliteJournal {
    fn commit(
        &mut self,
        entries: &[Entry],
        positions: &[(String, LanePosition)],
    ) -> Result<Vec<Result<Receipt, Unstored>>, JournalError> {
        let transaction = self.db.transaction().map_err(failed)?;
        let receipts: rusqlite::Result<Vec<_>> =
            entries.iter().map(|entry| insert(&transaction, entry)).collect();
        let receipts = receipts.map_err(failed)?;
        for (name, position) in positions {
            let file = position.file.as_ref();
            transaction
                .prepare_cached(
                    "UPDATE lanes SET position = ?2, generation = ?3, offset = ?4, crc = ?5 WHERE name = ?1",
                )
                .and_then(|mut update| {
                    let offset = file.and_then(|end| i64::try_from(end.offset).ok());
                    let (generation, sum) = (file.map(|end| &end.generation), lane_crc(name, position));
                    update.execute(params![name, position.sequence, generation, offset, sum])
                })
                .map_err(failed)?;
        }
        transaction.commit().map_err(failed)?;
        let stored = entries.iter().zip(&receipts).filter(|(_, receipt)| receipt.is_ok());
        self.bytes += stored.map(|(entry, _)| entry.bytes()).sum::<u64>();
        Ok(receipts)
    }

    fn cursor(&mut self, key: &MailboxKey) -> Result<Option<Cursor>, JournalError> {
        let (account, mailbox) = (key.account.as_str(), key.mailbox.as_str());
        let mut statement = self
            .db
            .prepare_cached(
                "SELECT mailbox, uid_validity, uid_next, seen, modseq, blind_since, look_back, changes, gone, crc FROM cursors
                 WHERE account = ?1 AND mailbox = ?2",
            )
            .map_err(failed)?;
        let found = statement
            .query_row([account, mailbox], |row| cursor_at(row, account))
            .optional()
            .map_err(failed)?;
        match found {
            Some((.., false)) => {
                Err(JournalError::Failed(format!("the cursor of {account}/{mailbox} is damaged")))
            }
            found => Ok(found.map(|(_, cursor, _)| cursor)),
        }
    }

    fn memory(&mut self, key: &MailboxKey) -> Result<Memory, JournalError> {
        let mut statement = self
            .db
            .prepare_cached("SELECT received_at, fingerprint FROM told WHERE account = ?1 AND mailbox = ?2")
            .map_err(failed)?;
        let rows = statement
            .query_map([key.account.as_str(), key.mailbox.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))
            .map_err(failed)?;
        let (mut first_contact, mut told) = (None, Vec::new());
        for row in rows {
            let (at, fingerprint): (i64, i64) = row.map_err(failed)?;
            let Ok(received_at) = Timestamp::from_millisecond(at) else { continue };
            match fingerprint {
                FIRST_CONTACT => first_contact = Some(received_at),
                fingerprint => told.push(Told { fingerprint: Fingerprint(fingerprint), received_at }),
            }
        }
        Ok(Memory::new(first_contact, &told))
    }

    fn refusals(&mut self, account: &AccountId) -> Result<Refusals, JournalError> {
        let logins: Option<String> = self
            .db
            .prepare_cached("SELECT logins FROM refusals WHERE account = ?1")
            .and_then(|mut statement| statement.query_row([account.as_str()], |row| row.get(0)).optional())
            .map_err(failed)?;
        let damaged = |_| JournalError::Failed(format!("the refused logins of {account} are damaged"));
        logins.map_or(Ok(Refusals::default()), |logins| serde_json::from_str(&logins).map_err(damaged))
    }

    fn idle_periods(&mut self) -> Result<Vec<(String, Duration)>, JournalError> {
        let mut statement = self.db.prepare("SELECT host, idle_period FROM hosts").map_err(failed)?;
        let period = |row: &Row<'_>| {
            let milliseconds: i64 = row.get("idle_period")?;
            Ok((row.get("host")?, Duration::from_millis(u64::try_from(milliseconds).unwrap_or_default())))
        };
        statement.query_map([], period).and_then(Iterator::collect).map_err(failed)
    }

    fn unpipelined(&mut self) -> Result<Vec<String>, JournalError> {
        let mut statement = self.db.prepare("SELECT host FROM unpipelined").map_err(failed)?;
        statement.query_map([], |row| row.get(0)).and_then(Iterator::collect).map_err(failed)
    }

    fn begin(&mut self, now: Timestamp) -> Result<(), JournalError> {
        let transaction = self.db.transaction().map_err(failed)?;
        transaction
            .execute(
                "UPDATE cursors SET blind_since = (SELECT value FROM monitor WHERE name = 'alive_at')
                 WHERE blind_since IS NULL",
                [],
            )
            .and_then(|_| keep_alive(&transaction, now))
            .and_then(|()| transaction.commit())
            .map_err(failed)
    }

    fn alive(&mut self, now: Timestamp) -> Result<(), JournalError> {
        unsynced(&self.db, |db| keep_alive(db, now)).map_err(failed)
    }

    fn compare(&mut self, configured: &mut Configured) -> Result<bool, JournalError> {
        let transaction = self.db.transaction().map_err(failed)?;
        let next = entries::compare(&transaction, configured).map_err(failed)?;
        transaction.commit().map_err(failed)?;
        Ok(configured.goes_on(next))
    }

    fn forget_gone(&mut self, now: Timestamp) -> Result<usize, JournalError> {
        let Ok(since) = now.checked_sub(KEPT) else { return Ok(0) };
        let transaction = self.db.transaction().map_err(failed)?;
        let mut forgotten = 0;
        for statement in FORGET_GONE {
            forgotten = transaction.execute(statement, [since.as_millisecond()]).map_err(failed)?;
        }
        transaction.commit().map_err(failed)?;
        Ok(forgotten)
    }

    fn pending(&mut self, after: u64, most: usize) -> Result<Vec<JournalledEvent>, JournalError> {
        let mut statement = self.db.prepare_cached(&select_pending()).map_err(failed)?;
        let rows = statement.query_map(params![after, most], event_at).map_err(failed)?;
        let mut events = Vec::new();
        for row in rows {
            let (sequence, event) = row.map_err(failed)?;
            let Some(event) = event else {
                return Err(JournalError::Failed(format!("event {sequence} is damaged")));
            };
            events.push(JournalledEvent { sequence, event: Arc::new(event), had: Vec::new() });
        }
        Ok(events)
    }

    fn has_after(&mut self, sequence: u64) -> Result<bool, JournalError> {
        self.db
            .prepare_cached("SELECT 1 FROM events WHERE sequence > ?1")
            .and_then(|mut statement| statement.exists([sequence]))
            .map_err(failed)
    }

    fn lanes(&mut self, names: &[String]) -> Result<Vec<LanePosition>, JournalError> {
        let transaction = self.db.transaction().map_err(failed)?;
        let mut positions = Vec::new();
        for name in names {
            let known = transaction
                .query_row(&format!("SELECT {LANE_COLUMNS} FROM lanes WHERE name = ?1"), [name], |row| {
                    lane_at(row).map(|(_, position, _)| position)
                })
                .optional()
                .map_err(failed)?;
            if known.is_none() {
                transaction
                    .execute("INSERT INTO lanes (name, position) VALUES (?1, 0)", [name])
                    .map_err(failed)?;
            }
            positions.push(known.unwrap_or_default());
        }
        // An output that is configured no more holds nothing back.
        let names = serde_json::to_string(names).unwrap_or_default();
        transaction
            .execute("DELETE FROM lanes WHERE name NOT IN (SELECT value FROM json_each(?1))", [names])
            .map_err(failed)?;
        transaction.commit().map_err(failed)?;
        Ok(positions)
    }

    fn forget(&mut self, sequence: u64) -> Result<(), JournalError> {
        let transaction = self.db.transaction().map_err(failed)?;
        let gone: u64 = transaction
            .prepare_cached(
                "SELECT COALESCE(SUM(LENGTH(CAST(payload AS BLOB))), 0) FROM events WHERE sequence <= ?1",
            )
            .and_then(|mut sum| sum.query_row([sequence], |row| row.get(0)))
            .map_err(failed)?;
        transaction
            .prepare_cached("DELETE FROM events WHERE sequence <= ?1")
            .and_then(|mut delete| delete.execute([sequence]))
            .map_err(failed)?;
        transaction.commit().map_err(failed)?;
        self.bytes = self.bytes.saturating_sub(gone);
        Ok(())
    }

    fn tidy(&mut self) {
        // As well as it can be: the log is read at the next start otherwise.
        let _ = self.db.pragma_update(None, "wal_checkpoint", "TRUNCATE");
    }

    /// What a crash may add to the length of a blindness.
    fn rhythm(&self) -> Duration {
        Duration::from_secs(30)
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn last(&mut self) -> Result<u64, JournalError> {
        // sqlite_sequence knows the last number given even when all events are gone.
        self.db
            .prepare_cached("SELECT COALESCE(MAX(seq), 0) FROM sqlite_sequence WHERE name = 'events'")
            .and_then(|mut last| last.query_row([], |row| row.get(0)))
            .map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, OpenOptions};
    use std::io::{Read, Seek, SeekFrom, Write};
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use rusqlite::StatementStatus;

    use super::entries::TRIM_TOLD;
    use super::schema::APPLICATION_ID;
    use super::*;
    use crate::event::{Event, EventBody, MailboxName, MonitorState};
    use crate::journal::checksum::cursor_crc;
    use crate::journal::{OpenError, StateOrigin};
    use crate::messages::{Batch, Checkpoint, Note, Replaces};

    fn key() -> MailboxKey {
        MailboxKey { account: "a".into(), mailbox: MailboxName::inbox() }
    }

    fn entry(id: &str, uid_next: Option<u32>) -> Entry {
        let body = EventBody::MonitorState(MonitorState::Started);
        let event = Event {
            at: Timestamp::UNIX_EPOCH,
            id: id.to_owned(),
            account: None,
            body,
            filtered: None,
            redacted: Vec::new(),
        };
        let checkpoint = uid_next
            .map(|next| Cursor::baseline(7, next, Some(u64::from(next))))
            .map(|cursor| Checkpoint { key: key(), cursor, replaces: Replaces::Anything });
        Entry::new(Batch { events: vec![event], checkpoint, notes: Vec::new() })
    }

    fn open(dir: &Path) -> Result<(SqliteJournal, StateOrigin), OpenError> {
        SqliteJournal::open(dir, false, false)
    }

    #[test]
    fn a_sign_of_life_alone_waits_for_no_disk() {
        let dir = tempfile::tempdir().unwrap();
        let (mut journal, _) = open(dir.path()).unwrap();
        let synchronous =
            |db: &Connection| db.query_row("PRAGMA synchronous", [], |row| row.get::<_, u32>(0));
        let (normal, full) = (1, 2);
        assert_eq!(unsynced(&journal.db, synchronous), Ok(normal));
        assert_eq!(synchronous(&journal.db), Ok(full));
        let nothing = unsynced(&journal.db, |db| db.execute("INSERT INTO nowhere VALUES (1)", []));
        assert!(nothing.is_err());
        assert_eq!(synchronous(&journal.db), Ok(full));
        let now = Timestamp::UNIX_EPOCH + Duration::from_secs(7);
        journal.alive(now).unwrap();
        let told = "SELECT value FROM monitor WHERE name = 'alive_at'";
        assert_eq!(journal.db.query_row(told, [], |row| row.get(0)), Ok(now.as_millisecond()));
        assert_eq!(synchronous(&journal.db), Ok(full));
    }

    #[test]
    fn events_and_cursors_survive_a_process_that_just_goes() {
        let dir = tempfile::tempdir().unwrap();
        let (mut journal, origin) = open(dir.path()).unwrap();
        assert_eq!(origin, StateOrigin::New);
        journal.lanes(&["out".to_owned()]).unwrap();
        let receipts = journal.commit(&[entry("one", Some(5)), entry("two", None)], &[]).unwrap();
        let receipts: Vec<_> = receipts.into_iter().map(Result::unwrap).collect();
        assert_eq!(receipts[0].cursor().map(|cursor| cursor.uid_next), Some(5));
        assert_eq!(receipts[1].sequences(), Some(2..=2));
        let copy = tempfile::tempdir().unwrap();
        for file in fs::read_dir(dir.path()).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
        }
        let (mut journal, origin) = open(copy.path()).unwrap();
        assert_eq!(origin, StateOrigin::Existing);
        assert_eq!(journal.cursor(&key()).unwrap(), Some(Cursor::baseline(7, 5, Some(5))));
        let ids =
            |events: Vec<JournalledEvent>| events.iter().map(|e| e.event.id.clone()).collect::<Vec<_>>();
        assert_eq!(ids(journal.pending(0, 10).unwrap()), ["one", "two"]);
        assert_eq!(ids(journal.pending(1, 10).unwrap()), ["two"]);
    }

    /// What it stores of `mailbox` goes on from `before`, with an event of its own.
    fn checkpoint(before: impl Into<Replaces>, cursor: &Cursor) -> Entry {
        let Entry { events, .. } = entry("told", None);
        let checkpoint = Checkpoint { key: key(), cursor: cursor.clone(), replaces: before.into() };
        Entry { events, checkpoint: Some(checkpoint), notes: Vec::new() }
    }

    #[test]
    fn a_mailbox_has_one_cursor_whatever_the_clock_says() {
        let mut journal = SqliteJournal::in_memory().unwrap();
        let mut before = None;
        for validity in [1, 2] {
            let changes = Some(u64::MAX >> 2);
            let gone = Some([2, 3, 7].into_iter().collect());
            let cursor = Cursor { changes, gone, ..Cursor::baseline(validity, 10, Some(u64::MAX >> 1)) };
            journal.commit(&[checkpoint(before.take(), &cursor)], &[]).unwrap()[0].as_ref().unwrap();
            journal.db.execute("UPDATE cursors SET updated_at = updated_at + 3600000", []).unwrap();
            before = Some(Box::new(cursor));
        }
        assert_eq!(journal.cursor(&key()).unwrap(), before.map(|cursor| *cursor));
        let kept: i64 = journal.db.query_row("SELECT COUNT(*) FROM cursors", [], |row| row.get(0)).unwrap();
        assert_eq!(kept, 1);
    }

    #[test]
    fn a_journal_of_the_version_before_is_upgraded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.db");
        let db = Connection::open(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        db.execute_batch(
            "CREATE TABLE events (sequence INTEGER PRIMARY KEY AUTOINCREMENT, action TEXT NOT NULL, payload TEXT NOT NULL, crc INTEGER NOT NULL);
             CREATE TABLE cursors (account TEXT NOT NULL, mailbox TEXT NOT NULL, uid_validity INTEGER NOT NULL, uid_next INTEGER NOT NULL,
                 seen TEXT NOT NULL, modseq INTEGER, updated_at INTEGER NOT NULL, crc INTEGER NOT NULL, PRIMARY KEY (account, mailbox, uid_validity)) WITHOUT ROWID;
             CREATE TABLE lanes (name TEXT PRIMARY KEY, position INTEGER NOT NULL, generation TEXT, offset INTEGER) WITHOUT ROWID;
             PRAGMA user_version = 1;",
        )
        .unwrap();
        db.pragma_update(None, "application_id", APPLICATION_ID).unwrap();
        for (validity, updated_at) in [(6, 1), (7, 2)] {
            let crc = cursor_crc("a", "INBOX", &Cursor::baseline(validity, 5, None));
            db.execute(
                "INSERT INTO cursors VALUES ('a', 'INBOX', ?1, 5, '1:4', NULL, ?2, ?3)",
                params![validity, updated_at, crc],
            )
            .unwrap();
        }
        drop(db);
        for _ in 0..2 {
            let (mut journal, _) = open(dir.path()).unwrap();
            assert_eq!(journal.cursor(&key()).unwrap(), Some(Cursor::baseline(7, 5, None)));
            let memory = journal.memory(&key()).unwrap();
            assert_eq!(journal.idle_periods().unwrap(), []);
            assert_eq!(journal.unpipelined().unwrap(), Vec::<String>::new());
            assert!(
                memory.from.is_some() && memory.known.is_empty(),
                "told by the version before: not known"
            );
        }
        let (mut copy, _) = SqliteJournal::copy_in_memory(dir.path()).unwrap();
        assert_eq!(copy.cursor(&key()).unwrap(), Some(Cursor::baseline(7, 5, None)));
    }

    /// Half of the writer's time went into planning the same statements at each message.
    #[test]
    fn statements_are_planned_once() {
        let dir = tempfile::tempdir().unwrap();
        let (mut journal, _) = SqliteJournal::open(dir.path(), false, false).unwrap();
        for n in 1..4 {
            let told = Told { fingerprint: Fingerprint(n << 6), received_at: Timestamp::now() };
            let note = Note::Told { key: key(), messages: vec![told] };
            journal.commit(&[entry("a", Some(9)), Entry::new(note.into())], &[]).unwrap();
            assert!(!journal.pending(0, 100).unwrap().is_empty());
        }
        for text in [TRIM_TOLD, &select_pending()] {
            let statement = journal.db.prepare_cached(text).unwrap();
            assert!(statement.get_status(StatementStatus::Run) > 1, "not from the cache: {text}");
            assert_eq!(statement.get_status(StatementStatus::RePrepare), 0, "{text}");
        }
    }

    #[test]
    fn a_flipped_bit_in_an_event_is_not_sent_on() {
        let dir = tempfile::tempdir().unwrap();
        let (mut journal, _) = open(dir.path()).unwrap();
        journal.commit(&[entry("a-rather-unique-id", None)], &[]).unwrap();
        journal.db.pragma_update(None, "wal_checkpoint", "TRUNCATE").unwrap();
        drop(journal);
        let path = dir.path().join("journal.db");
        let mut file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        let at = bytes.windows(18).position(|window| window == b"a-rather-unique-id").unwrap();
        file.seek(SeekFrom::Start(at as u64)).unwrap();
        file.write_all(b"b").unwrap();
        assert!(matches!(open(dir.path()), Err(OpenError::Damaged { .. })));
    }
}
