//! How connections are paced: how many are set up at the same time and how many a second, in all and per host.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};

use crate::config::settings::ConnectionSettings;

/// The slowest that a host is made by its own complaints.
const SLOWEST: Duration = Duration::from_secs(10);

/// For a monitor that has all accounts.
const WHOLE: u32 = 1_000_000;

/// Between two turns, whatever the part.
const LONGEST: Duration = Duration::from_secs(60);

/// Let in by [`Gate::enter`]; cheap to clone.
#[derive(Clone, Debug)]
pub struct Gate(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    settings: ConnectionSettings,
    connections: Option<Arc<Semaphore>>,
    places: Arc<Semaphore>,
    pace: Mutex<Pace>,
    /// Of every [`WHOLE`] logins that a host is to see, so many are ours.
    share: AtomicU32,
    /// Never more entries than the configuration has hosts.
    hosts: Mutex<HashMap<String, Arc<HostGate>>>,
}

#[derive(Debug)]
struct HostGate {
    places: Arc<Semaphore>,
    pace: Mutex<Pace>,
}

/// A connection that was let in; its places are given back when it is dropped.
#[derive(Debug)]
pub struct Permit {
    _connection: Option<OwnedSemaphorePermit>,
    set_up: Option<[Option<OwnedSemaphorePermit>; 2]>,
}

impl Permit {
    /// The connection is set up: others may begin.
    pub fn is_set_up(&mut self) {
        self.set_up = None;
    }
}

impl Gate {
    /// A gate of this width and pace.
    pub fn new(settings: &ConnectionSettings) -> Self {
        Self(Arc::new(Shared {
            connections: settings.max_total.map(|most| Arc::new(Semaphore::new(most as usize))),
            places: Arc::new(Semaphore::new(settings.max_connecting as usize)),
            pace: Mutex::new(Pace::new(settings.period)),
            share: AtomicU32::new(WHOLE),
            hosts: Mutex::default(),
            settings: settings.clone(),
        }))
    }

    /// Waits for a place and for its turn, first in first out. The host's own queue comes first, so that a host that
    /// is slow, or has many accounts, holds none of the places of the others beyond its share. `period` is the pause
    /// that the host's provider is known to want, in place of the configured one.
    pub async fn enter(&self, host: &str, period: Option<Duration>) -> Permit {
        let host = self.host(host);
        if let Some(period) = period {
            lock(&host.pace).want(period);
        }
        let own = host.places.clone().acquire_owned().await.ok();
        self.turn(&host).await;
        let connection = match &self.0.connections {
            Some(connections) => connections.clone().acquire_owned().await.ok(),
            None => None,
        };
        let total = match self.0.places.clone().try_acquire_owned() {
            Ok(total) => Some(total),
            // Whoever waited here has missed his turn: those who did would all go at once.
            Err(_) => {
                let total = self.0.places.clone().acquire_owned().await.ok();
                self.turn(&host).await;
                total
            }
        };
        let at = lock(&self.0.pace).reserve(Instant::now(), 1.0);
        sleep_until(at).await;
        Permit { _connection: connection, set_up: Some([own, total]) }
    }

    /// Others have the rest of the accounts: hosts see one pace of all of us together.
    pub fn share(&self, part: f64) {
        let share = (f64::from(WHOLE) * part.clamp(0.0, 1.0)) as u32;
        self.0.share.store(share.max(1), Ordering::Relaxed);
    }

    async fn turn(&self, host: &HostGate) {
        let stretch = f64::from(WHOLE) / f64::from(self.0.share.load(Ordering::Relaxed));
        let at = lock(&host.pace).reserve(Instant::now(), stretch);
        sleep_until(at).await;
    }

    /// The host asks for patience: whoever comes next waits longer.
    pub fn throttled(&self, host: &str) {
        lock(&self.host(host).pace).slow_down();
    }

    /// The host took a login.
    pub fn welcomed(&self, host: &str) {
        lock(&self.host(host).pace).speed_up();
    }

