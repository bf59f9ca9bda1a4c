//! The truth: when nobody could be heard, and what became of every service. Nothing here knows the
//! product's rule.

use mepulse::domain::{Policy, ServiceKey, Steady};

/// A stretch `[start, end)` of true time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stretch {
    pub(super) start_ms: u64,
    pub(super) end_ms: u64,
    /// Whether the registry's clock came through it without losing or gaining time.
    pub(super) is_measured: bool,
    /// Whether some beats got through: only an overload turned others away.
    pub(super) is_overload: bool,
}

/// An end that is not known yet.
const OPEN: u64 = u64::MAX;

/// When beats could not get through.
#[derive(Debug, Default)]
pub(super) struct Blindness {
    /// When it was truly so: what a verdict must allow for.
    pub(super) dark: Vec<Stretch>,
    /// From the last judgement before to the first one after: what a verdict may allow for.
    pub(super) excused: Vec<Stretch>,
}

impl Blindness {
    /// From now on nobody is heard.
    pub(super) fn begins(&mut self, start_ms: u64) {
        if !self.is_open() {
            self.dark.push(Stretch {
                start_ms,
                end_ms: OPEN,
                is_measured: true,
                is_overload: false,
            });
        }
    }

    /// From now on everybody is heard again.
    pub(super) fn ends(&mut self, end_ms: u64) {
        if let Some(open) = self.dark.iter_mut().find(|dark| dark.end_ms == OPEN) {
            open.end_ms = end_ms;
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.dark.iter().any(|dark| dark.end_ms == OPEN)
    }

    pub(super) fn excuse(&mut self, start_ms: u64, end_ms: u64, is_measured: bool) {
        self.excused.push(Stretch {
            start_ms,
            end_ms,
            is_measured,
            is_overload: false,
        });
    }

    /// A beat was refused, because too many came; refusals within `stall_ms` are one burst.
    pub(super) fn refused(&mut self, at_ms: u64, stall_ms: u64) {
        for stretches in [&mut self.dark, &mut self.excused] {
            let burst = stretches.iter_mut().rfind(|stretch| stretch.is_overload);
            match burst {
                Some(burst) if at_ms + 1 - burst.end_ms <= stall_ms => burst.end_ms = at_ms + 1,
                _ => stretches.push(Stretch {
                    start_ms: at_ms,
                    end_ms: at_ms + 1,
                    is_measured: true,
                    is_overload: true,
                }),
            }
        }
    }

    /// Forgets what ended before the oldest timer began.
    pub(super) fn forget_before(&mut self, oldest_ms: u64) {
        for stretches in [&mut self.dark, &mut self.excused] {
            stretches.retain(|stretch| stretch.end_ms > oldest_ms);
        }
    }

    /// For how long somebody watched in `[start, end)`.
    pub(super) fn watched_ms(&self, start_ms: u64, end_ms: u64) -> u64 {
        let dark = self.dark.iter().filter(|dark| !dark.is_overload);
        let blind_ms: u64 = dark
            .map(|dark| (dark.end_ms.min(end_ms)).saturating_sub(dark.start_ms.max(start_ms)))
            .sum();
        (end_ms - start_ms).saturating_sub(blind_ms)
    }
}

/// What a producer owes: a try within the interval, and another one within `retry_ms` of a try that
/// was not heard; `grace_ms` late at the most.
#[derive(Debug, Clone, Copy)]
pub(super) struct Duty {
    pub(super) base_ms: u64,
    pub(super) interval_ms: u64,
    pub(super) retry_ms: u64,
    pub(super) grace_ms: u64,
}

/// By then whoever does its duty has been heard, however the blind stretches and its tries fell.
/// [`the_reference_is_what_some_lawful_producer_needs`] derives the same from all possible tries.
pub(super) fn heard_by(duty: &Duty, blind: &[Stretch]) -> u64 {
    let mut by_ms = duty.base_ms + duty.interval_ms + duty.grace_ms;
    loop {
        let could_hide_a_try =
            |blind: &&Stretch| blind.end_ms > duty.base_ms && blind.start_ms < by_ms;
        let later = blind.iter().filter(could_hide_a_try).map(|blind| {
            // Whose clock lost time cannot tell how much of the interval is over.
            let retry_ms = if blind.is_measured {
                duty.retry_ms
            } else {
                duty.interval_ms
            };
            blind.end_ms.saturating_add(retry_ms + duty.grace_ms)
        });
        match later.max() {
            Some(later_ms) if later_ms > by_ms => by_ms = later_ms,
            _ => return by_ms,
        }
    }
}

/// The timer of a service that is ACTIVE.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timer {
    /// When its producer was heard last, or changed the interval.
    pub(super) base_ms: u64,
    /// The same instant on the registry's clock.
    pub(super) base: Steady,
    /// What the last beat promised.
    pub(super) promise_ms: Option<u64>,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Phase {
    Active(Timer),
    Inactive,
    Suspended,
}

/// One service as it truly is.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) key: ServiceKey,
    pub(super) phase: Phase,
    /// Whether its producer has kept its promises since the timer started.
    pub(super) is_faithful: bool,
    pub(super) beats: u64,
    pub(super) offer_s: u32,
    /// The interval that its producer was told last, and goes by.
    pub(super) pace_ms: u64,
    /// The newest interval.
    pub(super) newest_ms: u64,
    /// The longest interval that may still be gone by.
    pub(super) longest_ms: u64,
    /// Whether a beat was answered since without a new interval.
    pub(super) follows: bool,
}

