//! The transitions of the contract's table, one by one.

use super::*;

fn secs(s: u32) -> LivenessInterval {
    LivenessInterval::from_secs(s).unwrap()
}

fn policy() -> Policy {
    Policy {
        default_interval: secs(30),
        min_interval: secs(5),
        max_interval: secs(3600),
        grace_percent: 20,
        grace_min_ms: 2000,
        blind_cap: 10,
        remove_after_ms: None,
    }
}

fn at(ms: u64) -> Moment {
    Moment {
        steady: Steady::from_ms(ms),
        wall: Wall::from_ns(ms * 1_000_000),
    }
}

const TEN: Option<LivenessOffer> = Some(LivenessOffer::Seconds(10));

fn registered(state: ProducerState) -> Liveness {
    Liveness::registered(state, TEN, &policy(), at(1000))
}

fn suspended() -> Liveness {
    registered(ProducerState::Active)
        .expired(Steady::from_ms(13_000))
        .unwrap()
}

fn beat(liveness: &Liveness, ms: u64) -> Result<Beaten, BeatRefusal> {
    liveness.beat(Heartbeat::default(), TEN, &policy(), at(ms), true)
}

fn put(liveness: &Liveness, state: ServiceState, ms: u64) -> Liveness {
    liveness.replaced(state, None, &policy(), at(ms)).unwrap()
}

fn base(liveness: &Liveness) -> Option<u64> {
    liveness.running().map(|(running, _)| running.base.as_ms())
}

#[test]
fn no_offer_means_no_heartbeat_and_no_timer() {
    let liveness = Liveness::registered(ProducerState::Active, None, &policy(), at(0));
    assert_eq!(liveness.state(), ServiceState::Active);
    assert!(liveness.monitored().is_none() && liveness.running().is_none());
    assert_eq!(beat(&liveness, 1), Err(BeatRefusal::NotMonitored));
    assert_eq!(liveness.expired(Steady::from_ms(u64::MAX)), None);
}

#[test]
fn a_beat_moves_the_timer_and_the_time_stamp() {
    let beaten = beat(&registered(ProducerState::Active), 5_000).unwrap();
    assert!(!beaten.revived && !beaten.new_interval);
    assert_eq!(beaten.liveness.time_stamp, Wall::from_ns(5_000_000_000));
    assert_eq!(beaten.liveness.beats, 1);
    assert_eq!(base(&Liveness::Monitored(beaten.liveness)), Some(5_000));
}

#[test]
fn a_beat_revives_the_suspended() {
    let beaten = beat(&suspended(), 50_000).unwrap();
    assert!(beaten.revived);
    assert_eq!(
        Liveness::Monitored(beaten.liveness).state(),
        ServiceState::Active
    );
}

#[test]
fn a_beat_never_switches_an_inactive_service_on() {
    assert_eq!(
        beat(&registered(ProducerState::Inactive), 1),
        Err(BeatRefusal::Inactive)
    );
}

#[test]
fn only_running_timers_expire_and_only_once() {
    let suspended = suspended();
    assert_eq!(suspended.state(), ServiceState::Suspended);
    assert_eq!(suspended.expired(Steady::from_ms(99_000)), None);
    assert_eq!(
        registered(ProducerState::Inactive).expired(Steady::from_ms(99_000)),
        None
    );
}

#[test]
fn put_active_restarts_the_timer_only_from_another_state() {
    let running = registered(ProducerState::Active);
    assert_eq!(
        base(&put(&running, ServiceState::Active, 9_000)),
        Some(1_000)
    );
    assert_eq!(
        base(&put(&suspended(), ServiceState::Active, 9_000)),
        Some(9_000)
    );
    let inactive = put(&running, ServiceState::Inactive, 5_000);
    assert_eq!(
        (inactive.state(), base(&inactive)),
        (ServiceState::Inactive, None)
    );
    assert_eq!(
        base(&put(&inactive, ServiceState::Active, 9_000)),
        Some(9_000)
    );
    assert_eq!(
        put(&suspended(), ServiceState::Inactive, 5_000).state(),
        ServiceState::Inactive
    );
}

#[test]
fn only_the_platform_suspends() {
    let put_suspended = |liveness: &Liveness| {
        liveness.replaced(ServiceState::Suspended, None, &policy(), at(2_000))
    };
    for state in [ProducerState::Active, ProducerState::Inactive] {
        assert_eq!(put_suspended(&registered(state)), Err(SuspendedByProducer));
        let unmonitored = Liveness::registered(state, None, &policy(), at(0));
        assert_eq!(put_suspended(&unmonitored), Err(SuspendedByProducer));
    }
    assert_eq!(put_suspended(&suspended()), Ok(suspended()));
}

#[test]
fn put_without_an_offer_keeps_the_agreement_and_with_one_makes_it() {
    let running = registered(ProducerState::Active);
    assert_eq!(
        put(&running, ServiceState::Active, 2_000)
            .monitored()
            .unwrap()
            .agreement,
        Agreement::Settled(secs(10))
    );
    let unmonitored = Liveness::registered(ProducerState::Active, None, &policy(), at(0));
    let agreed = unmonitored
        .replaced(ServiceState::Active, TEN, &policy(), at(7_000))
        .unwrap();
    assert_eq!(base(&agreed), Some(7_000));
}

