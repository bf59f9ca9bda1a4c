//! Expiry, revival and races on a manual clock: nothing here waits for time to pass.

use std::time::Duration;

use mepulse::clock::ManualMachine;
use mepulse::domain::liveness::ServiceState;
use mepulse::domain::{
    AppInstanceId, BlindCause, Happening, Heartbeat, ProducerState, RetryPromise, Steady,
};
use mepulse::registry::{Boot, Error, Precondition, Terms};
use mepulse::store::memory::MemoryStore;
use mepulse::store::{Armed, Batch, Store};

use crate::support::bench::{Bench, GRACE_MS, INTERVAL_MS, service, terms};

#[tokio::test]
async fn silence_suspends_at_the_deadline_and_not_a_millisecond_earlier() {
    let bench = Bench::new();
    let key = bench.register().await;
    bench.pass(INTERVAL_MS + GRACE_MS - 1).await;
    assert_eq!(bench.state(&key), ServiceState::Active);
    bench.pass(1).await;
    assert_eq!(bench.state(&key), ServiceState::Suspended);
    assert_eq!(
        bench.store.liveness(&key).unwrap().state(),
        ServiceState::Suspended
    );
    assert!(bench.store.expiry().is_empty(), "no timer, no index entry");
}

#[tokio::test]
async fn a_beat_touches_no_index_entry_and_the_scanner_moves_it_once_per_window() {
    let bench = Bench::new();
    let key = bench.register().await;
    let armed = bench.store.expiry();
    for _ in 0..3 {
        bench.pass(3_000).await;
        bench.beat(&key).await;
        assert_eq!(bench.store.expiry(), armed);
    }
    bench.pass(3_000).await;
    let rearmed = bench.store.expiry();
    assert_eq!(rearmed.len(), 1);
    assert_eq!(
        rearmed[0].at.ms_since(armed[0].at),
        9_000,
        "the last beat's own deadline"
    );
    assert_eq!(bench.state(&key), ServiceState::Active);
}

#[tokio::test]
async fn a_beat_revives_the_suspended_with_a_full_window() {
    let bench = Bench::new();
    let key = bench.register().await;
    bench.pass(60_000).await;
    assert_eq!(bench.state(&key), ServiceState::Suspended);
    bench.beat(&key).await;
    assert_eq!(bench.state(&key), ServiceState::Active);
    assert_eq!(bench.store.expiry().len(), 1);
    bench.pass(INTERVAL_MS + GRACE_MS - 1).await;
    assert_eq!(bench.state(&key), ServiceState::Active);
    bench.pass(1).await;
    assert_eq!(bench.state(&key), ServiceState::Suspended);
}

#[tokio::test]
async fn a_beat_received_before_the_pulse_wins() {
    let bench = Bench::unblinking();
    let key = bench.register().await;
    bench.store.hold_commits(true);
    // Blocks the writer, so that beat and pulse wait together in this order.
    let other = bench.registry().clone();
    let blocker = tokio::spawn(async move {
        let app = AppInstanceId::parse("app").unwrap();
        other.register(app, service(), ProducerState::Active).await
    });
    while bench.store.waiting() == 0 {
        tokio::task::yield_now().await;
    }
    bench.machine.advance_ms(INTERVAL_MS + GRACE_MS - 1);
    let (registry, beaten) = (bench.registry().clone(), key.clone());
    let beat = tokio::spawn(async move {
        registry
            .heartbeat(beaten, Heartbeat::default(), Precondition::NONE)
            .await
    });
    while bench.registry().queue_depth() == 0 {
        tokio::task::yield_now().await;
    }
    bench.machine.advance_ms(1);
    let registry = bench.registry().clone();
    let settled = tokio::spawn(async move { registry.settle().await });
    while bench.registry().queue_depth() < 2 {
        tokio::task::yield_now().await;
    }
    bench.store.hold_commits(false);
    blocker.await.unwrap().unwrap();
    beat.await.unwrap().unwrap();
    settled.await.unwrap();
    assert_eq!(bench.state(&key), ServiceState::Active);
}

#[tokio::test]
async fn a_removed_service_is_never_judged() {
    let bench = Bench::unblinking();
    let key = bench.register().await;
    bench.machine.advance_ms(INTERVAL_MS + GRACE_MS);
    bench.registry().remove(key.clone()).await.unwrap();
    bench.registry().settle().await;
    assert!(bench.registry().view().service_of(&key).is_none());
    assert_eq!(bench.store.liveness(&key), None);
    assert!(bench.store.expiry().is_empty());
}

