//! The account actor: starts its sessions, hears how they end, and lets `lifecycle` decide what follows.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use actix::prelude::*;
use futures::channel::mpsc;
use jiff::Timestamp;
use log::{debug, info, warn};
use rand::Rng;
use tokio::sync::oneshot;

use super::findings::Reporter;
use super::lifecycle::{Blame, SessionEnd, Verdict, asked_pause, blame, trouble, verdict};
use super::milestone::{Milestone, Milestones, Outcome, RefusedLogin};
use super::outlet::{Outlet, Start};
use super::pulse::Pulse;
use super::recall::{Recalled, recall};
use super::schedule::{Ended, Schedule};
use super::session::{self, Assignment, Task, Wires};
use super::sharing::{Exchange, Sharing};
use super::standing::{MailboxStanding, Setback, Standing};
use crate::config::settings::Account;
use crate::event::{AccountState, Event, EventBody, MailboxKey, MailboxName, StateChange, Trouble};
use crate::imap::changes::WantedChanges;
use crate::imap::conversation::Until;
use crate::imap::listing::MOST_MAILBOXES;
use crate::imap::rounds::{Choice, Holding, LIST_EVERY};
use crate::journal::JournalHandle;
use crate::messages::{AccountDetails, Deliver, Describe, Farewell, Note, StatusChanged, StopAccount, Wish};
use crate::refusals::{NextLogin, QuickDigest, Refusals};
use crate::status::{MailboxReport, PastState, WatchedBy};
use crate::text;

/// State changes that wait for the sink; a journal that takes nothing must not make memory grow.
const MOST_WAITING: usize = 64;

/// While the secret cannot be had, and so not be told from the one that was refused.
const RECALL: Duration = Duration::from_secs(60);

/// States that are remembered for those who ask.
const MOST_STATES: usize = 10;

/// The server's clock may be so far from ours: a mailbox that appeared is looked into from a little earlier on.
const SKEW: Duration = Duration::from_secs(5 * 60);

/// Bytes of an alert that are passed on, and alerts a day.
const MOST_ALERT: usize = 512;
const MOST_ALERTS: usize = 16;
const DAY: Duration = Duration::from_secs(24 * 3600);

/// What an account actor is given.
#[derive(Clone, Debug)]
pub struct AccountContext {
    /// What sessions share.
    pub wires: Arc<Wires>,
    /// Where batches go.
    pub sink: Recipient<Deliver>,
    /// Where checkpoints are read.
    pub journal: JournalHandle,
    /// Makes the account's events.
    pub reporter: Reporter,
    /// Beats with the replies of all of its sessions.
    pub alive: Pulse,
    /// Who hears of its state.
    pub coordinator: Recipient<StatusChanged>,
}

/// One account.
#[derive(Debug)]
pub struct AccountActor {
    account: Arc<Account>,
    context: AccountContext,
    watches: Vec<SessionWatch>,
    /// Where mailboxes share a connection.
    sharing: Option<Box<Sharing>>,
    schedule: Schedule,
    standing: Standing,
    refusals: Refusals,
    /// The secret that was refused last, if one was.
    refused_secret: Option<QuickDigest>,
    /// Told to sessions that wait at the gate: a login must not follow the refusal of another.
    refused: Arc<AtomicBool>,
    login_timer: Option<SpawnHandle>,
    secret_timer: Option<SpawnHandle>,
    milestones: Milestones,
    heard: Option<mpsc::UnboundedReceiver<(usize, Milestone)>>,
    events: VecDeque<Event>,
    telling: bool,
    stopping: Vec<oneshot::Sender<()>>,
    /// Alerts of the last day.
    alerts: Vec<(String, Instant)>,
    /// The latest states, for those who ask.
    history: VecDeque<PastState>,
    /// When `login_timer` fires.
    next_login_at: Option<Timestamp>,
}

/// Which mailboxes a session is for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Subject {
    Mailbox(MailboxName),
    /// All that have no session of their own.
    Shared,
    Nobody,
}

