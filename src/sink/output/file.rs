//! A file that is appended to: every event in it exactly once, whatever happens to the process.
//!
//! The journal remembers which file it was (device and inode) and where it ended once a batch was written and synced.
//! What lies behind that end was written by a process that did not live to say so: it is cut off and written again.
//! Unless it cannot be, since the journal does not know of it: then the state is older than the file, which is kept.

mod archive;
mod rotation;

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use jiff::Timestamp;
use log::{info, warn};

use self::archive::{Archive, names_beside, sync_directory};
use self::rotation::{ended_name, is_due};
use super::{OutputError, Past};
use crate::config::settings::RotationSettings;
use crate::journal::FileEnd;

/// A file that cannot be renamed is written on, and tried again after this.
const RENAMED_AGAIN: Duration = Duration::from_secs(60);

/// A file that is locked is tried so often, with this between.
const LOCK_TRIES: u32 = 20;
const LOCKED_AGAIN: Duration = Duration::from_millis(10);

/// The file.
#[derive(Debug)]
pub struct FileOutput {
    path: PathBuf,
    /// `None` after a failure.
    file: Option<File>,
    /// The file is to be opened anew. It stays until then: to close it may wait for its file system, which is not for this
    /// thread.
    is_stale: bool,
    end: FileEnd,
    rotation: Option<Rotation>,
}

/// What ends the file, and keeps those that ended.
#[derive(Debug)]
struct Rotation {
    settings: RotationSettings,
    archive: Archive,
    failed: Option<Instant>,
}

impl FileOutput {
    /// Opens `path` and mends what a crash left behind the end that is known. What no crash can have left is kept
    /// aside, and `true` says so.
    ///
    /// # Errors
    /// Where it cannot be opened, its directory is not there, or another process writes it.
    pub fn open(
        path: PathBuf,
        rotation: Option<RotationSettings>,
        past: &Past<'_>,
    ) -> Result<(Self, bool), OutputError> {
        let (mut output, restored) = Self::mended(path, past)?;
        output.rotate_by(rotation)?;
        Ok((output, restored))
    }

    /// What ends the file from now on.
    ///
    /// # Errors
    /// Where the ended ones cannot be kept: nothing has changed then.
    pub fn rotate_by(&mut self, rotation: Option<RotationSettings>) -> Result<(), OutputError> {
        let failed = |cause| OutputError::Io { path: self.path.clone(), cause };
        let rotate = |settings: RotationSettings| {
            let archive = Archive::open(self.path.clone(), settings.clone()).map_err(failed)?;
            Ok(Rotation { settings, archive, failed: None })
        };
        self.rotation = rotation.map(rotate).transpose()?;
        Ok(())
    }

    fn mended(path: PathBuf, past: &Past<'_>) -> Result<(Self, bool), OutputError> {
        let failed = |cause| OutputError::Io { path: path.clone(), cause };
        let (file, mut end) = append(&path).map_err(failed)?;
        let Some(known) = &past.position.file else {
            return Ok((Self::new(path, file, end), false));
        };
        if is_ahead(&path, &end, known, past).map_err(failed)? {
            let aside = orphan(&path);
            warn!("{} goes on behind what the journal knows of: kept as {}", path.display(), aside.display());
            fs::rename(&path, &aside).map_err(failed)?;
            let (file, end) = append(&path).map_err(failed)?;
            return Ok((Self::new(path, file, end), true));
        }
        // Shorter than we left it: somebody truncated it, which is their right.
        if known.generation == end.generation && known.offset < end.offset {
            let tail = end.offset - known.offset;
            info!("{}: {tail} bytes of an interrupted batch are written again", path.display());
            file.set_len(known.offset).and_then(|()| file.sync_data()).map_err(failed)?;
            end.offset = known.offset;
        }
        Ok((Self::new(path, file, end), false))
    }

    const fn new(path: PathBuf, file: File, end: FileEnd) -> Self {
        Self { path, file: Some(file), is_stale: false, end, rotation: None }
    }

    /// The file and its end, as far as it is ours.
    pub fn end(&self) -> FileEnd {
        self.end.clone()
    }

    /// Opens the path anew before the next write: its file may have been renamed (logrotate).
    pub const fn reopen(&mut self) {
        self.is_stale = true;
    }

