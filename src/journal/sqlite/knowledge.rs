//! What a journal knows of mailboxes, logins and hosts: looked at, forgotten, carried to another machine. Events and positions are
//! about outputs, and stay where they are.

use std::collections::BTreeSet;
use std::io::{BufRead, Write};
use std::path::Path;

use jiff::Timestamp;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags, Row, Transaction, params_from_iter};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::rows::cursor_at;
use super::schema::SCHEMA_VERSION;
use super::{SqliteJournal, damage};
use crate::event::{AccountId, Cursor, MailboxName};
use crate::journal::OpenError;
use crate::refusals::Refusals;
use crate::text::counted;

/// Begins an export: the format's version.
const FORMAT: u32 = 1;

/// Bytes of one line of an export: a cursor with ten thousand holes has less.
const MOST_LINE: usize = 1 << 20;

/// Tables that are not knowledge.
const OF_OUTPUTS: [&str; 3] = ["events", "lanes", "monitor"];

/// Why not.
#[derive(Debug, thiserror::Error)]
pub enum KnowledgeError {
    /// There is no journal, or not one of ours.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The journal cannot be read or written.
    #[error("the journal: {0}")]
    Journal(#[from] rusqlite::Error),
    /// The export cannot be read or written.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// Its end is missing.
    #[error(
        "it was cut behind {}: its last line, which counts them, is missing; --cut takes what there is", counted(*.rows, "row")
    )]
    Cut {
        /// Those that are there.
        rows: usize,
    },
    /// Its end counts others.
    #[error("{rows} rows are there, and {of} were written")]
    Missing {
        /// Those that are there.
        rows: usize,
        /// As its end has it.
        of: usize,
    },
    /// A line of an export is none.
    #[error("line {line}: {message}")]
    Line {
        /// Which.
        line: usize,
        /// Why.
        message: String,
    },
    /// What is to come in is there already.
    #[error(
        "known here already: {}, {example} for one; with --replace those of the file count", counted(*.mailboxes, "mailbox")
    )]
    Known {
        /// How many.
        mailboxes: usize,
        /// One of them.
        example: String,
    },
    /// What came in is not what was written once.
    #[error("{0}")]
    Damaged(String),
}

/// What is known of one mailbox.
#[derive(Clone, Debug, PartialEq)]
pub struct Known {
    /// Its account.
    pub account: AccountId,
    /// Its name.
    pub mailbox: MailboxName,
    /// Where it stands.
    pub cursor: Cursor,
    /// When that was last stored.
    pub updated_at: Timestamp,
    /// Since when it, or its account, is not there any more.
    pub gone_since: Option<Timestamp>,
    /// Whether the row is what was written.
    pub sound: bool,
}

