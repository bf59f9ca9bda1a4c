//! The rule by examples, and by play: applications whose true state is known live through blind
//! spots, and the rule must neither bury one alive nor wait longer for a dead one than it must.

use super::*;
use crate::domain::liveness::{Heartbeat, Liveness, ProducerState, ServiceState};
use crate::domain::policy::Policy;
use crate::domain::service::LivenessOffer;
use crate::domain::time::{LivenessInterval, Moment, RetryPromise, Wall};
use proptest::prelude::*;

const INTERVAL_MS: u64 = 10_000;
const GRACE_MS: u64 = 2_000;
const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;
/// A cap that nothing here reaches.
const FAR: u32 = 1_000_000;

fn any_cap() -> impl Strategy<Value = u32> {
    prop_oneof![Just(FAR), 0..4u32]
}

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

// --- examples ---

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
fn an_outage_of_unknown_length_is_credited_its_end() {
    let unknown = BlindSpot {
        length_known: false,
        ..spot(5_000, 5_000)
    };
    check(timer(0), &[unknown], 17_000);
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
    check(
        timer(0),
        &[spot(1_000, DAY_MS), spot(DAY_MS + 11_000, 3 * DAY_MS)],
        3 * DAY_MS + 12_000,
    );
}

#[test]
fn a_flood_cannot_keep_the_dead_alive() {
    let flood = BlindSpot {
        cause: BlindCause::Overload,
        ..spot(1_000, DAY_MS)
    };
    check(timer(0), &[flood], 11 * INTERVAL_MS + GRACE_MS);
    let burst = BlindSpot {
        cause: BlindCause::Overload,
        ..spot(1_000, 9_000)
    };
    check(timer(0), &[burst], 21_000);
}

#[test]
fn an_outage_is_credited_though_a_short_one_before_it_met_the_cap() {
    let timer = Timer {
        blind_cap: 0,
        ..timer(0)
    };
    // 7 s are watched before the last one, of 12 s that the cap grants.
    let spots = [spot(5_000, 6_000), spot(7_000, 8_000), spot(9_000, 100_000)];
    assert_lawful(
        &timer,
        &[
            5_999, 17_000, 28_000, 39_000, 50_000, 61_000, 72_000, 83_000, 94_000, 104_000,
        ],
        &spots,
    );
    check(timer, &spots, 105_000);
}

#[test]
fn a_stalled_disk_in_a_flood_does_not_hide_the_rest_of_the_flood() {
    let flood = BlindSpot {
        cause: BlindCause::Overload,
        ..spot(1_000, 200_000)
    };
    check(timer(0), &[flood, spot(20_000, 190_000)], 212_000);
}

#[test]
fn a_further_crash_at_the_cap_does_not_shorten() {
    let timer = Timer {
        blind_cap: 0,
        ..timer(0)
    };
    check(timer, &[spot(5_000, 6_000)], 13_000);
    check(timer, &[spot(1_000, 2_000), spot(5_000, 6_000)], 14_000);
}

#[test]
fn a_wall_clock_that_jumps_ahead_across_a_reboot_buries_nobody() {
    // Down for 10 s that the wall clock took for an hour: the next beat is due 10 min after the
    // last, and the application met no refusal that would make it keep its promise.
    let timer = Timer {
        interval_ms: 600_000,
        retry_ms: 1_000,
        ..timer(0)
    };
    let exaggerated = BlindSpot {
        length_known: false,
        ..spot(1_000, 1_000 + HOUR_MS)
    };
    check(timer, &[exaggerated], 600_000 + GRACE_MS + HOUR_MS);
}

