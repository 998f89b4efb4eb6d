//! Where a conversation's deliveries go, and where it learns what was told before.

use std::cell::RefCell;
use std::collections::HashSet;
use std::rc::Rc;
use std::time::Duration;

use actix::Recipient;
use futures::future::LocalBoxFuture;
use futures::{FutureExt, TryFutureExt};
use jiff::Timestamp;
use log::error;
use tokio::time::Instant;

use super::findings::{Report, Reporter};
use crate::config::settings::Initial;
use crate::event::MailboxName;
use crate::imap::changes::WantedChanges;
use crate::imap::conversation::{Delivery, ToldFrom};
use crate::imap::rounds::{LookUp, LookedUp};
use crate::imap::stops::Met;
use crate::journal::{JournalHandle, Receipt};
use crate::memory::Memory;
use crate::messages::{Deliver, Replaces, Undelivered};
use crate::once::replay::Replaying;

/// Where a session begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// Where the last one stood, as the journal has it.
    Checkpoint,
    /// As if a mailbox was never met, from there on; but those that were begun go on.
    Anew(ToldFrom, Begun),
    /// The same, without a cursor that moves.
    Replay(Replaying),
}

/// The mailboxes of which something was made durable, by whatever session of a pass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Begun(Rc<RefCell<HashSet<MailboxName>>>);

impl Start {
    /// From where `mailbox` is told anew; `None` where its checkpoint counts.
    fn anew(&self, mailbox: &MailboxName) -> Option<ToldFrom> {
        match self {
            Self::Anew(from, begun) if !begun.0.borrow().contains(mailbox) => Some(*from),
            Self::Replay(replaying) if replaying.stands(mailbox).is_none() => Some(replaying.from),
            Self::Replay(_) | Self::Anew(..) | Self::Checkpoint => None,
        }
    }

    fn begun(&self, mailbox: MailboxName) {
        if let Self::Anew(_, begun) = self {
            begun.0.borrow_mut().insert(mailbox);
        }
    }
}

/// A delivery under way.
pub type Delivering = LocalBoxFuture<'static, Result<Receipt, Undelivered>>;

/// A look into the journal.
pub type Recalling = LocalBoxFuture<'static, Result<Memory, Undelivered>>;

/// Another one.
pub type LookingUp = LocalBoxFuture<'static, Result<LookedUp, Undelivered>>;

/// Where a conversation's deliveries go.
pub trait Delivers {
    /// Makes `delivery` durable; waiting for that is backpressure.
    fn deliver(&self, delivery: Delivery) -> Delivering;

    /// Where a mailbox of many stands.
    fn look_up(&self, asked: LookUp) -> LookingUp {
        drop(asked);
        futures::future::ready(Err(Undelivered::Stopping)).boxed_local()
    }

    /// What was told of the mailbox lately.
    fn recall(&self, mailbox: &MailboxName) -> Recalling;
}

/// The sink, as one session sees it.
#[derive(Clone, Debug)]
pub struct Outlet {
    /// Where batches go.
    pub sink: Recipient<Deliver>,
    /// Where checkpoints are read.
    pub journal: JournalHandle,
    /// Makes events of findings.
    pub reporter: Reporter,
    /// Where its mailboxes begin.
    pub from: Start,
    /// What a first contact tells.
    pub initial: Initial,
    /// A mailbox that appears is noticed within this time.
    pub noticed_within: Duration,
    /// When a connection was last known to live, before mailboxes appeared unseen.
    pub last_life: Option<Timestamp>,
}

impl Outlet {
    /// The changes that are told of messages; not where only messages are told again.
    pub(super) fn changes(&self) -> WantedChanges {
        match self.from {
            Start::Replay(_) => WantedChanges::default(),
            Start::Checkpoint | Start::Anew(..) => WantedChanges::of(&self.reporter.include),
        }
    }

    pub(super) async fn looked_up(&self, asked: &LookUp) -> Result<LookedUp, Undelivered> {
        let cursor = |mailbox| {
            let cursor = self.journal.cursor(self.reporter.key(mailbox));
            cursor.map_err(|failure| {
                error!("{failure}");
                Undelivered::JournalFailed
            })
        };
        if let Some(from) = self.from.anew(&asked.mailbox) {
            return Ok(LookedUp { told_from: Some(from), ..LookedUp::default() });
        }
        if let Start::Replay(replaying) = &self.from {
            return Ok(LookedUp { checkpoint: replaying.stands(&asked.mailbox), ..LookedUp::default() });
        }
        let checkpoint = cursor(&asked.mailbox).await?;
        let mut inheritance = Vec::new();
        for mailbox in asked.formerly.iter().filter(|_| checkpoint.is_none()) {
            inheritance.extend(cursor(mailbox).await?);
        }
        let told_from = self.told_from(asked.met, Timestamp::now());
        Ok(LookedUp { checkpoint, told_from, inheritance })
    }

