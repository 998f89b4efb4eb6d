//! A lane carries events from the journal to one output, in order, and remembers how far it came.

use std::sync::Arc;
use std::time::Duration;

use log::{info, warn};
use rand::Rng;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

use super::Fatal;
use super::encode::Encoder;
use super::output::{Output, OutputError};
use crate::backoff::full_jitter;
use crate::event::Action;
use crate::journal::{FileEnd, JournalError, JournalHandle, JournalledEvent, LanePosition};

/// One lane; its own trouble is nobody else's.
pub(super) struct Lane {
    pub(super) index: usize,
    pub(super) name: String,
    pub(super) include: Vec<Action>,
    /// The names of all outputs, this one's too.
    pub(super) outputs: Arc<[String]>,
    pub(super) batch_max_events: usize,
    pub(super) encoder: Encoder,
    pub(super) output: Output,
    pub(super) position: LanePosition,
    pub(super) journal: JournalHandle,
    pub(super) failed: mpsc::UnboundedSender<Fatal>,
    pub(super) stopped: watch::Receiver<bool>,
    pub(super) reopened: watch::Receiver<u64>,
}

/// Why a lane ends before it is told to.
enum Ended {
    Stopped,
    Fatal(Fatal),
}

impl From<JournalError> for Ended {
    fn from(error: JournalError) -> Self {
        match error {
            // The writer has told why, if there is a why.
            JournalError::Closed => Self::Stopped,
            error => Self::Fatal(error.into()),
        }
    }
}

impl Lane {
    pub(super) async fn run(mut self) {
        if let Err(Ended::Fatal(fatal)) = self.carry().await {
            let _ = self.failed.send(fatal);
        }
    }

    async fn carry(&mut self) -> Result<(), Ended> {
        let mut news = self.journal.news();
        loop {
            // Marked before asking: what is committed from here on wakes us again.
            news.borrow_and_update();
            let events = self.journal.pending(self.position.sequence, self.batch_max_events).await?;
            if events.is_empty() {
                if *self.stopped.borrow() {
                    return Ok(());
                }
                tokio::select! {
                    changed = news.changed() => changed.map_err(|_| Ended::Stopped)?,
                    _ = self.stopped.changed() => {}
                    Ok(()) = self.reopened.changed() => self.output.reopen(),
                }
                continue;
            }
            if self.reopened.has_changed().unwrap_or(false) {
                self.reopened.borrow_and_update();
                self.output.reopen();
            }
            self.deliver(&events).await?;
        }
    }

    async fn deliver(&mut self, events: &[JournalledEvent]) -> Result<(), Ended> {
        let Some(last) = events.last() else { return Ok(()) };
        let mut lines = Vec::with_capacity(events.len() * 1024);
        for JournalledEvent { sequence, event } in events {
            if self.include.contains(&event.body.action()) && event.is_for(&self.name, &self.outputs) {
                self.encoder.line(*sequence, event, &mut lines);
            }
        }
        if !lines.is_empty() {
            self.write(lines).await?;
        }
        self.position = LanePosition { sequence: last.sequence, file: self.output.end() };
        self.remember().await
    }

    /// Until the output takes it, or we are told to stop.
    async fn write(&mut self, lines: Vec<u8>) -> Result<(), Ended> {
        let lines: Arc<[u8]> = lines.into();
        let mut failures = 0;
        loop {
            let written = match self.output.prepare().await {
                Ok(end) => {
                    self.begin_at(end).await?;
                    self.output.write(lines.clone()).await
                }
                Err(error) => Err(error),
            };
            let error = match written {
                Ok(()) if failures == 0 => return Ok(()),
                Ok(()) => {
                    info!(output:% = self.name; "the output takes events again");
                    return Ok(());
                }
                Err(OutputError::StdoutClosed) => return Err(Ended::Fatal(Fatal::StdoutClosed)),
                Err(error) => error,
            };
            if failures == 0 {
                warn!(output:% = self.name; "{error}; events wait in the journal");
            }
            failures += 1;
            if *self.stopped.borrow() {
                return Err(Ended::Stopped);
            }
            let wait =
                full_jitter(Duration::from_secs(1), failures.min(6), rand::rng().random_range(0.0..1.0));
            tokio::select! {
                () = sleep(wait) => {}
                _ = self.stopped.changed() => {}
            }
        }
    }

    /// Another file than the last time: where it ends now is durable before it is written to, or what a crash leaves
    /// behind that would not be known for ours.
    async fn begin_at(&mut self, end: Option<FileEnd>) -> Result<(), Ended> {
        if end == self.position.file {
            return Ok(());
        }
        self.position.file = end;
        self.remember().await
    }

    /// The position is as durable as an event: a full disk delays it, and nothing more is sent meanwhile. Told to stop,
    /// a lane leaves it as it is: what was written behind it is known by the next start.
    async fn remember(&mut self) -> Result<(), Ended> {
        loop {
            match self.journal.delivered(self.index, self.position.clone()).await {
                Err(JournalError::DiskFull) if *self.stopped.borrow() => return Err(Ended::Stopped),
                // The writer tells of it.
                Err(JournalError::DiskFull) => tokio::select! {
                    () = sleep(Duration::from_secs(2)) => {}
                    _ = self.stopped.changed() => {}
                },
                other => return Ok(other?),
            }
        }
    }
}
