//! Where events leave the process: one file each, one template.
//!
//! `config::outputs` validates (pure), `Output::open` touches the world, `Output::deliver` offers one batch and answers
//! with an [`Outcome`]. Everything else (when to try again, splitting, burying, positions) is the lane's.

mod datagrams;
pub mod elasticsearch;
pub mod exec;
pub mod file;
mod http;
pub mod journald;
#[cfg(feature = "kafka")]
pub mod kafka;
mod kept_secret;
pub mod loki;
#[cfg(feature = "nats")]
pub mod nats;
pub mod otlp;
pub mod redis;
#[cfg(test)]
pub mod scripted;
pub mod stdout;
pub mod subject;
pub mod syslog;
pub mod webhook;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use self::elasticsearch::ElasticsearchOutput;
use self::exec::ExecOutput;
use self::file::FileOutput;
use self::journald::JournaldOutput;
#[cfg(feature = "kafka")]
use self::kafka::KafkaOutput;
use self::loki::LokiOutput;
#[cfg(feature = "nats")]
use self::nats::NatsOutput;
use self::otlp::OtlpOutput;
use self::redis::RedisOutput;
use self::stdout::StdoutOutput;
use self::syslog::SyslogOutput;
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
    /// Syslog.
    Syslog(Box<SyslogOutput>),
    /// A program.
    Exec(Box<ExecOutput>),
    /// systemd's journal.
    Journald(JournaldOutput),
    /// Elasticsearch or OpenSearch.
    Elasticsearch(Box<ElasticsearchOutput>),
    /// Loki.
    Loki(Box<LokiOutput>),
    /// A collector of OpenTelemetry.
    Otlp(Box<OtlpOutput>),
    /// A stream of Redis.
    Redis(Box<RedisOutput>),
    /// A topic of Kafka.
    #[cfg(feature = "kafka")]
    Kafka(Box<KafkaOutput>),
    /// What a test wants.
    #[cfg(test)]
    Scripted(scripted::ScriptedOutput),
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
    /// It failed at the batch, perhaps for its size: later, and at some time with fewer events.
    Strained {
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
            Self::TryAgain { reason, .. } | Self::Strained { reason, .. } | Self::Rejected { reason } => {
                Some(reason)
            }
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
            OutputKind::File { path, rotation } => {
                let (file, restored) = FileOutput::open(path.clone(), rotation.clone(), &around.past)?;
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
            OutputKind::Syslog(syslog) => {
                Ok((Self::Syslog(Box::new(SyslogOutput::new(syslog, around.instance))), false))
            }
            OutputKind::Journald(journald) => Ok((Self::Journald(JournaldOutput::new(journald)), false)),
            OutputKind::Exec(exec) => {
                Ok((Self::Exec(Box::new(ExecOutput::new(exec, around.instance))), false))
            }
            OutputKind::Elasticsearch(elasticsearch) => {
                Ok((Self::Elasticsearch(Box::new(ElasticsearchOutput::open(elasticsearch)?)), false))
            }
            OutputKind::Loki(loki) => Ok((Self::Loki(Box::new(LokiOutput::open(loki)?)), false)),
            OutputKind::Otlp(otlp) => {
                Ok((Self::Otlp(Box::new(OtlpOutput::open(otlp, around.instance)?)), false))
            }
            OutputKind::Redis(redis) => Ok((Self::Redis(Box::new(RedisOutput::new(redis))), false)),
            #[cfg(feature = "kafka")]
            OutputKind::Kafka(kafka) => {
                Ok((Self::Kafka(Box::new(KafkaOutput::new(kafka, around.instance))), false))
            }
            #[cfg(not(feature = "kafka"))]
            OutputKind::Kafka(_) => {
                Err(OutputError::Client("this build is without the feature kafka".to_owned()))
            }
        }
    }

    /// It is configured in another way, and stays open.
    ///
    /// # Errors
    /// Where that cannot be: it goes on as before.
    pub fn adapt(&mut self, kind: OutputKind) -> Result<(), OutputError> {
        match (self, kind) {
            (Self::File(output), OutputKind::File { rotation, .. }) => output.rotate_by(rotation),
            _ => Ok(()),
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
            Self::Syslog(output) => output.deliver(batch).await,
            Self::Exec(output) => output.deliver(batch).await,
            Self::Journald(output) => output.deliver(batch).await,
            Self::Elasticsearch(output) => output.deliver(batch).await,
            Self::Loki(output) => output.deliver(batch).await,
            Self::Otlp(output) => output.deliver(batch).await,
            Self::Redis(output) => output.deliver(batch).await,
            #[cfg(feature = "kafka")]
            Self::Kafka(output) => output.deliver(batch).await,
            #[cfg(test)]
            Self::Scripted(output) => output.deliver(batch),
        }
    }

    /// Whether [`Self::prepare`] and [`Self::deliver`] end by themselves, whatever the other side does.
    pub const fn has_deadline(&self) -> bool {
        !matches!(self, Self::Stdout(_) | Self::File(_))
    }

    /// Whether it has lost what it took: asked now and then while events are held for it.
    pub async fn has_lost(&mut self) -> bool {
        match self {
            #[cfg(feature = "nats")]
            Self::Nats(output) => output.has_lost().await,
            Self::Syslog(output) => output.has_lost(),
            _ => false,
        }
    }

    /// How long ago it took what it was offered last: something only where all of it was there before.
    pub fn age(&self) -> Duration {
        match self {
            #[cfg(feature = "nats")]
            Self::Nats(output) => output.age(),
            _ => Duration::ZERO,
        }
    }

    /// Ends in order; whether all that it took is surely where it was to be.
    pub async fn settle(&mut self) -> bool {
        match self {
            Self::Syslog(output) => output.settle().await,
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