#[tokio::test]
async fn a_full_queue_is_an_answer_at_once() {
    let bench = Bench::new();
    let key = bench.register().await;
    bench.store.hold_commits(true);
    let mut waiting = Vec::new();
    let refused = loop {
        let (registry, key) = (bench.registry().clone(), key.clone());
        let beat = tokio::spawn(async move {
            registry
                .heartbeat(key, Heartbeat::default(), Precondition::NONE)
                .await
        });
        tokio::task::yield_now().await;
        waiting.push(beat);
        let mut refused = None;
        for beat in &mut waiting {
            if beat.is_finished() {
                refused = Some(beat.await.unwrap());
                break;
            }
        }
        if let Some(refused) = refused {
            break refused;
        }
    };
    assert_eq!(refused, Err(Error::Busy));
    bench.store.hold_commits(false);
}

#[tokio::test]
async fn a_failed_commit_is_acknowledged_to_nobody() {
    let bench = Bench::new();
    let key = bench.register().await;
    bench.store.fail_commits();
    let answer = bench
        .registry()
        .heartbeat(key.clone(), Heartbeat::default(), Precondition::NONE)
        .await;
    assert_eq!(answer, Err(Error::Failed));
    assert!(!bench.registry().condition().not_ready.is_empty());
    bench.registry().failed().await;
    let answer = bench
        .registry()
        .heartbeat(key, Heartbeat::default(), Precondition::NONE)
        .await;
    assert_eq!(answer, Err(Error::Failed));
    assert_eq!(bench.running.stop(), Err(Error::Failed));
}

#[tokio::test]
async fn an_outage_is_charged_to_nobody() {
    let bench = Bench::new();
    let key = bench.register().await;
    let bench = bench.crash(terms(), |machine| machine.advance_ms(3_600_000));
    let spots = bench.store.blind_spots();
    assert_eq!(
        (spots.len(), spots[0].cause, spots[0].length_known),
        (1, BlindCause::Down, true)
    );
    bench.pass(INTERVAL_MS + GRACE_MS - 1).await;
    assert_eq!(bench.state(&key), ServiceState::Active);
    bench.pass(1).await;
    assert_eq!(
        bench.state(&key),
        ServiceState::Suspended,
        "nobody is forgiven more"
    );
}

#[tokio::test]
async fn a_retry_promise_shortens_the_wait_after_an_outage() {
    let bench = Bench::new();
    let key = bench.register().await;
    let promise = Heartbeat {
        promise: RetryPromise::from_secs(2),
    };
    bench
        .registry()
        .heartbeat(key.clone(), promise, Precondition::NONE)
        .await
        .unwrap();
    let bench = bench.crash(terms(), |machine| machine.advance_ms(60_000));
    bench.pass(2_000 + GRACE_MS - 1).await;
    assert_eq!(bench.state(&key), ServiceState::Active);
    bench.pass(1).await;
    assert_eq!(bench.state(&key), ServiceState::Suspended);
}

#[tokio::test]
async fn after_a_reboot_the_wall_clock_measures_and_a_wrong_one_is_not_believed() {
    for (wall_step_ms, length_ms) in [(0, 3_600_000), (-7_200_000, 0), (40 * 86_400_000, 0)] {
        let bench = Bench::new();
        let key = bench.register().await;
        let before = bench.registry().now().steady;
        let bench = bench.crash(terms(), |machine| {
            machine.advance_ms(3_600_000);
            machine.reboot();
            machine.step_wall_ms(wall_step_ms);
        });
        let spot = bench.store.blind_spots()[0];
        assert!(!spot.length_known, "a wall clock's word is no measurement");
        assert_eq!(
            spot.end.ms_since(spot.start),
            length_ms,
            "wall stepped by {wall_step_ms} ms"
        );
        assert!(
            bench.registry().now().steady >= before,
            "steady time never goes back"
        );
        bench.pass(INTERVAL_MS + GRACE_MS - 1).await;
        assert_eq!(bench.state(&key), ServiceState::Active);
        bench.pass(1).await;
        assert_eq!(bench.state(&key), ServiceState::Suspended);
    }
}

#[tokio::test]
async fn a_wall_clock_step_changes_nothing_while_running() {
    let bench = Bench::new();
    let key = bench.register().await;
    bench.machine.step_wall_ms(3_600_000);
    bench.pass(INTERVAL_MS + GRACE_MS - 1).await;
    assert_eq!(bench.state(&key), ServiceState::Active);
    bench.machine.step_wall_ms(-7_200_000);
    bench.pass(1).await;
    assert_eq!(bench.state(&key), ServiceState::Suspended);
}

#[tokio::test]
async fn a_smaller_grace_after_a_restart_brings_the_deadline_forward() {
    let mut generous = terms();
    generous.rules.policy.grace_min_ms = 50_000;
    let bench = Bench::on(MemoryStore::default(), ManualMachine::new(), generous);
    let key = bench.register().await;
    let late = bench.store.expiry()[0].at;
    let bench = bench.crash(terms(), |_| {});
    let mended = bench.store.expiry();
    assert_eq!(mended.len(), 1);
    assert!(mended[0].at < late, "the index may be early, never late");
    bench.pass(INTERVAL_MS + GRACE_MS).await;
    assert_eq!(bench.state(&key), ServiceState::Suspended);
}

