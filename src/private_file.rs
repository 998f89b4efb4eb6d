//! Files for their owner's eyes only, there as a whole or not at all.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// Writes `bytes` with mode 0600; over a file that is there only where that is meant. When this returns, it survives a loss of
/// power. Other processes may write the same file: it is one of theirs or ours, whole.
///
/// # Errors
/// What was there before still is then, and nothing is left behind.
pub(crate) fn write(path: &Path, bytes: &[u8], over: bool) -> io::Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let draft = dir.join(format!(".{name}.{}", std::process::id()));
    // Of a process that had our number, and was killed here.
    let _ = fs::remove_file(&draft);
    let written = fill(&draft, bytes)
        .and_then(|()| if over { fs::rename(&draft, path) } else { fs::hard_link(&draft, path) });
    // Gone already where it was renamed.
    let _ = fs::remove_file(&draft);
    written?;
    File::open(dir)?.sync_all()
}

fn fill(draft: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(draft)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_is_private_and_never_written_over_unless_that_is_meant() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/idlewatch.toml");
        write(&path, b"one", false).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(write(&path, b"two", false).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path).unwrap(), "one");
        write(&path, b"three", true).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "three");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no draft is left");
    }

    #[test]
    fn what_a_killed_process_left_and_what_another_writes_are_in_nobodys_way() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.json");
        for pid in [std::process::id(), 1] {
            fs::write(dir.path().join(format!(".x.json.{pid}")), "half").unwrap();
        }
        write(&path, b"whole", true).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "whole");
        assert_eq!(fs::read_to_string(dir.path().join(".x.json.1")).unwrap(), "half");
    }
}
