//! In good time, and never in a storm.

use proptest::prelude::*;

use super::*;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[test]
fn a_token_is_renewed_at_two_thirds_of_its_life_or_a_little_earlier() {
    let now = Instant::now();
    for (jitter, due_ms) in [(0, 200_000), (30_000, 170_000), (30_001, 200_000)] {
        let mut schedule = Schedule::default();
        schedule.fetched(now, ms(300_000), now, jitter);
        assert_eq!(schedule.due(), Some(now + ms(due_ms)));
    }
    // One that hardly lives.
    let mut schedule = Schedule::default();
    schedule.fetched(now, ms(1), now, 0);
    assert_eq!(schedule.due(), Some(now + RENEWAL_MIN));
}

#[test]
fn whoever_needs_a_token_gets_a_try_at_once_and_then_at_its_own_pace() {
    let mut now = Instant::now();
    let mut schedule = Schedule::default();
    assert_eq!(schedule.due(), None);
    for _ in 0..50 {
        assert!(schedule.wanted(now));
        assert_eq!(schedule.due(), Some(now));
        schedule.failed(FailureKind::Away, None, now, u64::MAX);
        assert!(!schedule.wanted(now + ms(100)));
        now += SPACING;
    }
}

#[test]
fn a_server_that_refuses_or_is_busy_is_left_alone() {
    let now = Instant::now();
    let mut schedule = Schedule::default();
    schedule.failed(FailureKind::Busy(ms(7_000)), None, now, 0);
    assert!(!schedule.wanted(now + ms(6_999)));
    assert_eq!(schedule.due(), Some(now + ms(7_000)));
    schedule.failed(FailureKind::Busy(ms(10_000_000)), None, now, 0);
    assert!(schedule.wanted(now + BUSY_MAX));
    let mut schedule = Schedule::default();
    let mut at = now;
    for (failures, pause_ms) in [(1, 1_000), (2, 2_000), (3, 4_000)] {
        schedule.failed(FailureKind::Refused, None, at, 0);
        assert!(!schedule.wanted(at + ms(pause_ms - 1)), "{failures}");
        at += ms(pause_ms);
        assert!(schedule.wanted(at));
    }
}

#[test]
fn tokens_that_are_not_taken_are_replaced_at_once_and_then_more_and_more_slowly() {
    let start = Instant::now();
    let mut schedule = Schedule::default();
    let mut tries = Vec::new();
    // Ten times a second somebody is answered 401.
    for tenth in 0..600 {
        let now = start + ms(100 * tenth);
        if schedule.unwelcome(now, 0) {
            tries.push(tenth);
            schedule.fetched(now, ms(3_600_000), now, 0);
        }
    }
    assert_eq!(tries[0], 0);
    assert!(tries.len() <= 15, "{tries:?}");
    assert!(
        tries.windows(2).all(|pair| pair[1] - pair[0] >= 5),
        "{tries:?}"
    );
    // Much later it is forgotten.
    assert!(schedule.unwelcome(start + ms(200_000), 0));
    assert!(schedule.unwelcome(start + ms(200_600), 0));
}

proptest! {
    #[test]
    fn while_a_token_holds_the_next_try_is_before_its_end(
        life_ms in 5_000..86_400_000_u64,
        kinds in prop::collection::vec(0..3_u8, 0..40),
        is_signed: bool,
        jitter: u64,
    ) {
        let began = Instant::now();
        let ends = began + ms(life_ms);
        let mut schedule = Schedule::new(is_signed);
        schedule.fetched(began, ms(life_ms), began, jitter);
        let spacing = schedule.spacing();
        let margin = MARGIN.min(ms(life_ms) / 6);
        for kind in kinds {
            let now = schedule.due().unwrap();
            if now + spacing * 2 >= ends - margin {
                break;
            }
            let kind = match kind {
                0 => FailureKind::Away,
                1 => FailureKind::Busy(BUSY_MAX),
                _ => FailureKind::Refused,
            };
            schedule.failed(kind, Some(ends), now, jitter);
            let next = schedule.due().unwrap();
            prop_assert!(next <= ends - margin && next >= now + spacing, "{next:?} {ends:?}");
        }
    }
}

#[test]
fn outages_do_not_make_a_refusal_longer_and_what_changes_ends_it() {
    let now = Instant::now();
    let mut schedule = Schedule::default();
    for _ in 0..20 {
        schedule.failed(FailureKind::Away, None, now, 0);
    }
    schedule.failed(FailureKind::Refused, None, now, 0);
    assert!(schedule.is_refused() && schedule.wanted(now + ms(1_000)));
    for _ in 0..20 {
        schedule.failed(FailureKind::Refused, None, now, 0);
    }
    assert!(!schedule.wanted(now + ms(29_000)));
    schedule.relent(now);
    assert!(!schedule.is_refused() && schedule.wanted(now + SPACING));
}

#[test]
fn two_requests_are_never_signed_in_one_second() {
    let now = Instant::now();
    let mut schedule = Schedule::new(true);
    schedule.fetched(now, ms(300_000), now, 0);
    assert!(!schedule.wanted(now + ms(999)));
    schedule.failed(FailureKind::Away, None, now, 0);
    assert!(!schedule.wanted(now + ms(999)));
    assert!(schedule.wanted(now + ms(1_000)));
}