/// Why the rule does not trust the phase of the last beat, though that would find the dead sooner.
#[test]
fn a_rule_that_trusts_the_phase_buries_a_living_application() {
    fn by_phase(timer: &Timer, spot: &BlindSpot) -> Steady {
        let elapsed_ms = spot.end.ms_since(timer.base);
        let beats = elapsed_ms.div_ceil(timer.interval_ms).max(1);
        timer
            .base
            .plus_ms(beats * timer.interval_ms + timer.grace_ms)
    }
    // Registered at 0 s, it begins to beat at 3 s, and from then on every 10 s.
    let timer = timer(0);
    let outage = spot(2_000, 4_000);
    let tries = [3_000, 13_000];
    assert_lawful(&timer, &tries, &[outage]);
    let heard = Steady::from_ms(tries[1]);
    assert!(by_phase(&timer, &outage) < heard);
    assert!(heard < deadline(&timer, &[outage]));
}

// --- the worst application ---

fn is_blind(spots: &[BlindSpot], at: u64) -> bool {
    spots
        .iter()
        .any(|spot| spot.start.as_ms() <= at && at < spot.end.as_ms())
}

/// Whether the requests of a living application may arrive at these instants: each is refused but
/// the last, and each wait exceeds interval or promise by less than the grace.
fn assert_lawful(timer: &Timer, arrivals: &[u64], spots: &[BlindSpot]) {
    let (mut last, mut wait_ms) = (timer.base.as_ms(), timer.interval_ms);
    for (number, &at) in arrivals.iter().enumerate() {
        let in_time = last < at && at < last + wait_ms + timer.grace_ms;
        assert!(in_time, "{arrivals:?}");
        let refused = number + 1 < arrivals.len();
        assert_eq!(is_blind(spots, at), refused, "{arrivals:?}");
        (last, wait_ms) = (at, timer.retry_ms);
    }
}

/// The arrivals of the living application that is heard as late as any can be: it is refused as
/// late as possible, again and again.
fn worst_arrivals(timer: &Timer, spots: &[BlindSpot]) -> Vec<u64> {
    let last_blind = |until: u64| {
        let met = spots.iter().filter(|spot| spot.start.as_ms() <= until);
        met.map(|spot| (spot.end.as_ms() - 1).min(until)).max()
    };
    let patient = timer.base.as_ms() + timer.interval_ms + timer.grace_ms - 1;
    let (mut refused, mut latest) = (vec![], patient);
    let mut last = timer.base.as_ms();
    while let Some(at) = last_blind(latest).filter(|at| *at > last) {
        refused.push(at);
        last = at;
        latest = at + timer.retry_ms + timer.grace_ms - 1;
    }
    // Being refused early and trying again soon may be less patient than just waiting.
    if latest < patient {
        return vec![patient];
    }
    refused.push(latest);
    refused
}

/// Spots on a grain of 100 ms, any cause, overlapping or not, sorted.
fn grained_spots(interval_ms: u64) -> impl Strategy<Value = Vec<BlindSpot>> {
    let grains = interval_ms / 100;
    let length = prop_oneof![1..=50u64, 1..=grains * 2, grains..=grains * 30];
    let one = (
        0..=grains * 2,
        length,
        prop::sample::select(&BlindCause::ALL[..]),
    );
    prop::collection::vec(one, 0..8).prop_map(move |drawn| {
        let mut start = 0;
        let spots = drawn.into_iter().map(|(ahead, length, cause)| {
            start += ahead;
            BlindSpot {
                cause,
                ..spot(start * 100, (start + length) * 100)
            }
        });
        spots.collect()
    })
}

/// A timer on a grain of 100 ms, and blind spots before, at and after its base.
fn grained() -> impl Strategy<Value = (Timer, Vec<BlindSpot>)> {
    let terms = (interval_s(), 1..=100u64, 0..=100u64, 0..=20u64);
    terms.prop_flat_map(|(interval_s, grace, base, retry)| {
        let interval_ms = interval_s * 1000;
        let timer = Timer {
            base: Steady::from_ms(interval_s * base / 5 * 100),
            interval_ms,
            grace_ms: grace * 100,
            retry_ms: (interval_s * retry / 20).max(1) * 1000,
            blind_cap: FAR,
        };
        (Just(timer), grained_spots(interval_ms))
    })
}