    /// The file that the next write goes to, and its end: the one at the path, which may be another than the last time.
    ///
    /// # Errors
    /// Where it cannot be opened.
    pub async fn prepare(&mut self) -> Result<FileEnd, OutputError> {
        let (path, is_stale) = (self.path.clone(), self.is_stale);
        let (file, end) = (self.file.take(), self.end.clone());
        let is_aging = self.rotation.as_ref().is_some_and(|rotation| rotation.settings.max_age.is_some());
        let age = self.blocking(move || {
            let (file, end) = current(&path, file.filter(|_| !is_stale), end)?;
            let age = is_aging.then(|| age(&file)).flatten();
            Ok((file, end, age))
        });
        let age = age.await?;
        self.is_stale = false;
        self.rotate(age).await?;
        Ok(self.end.clone())
    }

    /// Ends the file where it has had its time. Everything in it is known to the journal by now, so whatever a crash leaves
    /// of this is whole: the file by its old name, or by its new one, and then an empty one or none.
    async fn rotate(&mut self, age: Option<Duration>) -> Result<(), OutputError> {
        let Some(rotation) = &mut self.rotation else { return Ok(()) };
        let failed_lately = rotation.failed.is_some_and(|at| at.elapsed() < RENAMED_AGAIN);
        if failed_lately || !is_due(&rotation.settings, self.end.offset, age) {
            return Ok(());
        }
        let path = self.path.clone();
        let renamed = tokio::task::spawn_blocking(move || rename(&path)).await;
        if let Err(error) = renamed.unwrap_or_else(|panic| Err(io::Error::other(panic))) {
            rotation.failed = Some(Instant::now());
            warn!("{}: it has had its time, but goes on: {error}", self.path.display());
            return Ok(());
        }
        rotation.failed = None;
        let (path, end, ended) = (self.path.clone(), self.end.clone(), self.file.take());
        self.blocking(move || {
            drop(ended);
            let (file, end) = current(&path, None, end)?;
            sync_directory(&path)?;
            Ok((file, end, ()))
        })
        .await?;
        self.rotation.iter().for_each(|rotation| rotation.archive.tidy());
        Ok(())
    }

    /// Writes and syncs whole lines.
    ///
    /// # Errors
    /// Where they are not durable. The file is cut back then, and opened anew next time: after a failed fsync nobody
    /// knows what the old descriptor's pages hold.
    pub async fn write(&mut self, lines: Bytes) -> Result<(), OutputError> {
        let path = self.path.clone();
        let (file, end) = (self.file.take(), self.end.clone());
        self.blocking(move || {
            let (file, end) = match file {
                Some(file) => (file, end),
                None => current(&path, None, end)?,
            };
            let (file, end) = append_lines(file, end, &lines)?;
            Ok((file, end, ()))
        })
        .await
    }

    /// File systems block, so not on the caller's thread.
    async fn blocking<T: Send + 'static>(
        &mut self,
        work: impl FnOnce() -> io::Result<(File, FileEnd, T)> + Send + 'static,
    ) -> Result<T, OutputError> {
        let failed = |cause| OutputError::Io { path: self.path.clone(), cause };
        let done = tokio::task::spawn_blocking(work).await;
        let (file, end, more) =
            done.map_err(|panic| failed(io::Error::other(panic))).and_then(|done| done.map_err(failed))?;
        self.file = Some(file);
        self.end = end;
        Ok(more)
    }
}

/// To close a file may wait for its file system (FUSE, NFS): not on a thread that has others to serve.
impl Drop for FileOutput {
    fn drop(&mut self) {
        if let Some(file) = self.file.take() {
            let _ = std::thread::Builder::new().name("close".to_owned()).spawn(move || drop(file));
        }
    }
}

/// Opened for nobody else of us: two that cut off each other's lines would lose them.
fn append(path: &Path) -> io::Result<(File, FileEnd)> {
    // A pipe would wait for its reader, and a device keeps nothing.
    if fs::metadata(path).is_ok_and(|meta| !meta.is_file()) {
        return Err(io::Error::new(ErrorKind::InvalidInput, "it is no regular file"));
    }
    let file = OpenOptions::new().append(true).create(true).mode(0o640).open(path)?;
    if is_taken(&file) {
        return Err(io::Error::new(ErrorKind::ResourceBusy, "another process writes it"));
    }
    let end = end_of(&file)?;
    Ok((file, end))
}

/// Whether somebody else writes it. We ourselves may be closing it just now. A file system without locks has to do without.
fn is_taken(file: &File) -> bool {
    (0..LOCK_TRIES).all(|nth| {
        if nth > 0 {
            std::thread::sleep(LOCKED_AGAIN);
        }
        matches!(file.try_lock(), Err(TryLockError::WouldBlock))
    })
}

