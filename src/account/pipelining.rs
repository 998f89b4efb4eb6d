//! Which hosts do not take commands that are sent ahead, as their connections learned. It outlives the process.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Connections in a row that ended while commands sent ahead were not all answered, which are no accident.
const ENOUGH: u8 = 3;

/// What was learned of all hosts; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Pipelines(Arc<Mutex<HashMap<String, u8>>>);

impl Pipelines {
    /// As learned by an earlier process: these do not take it.
    pub fn learned(hosts: impl IntoIterator<Item = String>) -> Self {
        Self(Arc::new(Mutex::new(hosts.into_iter().map(|host| (host, ENOUGH)).collect())))
    }

    /// Whether `host` may be tried.
    pub fn may(&self, host: &str) -> bool {
        self.with(|hosts| hosts.get(host).is_none_or(|&lost| lost < ENOUGH))
    }

    /// All was answered in order.
    pub fn worked(&self, host: &str) {
        self.with(|hosts| {
            if hosts.get(host).is_some_and(|&lost| lost < ENOUGH) {
                hosts.remove(host);
            }
        });
    }

    /// It was answered otherwise. Whether that is new.
    pub fn broke(&self, host: &str) -> bool {
        self.with(|hosts| hosts.insert(host.to_owned(), ENOUGH).is_none_or(|lost| lost < ENOUGH))
    }

    /// The connection ended meanwhile. Whether one may conclude, for the first time, that the host does not take it.
    pub fn lost(&self, host: &str) -> bool {
        self.with(|hosts| {
            let lost = hosts.entry(host.to_owned()).or_default();
            *lost = lost.saturating_add(1);
            *lost == ENOUGH
        })
    }

    fn with<T>(&self, look: impl FnOnce(&mut HashMap<String, u8>) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_answer_is_enough_and_lost_connections_only_in_a_row() {
        let pipelines = Pipelines::learned(["old".to_owned()]);
        assert!(!pipelines.may("old") && pipelines.may("h"));
        assert!(!pipelines.lost("h") && !pipelines.lost("h"));
        pipelines.worked("h");
        assert!(!pipelines.lost("h") && !pipelines.lost("h") && pipelines.may("h"));
        assert!(pipelines.lost("h") && !pipelines.may("h"));
        assert!(!pipelines.lost("h") && !pipelines.broke("h"), "nothing new");
        pipelines.worked("h");
        assert!(!pipelines.may("h"), "another connection's late success");
        assert!(pipelines.broke("g") && !pipelines.may("g") && !pipelines.broke("g"));
    }
}
