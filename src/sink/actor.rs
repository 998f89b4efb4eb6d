//! The sink actor: takes batches, answers with receipts.

use actix::prelude::*;
use actix_rt::task::JoinHandle;
use futures::future::join_all;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::journal::{Entry, JournalHandle, Receipt};
use crate::messages::{Deliver, Drain, DrainReport, ReopenFiles, Undelivered};
use crate::metrics::{Counted, Metrics};

/// Batches under way; more wait in their senders, which is the backpressure.
const MAILBOX: usize = 1024;

/// The sink.
#[derive(Debug)]
pub struct Sink {
    journal: JournalHandle,
    stop: watch::Sender<bool>,
    reopen: watch::Sender<u64>,
    lanes: Vec<JoinHandle<()>>,
    draining: bool,
    metrics: Metrics,
}

impl Sink {
    pub(super) fn new(
        journal: JournalHandle,
        stop: watch::Sender<bool>,
        reopen: watch::Sender<u64>,
        lanes: Vec<JoinHandle<()>>,
        metrics: Metrics,
    ) -> Self {
        Self { journal, stop, reopen, lanes, draining: false, metrics }
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

impl Handler<Drain> for Sink {
    type Result = ResponseFuture<DrainReport>;

    fn handle(&mut self, Drain { deadline }: Drain, _: &mut Self::Context) -> Self::Result {
        self.draining = true;
        let lanes = std::mem::take(&mut self.lanes);
        let _ = self.stop.send(true);
        let journal = self.journal.clone();
        Box::pin(async move {
            // A lane that is stuck keeps its position, and its events stay in the journal.
            let _ = timeout(deadline, join_all(lanes)).await;
            DrainReport { undelivered: journal.settle().await }
        })
    }
}
