//! Which of the accounts are watched here: those whose shards this monitor holds, as they come and go.

use std::time::Duration;

use actix::prelude::*;
use futures::stream;
use log::{info, warn};
use tokio::sync::mpsc::UnboundedReceiver;

use super::actor::Coordinator;
use super::reconcile::reconcile;
use crate::cluster::shard::{Holding, ShardSet};
use crate::demand::Demand;
use crate::event::AccountId;
use crate::messages::Wish;
use crate::process;
use crate::text::counted;

/// After shards have come: the journal is told which accounts there are.
const NOTED: Duration = Duration::from_secs(60);

/// What is held has changed.
#[derive(Debug)]
pub(super) struct Held;

/// The journal is behind what these accounts believe to be stored.
#[derive(Debug)]
pub(super) struct Forgotten(Vec<AccountId>);

impl Coordinator {
    pub(super) fn holding(&self) -> Holding {
        *self.context.journal.holding().borrow()
    }

    /// Hears from the journal what changes hands.
    pub(super) fn follow_holding(&self, ctx: &mut Context<Self>) {
        let changes = stream::unfold(self.context.journal.holding(), |mut holding| async {
            holding.changed().await.ok().map(|()| (Held, holding))
        });
        ctx.add_stream(changes);
    }

    /// Hears from the journal whose checkpoints it has lost.
    pub(super) fn follow_losses(&self, ctx: &mut Context<Self>) {
        if let Some(forgotten) = self.context.journal.forgotten() {
            let next = |mut forgotten: UnboundedReceiver<_>| async {
                forgotten.recv().await.map(|accounts| (Forgotten(accounts), forgotten))
            };
            ctx.add_stream(stream::unfold(forgotten, next));
        }
    }

    /// Whoever looks at all monitors sees our accounts by their states; and whoever lets shards go, whether all accounts of
    /// so many have had their turn.
    pub(super) fn describe(&mut self) {
        if self.context.settings.journal.database.is_none() {
            return;
        }
        let counts = self.board.counts().into_iter().map(|(state, count)| (state.to_owned(), count.into()));
        let served = if self.arriving.is_empty() { self.served } else { 0 };
        let counts = counts.chain([("served".to_owned(), served.into())]);
        let now = serde_json::Value::Object(counts.collect()).to_string();
        if now != self.described {
            self.context.journal.describe(now.clone());
            self.described = now;
        }
    }

    /// Watches what is ours and was not watched, and lets go what others are to have.
    pub(super) fn serve(&mut self, ctx: &mut Context<Self>) {
        if self.stopping {
            return;
        }
        let holding = self.holding();
        self.follow_rows(&holding.held);
        self.serve_these(&holding, ctx);
        self.now_served(&holding.held);
    }

    /// The accounts of these shards were started, as far as it is known which they are.
    pub(super) fn now_served(&mut self, held: &ShardSet) {
        self.served = self.known_shards(held).len();
        self.describe();
    }

    /// Shards come by and by, and the list of all accounts is long.
    pub(super) fn note_accounts_soon(&mut self, ctx: &mut Context<Self>) {
        if !std::mem::replace(&mut self.noting, true) {
            ctx.run_later(NOTED, |coordinator, _| {
                coordinator.noting = false;
                coordinator.note_accounts();
                coordinator.announce_demand();
            });
        }
    }

    /// A start said so of the accounts that are in files.
    fn announce_demand(&mut self) {
        let settings = &self.context.settings;
        let demand = settings.table.as_ref().map(|_| Demand::of(settings));
        let Some(demand) = demand.filter(|demand| self.demand.as_ref() != Some(demand)) else { return };
        process::announce(&demand);
        if let Err(error) = process::reserve_descriptors(demand.connections) {
            warn!("{error}");
        }
        self.demand = Some(demand);
    }

    fn serve_these(&mut self, holding: &Holding, ctx: &mut Context<Self>) {
        self.context.wires.gate.share(holding.share());
        let mut steps = reconcile(&self.running(), &self.context.settings.accounts, holding);
        // Nobody is left who would have to go first.
        if steps.stop.is_empty() && !holding.leaving.is_empty() {
            self.context.journal.left(holding.leaving);
        }
        steps.skip(|id| self.is_leaving(id));
        if steps.start.is_empty() && steps.stop.is_empty() {
            return;
        }
        if !steps.stop.is_empty() {
            info!("left to other monitors: {}", counted(steps.stop.len(), "account"));
        }
        if !steps.start.is_empty() {
            self.note_accounts_soon(ctx);
        }
        let taken = self.take(steps, ctx);
        ctx.spawn(taken);
    }
}

impl StreamHandler<Held> for Coordinator {
    fn handle(&mut self, _: Held, ctx: &mut Self::Context) {
        self.serve(ctx);
    }

    /// The journal is closed: who started us knows.
    fn finished(&mut self, _: &mut Self::Context) {}
}

impl StreamHandler<Forgotten> for Coordinator {
    /// Each begins again from where the journal has it.
    fn handle(&mut self, Forgotten(accounts): Forgotten, _: &mut Self::Context) {
        let watched: Vec<_> = accounts.iter().filter_map(|id| self.accounts.get(id)).collect();
        warn!(
            "the journal's database lacks what it had taken of {}: they connect again, and what is missing is fetched",
            counted(watched.len(), "account")
        );
        watched.iter().for_each(|watched| watched.actor.do_send(Wish::Reconnect));
    }

    /// The journal is closed: who started us knows.
    fn finished(&mut self, _: &mut Self::Context) {}
}
