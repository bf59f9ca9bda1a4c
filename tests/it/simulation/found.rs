//! What the simulation has found, made as small as it gets, and what it cannot draw by itself.
//!
//! An ordinary run keeps out of what no rule can know: a producer that misses several telling answers
//! in a row while it repeats its beats at the new pace. With `MEPULSE_SIMULATION_ALL=1` it does not.

use mepulse::domain::liveness::ServiceState;
use mepulse::domain::{Heartbeat, LivenessInterval, RetryPromise, ServiceKey};
use mepulse::registry::Precondition;

use crate::support::bench::{Bench, GRACE_MS, INTERVAL_MS, service, terms};

/// Down for one second in three, for ever: the living are heard in between, and a dead one is
/// declared once it was watched for as long as the cap says, and not before.
#[tokio::test]
async fn a_crash_loop_cannot_keep_the_dead_alive() {
    let mut bench = Bench::new();
    let (dead, living) = (bench.register().await, bench.register().await);
    let cap_ms = (1 + u64::from(terms().rules.policy.blind_cap)) * INTERVAL_MS + GRACE_MS;
    let mut watched_ms = 0;
    while bench.state(&dead) == ServiceState::Active {
        bench.pass(2_000).await;
        watched_ms += 2_000;
        assert_eq!(bench.state(&living), ServiceState::Active);
        bench.beat(&living).await;
        assert!(watched_ms <= cap_ms + INTERVAL_MS + GRACE_MS);
        bench = bench.crash(terms(), |machine| machine.advance_ms(1_000));
    }
    assert!(watched_ms >= cap_ms);
}

/// Its interval is not over when the server is back, so it has not noticed anything yet.
#[tokio::test]
async fn a_clock_set_forward_during_a_reboot_is_charged_to_nobody() {
    let bench = Bench::new();
    let key = bench.register().await;
    let promise = Heartbeat {
        promise: RetryPromise::from_secs(1),
    };
    let registry = bench.registry();
    registry
        .heartbeat(key.clone(), promise, Precondition::NONE)
        .await
        .unwrap();
    let bench = bench.crash(terms(), |machine| {
        machine.advance_ms(1_000);
        machine.reboot();
        machine.step_wall_ms(3_600_000);
    });
    bench.pass(INTERVAL_MS - 1_000).await;
    assert_eq!(bench.state(&key), ServiceState::Active);
}

/// A quiet service, and a registry that was frozen until just now and had no pulse since; somebody
/// else has been heard.
async fn thawed() -> (Bench, ServiceKey) {
    let bench = Bench::new();
    let (quiet, other) = (bench.register().await, bench.register().await);
    bench.pass(1_000).await;
    bench.machine.advance_ms(60_000);
    bench.beat(&other).await;
    (bench, quiet)
}

#[tokio::test]
async fn a_crash_right_after_a_freeze_does_not_hide_the_freeze() {
    let (bench, quiet) = thawed().await;
    let bench = bench.crash(terms(), |machine| machine.advance_ms(100));
    bench.pass(1).await;
    assert_eq!(bench.state(&quiet), ServiceState::Active);
}

#[tokio::test]
async fn an_orderly_stop_right_after_a_freeze_does_not_hide_the_freeze() {
    let (bench, quiet) = thawed().await;
    bench.registry().stop_watching();
    bench.running.stop().unwrap();
    let bench = Bench::on(bench.store, bench.machine, terms());
    bench.pass(1).await;
    assert_eq!(bench.state(&quiet), ServiceState::Active);
}

/// The clock that was set back makes the length unknown; what was told is in the past all the same.
#[tokio::test]
async fn time_does_not_resume_before_an_event() {
    let bench = Bench::new();
    let key = bench.register().await;
    bench.pass(500).await;
    let off = ServiceState::Inactive;
    let replaced = bench
        .registry()
        .replace(key.clone(), service(), off, Precondition::NONE)
        .await;
    replaced.unwrap();
    let bench = bench.crash(terms(), |machine| {
        machine.reboot();
        machine.step_wall_ms(-3_600_000);
    });
    let events = bench.registry().history(key.service).await.unwrap();
    assert!(bench.registry().now().steady >= events.last().unwrap().at.steady);
}

/// The producer goes by what it was told last, and the first answer that tells it does not arrive.
#[tokio::test]
async fn whoever_missed_the_answer_with_the_new_interval_may_go_by_the_old_one() {
    let bench = Bench::new();
    let key = bench.register().await;
    let mut rules = terms().rules;
    rules.policy.max_interval = LivenessInterval::from_secs(5).unwrap();
    bench.registry().reload(rules);
    bench.registry().settle().await;
    let mut pace_ms = INTERVAL_MS;
    for is_lost in [true, false, false] {
        bench.pass(pace_ms).await;
        assert_eq!(bench.state(&key), ServiceState::Active);
        let registry = bench.registry();
        let answer = registry
            .heartbeat(key.clone(), Heartbeat::default(), Precondition::NONE)
            .await;
        let answer = answer.unwrap();
        if answer.new_interval && !is_lost {
            pace_ms = answer.liveness.agreement.shown().as_ms();
        }
    }
    bench.pass(pace_ms).await;
    assert_eq!(bench.state(&key), ServiceState::Active);
}