fn interval_s() -> impl Strategy<Value = u64> {
    prop_oneof![1..=10u64, 11..=600u64, 601..=3600u64]
}

// --- a play ---

/// A blind spot as recorded, and as it was.
#[derive(Debug, Clone)]
struct Blindness {
    recorded: BlindSpot,
    /// Beats were received until here: the last mark may be older than the crash.
    from: u64,
    /// So much time passed at `from` of which steady time knows nothing.
    unrecorded_ms: u64,
    /// So much of steady time at `from` never was: the wall clock exaggerated.
    invented_ms: u64,
}

impl Blindness {
    fn covers(&self, at: u64, refused: bool) -> bool {
        let counts = refused || self.recorded.cause != BlindCause::Overload;
        counts && self.from <= at && at < self.recorded.end.as_ms()
    }
}

/// Something that makes intervals change.
#[derive(Debug, Clone, Copy)]
enum Change {
    Put { interval_s: u32 },
    Bound { interval_s_max: u32 },
}

/// One try; of each limit the share taken, `u16::MAX` being all of it.
#[derive(Debug, Clone)]
struct Turn {
    wait: u16,
    under_way: u16,
    after_blindness: u16,
    /// While we are overloaded, some beats still get through.
    refused: bool,
    promise: Option<u16>,
    change: Option<(u16, Change)>,
}

#[derive(Debug, Clone)]
struct World {
    policy: Policy,
    stall_ms: u64,
    interval_s: u32,
    registered: u64,
    blindness: Vec<Blindness>,
    turns: Vec<Turn>,
}

fn part(share: u16, whole: u64) -> u64 {
    whole * u64::from(share) / u64::from(u16::MAX)
}

fn share() -> impl Strategy<Value = u16> {
    prop_oneof![any::<u16>(), Just(0), Just(u16::MAX)]
}

fn secs(secs: u64) -> u32 {
    u32::try_from(secs).unwrap()
}

fn turn() -> impl Strategy<Value = Turn> {
    let changed = prop_oneof![
        interval_s().prop_map(|s| Change::Put {
            interval_s: secs(s)
        }),
        interval_s().prop_map(|s| Change::Bound {
            interval_s_max: secs(s)
        }),
    ];
    let change = prop::option::weighted(0.1, (share(), changed));
    let promise = prop::option::of(share());
    (share(), share(), share(), any::<bool>(), promise, change).prop_map(
        |(wait, under_way, after_blindness, refused, promise, change)| Turn {
            wait,
            under_way,
            after_blindness,
            refused,
            promise,
            change,
        },
    )
}

/// What is known of a blind spot's length, and how the truth differs.
#[derive(Debug, Clone, Copy)]
enum Length {
    Exact,
    /// The mark is older than the crash.
    OldMark(u16),
    Unknown {
        true_ms: u64,
    },
    TooShort {
        by_ms: u64,
    },
    TooLong(u16),
}

