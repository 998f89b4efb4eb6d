//! How many connections are set up at the same time: in all, and per host.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::settings::ConnectionSettings;

/// Let in by [`Gate::enter`] from the dial to the login; cheap to clone.
#[derive(Clone, Debug)]
pub struct Gate {
    total: Arc<Semaphore>,
    per_host: usize,
    /// Never more entries than the configuration has hosts.
    hosts: Arc<Mutex<HashMap<String, Arc<Semaphore>>>>,
}

/// A place at the gate, given back when dropped.
#[derive(Debug)]
pub struct Permit {
    _host: Option<OwnedSemaphorePermit>,
    _total: Option<OwnedSemaphorePermit>,
}

impl Gate {
    /// A gate of this width.
    pub fn new(settings: &ConnectionSettings) -> Self {
        Self {
            total: Arc::new(Semaphore::new(settings.max_connecting as usize)),
            per_host: settings.per_host_max_connecting as usize,
            hosts: Arc::default(),
        }
    }

    /// Waits for a place, first in first out. The host's own queue comes first, so that a slow host holds none of
    /// the places of the others beyond its share.
    pub async fn enter(&self, host: &str) -> Permit {
        let own = self.host(host).acquire_owned().await.ok();
        let total = self.total.clone().acquire_owned().await.ok();
        Permit { _host: own, _total: total }
    }

    fn host(&self, host: &str) -> Arc<Semaphore> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(gate) = hosts.get(host) {
            return gate.clone();
        }
        let gate = Arc::new(Semaphore::new(self.per_host));
        hosts.insert(host.to_owned(), gate.clone());
        gate
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn a_host_that_takes_all_its_places_leaves_the_others_theirs() {
        let gate = Gate::new(&ConnectionSettings { max_connecting: 3, per_host_max_connecting: 2 });
        let first = gate.enter("slow").now_or_never().unwrap();
        let _second = gate.enter("slow").now_or_never().unwrap();
        assert!(gate.enter("slow").now_or_never().is_none());
        let _other = gate.enter("other").now_or_never().unwrap();
        assert!(gate.enter("third").now_or_never().is_none(), "three in all");
        drop(first);
        assert!(gate.enter("third").now_or_never().is_some());
    }
}