/// One session of the account, and the handles of what goes on about it.
#[derive(Debug)]
struct SessionWatch {
    subject: Subject,
    pulse: Pulse,
    /// As noted last.
    blind_since: Option<Timestamp>,
    /// Stops the session; dropping it would, too.
    stop: Option<oneshot::Sender<()>>,
    timer: Option<SpawnHandle>,
    /// When that fires.
    wakes_at: Option<Timestamp>,
}

impl Subject {
    /// The mailbox, where it is one.
    fn mailbox(&self) -> Option<MailboxName> {
        match self {
            Self::Mailbox(mailbox) => Some(mailbox.clone()),
            Self::Shared | Self::Nobody => None,
        }
    }
}

impl SessionWatch {
    fn new(subject: Subject) -> Self {
        Self { subject, pulse: Pulse::default(), blind_since: None, stop: None, timer: None, wakes_at: None }
    }
}

impl AccountActor {
    /// An actor that is not started yet.
    pub fn new(account: Arc<Account>, context: AccountContext) -> Self {
        let (milestones, heard) = mpsc::unbounded();
        let shares = account.shares_a_connection();
        let subjects = match shares {
            true => vec![Subject::Shared],
            false => account.mailboxes.names().iter().cloned().map(Subject::Mailbox).collect(),
        };
        let mut standing = Standing::default();
        subjects.iter().enumerate().for_each(|(index, subject)| standing.enter(index, subject.mailbox()));
        Self {
            schedule: Schedule::new(subjects.len()),
            watches: subjects.into_iter().map(SessionWatch::new).collect(),
            sharing: shares.then(Box::default),
            standing,
            refusals: Refusals::default(),
            refused_secret: None,
            refused: Arc::default(),
            login_timer: None,
            secret_timer: None,
            milestones,
            heard: Some(heard),
            events: VecDeque::new(),
            telling: false,
            stopping: Vec::new(),
            alerts: Vec::new(),
            history: VecDeque::new(),
            next_login_at: None,
            account,
            context,
        }
    }

    fn recall(&mut self, ctx: &mut Context<Self>) {
        let recalled =
            recall(self.context.journal.clone(), self.account.clone(), self.context.wires.tokens.clone());
        ctx.spawn(recalled.into_actor(self).map(|recalled, actor, ctx| actor.recalled(recalled, ctx)));
    }

    fn recalled(&mut self, recalled: Recalled, ctx: &mut Context<Self>) {
        match recalled {
            Recalled::Nothing => self.try_login(ctx),
            Recalled::Refused(refusals, secret) => {
                self.refusals = refusals;
                self.refused_secret = secret;
                self.refused.store(true, Ordering::Relaxed);
                self.schedule.refused_before();
                self.await_login(0, self.refusals.trouble().cloned(), ctx);
                if secret.is_none() {
                    ctx.run_later(RECALL, Self::recall);
                }
            }
        }
    }

    fn start_ready(&mut self, ctx: &mut Context<Self>) {
        for index in self.schedule.ready() {
            self.start(index, ctx);
        }
    }

    fn start(&mut self, index: usize, ctx: &mut Context<Self>) {
        let Some(task) = self.task(index) else { return };
        let Some(watched) = self.watches.get_mut(index) else { return };
        let last_life = match &mut self.sharing {
            Some(sharing) if watched.subject == Subject::Shared => sharing.away_since(watched.pulse.last()),
            _ => watched.pulse.last(),
        };
        let (stop, stopped) = oneshot::channel();
        watched.wakes_at = None;
        watched.stop = Some(stop);
        let outlet = Outlet {
            sink: self.context.sink.clone(),
            journal: self.context.journal.clone(),
            reporter: self.context.reporter.clone(),
            from: Start::Checkpoint,
            initial: self.account.initial,
            noticed_within: self.account.idle_refresh.max(LIST_EVERY) + SKEW,
            last_life,
        };
        let assignment = Assignment {
            number: index,
            task,
            caution: self.schedule.caution(index),
            until: Until::Stopped,
            refused: self.refused.clone(),
            pulse: watched.pulse.clone(),
            alive: self.context.alive.clone(),
        };
        let life = session::run(
            self.account.clone(),
            assignment,
            self.context.wires.clone(),
            outlet,
            self.milestones.clone(),
            stopped,
        );
        ctx.spawn(life.into_actor(self).map(move |outcome, actor, ctx| actor.ended(index, outcome, ctx)));
        self.schedule.started(index);
        self.stands(index, MailboxStanding::Connecting, ctx);
    }

