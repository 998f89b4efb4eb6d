//! When may what is another's be taken over? Pure.
//!
//! No two clocks are compared: a monitor is dead once nothing was seen of it for its whole promise, by one clock, while
//! we were looking. Nothing hangs on it: whoever was taken for dead and lives is refused by the epoch.

use std::time::{Duration, Instant};

/// The lease, as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lease {
    /// Who holds it; nobody: empty.
    pub(super) owner: String,
    /// How often it has changed hands.
    pub(super) epoch: i64,
    /// When its owner last showed life, in the database's words.
    pub(super) seen: String,
    /// The owner's promise: to show life so often.
    pub(super) ttl: Duration,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nobody has it, or nobody who lives.
    Take,
    /// Its owner lives, or may.
    Wait,
}

/// A lease that is watched.
#[derive(Debug, Default)]
pub(super) struct Watched {
    /// What was found last, since when it is the same, and when that was.
    last: Option<(Lease, Instant, Instant)>,
}

impl Watched {
    /// Judges what was found now. `ttl` is our own promise.
    pub(super) fn look(&mut self, lease: Lease, ttl: Duration, now: Instant) -> Verdict {
        let ttl = ttl.max(lease.ttl);
        if lease.owner.is_empty() {
            return Verdict::Take;
        }
        let since = match &self.last {
            // After a gap in our own looking, an outage of the database say, everybody looks dead, and whoever was dead is.
            Some((known, since, looked))
                if *known == lease
                    && (now.duration_since(*looked) <= ttl / 2 || looked.duration_since(*since) >= ttl) =>
            {
                *since
            }
            _ => now,
        };
        self.last = Some((lease, since, now));
        if now.duration_since(since) >= ttl { Verdict::Take } else { Verdict::Wait }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(15);

    /// What is made of looks at (second, owner, epoch, seen).
    fn verdicts(looks: &[(u64, &str, i64, u64)]) -> Vec<Verdict> {
        let (start, mut watched) = (Instant::now(), Watched::default());
        let look = |(second, owner, epoch, seen): &(u64, &str, i64, u64)| {
            let lease = Lease { owner: (*owner).to_owned(), epoch: *epoch, seen: seen.to_string(), ttl: TTL };
            watched.look(lease, Duration::from_secs(1), start + Duration::from_secs(*second))
        };
        looks.iter().map(look).collect()
    }

    #[test]
    fn what_is_nobodys_is_taken_at_once() {
        assert_eq!(verdicts(&[(0, "", 4, 9)]), [Verdict::Take]);
        assert_eq!(verdicts(&[(0, "a", 4, 9), (1, "", 5, 9)]), [Verdict::Wait, Verdict::Take]);
    }

    #[test]
    fn whoever_shows_no_life_for_a_promise_is_dead() {
        let silent: Vec<_> = (0..=5).map(|n| (n * 3, "a", 4, 9)).collect();
        let expected = [vec![Verdict::Wait; 5], vec![Verdict::Take]].concat();
        assert_eq!(verdicts(&silent), expected);
        let alive: Vec<_> = (0..100).map(|n| (n * 3, "a", 4, n / 4)).collect();
        assert_eq!(verdicts(&alive), [Verdict::Wait; 100]);
    }

    #[test]
    fn another_owner_has_a_promise_of_its_own() {
        let looks = [(0, "a", 4, 9), (7, "a", 4, 9), (14, "b", 6, 9), (21, "b", 6, 9), (28, "b", 6, 9)];
        assert_eq!(verdicts(&looks), [Verdict::Wait; 5]);
    }

    #[test]
    fn after_a_gap_in_our_own_looking_everybody_lives_once_more() {
        let looks = [(0, "a", 4, 9), (100, "a", 4, 9), (107, "a", 4, 9), (114, "a", 4, 9), (115, "a", 4, 9)];
        let expected = [vec![Verdict::Wait; 4], vec![Verdict::Take]].concat();
        assert_eq!(verdicts(&looks), expected);
    }

    #[test]
    fn whoever_was_dead_before_a_gap_is_dead_until_something_is_seen_of_it() {
        let looks = [
            (0, "a", 4, 9),
            (7, "a", 4, 9),
            (14, "a", 4, 9),
            (15, "a", 4, 9),
            (100, "a", 4, 9),
            (101, "a", 4, 10),
        ];
        let expected = [vec![Verdict::Wait; 3], vec![Verdict::Take; 2], vec![Verdict::Wait]].concat();
        assert_eq!(verdicts(&looks), expected);
    }
}
