//! The account actor: starts its sessions, hears how they end, and lets `lifecycle` decide what follows.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;
use futures::channel::mpsc;
use jiff::Timestamp;
use log::{debug, warn};
use rand::Rng;
use tokio::sync::oneshot;

use super::findings::Reporter;
use super::lifecycle::{Blame, Verdict, blame, trouble, verdict};
use super::session::{Milestone, Milestones, Outcome, Outlet, Wires, watch};
use super::standing::{MailboxStanding, Setback, Standing};
use crate::backoff::PROVEN;
use crate::config::settings::Account;
use crate::event::{AccountState, Event, EventBody, MailboxName, StateChange};
use crate::journal::JournalHandle;
use crate::messages::{Batch, Deliver, StatusChanged, StopAccount};

/// State changes that wait for the sink; a journal that takes nothing must not make memory grow.
const MOST_WAITING_EVENTS: usize = 64;

/// What an account actor is given.
#[derive(Clone, Debug)]
pub struct AccountContext {
    /// What sessions share.
    pub wires: Wires,
    /// Where batches go.
    pub sink: Recipient<Deliver>,
    /// Where checkpoints are read.
    pub journal: JournalHandle,
    /// Makes the account's events.
    pub reporter: Reporter,
    /// Who hears of its state.
    pub coordinator: Recipient<StatusChanged>,
}

/// One account.
#[derive(Debug)]
pub struct AccountActor {
    account: Arc<Account>,
    context: AccountContext,
    watches: Vec<MailboxWatch>,
    standing: Standing,
    /// Whether the credentials were accepted since they were last in doubt: until then one session tries for all.
    login_proven: bool,
    refused_logins: u32,
    milestones: Milestones,
    heard: Option<mpsc::UnboundedReceiver<(MailboxName, Milestone)>>,
    events: VecDeque<Event>,
    telling: bool,
    stopping: Vec<oneshot::Sender<()>>,
    stopped: bool,
}

/// One mailbox of the account, and the session that watches it.
#[derive(Debug)]
struct MailboxWatch {
    mailbox: MailboxName,
    session: Session,
    last_blame: Blame,
    failures: u32,
    caution: u8,
}

#[derive(Debug)]
enum Session {
    /// May start any time.
    Ready,
    /// Waits for a clock.
    Waiting(SpawnHandle),
    /// Lives; dropping the sender would stop it too.
    Running { stop: Option<oneshot::Sender<()>>, watching_since: Option<Instant> },
    /// Waits for a person.
    Suspended,
}

impl AccountActor {
    /// An actor that is not started yet.
    pub fn new(account: Arc<Account>, context: AccountContext) -> Self {
        let (milestones, heard) = mpsc::unbounded();
        let watches = account.mailboxes.iter().map(|mailbox| MailboxWatch {
            mailbox: mailbox.clone(),
            session: Session::Ready,
            last_blame: Blame::Nobody,
            failures: 0,
            caution: 0,
        });
        Self {
            watches: watches.collect(),
            standing: Standing::new(&account.mailboxes),
            login_proven: false,
            refused_logins: 0,
            milestones,
            heard: Some(heard),
            events: VecDeque::new(),
            telling: false,
            stopping: Vec::new(),
            stopped: false,
            account,
            context,
        }
    }

    /// Starts what may start: one session until the login is proven, then all.
    fn start_ready(&mut self, ctx: &mut Context<Self>) {
        let waiting = |watch: &MailboxWatch| !matches!(watch.session, Session::Ready);
        if self.stopped || (!self.login_proven && self.watches.iter().any(waiting)) {
            return;
        }
        let most = if self.login_proven { usize::MAX } else { 1 };
        let is_ready = |(_, watch): &(usize, &MailboxWatch)| matches!(watch.session, Session::Ready);
        let ready: Vec<_> =
            self.watches.iter().enumerate().filter(is_ready).take(most).map(|(index, _)| index).collect();
        for index in ready {
            self.start(index, ctx);
        }
    }