fn blindness(interval_ms: u64) -> impl Strategy<Value = Vec<Blindness>> {
    let length = prop_oneof![
        100..=10_000u64,
        100..=3 * interval_ms.max(100),
        100..=3 * DAY_MS
    ];
    let truth = prop_oneof![
        6 => Just(Length::Exact),
        2 => share().prop_map(Length::OldMark),
        1 => (100..=2 * interval_ms).prop_map(|true_ms| Length::Unknown { true_ms }),
        1 => (0..=3 * DAY_MS).prop_map(|true_ms| Length::Unknown { true_ms }),
        1 => (0..=2 * interval_ms).prop_map(|by_ms| Length::TooShort { by_ms }),
        1 => share().prop_map(Length::TooLong),
    ];
    let cause = prop::sample::select(&BlindCause::ALL[..]);
    let one = (0..=2 * interval_ms, length, cause, truth);
    prop::collection::vec(one, 0..8).prop_map(move |drawn| {
        let mut start = 0;
        let all = drawn.into_iter().map(|(ahead, length_ms, cause, truth)| {
            start += ahead;
            let exact = Blindness {
                recorded: BlindSpot {
                    cause,
                    ..spot(start, start + length_ms)
                },
                from: start,
                unrecorded_ms: 0,
                invented_ms: 0,
            };
            // Only what ends with a start of the process can be measured badly.
            let down = BlindSpot {
                cause: BlindCause::Down,
                ..exact.recorded
            };
            match truth {
                Length::OldMark(late) => Blindness {
                    recorded: down,
                    from: start + part(late, length_ms),
                    ..exact
                },
                Length::Unknown { true_ms } => Blindness {
                    recorded: BlindSpot {
                        end: down.start,
                        length_known: false,
                        ..down
                    },
                    unrecorded_ms: true_ms,
                    ..exact
                },
                Length::TooShort { by_ms } => Blindness {
                    recorded: down,
                    unrecorded_ms: by_ms,
                    ..exact
                },
                Length::TooLong(by) => Blindness {
                    recorded: BlindSpot {
                        length_known: false,
                        ..down
                    },
                    invented_ms: part(by, length_ms),
                    ..exact
                },
                Length::Exact => exact,
            }
        });
        all.collect()
    })
}

fn world() -> impl Strategy<Value = World> {
    let terms = (interval_s(), 1..=2_000u64, 1..=3_000u64, 0..=50u32, share());
    terms.prop_flat_map(
        |(interval_s, stall_ms, spare_ms, grace_percent, registered)| {
            let interval_ms = interval_s * 1000;
            let policy = Policy {
                default_interval: LivenessInterval::from_secs(30).unwrap(),
                min_interval: LivenessInterval::from_secs(1).unwrap(),
                max_interval: LivenessInterval::from_secs(3600).unwrap(),
                grace_percent,
                grace_min_ms: stall_ms + spare_ms,
                blind_cap: FAR,
                remove_after_ms: None,
            };
            let blindness = blindness(interval_ms);
            let turns = prop::collection::vec(turn(), 1..40);
            (blindness, turns).prop_map(move |(blindness, turns)| World {
                policy,
                stall_ms,
                interval_s: secs(interval_s),
                registered: part(registered, 4 * interval_ms),
                blindness,
                turns,
            })
        },
    )
}

fn moment(at: u64) -> Moment {
    Moment {
        steady: Steady::from_ms(at),
        wall: Wall::from_ns(0),
    }
}

impl World {
    /// The end of the last blindness that a request at `at` meets.
    fn blind_until(&self, at: u64, refused: bool) -> Option<u64> {
        let met = self.blindness.iter().filter(|b| b.covers(at, refused));
        met.map(|b| b.recorded.end.as_ms()).max()
    }

    /// What the registry can know at `at`.
    fn known_spots(&self, at: u64) -> Vec<BlindSpot> {
        let at = Steady::from_ms(at);
        let recorded = self.blindness.iter().map(|b| b.recorded);
        let known = recorded.filter_map(|spot| match spot.cause {
            // Its own refusals it knows at once.
            BlindCause::Overload if spot.start < at => Some(BlindSpot {
                end: spot.end.min(at),
                ..spot
            }),
            _ => (spot.end <= at).then_some(spot),
        });
        known.collect()
    }

