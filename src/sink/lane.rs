//! A lane carries events from the journal to one output, in order, and remembers how far it came.

use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use jiff::Timestamp;
use log::{error, info, warn};
use rand::Rng;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, sleep, timeout};

use super::Fatal;
use super::attempts::{Attempts, Step};
use super::batch::{Batch, Item};
use super::dead_letters::{DeadLetter, DeadLetters};
use super::echo;
use super::encode::Encoder;
use super::health::{LaneHealth, LaneState};
use super::held::Held;
use super::output::{Outcome, Output};
use crate::cluster::shard::{Holding, ShardSet};
use crate::config::settings::OutputKind;
use crate::event::Action;
use crate::journal::{FileEnd, JournalError, JournalHandle, JournalledEvent, LanePosition, Saving};
use crate::metrics::Metrics;
use crate::privacy::Privacy;
use crate::text::{self, counted};

/// One lane; its own trouble is nobody else's.
pub(super) struct Lane {
    pub(super) index: usize,
    pub(super) name: String,
    pub(super) terms: Terms,
    pub(super) output: Output,
    /// Durable: what lies behind it is offered after a restart.
    pub(super) position: LanePosition,
    /// The position on its way to the disk: no further batch is written before it is there.
    pub(super) saving: Option<Saving>,
    /// What was taken, ahead of `position` by what is held.
    pub(super) sent: u64,
    pub(super) held: Held,
    pub(super) journal: JournalHandle,
    pub(super) holding: watch::Receiver<Holding>,
    /// What was held when the events in hand were taken from the journal.
    pub(super) taken_of: ShardSet,
    /// The tries of what is in hand.
    pub(super) attempts: Attempts,
    /// A pause that was broken off goes on until then, whatever is in hand by then.
    pub(super) rests_until: Option<Instant>,
    pub(super) dead_letters: DeadLetters,
    pub(super) health: watch::Sender<LaneHealth>,
    pub(super) metrics: Metrics,
    pub(super) failed: mpsc::UnboundedSender<Fatal>,
    pub(super) stopped: watch::Receiver<bool>,
    pub(super) reopened: watch::Receiver<u64>,
    /// Somebody wants it tried now.
    pub(super) urged: Arc<Notify>,
    /// Ends where the output is no more.
    pub(super) refits: mpsc::UnboundedReceiver<Refit>,
}

/// What an output is told, and how.
#[derive(Debug)]
pub(super) struct Terms {
    pub(super) include: Vec<Action>,
    /// Whom its errors speak of, where they do not say it.
    pub(super) target: Option<String>,
    pub(super) batch_max_events: usize,
    /// How long events may wait for others to go with them.
    pub(super) batch_max_delay: Duration,
    pub(super) privacy: Privacy,
    pub(super) encoder: Encoder,
}

/// The configuration has it otherwise from now on.
#[derive(Debug)]
pub(super) struct Refit {
    pub(super) terms: Terms,
    /// In place of the one before, unless that goes on to be used.
    pub(super) output: Option<Output>,
    /// As it is configured.
    pub(super) kind: OutputKind,
    /// How long what it took is kept for it, and how many events at most.
    pub(super) held: (Duration, u64),
}

/// An output without a deadline of its own is told to be stalled after this, and is waited for all the same.
const STALLED: Duration = Duration::from_secs(10);

/// How often an output is asked whether it still has what is held for it.
const ASK: Duration = Duration::from_secs(5);

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

/// Sees an output that says nothing.
struct Stall<'a> {
    name: &'a str,
    health: &'a watch::Sender<LaneHealth>,
    /// It gives up by itself.
    has_deadline: bool,
}

impl Stall<'_> {
    /// Waits for the output as long as it takes, and tells where that is long.
    async fn watch<T>(self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        if !self.has_deadline {
            if let Ok(done) = timeout(STALLED, work.as_mut()).await {
                return done;
            }
            self.tell();
        }
        work.await
    }

    fn tell(&self) {
        let reason =
            format!("it has taken nothing for {STALLED:?}: its file system hangs, or its reader sleeps");
        warn!(output:% = self.name; "{reason}; events wait in the journal");
        self.health.send_modify(|health| {
            health.enter(LaneState::Stalled);
            health.last_error = Some(reason);
        });
    }
}

impl Lane {
    /// To its end; over panics of an output, which are its failures as any other.
    pub(super) async fn run(mut self) {
        let mut panics = Attempts::default();
        loop {
            let before = self.sent;
            match AssertUnwindSafe(self.carry()).catch_unwind().await {
                Ok(Err(Ended::Fatal(fatal))) => return drop(self.failed.send(fatal)),
                Ok(_) => return,
                Err(panic) => {
                    if self.sent > before {
                        panics = Attempts::default();
                    }
                    if !self.begin_anew(&text::of_panic(panic.as_ref()), &mut panics).await {
                        return;
                    }
                }
            }
        }
    }

