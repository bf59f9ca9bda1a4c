//! Every way in which we can be blind is seen, recorded, and charged to nobody; and every verdict
//! carries what it rests on. On a manual clock.

use mepulse::domain::liveness::ServiceState;
use mepulse::domain::{BlindCause, BlindSpot, Happening, Heartbeat, ServiceKey};
use mepulse::registry::{Error, Precondition, Terms};
use mepulse::store::memory::MemoryStore;

use crate::support::bench::{Bench, GRACE_MS, INTERVAL_MS, service, terms};

/// Cause and length in milliseconds, oldest first.
fn stored(bench: &Bench) -> Vec<(BlindCause, u64)> {
    let spots = bench.store.blind_spots().into_iter();
    spots
        .map(|spot: BlindSpot| (spot.cause, spot.end.ms_since(spot.start)))
        .collect()
}

async fn suspended_after(bench: &Bench, key: &ServiceKey, ms: u64) {
    bench.pass(ms - 1).await;
    assert_eq!(bench.state(key), ServiceState::Active, "too early");
    bench.pass(1).await;
    assert_eq!(bench.state(key), ServiceState::Suspended, "too late");
}

#[tokio::test]
async fn a_frozen_process_charges_nobody() {
    let bench = Bench::new();
    let key = bench.register().await;
    bench.machine.advance_ms(60_000);
    bench.registry().settle().await;
    assert_eq!(bench.state(&key), ServiceState::Active);
    assert_eq!(stored(&bench), [(BlindCause::Frozen, 60_000)]);
    suspended_after(&bench, &key, INTERVAL_MS + GRACE_MS).await;
}

#[tokio::test]
async fn a_suspended_machine_is_told_from_a_frozen_process() {
    let bench = Bench::new();
    let key = bench.register().await;
    bench.machine.sleep_ms(60_000);
    bench.registry().settle().await;
    assert_eq!(stored(&bench), [(BlindCause::Asleep, 60_000)]);
    suspended_after(&bench, &key, INTERVAL_MS + GRACE_MS).await;
}

#[tokio::test]
async fn a_stalled_commit_charges_nobody() {
    let bench = Bench::new();
    let key = bench.register().await;
    bench.pass(5_000).await;
    bench.store.hold_commits(true);
    let registry = bench.registry().clone();
    let other = bench.entry(&key).key.app;
    let stalled = tokio::spawn(async move {
        let state = mepulse::domain::ProducerState::Active;
        registry.register(other, service(), state).await
    });
    while bench.store.waiting() == 0 {
        tokio::task::yield_now().await;
    }
    bench.machine.advance_ms(30_000);
    bench.store.hold_commits(false);
    let stalled = stalled.await.unwrap().unwrap();
    bench.registry().settle().await;
    let slow = stored(&bench);
    assert!(
        slow.contains(&(BlindCause::SlowDisk, 30_000)),
        "a commit of half a minute: {slow:?}"
    );
    assert_eq!(bench.state(&key), ServiceState::Active);
    assert_eq!(bench.state(&stalled.key), ServiceState::Active);
    suspended_after(&bench, &key, INTERVAL_MS + GRACE_MS).await;
}

#[tokio::test]
async fn refused_beats_charge_nobody_until_the_cap() {
    let bench = Bench::new();
    let key = bench.register().await;
    // Something is refused every half second, for ever.
    let mut declared_after_ms = None;
    for half_seconds in 1..1_000 {
        bench.registry().note_refusal();
        bench.pass(500).await;
        if bench.state(&key) == ServiceState::Suspended {
            declared_after_ms = Some(half_seconds * 500);
            break;
        }
    }
    let burst = stored(&bench);
    assert_eq!(burst.len(), 1, "one burst is one blind spot: {burst:?}");
    assert_eq!(burst[0].0, BlindCause::Overload);
    // The cap: eleven intervals and the grace of watched time, and what the last credit gave.
    let cap_ms = 11 * INTERVAL_MS + GRACE_MS;
    let declared_after_ms = declared_after_ms.expect("a flood keeps the dead alive for ever");
    assert!(
        (cap_ms..=cap_ms + INTERVAL_MS + GRACE_MS + 500).contains(&declared_after_ms),
        "{declared_after_ms}"
    );
}

#[tokio::test]
async fn a_full_queue_is_a_blind_spot() {
    let bench = Bench::new();
    let key = bench.register().await;
    bench.store.hold_commits(true);
    let mut waiting = Vec::new();
    loop {
        let (registry, key) = (bench.registry().clone(), key.clone());
        let beat = tokio::spawn(async move {
            registry
                .heartbeat(key, Heartbeat::default(), Precondition::NONE)
                .await
        });
        tokio::task::yield_now().await;
        if beat.is_finished() {
            assert_eq!(beat.await.unwrap(), Err(Error::Busy));
            break;
        }
        waiting.push(beat);
    }
    bench.store.hold_commits(false);
    for beat in waiting {
        beat.await.unwrap().unwrap();
    }
    bench.registry().settle().await;
    assert_eq!(stored(&bench), [(BlindCause::Overload, 1)]);
}

