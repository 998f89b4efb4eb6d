//! The journal in SQLite: WAL, one fsync per commit; `sqlite3 journal.db` shows all of it.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OptionalExtension, Row, Statement, ToSql, Transaction, ffi, params};

use super::checksum::{crc, cursor_crc, lane_crc};
use super::{
    Encoded, Entry, FileEnd, Journal, JournalError, JournalledEvent, KEPT, LanePosition, OpenError, Receipt,
    StateOrigin, Superseded, damage,
};
use crate::event::{AccountId, Cursor, Event, MailboxKey, MailboxName};
use crate::memory::{self, Fingerprint, Memory, Told};
use crate::messages::{Checkpoint, Note, Replaces};
use crate::refusals::Refusals;
use crate::uid_set::UidSet;

/// "idlw": tells our databases from others.
const APPLICATION_ID: i64 = 0x6964_6c77;

pub(super) const SCHEMA_VERSION: i64 = 6;

pub(super) const SCHEMA: &str = "
CREATE TABLE events (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    action   TEXT NOT NULL,
    payload  TEXT NOT NULL,
    crc      INTEGER NOT NULL
);
CREATE TABLE cursors (
    account      TEXT NOT NULL,
    mailbox      TEXT NOT NULL,
    uid_validity INTEGER NOT NULL,
    uid_next     INTEGER NOT NULL,
    seen         TEXT NOT NULL,
    modseq       INTEGER,
    blind_since  INTEGER,
    look_back    INTEGER,
    changes      INTEGER,
    gone         TEXT,
    gone_since   INTEGER,
    absent_since INTEGER,
    updated_at   INTEGER NOT NULL,
    crc          INTEGER NOT NULL,
    PRIMARY KEY (account, mailbox, uid_validity)
) WITHOUT ROWID;
CREATE TABLE lanes (
    name       TEXT PRIMARY KEY,
    position   INTEGER NOT NULL,
    generation TEXT,
    offset     INTEGER,
    crc        INTEGER
) WITHOUT ROWID;
CREATE TABLE told (
    account     TEXT NOT NULL,
    mailbox     TEXT NOT NULL,
    received_at INTEGER NOT NULL,
    fingerprint INTEGER NOT NULL,
    PRIMARY KEY (account, mailbox, received_at, fingerprint)
) WITHOUT ROWID;
CREATE TABLE refusals (
    account TEXT PRIMARY KEY,
    logins  TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE hosts (
    host        TEXT PRIMARY KEY,
    idle_period INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE unpipelined (
    host TEXT PRIMARY KEY
) WITHOUT ROWID;
CREATE TABLE monitor (
    name  TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) WITHOUT ROWID;
";

/// From each version to the next.
const UPGRADES: [&str; 5] = [
    FROM_1,
    "ALTER TABLE lanes ADD COLUMN crc INTEGER;",
    "CREATE TABLE hosts (host TEXT PRIMARY KEY, idle_period INTEGER NOT NULL) WITHOUT ROWID;",
    "CREATE TABLE unpipelined (host TEXT PRIMARY KEY) WITHOUT ROWID;",
    "ALTER TABLE cursors ADD COLUMN changes INTEGER; ALTER TABLE cursors ADD COLUMN gone TEXT;
     ALTER TABLE cursors ADD COLUMN gone_since INTEGER; ALTER TABLE cursors ADD COLUMN absent_since INTEGER;",
];

const FROM_1: &str = "
DELETE FROM cursors AS old WHERE EXISTS (SELECT 1 FROM cursors AS new WHERE new.account = old.account
    AND new.mailbox = old.mailbox AND new.updated_at > old.updated_at);
ALTER TABLE cursors ADD COLUMN blind_since INTEGER;
ALTER TABLE cursors ADD COLUMN look_back INTEGER;
CREATE TABLE told (account TEXT NOT NULL, mailbox TEXT NOT NULL, received_at INTEGER NOT NULL, fingerprint INTEGER NOT NULL,
    PRIMARY KEY (account, mailbox, received_at, fingerprint)) WITHOUT ROWID;
INSERT INTO told SELECT account, mailbox, CAST(unixepoch('subsec') * 1000 AS INTEGER), 0 FROM cursors;
CREATE TABLE refusals (account TEXT PRIMARY KEY, logins TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE monitor (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
";

/// In place of a message's fingerprint: the moment of the first contact.
const FIRST_CONTACT: i64 = 0;

/// A journal in a file.
#[derive(Debug)]
pub struct SqliteJournal {
    db: Connection,
    bytes: u64,
}

impl SqliteJournal {
    /// Opens `dir/journal.db`; whoever calls holds the directory's lock.
    ///
    /// # Errors
    /// Where it is damaged, foreign, or newer than this program. `new_state` moves such a file aside.
    pub fn open(dir: &Path, require_state: bool, new_state: bool) -> Result<(Self, StateOrigin), OpenError> {
        let path = dir.join("journal.db");
        let failed = |cause| OpenError::StateDir { path: path.clone(), cause };
        if new_state {
            move_aside(dir).map_err(failed)?;
        }
        discard_unfinished(dir).map_err(failed)?;
        let (mut db, origin) = if path.exists() {
            (reopen(&path)?, StateOrigin::Existing)
        } else if require_state && !new_state {
            return Err(OpenError::NoState { path: dir.to_owned() });
        } else {
            (begin(dir, &path)?, StateOrigin::New)
        };
        upgrade(&mut db).map_err(|error| not_opened(&path, error))?;
        let found = damage::find(&db).map_err(|error| not_opened(&path, error))?;
        if let Some(cause) = found {
            return Err(OpenError::Damaged { path, cause });
        }
        let bytes = settle(&db).map_err(|error| not_opened(&path, error))?;
        Ok((Self { db, bytes }, origin))
    }

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

/// What of a journal is about mailboxes, logins and hosts. Events and positions are about outputs.
const KNOWLEDGE: [&str; 4] = ["cursors", "told", "refusals", "hosts"];

impl SqliteJournal {
    /// What `dir/journal.db` knows of mailboxes, in a journal that is gone with the process. Nothing is written, and
    /// another process may be using it.
    ///
    /// # Errors
    /// Where it cannot be read, or is of another version.
    pub fn copy_in_memory(dir: &Path) -> Result<(Self, StateOrigin), OpenError> {
        let path = dir.join("journal.db");
        let copy = Self::in_memory()
            .map_err(|error| OpenError::StateDir { path: path.clone(), cause: io::Error::other(error) })?;
        if !path.exists() {
            return Ok((copy, StateOrigin::New));
        }
        let copied = copy_knowledge(&copy.db, &path);
        match copied.map_err(|error| not_opened(&path, error))? {
            SCHEMA_VERSION => Ok((copy, StateOrigin::Existing)),
            version if version > SCHEMA_VERSION => Err(OpenError::Newer { path, version }),
            version => Err(OpenError::Older { path, version }),
        }
    }
}

/// The version of the schema; other versions than ours are not copied.
fn copy_knowledge(db: &Connection, path: &Path) -> rusqlite::Result<i64> {
    db.execute("ATTACH ?1 AS state", [read_only(path)])?;
    let version = db.pragma_query_value(Some("state"), "user_version", |row| row.get(0))?;
    if version == SCHEMA_VERSION {
        let copies: String = KNOWLEDGE.iter().map(|table| copy_of(db, table)).collect::<Result<_, _>>()?;
        // One transaction: what is copied was true at one moment.
        db.execute_batch(&format!("BEGIN; {copies} COMMIT;"))?;
    }
    db.execute_batch("DETACH state")?;
    Ok(version)
}

/// By the names of its columns: upgrades append them, so that their order is not that of a new journal.
fn copy_of(db: &Connection, table: &str) -> rusqlite::Result<String> {
    let names = "SELECT group_concat(name) FROM pragma_table_info(?1, 'main')";
    let columns: String = db.query_row(names, [table], |row| row.get(0))?;
    Ok(format!("INSERT INTO main.{table} ({columns}) SELECT {columns} FROM state.{table};"))
}

/// As SQLite's URI; what has a meaning there is escaped.
fn read_only(path: &Path) -> String {
    let mut uri = String::from("file:");
    for &byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => uri.push(char::from(byte)),
            byte => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    uri + "?mode=ro"
}

/// Stands while the first journal is being made: what a crash or a full disk leaves then is no damage.
const UNFINISHED: &str = "journal.unfinished";

pub(super) const FILES: [&str; 3] = ["journal.db", "journal.db-wal", "journal.db-shm"];

fn begin(dir: &Path, path: &Path) -> Result<Connection, OpenError> {
    let failed = |cause| OpenError::StateDir { path: path.to_owned(), cause };
    File::create(dir.join(UNFINISHED)).and_then(|_| sync(dir)).map_err(failed)?;
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    let made = Connection::open(path).and_then(|mut db| create(&mut db).map(|()| db));
    let db = made.map_err(|error| not_opened(path, error))?;
    // Durably gone before anything is committed: it must never come back beside a journal that is in use.
    fs::remove_file(dir.join(UNFINISHED)).and_then(|()| sync(dir)).map_err(failed)?;
    Ok(db)
}

/// Nothing was ever committed to it.
fn discard_unfinished(dir: &Path) -> io::Result<()> {
    if !dir.join(UNFINISHED).exists() {
        return Ok(());
    }
    for name in FILES.iter().map(|name| dir.join(name)).filter(|path| path.exists()) {
        fs::remove_file(name)?;
    }
    fs::remove_file(dir.join(UNFINISHED)).and_then(|()| sync(dir))
}

pub(super) fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// A zero-byte file is a damaged one, not a new one; SQLite would take it for new, and delete its log.
fn reopen(path: &Path) -> Result<Connection, OpenError> {
    let failed = |cause| OpenError::StateDir { path: path.to_owned(), cause };
    let metadata = fs::metadata(path).map_err(failed)?;
    let mode = metadata.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(OpenError::Readable { path: path.to_owned(), mode });
    }
    if metadata.len() == 0 {
        return Err(OpenError::Damaged { path: path.to_owned(), cause: "it is empty".to_owned() });
    }
    let db = Connection::open(path).map_err(|error| not_opened(path, error))?;
    check(&db, path)?;
    Ok(db)
}

fn not_opened(path: &Path, error: rusqlite::Error) -> OpenError {
    let path = path.to_owned();
    if damage::is_of_content(&error) {
        OpenError::Damaged { path, cause: error.to_string() }
    } else {
        let cause = refused_by_system(&path).unwrap_or_else(|| io::Error::other(failed(error)));
        OpenError::StateDir { path, cause }
    }
}

/// SQLite does not tell why a file cannot be opened or made; the system does.
fn refused_by_system(path: &Path) -> Option<io::Error> {
    let open = |name: &&str| {
        let opened = OpenOptions::new().read(true).write(true).open(path.with_file_name(name));
        let error = opened.err().filter(|error| error.kind() != io::ErrorKind::NotFound)?;
        Some(io::Error::new(error.kind(), format!("{name}: {error}")))
    };
    let probe = path.with_extension("probe");
    let make = || File::create(&probe).and_then(|_| fs::remove_file(&probe)).err();
    FILES.iter().find_map(open).or_else(make)
}

pub(super) fn create(db: &mut Connection) -> rusqlite::Result<()> {
    db.pragma_update(None, "journal_mode", "WAL")?;
    let transaction = db.transaction()?;
    transaction.execute_batch(SCHEMA)?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    transaction.commit()
}

fn upgrade(db: &mut Connection) -> rusqlite::Result<()> {
    let version: i64 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if version < SCHEMA_VERSION {
        let transaction = db.transaction()?;
        let done = usize::try_from(version - 1).unwrap_or_default();
        UPGRADES.iter().skip(done).try_for_each(|upgrade| transaction.execute_batch(upgrade))?;
        transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
        transaction.commit()?;
    }
    Ok(())
}

/// Whether it is ours, and of our time.
fn check(db: &Connection, path: &Path) -> Result<(), OpenError> {
    let pragma = |name: &str| {
        db.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).map_err(|error| not_opened(path, error))
    };
    if pragma("application_id")? != APPLICATION_ID {
        let cause = "it is empty, or not a journal of idlewatch".to_owned();
        return Err(OpenError::Damaged { path: path.to_owned(), cause });
    }
    match pragma("user_version")? {
        version if version > SCHEMA_VERSION => Err(OpenError::Newer { path: path.to_owned(), version }),
        version if version < 1 => {
            let cause = format!("its schema cannot be {version}");
            Err(OpenError::Damaged { path: path.to_owned(), cause })
        }
        _ => Ok(()),
    }
}

fn settle(db: &Connection) -> rusqlite::Result<u64> {
    db.pragma_update(None, "synchronous", "FULL")?;
    db.pragma_update(None, "wal_autocheckpoint", 1000)?;
    db.set_prepared_statement_cache_capacity(32);
    // A planner that looks at what is bound plans anew at each binding: half of the writer's time.
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    db.query_row("SELECT COALESCE(SUM(LENGTH(CAST(payload AS BLOB))), 0) FROM events", [], |row| row.get(0))
}

fn move_aside(dir: &Path) -> std::io::Result<()> {
    let stamp = Timestamp::now().as_second();
    for name in FILES {
        let from = dir.join(name);
        if from.exists() {
            fs::rename(&from, dir.join(format!("{name}.damaged-{stamp}")))?;
        }
    }
    Ok(())
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

pub(super) const EVENT_COLUMNS: &str = "sequence, payload, crc";

/// An event's number, and the event unless it is damaged.
pub(super) fn event_at(row: &Row<'_>) -> rusqlite::Result<(u64, Option<Event>)> {
    let (payload, sum): (String, u32) = (row.get("payload")?, row.get("crc")?);
    let event = serde_json::from_str(&payload).ok().filter(|_| sum == crc(&[payload.as_bytes()]));
    Ok((row.get("sequence")?, event))
}

/// A cursor, and whether it is what was written.
pub(super) fn cursor_at(row: &Row<'_>, account: &str) -> rusqlite::Result<(MailboxName, Cursor, bool)> {
    let mailbox: String = row.get("mailbox")?;
    let seen: String = row.get("seen")?;
    let modseq: Option<i64> = row.get("modseq")?;
    let blind_since: Option<i64> = row.get("blind_since")?;
    let changes: Option<i64> = row.get("changes")?;
    let gone: Option<String> = row.get("gone")?;
    let cursor = Cursor {
        uid_validity: row.get("uid_validity")?,
        uid_next: row.get("uid_next")?,
        seen: seen.parse().unwrap_or_else(|_| UidSet::new()),
        modseq: modseq.and_then(|modseq| u64::try_from(modseq).ok()),
        blind_since: blind_since.and_then(|at| Timestamp::from_millisecond(at).ok()),
        look_back: row.get("look_back")?,
        changes: changes.and_then(|modseq| u64::try_from(modseq).ok()),
        gone: gone.map(|gone| gone.parse().unwrap_or_else(|_| UidSet::new())),
    };
    let sound = row.get::<_, u32>("crc")? == cursor_crc(account, &mailbox, &cursor);
    Ok((MailboxName::new(mailbox), cursor, sound))
}

pub(super) const LANE_COLUMNS: &str = "name, position, generation, offset, crc";

/// A lane's name and position, and whether they are what was written; those of older versions have no sum.
pub(super) fn lane_at(row: &Row<'_>) -> rusqlite::Result<(String, LanePosition, bool)> {
    let name: String = row.get("name")?;
    let (generation, offset): (Option<String>, Option<u64>) = (row.get("generation")?, row.get("offset")?);
    let file = generation.zip(offset).map(|(generation, offset)| FileEnd { generation, offset });
    let position = LanePosition { sequence: row.get("position")?, file };
    let sum: Option<u32> = row.get("crc")?;
    let sound = sum.is_none_or(|sum| sum == lane_crc(&name, &position));
    Ok((name, position, sound))
}

/// An output that stands there.
pub(super) fn insert_lane(db: &Connection, name: &str, position: &LanePosition) -> rusqlite::Result<()> {
    let (generation, offset) = position.file.as_ref().map(|end| (&end.generation, end.offset)).unzip();
    let insert = "INSERT INTO lanes (name, position, generation, offset, crc) VALUES (?1, ?2, ?3, ?4, ?5)";
    db.execute(insert, params![name, position.sequence, generation, offset, lane_crc(name, position)])
        .map(drop)
}

fn insert(transaction: &Transaction<'_>, entry: &Entry) -> rusqlite::Result<Result<Receipt, Superseded>> {
    if let Some(checkpoint) = &entry.checkpoint
        && !store(transaction, checkpoint)?
    {
        return Ok(Err(Superseded));
    }
    let mut statement =
        transaction.prepare_cached("INSERT INTO events (action, payload, crc) VALUES (?1, ?2, ?3)")?;
    let mut sequences: Option<(u64, u64)> = None;
    for Encoded { event, payload } in &entry.events {
        statement.execute(params![event.body.action().as_str(), payload, crc(&[payload.as_bytes()])])?;
        let sequence = u64::try_from(transaction.last_insert_rowid()).unwrap_or_default();
        sequences = Some(sequences.map_or((sequence, sequence), |(first, _)| (first, sequence)));
    }
    for note in &entry.notes {
        keep(transaction, note)?;
    }
    let checkpoint = entry.checkpoint.as_ref().map(|stored| (stored.key.clone(), stored.cursor.clone()));
    Ok(Ok(Receipt { checkpoint, sequences: sequences.map(|(first, last)| first..=last) }))
}

/// Moves the cursor of a mailbox, or begins another epoch of it. Whether it was where the checkpoint was made from.
fn store(transaction: &Transaction<'_>, checkpoint: &Checkpoint) -> rusqlite::Result<bool> {
    let Checkpoint { key, cursor, replaces } = checkpoint;
    match replaces {
        Replaces::Cursor(before) if before.uid_validity == cursor.uid_validity => {
            return Ok(advance(transaction, checkpoint, before)? > 0);
        }
        Replaces::Cursor(before) if !stands(transaction, key, before)? => return Ok(false),
        Replaces::Nothing if is_known(transaction, key)? => return Ok(false),
        Replaces::Aside => return Ok(true),
        Replaces::Cursor(_) | Replaces::Nothing | Replaces::Anything => {}
    }
    begin_epoch(transaction, checkpoint).map(|()| true)
}

/// Nearly always the cursor is of the same epoch, and merely moves: one statement.
fn advance(
    transaction: &Transaction<'_>,
    checkpoint: &Checkpoint,
    before: &Cursor,
) -> rusqlite::Result<usize> {
    let (account, mailbox) = (checkpoint.key.account.as_str(), checkpoint.key.mailbox.as_str());
    let sum = cursor_crc(account, mailbox, before);
    let mut update = transaction.prepare_cached(
        "UPDATE cursors SET uid_next = ?4, seen = ?5, modseq = ?6, updated_at = ?7, crc = ?8, blind_since = ?9, look_back = ?10,
             changes = ?11, gone = ?12, gone_since = NULL
         WHERE account = ?1 AND mailbox = ?2 AND uid_validity = ?3 AND uid_next = ?13 AND crc = ?14",
    )?;
    write_cursor(&mut update, checkpoint, params![before.uid_next, sum])
}

/// Whether this is still the cursor of the mailbox.
fn stands(transaction: &Transaction<'_>, key: &MailboxKey, cursor: &Cursor) -> rusqlite::Result<bool> {
    let (account, mailbox) = (key.account.as_str(), key.mailbox.as_str());
    let sum = cursor_crc(account, mailbox, cursor);
    transaction
        .prepare_cached(
            "SELECT 1 FROM cursors WHERE account = ?1 AND mailbox = ?2 AND uid_validity = ?3 AND uid_next = ?4 AND crc = ?5",
        )?
        .exists(params![account, mailbox, cursor.uid_validity, cursor.uid_next, sum])
}

fn is_known(transaction: &Transaction<'_>, key: &MailboxKey) -> rusqlite::Result<bool> {
    transaction
        .prepare_cached("SELECT 1 FROM cursors WHERE account = ?1 AND mailbox = ?2")?
        .exists([key.account.as_str(), key.mailbox.as_str()])
}

fn begin_epoch(transaction: &Transaction<'_>, checkpoint: &Checkpoint) -> rusqlite::Result<()> {
    let Checkpoint { key, cursor, .. } = checkpoint;
    let (account, mailbox) = (key.account.as_str(), key.mailbox.as_str());
    // The first contact is remembered, since nothing is told of what came before it.
    transaction
        .prepare_cached(
            "INSERT INTO told (account, mailbox, received_at, fingerprint) SELECT ?1, ?2, ?3, ?4
             WHERE NOT EXISTS (SELECT 1 FROM cursors WHERE account = ?1 AND mailbox = ?2)",
        )?
        .execute(params![account, mailbox, Timestamp::now().as_millisecond(), FIRST_CONTACT])?;
    transaction
        .prepare_cached(
            "INSERT OR REPLACE INTO cursors (account, mailbox, uid_validity, uid_next, seen, modseq, updated_at, crc, blind_since, look_back, changes, gone)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
        )
        .and_then(|mut insert| write_cursor(&mut insert, checkpoint, &[]))?;
    transaction
        .prepare_cached("DELETE FROM cursors WHERE account = ?1 AND mailbox = ?2 AND uid_validity <> ?3")?
        .execute(params![account, mailbox, cursor.uid_validity])?;
    Ok(())
}

/// All columns of a cursor, and what the statement wants beside them.
fn write_cursor(
    statement: &mut Statement<'_>,
    Checkpoint { key, cursor, .. }: &Checkpoint,
    beside: &[&dyn ToSql],
) -> rusqlite::Result<usize> {
    let (account, mailbox) = (key.account.as_str(), key.mailbox.as_str());
    let modseq = cursor.modseq.and_then(|modseq| i64::try_from(modseq).ok());
    let blind_since = cursor.blind_since.map(Timestamp::as_millisecond);
    let columns = params![
        account,
        mailbox,
        cursor.uid_validity,
        cursor.uid_next,
        cursor.seen.to_string(),
        modseq,
        Timestamp::now().as_millisecond(),
        cursor_crc(account, mailbox, cursor),
        blind_since,
        cursor.look_back,
        cursor.changes.and_then(|modseq| i64::try_from(modseq).ok()),
        cursor.gone.as_ref().map(UidSet::to_string),
    ];
    statement.execute(&*[columns, beside].concat())
}

fn keep(transaction: &Transaction<'_>, note: &Note) -> rusqlite::Result<()> {
    match note {
        Note::Refusals { account, refusals } if refusals.is_empty() => transaction
            .prepare_cached("DELETE FROM refusals WHERE account = ?1")?
            .execute([account.as_str()]),
        Note::Refusals { account, refusals } => transaction
            .prepare_cached("INSERT OR REPLACE INTO refusals (account, logins) VALUES (?1, ?2)")?
            .execute([account.as_str(), &serde_json::to_string(refusals).unwrap_or_default()]),
        Note::Told { key, messages } => return remember(transaction, key, messages),
        Note::Blind { key, since } => transaction
            .prepare_cached(
                "UPDATE cursors SET blind_since = ?3 WHERE account = ?1 AND mailbox = ?2 AND blind_since IS NULL",
            )?
            .execute(params![key.account.as_str(), key.mailbox.as_str(), since.as_millisecond()]),
        Note::Gone { key, since } => transaction
            .prepare_cached(
                "UPDATE cursors SET gone_since = ?3 WHERE account = ?1 AND mailbox = ?2 AND gone_since IS NULL",
            )?
            .execute(params![key.account.as_str(), key.mailbox.as_str(), since.as_millisecond()]),
        Note::Configured { accounts, at } => return configured(transaction, accounts, *at),
        Note::IdlePeriod { host, period } => transaction
            .prepare_cached("INSERT OR REPLACE INTO hosts (host, idle_period) VALUES (?1, ?2)")?
            .execute(params![host, i64::try_from(period.as_millis()).unwrap_or(i64::MAX)]),
        Note::NoPipelining { host } => {
            transaction.prepare_cached("INSERT OR REPLACE INTO unpipelined (host) VALUES (?1)")?.execute([host])
        }
    }
    .map(drop)
}

/// Whose account has left the configuration is absent from now on, and whose is back is not any more.
fn configured(transaction: &Transaction<'_>, accounts: &[AccountId], at: Timestamp) -> rusqlite::Result<()> {
    let there: HashSet<&str> = accounts.iter().map(AccountId::as_str).collect();
    let known: Vec<(String, bool)> = transaction
        .prepare("SELECT account, MAX(absent_since) IS NOT NULL FROM cursors GROUP BY account")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let mut update = transaction.prepare("UPDATE cursors SET absent_since = ?2 WHERE account = ?1")?;
    for (account, was_absent) in known {
        let is_absent = !there.contains(account.as_str());
        if is_absent != was_absent {
            update.execute(params![account, is_absent.then(|| at.as_millisecond())])?;
        }
    }
    Ok(())
}

/// In this order: the others go by the cursors.
const FORGET_GONE: [&str; 3] = [
    "DELETE FROM refusals WHERE account IN (SELECT account FROM cursors WHERE absent_since <= ?1)",
    "DELETE FROM told WHERE (account, mailbox) IN
         (SELECT account, mailbox FROM cursors WHERE gone_since <= ?1 OR absent_since <= ?1)",
    "DELETE FROM cursors WHERE gone_since <= ?1 OR absent_since <= ?1",
];

fn keep_alive(db: &Connection, now: Timestamp) -> rusqlite::Result<()> {
    db.prepare_cached("INSERT OR REPLACE INTO monitor (name, value) VALUES ('alive_at', ?1)")?
        .execute([now.as_millisecond()])
        .map(drop)
}

fn remember(transaction: &Transaction<'_>, key: &MailboxKey, messages: &[Told]) -> rusqlite::Result<()> {
    let (account, mailbox) = (key.account.as_str(), key.mailbox.as_str());
    let mut insert = transaction.prepare_cached(
        "INSERT OR IGNORE INTO told (account, mailbox, received_at, fingerprint) VALUES (?1, ?2, ?3, ?4)",
    )?;
    for Told { fingerprint, received_at } in messages {
        insert.execute(params![account, mailbox, received_at.as_millisecond(), fingerprint.0])?;
    }
    // Whoever reads them leaves out what is too old or too much: it need not go at once.
    if !memory::is_to_be_trimmed(messages) {
        return Ok(());
    }
    let day = i64::try_from(memory::DAY.as_millis()).unwrap_or(i64::MAX);
    transaction.prepare_cached(TRIM_TOLD)?.execute(params![account, mailbox, day, memory::MOST]).map(drop)
}

/// Keeps the last day, and the most that are kept of a mailbox.
const TRIM_TOLD: &str = "DELETE FROM told WHERE account = ?1 AND mailbox = ?2 AND received_at < MAX(
    (SELECT MAX(received_at) FROM told WHERE account = ?1 AND mailbox = ?2 AND fingerprint <> 0) - ?3,
    COALESCE((SELECT received_at FROM told WHERE account = ?1 AND mailbox = ?2
              ORDER BY received_at DESC LIMIT 1 OFFSET ?4 - 1), 0))";

fn select_pending() -> String {
    format!("SELECT {EVENT_COLUMNS} FROM events WHERE sequence > ?1 ORDER BY sequence LIMIT ?2")
}

impl Journal for SqliteJournal {
    fn commit(
        &mut self,
        entries: &[Entry],
        positions: &[(String, LanePosition)],
    ) -> Result<Vec<Result<Receipt, Superseded>>, JournalError> {
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
        keep_alive(&self.db, now).map_err(failed)
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
            events.push(JournalledEvent { sequence, event: Arc::new(event) });
        }
        Ok(events)
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
    use std::io::{Read, Seek, SeekFrom, Write};
    use std::os::unix::fs::PermissionsExt;

    use rusqlite::StatementStatus;

    use super::*;
    use crate::event::{Event, EventBody, MailboxName, MonitorState};
    use crate::messages::Batch;

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
    fn damage_is_found_at_the_start_and_never_taken_for_a_new_state() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.db");
        fs::write(&path, "").unwrap();
        assert!(matches!(open(dir.path()), Err(OpenError::Readable { .. })));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(matches!(open(dir.path()), Err(OpenError::Damaged { .. })));
        let (_, origin) = SqliteJournal::open(dir.path(), false, true).unwrap();
        assert_eq!(origin, StateOrigin::New);
        let aside = fs::read_dir(dir.path()).unwrap().filter_map(Result::ok);
        assert!(aside.map(|file| file.file_name()).any(|name| name.to_string_lossy().contains("damaged-")));
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

    #[test]
    fn what_an_unfinished_first_start_left_is_no_damage() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["journal.db", "journal.db-wal", UNFINISHED] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        assert_eq!(open(dir.path()).unwrap().1, StateOrigin::New);
        assert_eq!(open(dir.path()).unwrap().1, StateOrigin::Existing);
    }

    #[test]
    fn state_that_is_required_must_be_there() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(SqliteJournal::open(dir.path(), true, false), Err(OpenError::NoState { .. })));
    }
}
