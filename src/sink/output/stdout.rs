//! Standard output: whole lines, at once where they can be taken without waiting; else by a thread of its own, since nobody
//! knows how long a reader sleeps.

use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;

use bytes::{Buf, Bytes};
use rustix::io::{Errno, ReadWriteFlags, pwritev2};
use tokio::sync::{mpsc, oneshot};

use super::OutputError;

/// In place of an offset: where the file stands, as with `write`.
const AT_ITS_END: u64 = u64::MAX;

type Answer = oneshot::Sender<io::Result<()>>;

/// Standard output.
#[derive(Debug)]
pub struct StdoutOutput {
    file: File,
    lines: mpsc::UnboundedSender<(Bytes, Answer)>,
}

impl StdoutOutput {
    /// The process's own.
    ///
    /// # Errors
    /// Where there is none.
    pub fn open() -> Result<Self, OutputError> {
        let failed = |cause| OutputError::Io { path: PathBuf::from("stdout"), cause };
        // Not std's: that one holds lines back in a buffer of its own.
        let file = File::from(io::stdout().as_fd().try_clone_to_owned().map_err(failed)?);
        Self::over(file).map_err(failed)
    }

    fn over(file: File) -> io::Result<Self> {
        let mut waiting = file.try_clone()?;
        let (lines, mut inbox) = mpsc::unbounded_channel::<(Bytes, Answer)>();
        // Not a task: a blocked pipe must not keep the process from ending.
        std::thread::Builder::new().name("stdout".to_owned()).spawn(move || {
            while let Some((lines, answer)) = inbox.blocking_recv() {
                let _ = answer.send(waiting.write_all(&lines));
            }
        })?;
        Ok(Self { file, lines })
    }

    /// Writes whole lines.
    ///
    /// # Errors
    /// Once the reader is gone: for good. Any other failure is no better, since a part may be out, and the rest of a
    /// line cannot be sent later without tearing it for the reader.
    pub async fn write(&self, mut lines: Bytes) -> Result<(), OutputError> {
        lines.advance(self.write_at_once(&lines).map_err(|_| OutputError::StdoutClosed)?);
        if lines.is_empty() {
            return Ok(());
        }
        let (answer, answered) = oneshot::channel();
        self.lines.send((lines, answer)).map_err(|_| OutputError::StdoutClosed)?;
        match answered.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(OutputError::StdoutClosed),
        }
    }

    /// How much is taken without waiting: nothing where the reader sleeps, or where the kernel does not know how to do that
    /// (pipes before Linux 6.4, terminals, most files). The descriptor itself stays as it is: we share it with others.
    fn write_at_once(&self, lines: &[u8]) -> Result<usize, Errno> {
        match pwritev2(&self.file, &[IoSlice::new(lines)], AT_ITS_END, ReadWriteFlags::NOWAIT) {
            Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS | Errno::INTR) => Ok(0),
            taken => taken,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[tokio::test]
    async fn a_closed_reader_is_noticed() {
        let (mut reader, writer) = io::pipe().unwrap();
        let output = StdoutOutput::over(File::from(std::os::fd::OwnedFd::from(writer))).unwrap();
        output.write(b"one\n".as_slice().into()).await.unwrap();
        let mut read = [0; 4];
        reader.read_exact(&mut read).unwrap();
        assert_eq!(&read, b"one\n");
        drop(reader);
        let error = output.write(b"two\n".as_slice().into()).await.unwrap_err();
        assert!(matches!(error, OutputError::StdoutClosed));
    }

    #[tokio::test]
    async fn a_sleeping_reader_blocks_nobody_but_its_own_lane() {
        let (_reader, writer) = io::pipe().unwrap();
        let output = StdoutOutput::over(File::from(std::os::fd::OwnedFd::from(writer))).unwrap();
        let write = output.write(vec![b'x'; 1 << 20].into());
        tokio::pin!(write);
        assert!(futures::poll!(&mut write).is_pending());
        tokio::task::yield_now().await;
        assert!(futures::poll!(&mut write).is_pending());
    }

    #[tokio::test]
    async fn what_a_pipe_has_no_room_for_follows_once_there_is_room() {
        let (mut reader, writer) = io::pipe().unwrap();
        let output = StdoutOutput::over(File::from(std::os::fd::OwnedFd::from(writer))).unwrap();
        let lines: Vec<u8> = (0..200_000_u32).flat_map(|n| format!("{n}\n").into_bytes()).collect();
        let (first, second) = lines.split_at(lines.len() / 2);
        let expected = lines.clone();
        let reading = std::thread::spawn(move || {
            let mut read = vec![0; expected.len()];
            reader.read_exact(&mut read).unwrap();
            read == expected
        });
        output.write(first.to_vec().into()).await.unwrap();
        output.write(second.to_vec().into()).await.unwrap();
        assert!(reading.join().unwrap());
    }
}
