//! One process per state directory: a lock file, held while the process lives.
//!
//! Not SQLite's own lock, so that `sqlite3` can look into a running monitor's journal.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use super::OpenError;

/// The state directory, ours while this lives.
#[derive(Debug)]
pub struct StateLock {
    _file: File,
}

impl StateLock {
    /// Makes `dir` if it is not there, and locks it.
    ///
    /// # Errors
    /// Where it cannot be used, others may enter it, or another process holds it.
    pub fn take(dir: &Path) -> Result<Self, OpenError> {
        let failed = |cause| OpenError::StateDir { path: dir.to_owned(), cause };
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
        let mode = fs::metadata(dir).map_err(failed)?.mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(OpenError::Exposed { path: dir.to_owned(), mode });
        }
        let path = dir.join("lock");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                let _ = Read::by_ref(&mut file).take(20).read_to_string(&mut pid);
                let pid = Some(pid.trim().to_owned()).filter(|pid| pid.parse::<u32>().is_ok());
                return Err(OpenError::Locked { path: dir.to_owned(), pid });
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(failed)?;
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_second_process_is_refused_and_told_by_whom() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        let first = StateLock::take(&state).unwrap();
        let error = StateLock::take(&state).unwrap_err();
        assert!(
            matches!(&error, OpenError::Locked { pid: Some(pid), .. } if *pid == std::process::id().to_string())
        );
        drop(first);
        StateLock::take(&state).unwrap();
    }

    #[test]
    fn a_directory_open_to_others_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        assert!(matches!(StateLock::take(dir.path()), Err(OpenError::Exposed { mode: 0o755, .. })));
    }
}
