//! The whole of a cluster, as any of its members tells it when it is asked.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::cluster::report::{MemberReport, MemberState};
use crate::cluster::shard::SHARDS;
use crate::event::AccountState;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InState {
    state: &'static str,
}

/// Of all members together. What one that does not live said last is not counted: others have its accounts by now, or nobody.
pub fn registry(members: &[MemberReport]) -> Registry {
    let mut registry = Registry::with_prefix("idlewatch_cluster");
    let living = || members.iter().filter(|member| member.lives());
    let by_state = Family::<InState, Gauge>::default();
    for state in MemberState::ALL {
        let count = members.iter().filter(|member| member.state == state).count();
        by_state.get_or_create(&InState { state: state.as_str() }).set(signed(count as u64));
    }
    registry.register("members", "Monitors that share the accounts, by state", by_state);
    let accounts = Family::<InState, Gauge>::default();
    for state in AccountState::ALL.map(AccountState::as_str) {
        let count = living().map(|member| member.accounts_in(state)).fold(0, u64::saturating_add);
        accounts.get_or_create(&InState { state }).set(signed(count));
    }
    registry.register("accounts", "Accounts of all monitors that live, by state", accounts);
    let held: u64 = living().map(|member| member.shards).sum();
    let unwatched = Gauge::<i64>::default();
    unwatched.set(signed((SHARDS as u64).saturating_sub(held)));
    let help = "Shards of the accounts that no living monitor has, of 1024";
    registry.register("unwatched_shards", help, unwatched);
    let waiting = Gauge::<i64>::default();
    waiting.set(signed(members.iter().map(|member| member.events).sum()));
    registry.register("queue_events", "Events that wait for an output, of all monitors", waiting);
    registry
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::metrics::Metrics;

    #[test]
    fn what_the_members_say_is_summed_up_and_no_other_state_makes_a_series() {
        let member = |state, shards, accounts: serde_json::Value| MemberReport {
            name: "a".to_owned(),
            state,
            shards,
            placed: 0,
            accounts: accounts.as_object().cloned().unwrap_or_default(),
            events: 3,
            seen_ms_ago: 0,
            process: String::new(),
        };
        let members = [
            member(MemberState::Alive, 500, json!({"online": 7, "backoff": 1, "of a later version": 5})),
            member(MemberState::Draining, 400, json!({"online": 2, "backoff": "many"})),
            member(MemberState::Silent, 124, json!({"online": 1000})),
        ];
        let text = Metrics::new().encode(&[registry(&members)]).unwrap();
        for line in [
            "idlewatch_cluster_members{state=\"alive\"} 1",
            "idlewatch_cluster_members{state=\"joining\"} 0",
            "idlewatch_cluster_members{state=\"silent\"} 1",
            "idlewatch_cluster_accounts{state=\"online\"} 9",
            "idlewatch_cluster_accounts{state=\"backoff\"} 1",
            "idlewatch_cluster_accounts{state=\"suspended\"} 0",
            "idlewatch_cluster_unwatched_shards 124",
            "idlewatch_cluster_queue_events 9",
        ] {
            assert!(text.lines().any(|known| known == line), "{line} in {text}");
        }
        assert!(!text.contains("later"));
    }
}
