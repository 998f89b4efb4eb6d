//! How fast shards are handed over: each is watched by nobody for a moment, and its accounts log in anew.

use std::time::{Duration, Instant};

use super::shard::SHARDS;

/// Shards that leave together.
const GROUP: usize = 32;

/// Shards that leave within a span: a tenth of all.
const MOST: usize = SHARDS / 10;

/// The longest span.
const SPAN: Duration = Duration::from_secs(10);

/// How long whoever is drained waits for others to take a group, and for its own outputs: all groups go within what a
/// person or a `preStop` waits by default, however slow the others are.
const PATIENCE: Duration = Duration::from_millis(2_500);

/// What has left lately.
#[derive(Debug)]
pub struct Pace {
    span: Duration,
    since: Option<Instant>,
    left: usize,
    /// When the last group left.
    left_at: Option<Instant>,
}

impl Pace {
    /// For those who take each other for dead after `ttl`: two thirds of it are a span, and no more than ten seconds.
    pub fn new(ttl: Duration) -> Self {
        Self { span: SPAN.min(ttl * 2 / 3), since: None, left: 0, left_at: None }
    }

    /// How many may leave now. A person who drains a monitor waits for it: only groups are kept small.
    pub fn allows(&mut self, now: Instant, draining: bool) -> usize {
        if self.since.is_none_or(|since| now.duration_since(since) >= self.span) {
            (self.since, self.left) = (Some(now), 0);
        }
        if draining { GROUP } else { GROUP.min(MOST - self.left.min(MOST)) }
    }

    /// Whether more leaves though the last group was not taken.
    pub fn is_impatient(&self, now: Instant, draining: bool) -> bool {
        draining && self.left_at.is_some_and(|at| now.duration_since(at) >= PATIENCE)
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

    /// What leaves at each of these seconds, of as many as there could be.
    fn groups(seconds: impl IntoIterator<Item = u64>, draining: bool) -> Vec<usize> {
        let (start, mut pace) = (Instant::now(), Pace::new(Duration::from_secs(15)));
        let group = |second| {
            let now = start + Duration::from_secs(second);
            let most = pace.allows(now, draining);
            pace.left(most, now);
            most
        };
        seconds.into_iter().map(group).collect()
    }

    #[test]
    fn a_tenth_leaves_in_ten_seconds_by_groups() {
        assert_eq!(groups(0..12, false), [32, 32, 32, 6, 0, 0, 0, 0, 0, 0, 32, 32]);
    }

    #[test]
    fn who_is_drained_has_let_everything_go_before_a_person_gives_up() {
        let (start, mut pace) = (Instant::now(), Pace::new(Duration::from_secs(15)));
        let (mut now, mut groups) = (start, 0);
        // Nobody takes anything; it is looked twice a second.
        while groups * GROUP < SHARDS {
            if groups == 0 || pace.is_impatient(now, true) {
                let most = pace.allows(now, true);
                pace.left(most, now);
                groups += 1;
            }
            assert!(!pace.is_impatient(now, false), "only whoever is drained");
            now += Duration::from_millis(500);
            assert!(now - start < Duration::from_secs(110), "{groups} groups");
        }
    }

    #[test]
    fn what_is_drained_goes_on() {
        assert_eq!(groups(0..12, true), [32; 12]);
    }
}
