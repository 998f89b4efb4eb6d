//! How long IDLE may last: some servers and middleboxes cut connections that are silent for less than ten minutes. What was
//! learned of a host outlives the process.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Shorter lives end for other reasons.
const LEAST: Duration = Duration::from_secs(30);

/// Cuts after about the same time, at different times, that are no accident.
const ENOUGH: u8 = 3;

/// What was learned of all hosts; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct IdlePeriods(Arc<Mutex<HashMap<String, IdlePeriod>>>);

impl IdlePeriods {
    /// As learned by an earlier process.
    pub fn learned(hosts: impl IntoIterator<Item = (String, Duration)>) -> Self {
        let known =
            |learned: Duration| IdlePeriod { learned: Some(learned.max(LEAST)), ..IdlePeriod::default() };
        Self(Arc::new(Mutex::new(hosts.into_iter().map(|(host, period)| (host, known(period))).collect())))
    }

    /// The period for `host`: the configured one, or a shorter one where that was learned.
    pub fn of(&self, host: &str, configured: Duration) -> Duration {
        let hosts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let learned = hosts.get(host).and_then(|period| period.learned);
        learned.map_or(configured, |learned| learned.min(configured))
    }

    /// A connection to `host` was cut, `idled` after its IDLE began. Returns a period that was learned by this.
    pub fn cut(&self, host: &str, idled: Duration, now: Instant) -> Option<Duration> {
        let mut hosts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        hosts.entry(host.to_owned()).or_default().cut(idled, now)
    }
}

/// What was learned of one host. Pure.
#[derive(Debug, Default)]
struct IdlePeriod {
    learned: Option<Duration>,
    last: Option<(Duration, Instant)>,
    alike: u8,
}

impl IdlePeriod {
    fn cut(&mut self, idled: Duration, now: Instant) -> Option<Duration> {
        if idled < LEAST {
            return None;
        }
        match self.last {
            // All connections at once: the server was restarted, and says nothing about periods.
            Some((_, at)) if now.saturating_duration_since(at) < idled / 2 => return None,
            Some((before, _)) if before.abs_diff(idled) <= idled / 10 => self.alike += 1,
            _ => self.alike = 1,
        }
        self.last = Some((idled, now));
        if self.alike < ENOUGH {
            return None;
        }
        self.alike = 0;
        let shorter = (idled * 4 / 5).max(LEAST);
        if self.learned.is_some_and(|known| known <= shorter) {
            return None;
        }
        self.learned = Some(shorter);
        self.learned
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn cuts_after_the_same_time_make_the_period_shorter() {
        let (periods, start) = (IdlePeriods::default(), Instant::now());
        assert_eq!(periods.cut("h", 5 * MINUTE, start), None);
        assert_eq!(periods.cut("h", 5 * MINUTE, start + 5 * MINUTE), None);
        assert_eq!(periods.cut("h", 5 * MINUTE, start + 10 * MINUTE), Some(4 * MINUTE));
        assert_eq!((periods.of("h", 9 * MINUTE), periods.of("other", 9 * MINUTE)), (4 * MINUTE, 9 * MINUTE));
        assert_eq!(periods.of("h", MINUTE), MINUTE, "the configured one may be shorter still");
        for cut in 3..9 {
            assert_eq!(periods.cut("h", 5 * MINUTE, start + cut * 5 * MINUTE), None, "nothing new");
        }
    }

    #[test]
    fn what_an_earlier_process_learned_holds_and_is_never_absurd() {
        let hosts = [("h", 4 * MINUTE), ("absurd", Duration::ZERO)];
        let periods = IdlePeriods::learned(hosts.map(|(host, period)| (host.to_owned(), period)));
        assert_eq!((periods.of("h", 9 * MINUTE), periods.of("absurd", 9 * MINUTE)), (4 * MINUTE, LEAST));
        let start = Instant::now();
        let cut = |n: u32| periods.cut("h", 2 * MINUTE, start + n * 2 * MINUTE);
        assert_eq!(
            (0..3).filter_map(cut).collect::<Vec<_>>(),
            [2 * MINUTE * 4 / 5],
            "it can be shorter still"
        );
    }

    #[test]
    fn a_restart_of_the_server_teaches_nothing() {
        let (periods, start) = (IdlePeriods::default(), Instant::now());
        for account in 0..1000 {
            assert_eq!(periods.cut("h", 5 * MINUTE, start + Duration::from_millis(account)), None);
        }
        for (minutes, lived) in [(20, 3), (40, 7), (60, 2), (80, 8)] {
            assert_eq!(periods.cut("h", lived * MINUTE, start + minutes * MINUTE), None, "at random");
        }
    }
}
