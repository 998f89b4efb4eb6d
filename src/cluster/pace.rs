//! How fast shards are handed over: each is watched by nobody for a moment, and its accounts log in anew.

use std::time::{Duration, Instant};

use super::shard::SHARDS;

/// Shards that leave together.
const GROUP: usize = 32;

/// Shards that leave within a span: a tenth of all.
const MOST: usize = SHARDS / 10;

/// The longest span.
const SPAN: Duration = Duration::from_secs(10);

/// What has left lately.
#[derive(Debug)]
pub struct Pace {
    span: Duration,
    since: Option<Instant>,
    left: usize,
}

impl Pace {
    /// For those who take each other for dead after `ttl`: two thirds of it are a span, and no more than ten seconds.
    pub fn new(ttl: Duration) -> Self {
        Self { span: SPAN.min(ttl * 2 / 3), since: None, left: 0 }
    }

    /// How many may leave now. A person who drains a monitor waits for it: only groups are kept small.
    pub fn allows(&mut self, now: Instant, draining: bool) -> usize {
        if self.since.is_none_or(|since| now.duration_since(since) >= self.span) {
            (self.since, self.left) = (Some(now), 0);
        }
        if draining { GROUP } else { GROUP.min(MOST - self.left.min(MOST)) }
    }

    /// So many leave.
    pub fn left(&mut self, shards: usize) {
        self.left += shards;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What leaves at each of these seconds, of as many as there could be.
    fn groups(seconds: impl IntoIterator<Item = u64>, draining: bool) -> Vec<usize> {
        let (start, mut pace) = (Instant::now(), Pace::new(Duration::from_secs(15)));
        let group = |second| {
            let most = pace.allows(start + Duration::from_secs(second), draining);
            pace.left(most);
            most
        };
        seconds.into_iter().map(group).collect()
    }

    #[test]
    fn a_tenth_leaves_in_ten_seconds_by_groups() {
        assert_eq!(groups(0..12, false), [32, 32, 32, 6, 0, 0, 0, 0, 0, 0, 32, 32]);
    }

    #[test]
    fn what_is_drained_goes_on() {
        assert_eq!(groups(0..12, true), [32; 12]);
    }
}
