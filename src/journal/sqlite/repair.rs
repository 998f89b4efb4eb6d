//! A damaged journal: what is whole of it becomes a journal again, and what is lost is told.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::types::Value;
use rusqlite::{Connection, Row, params, params_from_iter};

use super::knowledge::{columns, table_names};
use super::opening::{FILES, sync};
use super::rows::{EVENT_COLUMNS, LANE_COLUMNS, cursor_at, event_at, insert_lane, lane_at};
use super::{SqliteJournal, damage, schema};
use crate::journal::{LanePosition, OpenError, StateOrigin};
use crate::text;

/// Losses that are named.
const MOST_NAMED: usize = 50;

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Repaired {
    /// There was nothing to do.
    Sound,
    /// It is whole again.
    Whole {
        /// Cursors of mailboxes that were kept.
        mailboxes: usize,
        /// Events that were kept.
        events: usize,
        /// What was not, in words.
        lost: Vec<String>,
        /// Where the damaged files are now.
        aside: PathBuf,
    },
}

/// Makes the journal in `dir` whole; whoever calls holds the directory's lock. The damaged one is kept aside.
///
/// # Errors
/// Where nothing of it can be read, or nothing can be written.
pub fn repair(dir: &Path) -> Result<Repaired, OpenError> {
    let path = dir.join("journal.db");
    match SqliteJournal::open(dir, true, false) {
        Ok((_, StateOrigin::Existing | StateOrigin::New)) => return Ok(Repaired::Sound),
        Err(OpenError::Damaged { .. }) => {}
        Err(error) => return Err(error),
    }
    let failed = |cause| OpenError::StateDir { path: path.clone(), cause };
    let work = dir.join("repair.tmp");
    let _ = fs::remove_dir_all(&work);
    fs::create_dir(&work).map_err(failed)?;
    let made = salvage(dir, &work).map_err(|cause| match cause {
        Failure::Sql(error) => OpenError::Damaged { path: path.clone(), cause: error.to_string() },
        Failure::Nothing => {
            OpenError::Damaged { path: path.clone(), cause: "nothing of it can be read".to_owned() }
        }
        Failure::Io(cause) => failed(cause),
    });
    let replaced = made.and_then(|salvaged| {
        let aside = replace(dir, &work).map_err(failed)?;
        let Salvaged { mailboxes, events, lost, .. } = salvaged;
        Ok(Repaired::Whole { mailboxes, events, lost: lost.told(), aside })
    });
    let _ = fs::remove_dir_all(&work);
    replaced
}

enum Failure {
    Nothing,
    Sql(rusqlite::Error),
    Io(io::Error),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// What is missing, with how many are not named.
#[derive(Debug, Default)]
struct Lost {
    named: Vec<String>,
    unnamed: usize,
}

impl Lost {
    fn add(&mut self, what: &str) {
        if self.named.len() < MOST_NAMED {
            self.named.push(text::line(what, 300));
        } else {
            self.unnamed += 1;
        }
    }

