//! The sink actor: takes batches, answers with receipts.

use std::sync::Arc;

use std::time::Duration;

use actix::prelude::*;
use actix_rt::task::JoinHandle;
use futures::future::join_all;
use log::{info, warn};
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, timeout, timeout_at};

use super::StateUse;
use super::health::{LaneState, OutputHealth};
use super::lanes::Lanes;
use crate::journal::{Entry, JournalHandle, Receipt};
use crate::messages::{Deliver, Drain, DrainReport, ExchangeOutputs, ReopenFiles, Undelivered};
use crate::metrics::{Counted, Metrics};
use crate::text::counted;

/// For lanes to be dropped, with all that they hold.
const ABORTED: Duration = Duration::from_secs(1);

/// Batches under way; more wait in their senders, which is the backpressure.
const MAILBOX: usize = 1024;

/// The sink.
#[derive(Debug)]
pub struct Sink {
    journal: JournalHandle,
    stop: watch::Sender<bool>,
    reopen: watch::Sender<u64>,
    lanes: Arc<Mutex<Lanes>>,
    draining: bool,
    /// What is not taken is there at the next start.
    keeps: bool,
    metrics: Metrics,
}

impl Sink {
    pub(super) fn new(
        journal: JournalHandle,
        stop: watch::Sender<bool>,
        reopen: watch::Sender<u64>,
        lanes: Lanes,
        metrics: Metrics,
    ) -> Self {
        let keeps = lanes.options.state == StateUse::Kept;
        Self { journal, stop, reopen, lanes: Arc::new(Mutex::new(lanes)), draining: false, keeps, metrics }
    }
}

impl Actor for Sink {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
    }
}

impl Handler<Deliver> for Sink {
    type Result = ResponseFuture<Result<Receipt, Undelivered>>;

    fn handle(&mut self, Deliver { batch }: Deliver, _: &mut Self::Context) -> Self::Result {
        let journal = self.journal.clone();
        let draining = self.draining;
        let counted: Vec<_> = batch.events.iter().map(Counted::from).collect();
        let metrics = self.metrics.clone();
        Box::pin(async move {
            if draining {
                return Err(Undelivered::Stopping);
            }
            let receipt = journal.commit(Entry::new(batch)).await?;
            metrics.committed(&counted);
            Ok(receipt)
        })
    }
}

impl Handler<ReopenFiles> for Sink {
    type Result = ();

    fn handle(&mut self, _: ReopenFiles, _: &mut Self::Context) {
        self.reopen.send_modify(|count| *count += 1);
    }
}

impl Handler<ExchangeOutputs> for Sink {
    type Result = ResponseFuture<Result<Vec<OutputHealth>, String>>;

    fn handle(&mut self, ExchangeOutputs(desired): ExchangeOutputs, _: &mut Self::Context) -> Self::Result {
        let lanes = self.lanes.clone();
        Box::pin(async move {
            let mut lanes = lanes.lock().await;
            lanes.exchange(desired).await.map_err(|error| error.to_string())?;
            Ok(lanes.healths())
        })
    }
}

/// Of an output at its end.
fn tell_what_is_left(output: &OutputHealth, ended: bool, keeps: bool) {
    let (name, waiting, health) = (&output.name, output.waiting(), output.now());
    let left = format!("for the next start: up to {}", counted(waiting, "event"));
    let why = health.last_error.filter(|_| health.state != LaneState::Ok);
    let why = why.map(|why| format!(" ({why})")).unwrap_or_default();
    if !ended {
        warn!(output:% = name; "it did not end in time: it hangs, or waits for an answer; {left}{why}");
    } else if keeps && waiting > 0 {
        info!(output:% = name; "{left}{why}");
    }
}

impl Handler<Drain> for Sink {
    type Result = ResponseFuture<DrainReport>;

    fn handle(&mut self, Drain { deadline }: Drain, _: &mut Self::Context) -> Self::Result {
        self.draining = true;
        let lanes = self.lanes.clone();
        let _ = self.stop.send(true);
        let journal = self.journal.clone();
        let keeps = self.keeps;
        Box::pin(async move {
            let until = Instant::now() + deadline;
            let tasks = timeout_at(until, async { lanes.lock().await.tasks() }).await;
            let (outputs, mut tasks): (Vec<_>, Vec<_>) = tasks.unwrap_or_default().into_iter().unzip();
            let ended = timeout_at(until, join_all(&mut tasks)).await.is_ok();
            for (output, task) in outputs.iter().zip(&tasks) {
                tell_what_is_left(output, ended || task.is_finished(), keeps);
            }
            // A lane that is stuck keeps its position, and its events stay in the journal. What it has started ends with it.
            if !ended {
                tasks.retain(|task| !task.is_finished());
                tasks.iter().for_each(JoinHandle::abort);
                let _ = timeout(ABORTED, join_all(tasks)).await;
            }
            DrainReport { undelivered: journal.settle().await }
        })
    }
}
