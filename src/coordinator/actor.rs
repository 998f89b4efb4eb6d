//! The coordinator actor: owns one account actor per account, and the status board.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;
use futures::future::join_all;
use futures::stream::FuturesUnordered;
use jiff::Timestamp;
use log::{Level, error, info, log, warn};
use tokio::sync::watch;

use super::clock::Moment;
use super::outages::Outages;
use super::reconcile::{Steps, reconcile};
use super::reload::{Loader, READING, waits_for_start};
use super::rows::keep_rows;
use super::table::Look;
use crate::account::actor::{AccountActor, AccountContext};
use crate::account::findings::Reporter;
use crate::account::pulse::Pulse;
use crate::account::session::Wires;
use crate::cluster::shard::ShardSet;
use crate::config::settings::{Account, Settings};
use crate::config::{Loaded, Severity, shown};
use crate::demand::Demand;
use crate::event::{AccountId, AccountState, Action};
use crate::filter::in_force::FiltersInForce;
use crate::journal::{Configured, JournalHandle};
use crate::messages::{
    Deliver, ExchangeOutputs, Farewell, Reload, ReloadError, ReloadReport, ReplayError, StartAccounts,
    StatusChanged, StopAccount, StopAccounts, Summarize, Urge,
};
use crate::sink::exchange::Exchange;
use crate::sink::health::OutputHealth;
use crate::status::{ConfigStatus, StatusBoard};
use crate::text::counted;
use crate::ticks::Ticks;

/// How often the progress of a start is told.
const PROGRESS: Duration = Duration::from_secs(10);

/// Kinds of trouble that are told with the progress.
const MOST_TROUBLES: usize = 5;

/// Facts of many accounts arrive at once in a storm.
const MAILBOX: usize = 4096;

/// What the coordinator is given.
#[derive(Debug)]
pub struct CoordinatorContext {
    /// The configuration that is in force; its enabled accounts are watched.
    pub settings: Settings,
    /// Reads it again.
    pub loader: Option<Loader>,
    /// Has the table of accounts looked at.
    pub look: Look,
    /// Where account actors run.
    pub arbiters: Vec<ArbiterHandle>,
    /// What sessions share.
    pub wires: Arc<Wires>,
    /// Has all connections probed.
    pub prober: watch::Sender<u64>,
    /// Where batches go.
    pub sink: Recipient<Deliver>,
    /// Who exchanges outputs.
    pub exchange: Recipient<ExchangeOutputs>,
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
    pub(super) context: CoordinatorContext,
    pub(super) accounts: HashMap<AccountId, Watched>,
    pub(super) board: StatusBoard,
    outages: Outages,
    ticks: Ticks,
    ticked: Moment,
    /// Accounts are dealt to the arbiters like cards.
    next_arbiter: usize,
    /// The configuration is being read, or what it says is being done. What changes hands does not wait for it.
    pub(super) reloading: bool,
    /// Something may have changed since the reload that is under way began.
    reload_again: bool,
    pub(super) stopping: bool,
    /// Past messages are being told again.
    pub(super) replaying: bool,
    pub(super) started_at: Timestamp,
    pub(super) config: ConfigStatus,
    /// Those that were started, and had no turn to connect yet.
    pub(super) arriving: HashSet<AccountId>,
    /// The accounts of so many shards were started.
    pub(super) served: usize,
    /// What was last said of our accounts to the other monitors.
    pub(super) described: String,
    /// The journal is told soon which accounts there are.
    pub(super) noting: bool,
    /// What was last said of those in the database's table.
    pub(super) demand: Option<Demand>,
}

/// An account that is watched.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) account: Arc<Account>,
    pub(super) actor: Addr<AccountActor>,
    pub(super) alive: Pulse,
    /// It was told to stop. What is to be of it is seen once it has.
    leaving: bool,
}

/// The time that an account has to leave in when the configuration wants it otherwise.
const LEAVE: Duration = Duration::from_secs(10);

