//! Resting between news: IDLE (RFC 2177), or NOOP every minute where IDLE is of no use.

use std::time::{Duration, Instant};

use super::command::{Command, done};
use super::conversation::{Action, Phase, Shared};
use super::fetch::{Fetching, Unchecked};
use super::notify::is_of_new_message;
use super::reply::{FetchItems, Status, StatusText};
use super::summary::summarize;
use super::watch::{Got, Selected};
use crate::journal::Receipt;

/// For the `+` of IDLE, and for its completion.
const ANSWER: Duration = Duration::from_secs(10);

/// For the push of a message that EXISTS told of.
const PUSH: Duration = Duration::from_secs(2);

/// Messages that were pushed and wait for the journal; what goes beyond is asked for.
const MOST_PUSHED: usize = 100;

/// IDLE, from the command to its completion.
#[derive(Debug)]
pub(super) struct Idle {
    selected: Box<Selected>,
    step: Step,
    /// When it began.
    since: Instant,
    /// Whether IDLE told anything.
    told: bool,
    /// What is to be asked as soon as IDLE can be left.
    unchecked: Option<Box<Unchecked>>,
    /// What the server pushed and is not handed over yet.
    pushed: Got,
    /// EXISTS told of a message that is to be pushed.
    expecting: bool,
}

/// What is awaited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Acceptance,
    News,
    Completion { refreshing: bool },
}

impl Idle {
    pub(super) fn begin(selected: Box<Selected>, shared: &mut Shared, now: Instant) -> Phase {
        match shared.send(&Command::Idle, now) {
            Ok(()) => Self::await_acceptance(selected, None, shared, now),
            Err(ending) => shared.end(ending),
        }
    }

    /// IDLE was sent.
    pub(super) fn await_acceptance(
        selected: Box<Selected>,
        unchecked: Option<Box<Unchecked>>,
        shared: &mut Shared,
        now: Instant,
    ) -> Phase {
        shared.wait("the answer to IDLE", ANSWER, ANSWER * 3, now);
        Phase::Idle(Self {
            selected,
            step: Step::Acceptance,
            since: now,
            told: false,
            unchecked,
            pushed: Got::default(),
            expecting: false,
        })
    }

    pub(super) fn selected(&mut self) -> &mut Selected {
        &mut self.selected
    }

    /// Whether new messages come by themselves.
    pub(super) fn awaits_push(&self) -> bool {
        self.selected.awaits_push()
    }

    /// `+`. A second one means nothing.
    pub(super) fn accepted(mut self, shared: &mut Shared, now: Instant) -> Phase {
        if self.step != Step::Acceptance {
            return Phase::Idle(self);
        }
        self.step = Step::News;
        if shared.pipelining.worked() {
            shared.act(Action::PipeliningWorked);
        }
        self.await_news(shared, now);
        // A message may have come between the last look and IDLE (Dovecot and imap4d tell it around the `+`).
        self.settle(shared, now)
    }

    /// Absolute: what the server says meanwhile, `* OK Still here` above all, does not extend it.
    fn await_news(&self, shared: &mut Shared, now: Instant) {
        let others = shared.rests_until(self.selected.mailbox());
        let own = self.selected.sweep_at().into_iter().chain(self.selected.look_due_at());
        let until = own.chain(others).min().unwrap_or(now);
        let until = until.saturating_duration_since(now);
        shared.wait("news", until, until, now);
    }

    /// Something may have changed: stays, waits for a push, or leaves.
    fn settle(mut self, shared: &mut Shared, now: Instant) -> Phase {
        if self.step != Step::News {
            return Phase::Idle(self);
        }
        if shared.stopping {
            return self.leave(shared, now);
        }
        self.selected.tell_pushed(shared, &mut self.pushed, now);
        if !self.is_wanted(shared, now) {
            if std::mem::take(&mut self.expecting) || self.selected.look_due_at().is_some() {
                self.await_news(shared, now);
            }
            return Phase::Idle(self);
        }
        if self.unchecked.is_some() || !self.selected.awaits_push() {
            return self.leave(shared, now);
        }
        if !std::mem::replace(&mut self.expecting, true) {
            shared.wait("what the server pushes", PUSH, PUSH, now);
        }
        Phase::Idle(self)
    }

    /// FETCH: the push of a message, or a hint that flags have changed.
    pub(super) fn fetched(mut self, shared: &mut Shared, items: &FetchItems, now: Instant) -> Phase {
        let can_take = !matches!(self.step, Step::Completion { .. }) && self.unchecked.is_none();
        if !can_take || !is_of_new_message(items) || self.pushed.0.len() >= MOST_PUSHED {
            return self.settle(shared, now);
        }
        if let Some(uid) = self.selected.take_push(items) {
            self.pushed.0.push((uid, summarize(items, &shared.plan.wanted)));
            self.told = true;
            if self.expecting {
                // The next one has its own time.
                shared.wait("what the server pushes", PUSH, PUSH, now);
            }
        }
        self.settle(shared, now)
    }

    /// EXISTS.
    pub(super) fn pushed(mut self, shared: &mut Shared, now: Instant) -> Phase {
        self.told |= self.step == Step::News;
        self.settle(shared, now)
    }

    /// Something that may, or may not, be a reason to leave IDLE: a new UIDVALIDITY is, `* OK Still here` is not.
    pub(super) fn remarked(self, shared: &mut Shared, now: Instant) -> Phase {
        self.settle(shared, now)
    }