    /// What the session of `index` is to do.
    fn task(&self, index: usize) -> Option<Task> {
        match &self.watches.get(index)?.subject {
            Subject::Mailbox(mailbox) => Some(Task::Mailbox(mailbox.clone())),
            Subject::Shared => Some(Task::Shared(Box::new(self.choice()))),
            Subject::Nobody => None,
        }
    }

    fn choice(&self) -> Choice {
        let beside = self.beside().into_iter().map(|(_, mailbox)| mailbox);
        let sharing = self.sharing.as_deref();
        let known = sharing.and_then(Sharing::known);
        let beside: Vec<_> = beside.collect();
        Choice {
            mailboxes: self.account.mailboxes.clone(),
            max_connections: self.account.connections(),
            known: known.map(|known| known.into_iter().chain(beside.iter().cloned()).collect()),
            newcomers: sharing.map(Sharing::newcomers).unwrap_or_default(),
            beside,
            suspects: sharing.map(|sharing| sharing.suspects.clone()).unwrap_or_default(),
            search: self.account.search.clone(),
            changes: WantedChanges::of(&self.context.reporter.include),
            until: Until::Stopped,
        }
    }

    /// The mailboxes that have sessions of their own beside the shared one.
    fn beside(&self) -> Vec<(usize, MailboxName)> {
        let wanted = self.watches.iter().enumerate().filter(|(index, _)| self.schedule.is_wanted(*index));
        wanted.filter_map(|(index, watched)| Some((index, watched.subject.mailbox()?))).collect()
    }

    /// These mailboxes are to have sessions of their own, and no others.
    fn exchange(&mut self, wanted: &[MailboxName], ctx: &mut Context<Self>) {
        let Exchange { come, go } = Exchange::new(&self.beside(), wanted);
        go.into_iter().for_each(|index| self.let_go(index, ctx));
        for mailbox in come {
            let index = self.schedule.add();
            self.standing.enter(index, Some(mailbox.clone()));
            let watched = SessionWatch::new(Subject::Mailbox(mailbox));
            match self.watches.get_mut(index) {
                Some(vacant) => *vacant = watched,
                None => self.watches.push(watched),
            }
        }
        self.start_ready(ctx);
    }

    fn let_go(&mut self, index: usize, ctx: &mut Context<Self>) {
        self.note_blindness(index);
        if let (Some(mailbox), Some(sharing)) = (self.mailbox_of(index), &mut self.sharing) {
            sharing.let_go(mailbox);
        }
        self.schedule.let_go(index);
        if let Some(watched) = self.watches.get_mut(index) {
            if let Some(stop) = watched.stop.take() {
                let _ = stop.send(());
            }
            if let Some(timer) = watched.timer.take() {
                ctx.cancel_future(timer);
            }
        }
        self.stands(index, MailboxStanding::Left, ctx);
        if let Some(mailbox) = self.mailbox_of(index) {
            self.forget_trouble(mailbox);
        }
    }

    /// Whatever was wrong with a mailbox: it is nobody's business any more, or found out anew.
    fn forget_trouble(&self, mailbox: MailboxName) {
        self.tell_coordinator(self.standing.of_mailbox(mailbox, None));
    }

    /// The server says that it is not there.
    fn note_gone(&self, mailbox: MailboxName) {
        let key = MailboxKey { account: self.account.id().clone(), mailbox };
        self.context.journal.note(Note::Gone { key, since: Timestamp::now() });
    }

    /// The shared session is responsible for these now; who is watched by nobody any more is blind, and gone from the list.
    fn share(&mut self, holding: Holding) {
        let beside: Vec<_> = self.beside().into_iter().map(|(_, mailbox)| mailbox).collect();
        let Some(sharing) = &mut self.sharing else { return };
        let left = sharing.share(holding, &beside);
        for mailbox in left {
            let key = MailboxKey { account: self.account.id().clone(), mailbox: mailbox.clone() };
            self.context.journal.note(Note::Blind { key, since: Timestamp::now() });
            self.forget_trouble(mailbox.clone());
            self.note_gone(mailbox);
        }
    }

