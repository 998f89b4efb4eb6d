//! How long to wait after a failure: exponential with full jitter.
//!
//! Ours, and not a crate's, since the reset is ours: by proven survival only, never by a mere login.

use std::time::Duration;

/// A healthy life of this length forgets all failures before it.
pub const PROVEN: Duration = Duration::from_secs(60);

/// The longest wait.
pub const CAP: Duration = Duration::from_secs(300);

/// Between full jitter's 0 and nothing at all there has to be something, or a dead server is hammered.
const LEAST: Duration = Duration::from_millis(100);

/// The wait before try number `failures + 1`: random within `0 ..= min(CAP, base * 2^(failures-1))`.
///
/// `random` is uniform in `0.0..1.0`.
pub fn full_jitter(base: Duration, failures: u32, random: f64) -> Duration {
    let doubled = base.saturating_mul(1u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX));
    let most = doubled.min(CAP.max(base));
    most.mul_f64(random.clamp(0.0, 1.0)).max(LEAST)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_wait_is_never_longer_than_the_cap(base in 1u64..60, failures in 0u32..200, random in 0.0f64..1.0) {
            let wait = full_jitter(Duration::from_secs(base), failures, random);
            prop_assert!(wait >= LEAST && wait <= CAP);
        }
    }

    #[test]
    fn the_range_doubles() {
        let most = |failures| full_jitter(Duration::from_secs(1), failures, 1.0).as_secs();
        assert_eq!([1, 2, 3, 4, 9, 10].map(most), [1, 2, 4, 8, 256, 300]);
    }
}