/// Whether the file holds what the journal does not know of: more bytes than a batch, more lines than wait, or an event
/// with a number that was not given yet.
fn is_ahead(path: &Path, end: &FileEnd, known: &FileEnd, past: &Past<'_>) -> io::Result<bool> {
    let ours = known.generation == end.generation;
    let from = if ours { known.offset } else { end.offset.saturating_sub(past.most_bytes) };
    let tail = end.offset.saturating_sub(from);
    if tail == 0 || tail > past.most_bytes {
        return Ok(tail > 0);
    }
    let mut text = Vec::new();
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(from))?;
    file.take(tail).read_to_end(&mut text)?;
    let whole = || text.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n"));
    let waiting = past.last.saturating_sub(past.position.sequence);
    let too_many = ours && whole().count() as u64 > waiting;
    Ok(too_many || whole().filter_map(sequence).any(|sequence| sequence > past.last))
}

/// `event.sequence`, where the form of the lines has it: nested, flat, or in the data of a CloudEvent.
fn sequence(line: &[u8]) -> Option<u64> {
    let line = serde_json::from_slice::<serde_json::Value>(line).ok()?;
    let paths = ["/event/sequence", "/event_sequence", "/data/event/sequence"];
    paths.iter().find_map(|path| line.pointer(path)?.as_u64())
}

fn end_of(file: &File) -> io::Result<FileEnd> {
    let meta = file.metadata()?;
    Ok(FileEnd { generation: generation(&meta), offset: meta.size() })
}

fn generation(meta: &fs::Metadata) -> String {
    format!("{}:{}", meta.dev(), meta.ino())
}

/// Since it was made; `None` on a file system that does not know.
fn age(file: &File) -> Option<Duration> {
    file.metadata().ok()?.created().ok()?.elapsed().ok()
}

/// Nothing is ever written over.
fn rename(path: &Path) -> io::Result<()> {
    let (name, at) = (path.file_name().unwrap_or_default().to_string_lossy(), Timestamp::now());
    let ended = path.with_file_name(ended_name(&name, at, &names_beside(path)?));
    if ended.exists() {
        return Err(ErrorKind::AlreadyExists.into());
    }
    fs::rename(path, ended)?;
    sync_directory(path)
}

fn orphan(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".orphan-{}", Timestamp::now().as_millisecond()));
    path.with_file_name(name)
}

fn append_lines(mut file: File, end: FileEnd, lines: &[u8]) -> io::Result<(File, FileEnd)> {
    let written = file.write_all(lines).and_then(|()| file.sync_data());
    if let Err(error) = written {
        // Half a batch must not stay; if this fails too, the next start does it.
        let _ = file.set_len(end.offset);
        return Err(error);
    }
    let offset = end.offset + lines.len() as u64;
    Ok((file, FileEnd { offset, ..end }))
}

