//! What the coordinator answers to those who ask how things are.

use std::collections::HashMap;
use std::time::Duration;

use actix::prelude::*;
use futures::future::{BoxFuture, join_all};
use jiff::Timestamp;

use super::actor::Coordinator;
use crate::config::settings::Account;
use crate::event::AccountId;
use crate::journal::JournalHealth;
use crate::messages::{AccountDetails, Describe, FindAccounts, FindOutput, GetAccount, GetStatus, Scrape};
use crate::metrics::scrape::{NamedAccount, Snapshot};
use crate::metrics::{cluster, process};
use crate::sink::health::OutputHealth;
use crate::status::{AccountReport, AccountStatus, MonitorStatus, OutputReport};

/// An account that is asked has this time to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Accounts that have metrics of their own.
const MOST_NAMED: usize = 200;

impl Coordinator {
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
            shards: self.holding().held.len(),
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
}

fn report(account: &Account, status: AccountStatus, details: AccountDetails) -> AccountReport {
    AccountReport {
        identity: (*account.identity).clone(),
        state: status.state,
        since: status.since,
        last_proven_alive: details.last_proven_alive,
        next_login_at: details.next_login_at,
        next_try_at: details.next_try_at,
        error: status.trouble.as_deref().map(Into::into),
        mailboxes: details.mailboxes,
        history: details.history,
    }
}

/// What keeps events from being kept and taken.
fn not_ready(journal: JournalHealth, outputs: &[OutputReport]) -> Vec<String> {
    let JournalHealth { bytes, full, blocked, .. } = journal;
    let full = full.then(|| format!("the journal is full: {bytes} bytes of events wait for an output"));
    let blocked = blocked.map(|blocked| blocked.to_string());
    let failing = outputs.iter().filter(|output| output.required && !output.is_ok());
    let failing = failing.map(|OutputReport { name, last_error, .. }| {
        format!("outputs.{name}: {}", last_error.as_deref().unwrap_or("takes nothing"))
    });
    full.into_iter().chain(blocked).chain(failing).collect()
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

    fn handle(&mut self, Scrape { members }: Scrape, _: &mut Self::Context) -> Self::Result {
        let own = [self.snapshot().registry(), process::registry()];
        let now: Vec<_> = own.into_iter().chain(members.as_deref().map(cluster::registry)).collect();
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

impl Handler<FindOutput> for Coordinator {
    type Result = Option<OutputHealth>;

    fn handle(&mut self, FindOutput(name): FindOutput, _: &mut Self::Context) -> Self::Result {
        self.context.outputs.iter().find(|output| output.name == name).cloned()
    }
}

impl Handler<GetAccount> for Coordinator {
    type Result = ResponseFuture<Option<AccountReport>>;

    fn handle(&mut self, GetAccount(id): GetAccount, _: &mut Self::Context) -> Self::Result {
        let report = self.board.get(&id).cloned().and_then(|status| self.report(&id, status));
        Box::pin(async move { Some(report?.await) })
    }
}
