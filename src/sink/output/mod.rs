//! Where events leave the process: one file each, one template.
//!
//! `config::outputs` validates (pure), `Output::open` touches the world, `Output::deliver` offers one batch and answers
//! with an [`Outcome`]. Everything else (when to try again, splitting, burying, positions) is the lane's.

pub mod file;
mod http;
mod kept_secret;
#[cfg(feature = "nats")]
pub mod nats;
pub mod stdout;
pub mod subject;
pub mod webhook;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use self::file::FileOutput;
#[cfg(feature = "nats")]
use self::nats::NatsOutput;
use self::stdout::StdoutOutput;
use self::webhook::WebhookOutput;
use super::batch::Batch;
use crate::config::settings::{OutputKind, OutputSettings};
use crate::journal::{FileEnd, JournalHandle, LanePosition};

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

/// What an output may need of the monitor.
#[derive(Clone, Copy, Debug)]
pub struct Around<'a> {
    /// Its own past.
    pub past: Past<'a>,
    /// `idlewatch.instance`
    pub instance: &'a str,
    /// Where the events are.
    pub journal: &'a JournalHandle,
}

/// An output that is open.
#[derive(Debug)]
pub enum Output {
    /// The process's standard output.
    Stdout(StdoutOutput),
    /// A file.
    File(FileOutput),
    /// An HTTP endpoint.
    Webhook(Box<WebhookOutput>),
    /// NATS JetStream.
    #[cfg(feature = "nats")]
    Nats(Box<NatsOutput>),
}

/// What an output says to a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It has all of it, as durably as it can say.
    Taken,
    /// It has the first `taken` events; the others may be offered again.
    TryAgain {
        /// How many it has.
        taken: usize,
        /// When to come back.
        pause: Pause,
        /// Why, for people.
        reason: String,
    },
    /// It will never take the batch as it is: one event of it, or its size, is not acceptable.
    Rejected {
        /// Why, for people.
        reason: String,
    },
    /// It has lost what it took before: all that is still held is to be offered again.
    Forgotten,
    /// It will never take anything again.
    Closed,
}

/// When to come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pause {
    /// Soon, then less and less soon.
    Backoff,
    /// A person has to change something.
    Slowly,
    /// The output said when.
    For(Duration),
}

impl Outcome {
    /// Nothing was taken; come back soon.
    pub fn again(reason: impl Into<String>) -> Self {
        Self::TryAgain { taken: 0, pause: Pause::Backoff, reason: reason.into() }
    }

    /// Why it was not taken.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Taken | Self::Forgotten | Self::Closed => None,
            Self::TryAgain { reason, .. } | Self::Rejected { reason } => Some(reason),
        }
    }
}

impl From<OutputError> for Outcome {
    fn from(error: OutputError) -> Self {
        match error {
            OutputError::StdoutClosed => Self::Closed,
            error => Self::again(error.to_string()),
        }
    }
}

impl From<Result<(), OutputError>> for Outcome {
    fn from(done: Result<(), OutputError>) -> Self {
        done.map_or_else(Self::from, |()| Self::Taken)
    }
}

/// Why an output cannot be opened or written.
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
    /// There is no client for it.
    #[error("{0}")]
    Client(String),
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
    pub fn open(settings: &OutputSettings, around: &Around<'_>) -> Result<(Self, bool), OutputError> {
        match &settings.kind {
            OutputKind::Stdout => Ok((Self::Stdout(StdoutOutput::open()?), false)),
            OutputKind::File { path } => {
                let (file, restored) = FileOutput::open(path.clone(), &around.past)?;
                Ok((Self::File(file), restored))
            }
            OutputKind::Webhook(webhook) => {
                let output = WebhookOutput::open(webhook, settings.format, around.instance)?;
                Ok((Self::Webhook(Box::new(output)), false))
            }
            #[cfg(feature = "nats")]
            OutputKind::Nats(nats) => {
                Ok((Self::Nats(Box::new(NatsOutput::new(nats, around.instance, around.journal))), false))
            }
            #[cfg(not(feature = "nats"))]
            OutputKind::Nats(_) => {
                Err(OutputError::Client("this build is without the feature nats".to_owned()))
            }
        }
    }

    /// Makes ready for a write; where the file ends that it will go to, for files.
    ///
    /// # Errors
    /// Where there is no such file to be had.
    pub async fn prepare(&mut self) -> Result<Option<FileEnd>, OutputError> {
        match self {
            Self::File(output) => output.prepare().await.map(Some),
            _ => Ok(None),
        }
    }

    /// Offers whole events.
    pub async fn deliver(&mut self, batch: &Batch) -> Outcome {
        match self {
            Self::Stdout(output) => output.write(batch.text()).await.into(),
            Self::File(output) => output.write(batch.text()).await.into(),
            Self::Webhook(output) => output.deliver(batch).await,
            #[cfg(feature = "nats")]
            Self::Nats(output) => output.deliver(batch).await,
        }
    }

    /// Whether it has lost what it took: asked now and then while events are held for it.
    pub async fn has_lost(&mut self) -> bool {
        match self {
            #[cfg(feature = "nats")]
            Self::Nats(output) => output.has_lost().await,
            _ => false,
        }
    }

    /// Where the file ends, for files.
    pub fn end(&self) -> Option<FileEnd> {
        match self {
            Self::File(output) => Some(output.end()),
            _ => None,
        }
    }

    /// The file is to be opened anew before the next write.
    pub fn reopen(&mut self) {
        if let Self::File(output) = self {
            output.reopen();
        }
    }
}
