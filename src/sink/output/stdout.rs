//! Standard output: whole lines, by a thread of its own, since nobody knows how long a reader sleeps.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::OutputError;

type Answer = oneshot::Sender<io::Result<()>>;

/// Standard output.
#[derive(Debug)]
pub struct StdoutOutput {
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

    fn over(mut file: File) -> io::Result<Self> {
        let (lines, mut inbox) = mpsc::unbounded_channel::<(Bytes, Answer)>();
        // Not a task: a blocked pipe must not keep the process from ending.
        std::thread::Builder::new().name("stdout".to_owned()).spawn(move || {
            while let Some((lines, answer)) = inbox.blocking_recv() {
                let _ = answer.send(file.write_all(&lines));
            }
        })?;
        Ok(Self { lines })
    }

    /// Writes whole lines.
    ///
    /// # Errors
    /// Once the reader is gone: for good. Any other failure is no better, since a part may be out, and the rest of a
    /// line cannot be sent later without tearing it for the reader.
    pub async fn write(&self, lines: Bytes) -> Result<(), OutputError> {
        let (answer, answered) = oneshot::channel();
        self.lines.send((lines, answer)).map_err(|_| OutputError::StdoutClosed)?;
        match answered.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(OutputError::StdoutClosed),
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
}