    /// Plays the application: whenever it is heard, its deadline must lie ahead.
    fn play(&self) -> Result<(), TestCaseError> {
        let mut registered = self.registered;
        while let Some(end) = self.blind_until(registered, true) {
            registered = end;
        }
        let mut registry = Registry::new(self.policy, self.interval_s, registered);
        let mut app = App::new(self, registered);
        for turn in &self.turns {
            let jitter_ms = registry.policy.grace_ms(app.interval) - self.stall_ms - 1;
            let (last, restarts) = (app.now, app.to_come.len());
            app.wait(turn, jitter_ms);
            let sent = app.now;
            let base = registry.timer().base.as_ms();
            let arrival = base.max(sent + part(turn.under_way, self.stall_ms));
            if let Some((share, change)) = turn.change {
                let at = last + part(share, sent.saturating_sub(last));
                let heard = restarts == app.to_come.len() && self.blind_until(at, true).is_none();
                if heard && at >= base {
                    registry.change(change, at);
                }
            }
            app.refused = true;
            if let Some(end) = self.blind_until(sent, turn.refused) {
                app.keep_trying_until(end, turn, jitter_ms);
                continue;
            }
            // Its wait begins when the try ends: cut off, refused or answered.
            if let Some(crash) = app.to_come.first().filter(|b| b.from < arrival) {
                app.now = crash.from;
                continue;
            }
            app.now = arrival;
            if self.blind_until(arrival, turn.refused).is_some() {
                continue;
            }
            app.refused = false;
            let timer = registry.timer();
            let due = deadline(&timer, &self.known_spots(arrival));
            prop_assert!(
                Steady::from_ms(arrival) < due,
                "alive at {arrival}, but declared silent at {due:?}; {timer:?}"
            );
            let promise = turn.promise.map(|share| {
                let most = u64::from(app.interval.as_secs());
                RetryPromise::from_secs(secs(1 + part(share, most - 1))).unwrap()
            });
            if let Some(interval) = registry.beat(promise, arrival) {
                app.interval = interval;
            }
            app.retry_ms = promise.map_or(app.interval.as_ms(), |promise| promise.as_ms());
        }
        Ok(())
    }
}

/// What the registry keeps of the application.
struct Registry {
    policy: Policy,
    offer: LivenessOffer,
    liveness: Liveness,
}

impl Registry {
    fn new(policy: Policy, interval_s: u32, at: u64) -> Self {
        let offer = LivenessOffer::Seconds(interval_s);
        let liveness =
            Liveness::registered(ProducerState::Active, Some(offer), &policy, moment(at));
        Self {
            policy,
            offer,
            liveness,
        }
    }

    fn timer(&self) -> Timer {
        self.policy.timer_of(&self.liveness).unwrap()
    }

    /// Somebody other than the application changes what is agreed on.
    fn change(&mut self, change: Change, at: u64) {
        match change {
            Change::Bound { interval_s_max } => {
                self.policy.max_interval = LivenessInterval::from_secs(interval_s_max).unwrap();
            }
            Change::Put { interval_s } => {
                self.offer = LivenessOffer::Seconds(interval_s);
                self.liveness = self
                    .liveness
                    .replaced(
                        ServiceState::Active,
                        Some(self.offer),
                        &self.policy,
                        moment(at),
                    )
                    .unwrap();
            }
        }
    }

    /// Takes a beat; the answer may tell a new interval.
    fn beat(&mut self, promise: Option<RetryPromise>, at: u64) -> Option<LivenessInterval> {
        let beaten = self
            .liveness
            .beat(
                Heartbeat { promise },
                Some(self.offer),
                &self.policy,
                moment(at),
                true,
            )
            .unwrap();
        self.liveness = Liveness::Monitored(beaten.liveness);
        beaten
            .new_interval
            .then(|| beaten.liveness.agreement.shown())
    }
}

/// A living application.
struct App<'a> {
    /// When its last try ended.
    now: u64,
    /// The interval it knows.
    interval: LivenessInterval,
    retry_ms: u64,
    /// Whether the last try was in vain.
    refused: bool,
    /// The blindness still to come, to pass the time that steady time does not tell.
    to_come: Vec<&'a Blindness>,
}

impl<'a> App<'a> {
    fn new(world: &'a World, registered: u64) -> Self {
        let to_come = world.blindness.iter().filter(|b| b.from >= registered);
        let mut to_come: Vec<_> = to_come.collect();
        to_come.sort_by_key(|b| b.from);
        let interval = LivenessInterval::from_secs(world.interval_s).unwrap();
        Self {
            now: registered,
            interval,
            retry_ms: interval.as_ms(),
            refused: false,
            to_come,
        }
    }

