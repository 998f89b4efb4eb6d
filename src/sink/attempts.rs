//! What an output's answer means for what was handed to it. Pure.

use std::time::Duration;

use super::output::{Outcome, Pause};
use crate::backoff::full_jitter;

/// A single event is offered so often before it is buried.
const MOST_REJECTIONS: u32 = 5;

/// A batch that is failed at so often is offered in halves from then on.
const MOST_STRAINS: u32 = 3;

/// The shortest wait.
const SOON: Duration = Duration::from_millis(100);

/// The longest that an output may ask us to wait.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// Between tries where only a person can help.
const SLOWLY: Duration = Duration::from_secs(30);

/// The tries that failed, since the output took something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Attempts {
    failures: u32,
    /// Of the event that is offered alone.
    rejections: u32,
}

/// What to do now.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    /// Go on behind it.
    GoOn,
    /// Go on behind the first `taken` events, after the wait.
    Wait { taken: usize, wait: Duration },
    /// Offer its halves, one after the other.
    Split,
    /// Offer its halves, after the wait.
    Lighten { wait: Duration },
    /// It is one event, and will never be taken.
    Bury,
    /// Offer everything again that is held.
    Rewind,
    /// Nothing will ever be taken again.
    End,
}

impl Attempts {
    /// `events` were offered; `random` is uniform in `0.0..1.0`.
    pub(super) fn judge(&mut self, outcome: &Outcome, events: usize, random: f64) -> Step {
        match outcome {
            Outcome::Taken => {
                *self = Self::default();
                Step::GoOn
            }
            Outcome::TryAgain { taken, pause, .. } => self.again(*taken, *pause, random),
            Outcome::Strained { pause, .. } => self.strained(*pause, events, random),
            Outcome::Rejected { .. } if events > 1 => Step::Split,
            Outcome::Rejected { .. } => self.rejected(random),
            Outcome::Forgotten => Step::Rewind,
            Outcome::Closed => Step::End,
        }
    }

    /// Whether the last try failed.
    pub(super) fn failing(self) -> bool {
        self.failures > 0
    }

    fn again(&mut self, taken: usize, pause: Pause, random: f64) -> Step {
        if taken > 0 {
            *self = Self::default();
        }
        self.failures = self.failures.saturating_add(1);
        Step::Wait { taken, wait: self.wait(pause, random) }
    }

    /// Whoever is only down for a while is not worth smaller batches.
    fn strained(&mut self, pause: Pause, events: usize, random: f64) -> Step {
        self.failures = self.failures.saturating_add(1);
        let wait = self.wait(pause, random);
        if events > 1 && self.failures > MOST_STRAINS {
            return Step::Lighten { wait };
        }
        Step::Wait { taken: 0, wait }
    }

    fn rejected(&mut self, random: f64) -> Step {
        self.failures = self.failures.saturating_add(1);
        self.rejections += 1;
        if self.rejections < MOST_REJECTIONS {
            return Step::Wait { taken: 0, wait: self.wait(Pause::Backoff, random) };
        }
        *self = Self::default();
        Step::Bury
    }

    fn wait(self, pause: Pause, random: f64) -> Duration {
        match pause {
            // Half a minute at most: whoever comes back does not wait long for us.
            Pause::Backoff => full_jitter(Duration::from_secs(1), self.failures.min(6), random),
            Pause::Slowly => SLOWLY + full_jitter(SLOWLY, self.failures.min(4), random),
            // "At once", said again and again, is no answer to go by.
            Pause::For(asked) => {
                let again = self.failures.saturating_sub(3).min(6);
                let least =
                    if again == 0 { SOON } else { full_jitter(Duration::from_secs(1), again, random) };
                asked.max(least).clamp(SOON, LONGEST_WAIT)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn again(taken: usize, pause: Pause) -> Outcome {
        Outcome::TryAgain { taken, pause, reason: String::new() }
    }

    fn rejected() -> Outcome {
        Outcome::Rejected { reason: String::new() }
    }

    fn waited(step: &Step) -> u64 {
        let Step::Wait { wait, .. } = step else { panic!("{step:?}") };
        wait.as_secs()
    }

    #[test]
    fn a_failure_waits_longer_each_time_until_something_is_taken() {
        let mut attempts = Attempts::default();
        let mut wait = |pause| waited(&attempts.judge(&again(0, pause), 9, 1.0));
        assert_eq!([0; 8].map(|_| wait(Pause::Backoff)), [1, 2, 4, 8, 16, 32, 32, 32]);
        assert_eq!(wait(Pause::Slowly), 30 + 240);
        assert!(attempts.failing());
        assert_eq!(waited(&attempts.judge(&again(3, Pause::Backoff), 9, 1.0)), 1, "some was taken");
        assert_eq!(attempts.judge(&Outcome::Taken, 9, 1.0), Step::GoOn);
        assert!(!attempts.failing());
    }

    #[test]
    fn a_batch_that_is_failed_at_again_and_again_is_offered_in_halves_and_one_event_is_never_given_up() {
        let strained = Outcome::Strained { pause: Pause::Backoff, reason: String::new() };
        let mut attempts = Attempts::default();
        let mut judge = |events| attempts.judge(&strained, events, 1.0);
        for seconds in [1, 2, 4] {
            assert_eq!(waited(&judge(100)), seconds);
        }
        assert_eq!(judge(100), Step::Lighten { wait: Duration::from_secs(8) });
        assert_eq!(judge(50), Step::Lighten { wait: Duration::from_secs(16) });
        for _ in 0..50 {
            assert_eq!(waited(&judge(1)), 32);
        }
        attempts.judge(&Outcome::Taken, 1, 1.0);
        assert_eq!(waited(&attempts.judge(&strained, 49, 1.0)), 1);
    }

    #[test]
    fn an_output_may_ask_for_an_hour_and_no_more() {
        let mut attempts = Attempts::default();
        let mut wait =
            |seconds| waited(&attempts.judge(&again(0, Pause::For(Duration::from_secs(seconds))), 1, 0.5));
        assert_eq!([7, 3600, 1_000_000].map(&mut wait), [7, 3600, 3600]);
        let mut attempts = Attempts::default();
        let mut at_once = || waited(&attempts.judge(&again(0, Pause::For(Duration::ZERO)), 1, 1.0));
        assert_eq!([0; 10].map(|_| at_once()), [0, 0, 0, 1, 2, 4, 8, 16, 32, 32]);
    }

    #[test]
    fn what_is_rejected_is_halved_and_one_event_is_buried_at_the_fifth_time() {
        let mut attempts = Attempts::default();
        assert_eq!(attempts.judge(&rejected(), 100, 0.5), Step::Split);
        let steps: Vec<_> = (0..5).map(|_| attempts.judge(&rejected(), 1, 0.5)).collect();
        assert!(steps.iter().take(4).all(|step| matches!(step, Step::Wait { taken: 0, .. })), "{steps:?}");
        assert_eq!(steps.last(), Some(&Step::Bury));
        assert_eq!(attempts, Attempts::default());
    }

    #[test]
    fn no_trouble_but_a_rejection_counts_towards_the_burial() {
        let mut attempts = Attempts::default();
        for _ in 0..50 {
            attempts.judge(&again(0, Pause::Slowly), 1, 0.5);
        }
        assert!(matches!(attempts.judge(&rejected(), 1, 0.5), Step::Wait { .. }));
    }
}
