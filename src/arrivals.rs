//! What came in lately, for those who watch: how much each minute, and the last messages by their places. Nothing of what is
//! in them.

use std::collections::VecDeque;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::event::{AccountId, MailboxName};

/// Minutes that are counted.
pub const MINUTES: usize = 60;

/// Messages that are remembered.
const MOST: usize = 50;

/// A message that came in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Arrival {
    /// When its event was made.
    pub at: Timestamp,
    /// The account.
    pub account: AccountId,
    /// The mailbox.
    pub mailbox: MailboxName,
    /// Its UID.
    pub uid: u32,
    /// How long that took since INTERNALDATE, where it was noticed at once.
    pub delay_seconds: Option<f64>,
}

/// The last hour.
#[derive(Clone, Debug, Default)]
pub struct Arrivals {
    /// The number of the newest minute, since 1970.
    minute: i64,
    /// How many came in each, the newest last.
    counts: VecDeque<u32>,
    latest: VecDeque<Arrival>,
}

impl Arrivals {
    /// One more.
    pub fn add(&mut self, arrival: Arrival) {
        self.turn(arrival.at);
        if let Some(newest) = self.counts.back_mut() {
            *newest = newest.saturating_add(1);
        }
        if self.latest.len() >= MOST {
            self.latest.pop_front();
        }
        self.latest.push_back(arrival);
    }

    /// How many came in each of the last minutes, the newest last.
    pub fn per_minute(&mut self, now: Timestamp) -> Vec<u32> {
        self.turn(now);
        self.counts.iter().copied().collect()
    }

    /// The last messages, the newest first.
    pub fn latest(&self) -> Vec<Arrival> {
        self.latest.iter().rev().cloned().collect()
    }

    /// Minutes in which nothing came are counted, too. A clock that went back counts on in the newest.
    fn turn(&mut self, at: Timestamp) {
        let minute = at.as_second().div_euclid(60);
        let passed = usize::try_from(minute.saturating_sub(self.minute)).unwrap_or(0);
        if passed == 0 && !self.counts.is_empty() {
            return;
        }
        self.minute = self.minute.max(minute);
        self.counts.resize(MINUTES, 0);
        for _ in 0..passed.min(MINUTES) {
            self.counts.pop_front();
            self.counts.push_back(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrival(second: i64) -> Arrival {
        let at = Timestamp::from_second(second).unwrap();
        Arrival { at, account: "a".into(), mailbox: MailboxName::inbox(), uid: 1, delay_seconds: None }
    }

    fn last(counts: &[u32]) -> &[u32] {
        &counts[counts.len() - 3..]
    }

    #[test]
    fn each_minute_is_counted_for_an_hour() {
        let mut arrivals = Arrivals::default();
        let start = 1_700_000_040;
        [0, 1, 59, 60, 121].into_iter().for_each(|second| arrivals.add(arrival(start + second)));
        let at = |second: i64| Timestamp::from_second(start + second).unwrap();
        let counts = arrivals.per_minute(at(125));
        assert_eq!((counts.len(), last(&counts)), (MINUTES, &[3, 1, 1][..]));
        assert_eq!(last(&arrivals.per_minute(at(200))), [1, 1, 0]);
        arrivals.add(arrival(start));
        assert_eq!(last(&arrivals.per_minute(at(200))), [1, 1, 1], "a clock that went back");
        assert_eq!(arrivals.per_minute(at(100_000)), [0; MINUTES]);
    }

    #[test]
    fn the_last_are_remembered() {
        let mut arrivals = Arrivals::default();
        (0..200).for_each(|second| arrivals.add(arrival(second)));
        let latest = arrivals.latest();
        assert_eq!((latest.len(), latest[0].at.as_second()), (MOST, 199));
    }
}