/// The journal in this directory, to read only; another process may be using it.
fn look(dir: &Path) -> Result<Connection, OpenError> {
    let path = dir.join("journal.db");
    let failed = |error: rusqlite::Error| OpenError::StateDir {
        path: path.clone(),
        cause: std::io::Error::other(error),
    };
    if !path.exists() {
        return Err(OpenError::NoState { path: dir.to_owned() });
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(&path, flags).map_err(failed)?;
    let version: i64 = db.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(failed)?;
    match version {
        SCHEMA_VERSION => Ok(db),
        version if version > SCHEMA_VERSION => Err(OpenError::Newer { path, version }),
        version => Err(OpenError::Older { path, version }),
    }
}

/// All mailboxes that are known, by account and name.
///
/// # Errors
/// Where the journal cannot be read.
pub fn list(dir: &Path) -> Result<Vec<Known>, KnowledgeError> {
    let db = look(dir)?;
    let mut statement = db.prepare("SELECT * FROM cursors ORDER BY account, mailbox")?;
    let rows = statement.query_map([], known_at)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

fn known_at(row: &Row<'_>) -> rusqlite::Result<Known> {
    let account: String = row.get("account")?;
    let (mailbox, cursor, sound) = cursor_at(row, &account)?;
    let updated_at = Timestamp::from_millisecond(row.get("updated_at")?).unwrap_or_default();
    let (gone, absent): (Option<i64>, Option<i64>) = (row.get("gone_since")?, row.get("absent_since")?);
    let gone_since = gone.into_iter().chain(absent).min();
    let gone_since = gone_since.and_then(|at| Timestamp::from_millisecond(at).ok());
    Ok(Known { account: AccountId::new(account), mailbox, cursor, updated_at, gone_since, sound })
}

/// The refused logins of an account.
///
/// # Errors
/// Where the journal cannot be read.
pub fn refusals(dir: &Path, account: &str) -> Result<Refusals, KnowledgeError> {
    let db = look(dir)?;
    let mut statement = db.prepare("SELECT logins FROM refusals WHERE account = ?1")?;
    let logins: Vec<String> =
        statement.query_map([account], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    Ok(logins.first().and_then(|logins| serde_json::from_str(logins).ok()).unwrap_or_default())
}

/// A mailbox, or a whole account with its refused logins, is as if it was never met. How many mailboxes that were.
/// Whoever calls holds the directory's lock.
///
/// # Errors
/// Where the journal cannot be written.
pub fn forget(
    journal: &mut SqliteJournal,
    account: &str,
    mailbox: Option<&str>,
) -> Result<usize, KnowledgeError> {
    let transaction = journal.connection().transaction()?;
    let gone = forget_in(&transaction, account, mailbox)?;
    transaction.commit()?;
    Ok(gone)
}

fn forget_in(transaction: &Transaction<'_>, account: &str, mailbox: Option<&str>) -> rusqlite::Result<usize> {
    let mut mailboxes = 0;
    for Table { name, columns } in tables(transaction)? {
        let has = |column: &str| columns.iter().any(|known| known == column);
        let gone = match mailbox {
            Some(mailbox) if has("account") && has("mailbox") => transaction.execute(
                &format!("DELETE FROM {name} WHERE account = ?1 AND mailbox = ?2"),
                [account, mailbox],
            )?,
            None if has("account") => {
                transaction.execute(&format!("DELETE FROM {name} WHERE account = ?1"), [account])?
            }
            _ => 0,
        };
        mailboxes += if name == "cursors" { gone } else { 0 };
    }
    Ok(mailboxes)
}

/// A table of knowledge; both names are of our own schema.
struct Table {
    name: String,
    columns: Vec<String>,
}

fn tables(db: &Connection) -> rusqlite::Result<Vec<Table>> {
    let all = table_names(db)?;
    let names = all.into_iter().filter(|name| !OF_OUTPUTS.contains(&name.as_str()));
    names.map(|name| Ok(Table { columns: columns(db, &name)?, name })).collect()
}

pub(super) fn table_names(db: &Connection) -> rusqlite::Result<Vec<String>> {
    let made =
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name";
    db.prepare(made)?.query_map([], |row| row.get(0))?.collect()
}

pub(super) fn columns(db: &Connection, table: &str) -> rusqlite::Result<Vec<String>> {
    let mut statement = db.prepare("SELECT name FROM pragma_table_info(?1)")?;
    statement.query_map([table], |row| row.get(0))?.collect()
}

/// The first line of an export.
#[derive(Debug, Serialize, Deserialize)]
struct Head {
    idlewatch_state: u32,
    schema: i64,
    exported_at: Timestamp,
}

/// One row of a table.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    table: String,
    row: Map<String, Value>,
}

/// The last line of an export: without it, it was cut.
#[derive(Debug, Serialize, Deserialize)]
struct End {
    end: Carried,
}

/// What an import takes, beside what is whole and new.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Import {
    /// Mailboxes that are known already.
    pub replace: bool,
    /// What there is of an export that was cut.
    pub cut: bool,
}

/// What came out or in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carried {
    /// Mailboxes.
    pub mailboxes: usize,
    /// Rows of all tables.
    pub rows: usize,
}

/// Writes all knowledge as JSON lines, as it is at one moment. Mailboxes are blind from then on: whoever takes it in tells what
/// came meanwhile.
///
/// # Errors
/// Where the journal cannot be read, or `out` cannot be written.
pub fn export(dir: &Path, out: &mut impl Write) -> Result<Carried, KnowledgeError> {
    let mut db = look(dir)?;
    let moment = db.transaction()?;
    let exported_at = Timestamp::now();
    let head = Head { idlewatch_state: FORMAT, schema: SCHEMA_VERSION, exported_at };
    writeln!(out, "{}", serde_json::to_string(&head).unwrap_or_default())?;
    let alive_at = moment.query_row("SELECT MAX(value) FROM monitor WHERE name = 'alive_at'", [], |row| {
        row.get::<_, Option<i64>>(0)
    })?;
    let blind_since = alive_at.unwrap_or_else(|| exported_at.as_millisecond());
    let mut carried = Carried::default();
    for Table { name, columns } in tables(&moment)? {
        let mut statement = moment.prepare(&format!("SELECT {} FROM {name}", columns.join(", ")))?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let mut values = values(row, &columns)?;
            if let Some(blind) = values.get_mut("blind_since").filter(|blind| blind.is_null()) {
                *blind = json!(blind_since);
            }
            let line = Line { table: name.clone(), row: values };
            writeln!(out, "{}", serde_json::to_string(&line).unwrap_or_default())?;
            carried.rows += 1;
            carried.mailboxes += usize::from(name == "cursors");
        }
    }
    writeln!(out, "{}", serde_json::to_string(&End { end: carried }).unwrap_or_default())?;
    out.flush()?;
    Ok(carried)
}