#[tokio::test]
async fn a_planned_stop_is_blind_from_its_last_beat_to_the_next_start_exactly() {
    let bench = Bench::new();
    let key = bench.register().await;
    bench.pass(4_000).await;
    bench.registry().stop_watching();
    // Requests under way are finished; nobody is judged meanwhile.
    bench.machine.advance_ms(700);
    bench.registry().settle().await;
    let Bench {
        store,
        machine,
        running,
    } = bench;
    tokio::task::spawn_blocking(|| running.stop())
        .await
        .unwrap()
        .unwrap();
    machine.advance_ms(100_000);
    let bench = Bench::on(store, machine, terms());
    assert_eq!(stored(&bench), [(BlindCause::PlannedStop, 100_700)]);
    suspended_after(&bench, &key, INTERVAL_MS + GRACE_MS).await;
}

#[tokio::test]
async fn nobody_is_judged_once_the_server_stops_listening() {
    let bench = Bench::new();
    let key = bench.register().await;
    bench.pass(INTERVAL_MS + GRACE_MS - 1).await;
    bench.registry().stop_watching();
    bench.pass(500).await;
    assert_eq!(bench.state(&key), ServiceState::Active);
}

#[tokio::test]
async fn blind_spots_go_once_no_running_timer_can_see_them() {
    let bench = Bench::new();
    let key = bench.register().await;
    for _ in 0..40 {
        bench.machine.advance_ms(2_000);
        bench.registry().settle().await;
        bench.beat(&key).await;
    }
    let kept = stored(&bench).len();
    assert!(kept < 20, "{kept} blind spots are kept");
    assert_eq!(kept, bench.registry().view().blind_spots.len());
}

#[tokio::test]
async fn a_verdict_carries_what_it_rests_on() {
    let bench = Bench::new();
    let key = bench.register().await;
    bench.pass(3_000).await;
    bench.beat(&key).await;
    bench.pass(5_000).await;
    bench.machine.advance_ms(60_000);
    bench.registry().settle().await;
    bench.pass(INTERVAL_MS + GRACE_MS).await;
    bench.beat(&key).await;
    let events = bench.registry().history(key.service).await.unwrap();
    let whats: Vec<_> = events.iter().map(|event| &event.what).collect();
    let [
        Happening::Registered { .. },
        Happening::Suspended(evidence),
        Happening::Revived { since },
    ] = whats[..]
    else {
        panic!("{whats:?}");
    };
    let timer = evidence.timer;
    assert_eq!((timer.interval_ms, timer.grace_ms), (INTERVAL_MS, GRACE_MS));
    assert_eq!((evidence.beats, evidence.promised), (1, false));
    let [credit] = evidence.credits[..] else {
        panic!("{:?}", evidence.credits);
    };
    assert_eq!(credit.spot.cause, BlindCause::Frozen);
    assert_eq!(credit.deadline, evidence.deadline);
    assert_eq!(
        evidence.deadline,
        credit.spot.end.plus_ms(INTERVAL_MS + GRACE_MS)
    );
    assert_eq!(events[1].at.steady, *since);
    let sequences: Vec<_> = events.iter().map(|event| event.sequence).collect();
    assert_eq!(sequences, [1, 2, 3]);
}

#[tokio::test]
async fn the_past_is_kept_over_a_restart_within_its_bounds_and_numbers_are_not_used_twice() {
    let few = || Terms {
        events_per_service_max: 3,
        ..terms()
    };
    let bench = Bench::on(MemoryStore::default(), Default::default(), few());
    let key = bench.register().await;
    for _ in 0..3 {
        bench.pass(INTERVAL_MS + GRACE_MS).await;
        bench.beat(&key).await;
    }
    let before = bench.registry().history(key.service).await.unwrap();
    assert_eq!(before.len(), 3);
    let bench = bench.crash(few(), |machine| machine.advance_ms(1_000));
    let after = bench.registry().history(key.service).await.unwrap();
    assert_eq!(after, before);
    bench.registry().remove(key.clone()).await.unwrap();
    let gone = bench.registry().history(key.service).await.unwrap();
    assert!(matches!(
        gone.last().unwrap().what,
        Happening::Removed { .. }
    ));
    assert_eq!(
        gone.last().unwrap().sequence,
        before.last().unwrap().sequence + 1
    );
}
