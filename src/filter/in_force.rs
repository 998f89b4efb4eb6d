//! The filters that apply now: a reload puts others in their place, under the sessions that use them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use super::Filters;

/// Shared by all sessions.
#[derive(Clone, Debug, Default)]
pub struct FiltersInForce(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    now: RwLock<Arc<Filters>>,
    dropped: AtomicU64,
}

impl FiltersInForce {
    /// These.
    pub fn new(filters: Arc<Filters>) -> Self {
        Self(Arc::new(Shared { now: RwLock::new(filters), dropped: AtomicU64::new(0) }))
    }

    /// Those that apply now.
    pub fn get(&self) -> Arc<Filters> {
        self.0.now.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on these; a batch under way may still meet those before.
    pub fn replace(&self, filters: Arc<Filters>) {
        *self.0.now.write().unwrap_or_else(PoisonError::into_inner) = filters;
    }

    /// So many messages were dropped, and that is durable: what is not is dropped again by the next session.
    pub fn count_dropped(&self, messages: u64) {
        self.0.dropped.fetch_add(messages, Ordering::Relaxed);
    }

    /// How many messages were dropped by this process.
    pub fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }
}