    fn told(mut self) -> Vec<String> {
        if self.unnamed > 0 {
            self.named.push(format!("and {} more", self.unnamed));
        }
        self.named
    }
}

#[derive(Debug, Default)]
struct Salvaged {
    mailboxes: usize,
    events: usize,
    lost: Lost,
    /// The numbers that events had, and those that they have now.
    numbers: BTreeMap<u64, u64>,
    /// The last number that was given.
    given: u64,
}

/// From a copy, which may change while it is read, into a new journal beside it.
fn salvage(dir: &Path, work: &Path) -> Result<Salvaged, Failure> {
    for name in FILES {
        if dir.join(name).exists() {
            fs::copy(dir.join(name), work.join(name))?;
        }
    }
    let old = Connection::open(work.join("journal.db"))?;
    // Nothing at all can be read of what is no database; an empty file is an empty one to SQLite.
    let there = table_names(&old)?;
    if !there.iter().any(|table| table == "cursors") {
        return Err(Failure::Nothing);
    }
    let mut new = Connection::open(work.join("whole.db"))?;
    schema::create(&mut new)?;
    let mut salvaged = Salvaged::default();
    let transaction = new.transaction()?;
    for table in table_names(&transaction)? {
        if !there.contains(&table) {
            salvaged.lost.add(&format!("all of {table}"));
            continue;
        }
        match table.as_str() {
            "events" => salvaged.events(&old, &transaction)?,
            "cursors" => salvaged.cursors(&old, &transaction)?,
            // They follow the events.
            "lanes" => {}
            table => salvaged.others(&old, &transaction, table)?,
        }
    }
    if there.iter().any(|table| table == "lanes") {
        salvaged.lanes(&old, &transaction)?;
    }
    if let Some(cause) = damage::find(&transaction)? {
        return Err(io::Error::other(format!("what was kept is not whole: {cause}")).into());
    }
    transaction.commit()?;
    new.pragma_update(None, "wal_checkpoint", "TRUNCATE")?;
    new.close().map_err(|(_, error)| error)?;
    Ok(salvaged)
}

/// All rows that can be read: from the beginning to the first page that cannot be, and from the end.
fn rows<T>(
    db: &Connection,
    columns: &str,
    table: &str,
    order: &str,
    read: impl Fn(&Row<'_>) -> rusqlite::Result<T>,
) -> (Vec<rusqlite::Result<T>>, bool) {
    let run = |direction: &str| -> rusqlite::Result<(Vec<rusqlite::Result<T>>, bool)> {
        let order = order.split(", ").map(|key| format!("{key} {direction}")).collect::<Vec<_>>().join(", ");
        let mut statement = db.prepare(&format!("SELECT {columns} FROM {table} ORDER BY {order}"))?;
        let (mut found, mut rows) = (Vec::new(), statement.query([])?);
        loop {
            match rows.next() {
                Ok(Some(row)) => found.push(read(row)),
                Ok(None) => return Ok((found, true)),
                Err(_) => return Ok((found, false)),
            }
        }
    };
    let (mut found, whole) = run("ASC").unwrap_or((Vec::new(), false));
    if !whole {
        found.extend(run("DESC").map(|(found, _)| found).unwrap_or_default());
    }
    (found, whole)
}

impl Salvaged {
    /// Numbers have no holes: those that are kept move up to the last one that was given.
    fn events(&mut self, old: &Connection, new: &Connection) -> rusqlite::Result<()> {
        let read = |row: &Row<'_>| {
            let (sequence, event) = event_at(row)?;
            let columns: (String, u32) = (row.get("payload")?, row.get("crc")?);
            Ok((sequence, event.map(|event| (event.body.action().as_str(), columns))))
        };
        let (found, whole) = rows(old, EVENT_COLUMNS, "events", "sequence", read);
        let mut sound = BTreeMap::new();
        for row in found {
            match row {
                Ok((sequence, Some(event))) => drop(sound.insert(sequence, event)),
                Ok((sequence, None)) => self.lost.add(&format!("event {sequence}")),
                Err(_) => self.lost.add("an event"),
            }
        }
        if !whole {
            self.lost.add("events on a page that cannot be read");
        }
        let given: rusqlite::Result<u64> =
            old.query_row("SELECT MAX(seq) FROM sqlite_sequence WHERE name = 'events'", [], |row| row.get(0));
        let positions = rows(old, LANE_COLUMNS, "lanes", "name", lane_at).0.into_iter().flatten();
        let taken = positions.filter(|(.., sound)| *sound).map(|(_, position, _)| position.sequence);
        let known = taken.chain(sound.keys().copied()).max();
        self.given = given.unwrap_or_default().max(known.unwrap_or_default());
        let first = self.given + 1 - (sound.len() as u64).min(self.given);
        for (number, (sequence, (action, (payload, sum)))) in (first..).zip(sound) {
            new.prepare_cached(
                "INSERT INTO events (sequence, action, payload, crc) VALUES (?1, ?2, ?3, ?4)",
            )?
            .execute(params![number, action, payload, sum])?;
            self.numbers.insert(sequence, number);
            self.events += 1;
        }
        if self.events == 0 && self.given > 0 {
            new.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('events', ?1)", [self.given])?;
        }
        Ok(())
    }

    /// A mailbox whose cursor is lost is met anew: with a baseline.
    fn cursors(&mut self, old: &Connection, new: &Connection) -> rusqlite::Result<()> {
        let names = columns(new, "cursors")?;
        let read = |row: &Row<'_>| {
            let account: String = row.get("account")?;
            let (mailbox, _, sound) = cursor_at(row, &account)?;
            Ok((account, mailbox, sound, raw(row, &names)?))
        };
        let (found, whole) = rows(old, &names.join(", "), "cursors", "account, mailbox, uid_validity", read);
        for row in found {
            match row {
                Ok((_, _, true, values)) => self.mailboxes += insert(new, "cursors", &names, values)?,
                Ok((account, mailbox, false, _)) => {
                    self.lost.add(&format!("the cursor of {account}/{mailbox}: it begins with a baseline"));
                }
                Err(_) => self.lost.add("the cursor of a mailbox, which begins with a baseline"),
            }
        }
        if !whole {
            self.lost.add("cursors on a page that cannot be read: their mailboxes begin with a baseline");
        }
        Ok(())
    }

