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
    /// No credit goes beyond the instant at which the time watched since the base has reached
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
    let mut deadline = timer.earliest();
    // Computed with the first credit: most timers have none.
    let mut last = None;
    for spot in spots {
        if spot.start >= deadline {
            break;
        }
        if spot.end <= timer.base {
            continue;
        }
        let mut moved = spot.end.plus_ms(slack_ms);
        if !spot.length_known {
            // It may have been shorter, and the application still waiting for its turn; but that
            // comes within an interval.
            let waiting = deadline.plus_ms(spot.end.ms_since(spot.start.max(timer.base)));
            let turn = spot.end.plus_ms(timer.interval_ms + timer.grace_ms);
            moved = moved.max(waiting.min(turn));
        }
        let last = *last.get_or_insert_with(|| last_credit(timer, spots));
        let moved = moved.min(last);
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

/// When the watched time since the base has reached the cap: no credit goes beyond.
fn last_credit(timer: &Timer, spots: &[BlindSpot]) -> Steady {
    let mut left_ms = timer
        .interval_ms
        .saturating_mul(1 + u64::from(timer.blind_cap))
        .saturating_add(timer.grace_ms);
    let mut watched_to = timer.base;
    for spot in spots {
        let watched_ms = spot.start.ms_since(watched_to);
        if watched_ms >= left_ms {
            break;
        }
        if spot.cause != BlindCause::Overload && spot.end > watched_to {
            left_ms -= watched_ms;
            watched_to = spot.end;
        }
    }
    watched_to.plus_ms(left_ms)
}

#[cfg(test)]
mod tests;
