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
///
/// Without one it is at most half of `give_up_after_ms`: before what happens meanwhile is given up, the
/// callback is tried once more.
#[must_use]
pub(super) fn delay_ms(
    attempts: u32,
    retry_after_ms: Option<u64>,
    give_up_after_ms: u64,
    jitter: u64,
) -> u64 {
    let asked_ms = retry_after_ms.unwrap_or(0).min(RETRY_AFTER_MAX_MS);
    let spread_ms = jitter % (asked_ms / 10 + 1);
    let longest_ms = LONGEST_MS.min(give_up_after_ms / 2);
    pause_ms(FIRST_MS, attempts, longest_ms, jitter).max(asked_ms + spread_ms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DAY_MS: u64 = 86_400_000;

    #[test]
    fn doubles_up_to_five_minutes() {
        let fixed = |attempts| delay_ms(attempts, None, DAY_MS, 0) * 2;
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
        assert_eq!(delay_ms(1, None, DAY_MS, 0), 250);
        assert_eq!(delay_ms(1, None, DAY_MS, 250), 500);
        assert_eq!(delay_ms(1, None, DAY_MS, 251), 250);
        assert_eq!(delay_ms(1, Some(10_000), DAY_MS, 0), 10_000);
        assert_eq!(delay_ms(1, Some(10_000), DAY_MS, 1000), 11_000);
        assert_eq!(delay_ms(1, Some(10_000), DAY_MS, 1001), 10_000);
    }

    #[test]
    fn a_retry_after_is_no_more_than_an_hour() {
        assert_eq!(delay_ms(1, Some(u64::MAX), DAY_MS, 0), 3_600_000);
        assert_eq!(delay_ms(1, Some(u64::MAX), DAY_MS, 360_000), 3_960_000);
        assert_eq!(
            delay_ms(1, Some(0), DAY_MS, 7),
            delay_ms(1, None, DAY_MS, 7)
        );
    }

    proptest! {
        #[test]
        fn half_is_fixed(attempts: u32, jitter: u64) {
            let full_ms = delay_ms(attempts, None, DAY_MS, 0) * 2;
            let delay_ms = delay_ms(attempts, None, DAY_MS, jitter);
            prop_assert!((full_ms / 2..=full_ms).contains(&delay_ms));
            prop_assert!((250..=300_000).contains(&delay_ms));
        }

        #[test]
        fn more_failures_never_shorten_the_range(attempts in 0..u32::MAX) {
            let shortest_ms = |attempts| delay_ms(attempts, None, DAY_MS, 0);
            prop_assert!(shortest_ms(attempts) <= shortest_ms(attempts + 1));
        }

        #[test]
        fn no_pause_outlasts_half_of_the_patience(
            attempts: u32,
            give_up_after_ms in 1000..DAY_MS,
            jitter: u64,
        ) {
            let delay_ms = delay_ms(attempts, None, give_up_after_ms, jitter);
            prop_assert!(delay_ms <= give_up_after_ms / 2);
        }

        #[test]
        fn a_retry_after_is_kept_and_not_exceeded_by_much(
            attempts: u32,
            asked_ms in prop_oneof![0..10_000_000_u64, Just(u64::MAX)],
            jitter: u64,
        ) {
            let delay = delay_ms(attempts, Some(asked_ms), DAY_MS, jitter);
            let bound_ms = asked_ms.min(3_600_000);
            let without_ms = delay_ms(attempts, None, DAY_MS, jitter);
            prop_assert!(delay >= bound_ms && delay >= without_ms);
            prop_assert!(delay <= without_ms.max(bound_ms + bound_ms / 10));
        }
    }
}