    /// A mailbox of the shared session cannot be opened, or can be again.
    fn is_missing(&mut self, mailbox: &MailboxName, trouble: Option<Trouble>, ctx: &mut Context<Self>) {
        let Some(sharing) = &mut self.sharing else { return };
        if sharing.is_missing(mailbox, trouble.clone()) {
            let last_proven_alive = self.last_proven_alive();
            let change = self.standing.of_mailbox(mailbox.clone(), trouble);
            self.changed(StateChange { last_proven_alive, ..change }, ctx);
        }
    }

    /// The one mailbox of the session of `index`.
    fn mailbox_of(&self, index: usize) -> Option<MailboxName> {
        self.watches.get(index)?.subject.mailbox()
    }

    fn is_shared(&self, index: usize) -> bool {
        self.watches.get(index).is_some_and(|watched| watched.subject == Subject::Shared)
    }

    fn reached(&mut self, index: usize, milestone: Milestone, ctx: &mut Context<Self>) {
        match milestone {
            Milestone::LoggedIn => {
                self.schedule.logged_in();
                self.forget_refusals(ctx);
                self.start_ready(ctx);
            }
            Milestone::Watching(mailbox) if self.is_shared(index) => {
                self.schedule.watching(index, Instant::now());
                self.sharing.iter_mut().for_each(|sharing| sharing.was_visited(&mailbox));
                self.is_missing(&mailbox, None, ctx);
            }
            Milestone::Watching(_) => {
                if self.schedule.watching(index, Instant::now()) {
                    self.stands(index, MailboxStanding::Watching, ctx);
                }
            }
            Milestone::Toured(pace) => {
                debug!(account:% = self.account.id(); "mailboxes that share a connection: {pace:?}");
                if let Some(sharing) = &mut self.sharing {
                    sharing.pace = Some(pace);
                }
                if self.schedule.watching(index, Instant::now()) {
                    self.stands(index, MailboxStanding::Watching, ctx);
                }
            }
            Milestone::Beside(mailboxes) => self.exchange(&mailboxes, ctx),
            Milestone::Shares(holding) => self.share(holding),
            Milestone::Unopened(mailbox, ending) => {
                if ending.says_nonexistent() {
                    self.note_gone(mailbox.clone());
                }
                self.is_missing(&mailbox, trouble(&SessionEnd::Conversation(ending)), ctx);
            }
            Milestone::MailboxesTruncated => {
                let text = format!("more than {MOST_MAILBOXES}: the others are not looked at");
                self.alerted("mailboxes_truncated: the server lists too many mailboxes", &text);
            }
            Milestone::Alert(text) => self.alerted("the server says", &text),
            Milestone::SearchRefused(why) => {
                self.alerted("the search was refused, and everything is fetched", &why);
            }
            Milestone::ChangesUntold(why) => self.alerted("changes of messages are not told", why),
            Milestone::Pipelined { worked: false } => self.pipeline_no_more(),
            Milestone::Alive
            | Milestone::Pipelined { worked: true }
            | Milestone::Traffic { .. }
            | Milestone::Answered(_)
            | Milestone::Rests(_)
            | Milestone::Mailboxes(_)
            | Milestone::Titles(_)
            | Milestone::Reached(_)
            | Milestone::Surveyed(_) => {}
        }
    }

    /// What the server wants people to read is passed on once a day.
    fn alerted(&mut self, what: &str, text: &str) {
        let text = format!("{what}: {}", text::line(text, MOST_ALERT));
        let now = Instant::now();
        self.alerts.retain(|(_, at)| now.saturating_duration_since(*at) < DAY);
        if self.alerts.len() < MOST_ALERTS && self.alerts.iter().all(|(known, _)| *known != text) {
            warn!(account:% = self.account.id(), host:% = self.account.identity.host; "{text}");
            self.alerts.push((text, now));
        }
    }

