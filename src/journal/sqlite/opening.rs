//! A journal is begun, found again, or refused with the reason.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use jiff::Timestamp;
use rusqlite::Connection;
use rusqlite::config::DbConfig;

use super::schema::{APPLICATION_ID, SCHEMA_VERSION, create, upgrade};
use super::{SqliteJournal, damage, failed};
use crate::journal::{OpenError, StateOrigin};

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

pub(super) fn not_opened(path: &Path, error: rusqlite::Error) -> OpenError {
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

/// For use; the bytes of events that wait.
fn settle(db: &Connection) -> rusqlite::Result<u64> {
    db.pragma_update(None, "synchronous", "FULL")?;
    db.pragma_update(None, "wal_autocheckpoint", 1000)?;
    // KiB. More is kept from the first burst on, and makes nothing faster: what is read again is in the kernel's cache.
    db.pragma_update(None, "cache_size", -512)?;
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn open(dir: &Path) -> Result<(SqliteJournal, StateOrigin), OpenError> {
        SqliteJournal::open(dir, false, false)
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
