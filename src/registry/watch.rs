//! Sees when we were blind: the gaps between pulses, long commits, refused beats.
//!
//! Driven by the writer, in the order in which it takes things from the queue; so a blind spot is
//! known before anybody is judged.

use super::command::Instant;
use crate::domain::{BlindCause, BlindSpot, Mark, Steady};

/// See the module.
#[derive(Debug)]
pub(super) struct Watch {
    /// Longer than this is a blind spot, in milliseconds.
    stall_ms: u64,
    /// When the last pulse was put into the queue: the last instant of which we know that we were
    /// watching.
    last_pulse: Instant,
    /// When the writer last ran.
    last_run: Steady,
    /// The longest stretch since the last pulse in which the writer did not run.
    longest_rest_ms: u64,
    /// The burst of refusals that is going on.
    burst: Option<BlindSpot>,
    /// Seen since it was asked last.
    found: Vec<BlindSpot>,
}

impl Watch {
    pub(super) fn new(now: Instant, stall_ms: u64) -> Self {
        Self {
            stall_ms,
            last_pulse: now,
            last_run: now.steady,
            longest_rest_ms: 0,
            burst: None,
            found: Vec::new(),
        }
    }

    /// The writer runs: it was woken, by whatever.
    pub(super) fn run(&mut self, now: Steady) {
        self.longest_rest_ms = self.longest_rest_ms.max(now.ms_since(self.last_run));
        self.last_run = now;
    }

    /// A pulse that was put into the queue at that instant.
    pub(super) fn pulse(&mut self, now: Instant) {
        let last = self.last_pulse;
        let gap_ms = now.steady.ms_since(last.steady);
        if gap_ms > self.stall_ms {
            let slept_ms = now.asleep_ms.saturating_sub(last.asleep_ms);
            let cause = if slept_ms * 2 >= gap_ms {
                BlindCause::Asleep
            } else if self.longest_rest_ms * 2 >= gap_ms {
                BlindCause::Frozen
            } else {
                BlindCause::Starved
            };
            self.found(last.steady, now.steady, cause);
        }
        self.last_pulse = now;
        self.longest_rest_ms = 0;
    }

    /// The proof that we were watching: the last pulse. What came after it may be the end of a gap
    /// that no pulse has shown yet.
    pub(super) fn mark(&self, clean_stop: bool) -> Mark {
        Mark {
            steady: self.last_pulse.steady,
            reading: self.last_pulse.reading,
            clean_stop,
        }
    }

    /// A commit that took from `start` to `end`.
    pub(super) fn commit(&mut self, start: Steady, end: Steady) {
        if end.ms_since(start) > self.stall_ms {
            self.found(start, end, BlindCause::SlowDisk);
        }
        self.last_run = end;
    }

    /// Beats were refused, first and last at these instants. Refusals that follow each other within
    /// the stall are one burst, and one blind spot that grows.
    pub(super) fn refused(&mut self, first: Steady, last: Steady) {
        let end = last.plus_ms(1);
        let burst = match self.burst {
            Some(burst) if first.ms_since(burst.end) <= self.stall_ms => BlindSpot {
                end: burst.end.max(end),
                ..burst
            },
            _ => BlindSpot {
                start: first,
                end,
                cause: BlindCause::Overload,
                length_known: true,
            },
        };
        self.burst = Some(burst);
        self.found.push(burst);
    }

    fn found(&mut self, start: Steady, end: Steady, cause: BlindCause) {
        self.found.push(BlindSpot {
            start,
            end,
            cause,
            length_known: true,
        });
    }

    /// What was seen since the last call. A burst that has grown comes again.
    pub(super) fn take(&mut self) -> Vec<BlindSpot> {
        std::mem::take(&mut self.found)
    }
}