    /// A session ended; now what?
    fn ended(&mut self, index: usize, outcome: Outcome, ctx: &mut Context<Self>) {
        let blame = blame(&outcome.end);
        let trouble = trouble(&outcome.end);
        self.context.wires.metrics.disconnected(
            self.account.provider_name(),
            blame.as_str(),
            trouble.as_ref().map(|trouble| trouble.error_type),
        );
        self.learn_idle_period(blame, outcome.idled);
        self.learn_pipelining(blame, outcome.died_pipelining);
        debug!(account:% = self.account.id(), mailbox:? = self.watches.get(index).map(|watch| &watch.subject), blame:?; "session ended: {trouble:?}");
        let ended = Ended { blame, died_fetching: outcome.died_fetching };
        let attempt = self.schedule.ended(index, ended, Instant::now());
        if self.schedule.is_vacant(index) {
            self.vacate(index);
        }
        if self.schedule.is_stopped() {
            self.tell_stopped(ctx);
            return;
        }
        if self.schedule.is_vacant(index) {
            self.start_ready(ctx);
            return;
        }
        if self.is_shared(index)
            && let Some(sharing) = &mut self.sharing
        {
            sharing.suspects.learn(&outcome.visits, blame.may_be_of_a_mailbox(), outcome.died_fetching);
        }
        if let (SessionEnd::Conversation(ending), Some(mailbox)) = (&outcome.end, self.mailbox_of(index))
            && ending.says_nonexistent()
        {
            self.note_gone(mailbox);
        }
        if blame == Blame::Credentials {
            self.was_refused(outcome.refused, trouble.clone());
        }
        let setback = |state, retry_in| Setback { state, trouble: trouble.clone(), attempt, retry_in };
        let next_login = self.refusals.next(Timestamp::now());
        let verdict = verdict(blame, attempt, next_login, rand::rng().random_range(0.0..1.0))
            .not_before(asked_pause(&outcome.end));
        if verdict != Verdict::Stopped {
            self.note_blindness(index);
        }
        match verdict {
            // It was asked to make its connections anew.
            Verdict::Stopped => self.stands(index, MailboxStanding::Connecting, ctx),
            Verdict::Retry { state, after } => {
                self.retry(index, after, ctx);
                self.stands(index, MailboxStanding::Waiting(setback(state, Some(after))), ctx);
            }
            Verdict::RetryLogin => self.await_login(index, trouble, ctx),
            Verdict::RetryMailbox { after } => {
                self.retry(index, after, ctx);
                if let Some(trouble) = trouble {
                    self.stands(index, MailboxStanding::Missing(trouble), ctx);
                }
            }
            Verdict::Suspend if blame == Blame::Credentials => self.await_login(index, trouble, ctx),
            Verdict::Suspend => {
                self.schedule.suspend(index);
                self.stands(index, MailboxStanding::Suspended(setback(AccountState::Suspended, None)), ctx);
            }
        }
        self.start_ready(ctx);
    }

    fn vacate(&mut self, index: usize) {
        if let Some(watched) = self.watches.get_mut(index) {
            *watched = SessionWatch::new(Subject::Nobody);
        }
    }

    fn was_refused(&mut self, login: Option<RefusedLogin>, trouble: Option<Trouble>) {
        self.refused.store(true, Ordering::Relaxed);
        let (quick, digest) = login.map(|login| (login.quick, login.digest)).unzip();
        self.refusals.add(digest, trouble, Timestamp::now());
        self.refused_secret = quick;
        self.keep_refusals();
    }

    /// A login was accepted, perhaps beside one that was refused: nobody has to wait any more.
    fn forget_refusals(&mut self, ctx: &mut Context<Self>) {
        self.cancel_login_timer(ctx);
        self.refused.store(false, Ordering::Relaxed);
        self.refused_secret = None;
        if !self.refusals.is_empty() {
            self.refusals = Refusals::default();
            self.keep_refusals();
        }
    }

    fn keep_refusals(&self) {
        let (account, refusals) = (self.account.id().clone(), self.refusals.clone());
        self.context.journal.note(Note::Refusals { account, refusals });
    }

