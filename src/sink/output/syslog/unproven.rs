//! What was written to a stream, and may not have been read when the stream ended. Pure.
//!
//! Syslog has no acknowledgement. What the peer's machine did not confirm in time breaks the connection; what was
//! written so shortly before the end that the peer may have lost it is offered again, from the journal.

use std::time::Duration;

use tokio::time::Instant;

use crate::backoff::full_jitter;

/// How a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// In order: what the peer's machine had was read by the peer.
    Closed,
    /// Not so: nobody knows what was read.
    Broken,
}

/// The writes of one output.
#[derive(Debug)]
pub(super) struct Unproven {
    /// What is older was read.
    hold: Duration,
    connected: Option<Instant>,
    last_write: Option<Instant>,
    /// The last event that was ever written.
    newest: u64,
    /// The stream that is open has events that none had before.
    is_fresh: bool,
    /// Streams in a row that ended too early.
    losses: u32,
    owes_pause: bool,
}

impl Unproven {
    pub(super) fn new(hold: Duration) -> Self {
        Self {
            hold,
            connected: None,
            last_write: None,
            newest: 0,
            is_fresh: false,
            losses: 0,
            owes_pause: false,
        }
    }

    pub(super) fn connected(&mut self, now: Instant) {
        self.connected = Some(now);
    }

    /// Everything up to `sequence` was written.
    pub(super) fn wrote(&mut self, now: Instant, sequence: u64) {
        self.last_write = Some(now);
        self.is_fresh |= sequence > self.newest;
        self.newest = self.newest.max(sequence);
    }

    /// Whether what was written of late is to be offered again. After an end in order only once: a peer that hangs up
    /// after each message has it.
    pub(super) fn ended(&mut self, now: Instant, ending: Ending) -> bool {
        let within = |at: Option<Instant>| at.is_some_and(|at| now.duration_since(at) < self.hold);
        let (is_recent, was_short) = (within(self.last_write.take()), within(self.connected.take()));
        let is_fresh = std::mem::take(&mut self.is_fresh);
        let lost = is_recent && (ending == Ending::Broken || is_fresh);
        self.losses = if was_short { self.losses.saturating_add(1) } else { 1 };
        self.owes_pause = lost;
        lost
    }

    /// How long to wait before the next stream, once; `random` is uniform in `0.0..1.0`.
    pub(super) fn pause(&mut self, random: f64) -> Option<Duration> {
        let owed = std::mem::take(&mut self.owes_pause);
        owed.then(|| full_jitter(Duration::from_secs(1), self.losses.min(6), random))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn unproven(now: Instant) -> Unproven {
        let mut unproven = Unproven::new(30 * SECOND);
        unproven.connected(now);
        unproven
    }

    #[test]
    fn what_was_written_shortly_before_the_end_is_offered_again() {
        for (ending, seconds, lost) in [
            (Ending::Broken, 1, true),
            (Ending::Broken, 29, true),
            (Ending::Broken, 31, false),
            (Ending::Closed, 1, true),
            (Ending::Closed, 31, false),
        ] {
            let now = Instant::now();
            let mut unproven = unproven(now);
            unproven.wrote(now, 7);
            assert_eq!(unproven.ended(now + seconds * SECOND, ending), lost, "{ending:?} {seconds}");
            assert_eq!(unproven.pause(1.0).is_some(), lost);
            assert_eq!(unproven.pause(1.0), None, "once");
        }
    }

    #[test]
    fn nothing_written_is_nothing_lost() {
        let now = Instant::now();
        assert!(!unproven(now).ended(now, Ending::Broken));
        let mut unproven = Unproven::new(Duration::ZERO);
        unproven.wrote(now, 1);
        assert!(!unproven.ended(now, Ending::Broken), "nothing is held");
    }

    #[test]
    fn a_peer_that_hangs_up_in_order_gets_an_event_twice_at_most() {
        let now = Instant::now();
        let mut unproven = unproven(now);
        unproven.wrote(now, 7);
        assert!(unproven.ended(now, Ending::Closed));
        unproven.wrote(now, 7);
        assert!(!unproven.ended(now, Ending::Closed), "it has them");
        unproven.wrote(now, 7);
        unproven.wrote(now, 8);
        assert!(unproven.ended(now, Ending::Closed), "not this one");
        unproven.wrote(now, 8);
        assert!(unproven.ended(now, Ending::Broken), "nobody knows");
    }

    #[test]
    fn a_peer_that_always_breaks_off_is_met_less_and_less_often() {
        let mut now = Instant::now();
        let mut unproven = Unproven::new(30 * SECOND);
        let mut pauses = Vec::new();
        for lived in [1, 1, 1, 1, 60, 1] {
            unproven.connected(now);
            now += lived * SECOND;
            unproven.wrote(now, 1);
            assert!(unproven.ended(now, Ending::Broken));
            pauses.push(unproven.pause(1.0).unwrap().as_secs());
        }
        assert_eq!(pauses, [1, 2, 4, 8, 1, 2]);
    }
}
