//! The coordinator actor: owns one account actor per account, and the status board.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use futures::future::join_all;
use log::{info, warn};
use tokio::sync::watch;

use super::clock::{self, Moment};

use crate::account::actor::{AccountActor, AccountContext};
use crate::account::findings::Reporter;
use crate::account::session::Wires;
use crate::config::settings::Account;
use crate::event::Action;
use crate::filter::Filters;
use crate::journal::JournalHandle;
use crate::messages::{Deliver, StatusChanged, StopAccount, StopAccounts};
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
    /// The accounts to watch.
    pub accounts: Vec<Arc<Account>>,
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
    pub filters: Arc<Filters>,
}

/// The coordinator.
#[derive(Debug)]
pub struct Coordinator {
    context: CoordinatorContext,
    accounts: Vec<Addr<AccountActor>>,
    board: StatusBoard,
    ticked: Moment,
}

impl Coordinator {
    /// A coordinator that is not started yet.
    pub fn new(context: CoordinatorContext) -> Self {
        let board = StatusBoard::new(context.accounts.iter().map(|account| account.id().clone()));
        Self { context, accounts: Vec::new(), board, ticked: Moment::now() }
    }

    fn start_account(
        &self,
        account: &Arc<Account>,
        arbiter: &ArbiterHandle,
        coordinator: Recipient<StatusChanged>,
    ) -> Addr<AccountActor> {
        let context = AccountContext {
            wires: self.context.wires.clone(),
            sink: self.context.sink.clone(),
            journal: self.context.journal.clone(),
            reporter: Reporter {
                identity: account.identity.clone(),
                include: self.context.include.clone(),
                filters: self.context.filters.clone(),
            },
            coordinator,
        };
        let account = account.clone();
        AccountActor::start_in_arbiter(arbiter, move |_| AccountActor::new(account, context))
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

impl Actor for Coordinator {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
        let coordinator = ctx.address().recipient();
        let accounts = self.context.accounts.clone();
        let arbiters = self.context.arbiters.clone();
        self.accounts = accounts
            .iter()
            .zip(arbiters.iter().cycle())
            .map(|(account, arbiter)| self.start_account(account, arbiter, coordinator.clone()))
            .collect();
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

impl Handler<StopAccounts> for Coordinator {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, StopAccounts { deadline }: StopAccounts, _: &mut Self::Context) -> Self::Result {
        let stops: Vec<_> =
            self.accounts.iter().map(|account| account.send(StopAccount { deadline })).collect();
        Box::pin(async move {
            join_all(stops).await;
        })
    }
}