#[tokio::test]
async fn of_several_entries_one_is_left_and_it_is_never_late() {
    let bench = Bench::new();
    let key = bench.register().await;
    let right = bench.store.expiry();
    let at = |at| Armed {
        at,
        key: key.clone(),
    };
    let (early, late) = (Steady::from_ms(1), right[0].at.plus_ms(1));
    let foreign = Batch {
        arm: vec![at(early), at(late)],
        ..Batch::default()
    };
    bench.store.clone().commit(&foreign).unwrap();
    let boot = Boot::load(Box::new(bench.store.clone())).unwrap();
    assert_eq!(boot.view().service_of(&key).unwrap().armed, Some(early));
    let bench = bench.crash(terms(), |_| {});
    let left = bench.store.expiry();
    assert_eq!((left.len(), left[0].at), (1, early));
    assert_eq!(bench.entry(&key).armed, Some(early));
    bench.pass(INTERVAL_MS + GRACE_MS - 1).await;
    assert_eq!(bench.state(&key), ServiceState::Active);
    bench.pass(1).await;
    assert_eq!(bench.state(&key), ServiceState::Suspended);
}

#[tokio::test]
async fn a_smaller_grace_while_running_does_too() {
    let mut generous = terms();
    generous.rules.policy.grace_min_ms = 50_000;
    let bench = Bench::on(MemoryStore::default(), ManualMachine::new(), generous);
    let key = bench.register().await;
    bench.registry().reload(terms().rules);
    bench.registry().settle().await;
    bench.pass(INTERVAL_MS + GRACE_MS).await;
    bench.registry().settle().await;
    assert_eq!(bench.state(&key), ServiceState::Suspended);
}

async fn register_3000(bench: &Bench) {
    for number in 0..3 {
        for _ in 0..1000 {
            let app = AppInstanceId::parse(&format!("app-{number}")).unwrap();
            bench
                .registry()
                .register(app, service(), ProducerState::Active)
                .await
                .unwrap();
        }
    }
}

#[tokio::test]
async fn a_mass_expiry_does_not_wait_for_ticks() {
    let rare = Terms {
        stall_ms: 1 << 40,
        tick_ms: 3_600_000,
        ..terms()
    };
    let bench = Bench::on(MemoryStore::default(), ManualMachine::new(), rare);
    register_3000(&bench).await;
    bench.machine.advance_ms(INTERVAL_MS + GRACE_MS);
    let pulse = tokio::spawn(bench.registry().clone().pulse());
    let mut head = bench.registry().head();
    let all = async {
        while bench.registry().view().count(ServiceState::Suspended) < 3000 {
            head.changed().await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(60), all)
        .await
        .expect("whatever is due is judged right after what was due before");
    pulse.abort();
}

#[tokio::test]
async fn a_mass_expiry_is_judged_in_bounded_parts_until_all_are_suspended() {
    let bench = Bench::unblinking();
    register_3000(&bench).await;
    let commits = bench.store.commits();
    bench.machine.advance_ms(INTERVAL_MS + GRACE_MS);
    for part in 1..=3 {
        bench.registry().settle().await;
        let suspended = bench.registry().view().count(ServiceState::Suspended);
        assert_eq!(suspended, (part * 1024).min(3000));
    }
    assert_eq!(bench.store.commits() - commits, 3);
}

#[tokio::test]
async fn the_suspended_are_removed_after_their_time_and_outages_are_not_charged() {
    let mut forgetful = terms();
    forgetful.rules.policy.remove_after_ms = Some(60_000);
    let bench = Bench::on(
        MemoryStore::default(),
        ManualMachine::new(),
        forgetful.clone(),
    );
    let key = bench.register().await;
    let other = bench.register().await;
    bench.pass(INTERVAL_MS + GRACE_MS).await;
    assert_eq!(bench.state(&key), ServiceState::Suspended);
    bench.pass(30_000).await;
    bench.beat(&other).await;
    // It may have tried to come back while nobody listened.
    let bench = bench.crash(forgetful, |machine| machine.advance_ms(100_000));
    bench.pass(INTERVAL_MS + GRACE_MS - 1).await;
    assert_eq!(bench.state(&key), ServiceState::Suspended);
    bench.pass(1).await;
    assert!(bench.registry().view().service_of(&key).is_none());
    assert_eq!(bench.store.liveness(&key), None);
    assert_eq!(bench.state(&other), ServiceState::Suspended);
    let history = bench.registry().history(key.service).await.unwrap();
    assert!(matches!(
        history.last().unwrap().what,
        Happening::Forgotten { .. }
    ));
    // Off again: nobody is removed any more.
    bench.registry().reload(terms().rules);
    bench.pass(200_000).await;
    assert_eq!(bench.state(&other), ServiceState::Suspended);
    assert!(bench.store.expiry().is_empty());
}
