//! Files for their owner's eyes only, there as a whole or not at all.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// Writes `text` with mode 0600; over a file that is there only where that is meant.
///
/// # Errors
/// Nothing is left behind then.
pub(super) fn write(path: &Path, text: &str, over: bool) -> io::Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let draft = dir.join(format!(".{name}.{}", std::process::id()));
    let written = fill(&draft, text)
        .and_then(|()| if over { fs::rename(&draft, path) } else { fs::hard_link(&draft, path) });
    // Gone already where it was renamed.
    let _ = fs::remove_file(&draft);
    written?;
    File::open(dir)?.sync_all()
}

fn fill(draft: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(draft)?;
    file.write_all(text.as_bytes())?;
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
        write(&path, "one", false).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(write(&path, "two", false).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path).unwrap(), "one");
        write(&path, "three", true).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "three");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no draft is left");
    }
}