impl Coordinator {
    /// A coordinator that is not started yet.
    pub fn new(context: CoordinatorContext, ticks: Ticks) -> Self {
        let now = Timestamp::now();
        Self {
            context,
            accounts: HashMap::new(),
            board: StatusBoard::default(),
            outages: Outages::new(Instant::now()),
            ticks,
            ticked: Moment::now(),
            next_arbiter: 0,
            reloading: false,
            reload_again: false,
            stopping: false,
            replaying: false,
            started_at: now,
            config: ConfigStatus { loaded_at: now, last_reload_successful: true },
            arriving: HashSet::new(),
            served: 0,
            described: String::new(),
            noting: false,
            demand: None,
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
        self.arriving.insert(account.id().clone());
        let actor = AccountActor::start_in_arbiter(&arbiter, {
            let account = account.clone();
            move |_| AccountActor::new(account, context)
        });
        self.accounts.insert(account.id().clone(), Watched { account, actor, alive, leaving: false });
    }

    /// Reads the configuration; a wrong one changes nothing, a right one touches only what changed.
    fn reload(&mut self, loader: Loader) -> ResponseActFuture<Self, Result<ReloadReport, ReloadError>> {
        self.reloading = true;
        let loaded = async move { loader.load_within(READING).await }.into_actor(self);
        let applied = loaded.then(|loaded, actor, ctx| match loaded {
            Ok(loaded) => actor.exchange_outputs(loaded, ctx),
            Err(refused) => Box::pin(fut::err(refused)),
        });
        Box::pin(applied.map(|report, actor, ctx| {
            actor.reloading = false;
            if std::mem::take(&mut actor.reload_again) {
                ctx.notify(Reload);
            }
            actor.config.last_reload_successful = report.is_ok();
            tell_reload(&report);
            actor.context.look.ask();
            report
        }))
    }

    pub(super) fn running(&self) -> HashMap<AccountId, Arc<Account>> {
        self.accounts.iter().map(|(id, watched)| (id.clone(), watched.account.clone())).collect()
    }

    pub(super) fn may_replay(&self) -> Result<(), ReplayError> {
        match () {
            () if self.stopping => Err(ReplayError::Stopping),
            () if self.replaying => Err(ReplayError::Busy),
            () => Ok(()),
        }
    }

    fn loader(&self) -> Result<Loader, ReloadError> {
        match &self.context.loader {
            _ if self.stopping => Err(ReloadError::Stopping),
            _ if self.reloading => Err(ReloadError::Busy),
            None => Err(ReloadError::NoFile),
            Some(loader) => Ok(loader.clone()),
        }
    }

    /// Outputs first: where one cannot be built, nothing has changed.
    fn exchange_outputs(
        &mut self,
        loaded: Loaded,
        ctx: &mut Context<Self>,
    ) -> ResponseActFuture<Self, Result<ReloadReport, ReloadError>> {
        let (running, desired) = (&self.context.settings, &loaded.0);
        let exchange = Exchange::between(&running.outputs, &desired.outputs).to_string();
        if exchange.is_empty() || waits_for_start(running, desired).contains(&"outputs") {
            return self.apply(loaded, String::new(), ctx);
        }
        let asked = self.context.exchange.send(ExchangeOutputs(desired.outputs.clone())).into_actor(self);
        Box::pin(asked.then(|exchanged, coordinator, ctx| match exchanged {
            Ok(Ok(outputs)) => {
                coordinator.context.outputs = outputs;
                coordinator.context.settings.outputs = loaded.0.outputs.clone();
                coordinator.apply(loaded, exchange, ctx)
            }
            Ok(Err(problem)) => Box::pin(fut::err(ReloadError::problem(problem))),
            Err(_) => Box::pin(fut::err(ReloadError::Stopping)),
        }))
    }

    fn apply(
        &mut self,
        (mut settings, warnings): Loaded,
        outputs: String,
        ctx: &mut Context<Self>,
    ) -> ResponseActFuture<Self, Result<ReloadReport, ReloadError>> {
        shown(&warnings).iter().for_each(|line| warn!("{line}"));
        keep_rows(&mut settings, &self.context.settings);
        let mut steps = reconcile(&self.running(), &settings.accounts, &self.holding());
        steps.skip(|id| self.is_leaving(id));
        let waiting = waits_for_start(&self.context.settings, &settings);
        let report = ReloadReport {
            outputs,
            waiting: waiting.iter().map(|&section| section.to_owned()).collect(),
            ..steps.report()
        };
        if !waiting.contains(&"filters") {
            self.context.filters.replace(settings.filters.clone());
            self.context.settings.filters = settings.filters;
        }
        self.context.settings.accounts = settings.accounts;
        self.context.settings.table = settings.table;
        self.context.settings.narrowed = settings.narrowed;
        self.note_accounts();
        self.context.settings.metrics = settings.metrics;
        self.config.loaded_at = Timestamp::now();
        Box::pin(self.take(steps, ctx).map(|(), _, _| Ok(report)))
    }

    pub(super) fn is_leaving(&self, id: &AccountId) -> bool {
        self.accounts.get(id).is_some_and(|watched| watched.leaving)
    }

    /// All that leave do so at once; each that changes starts again as soon as it has left. Others may be on their way
    /// meanwhile: what is to be of all of them is seen at the end.
    pub(super) fn take(
        &mut self,
        steps: Steps,
        ctx: &mut Context<Self>,
    ) -> impl ActorFuture<Self, Output = ()> + use<> {
        steps.start.into_iter().for_each(|account| self.start_account(account, ctx));
        let stop = steps.stop.into_iter().map(|(id, farewell)| (id, farewell, None));
        let replace = steps.replace.into_iter();
        let replace = replace.map(|account| (account.id().clone(), Farewell::Changed, Some(account)));
        let leaving = stop.chain(replace).filter_map(|(id, farewell, successor)| {
            let watched = self.accounts.get_mut(&id)?;
            watched.leaving = true;
            let actor = watched.actor.clone();
            Some(async move {
                let _ = actor.send(StopAccount { deadline: LEAVE, farewell }).await;
                (id, successor)
            })
        });
        let leaving: FuturesUnordered<_> = leaving.collect();
        let left = fut::wrap_stream::<_, Self>(leaving).map(|(id, successor), coordinator, ctx| {
            coordinator.accounts.remove(&id);
            coordinator.arriving.remove(&id);
            // Its shard may have gone meanwhile.
            match successor.filter(|account| coordinator.holding().has(account.id())) {
                Some(account) => coordinator.start_account(account, ctx),
                None => coordinator.board.leave(&id),
            }
        });
        left.finish().map(|(), coordinator, ctx| {
            coordinator.show_disabled();
            coordinator.serve(ctx);
        })
    }

    /// Mailboxes of accounts that have left the configuration are forgotten one day.
    pub(super) fn note_accounts(&self) {
        let settings = &self.context.settings;
        if !settings.narrowed {
            let table = settings.table.as_ref();
            let shards = table.map_or(ShardSet::ALL, |table| table.shards);
            let broken = table.into_iter().flat_map(|table| &table.broken);
            let accounts = settings.accounts.iter().map(|account| account.id()).chain(broken).cloned();
            let configured = Configured::new(accounts.collect(), shards, Timestamp::now());
            self.context.journal.configured(configured);
        }
    }

    /// Accounts of ours that are known and not watched are asked for, too.
    pub(super) fn show_disabled(&mut self) {
        let holding = self.holding();
        let disabled = self.context.settings.accounts.iter().filter(|account| !account.enabled);
        let ours = disabled.map(|account| account.id()).filter(|id| holding.has(id));
        self.board.show_disabled(ours.cloned().collect());
    }

    /// After a sleep every connection may be dead without a word: all of them are asked.
    fn tick(&mut self) {
        if let Some(summary) = self.outages.summary(Instant::now()) {
            warn!("many accounts changed within ten seconds: {summary}; `idlewatch status` has them");
        }
        self.describe();
        let now = Moment::now();
        if std::mem::replace(&mut self.ticked, now).jumped(&now) {
            info!("time went on without us: all connections are probed");
            self.context.prober.send_modify(|count| *count += 1);
        }
    }

    /// Once for each change, not for each try.
    fn tell(&mut self, change: &StatusChanged) {
        let Some(watched) = self.accounts.get(&change.account) else { return };
        let previous = self.board.get(&change.account).map_or(AccountState::Connecting, |known| known.state);
        let Some(level) = self.outages.judge(change, previous, Instant::now()) else { return };
        let (id, host, state) = (&change.account, &watched.account.identity.host, change.state);
        let place = change.mailbox.as_ref().map(|mailbox| format!("{mailbox}: ")).unwrap_or_default();
        match &change.trouble {
            Some(trouble) => {
                let (kind, message) = (trouble.error_type, &trouble.message);
                log!(level, account:% = id, host:% = host, error:% = kind; "{state}: {place}{message}");
            }
            None if level == Level::Info => {
                log!(level, account:% = id, host:% = host; "{place}{state} again")
            }
            None => log!(level, account:% = id, host:% = host; "{place}{state}"),
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
        info!("{}: {}", counted(total, "account"), counts.join(" · "));
        for group in self.board.troubles().into_iter().take(MOST_TROUBLES) {
            let (count, example, message) = (group.accounts, group.example.as_str(), &group.error.message);
            warn!("in trouble: {count} ({example}, for one: {message})");
        }
    }
}

fn tell_reload(report: &Result<ReloadReport, ReloadError>) {
    match report {
        Ok(report) => info!("the configuration was read again: {report}"),
        Err(refused) => {
            if let ReloadError::Invalid { lines, .. } = refused {
                for (severity, line) in lines {
                    match severity {
                        Severity::Error => error!("{line}"),
                        Severity::Warning => warn!("{line}"),
                    }
                }
            }
            error!("{refused}");
        }
    }
}

impl Actor for Coordinator {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
        ctx.add_stream(self.ticks.clone().map_to(Tick));
    }
}

/// Time went on.
#[derive(Clone, Copy, Debug)]
struct Tick;

impl StreamHandler<Tick> for Coordinator {
    fn handle(&mut self, _: Tick, _: &mut Self::Context) {
        self.tick();
    }