    /// What was offered last is in doubt, and offered again. `false` where it is time to end.
    async fn begin_anew(&mut self, words: &str, panics: &mut Attempts) -> bool {
        let words = format!("a panic, which is a defect of ours: {words}");
        error!(output:% = self.name; "{}; it begins anew", text::line(&words, 512));
        self.tell(&words, true);
        self.health.send_modify(|health| health.enter(LaneState::Retrying));
        self.output.reopen();
        self.sent = self.held.rewind();
        self.attempts = Attempts::default();
        let step = panics.judge(&Outcome::again(words), 1, rand::rng().random_range(0.0..1.0));
        match step {
            Step::Wait { wait, .. } => self.pause(wait).await.is_ok(),
            _ => true,
        }
    }

    async fn carry(&mut self) -> Result<(), Ended> {
        let mut news = self.journal.news();
        loop {
            match self.refits.try_recv() {
                Ok(refit) => {
                    self.refit(refit);
                    continue;
                }
                // It is configured no more.
                Err(TryRecvError::Disconnected) => return self.saved().await,
                Err(TryRecvError::Empty) => {}
            }
            self.release();
            if !self.held.is_empty() && self.output.has_lost().await {
                self.rewind();
            }
            // Marked before asking: what is committed, or goes to others, from here on is noticed.
            let last = *news.borrow_and_update();
            self.taken_of = self.holding.borrow().held;
            let events = self.journal.pending(self.sent, self.terms.batch_max_events).await?;
            if events.is_empty() && last > self.sent && !self.journal.has_after(self.sent).await? {
                // Others took it all, and tell it.
                self.pass(last);
                continue;
            }
            if events.is_empty() {
                if *self.stopped.borrow() {
                    return self.settle().await;
                }
                tokio::select! {
                    changed = news.changed() => changed.map_err(|_| Ended::Stopped)?,
                    _ = self.stopped.changed() => {}
                    Ok(()) = self.reopened.changed() => self.output.reopen(),
                    () = sleep(ASK), if !self.held.is_empty() => continue,
                    refit = self.refits.recv() => {
                        refit.into_iter().for_each(|refit| self.refit(refit));
                        continue;
                    }
                }
                self.gather(&mut news).await;
                continue;
            }
            if self.reopened.has_changed().unwrap_or(false) {
                self.reopened.borrow_and_update();
                self.output.reopen();
            }
            self.deliver(events).await?;
        }
    }

    /// After a quiet time: lets others come that may go with the first.
    async fn gather(&mut self, news: &mut watch::Receiver<u64>) {
        if self.terms.batch_max_delay.is_zero() || *self.stopped.borrow() {
            return;
        }
        let full = self.sent + self.terms.batch_max_events as u64;
        tokio::select! {
            _ = timeout(self.terms.batch_max_delay, news.wait_for(|last| *last >= full)) => {}
            _ = self.stopped.changed() => {}
        }
    }

    async fn deliver(&mut self, events: Vec<JournalledEvent>) -> Result<(), Ended> {
        let Some(last) = events.last().map(|event| event.sequence) else { return Ok(()) };
        let wanted = events.into_iter().filter(|JournalledEvent { event, had, .. }| {
            self.terms.include.contains(&event.body.action())
                && event.is_for(&self.name)
                && !had.contains(&self.name)
        });
        let told = wanted.map(|JournalledEvent { sequence, event, had }| JournalledEvent {
            sequence,
            event: self.terms.privacy.apply(event),
            had,
        });
        let batch = Batch::new(told, &self.terms.encoder);
        self.metrics.truncated(batch.shortened());
        if batch.is_empty() {
            self.pass(last);
        } else if self.hand_over(batch).await? {
            self.advance(last);
        }
        Ok(())
    }

