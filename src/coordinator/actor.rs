//! The coordinator actor: owns one account actor per account, and the status board.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use futures::future::{BoxFuture, join_all};
use futures::stream::FuturesUnordered;
use jiff::Timestamp;
use log::{error, info, warn};
use tokio::sync::watch;
use tokio::task::spawn_blocking;

use super::clock::{self, Moment};
use super::reconcile::{Steps, reconcile};
use super::reload::{Loader, waits_for_start};

use crate::account::actor::{AccountActor, AccountContext};
use crate::account::findings::Reporter;
use crate::account::pulse::Pulse;
use crate::account::session::Wires;
use crate::config::settings::{Account, Settings};
use crate::config::{Loaded, shown};
use crate::event::{AccountId, AccountState, Action};
use crate::filter::in_force::FiltersInForce;
use crate::journal::{JournalHandle, JournalHealth};
use crate::messages::{
    AccountDetails, Deliver, Describe, Farewell, FindAccounts, GetAccount, GetStatus, Reload, ReloadError,
    ReloadReport, Scrape, StartAccounts, StatusChanged, StopAccount, StopAccounts, Summarize, Urge,
};
use crate::metrics::process;
use crate::metrics::scrape::{NamedAccount, Snapshot};
use crate::sink::health::OutputHealth;
use crate::status::{AccountReport, AccountStatus, ConfigStatus, MonitorStatus, OutputReport, StatusBoard};

/// How often the progress of a start is told.
const PROGRESS: Duration = Duration::from_secs(10);

/// Kinds of trouble that are told with the progress.
const MOST_TROUBLES: usize = 5;

/// An account that is asked has this time to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Accounts that have metrics of their own.
const MOST_NAMED: usize = 200;

/// Facts of many accounts arrive at once in a storm.
const MAILBOX: usize = 4096;

/// What the coordinator is given.
#[derive(Debug)]
pub struct CoordinatorContext {
    /// The configuration that is in force; its enabled accounts are watched.
    pub settings: Settings,
    /// Reads it again.
    pub loader: Option<Loader>,
    /// Where account actors run.
    pub arbiters: Vec<ArbiterHandle>,
    /// What sessions share.
    pub wires: Wires,
    /// Has all connections probed.
    pub prober: watch::Sender<u64>,
    /// Where batches go.
    pub sink: Recipient<Deliver>,
    /// Where checkpoints are read.
    pub journal: JournalHandle,
    /// How each output does.
    pub outputs: Vec<OutputHealth>,
    /// The actions that some output takes.
    pub include: Arc<[Action]>,
    /// Which messages are told, and to whom.
    pub filters: FiltersInForce,
}

/// The coordinator.
#[derive(Debug)]
pub struct Coordinator {
    context: CoordinatorContext,
    accounts: HashMap<AccountId, Watched>,
    board: StatusBoard,
    ticked: Moment,
    /// Accounts are dealt to the arbiters like cards.
    next_arbiter: usize,
    reloading: bool,
    /// Something may have changed since the reload that is under way began.
    reload_again: bool,
    stopping: bool,
    started_at: Timestamp,
    config: ConfigStatus,
}

/// An account that is watched.
#[derive(Debug)]
struct Watched {
    account: Arc<Account>,
    actor: Addr<AccountActor>,
    alive: Pulse,
}

/// The time that an account has to leave in when the configuration wants it otherwise.
const LEAVE: Duration = Duration::from_secs(10);

impl Coordinator {
    /// A coordinator that is not started yet.
    pub fn new(context: CoordinatorContext) -> Self {
        let now = Timestamp::now();
        Self {
            context,
            accounts: HashMap::new(),
            board: StatusBoard::default(),
            ticked: Moment::now(),
            next_arbiter: 0,
            reloading: false,
            reload_again: false,
            stopping: false,
            started_at: now,
            config: ConfigStatus { loaded_at: now, last_reload_successful: true },
        }
    }

    fn start_account(&mut self, account: Arc<Account>, ctx: &mut Context<Self>) {
        if self.stopping {
            return;
        }
        let arbiter = self.context.arbiters.get(self.next_arbiter % self.context.arbiters.len().max(1));
        let Some(arbiter) = arbiter.cloned() else { return };
        self.next_arbiter += 1;
        let alive = Pulse::default();
        let context = AccountContext {
            wires: self.context.wires.clone(),
            sink: self.context.sink.clone(),
            journal: self.context.journal.clone(),
            reporter: Reporter {
                identity: account.identity.clone(),
                include: self.context.include.clone(),
                filters: self.context.filters.clone(),
            },
            alive: alive.clone(),
            coordinator: ctx.address().recipient(),
        };
        self.board.enter(account.id().clone(), AccountState::Connecting);
        let actor = AccountActor::start_in_arbiter(&arbiter, {
            let account = account.clone();
            move |_| AccountActor::new(account, context)
        });
        self.accounts.insert(account.id().clone(), Watched { account, actor, alive });
    }

