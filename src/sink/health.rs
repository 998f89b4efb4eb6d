//! How an output does, for whoever asks.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use crate::journal::Dropped;

/// What a lane tells of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneHealth {
    /// Whether the output takes events.
    pub state: LaneState,
    /// Since when it is in that state.
    pub since: Timestamp,
    /// The last thing that went wrong, harmless; it stays when all is well again.
    pub last_error: Option<String>,
    /// When it is tried again, while it waits for that.
    pub next_try: Option<Timestamp>,
    /// Everything up to this `event.sequence` is done with.
    pub sequence: u64,
    /// When the oldest event happened that is being delivered.
    pub oldest: Option<Timestamp>,
    /// Events taken since the start.
    pub delivered: u64,
    /// Tries that failed since the start.
    pub retries: u64,
    /// Events buried since the start.
    pub dead_letters: u64,
}

/// Whether an output takes events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaneState {
    /// As far as is known.
    Ok,
    /// The last try failed; events wait.
    Retrying,
    /// It has a batch and says nothing: a file system that hangs, a reader that sleeps.
    Stalled,
}

impl LaneState {
    /// As it is shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Retrying => "retrying",
            Self::Stalled => "stalled",
        }
    }
}

impl LaneHealth {
    pub(super) fn new(sequence: u64) -> Self {
        Self {
            state: LaneState::Ok,
            since: Timestamp::now(),
            last_error: None,
            next_try: None,
            sequence,
            oldest: None,
            delivered: 0,
            retries: 0,
            dead_letters: 0,
        }
    }

    pub(super) fn enter(&mut self, state: LaneState) {
        if self.state != state {
            (self.state, self.since) = (state, Timestamp::now());
        }
    }
}

/// One output, watched.
#[derive(Clone, Debug)]
pub struct OutputHealth {
    /// Its name.
    pub name: String,
    /// Its `type`.
    pub kind: &'static str,
    /// Whether events wait in the journal for it.
    pub required: bool,
    /// How many events may wait for it; `None` where the journal's bytes are the bound.
    pub capacity: Option<u64>,
    pub(super) health: watch::Receiver<LaneHealth>,
    /// The last sequence that is durable.
    pub(super) news: watch::Receiver<u64>,
    pub(super) dropped: Dropped,
    pub(super) urge: Arc<Notify>,
}

impl OutputHealth {
    /// How it does now.
    pub fn now(&self) -> LaneHealth {
        self.health.borrow().clone()
    }

    /// Has it tried now, where it waits for its next try. Whether what comes of that shows within so much time.
    pub async fn retry(&self, patience: Duration) -> bool {
        let mut health = self.health.clone();
        let before = health.borrow().retries;
        self.urge.notify_waiters();
        let shows =
            |now: &LaneHealth| now.state == LaneState::Ok || now.retries > before && now.next_try.is_some();
        matches!(timeout(patience, health.wait_for(shows)).await, Ok(Ok(_)))
    }

    /// How many events it still lacks, those that are not for it included. What is beyond its capacity is lost to it, and
    /// does not wait.
    pub fn waiting(&self) -> u64 {
        let lacks = self.news.borrow().saturating_sub(self.health.borrow().sequence);
        self.capacity.map_or(lacks, |most| lacks.min(most))
    }

    /// How many events it will not get any more since so many waited for it, since the start.
    pub fn dropped(&self) -> u64 {
        self.dropped.of(&self.name)
    }

    /// Whether it has everything that is durable now, once so much time has passed at the latest.
    pub async fn catches_up(&self, patience: Duration) -> bool {
        let (mut health, last) = (self.health.clone(), *self.news.borrow());
        let caught_up = health.wait_for(|health| health.sequence >= last);
        matches!(timeout(patience, caught_up).await, Ok(Ok(_)))
    }

    /// Whether nobody carries events to it any more.
    pub fn has_ended(&self) -> bool {
        self.health.has_changed().is_err()
    }

    /// The age of the oldest event that is being delivered; nothing where none is.
    pub fn lag(&self, now: Timestamp) -> Duration {
        let oldest = self.health.borrow().oldest;
        oldest.and_then(|at| Duration::try_from(now.duration_since(at)).ok()).unwrap_or_default()
    }
}