    /// Until the output has it, or what it never takes is buried, or we are told to stop. Not so where there is older
    /// that has to go before, or some of it is not ours any more.
    async fn hand_over(&mut self, batch: Batch) -> Result<bool, Ended> {
        let mut pieces = vec![batch];
        while let Some(piece) = pieces.pop() {
            let oldest = piece.items().first().map(|item| item.event.at);
            self.health.send_modify(|health| health.oldest = oldest);
            if let Some(end) = self.rests_until.take()
                && !self.pause(end.saturating_duration_since(Instant::now())).await?
            {
                return Ok(false);
            }
            let Some(outcome) = self.offer(&piece).await? else { return Ok(false) };
            let was_failing = self.attempts.failing();
            let step = self.attempts.judge(&outcome, piece.len(), rand::rng().random_range(0.0..1.0));
            if let Some(reason) = outcome.reason() {
                let reason = echo::without(reason, &piece);
                self.tell(&reason, was_failing || matches!(step, Step::Split));
            }
            let mut pause = None;
            let done = match step {
                Step::GoOn => {
                    self.taken(&piece, was_failing);
                    Some(piece)
                }
                Step::Wait { taken, wait } => {
                    let (before, rest) = piece.split(taken);
                    self.taken(&before, false);
                    pieces.push(rest);
                    self.health.send_modify(|health| health.enter(LaneState::Retrying));
                    pause = Some(wait);
                    Some(before)
                }
                Step::Split => {
                    let (first, second) = piece.split(piece.len() / 2);
                    pieces.extend([second, first]);
                    None
                }
                Step::Lighten { wait } => {
                    let (first, second) = piece.split(piece.len() / 2);
                    pieces.extend([second, first]);
                    self.health.send_modify(|health| health.enter(LaneState::Retrying));
                    pause = Some(wait);
                    None
                }
                Step::Bury => {
                    if !self.bury(&piece, &outcome).await? {
                        return Ok(false);
                    }
                    Some(piece)
                }
                Step::Rewind => {
                    self.rewind();
                    return Ok(false);
                }
                Step::End => return Err(Ended::Fatal(Fatal::StdoutClosed)),
            };
            // What is done of a batch is done, whatever becomes of the rest.
            if let Some(done) = done.filter(|done| !done.is_empty() && !pieces.is_empty()) {
                self.advance(done.sequences().1);
            }
            if let Some(wait) = pause
                && !self.pause(wait).await?
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Unless others tell some of it by now.
    async fn offer(&mut self, piece: &Batch) -> Result<Option<Outcome>, Ended> {
        self.saved().await?;
        let stall =
            Stall { name: &self.name, health: &self.health, has_deadline: self.output.has_deadline() };
        match stall.watch(self.output.prepare()).await {
            Ok(end) => self.begin_at(end).await?,
            Err(error) => return Ok(Some(error.into())),
        }
        if !self.is_ours() {
            return Ok(None);
        }
        let stall =
            Stall { name: &self.name, health: &self.health, has_deadline: self.output.has_deadline() };
        let since = Instant::now();
        let outcome = stall.watch(self.output.deliver(piece)).await;
        self.metrics.offered(&self.name, since.elapsed());
        Ok(Some(outcome))
    }

    /// Whether all that was held when the events in hand were taken still is.
    fn is_ours(&self) -> bool {
        self.taken_of.without(&self.holding.borrow().held).is_empty()
    }

    /// Once, until something is taken again; every burial tells for itself.
    fn tell(&self, reason: &str, known: bool) {
        let reason = self.named(reason);
        if !known {
            warn!(output:% = self.name; "{reason}; events wait in the journal");
        }
        self.health.send_modify(|health| {
            health.retries += 1;
            health.last_error = Some(reason);
        });
    }

    /// Harmless, and with its target.
    fn named(&self, reason: &str) -> String {
        match &self.terms.target {
            Some(target) => text::line(&format!("{target}: {reason}"), 512),
            None => text::line(reason, 512),
        }
    }

    fn taken(&self, piece: &Batch, was_failing: bool) {
        let events = piece.len();
        self.metrics.taken(&self.name, piece.text().len());
        if was_failing || self.health.borrow().state == LaneState::Stalled && events > 0 {
            info!(output:% = self.name; "the output takes events again");
        }
        if events > 0 {
            self.health.send_modify(|health| {
                health.delivered += events as u64;
                health.enter(LaneState::Ok);
            });
        }
    }

    /// Told to stop, there is one more try and no more. `false` where everything has to be taken anew: for it is to be offered in
    /// another way, or to another output, or some of it is told by others now. Those are no reason to come earlier.
    async fn pause(&mut self, wait: Duration) -> Result<bool, Ended> {
        if *self.stopped.borrow() {
            return Err(Ended::Stopped);
        }
        // Whoever reads of the next try may want it at once.
        let urged = self.urged.clone();
        let mut urged = pin!(urged.notified());
        urged.as_mut().enable();
        let (end, next_try) = (Instant::now() + wait, Timestamp::now().checked_add(wait).ok());
        self.health.send_modify(|health| health.next_try = next_try);
        let (taken_of, mut holding) = (self.taken_of, self.holding.clone());
        let lost = holding.wait_for(|now| !taken_of.without(&now.held).is_empty());
        let (mut refit, mut goes_on) = (None, true);
        tokio::select! {
            () = sleep(wait) => {}
            () = urged => {}
            _ = self.stopped.changed() => {}
            found = self.refits.recv() => refit = Some(found.ok_or(Ended::Stopped)?),
            Ok(_) = lost => (self.rests_until, goes_on) = (Some(end), false),
        }
        self.health.send_modify(|health| health.next_try = None);
        if let Some(refit) = refit {
            self.refit(refit);
            goes_on = false;
        }
        Ok(goes_on)
    }

    /// What the output before took, and might lose, the one in its place may lack.
    fn refit(&mut self, Refit { terms, output, kind, held: (keep, most) }: Refit) {
        self.terms = terms;
        (self.attempts, self.rests_until) = (Attempts::default(), None);
        if let Some(output) = output {
            self.output = output;
            self.sent = self.held.renew(keep, most);
            self.health.send_modify(|health| {
                health.sequence = self.sent;
                health.enter(LaneState::Ok);
            });
        } else if let Err(error) = self.output.adapt(kind) {
            warn!(output:% = self.name; "{error}; the file goes on as before");
        }
        info!(output:% = self.name; "the output goes on as it is configured now");
    }

    /// Durable before the position moves over it. Where it cannot be, the event is not given up. `false` as of
    /// [`Self::pause`]: another output may take it, or another's.
    async fn bury(&mut self, piece: &Batch, outcome: &Outcome) -> Result<bool, Ended> {
        if !self.is_ours() {
            return Ok(false);
        }
        let reason = self.named(&echo::without(outcome.reason().unwrap_or_default(), piece));
        for Item { sequence, event, .. } in piece.items() {
            let letter = DeadLetter {
                at: Timestamp::now(),
                output: self.name.clone(),
                reason: reason.clone(),
                sequence: *sequence,
                event: event.clone(),
            };
            while let Err(cause) = self.dead_letters.bury(letter.clone()).await {
                let path = self.dead_letters.path().display();
                self.tell(&format!("{path}: {cause}"), false);
                if !self.pause(Duration::from_secs(10)).await? {
                    return Ok(false);
                }
            }
            error!(output:% = self.name, event:% = event.id; "never taken, now in the dead letters: {reason}");
            self.health.send_modify(|health| health.dead_letters += 1);
        }
        Ok(true)
    }

    /// Another file than the last time: where it ends now is durable before it is written to, or what a crash leaves
    /// behind that would not be known for ours.
    async fn begin_at(&mut self, end: Option<FileEnd>) -> Result<(), Ended> {
        if end == self.position.file {
            return Ok(());
        }
        self.position.file = end;
        self.save();
        self.saved().await
    }

    /// What comes next is written only once this is durable, and it is so with the next events nearly always.
    fn save(&mut self) {
        self.saving = Some(self.journal.delivered(self.index, self.position.clone()));
    }

    /// Nothing up to there is for the output.
    fn pass(&mut self, sequence: u64) {
        self.held.pass(Instant::now(), sequence);
        self.gone_behind(sequence);
    }

    fn advance(&mut self, sequence: u64) {
        self.held.add(Instant::now(), self.output.age(), sequence);
        self.gone_behind(sequence);
    }

    fn gone_behind(&mut self, sequence: u64) {
        self.sent = sequence;
        self.release();
        self.health.send_modify(|health| (health.sequence, health.oldest) = (sequence, None));
    }

    /// Lets the journal forget what nobody has to offer again.
    fn release(&mut self) {
        if let Some(sequence) = self.held.release(Instant::now()) {
            self.position = LanePosition { sequence, file: self.output.end() };
            self.save();
        }
    }

    /// What is held at the end is offered again by the next start, unless the output can vouch for it.
    async fn settle(&mut self) -> Result<(), Ended> {
        if !self.held.is_empty()
            && self.output.settle().await
            && let Some(sequence) = self.held.settle()
        {
            self.position = LanePosition { sequence, file: self.output.end() };
            self.save();
        }
        self.saved().await?;
        if !self.held.is_empty() {
            let kept = counted(self.sent.saturating_sub(self.position.sequence), "event");
            info!(output:% = self.name; "it took everything and may still lose it: the journal keeps up to {kept}, and the next start sees whether it has them");
        }
        Ok(())
    }

    fn rewind(&mut self) {
        self.sent = self.held.rewind();
        self.attempts = Attempts::default();
        warn!(output:% = self.name; "the output has lost what it took: everything since event {} is offered again", self.sent);
        self.health.send_modify(|health| health.sequence = self.sent);
    }

    /// The position is as durable as an event: a full disk or a database that is away delays it, and nothing more is sent
    /// meanwhile. Told to stop, a lane leaves it as it is: what was written behind it is known by the next start.
    async fn saved(&mut self) -> Result<(), Ended> {
        while let Some(saving) = self.saving.take() {
            match saving.done().await {
                Err(failure) if failure.passes() && *self.stopped.borrow() => return Err(Ended::Stopped),
                // The writer tells of it.
                Err(failure) if failure.passes() => {
                    tokio::select! {
                        () = sleep(Duration::from_secs(2)) => {}
                        _ = self.stopped.changed() => {}
                    }
                    self.save();
                }
                done => done?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
