//! What all connections share: how much mail there is, and what was told when.

use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::clock;

/// The whole server.
#[derive(Debug)]
pub struct World {
    /// Half a round trip.
    pub half_trip: Duration,
    /// Whether NOTIFY is offered.
    pub notify: bool,
    /// What is counted.
    pub counters: Counters,
    /// EXISTS of each user's INBOX: messages are never expunged, so it is the highest UID too.
    mailboxes: Vec<watch::Sender<u32>>,
    told: Mutex<Vec<Told>>,
    reset: watch::Sender<()>,
    /// The only password that is right; any is where there is none.
    password: Mutex<Option<String>>,
}

/// When EXISTS of a message was first written to a connection.
#[derive(Clone, Copy, Debug)]
pub struct Told {
    /// The number of the user.
    pub user: u32,
    /// The message.
    pub uid: u32,
    /// CLOCK_MONOTONIC.
    pub at: u64,
}

/// What `stats` tells.
#[derive(Debug, Default)]
pub struct Counters {
    /// Open connections.
    pub connections: AtomicU64,
    /// Those of them that wait for news.
    pub resting: AtomicU64,
    /// When one began to rest last.
    pub rested_at: AtomicU64,
    /// Logins so far.
    pub logins: AtomicU64,
    /// When the first one was taken.
    pub first_login_at: AtomicU64,
    /// Messages that FETCH or NOTIFY answered with.
    pub fetched: AtomicU64,
    /// Bytes received.
    pub bytes_in: AtomicU64,
    /// Bytes sent, before TLS.
    pub bytes_out: AtomicU64,
}

impl World {
    /// Users 1 to `users`, each with an empty INBOX.
    pub fn new(users: u32, round_trip: Duration, notify: bool) -> Self {
        Self {
            half_trip: round_trip / 2,
            notify,
            counters: Counters::default(),
            mailboxes: (0..users).map(|_| watch::Sender::new(0)).collect(),
            told: Mutex::default(),
            reset: watch::Sender::new(()),
            password: Mutex::default(),
        }
    }

    /// How many users there are.
    pub fn users(&self) -> u32 {
        u32::try_from(self.mailboxes.len()).unwrap_or(u32::MAX)
    }

    /// The INBOX of a user, counted from 1.
    pub fn mailbox(&self, user: u32) -> Option<&watch::Sender<u32>> {
        self.mailboxes.get(user.checked_sub(1)? as usize)
    }

    /// `count` new messages at once for one user.
    pub fn deliver(&self, user: u32, count: u32) {
        if let Some(mailbox) = self.mailbox(user) {
            mailbox.send_modify(|exists| *exists = exists.saturating_add(count));
        }
    }

    /// EXISTS that covers `uids` leaves now.
    pub fn telling(&self, user: u32, uids: RangeInclusive<u32>) {
        let at = clock::nanos();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.extend(uids.map(|uid| Told { user, uid, at }));
    }

    /// What was told since this was asked last.
    pub fn take_told(&self) -> Vec<Told> {
        std::mem::take(&mut *self.told.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// From now on, only this password is right.
    pub fn set_password(&self, password: &str) {
        *self.password.lock().unwrap_or_else(PoisonError::into_inner) = Some(password.to_owned());
    }

    /// Whether a login with it is taken.
    pub fn takes(&self, password: &str) -> bool {
        let wanted = self.password.lock().unwrap_or_else(PoisonError::into_inner);
        wanted.as_deref().is_none_or(|wanted| wanted == password)
    }

    /// Cuts all connections.
    pub fn reset(&self) {
        self.reset.send_replace(());
    }

    /// Hears of [`World::reset`].
    pub fn on_reset(&self) -> watch::Receiver<()> {
        self.reset.subscribe()
    }
}

impl Counters {
    /// A login was taken.
    pub fn login(&self) {
        let _ = self.first_login_at.compare_exchange(0, clock::nanos(), Relaxed, Relaxed);
        self.logins.fetch_add(1, Relaxed);
    }

    /// A connection waits for news.
    pub fn rests(&self) {
        self.rested_at.store(clock::nanos(), Relaxed);
        self.resting.fetch_add(1, Relaxed);
    }

    /// As one line of `name=value`.
    pub fn line(&self) -> String {
        let counters = [
            ("connections", &self.connections),
            ("resting", &self.resting),
            ("rested_at", &self.rested_at),
            ("logins", &self.logins),
            ("first_login_at", &self.first_login_at),
            ("fetched", &self.fetched),
            ("bytes_in", &self.bytes_in),
            ("bytes_out", &self.bytes_out),
        ];
        counters.map(|(name, counter)| format!("{name}={}", counter.load(Relaxed))).join(" ")
    }
}