    /// An output whose position is lost gets again whatever is still there.
    fn lanes(&mut self, old: &Connection, new: &Connection) -> rusqlite::Result<()> {
        let (found, whole) = rows(old, LANE_COLUMNS, "lanes", "name", lane_at);
        for row in found {
            match row {
                Ok((name, position, true)) if position.sequence <= self.given => {
                    let sequence = self.renumbered(position.sequence);
                    insert_lane(new, &name, &LanePosition { sequence, ..position })?;
                }
                Ok((name, ..)) => {
                    self.lost.add(&format!("the position of output {name}: it may get events twice"))
                }
                Err(_) => self.lost.add("the position of an output, which may get events twice"),
            }
        }
        if !whole {
            self.lost.add("positions on a page that cannot be read: their outputs may get events twice");
        }
        Ok(())
    }

    /// Behind the last event that was taken, as numbers are now.
    fn renumbered(&self, position: u64) -> u64 {
        let taken = self.numbers.range(..=position).next_back().map(|(_, number)| *number);
        let before_all = || self.numbers.values().next().map_or(self.given, |first| first - 1);
        taken.unwrap_or_else(before_all)
    }

    fn others(&mut self, old: &Connection, new: &Connection, table: &str) -> rusqlite::Result<()> {
        let names = columns(new, table)?;
        let key = names.first().cloned().unwrap_or_default();
        let (found, whole) = rows(old, &names.join(", "), table, &key, |row| raw(row, &names));
        let mut gone = usize::from(!whole);
        for row in found {
            match row.and_then(|values| insert(new, table, &names, values)) {
                Ok(_) => {}
                Err(_) => gone += 1,
            }
        }
        if gone > 0 {
            self.lost.add(&format!("{gone} rows or pages of {table}"));
        }
        Ok(())
    }
}

fn raw(row: &Row<'_>, names: &[String]) -> rusqlite::Result<Vec<Value>> {
    names.iter().map(|name| row.get(name.as_str())).collect()
}

fn insert(new: &Connection, table: &str, names: &[String], values: Vec<Value>) -> rusqlite::Result<usize> {
    let places = vec!["?"; names.len()].join(", ");
    let insert = format!("INSERT OR IGNORE INTO {table} ({}) VALUES ({places})", names.join(", "));
    new.prepare_cached(&insert)?.execute(params_from_iter(values))
}

