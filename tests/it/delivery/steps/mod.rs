//! The server dies between any two steps. No sockets, no waiting: callbacks are a stand-in, the
//! store is in memory and copied after every commit, and a new life begins on each copy.

mod expected;
mod hand;
mod life;

use std::collections::BTreeMap;
use std::time::Duration;

use mepulse::clock::ManualMachine;
use mepulse::domain::subscription::Filter;
use mepulse::domain::{Event, ServiceState};
use mepulse::notify;
use mepulse::registry::Terms;
use mepulse::store::memory::MemoryStore;
use mepulse::store::{EventLog, Store};

use self::hand::{Hand, everything, subscribe};
use self::life::{Diary, Life, Mood, Sent};
use crate::support::bench;
use crate::support::random::Random;

/// The terms of a test.
#[derive(Clone)]
struct Scenario {
    registry: Terms,
    notify: notify::Terms,
    /// A crash after every so many commits.
    every: u64,
}

impl Scenario {
    fn with_batches(batch_max: usize) -> Self {
        Self {
            registry: bench::terms(),
            notify: notify::Terms {
                give_up_after_ms: 24 * 3_600_000,
                in_flight_max: 4,
                batch_max,
            },
            every: 1,
        }
    }
}

/// What was there when the server died.
#[derive(Clone, Default)]
struct Past {
    store: MemoryStore,
    events: BTreeMap<u64, Event>,
    /// What was sent before, if it died right after the commit; and if right before the next one.
    least: Vec<Sent>,
    most: Vec<Sent>,
}

impl Past {
    /// All moments at which a life can have ended.
    fn after(&self, diary: &Diary, sent: &[Sent]) -> Vec<Self> {
        let moment = |store: &MemoryStore| {
            let commits = store.commits();
            let events = diary.events.iter().filter(|(at, _)| *at <= commits);
            let events = events.map(|(_, event)| (event.sequence, event.clone()));
            let before = |known: &[Sent], until| {
                let sent = sent.iter().filter(|sent| sent.commits < until);
                known.iter().chain(sent).cloned().collect()
            };
            Self {
                store: store.clone(),
                events: self.events.clone().into_iter().chain(events).collect(),
                least: before(&self.least, commits),
                most: before(&self.most, commits + 1),
            }
        };
        diary.copies.iter().map(moment).collect()
    }
}

/// A life on what another one left: everybody is told of the rest, and of what happens then. Gives
/// back the moments at which this one can have ended.
async fn relive(
    past: &Past,
    machine: &ManualMachine,
    scenario: &Scenario,
    random: &mut Random,
    acts: usize,
) -> Vec<Past> {
    let store = past.store.snapshot();
    let (terms, notify) = (scenario.registry.clone(), scenario.notify);
    let life = Life::begin(store, machine, random.fork(), terms, notify, scenario.every);
    let mut hand = Hand::of(&life, random.fork());
    if past.events.is_empty() {
        hand.register(&life).await;
        subscribe(&life, 1, everything()).await;
        for _ in 0..3 {
            hand.subscribe(&life).await;
        }
    }
    for _ in 0..acts {
        hand.act(&life).await;
    }
    life.settled(&past.least, &past.events).await;
    check(past, &life);
    let (diary, sent) = life.end().await;
    past.after(&diary, &sent)
}

/// Whatever had been sent before the end, all of it together is in order and complete.
fn check(past: &Past, life: &Life) {
    let sent = life.desk.sent();
    let letters = life.store.dead_letters().unwrap();
    let mut events = past.events.clone();
    events.extend(life.events());
    for before in [&past.least, &past.most] {
        let sent = [before, &*sent].concat();
        for subscription in life.subscriptions() {
            let missing = expected::check(&subscription, &events, &sent, &letters);
            assert!(missing.is_empty(), "lost: {missing:?} to {subscription:?}");
        }
    }
}

/// A long life; then one on each moment of it, and one on some moment of that.
async fn dies_at_every_step(test: &str, scenario: Scenario) {
    let mut random = Random::from_env(test);
    let machine = ManualMachine::new();
    let first = relive(&Past::default(), &machine, &scenario, &mut random, 60).await;
    let (mut moments, mut repeats) = (0, 0);
    for past in first {
        let acts = random.below(4);
        let second = relive(&past, &machine, &scenario, &mut random, acts).await;
        let past = &second[random.below(second.len())];
        relive(past, &machine, &scenario, &mut random, 1).await;
        moments += 1;
        repeats += past.most.iter().filter(|sent| !sent.taken).count();
    }
    eprintln!("  {test}: {moments} crashes, and one more in each life after; {repeats} failures");
}

