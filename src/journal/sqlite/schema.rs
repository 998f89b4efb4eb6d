//! The tables, and how those of older versions become them.

use rusqlite::Connection;

/// "idlw": tells our databases from others.
pub(super) const APPLICATION_ID: i64 = 0x6964_6c77;

/// Of the tables below.
pub(super) const SCHEMA_VERSION: i64 = 6;

/// Its tables.
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

/// An empty journal.
pub(super) fn create(db: &mut Connection) -> rusqlite::Result<()> {
    db.pragma_update(None, "journal_mode", "WAL")?;
    let transaction = db.transaction()?;
    transaction.execute_batch(SCHEMA)?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    transaction.commit()
}

/// To the newest version.
pub(super) fn upgrade(db: &mut Connection) -> rusqlite::Result<()> {
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
