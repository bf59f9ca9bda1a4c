//! Commands around one application that meet in one batch of the writer.

use std::mem::{Discriminant, discriminant};

use mepulse::clock::ManualMachine;
use mepulse::domain::liveness::ServiceState;
use mepulse::domain::service::JsonText;
use mepulse::domain::subscription::{CallbackUri, Filter};
use mepulse::domain::{
    AppInfo, AppInstanceId, Cursor, DeadLetter, Happening, Heartbeat, ProducerState, Selection,
    ServiceKey, Steady, Subscription, SubscriptionId, Wall,
};
use mepulse::registry::{Boot, Error, Precondition, Registry, Rules, Terms, Told, View};
use mepulse::store::memory::MemoryStore;

use crate::support::bench::{Bench, service, terms};

/// What may meet.
#[derive(Debug, Clone, Copy)]
enum Step {
    RemoveApp,
    RegisterApp,
    ReplaceApp,
    Register,
    Remove,
    Beat,
    Subscribe,
    Unsubscribe,
    Told,
}

const STEPS: [Step; 9] = [
    Step::RemoveApp,
    Step::RegisterApp,
    Step::ReplaceApp,
    Step::Register,
    Step::Remove,
    Step::Beat,
    Step::Subscribe,
    Step::Unsubscribe,
    Step::Told,
];

type Heard = Result<(), Discriminant<Error>>;

/// An application with a service and a subscription.
struct Scene {
    bench: Bench,
    key: ServiceKey,
    subscription: SubscriptionId,
}

fn info(name: &str) -> AppInfo {
    AppInfo {
        name: name.to_owned(),
        json: JsonText::from_json(format!("{{\"appName\":\"{name}\"}}")),
    }
}

async fn subscribe(registry: &Registry, app: AppInstanceId) -> Result<SubscriptionId, Error> {
    let callback = CallbackUri::parse("http://192.0.2.1/").unwrap();
    let filter = Filter {
        selection: Selection::All,
        states: Vec::new(),
        is_local: None,
    };
    let made = registry.subscribe(app, callback, filter).await;
    made.map(|subscription: std::sync::Arc<Subscription>| subscription.id)
}

impl Scene {
    async fn set() -> Self {
        // Small shares: what goes with an application weighs on its batch.
        let terms = Terms {
            stall_ms: 1 << 40,
            rules: Rules {
                services_max_per_app: 10,
                subscriptions_max_per_app: 10,
                ..terms().rules
            },
            ..terms()
        };
        let bench = Bench::on(MemoryStore::default(), ManualMachine::new(), terms);
        let key = bench.register().await;
        let subscription = subscribe(bench.registry(), key.app.clone()).await.unwrap();
        bench.machine.advance_ms(1_000);
        Self {
            bench,
            key,
            subscription,
        }
    }

