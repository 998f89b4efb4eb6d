//! One look at every account: what is new is told, and that was it. For cron, and for whoever tries something out.
//!
//! A mailbox after the other in each account, many accounts at the same time, as fast as the gate lets them. Nothing is
//! tried again but what died of a message or of one mailbox of many: the next pass comes soon enough. Refused logins count as they
//! do when the monitor runs, so that a pass a minute locks nobody out.

pub mod outcome;
pub mod replay;
mod tries;

use std::cell::{Cell, RefCell};
use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use actix::Recipient;
use futures::StreamExt;
use futures::channel::mpsc;
use futures::future::join;
use futures::stream::FuturesUnordered;
use jiff::Timestamp;
use log::{error, info, warn};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use self::outcome::{Failure, verdict};
use self::replay::Replaying;
use self::tries::Tries;
use crate::account::findings::Reporter;
use crate::account::lifecycle::{SessionEnd, trouble};
use crate::account::milestone::{Milestone, Outcome};
use crate::account::outlet::{Begun, Outlet, Start};
use crate::account::pulse::Pulse;
use crate::account::recall::{Recalled, recall};
use crate::account::session::{self, Assignment, Task, Wires};
use crate::config::settings::{Account, Settings};
use crate::event::{Action, MailboxName};
use crate::exit::Exit;
use crate::filter::in_force::FiltersInForce;
use crate::imap::changes::WantedChanges;
use crate::imap::conversation::{ToldFrom, Until};
use crate::imap::ending::Ending;
use crate::imap::rounds::{Choice, Newcomers};
use crate::journal::{Blocked, JournalHandle, JournalHealth};
use crate::messages::{Deliver, Note};
use crate::refusals::{NextLogin, Refusals};
use crate::sink::health::{LaneState, OutputHealth};
use crate::text::{self, counted};

/// The most connections at the same time.
pub const MOST_AT_ONCE: usize = 200;

/// How often it is looked whether the journal has room.
const ROOM: Duration = Duration::from_millis(500);

/// Failures that are told one by one.
const MOST_TOLD: usize = 20;

/// Bytes of a server's words that are passed on.
const MOST_ALERT: usize = 512;

/// Alerts of one account that are.
const MOST_ALERTS: u32 = 16;

/// What a pass looks for.
#[derive(Clone, Debug, Default)]
pub struct Pass {
    /// From there on, whatever was told before; else what is new since the last time.
    pub anew: Option<ToldFrom>,
    /// Past messages, without a cursor that moves.
    pub replaying: Option<Replaying>,
}

impl Pass {
    /// That tells past messages again.
    pub fn of(replaying: Replaying) -> Self {
        Self { replaying: Some(replaying), ..Self::default() }
    }

    fn start(&self) -> Start {
        match (&self.replaying, self.anew) {
            (Some(replaying), _) => Start::Replay(replaying.clone()),
            (None, Some(from)) => Start::Anew(from, Begun::default()),
            (None, None) => Start::Checkpoint,
        }
    }
}

/// What a pass is given.
#[derive(Debug)]
pub struct PassContext {
    /// The configuration; its enabled accounts are looked at.
    pub settings: Settings,
    /// What sessions share.
    pub wires: Arc<Wires>,
    /// Where batches go.
    pub sink: Recipient<Deliver>,
    /// Where checkpoints are read.
    pub journal: JournalHandle,
    /// The outputs that take events.
    pub outputs: Vec<OutputHealth>,
    /// The actions that some output takes.
    pub include: Arc<[Action]>,
    /// Which messages are told, and to whom.
    pub filters: FiltersInForce,
}

/// Makes the gate let in no more than a look needs. All accounts wait at it, each for its host: one that is slow or hangs
/// holds up none of the others.
pub fn narrow_gate(settings: &mut Settings) {
    let most = settings.connections.max_total.unwrap_or(u32::MAX).min(MOST_AT_ONCE as u32);
    settings.connections.max_total = Some(most);
}

/// Looks at all of them, and waits until the outputs have what was found.
pub async fn look(pass: Pass, context: PassContext) -> Exit {
    let patience = context.settings.monitor.shutdown_timeout;
    let (asked, failures) = match look_at_all(&pass, &context, &RefCell::default()).await {
        Ok(looked) => looked,
        Err(exit) => return exit,
    };
    let mut delivered = true;
    for output in context.outputs.iter().filter(|output| output.required) {
        delivered &= has_all(output, patience).await;
    }
    if delivered { verdict(asked, &failures) } else { Exit::Io }
}

/// The same beside a monitor that runs, until all is durable: its outputs take it in their own time.
///
/// # Errors
/// Where it is not: why, as far as that is told one by one.
pub async fn tell_again(pass: Pass, context: PassContext) -> Result<(), Vec<String>> {
    let why = RefCell::default();
    match look_at_all(&pass, &context, &why).await {
        Ok((_, failures)) if failures.is_empty() => Ok(()),
        _ => Err(why.take()),
    }
}