impl Member {
    pub(super) fn timer(&self) -> Option<Timer> {
        match self.phase {
            Phase::Active(timer) => Some(timer),
            Phase::Inactive | Phase::Suspended => None,
        }
    }

    /// No verdict may come before: a producer that goes by what it was told might be alive.
    pub(super) fn fair_ms(&self, timer: &Timer, policy: &Policy, blind: &Blindness) -> u64 {
        heard_by(&duty(timer, self.pace_ms, policy), &blind.dark)
    }

    /// The verdict on the silent must have come by then.
    pub(super) fn late_ms(&self, timer: &Timer, policy: &Policy, blind: &Blindness) -> u64 {
        heard_by(&duty(timer, self.longest_ms, policy), &blind.excused)
    }
}

fn duty(timer: &Timer, interval_ms: u64, policy: &Policy) -> Duty {
    let share_ms = interval_ms * u64::from(policy.grace_percent) / 100;
    Duty {
        base_ms: timer.base_ms,
        interval_ms,
        retry_ms: timer.promise_ms.unwrap_or(interval_ms),
        grace_ms: share_ms.max(policy.grace_min_ms),
    }
}

/// Every try that a lawful producer can make, millisecond by millisecond.
#[test]
fn the_reference_is_what_some_lawful_producer_needs() {
    let mut random = crate::support::random::Random::from_env("reference");
    for _ in 0..2_000 {
        let below = |random: &mut crate::support::random::Random, end| random.below(end) as u64;
        let duty = Duty {
            base_ms: 5,
            interval_ms: 2 + below(&mut random, 9),
            retry_ms: 1 + below(&mut random, 9),
            grace_ms: 1 + below(&mut random, 4),
        };
        let blind: Vec<_> = (0..random.below(5))
            .map(|_| {
                let start_ms = below(&mut random, 60);
                Stretch {
                    start_ms,
                    end_ms: start_ms + 1 + below(&mut random, 20),
                    is_measured: true,
                    is_overload: false,
                }
            })
            .collect();
        let first = duty.base_ms..duty.base_ms + duty.interval_ms + duty.grace_ms;
        let mut may_try = [false; 300];
        first.for_each(|at| may_try[usize::try_from(at).unwrap()] = true);
        let mut heard_last = 0;
        for at in 0..200_u64 {
            if !may_try[usize::try_from(at).unwrap()] {
                continue;
            }
            if blind.iter().any(|b| b.start_ms <= at && at < b.end_ms) {
                // It may have been made as late as this millisecond's end.
                let again = at + 1..=at + duty.retry_ms + duty.grace_ms;
                again.for_each(|at| may_try[usize::try_from(at).unwrap()] = true);
            } else {
                heard_last = at;
            }
        }
        let by = heard_by(&duty, &blind);
        assert_eq!(by, heard_last + 1, "{duty:?} {blind:?}");
    }
}