#[tokio::test(start_paused = true)]
async fn a_crash_at_any_step_loses_nothing_one_event_at_a_time() {
    dies_at_every_step("batch_max 1", Scenario::with_batches(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_crash_at_any_step_loses_nothing_in_small_batches() {
    dies_at_every_step("batch_max 3", Scenario::with_batches(3)).await;
}

#[tokio::test(start_paused = true)]
async fn a_crash_at_any_step_loses_nothing_in_large_batches() {
    dies_at_every_step("batch_max 64", Scenario::with_batches(64)).await;
}

#[tokio::test(start_paused = true)]
async fn a_crash_at_any_step_loses_nothing_where_little_is_kept_of_the_past() {
    let mut scenario = Scenario::with_batches(3);
    scenario.registry.events_per_service_max = 1;
    scenario.registry.events_kept_ms = 1;
    scenario.registry.mark_interval_ms = 0;
    dies_at_every_step("little is kept", scenario).await;
}

#[tokio::test(start_paused = true)]
async fn a_crash_at_any_step_loses_nothing_that_is_not_given_up() {
    let mut scenario = Scenario::with_batches(3);
    scenario.notify.give_up_after_ms = 2_000;
    dies_at_every_step("soon given up", scenario).await;
}

/// Consumers that went down with the server may come back later than it.
#[tokio::test(start_paused = true)]
async fn an_outage_is_not_charged_to_what_could_not_be_delivered() {
    let mut random = Random::from_env("outage");
    let machine = ManualMachine::new();
    let Scenario {
        registry, notify, ..
    } = Scenario::with_batches(3);
    let mut hands = random.fork();
    let mut begin =
        |store| Life::begin(store, &machine, random.fork(), registry.clone(), notify, 1);
    let life = begin(MemoryStore::default());
    life.desk.is(Mood::Bad);
    let mut hand = Hand::of(&life, hands.fork());
    hand.register(&life).await;
    subscribe(&life, 1, everything()).await;
    hand.register(&life).await;
    let letters = |life: &Life| life.store.dead_letters().unwrap().len();
    let is_tried = async |life: &Life| {
        let before = life.desk.sent().len();
        // One is over when the next one begins, or nothing is left to tell.
        while life.desk.sent().len() < before + 2 && letters(life) == 0 {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    is_tried(&life).await;
    let store = life.store.snapshot();
    life.end().await;

    machine.advance_ms(2 * notify.give_up_after_ms);
    let life = begin(store);
    life.desk.is(Mood::Bad);
    is_tried(&life).await;
    assert_eq!(letters(&life), 0, "nobody tried in the meantime");
    machine.advance_ms(notify.give_up_after_ms);
    is_tried(&life).await;
    assert_eq!(letters(&life), 1);
    life.end().await;
}

/// Memory reaches back 4096 events.
#[tokio::test(start_paused = true)]
async fn what_memory_does_not_hold_is_read_from_the_store() {
    let mut random = Random::from_env("long log");
    let machine = ManualMachine::new();
    let mut scenario = Scenario::with_batches(64);
    scenario.registry.events_per_service_max = 2;
    scenario.every = 700;
    let (terms, notify) = (scenario.registry.clone(), scenario.notify);
    let store = MemoryStore::default();
    let life = Life::begin(
        store,
        &machine,
        random.fork(),
        terms,
        notify,
        scenario.every,
    );
    let mut hand = Hand::of(&life, random.fork());
    hand.register(&life).await;
    subscribe(&life, 1, everything()).await;
    let active = Filter {
        states: vec![ServiceState::Active],
        ..everything()
    };
    subscribe(&life, 2, active).await;
    life.desk.is(Mood::Bad);
    let key = hand.keys[0].clone();
    let toggle = async |number: u32| {
        let state = match number % 2 {
            0 => ServiceState::Inactive,
            _ => ServiceState::Active,
        };
        hand.replace(&life, &key, bench::service(), state).await;
    };
    for number in 0..4500 {
        toggle(number).await;
    }
    let kept = |life: &Life| life.store.newest(usize::MAX).unwrap().len();
    assert!(kept(&life) >= 4500, "somebody is still to be told");
    life.desk.is(Mood::Moody);
    life.settled(&[], &BTreeMap::new()).await;
    check(&Past::default(), &life);
    // Once everybody knows, only what is kept for its own sake stays.
    for number in 0.. {
        if kept(&life) <= 2 {
            break;
        }
        toggle(number).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    let (diary, sent) = life.end().await;
    for past in Past::default().after(&diary, &sent) {
        relive(&past, &machine, &scenario, &mut random, 1).await;
    }
}