    /// Who started us has no more use for them.
    fn finished(&mut self, _: &mut Self::Context) {}
}

impl Handler<StartAccounts> for Coordinator {
    type Result = ();

    fn handle(&mut self, _: StartAccounts, ctx: &mut Self::Context) {
        let enabled = self.context.settings.accounts.iter().filter(|account| account.enabled).count();
        let more = if self.context.settings.table.is_some() { ", and those of the table" } else { "" };
        info!("watching {}{more}", counted(enabled, "account"));
        self.note_accounts();
        self.follow_holding(ctx);
        self.follow_losses(ctx);
        self.serve(ctx);
        self.show_disabled();
        ctx.run_later(PROGRESS, |coordinator, ctx| coordinator.tell_progress(ctx));
    }
}

impl Handler<StatusChanged> for Coordinator {
    type Result = ();

    fn handle(&mut self, change: StatusChanged, _: &mut Self::Context) {
        self.tell(&change);
        let had_its_turn = change.state != AccountState::Connecting && self.arriving.remove(&change.account);
        self.board.apply(change);
        if had_its_turn && self.arriving.is_empty() {
            // With the room that so many needed at a start.
            self.arriving = HashSet::new();
            self.describe();
        }
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

impl Handler<Urge> for Coordinator {
    type Result = bool;

    fn handle(&mut self, Urge { account, wish }: Urge, _: &mut Self::Context) -> Self::Result {
        let watched = self.accounts.get(&account);
        if let Some(watched) = watched {
            info!(account:% = account; "{wish} was asked for");
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