/// How many were looked at, and what failed; `why` in words.
async fn look_at_all(
    pass: &Pass,
    context: &PassContext,
    why: &RefCell<Vec<String>>,
) -> Result<(usize, Vec<Failure>), Exit> {
    let accounts = context.settings.accounts.iter().filter(|account| account.enabled).cloned();
    let accounts: Vec<Arc<Account>> = accounts.collect();
    let (asked, told) = (accounts.len(), Cell::new(0));
    let look = |account| Look { account, pass, context, told: &told, why, alerts: Cell::new(0) }.run();
    let looks: FuturesUnordered<_> = accounts.into_iter().map(look).collect();
    let patience = context.settings.monitor.shutdown_timeout;
    let failures: Vec<Failure> = tokio::select! {
        failures = looks.filter_map(ready).collect() => failures,
        full = nothing_is_taken(context, patience) => {
            error!("{full}: what is left is for the next time");
            why.borrow_mut().push(full.to_owned());
            return Err(Exit::Io);
        }
    };
    info!("looked at {}, {} with failures", counted(asked, "account"), failures.len());
    Ok((asked, failures))
}

/// A pass that was not let come to its end.
pub fn interrupted() -> Exit {
    warn!("stopped before every account was looked at");
    Exit::SomeFailed
}

/// Until the journal has had no room for so long, and nobody makes any: then the looks would never end.
async fn nothing_is_taken(context: &PassContext, patience: Duration) -> &'static str {
    let mut since = None;
    loop {
        sleep(ROOM).await;
        let why = no_room(context);
        let waited = why.map(|_| since.get_or_insert_with(Instant::now).elapsed());
        match why {
            Some(why) if waited >= Some(patience) => return why,
            Some(_) => {}
            None => since = None,
        }
    }
}

/// Why the journal takes nothing, unless outputs are making room.
fn no_room(context: &PassContext) -> Option<&'static str> {
    let health = context.journal.health();
    let fails = |output: &OutputHealth| output.required && output.now().state == LaneState::Retrying;
    match health {
        JournalHealth { blocked: Some(Blocked::DiskFull), .. } => Some("the journal's disk is full"),
        JournalHealth { blocked: Some(Blocked::Unreachable), .. } => {
            Some("the journal's database cannot be reached")
        }
        JournalHealth { blocked: Some(Blocked::Unreadable), .. } => {
            Some("a part of the journal's database cannot be read")
        }
        _ if health.full && context.outputs.iter().any(fails) => {
            Some("the journal is full, and an output does not take events")
        }
        _ => None,
    }
}

/// Whether the output took everything. One that is only slow is waited for; one that fails, so long.
async fn has_all(output: &OutputHealth, patience: Duration) -> bool {
    while !output.catches_up(patience).await {
        if output.has_ended() {
            // Why is told to whoever waits beside this.
            return std::future::pending().await;
        }
        let health = output.now();
        if health.state == LaneState::Retrying {
            let why = health.last_error.unwrap_or_default();
            error!(output:% = output.name; "it does not take events, which wait for the next time: {why}");
            return false;
        }
    }
    true
}

/// A look at one account.
struct Look<'c> {
    account: Arc<Account>,
    pass: &'c Pass,
    context: &'c PassContext,
    /// Failures that were told one by one.
    told: &'c Cell<usize>,
    /// The same, for whoever asked.
    why: &'c RefCell<Vec<String>>,
    /// Alerts of the account's server so far.
    alerts: Cell<u32>,
}