    /// Reads the configuration; a wrong one changes nothing, a right one touches only what changed.
    fn reload(&mut self, loader: Loader) -> ResponseActFuture<Self, Result<ReloadReport, ReloadError>> {
        self.reloading = true;
        let loaded = spawn_blocking(move || loader.load()).into_actor(self);
        let applied = loaded.then(|loaded, actor, ctx| match loaded {
            Ok(Ok(loaded)) => actor.apply(loaded, ctx),
            Ok(Err(issues)) => Box::pin(fut::err(ReloadError::Invalid(shown(&issues)))),
            Err(panic) => Box::pin(fut::err(ReloadError::Invalid(vec![panic.to_string()]))),
        });
        Box::pin(applied.map(|report, actor, ctx| {
            actor.reloading = false;
            if std::mem::take(&mut actor.reload_again) {
                ctx.notify(Reload);
            }
            actor.config.last_reload_successful = report.is_ok();
            tell_reload(&report);
            report
        }))
    }

    fn loader(&self) -> Result<Loader, ReloadError> {
        match &self.context.loader {
            _ if self.stopping => Err(ReloadError::Stopping),
            _ if self.reloading => Err(ReloadError::Busy),
            None => Err(ReloadError::NoFile),
            Some(loader) => Ok(loader.clone()),
        }
    }

    fn apply(
        &mut self,
        (settings, warnings): Loaded,
        ctx: &mut Context<Self>,
    ) -> ResponseActFuture<Self, Result<ReloadReport, ReloadError>> {
        shown(&warnings).iter().for_each(|line| warn!("{line}"));
        let running =
            self.accounts.iter().map(|(id, watched)| (id.clone(), watched.account.clone())).collect();
        let steps = reconcile(&running, &settings.accounts);
        let waiting = waits_for_start(&self.context.settings, &settings);
        let report = ReloadReport {
            added: steps.start.len(),
            removed: steps.stop.len(),
            changed: steps.replace.len(),
            kept: steps.kept,
            waiting: waiting.iter().map(|&section| section.to_owned()).collect(),
        };
        if !waiting.contains(&"filters") {
            self.context.filters.replace(settings.filters.clone());
            self.context.settings.filters = settings.filters;
        }
        self.context.settings.accounts = settings.accounts;
        self.context.settings.metrics = settings.metrics;
        self.config.loaded_at = Timestamp::now();
        Box::pin(self.take(steps, ctx).map(|(), coordinator, _| {
            coordinator.enter_disabled();
            Ok(report)
        }))
    }

    /// All that leave do so at once; each that changes starts again as soon as it has left.
    fn take(&mut self, steps: Steps, ctx: &mut Context<Self>) -> impl ActorFuture<Self, Output = ()> + use<> {
        steps.start.into_iter().for_each(|account| self.start_account(account, ctx));
        let stop = steps.stop.into_iter().map(|(id, farewell)| (id, farewell, None));
        let replace = steps.replace.into_iter();
        let replace = replace.map(|account| (account.id().clone(), Farewell::Changed, Some(account)));
        let leaving = stop.chain(replace).filter_map(|(id, farewell, successor)| {
            let actor = self.accounts.get(&id)?.actor.clone();
            Some(async move {
                let _ = actor.send(StopAccount { deadline: LEAVE, farewell }).await;
                (id, successor)
            })
        });
        let leaving: FuturesUnordered<_> = leaving.collect();
        let left = fut::wrap_stream::<_, Self>(leaving).map(|(id, successor), coordinator, ctx| {
            coordinator.accounts.remove(&id);
            match successor {
                Some(account) => coordinator.start_account(account, ctx),
                None => coordinator.board.leave(&id),
            }
        });
        left.finish()
    }

    /// Accounts that are known and not watched are asked for, too.
    fn enter_disabled(&mut self) {
        for account in self.context.settings.accounts.iter().filter(|account| !account.enabled) {
            if !self.accounts.contains_key(account.id()) {
                self.board.enter(account.id().clone(), AccountState::Disabled);
            }
        }
    }