    fn retry_limit_ms(&self, jitter_ms: u64) -> u64 {
        self.retry_ms.min(self.interval.as_ms()) + jitter_ms
    }

    /// Waits for its next try, as long as it may.
    fn wait(&mut self, turn: &Turn, jitter_ms: u64) {
        let limit_ms = if self.refused {
            self.retry_limit_ms(jitter_ms)
        } else {
            self.interval.as_ms() + jitter_ms
        };
        let mut wait_ms = part(turn.wait, limit_ms).max(1);
        while let Some(next) = self.to_come.first().copied() {
            if next.from >= self.now + wait_ms {
                break;
            }
            self.to_come.remove(0);
            wait_ms -= next.from.saturating_sub(self.now);
            self.now = self.now.max(next.from + next.invented_ms);
            wait_ms = match wait_ms.checked_sub(next.unrecorded_ms) {
                Some(rest_ms) => rest_ms,
                // It tried in vain in the meantime.
                None => part(turn.after_blindness, self.retry_limit_ms(jitter_ms)),
            };
        }
        self.now += wait_ms;
    }

    /// Tries in vain up to shortly before the end of a blind spot.
    fn keep_trying_until(&mut self, end: u64, turn: &Turn, jitter_ms: u64) {
        let before_end_ms = part(turn.after_blindness, self.retry_limit_ms(jitter_ms)).max(1);
        self.now = self.now.max(end - before_end_ms.min(end));
        let now = self.now;
        self.to_come.retain(|b| b.from >= now);
    }
}

// --- watched time ---

/// How much of the time from base to `to` counts for the cap, one stretch after the other.
fn watched_ms(timer: &Timer, to: Steady, spots: &[BlindSpot]) -> u64 {
    let (mut at, mut watched_ms) = (timer.base, 0);
    for spot in spots.iter().filter(|s| s.cause != BlindCause::Overload) {
        watched_ms += spot.start.min(to).ms_since(at);
        at = at.max(spot.end);
    }
    watched_ms + to.ms_since(at)
}

fn cap_ms(timer: &Timer) -> u64 {
    timer.interval_ms * (1 + u64::from(timer.blind_cap)) + timer.grace_ms
}

