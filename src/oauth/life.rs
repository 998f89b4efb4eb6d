//! How long an access token is used, and when the next one is fetched. Pure.

use std::time::{Duration, Instant};

/// Where a server does not say how long its tokens live (RFC 6749 section 5.1: it should).
const UNSAID: Duration = Duration::from_secs(600);

/// However short tokens live, they are not renewed ahead more often.
const SHORTEST_RENEWAL: Duration = Duration::from_secs(1);

/// How long a token lives of which this was said; 0 says nothing.
pub fn said(expires_in: Option<Duration>) -> Duration {
    expires_in.filter(|lasts| !lasts.is_zero()).unwrap_or(UNSAID)
}

/// A token that is younger was just fetched: another would be refused like this one.
const JUST_FETCHED: Duration = Duration::from_secs(60);

/// The life of one token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    fetched: Instant,
    lasts: Duration,
}

impl Life {
    /// Of a token that was asked for at `fetched`.
    pub fn new(fetched: Instant, lasts: Duration) -> Self {
        Self { fetched, lasts }
    }

    fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.fetched)
    }

    /// Whether it is good for a login: four fifths of its life are not over.
    pub fn is_fresh(&self, now: Instant) -> bool {
        self.age(now) < self.lasts.mul_f64(0.8)
    }

    /// Whether it may still be used, where no other can be had.
    pub fn is_alive(&self, now: Instant) -> bool {
        self.age(now) < self.lasts
    }

    /// How long to wait until the next one is fetched ahead: at about 80 % of its life, so that those that were
    /// fetched together are not renewed together. `random` is uniform in `0.0..1.0`.
    pub fn renewal(&self, now: Instant, random: f64) -> Duration {
        let due = self.lasts.mul_f64(0.8 + 0.1 * random.clamp(0.0, 1.0));
        due.saturating_sub(self.age(now)).max(SHORTEST_RENEWAL)
    }

    /// Whether a server may have refused it only because it is old.
    pub fn may_be_stale(&self, now: Instant) -> bool {
        self.age(now) >= JUST_FETCHED.min(self.lasts / 10)
    }

    /// When it ends, from now.
    pub fn left(&self, now: Instant) -> Duration {
        self.lasts.saturating_sub(self.age(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_is_used_for_48_minutes_and_renewed_before_its_end() {
        let start = Instant::now();
        let minute = |n: u64| Duration::from_secs(60 * n);
        let life = Life::new(start, minute(60));
        for (after, fresh, alive, stale) in
            [(0, true, true, false), (1, true, true, true), (47, true, true, true), (48, false, true, true)]
        {
            let now = start + minute(after);
            let found = (life.is_fresh(now), life.is_alive(now), life.may_be_stale(now));
            assert_eq!(found, (fresh, alive, stale), "{after}");
        }
        assert!(!life.is_alive(start + minute(60)));
        for random in [0.0, 0.5, 1.0] {
            let renewal = life.renewal(start, random);
            assert!(renewal >= minute(48) && renewal <= minute(54), "{renewal:?}");
            assert!(!life.is_fresh(start + renewal) && life.is_alive(start + renewal));
        }
        assert_eq!(life.renewal(start + minute(90), 0.5), SHORTEST_RENEWAL);
    }

    #[test]
    fn a_life_of_nothing_is_none_that_was_said_and_one_beyond_all_bounds_is_no_panic() {
        assert_eq!(said(Some(Duration::ZERO)), UNSAID);
        assert_eq!(said(None), UNSAID);
        assert_eq!(said(Some(Duration::from_secs(3))), Duration::from_secs(3));
        let start = Instant::now();
        let life = Life::new(start, Duration::from_secs(u64::MAX));
        assert!(life.is_fresh(start) && life.renewal(start, 1.0) > Duration::from_secs(1 << 40));
    }
}
