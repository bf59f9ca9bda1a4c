//! The deadline rule: when may we say that a service is silent?
//!
//! A service is declared silent once we have watched, without a break, for as long as a living one
//! may stay quiet, and heard nothing. A living application tries to beat at least every interval
//! (give or take less than the grace). A try can fall into a blind spot as late as just before its
//! end, and the next one follows within the retry promise. So the end of every blind spot that
//! begins before the deadline moves the deadline to `end + promise + grace` at least. Any earlier
//! verdict can be wrong, any later one is waste.

use super::time::{BlindCause, BlindSpot, Steady};

/// One running timer: everything the rule needs besides the blind spots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timer {
    /// The latest of registration, last heartbeat, PUT to ACTIVE, change of the interval.
    pub base: Steady,
    /// The interval that counts, in milliseconds.
    pub interval_ms: u64,
    /// The grace in milliseconds.
    pub grace_ms: u64,
    /// Within how many milliseconds the producer tries again while it cannot reach us; the
    /// interval when it promised nothing.
    pub retry_ms: u64,
    /// Credits end once the watched time between base and deadline has reached
    /// `(1 + blind_cap) · interval + grace`, so a crash loop cannot postpone a verdict for ever.
    pub blind_cap: u32,
}

impl Timer {
    /// The deadline without any blind spot: none is earlier.
    #[must_use]
    pub fn earliest(&self) -> Steady {
        self.base.plus_ms(self.interval_ms + self.grace_ms)
    }
}

/// What one blind spot did to a deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Credit {
    /// The blind spot.
    pub spot: BlindSpot,
    /// The deadline after it.
    pub deadline: Steady,
}

/// The deadline of a timer: the service is silent from here on, not earlier.
///
/// `spots` must be sorted by start, as the store keeps them. Time spent blind never counts against
/// the cap, however long; an overload is the exception (it counts as watched), because a flooder
/// must not be able to keep the dead alive.
#[must_use]
pub fn deadline(timer: &Timer, spots: &[BlindSpot]) -> Steady {
    walk(timer, spots, |_| {})
}

/// The deadline with everything that moved it, in order: the evidence of a verdict.
#[must_use]
pub fn judge(timer: &Timer, spots: &[BlindSpot]) -> (Steady, Vec<Credit>) {
    let mut credits = Vec::new();
    let deadline = walk(timer, spots, |credit| credits.push(credit));
    (deadline, credits)
}

