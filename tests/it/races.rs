//! Commands that meet the pulse in one batch of the writer, on a manual clock.

use std::future::Future;

use mepulse::domain::liveness::ServiceState;
use mepulse::domain::{AppInstanceId, Heartbeat, ProducerState, ServiceKey};
use mepulse::registry::{BatchOutcome, Error, Precondition, Registry};
use tokio::task::JoinHandle;

use crate::support::bench::{Bench, GRACE_MS, INTERVAL_MS, service};

/// What may meet the pulse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Pulse,
    Beat,
    BatchBeat,
    SwitchOff,
    PutActive,
    PutSuspended,
    Remove,
}

use Step::{BatchBeat, Beat, Pulse, PutActive, PutSuspended, Remove, SwitchOff};

const STEPS: [Step; 7] = [
    Pulse,
    Beat,
    BatchBeat,
    SwitchOff,
    PutActive,
    PutSuspended,
    Remove,
];

/// What the caller hears.
type Heard = Result<Option<BatchOutcome>, Error>;

async fn take(step: Step, registry: Registry, key: ServiceKey) -> Heard {
    let put = async |state| {
        let replaced = registry
            .replace(key.clone(), service(), state, Precondition::NONE)
            .await;
        replaced.map(|_| None)
    };
    match step {
        Pulse => {
            registry.settle().await;
            Ok(None)
        }
        Beat => {
            let beaten = registry
                .heartbeat(key, Heartbeat::default(), Precondition::NONE)
                .await;
            beaten.map(|_| None)
        }
        BatchBeat => {
            let ids = Some(vec![key.service]);
            let outcomes = registry
                .heartbeat_many(key.app, ids, Heartbeat::default())
                .await;
            outcomes.map(|outcomes| Some(outcomes[0].1))
        }
        SwitchOff => put(ServiceState::Inactive).await,
        PutActive => put(ServiceState::Active).await,
        PutSuspended => put(ServiceState::Suspended).await,
        Remove => registry.remove(key).await.map(|()| None),
    }
}

/// Puts a command into the queue behind those that wait there.
async fn enqueue<T: Send + 'static>(
    bench: &Bench,
    command: impl Future<Output = T> + Send + 'static,
) -> JoinHandle<T> {
    let waiting = bench.registry().queue_depth();
    let task = tokio::spawn(command);
    while bench.registry().queue_depth() == waiting {
        tokio::task::yield_now().await;
    }
    task
}

/// Has the steps taken in one batch, in this order, at an instant when the service is due.
async fn in_one_batch(bench: &Bench, key: &ServiceKey, steps: &[Step]) -> Vec<Heard> {
    // Under watch: a jump of the clock would be a blind spot, and credited.
    bench.pass(INTERVAL_MS + GRACE_MS - 1).await;
    bench.store.hold_commits(true);
    // A commit that hangs keeps the writer busy while the others line up. No timer of its own.
    let registry = bench.registry().clone();
    let blocker = tokio::spawn(async move {
        let mut plain = service();
        plain.liveness_offer = None;
        let app = AppInstanceId::parse("other").unwrap();
        registry.register(app, plain, ProducerState::Active).await
    });
    while bench.store.waiting() == 0 {
        tokio::task::yield_now().await;
    }
    bench.machine.advance_ms(1);
    let mut tasks = Vec::new();
    for step in steps {
        let command = take(*step, bench.registry().clone(), key.clone());
        tasks.push(enqueue(bench, command).await);
    }
    let commits = bench.store.commits();
    bench.store.hold_commits(false);
    blocker.await.unwrap().unwrap();
    let mut heard = Vec::new();
    for task in tasks {
        heard.push(task.await.unwrap());
    }
    assert!(
        bench.store.commits() <= commits + 2,
        "{steps:?} were to be one batch"
    );
    check_one_entry_per_timer(bench, steps);
    heard
}