proptest! {
    // Enough to meet each edge now and then; `PROPTEST_CASES` overrides it.
    #![proptest_config(ProptestConfig::with_cases(5_000))]

    /// Safety, over changing intervals and promises, unrecorded stalls and mistaken lengths.
    #[test]
    fn a_living_application_is_never_declared_silent(world in world()) {
        world.play()?;
    }

    /// Safety once more, and the least that is provable: the worst living application is heard
    /// just before the deadline, so any earlier verdict can be wrong.
    #[test]
    fn the_deadline_is_the_earliest_that_cannot_be_wrong((timer, spots) in grained()) {
        let arrivals = worst_arrivals(&timer, &spots);
        assert_lawful(&timer, &arrivals, &spots);
        let heard = Steady::from_ms(*arrivals.last().unwrap());
        let due = deadline(&timer, &spots);
        prop_assert!(heard < due, "{arrivals:?} {due:?}");
        // One millisecond for "just before the end of the spot", one for "less than the grace".
        prop_assert!(due.ms_since(heard) <= 2, "{arrivals:?} {due:?}");
    }

    /// What neither reaches back behind the base nor begins before the deadline changes nothing.
    #[test]
    fn without_a_spot_in_the_window_it_is_exactly_interval_plus_grace(
        (timer, spots) in grained(),
    ) {
        let earliest = timer.earliest();
        let outside = |s: &&BlindSpot| s.end <= timer.base || s.start >= earliest;
        let spots: Vec<_> = spots.iter().filter(outside).copied().collect();
        prop_assert_eq!(deadline(&timer, &spots), earliest);
    }

    /// However often we crash and however long we are flooded: a verdict comes, because the
    /// watched time is bounded. Overlapping spots count once.
    #[test]
    fn the_cap_bounds_the_watched_time_and_nothing_else(
        (timer, spots) in grained(),
        blind_cap in 0..4u32,
    ) {
        let timer = Timer { blind_cap, ..timer };
        let due = deadline(&timer, &spots);
        let watched_ms = watched_ms(&timer, due, &spots);
        prop_assert!(due >= timer.earliest());
        prop_assert!(watched_ms <= cap_ms(&timer), "{due:?}");
        if watched_ms < cap_ms(&timer) {
            let uncapped = Timer { blind_cap: FAR, ..timer };
            prop_assert_eq!(due, deadline(&uncapped, &spots));
        }
    }

    /// In an endless crash loop only the watched time counts, however long we are down.
    #[test]
    fn a_crash_loop_is_judged_by_the_watched_time_alone(
        interval_s in interval_s(),
        up in 1..1000u64,
        down_ms in prop_oneof![100..=10_000u64, 10_000..=3 * DAY_MS],
        blind_cap in 0..20u32,
        nested in any::<bool>(),
    ) {
        let timer = Timer { interval_ms: interval_s * 1000, retry_ms: interval_s * 1000, blind_cap, ..timer(0) };
        let slack_ms = timer.retry_ms + timer.grace_ms;
        let (up_ms, mut at) = ((slack_ms * up / 1000).max(1), 0);
        let mut spots = Vec::new();
        for _ in 0..(cap_ms(&timer) + slack_ms) / up_ms + 2 {
            at += up_ms;
            spots.push(spot(at, at + down_ms));
            if nested {
                spots.push(spot(at + down_ms / 3, at + down_ms / 2));
            }
            at += down_ms;
        }
        let watched_ms = watched_ms(&timer, deadline(&timer, &spots), &spots);
        prop_assert_eq!(watched_ms, cap_ms(&timer));
    }

    /// A flood, however long, buys the dead at most the cap.
    #[test]
    fn a_flood_is_bounded_by_the_cap((timer, _) in grained(), blind_cap in 0..20u32, length_ms in 100..=30 * DAY_MS) {
        let timer = Timer { blind_cap, ..timer };
        let flood = BlindSpot { cause: BlindCause::Overload, ..spot(timer.base.as_ms(), timer.base.as_ms() + length_ms) };
        prop_assert!(deadline(&timer, &[flood]) <= timer.base.plus_ms(cap_ms(&timer)));
    }

    /// More blindness never brings a verdict forward.
    #[test]
    fn more_blindness_never_shortens(
        (timer, spots) in grained(),
        more in grained_spots(600_000),
        longer in prop::collection::vec(0..=100_000u64, 8),
        blind_cap in any_cap(),
    ) {
        let timer = Timer { blind_cap, ..timer };
        let before = deadline(&timer, &spots);
        let stretched: Vec<_> = spots
            .iter()
            .zip(longer)
            .map(|(s, by)| BlindSpot { end: s.end.plus_ms(by), ..*s })
            .collect();
        let after = deadline(&timer, &stretched);
        prop_assert!(before <= after, "{after:?} < {before:?}");
        let mut all = [spots, more].concat();
        all.sort_by_key(|s| s.start);
        let after = deadline(&timer, &all);
        prop_assert!(before <= after, "{after:?} < {before:?}");
    }

    /// A shorter promise never postpones a verdict.
    #[test]
    fn a_shorter_promise_never_postpones((timer, spots) in grained(), retry in 0..=100u64, blind_cap in any_cap()) {
        let timer = Timer { blind_cap, ..timer };
        let shorter = Timer { retry_ms: timer.retry_ms * retry / 100, ..timer };
        prop_assert!(deadline(&shorter, &spots) <= deadline(&timer, &spots));
    }
}
