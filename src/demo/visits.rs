//! Who was logged in, and when it was told of news.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// One login, until its end.
#[derive(Clone, Debug)]
pub struct Visit {
    /// Of whom.
    pub user: String,
    /// When the password was taken.
    pub logged_in: Instant,
    /// Since when it is told of news: its first IDLE.
    pub watching: Option<Instant>,
    /// When it logged out, or its connection ended.
    pub left: Option<Instant>,
}

/// Those of a server.
#[derive(Clone, Debug, Default)]
pub(super) struct Visits(Arc<Mutex<Vec<Visit>>>);

impl Visits {
    pub(super) fn visitor(&self) -> Visitor {
        Visitor { visits: self.clone(), place: None }
    }

    pub(super) fn all(&self) -> Vec<Visit> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Visit>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection, which has left when this is dropped.
#[derive(Debug)]
pub(super) struct Visitor {
    visits: Visits,
    place: Option<usize>,
}

impl Visitor {
    pub(super) fn logs_in(&mut self, user: &str) {
        self.leaves();
        let visit = Visit { user: user.to_owned(), logged_in: Instant::now(), watching: None, left: None };
        let mut visits = self.visits.lock();
        self.place = Some(visits.len());
        visits.push(visit);
    }

    pub(super) fn watches(&self) {
        self.note(|visit| &mut visit.watching);
    }

    pub(super) fn leaves(&self) {
        self.note(|visit| &mut visit.left);
    }

    /// The first time counts.
    fn note(&self, when: impl Fn(&mut Visit) -> &mut Option<Instant>) {
        let mut visits = self.visits.lock();
        if let Some(visit) = self.place.and_then(|place| visits.get_mut(place)) {
            when(visit).get_or_insert_with(Instant::now);
        }
    }
}

impl Drop for Visitor {
    fn drop(&mut self) {
        self.leaves();
    }
}