/// The same, one after the other: each is on the disk before the next one comes.
async fn one_by_one(bench: &Bench, key: &ServiceKey, steps: &[Step]) -> Vec<Heard> {
    bench.pass(INTERVAL_MS + GRACE_MS - 1).await;
    bench.machine.advance_ms(1);
    let mut heard = Vec::new();
    for step in steps {
        heard.push(take(*step, bench.registry().clone(), key.clone()).await);
    }
    check_one_entry_per_timer(bench, steps);
    heard
}

/// The store holds what the view holds, and the index has exactly one entry for a running timer.
fn check_one_entry_per_timer(bench: &Bench, steps: &[Step]) {
    let view = bench.registry().view();
    let mut armed: Vec<_> = view
        .services()
        .filter_map(|entry| Some((entry.armed?, entry.key.clone())))
        .collect();
    armed.sort();
    let indexed: Vec<_> = bench
        .store
        .expiry()
        .into_iter()
        .map(|entry| (entry.at, entry.key))
        .collect();
    assert_eq!(indexed, armed, "after {steps:?}");
    for entry in view.services() {
        assert_eq!(
            bench.store.liveness(&entry.key),
            Some(entry.liveness),
            "after {steps:?}"
        );
        assert_eq!(
            entry.armed.is_some(),
            entry.liveness.running().is_some(),
            "after {steps:?}"
        );
    }
}

/// A service, and what became of it; `None`: gone.
async fn met(steps: &[Step]) -> (Bench, ServiceKey, Option<ServiceState>) {
    let bench = Bench::unblinking();
    let key = bench.register().await;
    for heard in in_one_batch(&bench, &key, steps).await {
        heard.unwrap();
    }
    let state = state_of(&bench, &key);
    (bench, key, state)
}

fn state_of(bench: &Bench, key: &ServiceKey) -> Option<ServiceState> {
    let view = bench.registry().view();
    view.service_of(key).map(|entry| entry.liveness.state())
}

/// It is suspended a full window from now, and not a millisecond earlier.
async fn check_full_window(bench: &Bench, key: &ServiceKey) {
    bench.pass(INTERVAL_MS + GRACE_MS - 1).await;
    assert_eq!(bench.state(key), ServiceState::Active);
    bench.pass(1).await;
    assert_eq!(bench.state(key), ServiceState::Suspended);
}

#[tokio::test]
async fn a_removal_beside_the_pulse_leaves_nothing_behind() {
    for steps in [
        &[Remove, Pulse][..],
        &[Pulse, Remove],
        &[Beat, Remove, Pulse],
        &[Pulse, Beat, Remove, Pulse],
    ] {
        let (bench, key, state) = met(steps).await;
        assert_eq!(state, None, "{steps:?}");
        assert_eq!(bench.store.liveness(&key), None, "{steps:?}");
        assert!(bench.store.expiry().is_empty(), "{steps:?}");
        bench.pass(INTERVAL_MS + GRACE_MS).await;
        assert_eq!(state_of(&bench, &key), None, "{steps:?}");
    }
}

#[tokio::test]
async fn a_beat_behind_the_pulse_revives_in_the_same_batch() {
    let (_, _, state) = met(&[Pulse]).await;
    assert_eq!(state, Some(ServiceState::Suspended), "it is due");
    for steps in [
        &[Pulse, Beat][..],
        &[Pulse, BatchBeat],
        &[Pulse, Beat, Pulse],
        &[Pulse, Pulse, Beat],
    ] {
        let (bench, key, state) = met(steps).await;
        assert_eq!(state, Some(ServiceState::Active), "{steps:?}");
        assert_eq!(bench.store.expiry().len(), 1, "{steps:?}");
        check_full_window(&bench, &key).await;
    }
}

