//! Past messages of an account, told again beside its watching: on a connection of its own, one replay at a time.

use actix::prelude::*;
use log::{info, warn};

use super::actor::{Coordinator, CoordinatorContext};
use crate::config::settings::Settings;
use crate::messages::{Replay, ReplayError, ReplayReport};
use crate::once::replay::{Replaying, narrow};
use crate::once::{self, Pass, PassContext};

impl CoordinatorContext {
    /// What a pass over the accounts of `settings` is given.
    pub fn pass(&self, settings: Settings) -> PassContext {
        PassContext {
            settings,
            wires: self.wires.clone(),
            sink: self.sink.clone(),
            journal: self.journal.clone(),
            outputs: self.outputs.clone(),
            include: self.include.clone(),
            filters: self.filters.clone(),
        }
    }
}

impl Handler<Replay> for Coordinator {
    type Result = ResponseActFuture<Self, Result<ReplayReport, ReplayError>>;

    fn handle(&mut self, wanted: Replay, _: &mut Self::Context) -> Self::Result {
        let settings = match self.may_replay().and_then(|()| narrow(&self.context.settings, &wanted)) {
            Ok(settings) => settings,
            Err(refused) => return Box::pin(fut::err(refused)),
        };
        self.replaying = true;
        let (replaying, account) = (Replaying::new(&wanted), wanted.account);
        info!(account:% = account; "past messages are told again");
        let told = once::tell_again(Pass::of(replaying.clone()), self.context.pass(settings));
        Box::pin(told.into_actor(self).map(move |told, coordinator, _| {
            coordinator.replaying = false;
            let events = replaying.events();
            match told {
                Ok(()) => info!(account:% = account; "{events} past messages were told again"),
                Err(_) => warn!(account:% = account; "{events} past messages were told again, and not all"),
            }
            let (complete, problems) = (told.is_ok(), told.err().unwrap_or_default());
            Ok(ReplayReport { account, settled: true, complete, events, problems })
        }))
    }
}