fn values(row: &Row<'_>, columns: &[String]) -> rusqlite::Result<Map<String, Value>> {
    let value = |column: &String| {
        let value = match row.get_ref(column.as_str())? {
            ValueRef::Integer(number) => json!(number),
            ValueRef::Real(number) => json!(number),
            ValueRef::Text(text) => json!(String::from_utf8_lossy(text)),
            ValueRef::Null | ValueRef::Blob(_) => Value::Null,
        };
        Ok((column.clone(), value))
    };
    columns.iter().map(value).collect()
}

/// Takes an export in: all of it, or nothing. Whoever calls holds the directory's lock.
///
/// # Errors
/// Where a line is none, where mailboxes are known already (unless they are to be replaced), where the journal cannot be
/// written.
pub fn import(
    journal: &mut SqliteJournal,
    from: &mut impl BufRead,
    how: Import,
) -> Result<Carried, KnowledgeError> {
    let (lines, end) = read(from)?;
    let rows = lines.len();
    match end {
        Some(end) if end.rows != rows => return Err(KnowledgeError::Missing { rows, of: end.rows }),
        None if !how.cut => return Err(KnowledgeError::Cut { rows }),
        _ => {}
    }
    let transaction = journal.connection().transaction()?;
    make_room(&transaction, &lines, how.replace)?;
    let tables = tables(&transaction)?;
    let mut carried = Carried::default();
    for (number, line) in &lines {
        let wrong = |message: String| KnowledgeError::Line { line: *number, message };
        insert(&transaction, &tables, line).map_err(wrong)?;
        carried.rows += 1;
        carried.mailboxes += usize::from(line.table == "cursors");
    }
    if let Some(cause) = damage::find(&transaction)? {
        return Err(KnowledgeError::Damaged(cause));
    }
    transaction.commit()?;
    Ok(carried)
}

/// Rows, by the numbers of their lines.
type Rows = Vec<(usize, Line)>;

/// The rows; and what the end says, where it came to it.
fn read(from: &mut impl BufRead) -> Result<(Rows, Option<Carried>), KnowledgeError> {
    let mut lines = Vec::new();
    let mut end = None;
    let mut number = 0;
    loop {
        let mut text = Vec::new();
        let read = std::io::Read::take(&mut *from, MOST_LINE as u64 + 1).read_until(b'\n', &mut text)?;
        number += 1;
        let wrong = |message: &str| KnowledgeError::Line { line: number, message: message.to_owned() };
        if read > MOST_LINE {
            return Err(wrong("too long"));
        }
        match (read, number) {
            (0, 1) => return Err(wrong("there is no export")),
            (0, _) => return Ok((lines, end)),
            _ if end.is_some() => return Err(wrong("nothing comes behind the end of an export")),
            (_, 1) => head(&text).map_err(|message| wrong(&message))?,
            _ => match serde_json::from_slice::<End>(&text) {
                Ok(told) => end = Some(told.end),
                Err(_) => lines.push((
                    number,
                    serde_json::from_slice(&text).map_err(|error| wrong(&error.to_string()))?,
                )),
            },
        }
    }
}

fn head(text: &[u8]) -> Result<(), String> {
    let Head { idlewatch_state, schema, .. } = serde_json::from_slice(text)
        .map_err(|_| "expected what `idlewatch state export` writes".to_owned())?;
    match (idlewatch_state, schema) {
        (FORMAT, SCHEMA_VERSION) => Ok(()),
        (version, schema) => {
            Err(format!("of another version of idlewatch (format {version}, schema {schema})"))
        }
    }
}

/// A mailbox has one cursor, whatever its epoch.
fn make_room(
    transaction: &Transaction<'_>,
    lines: &[(usize, Line)],
    replace: bool,
) -> Result<(), KnowledgeError> {
    let name =
        |line: &Line, key: &str| line.row.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let cursors = lines.iter().filter(|(_, line)| line.table == "cursors");
    let coming: BTreeSet<_> =
        cursors.map(|(_, line)| (name(line, "account"), name(line, "mailbox"))).collect();
    let mut known = transaction.prepare("SELECT 1 FROM cursors WHERE account = ?1 AND mailbox = ?2")?;
    let mut there = Vec::new();
    for (account, mailbox) in &coming {
        if known.exists([account, mailbox])? {
            there.push((account, mailbox));
        }
    }
    if let Some((account, mailbox)) = there.first()
        && !replace
    {
        let example = crate::text::line(&format!("{account}/{mailbox}"), 200);
        return Err(KnowledgeError::Known { mailboxes: there.len(), example });
    }
    for (account, mailbox) in there {
        forget_in(transaction, account, Some(mailbox))?;
    }
    Ok(())
}