impl Look<'_> {
    async fn run(self) -> Option<Failure> {
        let mut refusals = match recall(
            self.context.journal.clone(),
            self.account.clone(),
            self.context.wires.tokens.clone(),
        )
        .await
        {
            Recalled::Nothing => Refusals::default(),
            Recalled::Refused(refusals, _) => refusals,
        };
        if !may_log_in(&refusals) {
            let why = refusals.trouble().map_or("", |trouble| trouble.message.as_str());
            self.tell(&format!("not tried again yet: the login was refused before ({why})"));
            return Some(Failure::Refused);
        }
        if self.account.mailboxes.needs_listing() {
            return self.look_at(None, &mut refusals).await;
        }
        let mut failure = None;
        for mailbox in self.account.mailboxes.names() {
            let Some(of_mailbox) = self.look_at(Some(mailbox), &mut refusals).await else { continue };
            failure = Some(of_mailbox);
            if of_mailbox != Failure::Denied {
                break;
            }
        }
        failure
    }

    /// At one mailbox, or at all that the server's list holds.
    async fn look_at(&self, mailbox: Option<&MailboxName>, refusals: &mut Refusals) -> Option<Failure> {
        let (outcome, unopened) = self.until_alive(mailbox, refusals).await;
        let Some(failure) = self.failure(mailbox, &outcome.end) else {
            return unopened.then_some(Failure::Denied);
        };
        if failure != Failure::Denied {
            self.keep_refusal(outcome, refusals);
        }
        Some(failure)
    }

    /// Until a session did not die of a message, nor of a mailbox with others behind it; whether it could not open one.
    async fn until_alive(&self, mailbox: Option<&MailboxName>, refusals: &mut Refusals) -> (Outcome, bool) {
        let start = self.pass.start();
        let mut tries = Tries::default();
        loop {
            let (outcome, unopened) = self.session(mailbox, &tries, start.clone(), refusals).await;
            if !tries.goes_on(&outcome) {
                return (outcome, unopened);
            }
        }
    }

    fn task(&self, mailbox: Option<&MailboxName>, tries: &Tries) -> Task {
        if let Some(mailbox) = mailbox {
            return Task::Mailbox(mailbox.clone());
        }
        Task::Shared(Box::new(Choice {
            mailboxes: self.account.mailboxes.clone(),
            max_connections: 1,
            beside: Vec::new(),
            known: None,
            newcomers: Newcomers::default(),
            suspects: tries.suspects().clone(),
            search: self.account.search.clone(),
            changes: self.changes(),
            until: Until::CaughtUp,
        }))
    }

    /// What is told again is messages.
    fn changes(&self) -> WantedChanges {
        match &self.pass.replaying {
            Some(_) => WantedChanges::default(),
            None => WantedChanges::of(&self.context.include),
        }
    }

    async fn session(
        &self,
        mailbox: Option<&MailboxName>,
        tries: &Tries,
        from: Start,
        refusals: &mut Refusals,
    ) -> (Outcome, bool) {
        let context = self.context;
        let reporter = Reporter {
            identity: self.account.identity.clone(),
            include: context.include.clone(),
            filters: context.filters.clone(),
        };
        let outlet = Outlet {
            sink: context.sink.clone(),
            journal: context.journal.clone(),
            reporter,
            from,
            initial: self.account.initial,
            noticed_within: Duration::ZERO,
            last_life: None,
        };
        let assignment = Assignment {
            number: 0,
            task: self.task(mailbox, tries),
            caution: tries.caution(),
            until: Until::CaughtUp,
            refused: Arc::new(AtomicBool::new(false)),
            pulse: Pulse::default(),
            alive: Pulse::default(),
        };
        let (milestones, heard) = mpsc::unbounded();
        let (_keep, stop) = oneshot::channel();
        let wires = context.wires.clone();
        let life = session::run(self.account.clone(), assignment, wires, outlet, milestones, stop);
        // Heard while it lives: a server that alerts without end fills no memory.
        join(life, self.listen(heard, refusals)).await
    }

    /// Until the session ends; whether it could not open a mailbox.
    async fn listen(
        &self,
        mut heard: mpsc::UnboundedReceiver<(usize, Milestone)>,
        refusals: &mut Refusals,
    ) -> bool {
        let mut unopened = false;
        while let Some((_, milestone)) = heard.next().await {
            self.reached(&milestone, refusals);
            if let Milestone::Unopened(mailbox, ending) = milestone {
                unopened |= self.failure(Some(&mailbox), &SessionEnd::Conversation(ending)).is_some();
            }
        }
        unopened
    }

    fn reached(&self, milestone: &Milestone, refusals: &mut Refusals) {
        let (id, host) = (self.account.id(), &self.account.identity.host);
        match milestone {
            Milestone::LoggedIn if !refusals.is_empty() => {
                *refusals = Refusals::default();
                self.note(refusals);
            }
            Milestone::Alert(alert) if self.alerts.replace(self.alerts.get() + 1) < MOST_ALERTS => {
                warn!(account:% = id, host:% = host; "the server says: {}", text::line(alert, MOST_ALERT));
            }
            Milestone::SearchRefused(why) => {
                let why = text::line(why, MOST_ALERT);
                warn!(account:% = id, host:% = host; "the search was refused, and everything is fetched: {why}");
            }
            Milestone::ChangesUntold(why) => {
                warn!(account:% = id, host:% = host; "changes of messages are not told: {why}");
            }
            _ => {}
        }
    }

    fn failure(&self, mailbox: Option<&MailboxName>, end: &SessionEnd) -> Option<Failure> {
        if matches!(end, SessionEnd::Conversation(Ending::LoggedOut)) {
            return None;
        }
        let why = trouble(end).map_or_else(|| "it was not looked at to the end".to_owned(), |t| t.message);
        self.tell(&mailbox.map_or_else(|| why.clone(), |mailbox| format!("{mailbox}: {why}")));
        Some(Failure::of(end))
    }

    /// The next pass has to know of it.
    fn keep_refusal(&self, outcome: Outcome, refusals: &mut Refusals) {
        if let Some(login) = outcome.refused {
            refusals.add(Some(login.digest), trouble(&outcome.end), Timestamp::now());
            self.note(refusals);
        }
    }

    fn note(&self, refusals: &Refusals) {
        let (account, refusals) = (self.account.id().clone(), refusals.clone());
        self.context.journal.note(Note::Refusals { account, refusals });
    }

    fn tell(&self, why: &str) {
        let told = self.told.replace(self.told.get() + 1);
        if told < MOST_TOLD {
            self.why.borrow_mut().push(why.to_owned());
            error!(account:% = self.account.id(), host:% = self.account.identity.host; "{why}");
        } else if told == MOST_TOLD {
            error!("there are more failures, which are not told one by one");
        }
    }
}

fn may_log_in(refusals: &Refusals) -> bool {
    refusals.next(Timestamp::now()) == NextLogin::After(Duration::ZERO)
}
