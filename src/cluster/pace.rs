//! How fast shards are handed over: each is watched by nobody for a moment, and its accounts log in anew.

use std::time::{Duration, Instant};

use super::shard::SHARDS;

/// Shards that leave together: an account waits for the logins of all that came with it.
const GROUP: usize = 8;

/// Shards that leave within a span: a tenth of all.
const MOST: usize = SHARDS / 10;

/// The longest span.
const SPAN: Duration = Duration::from_secs(10);

/// How long it is waited for others to take a group, and to log its accounts in.
const PATIENCE: Duration = Duration::from_millis(2_500);

/// Whoever is drained is to have nothing after so long, however slow the others are: before a person, or a `preStop`, gives
/// up.
const DRAINED: Duration = Duration::from_secs(90);

/// What is waited for before more leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Others have taken what left, and its accounts had their turn there.
    Watched,
    /// Others have taken it.
    Taken,
    /// Nothing any more.
    Over,
}

/// What has left lately.
#[derive(Debug)]
pub struct Pace {
    span: Duration,
    since: Option<Instant>,
    left: usize,
    /// When the last group left.
    left_at: Option<Instant>,
    drained_since: Option<Instant>,
}

impl Pace {
    /// For those who take each other for dead after `ttl`: two thirds of it are a span, and no more than ten seconds.
    pub fn new(ttl: Duration) -> Self {
        Self { span: SPAN.min(ttl * 2 / 3), since: None, left: 0, left_at: None, drained_since: None }
    }

    /// How many of those that are held may leave now. A person who drains a monitor waits for it.
    pub fn allows(&mut self, now: Instant, held: usize, draining: bool) -> usize {
        if self.since.is_none_or(|since| now.duration_since(since) >= self.span) {
            (self.since, self.left) = (Some(now), 0);
        }
        if !draining {
            self.drained_since = None;
            return GROUP.min(MOST - self.left.min(MOST));
        }
        let drained = now.duration_since(*self.drained_since.get_or_insert(now));
        let groups = DRAINED.saturating_sub(drained).as_millis() / PATIENCE.as_millis();
        GROUP.max(held.div_ceil(usize::try_from(groups).unwrap_or(1).max(1)))
    }

    /// What is waited for before more leaves.
    pub fn waits(&self, now: Instant, draining: bool) -> Wait {
        match self.left_at {
            Some(at) if now.duration_since(at) < PATIENCE => Wait::Watched,
            _ if draining => Wait::Over,
            _ => Wait::Taken,
        }
    }

    /// So many leave now.
    pub fn left(&mut self, shards: usize, now: Instant) {
        self.left += shards;
        self.left_at = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What leaves, and when, by one who has so many and looks ten times a second; a group is watched by others after `takes`.
    fn groups(held: usize, draining: bool, takes: Duration) -> Vec<(Duration, usize)> {
        let (start, mut pace) = (Instant::now(), Pace::new(Duration::from_secs(15)));
        let (mut held, mut groups, mut watched_at) = (held, Vec::new(), start);
        for look in 0..3_000 {
            let now = start + Duration::from_millis(100) * look;
            let most = pace.allows(now, held, draining).min(held);
            let waits = pace.waits(now, draining) == Wait::Watched && now < watched_at;
            if !waits && most > 0 {
                pace.left(most, now);
                (held, watched_at) = (held - most, now + takes);
                groups.push((now - start, most));
            }
        }
        assert_eq!(held, 0);
        groups
    }

    #[test]
    fn a_tenth_leaves_in_ten_seconds() {
        let groups = groups(512, false, Duration::from_millis(300));
        let within = |from: u64| {
            let span = Duration::from_secs(from)..Duration::from_secs(from + 10);
            groups.iter().filter(|(at, _)| span.contains(at)).map(|(_, shards)| shards).sum::<usize>()
        };
        assert_eq!([0, 10, 40, 50].map(within), [102, 102, 102, 2]);
    }

    #[test]
    fn who_is_drained_has_let_everything_go_before_a_person_gives_up() {
        for takes in [300, 2_400, 999_999] {
            let groups = groups(SHARDS, true, Duration::from_millis(takes));
            assert!(groups.last().is_some_and(|(at, _)| *at < DRAINED), "{takes}: {groups:?}");
        }
    }

    #[test]
    fn a_part_leaves_by_small_groups_as_soon_as_the_last_one_is_watched() {
        let groups = groups(341, true, Duration::from_millis(500));
        assert!(groups.iter().all(|(_, shards)| *shards <= 10), "{groups:?}");
        assert!(groups.last().is_some_and(|(at, _)| *at < Duration::from_secs(25)), "{groups:?}");
    }

    #[test]
    fn nobody_waits_long_for_logins_and_whoever_is_drained_for_nothing() {
        let (start, mut pace) = (Instant::now(), Pace::new(Duration::from_secs(15)));
        pace.left(8, start);
        let waits = |after: Duration| [false, true].map(|draining| pace.waits(start + after, draining));
        assert_eq!(waits(PATIENCE / 2), [Wait::Watched; 2]);
        assert_eq!(waits(PATIENCE), [Wait::Taken, Wait::Over]);
    }
}