    fn outputs(&self) -> Vec<OutputReport> {
        let now = Timestamp::now();
        self.context.outputs.iter().map(|output| OutputReport::new(output, now)).collect()
    }

    fn snapshot(&self) -> Snapshot {
        let settings = &self.context.settings;
        let mut accounts = HashMap::new();
        for account in &settings.accounts {
            if let Some(status) = self.board.get(account.id()) {
                *accounts.entry((account.provider_name(), status.state)).or_default() += 1;
            }
        }
        let named = settings.accounts.iter().map(|account| account.id());
        let named = named.filter(|id| settings.metrics.per_account.is_match(id.as_str()));
        let named = named.filter_map(|id| {
            let alive = self.accounts.get(id).and_then(|watched| watched.alive.last());
            Some(NamedAccount { id: id.clone(), state: self.board.get(id)?.state, alive })
        });
        Snapshot {
            at: Timestamp::now(),
            accounts,
            alive: self.accounts.values().filter_map(|watched| watched.alive.last()).collect(),
            named: named.take(MOST_NAMED).collect(),
            filtered: self.context.filters.dropped(),
            config: self.config.clone(),
            journal: self.context.journal.health(),
            outputs: self.outputs(),
        }
    }

    /// What the board knows of an account, and what the account itself does.
    fn report(&self, id: &AccountId, status: AccountStatus) -> Option<BoxFuture<'static, AccountReport>> {
        let watched = self.accounts.get(id);
        let known = || self.context.settings.accounts.iter().find(|account| account.id() == id);
        let account = watched.map(|watched| &watched.account).or_else(known)?.clone();
        let details = watched.map(|watched| watched.actor.send(Describe));
        Some(Box::pin(async move {
            let details = match details {
                // One that is busy is told of as far as it is known here.
                Some(asked) => tokio::time::timeout(PATIENCE, asked).await.ok().and_then(Result::ok),
                None => None,
            };
            report(&account, status, details.unwrap_or_default())
        }))
    }

    /// After a sleep every connection may be dead without a word: all of them are asked.
    fn tick(&mut self) {
        let now = Moment::now();
        if std::mem::replace(&mut self.ticked, now).jumped(&now) {
            info!("time went on without us: all connections are probed");
            self.context.prober.send_modify(|count| *count += 1);
        }
    }

    fn tell_progress(&self, ctx: &mut Context<Self>) {
        self.summarize();
        if self.board.progress().1 > 0 {
            ctx.run_later(PROGRESS, |coordinator, ctx| coordinator.tell_progress(ctx));
        }
    }

    fn summarize(&self) {
        let (total, _) = self.board.progress();
        let counts: Vec<_> =
            self.board.counts().into_iter().map(|(state, n)| format!("{state} {n}")).collect();
        info!("{total} accounts: {}", counts.join(" · "));
        for group in self.board.troubles().into_iter().take(MOST_TROUBLES) {
            let (count, example, message) = (group.accounts, group.example.as_str(), &group.error.message);
            warn!("in trouble: {count} ({example}, for one: {message})");
        }
    }
}

fn report(account: &Account, status: AccountStatus, details: AccountDetails) -> AccountReport {
    AccountReport {
        identity: (*account.identity).clone(),
        state: status.state,
        since: status.since,
        last_proven_alive: details.last_proven_alive,
        next_login_at: details.next_login_at,
        error: status.trouble.as_deref().map(Into::into),
        mailboxes: details.mailboxes,
        history: details.history,
    }
}

/// What keeps events from being kept and taken.
fn not_ready(journal: JournalHealth, outputs: &[OutputReport]) -> Vec<String> {
    let JournalHealth { bytes, full, disk_full, .. } = journal;
    let full = full.then(|| format!("the journal is full: {bytes} bytes of events wait for an output"));
    let disk_full = disk_full.then(|| "the journal's disk is full".to_owned());
    let failing = outputs.iter().filter(|output| output.required && !output.is_ok());
    let failing = failing.map(|OutputReport { name, last_error, .. }| {
        format!("outputs.{name}: {}", last_error.as_deref().unwrap_or("takes nothing"))
    });
    full.into_iter().chain(disk_full).chain(failing).collect()
}

fn tell_reload(report: &Result<ReloadReport, ReloadError>) {
    match report {
        Ok(report) => info!("the configuration was read again: {report}"),
        Err(refused) => {
            if let ReloadError::Invalid(problems) = refused {
                problems.iter().for_each(|problem| error!("{problem}"));
            }
            error!("{refused}");
        }
    }
}