    pub(super) fn delivered(mut self, receipt: &Receipt, shared: &mut Shared, now: Instant) -> Phase {
        self.selected.delivered(receipt, shared);
        self.settle(shared, now)
    }

    /// Whether IDLE must be left, for this mailbox or for others.
    fn is_wanted(&self, shared: &Shared, now: Instant) -> bool {
        self.unchecked.is_some() || self.selected.is_wanted(shared, now)
    }

    /// There is something to do: by one write where that is all, and the server takes it; else in steps.
    fn leave(mut self, shared: &mut Shared, now: Instant) -> Phase {
        let in_one = shared.pipelining.is_trusted()
            && !shared.stopping
            && self.unchecked.is_none()
            && self.pushed.0.is_empty();
        if !in_one || !self.selected.has_few_new() {
            return self.finish(false, shared, now);
        }
        if self.told {
            self.selected.heard();
        }
        Fetching::between_idles(self.selected, shared, now)
    }

    /// Whether only news are awaited.
    pub(super) fn is_resting(&self) -> bool {
        self.step == Step::News
    }

    /// When it began, unless it was left for a reason.
    pub(super) fn silent_since(&self) -> Option<Instant> {
        let silent = matches!(self.step, Step::News | Step::Completion { refreshing: true });
        silent.then_some(self.since)
    }

    /// The push stays away, or IDLE has lasted long enough.
    pub(super) fn elapsed(mut self, shared: &mut Shared, now: Instant) -> Phase {
        if std::mem::take(&mut self.expecting) {
            self.selected.push_stayed_away();
            return self.leave(shared, now);
        }
        self.refresh(shared, now)
    }

    /// A check round, and IDLE anew.
    fn refresh(mut self, shared: &mut Shared, now: Instant) -> Phase {
        let too_early = self.selected.sweep_at().is_some_and(|at| at > now);
        if too_early && self.is_wanted(shared, now) {
            return self.finish(false, shared, now);
        }
        self.selected.sweep_is_due(now);
        self.finish(true, shared, now)
    }

    pub(super) fn stop(self, shared: &mut Shared, now: Instant) -> Phase {
        if self.step == Step::News { self.finish(false, shared, now) } else { Phase::Idle(self) }
    }

    fn finish(mut self, refreshing: bool, shared: &mut Shared, now: Instant) -> Phase {
        self.step = Step::Completion { refreshing };
        shared.act(Action::Send(done()));
        shared.wait("the answer to DONE", ANSWER, ANSWER * 3, now);
        Phase::Idle(self)
    }

    /// The completion: asked for by DONE, or the server's own idea.
    pub(super) fn completed(mut self, shared: &mut Shared, status: Status, now: Instant) -> Phase {
        if self.step == Step::Acceptance && shared.pipelining.is_running() {
            // It took IDLE before: it is what was sent ahead that it does not take.
            shared.pipelining_broke();
            return self.go_on(shared, now);
        }
        match self.step {
            Step::Acceptance if status != Status::Ok => self.selected.idle_was_refused(),
            Step::Acceptance | Step::News => self.selected.idle_ended_early(),
            Step::Completion { .. } if self.told => self.selected.heard(),
            Step::Completion { refreshing: true } if self.selected.has_work() => {
                self.selected.heard_nothing();
            }
            Step::Completion { .. } => {}
        }
        self.go_on(shared, now)
    }

    fn go_on(mut self, shared: &mut Shared, now: Instant) -> Phase {
        // What was pushed and has no receipt is asked for: nobody would remember it.
        self.selected.wanted(&self.pushed.uids());
        match self.unchecked {
            Some(unchecked) => Fetching::check_left_out(self.selected, *unchecked, shared, now),
            None => self.selected.proceed(shared, now),
        }
    }
}

/// Resting between two NOOPs, or awaiting the completion of one.
#[derive(Debug)]
pub(super) struct Polling {
    selected: Box<Selected>,
    resting: bool,
}

impl Polling {
    pub(super) fn begin(selected: Box<Selected>, shared: &mut Shared, now: Instant) -> Phase {
        let interval = shared.plan.poll_interval;
        shared.wait("the next poll", interval, interval, now);
        Phase::Polling(Self { selected, resting: true })
    }

    pub(super) fn selected(&mut self) -> &mut Selected {
        &mut self.selected
    }

    pub(super) fn is_resting(&self) -> bool {
        self.resting
    }

    /// The pause is over.
    pub(super) fn ask(mut self, shared: &mut Shared, now: Instant) -> Phase {
        if self.selected.sweep_at().is_none_or(|at| at <= now) {
            self.selected.sweep_is_due(now);
        }
        self.resting = false;
        shared.send_then(&Command::Noop, now, Phase::Polling(self))
    }

    pub(super) fn delivered(mut self, receipt: &Receipt, shared: &mut Shared, now: Instant) -> Phase {
        self.selected.delivered(receipt, shared);
        if self.resting && (self.selected.is_wanted(shared, now) || shared.stopping) {
            return self.selected.proceed(shared, now);
        }
        Phase::Polling(self)
    }

    pub(super) fn stop(self, shared: &mut Shared, now: Instant) -> Phase {
        self.selected.proceed(shared, now)
    }

    pub(super) fn completed(
        self,
        shared: &mut Shared,
        status: Status,
        text: &StatusText,
        now: Instant,
    ) -> Phase {
        if status == Status::Ok { self.selected.proceed(shared, now) } else { shared.refused("NOOP", text) }
    }
}
