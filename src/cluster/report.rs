//! The members of a cluster, as a person sees them.

use serde::Serialize;

use super::shard::SHARDS;

/// How a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MemberState {
    /// It lives.
    Alive,
    /// It lives, and gets its part once it has done so for its `journal.ttl`.
    Joining,
    /// Others are to have what it has.
    Draining,
    /// It has ended in order.
    Left,
    /// Nothing was seen of it for its whole `journal.ttl`.
    Silent,
}

impl MemberState {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Alive, Self::Joining, Self::Draining, Self::Left, Self::Silent];

    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Alive => "alive",
            Self::Joining => "joining",
            Self::Draining => "draining",
            Self::Left => "left",
            Self::Silent => "silent",
        }
    }
}

/// One member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MemberReport {
    /// `monitor.instance`
    pub name: String,
    /// How it is, by the database's clock.
    pub state: MemberState,
    /// How many of the 1,024 shards it has.
    pub shards: u64,
    /// How many of them a person has placed there.
    pub placed: u64,
    /// Its accounts, by their states, as it told last.
    pub accounts: serde_json::Map<String, serde_json::Value>,
    /// Events that wait for its outputs.
    pub events: u64,
    /// Milliseconds since it showed life.
    pub seen_ms_ago: u64,
    /// What it says of itself.
    pub process: String,
}

impl MemberReport {
    /// Whether it can watch anything.
    pub fn lives(&self) -> bool {
        !matches!(self.state, MemberState::Left | MemberState::Silent)
    }

    /// How many of its accounts were in a state, as it told last.
    pub fn accounts_in(&self, state: &str) -> u64 {
        self.accounts.get(state).and_then(serde_json::Value::as_u64).unwrap_or(0)
    }

    /// How many of its accounts are online, and how many there are but those that are not to be watched.
    pub fn online(&self) -> (u64, u64) {
        let all: u64 = self.accounts.values().filter_map(serde_json::Value::as_u64).sum();
        (self.accounts_in("online"), all - self.accounts_in("disabled"))
    }
}

/// Whether every account is watched by somebody who lives.
pub fn all_are_held(members: &[MemberReport]) -> bool {
    let held: u64 = members.iter().filter(|member| member.lives()).map(|member| member.shards).sum();
    usize::try_from(held) == Ok(SHARDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(state: MemberState, shards: u64) -> MemberReport {
        let accounts = serde_json::json!({"online": 7, "backoff": 2, "disabled": 3, "odd": "x"});
        MemberReport {
            name: "a".to_owned(),
            state,
            shards,
            placed: 0,
            accounts: accounts.as_object().unwrap().clone(),
            events: 0,
            seen_ms_ago: 0,
            process: "a (pid 1)".to_owned(),
        }
    }

    #[test]
    fn what_is_disabled_is_not_missed() {
        let report = member(MemberState::Alive, 1024);
        assert_eq!(report.online(), (7, 9));
        assert_eq!(MemberReport { accounts: Default::default(), ..report }.online(), (0, 0));
    }

    #[test]
    fn a_cluster_is_well_while_the_living_have_everything() {
        let cases = [
            (vec![(MemberState::Alive, 1024)], true),
            (vec![(MemberState::Alive, 512), (MemberState::Draining, 512)], true),
            (vec![(MemberState::Alive, 1024), (MemberState::Left, 0), (MemberState::Silent, 0)], true),
            (vec![(MemberState::Alive, 1000)], false),
            (vec![(MemberState::Alive, 512), (MemberState::Silent, 512)], false),
            (vec![], false),
        ];
        for (members, well) in cases {
            let members: Vec<_> = members.into_iter().map(|(state, shards)| member(state, shards)).collect();
            assert_eq!(all_are_held(&members), well, "{members:?}");
        }
    }
}