fn walk(timer: &Timer, spots: &[BlindSpot], mut credited: impl FnMut(Credit)) -> Steady {
    let slack_ms = timer.retry_ms + timer.grace_ms;
    let cap_ms = timer
        .interval_ms
        .saturating_mul(1 + u64::from(timer.blind_cap))
        .saturating_add(timer.grace_ms);
    let mut deadline = timer.earliest();
    let mut blind_ms = 0;
    // Up to here blind time has been counted, so that overlapping spots count once.
    let mut counted_to = timer.base;
    for spot in spots {
        if spot.start >= deadline {
            break;
        }
        if spot.end <= timer.base {
            continue;
        }
        let is_blind = spot.cause != BlindCause::Overload;
        let blind_from = spot.start.max(counted_to);
        let blind_before_deadline_ms = if is_blind {
            spot.end.min(deadline).ms_since(blind_from)
        } else {
            0
        };
        let watched_ms = deadline.ms_since(timer.base) - blind_ms - blind_before_deadline_ms;
        if watched_ms >= cap_ms {
            break;
        }
        let credited_end = if is_blind {
            blind_ms += spot.end.ms_since(blind_from);
            counted_to = counted_to.max(spot.end);
            spot.end
        } else {
            spot.end.min(deadline.plus_ms(cap_ms - watched_ms))
        };
        let moved = credited_end.plus_ms(slack_ms);
        if moved > deadline {
            deadline = moved;
            credited(Credit {
                spot: *spot,
                deadline,
            });
        }
    }
    deadline
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const INTERVAL_MS: u64 = 10_000;
    const GRACE_MS: u64 = 2_000;

    fn timer(base: u64) -> Timer {
        Timer {
            base: Steady::from_ms(base),
            interval_ms: INTERVAL_MS,
            grace_ms: GRACE_MS,
            retry_ms: INTERVAL_MS,
            blind_cap: 10,
        }
    }

    fn spot(start: u64, end: u64) -> BlindSpot {
        BlindSpot {
            start: Steady::from_ms(start),
            end: Steady::from_ms(end),
            cause: BlindCause::Down,
            length_known: true,
        }
    }

    fn check(timer: Timer, spots: &[BlindSpot], expected: u64) {
        assert_eq!(
            deadline(&timer, spots),
            Steady::from_ms(expected),
            "{spots:?}"
        );
    }

    #[test]
    fn without_blind_spots_it_is_interval_plus_grace() {
        check(timer(1000), &[], 13_000);
    }

    #[test]
    fn spots_outside_the_window_give_nothing() {
        check(timer(1000), &[spot(0, 1000), spot(13_000, 90_000)], 13_000);
    }

    #[test]
    fn a_spot_moves_the_deadline_to_its_end_plus_promise_plus_grace() {
        check(timer(0), &[spot(5_000, 6_000)], 18_000);
        check(timer(0), &[spot(11_999, 100_000)], 112_000);
        let promised = Timer {
            retry_ms: 2_000,
            ..timer(0)
        };
        check(promised, &[spot(5_000, 100_000)], 104_000);
        // A short spot early on: the ordinary deadline is later and stays.
        check(promised, &[spot(5_000, 6_000)], 12_000);
    }

    #[test]
    fn a_beat_inside_a_spot_is_still_credited_its_end() {
        check(timer(5_000), &[spot(1_000, 6_000)], 18_000);
    }

    #[test]
    fn credits_chain_in_order() {
        check(
            timer(0),
            &[spot(11_000, 12_000), spot(23_000, 30_000)],
            42_000,
        );
    }

    #[test]
    fn a_crash_loop_cannot_postpone_for_ever() {
        // Down for 1 s every 3 s, for ever.
        let spots: Vec<_> = (0..1000)
            .map(|i| spot(i * 3_000 + 2_000, i * 3_000 + 3_000))
            .collect();
        let capped = deadline(&timer(0), &spots).as_ms();
        // 11 intervals + grace of watched time are two thirds of the real time, plus one slack.
        let cap_ms = 11 * INTERVAL_MS + GRACE_MS;
        assert!(
            capped <= cap_ms * 3 / 2 + INTERVAL_MS + GRACE_MS,
            "{capped}"
        );
        assert!(capped >= cap_ms, "{capped}");
    }

    #[test]
    fn a_long_outage_never_counts_against_the_cap() {
        let day = 86_400_000;
        check(
            timer(0),
            &[spot(1_000, day), spot(day + 11_000, 3 * day)],
            3 * day + 12_000,
        );
    }

    #[test]
    fn a_flood_cannot_keep_the_dead_alive() {
        let flood = BlindSpot {
            cause: BlindCause::Overload,
            ..spot(1_000, 86_400_000)
        };
        check(
            timer(0),
            &[flood],
            11 * INTERVAL_MS + GRACE_MS + INTERVAL_MS + GRACE_MS,
        );
        let burst = BlindSpot {
            cause: BlindCause::Overload,
            ..spot(1_000, 9_000)
        };
        check(timer(0), &[burst], 21_000);
    }

    proptest! {
        /// The live application of the module's first paragraph: whatever the blind spots, as
        /// long as the cap is far away, its next received beat comes before the deadline.
        #[test]
        fn a_living_application_is_never_late(
            phase_ms in 0..INTERVAL_MS,
            retry_s in 1..=10u64,
            gaps in prop::collection::vec((1u64..40_000, 1u64..100_000), 0..6),
        ) {
            let mut at = 0;
            let spots: Vec<_> = gaps.iter().map(|(gap, length)| {
                let start = at + gap;
                at = start + length;
                spot(start, at)
            }).collect();
            let timer = Timer { retry_ms: retry_s * 1000, blind_cap: 1_000, ..timer(0) };
            let blind = |t: u64| spots.iter().any(|s| s.start.as_ms() <= t && t < s.end.as_ms());
            // First try at most one interval after the base, then every promise while refused.
            let mut attempt = phase_ms + 1;
            while blind(attempt) {
                attempt += retry_s * 1000;
            }
            prop_assert!(Steady::from_ms(attempt) < deadline(&timer, &spots));
        }

        /// More blindness never brings a verdict forward.
        #[test]
        fn a_spot_never_shortens(start in 0u64..50_000, length in 1u64..50_000, other in 0u64..50_000) {
            let one = [spot(other, other + 500)];
            let mut both = vec![spot(start, start + length), one[0]];
            both.sort_by_key(|s| s.start);
            prop_assert!(deadline(&timer(0), &both) >= deadline(&timer(0), &one));
        }
    }
}