/// Adds a blind spot to a list that is sorted by start, where the start is the name: one that has
/// grown replaces itself; another one at the same instant begins a millisecond earlier. Returns what
/// is in the list now, and by how many milliseconds that is more than before.
pub(super) fn add(spots: &mut Vec<BlindSpot>, mut spot: BlindSpot) -> (BlindSpot, u64) {
    loop {
        match spots.binary_search_by_key(&spot.start, |spot| spot.start) {
            Err(place) => {
                spots.insert(place, spot);
                return (spot, spot.end.ms_since(spot.start));
            }
            Ok(place) => match spots.get_mut(place) {
                Some(known) if known.cause == spot.cause => {
                    let grown_ms = spot.end.ms_since(known.end);
                    known.end = known.end.max(spot.end);
                    return (*known, grown_ms);
                }
                _ => spot.start = Steady::from_ms(spot.start.as_ms().saturating_sub(1)),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{BootId, Reading, Wall};

    fn at(ms: u64) -> Steady {
        Steady::from_ms(ms)
    }

    fn instant(ms: u64, asleep_ms: u64) -> Instant {
        Instant {
            steady: at(ms),
            reading: Reading {
                boot_ms: ms,
                boot_id: BootId([0; 16]),
                wall: Wall::from_ns(ms * 1_000_000),
            },
            asleep_ms,
        }
    }

    fn watch() -> Watch {
        Watch::new(instant(0, 0), 1_000)
    }

    fn seen(watch: &mut Watch) -> Vec<(u64, u64, &'static str)> {
        let spots = watch.take().into_iter();
        spots
            .map(|spot| (spot.start.as_ms(), spot.end.as_ms(), spot.cause.as_str()))
            .collect()
    }

    #[test]
    fn pulses_on_time_are_no_blind_spot() {
        let mut watch = watch();
        for ms in [100, 1_100, 1_200] {
            watch.run(at(ms));
            watch.pulse(instant(ms, 0));
        }
        assert_eq!(seen(&mut watch), []);
    }

    #[test]
    fn a_gap_is_named_after_what_did_not_run() {
        let mut frozen = watch();
        frozen.run(at(5_000));
        frozen.pulse(instant(5_000, 0));
        assert_eq!(seen(&mut frozen), [(0, 5_000, "frozen")]);

        let mut asleep = watch();
        asleep.run(at(5_000));
        asleep.pulse(instant(5_000, 4_800));
        assert_eq!(seen(&mut asleep), [(0, 5_000, "asleep")]);

        let mut starved = watch();
        for ms in (500..=5_000).step_by(500) {
            starved.run(at(ms));
        }
        starved.pulse(instant(5_000, 0));
        assert_eq!(seen(&mut starved), [(0, 5_000, "starved")]);
    }

    #[test]
    fn a_long_commit_is_a_slow_disk() {
        let mut watch = watch();
        watch.commit(at(100), at(1_100));
        assert_eq!(seen(&mut watch), []);
        watch.commit(at(100), at(1_101));
        assert_eq!(seen(&mut watch), [(100, 1_101, "slow-disk")]);
    }

    #[test]
    fn refusals_close_together_are_one_burst() {
        let mut watch = watch();
        watch.refused(at(100), at(200));
        watch.refused(at(900), at(1_500));
        watch.refused(at(2_600), at(2_600));
        assert_eq!(
            seen(&mut watch),
            [
                (100, 201, "overload"),
                (100, 1_501, "overload"),
                (2_600, 2_601, "overload"),
            ]
        );
    }

    #[test]
    fn spots_of_one_instant_are_both_kept_and_growing_ones_once() {
        let spot = |start, end, cause| BlindSpot {
            start: at(start),
            end: at(end),
            cause,
            length_known: true,
        };
        let mut spots = Vec::new();
        add(&mut spots, spot(10, 20, BlindCause::Frozen));
        let (placed, _) = add(&mut spots, spot(10, 30, BlindCause::SlowDisk));
        assert_eq!(placed.start, at(9));
        let (grown, grown_ms) = add(&mut spots, spot(10, 25, BlindCause::Frozen));
        assert_eq!((grown.end, grown_ms), (at(25), 5));
        let starts: Vec<_> = spots.iter().map(|spot| spot.start.as_ms()).collect();
        assert_eq!(starts, [9, 10]);
    }
}