    fn start(&mut self, index: usize, ctx: &mut Context<Self>) {
        let Some(watched) = self.watches.get_mut(index) else { return };
        let (stop, stopped) = oneshot::channel();
        watched.session = Session::Running { stop: Some(stop), watching_since: None };
        let outlet = Outlet {
            sink: self.context.sink.clone(),
            journal: self.context.journal.clone(),
            reporter: self.context.reporter.clone(),
            mailbox: watched.mailbox.clone(),
        };
        let life = watch(
            self.account.clone(),
            watched.mailbox.clone(),
            watched.caution,
            self.context.wires.clone(),
            outlet,
            self.milestones.clone(),
            stopped,
        );
        ctx.spawn(life.into_actor(self).map(move |outcome, actor, ctx| actor.ended(index, &outcome, ctx)));
        self.stands(index, MailboxStanding::Connecting, ctx);
    }

    fn reached(&mut self, mailbox: &MailboxName, milestone: &Milestone, ctx: &mut Context<Self>) {
        let Some(index) = self.watches.iter().position(|watch| watch.mailbox == *mailbox) else { return };
        match milestone {
            Milestone::LoggedIn => {
                self.refused_logins = 0;
                self.login_proven = true;
                self.start_ready(ctx);
            }
            Milestone::Watching => {
                if let Some(Session::Running { watching_since, .. }) =
                    self.watches.get_mut(index).map(|watch| &mut watch.session)
                {
                    *watching_since = Some(Instant::now());
                }
                self.stands(index, MailboxStanding::Watching, ctx);
            }
            Milestone::Mailboxes(_) | Milestone::Titles(_) => {}
        }
    }

    /// A session ended; now what?
    fn ended(&mut self, index: usize, outcome: &Outcome, ctx: &mut Context<Self>) {
        let blame = blame(&outcome.end);
        debug!(account:% = self.account.id(), mailbox:? = self.watches.get(index).map(|watch| &watch.mailbox), blame:?; "session ended: {:?}", trouble(&outcome.end));
        let Some(watched) = self.watches.get_mut(index) else { return };
        let attempt = watched.failed(blame, outcome);
        let attempt = if blame == Blame::Credentials { self.refuse() } else { attempt };
        if matches!(blame, Blame::Credentials | Blame::Operator(_)) {
            self.login_proven = false;
        }
        if self.stopped {
            self.set(index, Session::Suspended);
            self.tell_stopped();
            return;
        }
        let setback = |state, retry_in| Setback { state, trouble: trouble(&outcome.end), attempt, retry_in };
        match verdict(blame, attempt, rand::rng().random_range(0.0..1.0)) {
            Verdict::Stopped => self.set(index, Session::Ready),
            Verdict::Retry { state, after } => {
                self.retry(index, after, ctx);
                self.stands(index, MailboxStanding::Waiting(setback(state, Some(after))), ctx);
            }
            Verdict::RetryMailbox { after } => {
                self.retry(index, after, ctx);
                if let Some(trouble) = trouble(&outcome.end) {
                    self.stands(index, MailboxStanding::Missing(trouble), ctx);
                }
            }
            Verdict::Suspend => {
                self.set(index, Session::Suspended);
                self.stands(index, MailboxStanding::Suspended(setback(AccountState::Suspended, None)), ctx);
            }
        }
    }

    /// Refused logins are the account's, whichever mailbox they were for.
    fn refuse(&mut self) -> u32 {
        self.refused_logins = self.refused_logins.saturating_add(1);
        self.refused_logins
    }

    fn set(&mut self, index: usize, session: Session) {
        if let Some(watched) = self.watches.get_mut(index) {
            watched.session = session;
        }
    }

    fn retry(&mut self, index: usize, after: Duration, ctx: &mut Context<Self>) {
        let timer = ctx.run_later(after, move |actor, ctx| {
            actor.set(index, Session::Ready);
            actor.start_retried(index, ctx);
        });
        self.set(index, Session::Waiting(timer));
    }

    /// A clock has run out. While the login is in doubt, one session at a time may try it.
    fn start_retried(&mut self, index: usize, ctx: &mut Context<Self>) {
        let trying =
            |watch: &MailboxWatch| matches!(watch.session, Session::Running { watching_since: None, .. });
        if !self.stopped && (self.login_proven || !self.watches.iter().any(trying)) {
            self.start(index, ctx);
        }
    }

    /// The mailbox stands differently now: what is news of that is told to the coordinator and to the world.
    fn stands(&mut self, index: usize, standing: MailboxStanding, ctx: &mut Context<Self>) {
        for change in self.standing.change(index, standing) {
            self.tell(change, ctx);
        }
    }

