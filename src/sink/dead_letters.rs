//! Events that an output will never take: kept in a file of their own, durably, until a person decides.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::event::Event;

/// `dead-letters.jsonl` grows to this; then the outputs that bury events wait.
const MOST_BYTES: u64 = 64 << 20;

/// No letter is longer.
const LONGEST_LINE: u64 = 4 << 20;

/// One event that was given up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// When.
    pub at: Timestamp,
    /// By which output.
    pub output: String,
    /// Why, in the output's words, made harmless.
    pub reason: String,
    /// `event.sequence`
    pub sequence: u64,
    /// The event as the output would have been told it: `[privacy]` holds here too.
    pub event: Arc<Event>,
}

/// Where they are kept. Cheap to clone.
#[derive(Clone, Debug)]
pub struct DeadLetters {
    path: PathBuf,
    /// One writer at a time.
    file: Arc<Mutex<()>>,
}

impl DeadLetters {
    /// In this state directory.
    pub fn in_dir(state_dir: &Path) -> Self {
        Self { path: state_dir.join("dead-letters.jsonl"), file: Arc::default() }
    }

    /// Appends one; it is durable afterwards.
    ///
    /// # Errors
    /// Where it is not, or the file has grown to its bound.
    pub async fn bury(&self, letter: DeadLetter) -> io::Result<()> {
        let letters = self.clone();
        tokio::task::spawn_blocking(move || letters.append(&letter)).await.map_err(io::Error::other)?
    }

    fn append(&self, letter: &DeadLetter) -> io::Result<()> {
        let _one = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let mut line = serde_json::to_vec(letter).map_err(io::Error::other)?;
        line.push(b'\n');
        let is_new = !self.path.exists();
        let mut file =
            OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(&self.path)?;
        let end = cut_torn_line(&mut file)?;
        if end + line.len() as u64 > MOST_BYTES {
            let words = "it is full: `idlewatch state dead-letters list`, then replay or drop what is in it";
            return Err(io::Error::new(io::ErrorKind::StorageFull, words));
        }
        if let Err(error) = file.write_all(&line).and_then(|()| file.sync_all()) {
            let _ = file.set_len(end);
            return Err(error);
        }
        if is_new { sync_dir(&self.path) } else { Ok(()) }
    }

    /// All of them, oldest first, one event of one output once; and how many lines could not be read.
    ///
    /// # Errors
    /// Where the file is there and cannot be read.
    pub fn read(&self) -> io::Result<(Vec<DeadLetter>, usize)> {
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), 0)),
            Err(error) => return Err(error),
        };
        let (mut letters, mut unreadable) = (Vec::<DeadLetter>::new(), 0);
        let mut known = std::collections::HashSet::new();
        each_line(file, |line| {
            match serde_json::from_slice::<DeadLetter>(line) {
                Ok(letter) if known.insert((letter.output.clone(), letter.event.id.clone())) => {
                    letters.push(letter);
                }
                // A crash between the burial and the lane's next position buries twice.
                Ok(_) => {}
                Err(_) => unreadable += 1,
            }
            Ok(())
        })?;
        Ok((letters, unreadable))
    }

    /// Keeps only these, and whole lines that this version cannot read: the file is replaced as a whole.
    ///
    /// # Errors
    /// The old one stays then.
    pub fn replace(&self, letters: &[DeadLetter]) -> io::Result<()> {
        let _one = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let new = self.path.with_extension("jsonl.new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        for letter in letters {
            serde_json::to_writer(&mut file, letter).map_err(io::Error::other)?;
            file.write_all(b"\n")?;
        }
        if let Ok(old) = File::open(&self.path) {
            each_line(old, |line| match serde_json::from_slice::<DeadLetter>(line) {
                Err(_) if line.ends_with(b"\n") => file.write_all(line),
                _ => Ok(()),
            })?;
        }
        file.sync_all()?;
        fs::rename(&new, &self.path)?;
        sync_dir(&self.path)
    }

    /// Where they are.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Bounded in all and each.
fn each_line(file: File, mut take: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    let mut reader = BufReader::new(file.take(MOST_BYTES));
    let mut line = Vec::new();
    while reader.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line)? > 0 {
        take(&line)?;
        line.clear();
    }
    Ok(())
}

/// A line without its end is what a crash left: nothing counted on it.
fn cut_torn_line(file: &mut File) -> io::Result<u64> {
    let end = file.seek(SeekFrom::End(0))?;
    let from = end.saturating_sub(LONGEST_LINE);
    file.seek(SeekFrom::Start(from))?;
    let mut last = Vec::new();
    if end > from {
        file.seek(SeekFrom::Start(end - 1))?;
        file.read_to_end(&mut last)?;
    }
    if last.is_empty() || last == b"\n" {
        return Ok(end);
    }
    file.seek(SeekFrom::Start(from))?;
    last.clear();
    file.read_to_end(&mut last)?;
    let whole = last.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    file.set_len(from + whole as u64)?;
    Ok(from + whole as u64)
}

fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::super::batch::tests::journalled;
    use super::*;

    fn letter(sequence: u64, output: &str) -> DeadLetter {
        DeadLetter {
            at: Timestamp::UNIX_EPOCH,
            output: output.to_owned(),
            reason: "422 Unprocessable".to_owned(),
            sequence,
            event: journalled(sequence).event,
        }
    }

    #[tokio::test]
    async fn what_is_buried_is_found_again_once_and_by_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let letters = DeadLetters::in_dir(dir.path());
        assert_eq!(letters.read().unwrap(), (Vec::new(), 0));
        for (sequence, output) in [(1, "hook"), (2, "hook"), (2, "hook"), (2, "nats")] {
            letters.bury(letter(sequence, output)).await.unwrap();
        }
        let all = [letter(1, "hook"), letter(2, "hook"), letter(2, "nats")];
        assert_eq!(letters.read().unwrap(), (all.to_vec(), 0));
        assert_eq!(fs::metadata(letters.path()).unwrap().mode() & 0o777, 0o600);
        letters.replace(&all[1..2]).unwrap();
        assert_eq!(letters.read().unwrap().0, all[1..2]);
        assert_eq!(fs::metadata(letters.path()).unwrap().mode() & 0o777, 0o600);
    }

    #[tokio::test]
    async fn a_torn_line_is_cut_off_and_garbage_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let letters = DeadLetters::in_dir(dir.path());
        for torn in ["{\"at\":", "garbage\n{\"at"] {
            fs::write(letters.path(), torn).unwrap();
            letters.bury(letter(1, "hook")).await.unwrap();
            let garbage = torn.matches('\n').count();
            assert_eq!(letters.read().unwrap(), (vec![letter(1, "hook")], garbage), "{torn}");
            letters.replace(&[]).unwrap();
            assert_eq!(letters.read().unwrap(), (Vec::new(), garbage), "a newer version may read it");
        }
    }

    #[tokio::test]
    async fn a_full_file_takes_no_more_and_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let letters = DeadLetters::in_dir(dir.path());
        File::create(letters.path()).unwrap().set_len(MOST_BYTES - 10).unwrap();
        let mut file = File::options().append(true).open(letters.path()).unwrap();
        file.write_all(b"\n").unwrap();
        let error = letters.bury(letter(1, "hook")).await.unwrap_err();
        assert!(error.to_string().contains("dead-letters list"), "{error}");
    }
}
