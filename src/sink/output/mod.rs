//! Where lines leave the process: one file each, one template.

pub mod file;
pub mod stdout;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use self::file::FileOutput;
use self::stdout::StdoutOutput;
use crate::config::settings::OutputKind;
use crate::journal::{FileEnd, LanePosition};

/// What the journal knows of an output's past.
#[derive(Clone, Copy, Debug)]
pub struct Past<'a> {
    /// How far it came.
    pub position: &'a LanePosition,
    /// The most bytes that a crash can leave behind that.
    pub most_bytes: u64,
    /// The last `event.sequence` that was given.
    pub last: u64,
}

/// An output that is open.
#[derive(Debug)]
pub enum Output {
    /// The process's standard output.
    Stdout(StdoutOutput),
    /// A file.
    File(FileOutput),
}

/// Why an output does not take lines.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// Its reader is gone.
    #[error("stdout is closed")]
    StdoutClosed,
    /// It could not be opened or written.
    #[error("{path}: {cause}", path = path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
}

impl OutputError {
    /// Whether another process writes it.
    pub fn is_busy(&self) -> bool {
        matches!(self, Self::Io { cause, .. } if cause.kind() == io::ErrorKind::ResourceBusy)
    }
}

impl Output {
    /// Opens it where its past left it; whether the file held more than the journal knows of.
    ///
    /// # Errors
    /// Where it cannot be opened.
    pub fn open(kind: &OutputKind, past: &Past<'_>) -> Result<(Self, bool), OutputError> {
        match kind {
            OutputKind::Stdout => Ok((Self::Stdout(StdoutOutput::open()?), false)),
            OutputKind::File { path } => {
                let (file, restored) = FileOutput::open(path.clone(), past)?;
                Ok((Self::File(file), restored))
            }
        }
    }

    /// Makes ready for a write; where the file ends that it will go to, for files.
    ///
    /// # Errors
    /// Where there is no such file to be had.
    pub async fn prepare(&mut self) -> Result<Option<FileEnd>, OutputError> {
        match self {
            Self::Stdout(_) => Ok(None),
            Self::File(output) => output.prepare().await.map(Some),
        }
    }

    /// Writes whole lines.
    ///
    /// # Errors
    /// Where they are not, or not durably, written.
    pub async fn write(&mut self, lines: Arc<[u8]>) -> Result<(), OutputError> {
        match self {
            Self::Stdout(output) => output.write(lines).await,
            Self::File(output) => output.write(lines).await,
        }
    }

    /// Where the file ends, for files.
    pub fn end(&self) -> Option<FileEnd> {
        match self {
            Self::Stdout(_) => None,
            Self::File(output) => Some(output.end()),
        }
    }

    /// The file is to be opened anew before the next write.
    pub fn reopen(&mut self) {
        if let Self::File(output) = self {
            output.reopen();
        }
    }
}
