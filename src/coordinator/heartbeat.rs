//! Whether the threads that do the work still do it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use actix::ArbiterHandle;

use crate::ticks::Ticks;

/// A thread that is silent for so long hangs: it missed one tick and more.
const HANGS: Duration = Duration::from_secs(30);

/// One heart per thread; cheap to clone.
#[derive(Clone, Debug)]
pub struct Heartbeats {
    since: Instant,
    /// Milliseconds after `since` of each thread's last beat.
    hearts: Arc<[AtomicU64]>,
}

impl Heartbeats {
    /// Of the thread that calls this, and of these: one beat now, and one at each tick.
    pub fn start(arbiters: &[ArbiterHandle], ticks: &Ticks) -> Self {
        let hearts = (0..=arbiters.len()).map(|_| AtomicU64::new(0)).collect();
        let heartbeats = Self { since: Instant::now(), hearts };
        actix_rt::spawn(heartbeats.clone().beat(0, ticks.clone()));
        for (index, arbiter) in arbiters.iter().enumerate() {
            // One that is gone never beats, which is the truth.
            arbiter.spawn(heartbeats.clone().beat(index + 1, ticks.clone()));
        }
        heartbeats
    }

    async fn beat(self, index: usize, mut ticks: Ticks) {
        while let Some(heart) = self.hearts.get(index) {
            heart.store(self.after(Instant::now()), Ordering::Relaxed);
            if ticks.next().await.is_none() {
                return;
            }
        }
    }

    fn after(&self, now: Instant) -> u64 {
        let after = now.saturating_duration_since(self.since);
        u64::try_from(after.as_millis()).unwrap_or(u64::MAX)
    }

    /// Whether all of them did something lately.
    pub fn all_alive(&self, now: Instant) -> bool {
        let now = self.after(now);
        let silent = |heart: &AtomicU64| now.saturating_sub(heart.load(Ordering::Relaxed));
        self.hearts.iter().all(|heart| u128::from(silent(heart)) < HANGS.as_millis())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One of two hangs in something that blocks.
    #[test]
    fn one_thread_that_hangs_is_enough() {
        let since = Instant::now();
        let at = |seconds: u64| since + Duration::from_secs(seconds);
        let heartbeats = Heartbeats { since, hearts: Arc::new([AtomicU64::new(0), AtomicU64::new(0)]) };
        assert!(heartbeats.all_alive(at(29)));
        heartbeats.hearts[0].store(40_000, Ordering::Relaxed);
        assert!(!heartbeats.all_alive(at(41)));
        heartbeats.hearts[1].store(40_000, Ordering::Relaxed);
        assert!(heartbeats.all_alive(at(41)));
    }

    #[test]
    fn threads_that_do_their_work_beat_at_each_tick() {
        let system = actix::System::new();
        system.block_on(async {
            let arbiters = [actix::Arbiter::new(), actix::Arbiter::new()];
            let (tick, ticks) = Ticks::by_hand();
            let heartbeats = Heartbeats::start(&arbiters.each_ref().map(actix::Arbiter::handle), &ticks);
            let later = heartbeats.since + HANGS;
            assert!(!heartbeats.all_alive(later));
            // The first beat comes by itself.
            for _ in 0..2 {
                tokio::time::sleep(Duration::from_millis(2)).await;
                let now = heartbeats.after(Instant::now());
                tick.send(()).unwrap();
                while heartbeats.hearts.iter().any(|heart| heart.load(Ordering::Relaxed) < now) {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
            for arbiter in arbiters {
                arbiter.stop();
            }
        });
    }
}