    /// What is in a mailbox that was not there before came since then.
    fn told_from(&self, met: Met, now: Timestamp) -> Option<ToldFrom> {
        let configured = self.initial.told_from(now);
        let Some(last_seen) = last_without(met, self.last_life, now) else { return configured };
        let appeared = last_seen.checked_sub(self.noticed_within).unwrap_or(Timestamp::MIN);
        Some(match configured {
            Some(ToldFrom::Time(configured)) => ToldFrom::Time(configured.min(appeared)),
            Some(of_a_uid) => of_a_uid,
            None => ToldFrom::Time(appeared),
        })
    }
}

/// When the list was last known not to hold the mailbox, or soon after; `None` where it held it from the first.
fn last_without(met: Met, last_life: Option<Timestamp>, now: Timestamp) -> Option<Timestamp> {
    match met {
        Met::AtFirst => None,
        Met::WhileAway => Some(last_life.unwrap_or(now)),
        Met::WhileWatched { since } => {
            let waited = Instant::now().into_std().saturating_duration_since(since);
            Some(now.checked_sub(waited).unwrap_or(Timestamp::MIN))
        }
    }
}

impl Delivers for Outlet {
    fn deliver(&self, delivery: Delivery) -> Delivering {
        let (mailbox, from) = (delivery.mailbox.clone(), self.from.clone());
        let Report { mut batch, dropped } = self.reporter.report(delivery, Timestamp::now());
        if let Start::Replay(replaying) = &from {
            batch = replaying.of(batch);
        } else if from.anew(&mailbox).is_some() {
            batch.checkpoint.iter_mut().for_each(|checkpoint| checkpoint.replaces = Replaces::Anything);
        }
        let (sink, filters) = (self.sink.clone(), self.reporter.filters.clone());
        let events = batch.events.len();
        let stands = match &from {
            Start::Replay(_) => batch.checkpoint.as_ref().map(|checkpoint| checkpoint.cursor.clone()),
            _ => None,
        };
        async move {
            let receipt = sink.send(Deliver { batch }).await.unwrap_or(Err(Undelivered::Stopping))?;
            match &from {
                Start::Replay(replaying) => replaying.told(mailbox, events, stands),
                from => {
                    filters.count_dropped(dropped);
                    from.begun(mailbox);
                }
            }
            Ok(receipt)
        }
        .boxed_local()
    }

    fn look_up(&self, asked: LookUp) -> LookingUp {
        let outlet = self.clone();
        async move { outlet.looked_up(&asked).await }.boxed_local()
    }

    fn recall(&self, mailbox: &MailboxName) -> Recalling {
        let (journal, key) = (self.journal.clone(), self.reporter.key(mailbox));
        async move { journal.memory(key).await.map_err(|_| Undelivered::JournalFailed) }.boxed_local()
    }
}

/// A one-shot conversation delivers nothing.
pub(super) struct NoOutlet;

impl Delivers for NoOutlet {
    fn deliver(&self, _: Delivery) -> Delivering {
        futures::future::ready(Err(Undelivered::Stopping)).boxed_local()
    }

    fn recall(&self, _: &MailboxName) -> Recalling {
        futures::future::ready(Err(Undelivered::Stopping)).boxed_local()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A mailbox that cannot be opened at once loses nothing of what comes until it can be.
    #[tokio::test(start_paused = true)]
    async fn a_mailbox_is_told_from_when_it_was_met_not_from_when_it_is_opened() {
        let now = Timestamp::now();
        let ago = |seconds| now.checked_sub(Duration::from_secs(seconds)).unwrap();
        let met = Met::WhileWatched { since: Instant::now().into_std() };
        tokio::time::advance(Duration::from_secs(7200)).await;
        assert_eq!(last_without(met, Some(ago(10)), now), Some(ago(7200)));
        assert_eq!(last_without(Met::WhileAway, Some(ago(10)), now), Some(ago(10)));
        assert_eq!(last_without(Met::AtFirst, Some(ago(10)), now), None);
    }
}