/// The file at `path`: the one we have, unless it was renamed, removed or truncated meanwhile.
fn current(path: &Path, file: Option<File>, end: FileEnd) -> io::Result<(File, FileEnd)> {
    let same = |meta: &fs::Metadata| generation(meta) == end.generation && meta.size() == end.offset;
    if let Some(file) = file
        && fs::metadata(path).is_ok_and(|meta| same(&meta))
    {
        return Ok((file, end));
    }
    let (file, found) = append(path)?;
    if found.generation == end.generation && found.offset > end.offset {
        // Ours, with half a batch of a failed write behind it.
        file.set_len(end.offset)?;
        return Ok((file, end));
    }
    Ok((file, found))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::LanePosition;

    /// Of a lane that has event 1; the journal has given `last`.
    fn try_open(path: &Path, file: Option<&FileEnd>, last: u64) -> Result<(FileOutput, bool), OutputError> {
        let position = LanePosition { sequence: 1, file: file.cloned() };
        FileOutput::open(path.to_owned(), None, &Past { position: &position, most_bytes: 1000, last })
    }

    fn open(path: &Path, known: Option<&FileEnd>) -> (FileOutput, bool) {
        try_open(path, known, 2).unwrap()
    }

    /// As a lane does.
    async fn put(output: &mut FileOutput, lines: Bytes) -> Result<(), OutputError> {
        output.prepare().await?;
        output.write(lines).await
    }

    fn text(path: &Path) -> String {
        fs::read_to_string(path).unwrap()
    }

    #[tokio::test]
    async fn what_a_crash_left_is_cut_off_and_written_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.jsonl");
        let (mut output, _) = open(&path, None);
        put(&mut output, b"one\n".as_slice().into()).await.unwrap();
        let committed = output.end();
        drop(output);
        // Written, but the position was never stored; or torn in the middle of a line.
        for tail in ["two\n", "tw", ""] {
            fs::write(&path, format!("one\n{tail}")).unwrap();
            let (mut output, restored) = open(&path, Some(&committed));
            put(&mut output, b"two\n".as_slice().into()).await.unwrap();
            assert_eq!((text(&path).as_str(), restored), ("one\ntwo\n", false), "{tail:?}");
        }
    }

    #[tokio::test]
    async fn a_file_that_is_ahead_of_the_state_is_kept_aside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.jsonl");
        let (mut output, _) = open(&path, None);
        put(&mut output, b"one\n".as_slice().into()).await.unwrap();
        let yesterday = output.end();
        put(&mut output, vec![b'x'; 2000].into()).await.unwrap();
        drop(output);
        let (mut output, restored) = open(&path, Some(&yesterday));
        put(&mut output, b"new\n".as_slice().into()).await.unwrap();
        assert!(restored);
        assert_eq!(text(&path), "new\n");
        let aside =
            fs::read_dir(dir.path()).unwrap().filter_map(Result::ok).find(|f| f.path() != path).unwrap();
        assert_eq!(aside.metadata().unwrap().len(), 2004);
    }

    /// What is cut off must be written again, so it must be in the journal.
    #[tokio::test]
    async fn only_lines_that_wait_in_the_journal_are_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.jsonl");
        let line = |sequence: u64| format!("{{\"event\":{{\"sequence\":{sequence}}}}}\n");
        for (tail, last, ahead) in [
            (line(2), 2, false),
            (line(2) + &line(3), 3, false),
            (line(2) + "{\"event\":{\"seq", 2, false),
            (line(2), 1, true),
            (line(3), 2, true),
            ("12:00 pretty\n".to_owned(), 2, false),
            ("12:00 pretty\n".to_owned(), 1, true),
        ] {
            fs::write(&path, line(1)).unwrap();
            let known = end_of(&File::open(&path).unwrap()).unwrap();
            fs::write(&path, line(1) + &tail).unwrap();
            let (_, restored) = try_open(&path, Some(&known), last).unwrap();
            assert_eq!(restored, ahead, "{tail} {last}");
        }
        // Rotated since: the newest number tells all the same.
        fs::write(&path, line(7)).unwrap();
        let other = FileEnd { generation: "0:0".to_owned(), offset: 5 };
        assert!(!try_open(&path, Some(&other), 7).unwrap().1);
        assert!(try_open(&path, Some(&other), 6).unwrap().1);
    }

    #[tokio::test]
    async fn a_file_that_another_process_writes_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.jsonl");
        let (first, _) = open(&path, None);
        assert!(try_open(&path, None, 2).unwrap_err().is_busy());
        drop(first);
        open(&path, None);
    }

    #[test]
    fn what_is_no_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        for path in [dir.path(), Path::new("/dev/null")] {
            assert!(try_open(path, None, 2).is_err(), "{}", path.display());
        }
    }

    #[tokio::test]
    async fn a_renamed_file_is_left_and_a_new_one_begun() {
        let dir = tempfile::tempdir().unwrap();
        let (path, rotated) = (dir.path().join("events.jsonl"), dir.path().join("events.jsonl.1"));
        let (mut output, _) = open(&path, None);
        put(&mut output, b"one\n".as_slice().into()).await.unwrap();
        fs::rename(&path, &rotated).unwrap();
        put(&mut output, b"two\n".as_slice().into()).await.unwrap();
        output.reopen();
        put(&mut output, b"three\n".as_slice().into()).await.unwrap();
        assert_eq!((text(&rotated).as_str(), text(&path).as_str()), ("one\n", "two\nthree\n"));
    }

    #[tokio::test]
    async fn a_truncated_file_gets_no_hole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.jsonl");
        let (mut output, _) = open(&path, None);
        put(&mut output, b"one\n".as_slice().into()).await.unwrap();
        File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
        put(&mut output, b"two\n".as_slice().into()).await.unwrap();
        assert_eq!(text(&path), "two\n");
        assert_eq!(output.end().offset, 4);
    }

    #[tokio::test]
    async fn a_file_whose_directory_went_and_came_back_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gone").join("events.jsonl");
        assert!(try_open(&path, None, 2).is_err());
        fs::create_dir(dir.path().join("gone")).unwrap();
        let (mut output, _) = open(&path, None);
        fs::remove_dir_all(dir.path().join("gone")).unwrap();
        output.reopen();
        assert!(put(&mut output, b"one\n".as_slice().into()).await.is_err());
        fs::create_dir(dir.path().join("gone")).unwrap();
        put(&mut output, b"one\n".as_slice().into()).await.unwrap();
        assert_eq!(text(&path), "one\n");
    }
}
