//! Which hosts do not take commands that are sent ahead, as their connections learned. It outlives the process.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Connections in a row that ended while commands sent ahead were not all answered, which are no accident.
const ENOUGH: u8 = 3;

/// Ends within this time have one cause.
const AT_ONCE: Duration = Duration::from_secs(20);

/// What counts against a host.
#[derive(Clone, Copy, Debug, Default)]
struct Strikes {
    count: u8,
    last: Option<Instant>,
}

/// What was learned of all hosts; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Pipelines(Arc<Mutex<HashMap<String, Strikes>>>);

impl Pipelines {
    /// As learned by an earlier process: these do not take it.
    pub fn learned(hosts: impl IntoIterator<Item = String>) -> Self {
        let enough = Strikes { count: ENOUGH, last: None };
        Self(Arc::new(Mutex::new(hosts.into_iter().map(|host| (host, enough)).collect())))
    }

    /// Whether `host` may be tried.
    pub fn may(&self, host: &str) -> bool {
        self.with(|hosts| hosts.get(host).is_none_or(|strikes| strikes.count < ENOUGH))
    }

    /// All was answered in order.
    pub fn worked(&self, host: &str) {
        self.with(|hosts| {
            if hosts.get(host).is_some_and(|strikes| strikes.count < ENOUGH) {
                hosts.remove(host);
            }
        });
    }

    /// It was answered otherwise. Whether that is new.
    pub fn broke(&self, host: &str) -> bool {
        let enough = Strikes { count: ENOUGH, last: None };
        self.with(|hosts| hosts.insert(host.to_owned(), enough).is_none_or(|before| before.count < ENOUGH))
    }

    /// The connection ended meanwhile. Whether one may conclude, for the first time, that the host does not take it. What
    /// ends many connections at once is one strike.
    pub fn lost(&self, host: &str, now: Instant) -> bool {
        self.with(|hosts| {
            let strikes = hosts.entry(host.to_owned()).or_default();
            if strikes.last.is_some_and(|last| now.saturating_duration_since(last) < AT_ONCE) {
                return false;
            }
            *strikes = Strikes { count: strikes.count.saturating_add(1), last: Some(now) };
            strikes.count == ENOUGH
        })
    }

    fn with<T>(&self, look: impl FnOnce(&mut HashMap<String, Strikes>) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_answer_is_enough_and_lost_connections_only_in_a_row() {
        let pipelines = Pipelines::learned(["old".to_owned()]);
        let mut now = Instant::now();
        let mut lost = |later: Duration| {
            now += later;
            pipelines.lost("h", now)
        };
        assert!(!pipelines.may("old") && pipelines.may("h"));
        assert!(!lost(AT_ONCE) && !lost(AT_ONCE));
        pipelines.worked("h");
        assert!(!lost(AT_ONCE) && !lost(AT_ONCE) && pipelines.may("h"));
        assert!(!lost(Duration::ZERO) && pipelines.may("h"), "of the same outage");
        assert!(lost(AT_ONCE) && !pipelines.may("h"));
        assert!(!lost(AT_ONCE) && !pipelines.broke("h"), "nothing new");
        pipelines.worked("h");
        assert!(!pipelines.may("h"), "another connection's late success");
        assert!(pipelines.broke("g") && !pipelines.may("g") && !pipelines.broke("g"));
    }
}
