//! What a journal knows of mailboxes, for a process that writes nothing.

use std::io;
use std::path::Path;

use rusqlite::Connection;

use super::SqliteJournal;
use super::opening::not_opened;
use super::schema::SCHEMA_VERSION;
use crate::journal::{OpenError, StateOrigin};

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