#[tokio::test]
async fn a_beat_before_the_pulse_prevents_the_verdict_in_the_same_batch() {
    for steps in [
        &[Beat, Pulse][..],
        &[BatchBeat, Pulse],
        &[Beat, Pulse, Pulse],
    ] {
        let (bench, key, state) = met(steps).await;
        assert_eq!(state, Some(ServiceState::Active), "{steps:?}");
        assert_eq!(bench.store.expiry().len(), 1, "{steps:?}");
        check_full_window(&bench, &key).await;
    }
}

#[tokio::test]
async fn a_service_switched_off_beside_the_pulse_is_inactive_and_has_no_timer() {
    for steps in [
        &[SwitchOff, Pulse][..],
        &[Pulse, SwitchOff],
        &[Pulse, Beat, SwitchOff, Pulse],
    ] {
        let (bench, key, state) = met(steps).await;
        assert_eq!(state, Some(ServiceState::Inactive), "{steps:?}");
        assert!(bench.store.expiry().is_empty(), "{steps:?}");
        bench.pass(10 * INTERVAL_MS).await;
        assert_eq!(bench.state(&key), ServiceState::Inactive, "{steps:?}");
    }
}

#[tokio::test]
async fn put_active_counts_from_now_behind_the_pulse_and_changes_nothing_before_it() {
    for steps in [
        &[Pulse, PutActive][..],
        &[SwitchOff, PutActive, Pulse],
        &[Pulse, SwitchOff, PutActive, Pulse],
    ] {
        let (bench, key, state) = met(steps).await;
        assert_eq!(state, Some(ServiceState::Active), "{steps:?}");
        check_full_window(&bench, &key).await;
    }
    // It was ACTIVE: its timer stays where it was, and that has run out.
    let (bench, _, state) = met(&[PutActive, Pulse]).await;
    assert_eq!(state, Some(ServiceState::Suspended));
    assert!(bench.store.expiry().is_empty());
}

#[tokio::test]
async fn a_batch_ends_as_its_commands_would_one_by_one() {
    let mut sequences: Vec<Vec<Step>> = vec![Vec::new()];
    for _ in 0..3 {
        let longer = sequences.iter().flat_map(|sequence| {
            STEPS.map(|step| sequence.iter().copied().chain([step]).collect::<Vec<_>>())
        });
        sequences = longer.collect();
        for steps in &sequences {
            let (batched, single) = (Bench::unblinking(), Bench::unblinking());
            let batched_key = batched.register().await;
            let single_key = single.register().await;
            // The ids differ, so only what kind of answer it was is compared.
            let kinds = |heard: Vec<Heard>| {
                let kinds = heard.iter().map(|heard| match heard {
                    Ok(outcome) => Ok(*outcome),
                    Err(error) => Err(std::mem::discriminant(error)),
                });
                kinds.collect::<Vec<_>>()
            };
            assert_eq!(
                kinds(in_one_batch(&batched, &batched_key, steps).await),
                kinds(one_by_one(&single, &single_key, steps).await),
                "{steps:?}"
            );
            let end = |bench: &Bench, key: &ServiceKey| {
                let view = bench.registry().view();
                let entry = view.service_of(key);
                entry.map(|entry| (entry.liveness, entry.armed))
            };
            assert_eq!(
                end(&batched, &batched_key),
                end(&single, &single_key),
                "{steps:?}"
            );
        }
    }
}

#[tokio::test]
async fn put_active_gives_the_suspended_a_full_window_and_put_suspended_none() {
    let bench = Bench::unblinking();
    let key = bench.register().await;
    bench.pass(INTERVAL_MS + GRACE_MS).await;
    let put = async |state| {
        let (registry, key) = (bench.registry(), key.clone());
        registry
            .replace(key, service(), state, Precondition::NONE)
            .await
            .unwrap();
    };
    put(ServiceState::Suspended).await;
    assert_eq!(bench.state(&key), ServiceState::Suspended);
    assert!(bench.store.expiry().is_empty());
    bench.pass(60_000).await;
    put(ServiceState::Active).await;
    assert_eq!(bench.store.expiry().len(), 1);
    check_full_window(&bench, &key).await;
}