    /// Until a clock, another secret or a person allows it, nobody of the account logs in.
    fn await_login(&mut self, index: usize, trouble: Option<Trouble>, ctx: &mut Context<Self>) {
        let attempt = self.refusals.count();
        let standing = match self.refusals.next(Timestamp::now()) {
            NextLogin::After(after) => {
                let timer = ctx.run_later(after, Self::try_login);
                self.cancel_login_timer(ctx);
                self.login_timer = Some(timer);
                self.next_login_at = Timestamp::now().checked_add(after).ok();
                let (state, retry_in) = (AccountState::AuthFailed, Some(after));
                MailboxStanding::Waiting(Setback { state, trouble, attempt, retry_in })
            }
            NextLogin::Never => {
                self.cancel_login_timer(ctx);
                let (state, retry_in) = (AccountState::Suspended, None);
                MailboxStanding::Suspended(Setback { state, trouble, attempt, retry_in })
            }
        };
        self.stands(index, standing, ctx);
        self.look_for_another_secret(ctx);
    }

    fn try_login(&mut self, ctx: &mut Context<Self>) {
        self.cancel_login_timer(ctx);
        self.refused.store(false, Ordering::Relaxed);
        self.schedule.try_login();
        self.start_ready(ctx);
    }

    fn cancel_login_timer(&mut self, ctx: &mut Context<Self>) {
        self.next_login_at = None;
        if let Some(timer) = self.login_timer.take() {
            ctx.cancel_future(timer);
        }
    }

    /// A changed secret is tried at once.
    fn look_for_another_secret(&mut self, ctx: &mut Context<Self>) {
        let Some(interval) = self.account.login.changes_within() else { return };
        let (account, tokens) = (self.account.clone(), self.context.wires.tokens.clone());
        let look = async move {
            tokio::time::sleep(interval).await;
            account.login.known_by(&tokens).await.ok().map(|secret| QuickDigest::new(&secret))
        };
        let looking = ctx.spawn(look.into_actor(self).map(|found, actor, ctx| match found {
            _ if !actor.schedule.is_refused() || actor.schedule.is_stopped() => {}
            Some(secret) if actor.refused_secret.is_some_and(|refused| refused != secret) => {
                info!(account:% = actor.account.id(); "the secret has changed: it is tried now");
                actor.try_login(ctx);
            }
            _ => actor.look_for_another_secret(ctx),
        }));
        if let Some(before) = self.secret_timer.replace(looking) {
            ctx.cancel_future(before);
        }
    }

    /// Messages may come that nobody sees from now on: when it began outlives the process.
    fn note_blindness(&mut self, index: usize) {
        let Some(watched) = self.watches.get_mut(index) else { return };
        if let Some(since) = watched.pulse.last()
            && watched.blind_since.replace(since) != Some(since)
        {
            let mailboxes = match (&watched.subject, &self.sharing) {
                (Subject::Mailbox(mailbox), _) => std::slice::from_ref(mailbox),
                (Subject::Shared, Some(sharing)) => sharing.mailboxes(),
                _ => &[],
            };
            for mailbox in mailboxes.iter().cloned() {
                let key = MailboxKey { account: self.account.id().clone(), mailbox };
                self.context.journal.note(Note::Blind { key, since });
            }
        }
    }

    /// Connections that are cut while they are silent are renewed sooner, by later processes too.
    fn learn_idle_period(&self, blame: Blame, idled: Option<Duration>) {
        let (Blame::Network | Blame::Server, Some(idled)) = (blame, idled) else { return };
        let host = &self.account.identity.host;
        if let Some(period) = self.context.wires.idle_periods.cut(host, idled, Instant::now()) {
            info!(host:% = host; "connections are cut when they are silent: IDLE is renewed after {period:?} now");
            self.context.journal.note(Note::IdlePeriod { host: host.to_string(), period });
        }
    }

    /// Connections that end while commands sent ahead are not all answered may end of just that.
    fn learn_pipelining(&self, blame: Blame, died_pipelining: bool) {
        let lost = died_pipelining && matches!(blame, Blame::Network | Blame::Server);
        if lost && self.context.wires.pipelines.lost(&self.account.identity.host, Instant::now()) {
            self.pipeline_no_more();
        }
    }