impl Actor for Coordinator {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
        ctx.run_interval(clock::TICK, |coordinator, _| coordinator.tick());
    }
}

impl Handler<StartAccounts> for Coordinator {
    type Result = ();

    fn handle(&mut self, _: StartAccounts, ctx: &mut Self::Context) {
        let accounts: Vec<_> =
            self.context.settings.accounts.iter().filter(|account| account.enabled).cloned().collect();
        info!("watching {} accounts", accounts.len());
        accounts.into_iter().for_each(|account| self.start_account(account, ctx));
        self.enter_disabled();
        ctx.run_later(PROGRESS, |coordinator, ctx| coordinator.tell_progress(ctx));
    }
}

impl Handler<StatusChanged> for Coordinator {
    type Result = ();

    fn handle(&mut self, change: StatusChanged, _: &mut Self::Context) {
        self.board.apply(change);
    }
}

impl Handler<Reload> for Coordinator {
    type Result = ResponseActFuture<Self, Result<ReloadReport, ReloadError>>;

    fn handle(&mut self, _: Reload, _: &mut Self::Context) -> Self::Result {
        match self.loader() {
            Ok(loader) => self.reload(loader),
            Err(refused) => {
                self.reload_again |= refused == ReloadError::Busy;
                Box::pin(fut::err(refused))
            }
        }
    }
}

impl Handler<Summarize> for Coordinator {
    type Result = ();

    fn handle(&mut self, _: Summarize, _: &mut Self::Context) {
        self.summarize();
    }
}

impl Handler<GetStatus> for Coordinator {
    type Result = MessageResult<GetStatus>;

    fn handle(&mut self, _: GetStatus, _: &mut Self::Context) -> Self::Result {
        let outputs = self.outputs();
        let not_ready = not_ready(self.context.journal.health(), &outputs);
        let (messages_per_minute, latest_messages) = {
            let mut arrivals = self.context.wires.metrics.arrivals();
            (arrivals.per_minute(Timestamp::now()), arrivals.latest())
        };
        let accounts = self.board.counts().into_iter().map(|(state, count)| (state.to_owned(), count));
        MessageResult(MonitorStatus {
            instance: self.context.settings.monitor.instance.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: self.started_at,
            ready: not_ready.is_empty(),
            not_ready,
            accounts: accounts.collect(),
            troubles: self.board.troubles(),
            messages_per_minute,
            latest_messages,
            outputs,
            config: self.config.clone(),
        })
    }
}

impl Handler<Scrape> for Coordinator {
    type Result = String;

    fn handle(&mut self, _: Scrape, _: &mut Self::Context) -> Self::Result {
        let now = [self.snapshot().registry(), process::registry()];
        self.context.wires.metrics.encode(&now).unwrap_or_default()
    }
}

impl Handler<FindAccounts> for Coordinator {
    type Result = ResponseFuture<Vec<AccountReport>>;

    fn handle(&mut self, FindAccounts(query): FindAccounts, _: &mut Self::Context) -> Self::Result {
        let found = self.board.find(&query);
        Box::pin(join_all(found.into_iter().filter_map(|(id, status)| self.report(&id, status))))
    }
}

impl Handler<GetAccount> for Coordinator {
    type Result = ResponseFuture<Option<AccountReport>>;

    fn handle(&mut self, GetAccount(id): GetAccount, _: &mut Self::Context) -> Self::Result {
        let report = self.board.get(&id).cloned().and_then(|status| self.report(&id, status));
        Box::pin(async move { Some(report?.await) })
    }
}

impl Handler<Urge> for Coordinator {
    type Result = bool;

    fn handle(&mut self, Urge { account, wish }: Urge, _: &mut Self::Context) -> Self::Result {
        let watched = self.accounts.get(&account);
        if let Some(watched) = watched {
            info!(account:% = account; "{wish:?} was asked for");
            watched.actor.do_send(wish);
        }
        watched.is_some()
    }
}

impl Handler<StopAccounts> for Coordinator {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, StopAccounts { deadline }: StopAccounts, _: &mut Self::Context) -> Self::Result {
        self.stopping = true;
        let stop = StopAccount { deadline, farewell: Farewell::Shutdown };
        let stops: Vec<_> = self.accounts.values().map(|watched| watched.actor.send(stop)).collect();
        Box::pin(async move {
            join_all(stops).await;
        })
    }
}
