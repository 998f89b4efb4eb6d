//! What is known only when it is asked for: how all accounts, the journal and the process are at this moment.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use jiff::Timestamp;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::{Label, OfOutput, Seconds, seconds};
use crate::event::{AccountId, AccountState};
use crate::journal::{Damage, JournalHealth};
use crate::status::{ConfigStatus, OutputReport};

/// Upper bounds of seconds since an account's connection last proved to be alive: IDLE is renewed every nine minutes.
const AGES: [f64; 9] = [10.0, 60.0, 300.0, 600.0, 900.0, 1800.0, 3600.0, 21_600.0, 86_400.0];

/// All of it.
#[derive(Debug)]
pub struct Snapshot {
    /// When.
    pub at: Timestamp,
    /// How many accounts there are of each provider in each state.
    pub accounts: HashMap<(Arc<str>, AccountState), i64>,
    /// When each account that ever was online last proved to be alive.
    pub alive: Vec<Timestamp>,
    /// Those accounts that an operator wants to see by name.
    pub named: Vec<NamedAccount>,
    /// Messages that were dropped by filters.
    pub filtered: u64,
    /// The configuration.
    pub config: ConfigStatus,
    /// The journal.
    pub journal: JournalHealth,
    /// How many shards of the accounts are watched here.
    pub shards: usize,
    /// The outputs.
    pub outputs: Vec<OutputReport>,
}