    fn tell(&mut self, change: StateChange, ctx: &mut Context<Self>) {
        note(&self.account, &change);
        let status = StatusChanged {
            account: self.account.id().clone(),
            state: change.state,
            trouble: change.trouble.clone(),
            mailbox: change.mailbox.clone(),
        };
        // A fact that travels up: the newest matters, and nobody waits for it.
        if self.context.coordinator.try_send(status).is_err() {
            debug!(account:% = self.account.id(); "the coordinator is busy: a status is told later");
        }
        let body = EventBody::AccountState(Box::new(change));
        if let Some(event) = self.context.reporter.account_event(body, Timestamp::now()) {
            if self.events.len() >= MOST_WAITING_EVENTS {
                self.events.pop_front();
            }
            self.events.push_back(event);
            self.tell_next(ctx);
        }
    }

    /// One at a time, so that they keep their order.
    fn tell_next(&mut self, ctx: &mut Context<Self>) {
        if self.telling {
            return;
        }
        let Some(event) = self.events.pop_front() else { return };
        self.telling = true;
        let batch = Batch { events: vec![event], checkpoint: None };
        let sent = self.context.sink.send(Deliver { batch }).into_actor(self);
        ctx.spawn(sent.map(|_, actor, ctx| {
            actor.telling = false;
            actor.tell_next(ctx);
        }));
    }

    fn tell_stopped(&mut self) {
        let running = |watch: &MailboxWatch| matches!(watch.session, Session::Running { .. });
        if !self.watches.iter().any(running) {
            for waiter in self.stopping.drain(..) {
                let _ = waiter.send(());
            }
        }
    }
}

impl MailboxWatch {
    /// Counts a failure; only a proven life forgets those before it. Returns how many in a row there were.
    fn failed(&mut self, blame: Blame, outcome: &Outcome) -> u32 {
        let proven = matches!(self.session, Session::Running { watching_since: Some(since), .. } if since.elapsed() >= PROVEN);
        if proven || blame != self.last_blame {
            self.failures = 0;
        }
        self.failures = self.failures.saturating_add(1);
        self.last_blame = blame;
        self.caution = if outcome.died_fetching { self.caution.saturating_add(1) } else { 0 };
        self.failures
    }
}

fn note(account: &Account, change: &StateChange) {
    let id = account.id();
    match &change.trouble {
        Some(trouble)
            if matches!(
                change.state,
                AccountState::AuthFailed | AccountState::TlsFailed | AccountState::Suspended
            ) =>
        {
            warn!(account:% = id, host:% = account.identity.host, error:% = trouble.error_type; "{}: {}", change.state, trouble.message);
        }
        Some(trouble) => {
            debug!(account:% = id, host:% = account.identity.host, error:% = trouble.error_type; "{}: {}", change.state, trouble.message);
        }
        None => debug!(account:% = id; "{}", change.state),
    }
}

impl Actor for AccountActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        if let Some(heard) = self.heard.take() {
            ctx.add_stream(heard);
        }
        self.start_ready(ctx);
    }
}

impl StreamHandler<(MailboxName, Milestone)> for AccountActor {
    fn handle(&mut self, (mailbox, milestone): (MailboxName, Milestone), ctx: &mut Self::Context) {
        self.reached(&mailbox, &milestone, ctx);
    }

    // The actor holds a sender itself: the stream ends with the actor, not the actor with the stream.
    fn finished(&mut self, _: &mut Self::Context) {}
}

impl Handler<StopAccount> for AccountActor {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, StopAccount { deadline }: StopAccount, ctx: &mut Self::Context) -> Self::Result {
        self.stopped = true;
        let mut timers = Vec::new();
        for watched in &mut self.watches {
            match &mut watched.session {
                Session::Running { stop, .. } => {
                    if let Some(stop) = stop.take() {
                        let _ = stop.send(());
                    }
                }
                Session::Waiting(timer) => timers.push(*timer),
                Session::Ready | Session::Suspended => {}
            }
        }
        for timer in timers {
            ctx.cancel_future(timer);
        }
        let (done, all_done) = oneshot::channel();
        self.stopping.push(done);
        self.tell_stopped();
        Box::pin(async move {
            let _ = tokio::time::timeout(deadline, all_done).await;
        })
    }
}
