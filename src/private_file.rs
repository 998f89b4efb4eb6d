//! Files for their owner's eyes only, there as a whole or not at all.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

/// A draft that is older was left by a process that was killed: no write takes as long.
const ABANDONED: Duration = Duration::from_secs(3600);

/// Characters of what makes the name of a draft its own.
const OWN_CHARACTERS: usize = 16;

/// Writes `bytes` with mode 0600; over a file that is there only where that is meant. When this returns, it survives a loss of
/// power. Other processes may write the same file: it is one of theirs or ours, whole.
///
/// # Errors
/// What was there before still is then, and nothing is left behind.
pub(crate) fn write(path: &Path, bytes: &[u8], over: bool) -> io::Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let drafts = format!(".{}.", path.file_name().unwrap_or_default().to_string_lossy());
    sweep(dir, &drafts);
    // Not the number of the process: in containers that share a directory all have the same.
    let draft = dir.join(format!("{drafts}{:0OWN_CHARACTERS$x}", rand::random::<u64>()));
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

/// Removes what killed processes left of this file: it may hold a secret. What cannot be removed is in nobody's way.
fn sweep(dir: &Path, drafts: &str) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let own = name.to_str().and_then(|name| name.strip_prefix(drafts));
        let is_draft =
            own.is_some_and(|own| own.len() == OWN_CHARACTERS && own.bytes().all(|c| c.is_ascii_hexdigit()));
        if is_draft && entry.metadata().and_then(|of| of.modified()).is_ok_and(is_abandoned) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn is_abandoned(modified: SystemTime) -> bool {
    SystemTime::now().duration_since(modified).is_ok_and(|age| age > ABANDONED)
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
    fn what_a_killed_process_left_is_swept_and_what_another_writes_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.json");
        let draft = |name: &str, age: Duration| {
            let file = File::create(dir.path().join(name)).unwrap();
            file.set_modified(SystemTime::now() - age).unwrap();
        };
        draft(".x.json.0123456789abcdef", ABANDONED * 2);
        let left = [".x.json.1123456789abcdef", ".x.json.swp", ".y.json.0123456789abcdef"];
        draft(left[0], Duration::ZERO);
        draft(left[1], ABANDONED * 2);
        draft(left[2], ABANDONED * 2);
        write(&path, b"whole", true).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "whole");
        let mut names: Vec<_> =
            fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort_unstable();
        assert_eq!(names, [left[0], left[1], left[2], "x.json"]);
    }

    #[test]
    fn many_who_write_the_same_file_at_once_all_succeed_and_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.json");
        let whole = |writer: u8| vec![b'a' + writer; 10_000];
        std::thread::scope(|threads| {
            let writers = (0..4).map(|writer| {
                let path = &path;
                threads.spawn(move || (0..20).for_each(|_| write(path, &whole(writer), true).unwrap()))
            });
            writers.collect::<Vec<_>>().into_iter().for_each(|writer| writer.join().unwrap());
        });
        let read = fs::read(&path).unwrap();
        assert!((0..4).any(|writer| read == whole(writer)));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no draft is left");
    }
}