/// One account of `metrics.per_account`.
#[derive(Clone, Debug)]
pub struct NamedAccount {
    /// Which.
    pub id: AccountId,
    /// Its state.
    pub state: AccountState,
    /// When it last proved to be alive.
    pub alive: Option<Timestamp>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Accounts {
    provider: Label<Arc<str>>,
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfAccount {
    account: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateOfAccount {
    account: String,
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Taken {
    output: String,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfWhat {
    what: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Build {
    version: &'static str,
}

impl Snapshot {
    /// Of a monitor that has these accounts, and nothing else yet.
    #[cfg(test)]
    pub(super) fn empty(accounts: HashMap<(Arc<str>, AccountState), i64>) -> Self {
        let now = Timestamp::now();
        Self {
            at: now,
            accounts,
            alive: Vec::new(),
            named: Vec::new(),
            filtered: 0,
            config: ConfigStatus { loaded_at: now, last_reload_successful: true },
            journal: JournalHealth::default(),
            shards: 0,
            outputs: Vec::new(),
        }
    }

    /// As metrics.
    pub fn registry(&self) -> Registry {
        let mut registry = Registry::with_prefix("idlewatch");
        self.register_accounts(&mut registry);
        self.register_named(&mut registry);
        self.register_monitor(&mut registry);
        self.register_journal(&mut registry);
        self.register_outputs(&mut registry);
        registry
    }

    fn register_accounts(&self, registry: &mut Registry) {
        let accounts = Family::<Accounts, Gauge>::default();
        for ((provider, state), &count) in &self.accounts {
            let provider = Label(provider.clone());
            accounts.get_or_create(&Accounts { provider, state: state.as_str() }).set(count);
        }
        registry.register("accounts", "Number of configured accounts by state", accounts);
        let ages = Histogram::new(AGES);
        for alive in &self.alive {
            ages.observe((seconds(self.at) - seconds(*alive)).max(0.0));
        }
        let help = "Time since the last proven round trip of each account that ever was online";
        registry.register_with_unit("liveness_age", help, Unit::Seconds, ages);
    }

    fn register_named(&self, registry: &mut Registry) {
        if self.named.is_empty() {
            return;
        }
        let states = Family::<StateOfAccount, Gauge>::default();
        let alive = Family::<OfAccount, Seconds>::default();
        for named in &self.named {
            let account = named.id.as_str().to_owned();
            if let Some(at) = named.alive {
                alive.get_or_create(&OfAccount { account: account.clone() }).set(seconds(at));
            }
            states.get_or_create(&StateOfAccount { account, state: named.state.as_str() }).set(1);
        }
        registry.register("account_state", "1 for the state that a named account is in", states);
        let help = "Unix time of the last proven round trip of a named account";
        registry.register_with_unit("account_last_proven_alive_timestamp", help, Unit::Seconds, alive);
    }

    fn register_monitor(&self, registry: &mut Registry) {
        let build = Family::<Build, Gauge>::default();
        build.get_or_create(&Build { version: env!("CARGO_PKG_VERSION") }).set(1);
        registry.register("build_info", "A metric with a constant '1' value labeled by version", build);
        let ok = Gauge::<i64>::default();
        ok.set(self.config.last_reload_successful.into());
        let help = "Whether the last configuration reload succeeded";
        registry.register("config_last_reload_successful", help, ok);
        let help = "Unix time of the last successful configuration reload";
        let at = moment(Some(self.config.loaded_at));
        registry.register_with_unit("config_last_reload_success_timestamp", help, Unit::Seconds, at);
        let filtered = Counter::<u64, AtomicU64>::default();
        filtered.inc_by(self.filtered);
        registry.register("events_filtered", "Messages dropped by a configured filter", filtered);
    }

    fn register_outputs(&self, registry: &mut Registry) {
        let events = Family::<Taken, Counter>::default();
        let (retries, waiting) =
            (Family::<OfOutput, Counter>::default(), Family::<OfOutput, Gauge>::default());
        let capacity = Family::<OfOutput, Gauge>::default();
        let lag = Family::<OfOutput, Seconds>::default();
        for output in &self.outputs {
            let of = OfOutput { output: output.name.clone() };
            let taken = |result| Taken { output: output.name.clone(), result };
            events.get_or_create(&taken("delivered")).inc_by(output.delivered);
            events.get_or_create(&taken("dead_letter")).inc_by(output.dead_letters);
            events.get_or_create(&taken("dropped")).inc_by(output.dropped);
            retries.get_or_create(&of).inc_by(output.retries);
            waiting.get_or_create(&of).set(i64::try_from(output.waiting).unwrap_or(i64::MAX));
            if let Some(most) = output.capacity {
                capacity.get_or_create(&of).set(i64::try_from(most).unwrap_or(i64::MAX));
            }
            lag.get_or_create(&of).set(output.lag_seconds);
        }
        registry.register("output_events", "Events by output and result", events);
        registry.register("output_retries", "Delivery retries, by output", retries);
        registry.register("output_queue_events", "Events waiting, by output", waiting);
        let help = "Events that may wait, by output, where that is bounded by their number";
        registry.register("output_queue_capacity_events", help, capacity);
        let help = "Age of the oldest event that is being delivered, by output";
        registry.register_with_unit("output_lag", help, Unit::Seconds, lag);
    }

    fn register_journal(&self, registry: &mut Registry) {
        let bytes = |count: u64| {
            let gauge = Gauge::<i64>::default();
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
            gauge
        };
        let help = "Bytes of events that wait for an output";
        registry.register_with_unit("journal", help, Unit::Bytes, bytes(self.journal.bytes));
        let help = "Bytes of events that may wait for an output";
        registry.register_with_unit("journal_capacity", help, Unit::Bytes, bytes(self.journal.max_bytes));
        let blocked = Gauge::<i64>::default();
        blocked.set(i64::from(self.journal.full || self.journal.blocked.is_some()));
        let help = "Whether events cannot be kept at this moment: the journal or its disk is full, or its database is away, or damaged";
        registry.register("journal_blocked", help, blocked);
        let damaged = Counter::<u64>::default();
        damaged.inc_by(self.journal.damage.events);
        let help = "Events that were found damaged in the journal's database, and told to nobody";
        registry.register("journal_damaged_events", help, damaged);
        let Damage { events, cursors, positions, refusals, pages } = self.journal.damage;
        let counts = [
            ("event", events),
            ("cursor", cursors),
            ("position", positions),
            ("refusals", refusals),
            ("page", pages),
        ];
        let rows = Family::<OfWhat, Counter>::default();
        for (what, count) in counts {
            rows.get_or_create(&OfWhat { what }).inc_by(count);
        }
        let help = "Rows that were found damaged in the journal's database, by what they held, and pages that it cannot read";
        registry.register("journal_damaged_rows", help, rows);
        let shards = Gauge::<i64>::default();
        shards.set(i64::try_from(self.shards).unwrap_or(i64::MAX));
        let help =
            "Shards of the accounts that are watched here, of 1024; less than all where monitors share them";
        registry.register("shards", help, shards);
        let help = "Unix time of the last durable write of UID state";
        let at = moment(self.journal.committed_at);
        registry.register_with_unit("state_last_checkpoint_timestamp", help, Unit::Seconds, at);
    }
}

fn moment(at: Option<Timestamp>) -> Seconds {
    let gauge = Seconds::default();
    gauge.set(at.map_or(0.0, seconds));
    gauge
}