#[test]
fn a_new_interval_is_told_once_and_the_longer_counts_until_it_is_known() {
    let put = registered(ProducerState::Active)
        .replaced(
            ServiceState::Active,
            Some(LivenessOffer::Seconds(6)),
            &policy(),
            at(4_000),
        )
        .unwrap();
    assert_eq!(
        base(&put),
        Some(4_000),
        "a change of the interval is a base"
    );
    let agreement = put.monitored().unwrap().agreement;
    assert_eq!(
        (agreement.shown(), agreement.counting()),
        (secs(6), secs(10))
    );

    let beat = |liveness: &Liveness| {
        liveness
            .beat(
                Heartbeat::default(),
                Some(LivenessOffer::Seconds(6)),
                &policy(),
                at(5_000),
                true,
            )
            .unwrap()
    };
    let told = beat(&put);
    assert!(told.new_interval);
    assert_eq!(
        told.liveness.agreement.counting(),
        secs(10),
        "the answer may be lost"
    );
    let follows = beat(&Liveness::Monitored(told.liveness));
    assert!(!follows.new_interval, "told once");
    assert_eq!(follows.liveness.agreement.counting(), secs(10));
    let settled = beat(&Liveness::Monitored(follows.liveness));
    assert!(!settled.new_interval);
    assert_eq!(settled.liveness.agreement, Agreement::Settled(secs(6)));
}

#[test]
fn changed_bounds_are_told_at_the_next_beat() {
    let policy = Policy {
        min_interval: secs(20),
        ..policy()
    };
    let told = registered(ProducerState::Active)
        .beat(Heartbeat::default(), TEN, &policy, at(2_000), true)
        .unwrap();
    assert!(told.new_interval);
    let agreement = told.liveness.agreement;
    assert_eq!(
        (agreement.shown(), agreement.counting()),
        (secs(20), secs(20))
    );
    // They change once more before the producer beats again.
    let again = Liveness::Monitored(told.liveness)
        .beat(Heartbeat::default(), TEN, &self::policy(), at(3_000), true)
        .unwrap();
    assert!(again.new_interval);
    assert_eq!(
        again.liveness.agreement,
        Agreement::Told {
            from: secs(20),
            to: secs(10)
        }
    );
}

#[test]
fn a_promise_holds_for_its_beat_and_is_at_most_the_interval() {
    let promise = |s| Heartbeat {
        promise: RetryPromise::from_secs(s),
    };
    let running = registered(ProducerState::Active);
    let promised = running
        .beat(promise(10), TEN, &policy(), at(2_000), true)
        .unwrap();
    let (timer, _) = Liveness::Monitored(promised.liveness)
        .running()
        .map(|(r, a)| (*r, *a))
        .unwrap();
    assert_eq!(timer.promise, RetryPromise::from_secs(10));
    assert_eq!(
        running.beat(promise(11), TEN, &policy(), at(2_000), true),
        Err(BeatRefusal::PromiseTooLong { interval: secs(10) })
    );
    let plain = beat(&Liveness::Monitored(promised.liveness), 3_000).unwrap();
    let (timer, _) = Liveness::Monitored(plain.liveness)
        .running()
        .map(|(r, a)| (*r, *a))
        .unwrap();
    assert_eq!(timer.promise, None);
    // A malformed promise is told before the state: the contract's 400 before 409.
    let inactive = registered(ProducerState::Inactive);
    assert!(matches!(
        inactive.beat(promise(11), TEN, &policy(), at(2_000), true),
        Err(BeatRefusal::PromiseTooLong { .. })
    ));
}

#[test]
fn a_producer_that_cannot_have_heard_is_told_again_and_the_longer_interval_counts() {
    // From 30 s down to 10 s; the answer that tells it is lost.
    let told = |wanted| {
        let thirty = Liveness::registered(
            ProducerState::Active,
            Some(LivenessOffer::Seconds(30)),
            &policy(),
            at(0),
        );
        let beaten = thirty.beat(Heartbeat::default(), wanted, &policy(), at(1_000), true);
        beaten.unwrap()
    };
    let first = told(TEN);
    assert!(first.new_interval);
    let counting = |beaten: &Beaten| beaten.liveness.agreement.counting().as_secs();
    assert_eq!(counting(&first), 30);
    let beat = |ms, undisturbed| {
        let told = Liveness::Monitored(first.liveness);
        let beaten = told.beat(Heartbeat::default(), TEN, &policy(), at(ms), undisturbed);
        beaten.unwrap()
    };
    // At the old pace, or after we were blind: it may not know.
    for unaware in [beat(31_000, true), beat(3_000, false)] {
        assert!(unaware.new_interval);
        assert_eq!(counting(&unaware), 30);
    }
    // At the new pace it may be aware, or repeat at once what it got no answer to.
    let follows = beat(11_000, true);
    assert!(!follows.new_interval);
    assert_eq!(counting(&follows), 30);
    let next = |ms| {
        let followed = Liveness::Monitored(follows.liveness);
        let beaten = followed.beat(Heartbeat::default(), TEN, &policy(), at(ms), true);
        beaten.unwrap()
    };
    assert!(next(41_000).new_interval);
    assert!(!next(21_000).new_interval);
    assert_eq!(counting(&next(21_000)), 10);
}
