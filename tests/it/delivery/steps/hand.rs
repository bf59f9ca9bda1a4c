//! Somebody who changes the registry, at random.

use std::time::Duration;

use mepulse::domain::service::Category;
use mepulse::domain::subscription::{CallbackUri, Filter};
use mepulse::domain::{
    AppInstanceId, Heartbeat, ProducerState, Selection, Service, ServiceKey, ServiceState,
};
use mepulse::registry::Precondition;

use super::life::Life;
use crate::support::bench::{self, GRACE_MS, INTERVAL_MS};
use crate::support::random::Random;

/// Names and categories of services.
const NAMES: [&str; 3] = ["cam", "map", "news"];

/// See the module.
pub(super) struct Hand {
    random: Random,
    pub(super) keys: Vec<ServiceKey>,
}

fn app() -> AppInstanceId {
    AppInstanceId::parse("app").unwrap()
}

fn category(id: &str) -> Category {
    Category {
        href: "/c".into(),
        id: id.into(),
        name: id.into(),
        version: "1".into(),
    }
}

impl Hand {
    /// One that goes on where another stopped.
    pub(super) fn of(life: &Life, random: Random) -> Self {
        let view = life.registry().view();
        let keys = view.services().map(|entry| entry.key.clone()).collect();
        Self { random, keys }
    }

    fn service(&mut self) -> Service {
        let any = |random: &mut Random| NAMES[random.below(3)];
        Service {
            name: any(&mut self.random).into(),
            category: (!self.random.once_in(3)).then(|| category(any(&mut self.random))),
            ..bench::service()
        }
    }

    pub(super) async fn register(&mut self, life: &Life) {
        let service = self.service();
        let registered = life
            .registry()
            .register(app(), service, ProducerState::Active);
        self.keys.push(registered.await.unwrap().key);
    }

    pub(super) async fn replace(
        &self,
        life: &Life,
        key: &ServiceKey,
        service: Service,
        state: ServiceState,
    ) {
        let key = key.clone();
        let replaced = life
            .registry()
            .replace(key, service, state, Precondition::NONE);
        replaced.await.unwrap();
    }

    /// Does something that somebody may have to be told of.
    pub(super) async fn act(&mut self, life: &Life) {
        let registry = life.registry();
        if self.keys.is_empty() {
            return self.register(life).await;
        }
        let key = self.keys[self.random.below(self.keys.len())].clone();
        let entry = registry.view().service_of(&key).unwrap().clone();
        let known = entry.service.service();
        let state = match entry.liveness.state() {
            ServiceState::Suspended => ServiceState::Active,
            state => state,
        };
        match self.random.below(16) {
            0..3 if self.keys.len() < 6 => self.register(life).await,
            3 => {
                registry.remove(key.clone()).await.unwrap();
                self.keys.retain(|other| *other != key);
            }
            4..7 => {
                let renamed = self.service();
                self.replace(life, &key, renamed, state).await;
            }
            7..10 => {
                let other = match state {
                    ServiceState::Active => ServiceState::Inactive,
                    _ => ServiceState::Active,
                };
                self.replace(life, &key, known, other).await;
            }
            10 => {
                let changed = Service {
                    version: self.random.next().to_string(),
                    ..known
                };
                self.replace(life, &key, changed, state).await;
            }
            // Everybody who is ACTIVE falls silent.
            11 => {
                for _ in 0..(INTERVAL_MS + GRACE_MS).div_ceil(1000) {
                    life.machine.advance_ms(1000);
                    registry.settle().await;
                }
            }
            12 => self.subscribe(life).await,
            // Everybody may catch up.
            13 => tokio::time::sleep(Duration::from_secs(5)).await,
            // One that is INACTIVE is refused, which changes nothing.
            _ => drop(
                registry
                    .heartbeat(key, Heartbeat::default(), Precondition::NONE)
                    .await,
            ),
        }
    }

    /// Somebody comes who wants something else; and if there are many, somebody goes.
    pub(super) async fn subscribe(&mut self, life: &Life) {
        let words = |random: &mut Random| -> Vec<String> {
            let count = random.below(2) + 1;
            (0..count).map(|_| NAMES[random.below(3)].into()).collect()
        };
        let selection = match self.random.below(4) {
            0 => Selection::All,
            1 => Selection::Names(words(&mut self.random)),
            2 => {
                let ids = words(&mut self.random);
                Selection::Categories(ids.iter().map(|id| category(id)).collect())
            }
            _ => {
                let ids = self.keys.iter().map(|key| key.service.to_string());
                Selection::Ids(ids.take(2).collect())
            }
        };
        let states = match self.random.below(3) {
            0 => vec![ServiceState::Suspended],
            1 => vec![ServiceState::Active, ServiceState::Inactive],
            _ => Vec::new(),
        };
        let filter = Filter {
            selection,
            states,
            is_local: self.random.once_in(2).then_some(true),
        };
        subscribe(life, self.random.next(), filter).await;
        let known = life.subscriptions();
        if known.len() > 6 {
            let gone = known[self.random.below(known.len())].id;
            life.registry().unsubscribe(app(), gone).await.unwrap();
        }
    }
}

pub(super) fn everything() -> Filter {
    Filter {
        selection: Selection::All,
        states: Vec::new(),
        is_local: None,
    }
}

pub(super) async fn subscribe(life: &Life, number: u64, filter: Filter) {
    let callback = CallbackUri::parse(&format!("http://consumer/{number}")).unwrap();
    let subscribed = life.registry().subscribe(app(), callback, filter);
    subscribed.await.unwrap();
}
