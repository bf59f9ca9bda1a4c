//! When to try again.

use crate::domain::backoff::pause_ms;

/// After the first failure.
const FIRST_MS: u64 = 500;

/// A callback that is back is found within this.
const LONGEST_MS: u64 = 5 * 60 * 1000;

/// A peer may ask for so long a pause at the most.
const RETRY_AFTER_MAX_MS: u64 = 60 * 60 * 1000;

/// How long to wait after so many failures in a row; 0 counts as the first.
///
/// From 500 ms up to 5 min, see [`pause_ms`]. A `Retry-After` is a lower bound, at most an hour, and
/// spread by up to a tenth of itself, so that those who were refused together do not come back
/// together.
#[must_use]
pub(super) fn delay_ms(attempts: u32, retry_after_ms: Option<u64>, jitter: u64) -> u64 {
    let asked_ms = retry_after_ms.unwrap_or(0).min(RETRY_AFTER_MAX_MS);
    let spread_ms = jitter % (asked_ms / 10 + 1);
    pause_ms(FIRST_MS, attempts, LONGEST_MS, jitter).max(asked_ms + spread_ms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn doubles_up_to_five_minutes() {
        let fixed = |attempts| delay_ms(attempts, None, 0) * 2;
        assert_eq!(fixed(0), 500);
        assert_eq!(fixed(1), 500);
        assert_eq!(fixed(2), 1000);
        assert_eq!(fixed(5), 8000);
        assert_eq!(fixed(10), 256_000);
        assert_eq!(fixed(11), 300_000);
        assert_eq!(fixed(u32::MAX), 300_000);
    }

    #[test]
    fn the_jitter_reaches_both_ends() {
        assert_eq!(delay_ms(1, None, 0), 250);
        assert_eq!(delay_ms(1, None, 250), 500);
        assert_eq!(delay_ms(1, None, 251), 250);
        assert_eq!(delay_ms(1, Some(10_000), 0), 10_000);
        assert_eq!(delay_ms(1, Some(10_000), 1000), 11_000);
        assert_eq!(delay_ms(1, Some(10_000), 1001), 10_000);
    }

    #[test]
    fn a_retry_after_is_no_more_than_an_hour() {
        assert_eq!(delay_ms(1, Some(u64::MAX), 0), 3_600_000);
        assert_eq!(delay_ms(1, Some(u64::MAX), 360_000), 3_960_000);
        assert_eq!(delay_ms(1, Some(0), 7), delay_ms(1, None, 7));
    }

    proptest! {
        #[test]
        fn half_is_fixed(attempts: u32, jitter: u64) {
            let full_ms = delay_ms(attempts, None, 0) * 2;
            let delay_ms = delay_ms(attempts, None, jitter);
            prop_assert!((full_ms / 2..=full_ms).contains(&delay_ms));
            prop_assert!((250..=300_000).contains(&delay_ms));
        }

        #[test]
        fn more_failures_never_shorten_the_range(attempts in 0..u32::MAX) {
            prop_assert!(delay_ms(attempts, None, 0) <= delay_ms(attempts + 1, None, 0));
        }

        #[test]
        fn a_retry_after_is_kept_and_not_exceeded_by_much(
            attempts: u32,
            asked_ms in prop_oneof![0..10_000_000_u64, Just(u64::MAX)],
            jitter: u64,
        ) {
            let delay = delay_ms(attempts, Some(asked_ms), jitter);
            let bound_ms = asked_ms.min(3_600_000);
            let without_ms = delay_ms(attempts, None, jitter);
            prop_assert!(delay >= bound_ms && delay >= without_ms);
            prop_assert!(delay <= without_ms.max(bound_ms + bound_ms / 10));
        }
    }
}