    fn host(&self, host: &str) -> Arc<HostGate> {
        let host = host.to_ascii_lowercase();
        let mut hosts = lock(&self.0.hosts);
        if let Some(gate) = hosts.get(&host) {
            return gate.clone();
        }
        let settings = &self.0.settings;
        let gate = Arc::new(HostGate {
            places: Arc::new(Semaphore::new(settings.per_host_max_connecting as usize)),
            pace: Mutex::new(Pace::new(settings.per_host_period)),
        });
        hosts.insert(host, gate.clone());
        gate
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One after the other, with a pause between two; longer where the host complains. Pure.
#[derive(Debug)]
struct Pace {
    configured: Duration,
    period: Duration,
    next: Option<Instant>,
}

impl Pace {
    fn new(configured: Duration) -> Self {
        Self { configured, period: configured, next: None }
    }

    /// From now on this is the pause, where nobody complains.
    fn want(&mut self, configured: Duration) {
        if self.configured != configured {
            *self = Self { next: self.next, ..Self::new(configured) };
        }
    }

    /// The moment of the next turn, which is taken by this. Whoever has only a part of the turns waits `stretch` times as
    /// long for the one after it.
    fn reserve(&mut self, now: Instant, stretch: f64) -> Instant {
        let at = self.next.map_or(now, |next| next.max(now));
        let pause = Duration::try_from_secs_f64(self.period.as_secs_f64() * stretch);
        self.next = Some(at + pause.unwrap_or(LONGEST).min(LONGEST));
        at
    }

    fn slow_down(&mut self) {
        let slower = (self.period * 2).max(Duration::from_millis(100));
        self.period = slower.min(SLOWEST.max(self.configured));
    }

    fn speed_up(&mut self) {
        self.period = (self.period * 9 / 10).max(self.configured);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use futures::future::join_all;

    use super::*;

    fn settings() -> ConnectionSettings {
        ConnectionSettings {
            max_total: None,
            max_connecting: 3,
            period: Duration::ZERO,
            per_host_max_connecting: 2,
            per_host_period: Duration::ZERO,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_that_takes_all_its_places_leaves_the_others_theirs() {
        let gate = Gate::new(&settings());
        let mut first = gate.enter("slow", None).await;
        let _second = gate.enter("slow", None).await;
        assert!(gate.enter("slow", None).now_or_never().is_none());
        let _other = gate.enter("other", None).await;
        assert!(gate.enter("third", None).now_or_never().is_none(), "three in all");
        first.is_set_up();
        let _third = gate.enter("third", None).await;
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_connections_than_configured() {
        let gate = Gate::new(&ConnectionSettings { max_total: Some(1), ..settings() });
        let mut first = gate.enter("a", None).await;
        first.is_set_up();
        assert!(gate.enter("b", None).now_or_never().is_none());
        drop(first);
        let _second = gate.enter("b", None).await;
    }

    /// Five thousand accounts come at once to a host that is let in ten times a second; another host does not notice.
    #[tokio::test(start_paused = true)]
    async fn a_storm_keeps_the_pace_and_the_order_and_other_hosts_go_ahead() {
        let per_host_period = Duration::from_millis(100);
        let gate = Gate::new(&ConnectionSettings { max_connecting: 200, per_host_period, ..settings() });
        let start = Instant::now();
        let storm = (0..5_000u32).map(|number| {
            let gate = gate.clone();
            async move {
                let _permit = gate.enter("busy", None).await;
                (number, start.elapsed())
            }
        });
        let other = async {
            tokio::time::sleep(Duration::from_secs(60)).await;
            let asked = Instant::now();
            drop(gate.enter("other", None).await);
            asked.elapsed()
        };
        let (let_in, waited) = futures::join!(join_all(storm), other);
        assert_eq!(waited, Duration::ZERO);
        for (number, at) in let_in {
            // The clock of the runtime counts in milliseconds.
            let due = per_host_period * number;
            assert!(at >= due && at <= due + Duration::from_millis(2), "{number}: {at:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_provider_has_a_pace_of_its_own() {
        let gate = Gate::new(&ConnectionSettings { per_host_max_connecting: 9, ..settings() });
        let (start, second) = (Instant::now(), Some(Duration::from_secs(1)));
        for due in [0, 1, 2] {
            drop(gate.enter("public", second).await);
            assert_eq!(start.elapsed().as_secs(), due);
        }
        assert!(gate.enter("own", None).now_or_never().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn two_that_have_half_of_the_accounts_each_keep_the_pace_together() {
        let gates = [0, 1].map(|_| {
            let per_host_period = Duration::from_millis(100);
            let gate =
                Gate::new(&ConnectionSettings { per_host_max_connecting: 9, per_host_period, ..settings() });
            gate.share(0.5);
            gate
        });
        let start = Instant::now();
        for turn in 0..20 {
            futures::join!(gates[0].enter("host", None), gates[1].enter("host", None));
            assert_eq!(start.elapsed(), Duration::from_millis(200) * turn, "two at a time");
        }
        gates[0].share(1.0);
        gates[0].enter("host", None).await;
        let start = Instant::now();
        gates[0].enter("host", None).await;
        assert_eq!(start.elapsed(), Duration::from_millis(100), "with everything it is as fast as it was");
    }

    #[test]
    fn complaints_slow_a_host_down_and_logins_make_it_fast_again() {
        let mut pace = Pace::new(Duration::from_millis(100));
        (0..20).for_each(|_| pace.slow_down());
        assert_eq!(pace.period, SLOWEST);
        (0..100).for_each(|_| pace.speed_up());
        assert_eq!(pace.period, Duration::from_millis(100));
    }
}