/// The damaged files get other names first: at no moment there is no journal, which would look like a first start.
fn replace(dir: &Path, work: &Path) -> io::Result<PathBuf> {
    let stamp = jiff::Timestamp::now().as_second();
    let aside = |name: &str| dir.join(format!("{name}.damaged-{stamp}"));
    for name in FILES.iter().filter(|name| dir.join(name).exists()) {
        fs::hard_link(dir.join(name), aside(name))?;
    }
    sync(dir)?;
    let whole = work.join("whole.db");
    fs::set_permissions(&whole, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    fs::File::open(&whole)?.sync_all()?;
    // A log of the one before must not be taken for one of the new.
    for name in FILES.iter().skip(1).filter(|name| dir.join(name).exists()) {
        fs::remove_file(dir.join(name))?;
    }
    fs::rename(whole, dir.join("journal.db"))?;
    sync(dir)?;
    Ok(aside("journal.db"))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::event::{Cursor, Event, EventBody, MailboxKey, MonitorState};
    use crate::journal::{Entry, Journal};
    use crate::messages::{Batch, Checkpoint, Replaces};

    fn key(number: u64) -> MailboxKey {
        MailboxKey { account: format!("account-{number}").as_str().into(), mailbox: "INBOX".into() }
    }

    /// Ten events and cursors; one output has three, another none.
    fn fill(dir: &Path, accounts: u64) {
        let (mut journal, _) = SqliteJournal::open(dir, false, false).unwrap();
        journal.lanes(&["out".to_owned(), "second".to_owned()]).unwrap();
        for number in 1..=accounts {
            let body = EventBody::MonitorState(MonitorState::Started);
            let (at, id) = (Timestamp::UNIX_EPOCH, format!("event-{number}"));
            let event = Event { at, id, account: None, body, filtered: None, redacted: Vec::new() };
            let cursor = Cursor::baseline(7, 100, None);
            let checkpoint = Some(Checkpoint { key: key(number), cursor, replaces: Replaces::Anything });
            let position = ("out".to_owned(), LanePosition { sequence: number.min(3), file: None });
            let batch = Batch { checkpoint, ..event.into() };
            journal.commit(&[Entry::new(batch)], &[position]).unwrap();
        }
        journal.tidy();
    }

    fn sql(dir: &Path, text: &str) {
        Connection::open(dir.join("journal.db")).unwrap().execute_batch(text).unwrap();
    }

    fn whole(dir: &Path) -> (usize, usize, Vec<String>) {
        let Ok(Repaired::Whole { mailboxes, events, lost, aside }) = repair(dir) else { panic!() };
        assert!(aside.exists() && !dir.join("repair.tmp").exists());
        (mailboxes, events, lost)
    }

    fn ids(journal: &mut SqliteJournal, after: u64) -> Vec<String> {
        journal.pending(after, 100).unwrap().into_iter().map(|event| event.event.id.clone()).collect()
    }

    #[test]
    fn a_sound_journal_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fill(dir.path(), 10);
        assert_eq!(repair(dir.path()).unwrap(), Repaired::Sound);
    }

    #[test]
    fn what_is_whole_is_kept_and_each_loss_is_told() {
        let dir = tempfile::tempdir().unwrap();
        fill(dir.path(), 10);
        sql(
            dir.path(),
            "UPDATE events SET payload = replace(payload, 'event-2', 'event-x') WHERE sequence = 2;
             UPDATE events SET payload = '' WHERE sequence = 7;
             UPDATE cursors SET uid_next = 5 WHERE account = 'account-4';",
        );
        assert!(SqliteJournal::open(dir.path(), true, false).is_err());
        let (mailboxes, events, lost) = whole(dir.path());
        let expected = ["the cursor of account-4/INBOX: it begins with a baseline", "event 2", "event 7"];
        assert_eq!((mailboxes, events, lost.iter().map(String::as_str).collect()), (9, 8, expected.to_vec()));
        let (mut journal, _) = SqliteJournal::open(dir.path(), true, false).unwrap();
        assert_eq!(journal.last().unwrap(), 10, "no number is given twice");
        assert_eq!(journal.cursor(&key(4)).unwrap(), None);
        assert!(journal.cursor(&key(5)).unwrap().is_some());
        // Whoever had three of ten has two of eight.
        let lanes = journal.lanes(&["out".to_owned(), "second".to_owned()]).unwrap();
        let lacked: Vec<_> = lanes.iter().map(|lane| ids(&mut journal, lane.sequence)).collect();
        let rest = ["event-4", "event-5", "event-6", "event-8", "event-9", "event-10"];
        assert_eq!(lacked[0], rest);
        assert_eq!(lacked[1], [&["event-1", "event-3"][..], &rest].concat());
    }

    #[test]
    fn a_position_that_is_lost_gives_all_again() {
        let dir = tempfile::tempdir().unwrap();
        fill(dir.path(), 10);
        sql(dir.path(), "UPDATE lanes SET position = 9 WHERE name = 'out'");
        let (.., lost) = whole(dir.path());
        assert_eq!(lost, ["the position of output out: it may get events twice"]);
        let (mut journal, _) = SqliteJournal::open(dir.path(), true, false).unwrap();
        assert_eq!(journal.lanes(&["out".to_owned()]).unwrap(), [LanePosition::default()]);
    }

    /// Whole pages are overwritten: whatever becomes of them, what is there afterwards opens.
    #[test]
    fn pages_that_cannot_be_read_cost_what_was_on_them() {
        let (mut kept, mut gone) = (0, 0);
        for page in 1..12 {
            let dir = tempfile::tempdir().unwrap();
            fill(dir.path(), 200);
            let path = dir.path().join("journal.db");
            let mut bytes = fs::read(&path).unwrap();
            bytes[page * 4096..(page + 1) * 4096].fill(0xa5);
            fs::write(&path, bytes).unwrap();
            match repair(dir.path()) {
                Ok(Repaired::Whole { mailboxes, lost, .. }) => {
                    assert!(!lost.is_empty() || mailboxes == 200, "page {page}");
                    kept += mailboxes;
                    SqliteJournal::open(dir.path(), true, false).unwrap();
                }
                Ok(Repaired::Sound) => {}
                Err(_) => gone += 1,
            }
        }
        assert!(kept > 500, "{kept}, {gone} times nothing");
    }

    #[test]
    fn of_what_is_no_database_nothing_is_made() {
        let dir = tempfile::tempdir().unwrap();
        fill(dir.path(), 10);
        for bytes in [&b""[..], b"not a database, and longer than a header of one"] {
            fs::write(dir.path().join("journal.db"), bytes).unwrap();
            assert!(matches!(repair(dir.path()), Err(OpenError::Damaged { .. })));
            assert_eq!(fs::read(dir.path().join("journal.db")).unwrap(), bytes);
        }
    }
}