    fn pipeline_no_more(&self) {
        let host = &self.account.identity.host;
        info!(host:% = host; "commands that are sent ahead are not answered as they should: they go out one by one now");
        self.context.journal.note(Note::NoPipelining { host: host.to_string() });
    }

    fn retry(&mut self, index: usize, after: Duration, ctx: &mut Context<Self>) {
        let timer = ctx.run_later(after, move |actor, ctx| {
            actor.schedule.wake(index);
            actor.start_ready(ctx);
        });
        self.schedule.wait(index);
        if let Some(watched) = self.watches.get_mut(index) {
            watched.timer = Some(timer);
            watched.wakes_at = Timestamp::now().checked_add(after).ok();
        }
    }

    fn next_try_at(&self) -> Option<Timestamp> {
        self.watches.iter().filter_map(|watched| watched.wakes_at).chain(self.next_login_at).min()
    }

    /// The mailbox stands differently now: what is news of that is told to the coordinator and to the world.
    fn stands(&mut self, index: usize, standing: MailboxStanding, ctx: &mut Context<Self>) {
        for change in self.standing.change(index, standing) {
            let last_proven_alive = self.last_proven_alive();
            self.changed(StateChange { last_proven_alive, ..change }, ctx);
        }
    }

    /// Of the mailboxes that were ever watched, the one that is silent for the longest.
    fn last_proven_alive(&self) -> Option<Timestamp> {
        self.watches.iter().filter_map(|watched| watched.pulse.last()).min()
    }

    fn changed(&mut self, change: StateChange, ctx: &mut Context<Self>) {
        self.tell_coordinator(change.clone());
        self.remember(change.state);
        let body = EventBody::AccountState(Box::new(change));
        if let Some(event) = self.context.reporter.account_event(body, Timestamp::now()) {
            self.tell(event, ctx);
        }
    }

    /// A fact that travels up: the newest matters, and nobody waits for it.
    fn tell_coordinator(&self, StateChange { state, trouble, mailbox, .. }: StateChange) {
        let status = StatusChanged { account: self.account.id().clone(), state, trouble, mailbox };
        if self.context.coordinator.try_send(status).is_err() {
            debug!(account:% = self.account.id(); "the coordinator is busy: a status is told later");
        }
    }

    fn remember(&mut self, state: AccountState) {
        if self.history.back().is_none_or(|last| last.state != state) {
            if self.history.len() >= MOST_STATES {
                self.history.pop_front();
            }
            self.history.push_back(PastState { at: Timestamp::now(), state });
        }
    }

    /// A person vouches for the login, or has mended what was wrong.
    fn resume(&mut self, ctx: &mut Context<Self>) {
        self.forget_refusals(ctx);
        for watched in &mut self.watches {
            if let Some(timer) = watched.timer.take() {
                ctx.cancel_future(timer);
            }
        }
        self.schedule.resume();
        self.start_ready(ctx);
    }

    /// DONE and LOGOUT; whoever has left starts again.
    fn reconnect(&mut self) {
        for watched in &mut self.watches {
            if let Some(stop) = watched.stop.take() {
                let _ = stop.send(());
            }
        }
    }

    /// The mailboxes of the session of `index`.
    fn describe(&self, index: usize, watched: &SessionWatch) -> Vec<MailboxReport> {
        let (state, trouble) = self.standing.of(index);
        let report = |name: &MailboxName, watched_by: WatchedBy| MailboxReport {
            name: name.clone(),
            state: state.to_owned(),
            watched_by,
            worst_delay_ms: None,
            last_proven_alive: watched.pulse.last(),
            error: trouble.map(Into::into),
        };
        match (&watched.subject, self.sharing.as_deref()) {
            (Subject::Mailbox(mailbox), _) => vec![report(mailbox, WatchedBy::Connection)],
            (Subject::Shared, Some(sharing)) => sharing.reports(report),
            _ => Vec::new(),
        }
    }