    /// What a step does, as a task of its own.
    fn take(&self, step: Step) -> impl Future<Output = Heard> + Send + 'static {
        let registry = self.bench.registry().clone();
        let (key, subscription) = (self.key.clone(), self.subscription);
        async move {
            let app = key.app.clone();
            let heard = match step {
                Step::RemoveApp => registry.remove_app(app).await,
                Step::RegisterApp => registry.register_app(app, info("one")).await,
                Step::ReplaceApp => registry.replace_app(app, info("two")).await,
                Step::Register => {
                    let made = registry
                        .register(app, service(), ProducerState::Active)
                        .await;
                    made.map(drop)
                }
                Step::Remove => registry.remove(key).await,
                Step::Beat => {
                    let beat = Heartbeat::default();
                    registry
                        .heartbeat(key, beat, Precondition::NONE)
                        .await
                        .map(drop)
                }
                Step::Subscribe => subscribe(&registry, app).await.map(drop),
                Step::Unsubscribe => registry.unsubscribe(app, subscription).await,
                Step::Told => {
                    let letter = DeadLetter {
                        subscription,
                        sequence: 0,
                        at: Wall::from_ns(0),
                        error: "refused".into(),
                    };
                    let told = Told {
                        subscription,
                        cursor: Cursor::at(1),
                        dead_letters: vec![letter],
                    };
                    registry.advance(vec![told]).await
                }
            };
            heard.map_err(|error| discriminant(&error))
        }
    }

    async fn in_one_batch(&self, steps: &[Step]) -> Vec<Heard> {
        let registry = self.bench.registry();
        let store = &self.bench.store;
        store.hold_commits(true);
        // A commit that hangs keeps the writer busy while the others line up.
        let blocker = tokio::spawn({
            let registry = registry.clone();
            async move {
                let mut plain = service();
                plain.liveness_offer = None;
                let app = AppInstanceId::parse("other").unwrap();
                registry.register(app, plain, ProducerState::Active).await
            }
        });
        while store.waiting() == 0 {
            tokio::task::yield_now().await;
        }
        let mut tasks = Vec::new();
        for step in steps {
            let waiting = registry.queue_depth();
            tasks.push(tokio::spawn(self.take(*step)));
            while registry.queue_depth() == waiting {
                tokio::task::yield_now().await;
            }
        }
        let commits = store.commits();
        store.hold_commits(false);
        blocker.await.unwrap().unwrap();
        let mut heard = Vec::new();
        for task in tasks {
            heard.push(task.await.unwrap());
        }
        assert!(
            store.commits() <= commits + 2,
            "{steps:?} were to be one batch"
        );
        heard
    }

    async fn one_by_one(&self, steps: &[Step]) -> Vec<Heard> {
        let mut plain = service();
        plain.liveness_offer = None;
        let app = AppInstanceId::parse("other").unwrap();
        let other = self
            .bench
            .registry()
            .register(app, plain, ProducerState::Active);
        other.await.unwrap();
        let mut heard = Vec::new();
        for step in steps {
            heard.push(tokio::spawn(self.take(*step)).await.unwrap());
        }
        heard
    }

    /// Everything that came of it, but for random ids.
    async fn end(&self) -> End {
        let store = &self.bench.store;
        let registry = self.bench.registry();
        let loaded = Boot::load(Box::new(store.snapshot())).unwrap();
        let content = self.content(&registry.view());
        assert_eq!(
            content,
            self.content(loaded.view()),
            "the disk and the view"
        );
        let view_has = |id| registry.view().subscription(&id).is_some();
        let letters = registry.dead_letters().await.unwrap();
        assert!(
            letters.iter().all(|letter| view_has(letter.subscription)),
            "{letters:?}"
        );
        let cursor = store.cursor(self.subscription);
        assert!(
            cursor.is_none() || view_has(self.subscription),
            "{cursor:?}"
        );
        let mut armed: Vec<_> = registry
            .view()
            .services()
            .filter_map(|entry| entry.armed)
            .collect();
        armed.sort();
        let expiry: Vec<_> = store.expiry().into_iter().map(|entry| entry.at).collect();
        assert_eq!(expiry, armed, "one index entry per timer");
        let events = registry.events(0, 100).await.unwrap();
        End {
            content,
            cursor,
            letters: letters.len(),
            expiry,
            events: events
                .events
                .iter()
                .map(|event| discriminant(&event.what))
                .collect(),
        }
    }

    fn content(&self, view: &View) -> Content {
        let app = view.app(&self.key.app);
        let mut services: Vec<_> = app
            .into_iter()
            .flat_map(|app| &app.services)
            .map(|id| {
                let entry = view.service(id).unwrap();
                let beats = entry.liveness.monitored().unwrap().beats;
                (
                    *id == self.key.service,
                    entry.liveness.state(),
                    beats,
                    entry.armed,
                )
            })
            .collect();
        services.sort_by_key(|service| (service.0, service.3));
        let mut subscriptions: Vec<_> = app
            .into_iter()
            .flat_map(|app| &app.subscriptions)
            .map(|id| {
                let known = view.subscription(id).unwrap();
                (
                    *id == self.subscription,
                    known.subscription.from,
                    known.cursor.next,
                )
            })
            .collect();
        subscriptions.sort_unstable();
        assert_eq!(view.subscriptions().count(), subscriptions.len());
        assert_eq!(view.services().count(), services.len() + 1);
        Content {
            app: app.map(|app| app.record.info.as_ref().map(|info| info.name.clone())),
            services,
            subscriptions,
        }
    }
}

#[derive(Debug, PartialEq)]
struct Content {
    /// What it says of itself, where it is known.
    app: Option<Option<String>>,
    /// Whether it is the first one, its state, beats and timer.
    services: Vec<(bool, ServiceState, u64, Option<Steady>)>,
    /// Whether it is the first one, since when it is told, what it is told next.
    subscriptions: Vec<(bool, u64, u64)>,
}

#[derive(Debug, PartialEq)]
struct End {
    content: Content,
    cursor: Option<Cursor>,
    letters: usize,
    expiry: Vec<Steady>,
    events: Vec<Discriminant<Happening>>,
}

#[tokio::test]
async fn a_batch_around_an_application_ends_as_its_commands_would_one_by_one() {
    let mut sequences: Vec<Vec<Step>> = vec![Vec::new()];
    for _ in 0..3 {
        let longer = sequences.iter().flat_map(|sequence| {
            STEPS.map(|step| sequence.iter().copied().chain([step]).collect::<Vec<_>>())
        });
        sequences = longer.collect();
        for steps in &sequences {
            let (batched, single) = (Scene::set().await, Scene::set().await);
            assert_eq!(
                batched.in_one_batch(steps).await,
                single.one_by_one(steps).await,
                "{steps:?}"
            );
            assert_eq!(batched.end().await, single.end().await, "{steps:?}");
        }
    }
}
