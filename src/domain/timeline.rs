//! Steady time across a restart: from the last mark to now, without trusting a clock that cannot
//! be trusted.

use super::time::{Steady, Wall};

/// Identifies one boot of the machine: two readings of `CLOCK_BOOTTIME` compare only within one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BootId(pub [u8; 16]);

/// What the machine's clocks say at one instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// `CLOCK_BOOTTIME` in milliseconds: runs through suspend, starts anew at a reboot.
    pub boot_ms: u64,
    /// Which boot `boot_ms` belongs to.
    pub boot_id: BootId,
    /// The wall clock.
    pub wall: Wall,
}

/// The steady mark: proof that we were watching at this instant. Written with commits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Steady time at the mark.
    pub steady: Steady,
    /// The machine's clocks at the mark.
    pub reading: Reading,
    /// Whether this is the last word of an orderly stop.
    pub clean_stop: bool,
}

/// A wall clock further ahead of the mark than this is taken for wrong, not for a long outage.
pub const OUTAGE_BELIEVED_MS: u64 = 30 * 24 * 3600 * 1000;

/// Where steady time goes on after an outage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resumed {
    /// Steady time at the reading.
    pub steady: Steady,
    /// Whether the outage's length is a measurement; not so what a wall clock says, which may have
    /// been set while the machine was down.
    pub length_known: bool,
}

/// Carries steady time over an outage that began at `mark` and ends at `now`.
///
/// `newest` is the newest steady value found in the store: time never goes behind what was
/// already acknowledged. The length is exact within one boot; across a reboot it is the wall clock's
/// word, and where that is not believable it is taken for zero.
#[must_use]
pub fn resume(mark: &Mark, newest: Steady, now: &Reading) -> Resumed {
    let same_boot = mark.reading.boot_id == now.boot_id && now.boot_ms >= mark.reading.boot_ms;
    let length_ms = if same_boot {
        Some(now.boot_ms - mark.reading.boot_ms)
    } else {
        now.wall
            .as_ms()
            .checked_sub(mark.reading.wall.as_ms())
            .filter(|ahead_ms| *ahead_ms <= OUTAGE_BELIEVED_MS)
    };
    Resumed {
        steady: mark.steady.plus_ms(length_ms.unwrap_or(0)).max(newest),
        length_known: same_boot,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: u64 = 3_600_000;

    fn reading(boot: u8, boot_ms: u64, wall_ms: u64) -> Reading {
        Reading {
            boot_ms,
            boot_id: BootId([boot; 16]),
            wall: Wall::from_ns(wall_ms * 1_000_000),
        }
    }

    fn check(now: Reading, newest: u64, expected: (u64, bool)) {
        let mark = Mark {
            steady: Steady::from_ms(10 * HOUR_MS),
            reading: reading(1, HOUR_MS, 100 * HOUR_MS),
            clean_stop: false,
        };
        let resumed = resume(&mark, Steady::from_ms(newest), &now);
        assert_eq!(
            (resumed.steady.as_ms(), resumed.length_known),
            expected,
            "{now:?}"
        );
    }

    #[test]
    fn within_one_boot_the_length_is_exact_whatever_the_wall_says() {
        check(
            reading(1, HOUR_MS + 5_000, 0),
            0,
            (10 * HOUR_MS + 5_000, true),
        );
        check(
            reading(1, HOUR_MS + 5_000, 500 * HOUR_MS),
            0,
            (10 * HOUR_MS + 5_000, true),
        );
    }

    #[test]
    fn across_a_reboot_the_wall_clock_tells() {
        check(reading(2, 10, 101 * HOUR_MS), 0, (11 * HOUR_MS, false));
        // Same boot id, but the clock lies before the mark: a restored machine image.
        check(reading(1, 10, 101 * HOUR_MS), 0, (11 * HOUR_MS, false));
    }

    #[test]
    fn an_unbelievable_wall_clock_makes_the_length_unknown() {
        check(reading(2, 10, 99 * HOUR_MS), 0, (10 * HOUR_MS, false));
        check(
            reading(2, 10, 100 * HOUR_MS + OUTAGE_BELIEVED_MS + 1),
            0,
            (10 * HOUR_MS, false),
        );
    }

    #[test]
    fn time_never_goes_behind_what_was_acknowledged() {
        check(
            reading(2, 10, 99 * HOUR_MS),
            12 * HOUR_MS,
            (12 * HOUR_MS, false),
        );
    }
}