    /// Queued for the journal. What is told of the past may go where there is no room.
    fn tell(&mut self, event: Event, ctx: &mut Context<Self>) {
        if self.events.len() >= MOST_WAITING {
            self.events.pop_front();
        }
        self.events.push_back(event);
        self.tell_next(ctx);
    }

    /// One at a time, so that they keep their order.
    fn tell_next(&mut self, ctx: &mut Context<Self>) {
        if self.telling {
            return;
        }
        let Some(event) = self.events.pop_front() else {
            // Most accounts have nothing to tell for weeks.
            self.events = VecDeque::new();
            return;
        };
        self.telling = true;
        let sent = self.context.sink.send(Deliver { batch: event.into() }).into_actor(self);
        ctx.spawn(sent.map(|_, actor, ctx| {
            actor.telling = false;
            actor.tell_next(ctx);
            actor.tell_stopped(ctx);
        }));
    }

    /// The process goes on without the account: what it misses from now on is blindness, and that it is gone is news.
    fn take_leave(&mut self, farewell: Farewell, ctx: &mut Context<Self>) {
        if farewell != Farewell::Shutdown {
            (0..self.watches.len()).for_each(|index| self.note_blindness(index));
        }
        if let Some(state) = farewell.state() {
            let last_proven_alive = self.last_proven_alive();
            let change = StateChange { last_proven_alive, ..self.standing.leave(state) };
            self.changed(change, ctx);
        }
    }

    /// All sessions have left, and all was told: nothing of the account remains.
    fn tell_stopped(&mut self, ctx: &mut Context<Self>) {
        if self.schedule.is_stopped() && !self.schedule.any_running() && !self.telling {
            for waiter in self.stopping.drain(..) {
                let _ = waiter.send(());
            }
            ctx.stop();
        }
    }
}

impl Actor for AccountActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        if let Some(heard) = self.heard.take() {
            ctx.add_stream(heard);
        }
        self.recall(ctx);
    }
}

impl StreamHandler<(usize, Milestone)> for AccountActor {
    fn handle(&mut self, (index, milestone): (usize, Milestone), ctx: &mut Self::Context) {
        self.reached(index, milestone, ctx);
    }

    // The actor holds a sender itself: the stream ends with the actor, not the actor with the stream.
    fn finished(&mut self, _: &mut Self::Context) {}
}

impl Handler<Wish> for AccountActor {
    type Result = ();

    fn handle(&mut self, wish: Wish, ctx: &mut Self::Context) {
        match wish {
            _ if self.schedule.is_stopped() => {}
            Wish::Resume => self.resume(ctx),
            Wish::Reconnect => self.reconnect(),
        }
    }
}

impl Handler<Describe> for AccountActor {
    type Result = MessageResult<Describe>;

    fn handle(&mut self, _: Describe, _: &mut Self::Context) -> Self::Result {
        let watches = self.watches.iter().enumerate();
        let mailboxes = watches.flat_map(|(index, watched)| self.describe(index, watched));
        MessageResult(AccountDetails {
            last_proven_alive: self.last_proven_alive(),
            next_login_at: self.next_login_at,
            next_try_at: self.next_try_at(),
            mailboxes: mailboxes.collect(),
            history: self.history.iter().copied().collect(),
        })
    }
}

impl Handler<StopAccount> for AccountActor {
    type Result = ResponseFuture<()>;

    fn handle(
        &mut self,
        StopAccount { deadline, farewell }: StopAccount,
        ctx: &mut Self::Context,
    ) -> Self::Result {
        self.schedule.stop();
        self.take_leave(farewell, ctx);
        self.cancel_login_timer(ctx);
        for watched in &mut self.watches {
            if let Some(stop) = watched.stop.take() {
                let _ = stop.send(());
            }
            if let Some(timer) = watched.timer.take() {
                ctx.cancel_future(timer);
            }
        }
        let (done, all_done) = oneshot::channel();
        self.stopping.push(done);
        // Whoever follows must not meet a session of ours that still tells.
        ctx.run_later(deadline, |_, ctx| ctx.stop());
        self.tell_stopped(ctx);
        // Answered, or dropped with the actor.
        Box::pin(async move { drop(all_done.await) })
    }
}
