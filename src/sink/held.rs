//! What an output took and may still lose: kept in the journal for a while. Pure.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// Sequences that were taken, and when.
#[derive(Debug)]
pub(super) struct Held {
    keep: Duration,
    /// At most so many events; beyond, the oldest are let go early.
    most: u64,
    taken: VecDeque<(Instant, u64)>,
    released: u64,
}

impl Held {
    /// From a position that is durable.
    pub(super) fn new(keep: Duration, most: u64, position: u64) -> Self {
        Self { keep, most, taken: VecDeque::new(), released: position }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.taken.is_empty()
    }

    /// Everything up to `sequence` was taken.
    pub(super) fn add(&mut self, now: Instant, sequence: u64) {
        self.taken.push_back((now, sequence));
    }

    /// What nobody has to keep any longer, where that is news.
    pub(super) fn release(&mut self, now: Instant) -> Option<u64> {
        let last = self.taken.back()?.1;
        let mut released = None;
        while let Some((at, sequence)) = self.taken.front().copied() {
            let is_old = now.duration_since(at) >= self.keep;
            if !is_old && last - self.released <= self.most {
                break;
            }
            self.released = sequence;
            released = Some(sequence);
            self.taken.pop_front();
        }
        released
    }

    /// All of it is to be offered again: from here.
    pub(super) fn rewind(&mut self) -> u64 {
        self.taken.clear();
        self.released
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn what_is_not_kept_is_released_at_once() {
        let mut held = Held::new(Duration::ZERO, 100, 3);
        let now = Instant::now();
        held.add(now, 7);
        assert_eq!((held.release(now), held.is_empty(), held.release(now)), (Some(7), true, None));
        assert_eq!(held.rewind(), 7);
    }

    #[test]
    fn what_is_kept_is_released_in_time_and_offered_again_until_then() {
        let mut held = Held::new(10 * MINUTE, 100, 3);
        let now = Instant::now();
        held.add(now, 7);
        held.add(now + MINUTE, 9);
        assert_eq!(held.release(now + 9 * MINUTE), None);
        assert_eq!(held.release(now + 10 * MINUTE), Some(7));
        assert!(!held.is_empty());
        assert_eq!((held.rewind(), held.is_empty()), (7, true));
    }

    #[test]
    fn no_more_is_kept_than_the_journal_has_room_for() {
        let mut held = Held::new(10 * MINUTE, 100, 0);
        let now = Instant::now();
        (1..=30).for_each(|n| held.add(now, n * 10));
        assert_eq!(held.release(now), Some(200));
        assert_eq!(held.release(now), None);
    }
}
