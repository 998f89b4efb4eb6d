//! What an output took and may still lose: kept in the journal for a while. Pure.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// Sequences that were taken, and until when they are kept.
#[derive(Debug)]
pub(super) struct Held {
    keep: Duration,
    /// At most so many events; beyond, the oldest are let go early.
    most: u64,
    /// With the moment from which nobody has to keep it.
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

    /// Everything up to `sequence` was taken, so long ago.
    pub(super) fn add(&mut self, now: Instant, age: Duration, sequence: u64) {
        self.taken.push_back((now + self.keep.saturating_sub(age), sequence));
    }

    /// Nothing up to `sequence` was for the output: it goes with what was taken before.
    pub(super) fn pass(&mut self, now: Instant, sequence: u64) {
        match self.taken.back_mut() {
            Some((_, last)) => *last = sequence,
            None => self.taken.push_back((now, sequence)),
        }
    }

    /// What nobody has to keep any longer, where that is news.
    pub(super) fn release(&mut self, now: Instant) -> Option<u64> {
        let last = self.taken.back()?.1;
        let mut released = None;
        while let Some((until, sequence)) = self.taken.front().copied() {
            if now < until && last - self.released <= self.most {
                break;
            }
            self.released = sequence;
            released = Some(sequence);
            self.taken.pop_front();
        }
        released
    }

    /// It is for another output, under other bounds: from here.
    pub(super) fn renew(&mut self, keep: Duration, most: u64) -> u64 {
        (self.keep, self.most) = (keep, most);
        self.rewind()
    }

    /// Nothing of it can be lost any longer: up to here, where that is news.
    pub(super) fn settle(&mut self) -> Option<u64> {
        let (_, last) = self.taken.pop_back()?;
        self.taken.clear();
        self.released = last;
        Some(last)
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
        held.add(now, Duration::ZERO, 7);
        assert_eq!((held.release(now), held.is_empty(), held.release(now)), (Some(7), true, None));
        assert_eq!(held.rewind(), 7);
    }

    #[test]
    fn what_is_kept_is_released_in_time_and_offered_again_until_then() {
        let mut held = Held::new(10 * MINUTE, 100, 3);
        let now = Instant::now();
        held.add(now, Duration::ZERO, 7);
        held.add(now + MINUTE, Duration::ZERO, 9);
        assert_eq!(held.release(now + 9 * MINUTE), None);
        assert_eq!(held.release(now + 10 * MINUTE), Some(7));
        assert!(!held.is_empty());
        assert_eq!((held.rewind(), held.is_empty()), (7, true));
    }

    #[test]
    fn what_was_taken_long_ago_is_kept_for_the_rest_of_its_time() {
        let mut held = Held::new(10 * MINUTE, 100, 0);
        let now = Instant::now();
        held.add(now, 11 * MINUTE, 3);
        held.add(now, 4 * MINUTE, 7);
        held.add(now, Duration::ZERO, 9);
        assert_eq!((held.release(now), held.release(now + 5 * MINUTE)), (Some(3), None));
        assert_eq!((held.release(now + 6 * MINUTE), held.release(now + 10 * MINUTE)), (Some(7), Some(9)));
    }

    #[test]
    fn what_is_not_for_the_output_is_kept_no_longer_than_what_is() {
        let mut held = Held::new(10 * MINUTE, 100, 0);
        let now = Instant::now();
        held.pass(now, 3);
        assert_eq!((held.release(now), held.is_empty()), (Some(3), true));
        held.add(now, Duration::ZERO, 5);
        held.pass(now + MINUTE, 7);
        assert_eq!((held.release(now + 9 * MINUTE), held.release(now + 10 * MINUTE)), (None, Some(7)));
    }

    #[test]
    fn what_is_settled_is_released_whatever_its_age() {
        let mut held = Held::new(10 * MINUTE, 100, 3);
        let now = Instant::now();
        assert_eq!(held.settle(), None);
        held.add(now, Duration::ZERO, 7);
        held.add(now, Duration::ZERO, 9);
        assert_eq!((held.settle(), held.is_empty(), held.settle()), (Some(9), true, None));
        assert_eq!(held.rewind(), 9);
    }

    #[test]
    fn no_more_is_kept_than_the_journal_has_room_for() {
        let mut held = Held::new(10 * MINUTE, 100, 0);
        let now = Instant::now();
        (1..=30).for_each(|n| held.add(now, Duration::ZERO, n * 10));
        assert_eq!(held.release(now), Some(200));
        assert_eq!(held.release(now), None);
    }
}
