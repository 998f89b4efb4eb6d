//! The coordinator actor: owns one account actor per account, and the status board.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use futures::future::join_all;
use futures::stream::FuturesUnordered;
use log::{error, info, warn};
use tokio::sync::watch;
use tokio::task::spawn_blocking;

use super::clock::{self, Moment};
use super::reconcile::{Steps, reconcile};
use super::reload::{Loader, waits_for_start};

use crate::account::actor::{AccountActor, AccountContext};
use crate::account::findings::Reporter;
use crate::account::session::Wires;
use crate::config::settings::{Account, Settings};
use crate::config::{Loaded, shown};
use crate::event::{AccountId, Action};
use crate::filter::in_force::FiltersInForce;
use crate::journal::JournalHandle;
use crate::messages::{
    Deliver, Farewell, Reload, ReloadError, ReloadReport, StatusChanged, StopAccount, StopAccounts,
};
use crate::status::StatusBoard;

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
}

/// An account that is watched.
#[derive(Debug)]
struct Watched {
    account: Arc<Account>,
    actor: Addr<AccountActor>,
}

/// The time that an account has to leave in when the configuration wants it otherwise.
const LEAVE: Duration = Duration::from_secs(10);

impl Coordinator {
    /// A coordinator that is not started yet.
    pub fn new(context: CoordinatorContext) -> Self {
        Self {
            context,
            accounts: HashMap::new(),
            board: StatusBoard::default(),
            ticked: Moment::now(),
            next_arbiter: 0,
            reloading: false,
            reload_again: false,
            stopping: false,
        }
    }

    fn start_account(&mut self, account: Arc<Account>, ctx: &mut Context<Self>) {
        if self.stopping {
            return;
        }
        let arbiter = self.context.arbiters.get(self.next_arbiter % self.context.arbiters.len().max(1));
        let Some(arbiter) = arbiter.cloned() else { return };
        self.next_arbiter += 1;
        let context = AccountContext {
            wires: self.context.wires.clone(),
            sink: self.context.sink.clone(),
            journal: self.context.journal.clone(),
            reporter: Reporter {
                identity: account.identity.clone(),
                include: self.context.include.clone(),
                filters: self.context.filters.clone(),
            },
            coordinator: ctx.address().recipient(),
        };
        self.board.enter(account.id().clone());
        let actor = AccountActor::start_in_arbiter(&arbiter, {
            let account = account.clone();
            move |_| AccountActor::new(account, context)
        });
        self.accounts.insert(account.id().clone(), Watched { account, actor });
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
            waiting,
        };
        if !report.waiting.contains(&"filters") {
            self.context.filters.replace(settings.filters.clone());
            self.context.settings.filters = settings.filters;
        }
        self.context.settings.accounts = settings.accounts;
        Box::pin(self.take(steps, ctx).map(|(), _, _| Ok(report)))
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

    /// After a sleep every connection may be dead without a word: all of them are asked.
    fn tick(&mut self) {
        let now = Moment::now();
        if std::mem::replace(&mut self.ticked, now).jumped(&now) {
            info!("time went on without us: all connections are probed");
            self.context.prober.send_modify(|count| *count += 1);
        }
    }

    fn tell_progress(&self, ctx: &mut Context<Self>) {
        let (total, connecting) = self.board.progress();
        let counts: Vec<_> =
            self.board.counts().into_iter().map(|(state, n)| format!("{state} {n}")).collect();
        info!("{total} accounts: {}", counts.join(" · "));
        for (count, words) in self.board.troubles().into_iter().take(MOST_TROUBLES) {
            warn!("in trouble: {count} ({words})");
        }
        if connecting > 0 {
            ctx.run_later(PROGRESS, |coordinator, ctx| coordinator.tell_progress(ctx));
        }
    }
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
        let accounts: Vec<_> =
            self.context.settings.accounts.iter().filter(|account| account.enabled).cloned().collect();
        info!("watching {} accounts", accounts.len());
        accounts.into_iter().for_each(|account| self.start_account(account, ctx));
        ctx.run_later(PROGRESS, |coordinator, ctx| coordinator.tell_progress(ctx));
        ctx.run_interval(clock::TICK, |coordinator, _| coordinator.tick());
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
