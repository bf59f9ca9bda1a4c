//! The promise is kept, whatever becomes of the tries.

use proptest::prelude::*;

use super::*;

fn terms(interval_s: u32, promises: bool) -> Terms {
    Terms {
        interval_ms: u64::from(interval_s) * 1000,
        promise_s: promises.then(|| promise_s(interval_s)),
        retry_max_ms: 30_000,
    }
}

#[test]
fn promises_are_a_fifth_within_bounds() {
    for (interval_s, expected) in [(1, 1), (5, 1), (9, 1), (10, 2), (25, 5), (3600, 5)] {
        assert_eq!(promise_s(interval_s), expected, "{interval_s}");
    }
}

#[test]
fn retries_double_up_to_the_cap() {
    let fixed = |failures| retry_ms(failures, 4_000, 0) * 2;
    assert_eq!(
        [0, 1, 2, 3, 5, 6].map(fixed),
        [250, 250, 500, 1000, 4000, 4000]
    );
    assert_eq!(fixed(u32::MAX), 4_000);
    assert_eq!(retry_ms(1, 250, 125), 250);
}

#[test]
fn a_server_that_asks_for_more_than_the_promise_is_left_alone() {
    let terms = terms(10, true);
    let mut pace = Pace::default();
    pace.hurry(Steady::from_ms(0));
    pace.begin(&terms, Steady::from_ms(0));
    pace.missed(
        &terms,
        Steady::from_ms(0),
        Steady::from_ms(10),
        Some(60_000),
        7,
    );
    assert_eq!(pace.left_alone_until(), Some(Steady::from_ms(60_017)));
    pace.hurry(Steady::from_ms(20));
    assert_eq!(pace.next(), Some(Steady::from_ms(60_017)));
}

#[test]
fn a_server_that_asks_for_less_is_respected_within_the_promise() {
    let terms = terms(10, true);
    let mut pace = Pace::default();
    pace.begin(&terms, Steady::from_ms(0));
    pace.missed(
        &terms,
        Steady::from_ms(0),
        Steady::from_ms(10),
        Some(1000),
        0,
    );
    assert_eq!(pace.next(), Some(Steady::from_ms(1010)));
    assert_eq!(pace.left_alone_until(), None);
}

/// What becomes of a try: heard or not, after so many milliseconds.
type Fate = (bool, u64);

/// Plays fates until they are used up: when each try began, and whether the server was known to be
/// reached by then.
fn play(terms: &Terms, fates: &[Fate], jitters: &[u64]) -> Vec<(u64, bool)> {
    let mut pace = Pace::default();
    pace.hurry(Steady::from_ms(0));
    let mut pending: Vec<(u64, u64, bool)> = Vec::new();
    let mut starts: Vec<(u64, bool)> = Vec::new();
    let (mut fate, mut jitter) = (fates.iter(), jitters.iter().cycle());
    let (mut good, mut given_up) = (true, false);
    let mut draw = || *jitter.next().unwrap();
    let mut now = 0;
    loop {
        // What is due already is due now.
        let next = pace.next().unwrap().as_ms().max(now);
        pending.sort_unstable();
        if let Some(&(at, began, heard)) = pending.first()
            && at <= next
        {
            pending.remove(0);
            now = now.max(at);
            let newest = starts.last().is_some_and(|(newest, _)| *newest == began);
            given_up |= newest && !heard;
            good |= heard && (newest || given_up);
            let (began, at) = (Steady::from_ms(began), Steady::from_ms(at));
            match heard {
                true => pace.heard(terms, began, draw()),
                false => pace.missed(terms, began, at, None, draw()),
            }
            continue;
        }
        let Some((heard, after)) = fate.next() else {
            return starts;
        };
        now = next;
        starts.push((next, good));
        (good, given_up) = (false, false);
        pace.begin(terms, Steady::from_ms(next));
        pending.push((next + after, next, *heard));
    }
}

proptest! {
    #[test]
    fn the_promise_is_kept_while_the_server_is_not_reached(
        interval_s in 1..3600_u32,
        fates in prop::collection::vec((any::<bool>(), 0..20_000_u64), 1..60),
        jitters in prop::collection::vec(any::<u64>(), 1..20),
    ) {
        let terms = terms(interval_s, true);
        let promise_ms = u64::from(promise_s(interval_s)) * 1000;
        for pair in play(&terms, &fates, &jitters).windows(2) {
            prop_assert!(pair[1].1 || pair[1].0 - pair[0].0 <= promise_ms, "{pair:?}");
        }
    }

    #[test]
    fn beats_are_never_further_apart_than_a_third_and_a_tenth(
        interval_s in 1..3600_u32,
        promises: bool,
        fates in prop::collection::vec((any::<bool>(), 0..8_000_u64), 1..60),
        jitters in prop::collection::vec(any::<u64>(), 1..20),
    ) {
        let terms = terms(interval_s, promises);
        let most_ms = terms.interval_ms * 11 / 30;
        let starts = play(&terms, &fates, &jitters);
        for pair in starts.windows(2) {
            prop_assert!(pair[1].0 - pair[0].0 <= most_ms, "{pair:?}");
        }
    }

    #[test]
    fn a_server_that_answers_is_not_asked_more_often_than_it_should(
        interval_s in 1..3600_u32,
        fates in prop::collection::vec((Just(true), 0..100_u64), 2..40),
        jitters in prop::collection::vec(any::<u64>(), 1..20),
    ) {
        let terms = terms(interval_s, true);
        for pair in play(&terms, &fates, &jitters).windows(2) {
            let least_ms = terms.interval_ms / 3 * 9 / 10;
            prop_assert!(pair[1].0 - pair[0].0 >= least_ms, "{pair:?}");
        }
    }

    #[test]
    fn half_of_a_retry_is_fixed(failures: u32, cap_ms in 1..100_000_u64, jitter: u64) {
        let delay_ms = retry_ms(failures, cap_ms, jitter);
        let full_ms = (250_u64 << failures.saturating_sub(1).min(14)).min(cap_ms);
        prop_assert!((full_ms / 2..=full_ms).contains(&delay_ms) || delay_ms == 1);
    }
}