/// Tables and columns are those of our own schema, or it is a mistake.
fn insert(transaction: &Transaction<'_>, tables: &[Table], Line { table, row }: &Line) -> Result<(), String> {
    let Some(Table { name, columns }) = tables.iter().find(|known| known.name == *table) else {
        return Err("there is no such table".to_owned());
    };
    if let Some(unknown) = row.keys().find(|key| !columns.contains(key)) {
        return Err(format!("there is no {} in {name}", crate::text::line(unknown, 64)));
    }
    let columns: Vec<_> =
        columns.iter().filter_map(|column| Some((column.as_str(), row.get(column)?))).collect();
    let values: Option<Vec<_>> = columns.iter().map(|(_, value)| stored(value)).collect();
    let values = values.ok_or("a value is neither a number nor a text")?;
    let names: Vec<_> = columns.iter().map(|(name, _)| *name).collect();
    let places = vec!["?"; names.len()].join(", ");
    let insert = format!("INSERT OR REPLACE INTO {name} ({}) VALUES ({places})", names.join(", "));
    let done =
        transaction.prepare_cached(&insert).and_then(|mut insert| insert.execute(params_from_iter(values)));
    done.map(drop).map_err(|error| error.to_string())
}

fn stored(value: &Value) -> Option<rusqlite::types::Value> {
    match value {
        Value::Null => Some(rusqlite::types::Value::Null),
        Value::String(text) => Some(rusqlite::types::Value::Text(text.clone())),
        Value::Number(number) => number.as_i64().map(rusqlite::types::Value::Integer),
        Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::MailboxKey;
    use crate::journal::{Entry, Journal};
    use crate::messages::{Batch, Checkpoint, Note, Replaces};

    fn key(account: &str, mailbox: &str) -> MailboxKey {
        MailboxKey { account: account.into(), mailbox: mailbox.into() }
    }

    fn journal(dir: &Path) -> SqliteJournal {
        SqliteJournal::open(dir, false, false).unwrap().0
    }

    fn store(journal: &mut SqliteJournal, key: MailboxKey, uid_next: u32) {
        let cursor = Cursor::baseline(7, uid_next, None);
        let checkpoint = Some(Checkpoint { key, cursor, replaces: Replaces::Anything });
        journal.commit(&[Entry::new(Batch { checkpoint, ..Batch::default() })], &[]).unwrap();
    }

    /// Two accounts, three mailboxes, a refused login.
    fn filled(dir: &Path) -> SqliteJournal {
        let mut journal = journal(dir);
        store(&mut journal, key("a", "INBOX"), 11);
        store(&mut journal, key("a", "Sent"), 12);
        store(&mut journal, key("b", "INBOX"), 13);
        let mut refusals = Refusals::default();
        refusals.add(None, None, Timestamp::now());
        journal.commit(&[Entry::new(Note::Refusals { account: "a".into(), refusals }.into())], &[]).unwrap();
        journal
    }

    fn names(dir: &Path) -> Vec<String> {
        let name = |known: Known| format!("{}/{} {}", known.account, known.mailbox, known.cursor.uid_next);
        list(dir).unwrap().into_iter().map(name).collect()
    }

    #[test]
    fn what_is_known_is_seen_beside_a_running_monitor_and_goes_only_as_asked() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(list(dir.path()), Err(KnowledgeError::Open(OpenError::NoState { .. }))));
        let mut journal = filled(dir.path());
        assert_eq!(names(dir.path()), ["a/INBOX 11", "a/Sent 12", "b/INBOX 13"]);
        assert!(!refusals(dir.path(), "a").unwrap().is_empty());
        assert_eq!(forget(&mut journal, "a", Some("Sent")).unwrap(), 1);
        assert_eq!(names(dir.path()), ["a/INBOX 11", "b/INBOX 13"]);
        assert!(!refusals(dir.path(), "a").unwrap().is_empty(), "of the whole account");
        assert_eq!(forget(&mut journal, "nobody", None).unwrap(), 0);
        assert_eq!(forget(&mut journal, "a", None).unwrap(), 1);
        assert_eq!(names(dir.path()), ["b/INBOX 13"]);
        assert!(refusals(dir.path(), "a").unwrap().is_empty());
        assert_eq!(journal.memory(&key("a", "INBOX")).unwrap(), Memory::default());
    }

    use crate::memory::Memory;

    fn exported(dir: &Path) -> String {
        let mut out = Vec::new();
        export(dir, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_goes_out_comes_in_again_and_is_blind_since() {
        let [from, to] = [(), ()].map(|()| tempfile::tempdir().unwrap());
        let mut source = filled(from.path());
        source.begin(Timestamp::from_second(1_000).unwrap()).unwrap();
        let text = exported(from.path());
        let mut target = journal(to.path());
        let carried = import(&mut target, &mut text.as_bytes(), Import::default()).unwrap();
        assert_eq!(carried, Carried { mailboxes: 3, rows: 7 });
        assert_eq!(names(to.path()), names(from.path()));
        assert_eq!(refusals(to.path(), "a").unwrap(), refusals(from.path(), "a").unwrap());
        let cursor = target.cursor(&key("b", "INBOX")).unwrap().unwrap();
        assert_eq!(cursor.blind_since, Timestamp::from_second(1_000).ok());
        drop(target);
        assert!(SqliteJournal::open(to.path(), true, false).is_ok());
    }

    #[test]
    fn what_is_known_already_is_replaced_only_where_that_is_wanted() {
        let [from, to] = [(), ()].map(|()| tempfile::tempdir().unwrap());
        drop(filled(from.path()));
        let text = exported(from.path());
        let mut target = journal(to.path());
        store(&mut target, key("a", "INBOX"), 99);
        let refused = import(&mut target, &mut text.as_bytes(), Import::default()).unwrap_err();
        assert!(
            refused.to_string().starts_with("known here already: 1 mailbox, a/INBOX for one"),
            "{refused}"
        );
        assert_eq!(names(to.path()), ["a/INBOX 99"]);
        import(&mut target, &mut text.as_bytes(), Import { replace: true, cut: false }).unwrap();
        assert_eq!(names(to.path()), ["a/INBOX 11", "a/Sent 12", "b/INBOX 13"]);
    }

    #[test]
    fn what_was_not_written_by_an_export_changes_nothing() {
        let [from, to] = [(), ()].map(|()| tempfile::tempdir().unwrap());
        drop(filled(from.path()));
        let text = exported(from.path());
        let head = text.lines().next().unwrap();
        for (text, told) in [
            (String::new(), "line 1: there is no export"),
            ("{}\n".to_owned(), "line 1: expected what `idlewatch state export` writes"),
            (text.replace("\"schema\":", "\"schema\":9"), "line 1: of another version"),
            (
                text.replace("\"uid_next\":12", "\"uid_next\":13"),
                "the cursor of a/Sent is not what was written",
            ),
            (text.replace("\"rows\":7", "\"rows\":8"), "7 rows are there, and 8 were written"),
            (format!("{text}{head}\n"), "line 10: nothing comes behind the end"),
            (format!("{head}\n{{\"table\":\"events\",\"row\":{{}}}}\n"), "line 2: there is no such table"),
            (
                format!("{head}\n{{\"table\":\"hosts\",\"row\":{{\"x; DROP\":1}}}}\n"),
                "line 2: there is no x; DROP in hosts",
            ),
            (
                format!("{head}\n{{\"table\":\"hosts\",\"row\":{{\"host\":[]}}}}\n"),
                "line 2: a value is neither",
            ),
            (format!("{head}\n{}\n", "x".repeat(MOST_LINE + 1)), "line 2: too long"),
        ] {
            let mut target = journal(to.path());
            let cut = Import { replace: false, cut: true };
            let error = import(&mut target, &mut text.as_bytes(), cut).unwrap_err().to_string();
            assert!(error.starts_with(told), "{error}");
            assert!(names(to.path()).is_empty());
        }
    }

    /// Between two lines: nothing else would tell it from a whole one.
    #[test]
    fn an_export_that_was_cut_is_not_taken_for_a_whole_one() {
        let [from, to] = [(), ()].map(|()| tempfile::tempdir().unwrap());
        drop(filled(from.path()));
        let text = exported(from.path());
        let lines: Vec<_> = text.lines().collect();
        let cut = lines[..lines.len() - 2].join("\n") + "\n";
        let mut target = journal(to.path());
        let error = import(&mut target, &mut cut.as_bytes(), Import::default()).unwrap_err().to_string();
        assert!(error.starts_with("it was cut behind 6 rows") && names(to.path()).is_empty(), "{error}");
        let taken = import(&mut target, &mut cut.as_bytes(), Import { replace: false, cut: true }).unwrap();
        assert_eq!(taken.rows, 6);
    }
}
