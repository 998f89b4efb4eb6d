//! Whether time went on without us: the machine slept, the process was stopped, or somebody set the clock. Pure.

use std::time::{Duration, Instant, SystemTime};

use crate::ticks::TICK;

/// More than a busy machine is late.
const JUMP: Duration = Duration::from_secs(30);

/// A moment by both clocks: the one that stands still while the machine sleeps, and the one that may be set.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Monotonic.
    pub steady: Instant,
    /// The wall's.
    pub wall: SystemTime,
}

impl Moment {
    /// Now.
    pub fn now() -> Self {
        Self { steady: Instant::now(), wall: SystemTime::now() }
    }

    /// Whether time jumped since this moment, if a tick was to end at `now`.
    pub fn jumped(&self, now: &Self) -> bool {
        let steady = now.steady.saturating_duration_since(self.steady);
        let late = steady.saturating_sub(TICK) > JUMP;
        let apart = match now.wall.duration_since(self.wall) {
            Ok(wall) => wall.abs_diff(steady) > JUMP,
            Err(backwards) => backwards.duration() + steady > JUMP,
        };
        late || apart
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sleep_stops_and_set_clocks_are_noticed_and_a_busy_machine_is_not() {
        let start = Moment::now();
        let after = |steady: u64, wall: i64| {
            let distance = Duration::from_secs(wall.unsigned_abs());
            let wall = if wall < 0 { start.wall - distance } else { start.wall + distance };
            start.jumped(&Moment { steady: start.steady + Duration::from_secs(steady), wall })
        };
        assert!(!after(15, 15) && !after(40, 40) && !after(15, 16) && !after(2, 2));
        assert!(after(15, 3615) && after(2, 3602), "the machine slept");
        assert!(after(15, 50), "for less than a minute");
        assert!(after(600, 600) && after(50, 50), "the process was stopped");
        assert!(after(15, -86_400) && after(15, 86_415), "somebody set the clock");
    }
}
