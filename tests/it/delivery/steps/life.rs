//! One life of a registry and its notifier, with a copy of the store after every commit.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use mepulse::clock::{Machine, ManualMachine, Stopwatch};
use mepulse::domain::subscription::CallbackUri;
use mepulse::domain::{Event, ServiceId, Steady, Subscription};
use mepulse::metrics::Metrics;
use mepulse::notify::{self, Failure, Notifier, Post};
use mepulse::registry::{Boot, Registry, Running, Terms};
use mepulse::store::memory::MemoryStore;
use mepulse::store::{Armed, Batch, Error, EventLog, Loaded, Row, Store};
use mepulse::wire::Links;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::expected;
use crate::support::random::Random;

/// Waiting for something is given up then.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a store has committed.
#[derive(Default)]
pub(super) struct Diary {
    /// The store after each commit, or after some of them.
    pub(super) copies: Vec<MemoryStore>,
    /// With how many commits there were then.
    pub(super) events: Vec<(u64, Event)>,
}

/// A store that writes a diary.
struct Recorder {
    inner: MemoryStore,
    diary: Arc<Mutex<Diary>>,
    /// A copy is kept after every so many commits.
    every: u64,
}

impl Store for Recorder {
    fn load(&mut self, each: &mut dyn FnMut(Row)) -> Result<Loaded, Error> {
        self.inner.load(each)
    }

    fn commit(&mut self, batch: &Batch) -> Result<(), Error> {
        let mut diary = self.diary.lock().unwrap();
        // Before anybody can be told of it.
        let commits = self.inner.commits() + 1;
        let events = batch.events.iter().map(|event| (commits, event.clone()));
        diary.events.extend(events);
        self.inner.commit(batch)?;
        if commits.is_multiple_of(self.every) {
            diary.copies.push(self.inner.snapshot());
        }
        Ok(())
    }

    fn due(&self, until: Steady, max: usize) -> Result<Vec<Armed>, Error> {
        self.inner.due(until, max)
    }

    fn next_due(&self) -> Result<Option<Steady>, Error> {
        self.inner.next_due()
    }

    fn history(&self, service: ServiceId) -> Result<Vec<Event>, Error> {
        self.inner.history(service)
    }

    fn log(&self) -> Arc<dyn EventLog> {
        self.inner.log()
    }

    fn dead_letters(&self) -> Result<Vec<mepulse::domain::DeadLetter>, Error> {
        self.inner.dead_letters()
    }

    fn syncs(&self) -> u64 {
        self.inner.syncs()
    }

    fn close(self: Box<Self>) -> Result<(), Error> {
        Ok(())
    }

    fn abandon(self: Box<Self>) {}
}

/// One attempt to notify.
#[derive(Clone)]
pub(super) struct Sent {
    pub(super) to: String,
    pub(super) key: u64,
    pub(super) body: Bytes,
    /// Whether it arrived, whatever the server heard of that.
    pub(super) taken: bool,
    /// How many commits there were before.
    pub(super) commits: u64,
}

/// How callbacks behave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mood {
    /// As the random numbers have it.
    Moody,
    /// They take nothing.
    Bad,
}

/// Where all callbacks end.
#[derive(Clone)]
pub(super) struct Desk(Arc<Mutex<Papers>>);

struct Papers {
    store: MemoryStore,
    random: Random,
    mood: Mood,
    sent: Vec<Sent>,
}

impl Desk {
    pub(super) fn sent(&self) -> Vec<Sent> {
        self.0.lock().unwrap().sent.clone()
    }

    pub(super) fn is(&self, mood: Mood) {
        self.0.lock().unwrap().mood = mood;
    }
}

impl Post for Desk {
    fn post(
        &self,
        to: &CallbackUri,
        body: Bytes,
        key: u64,
    ) -> impl Future<Output = Result<(), Failure>> + Send {
        let (pause_ms, heard) = {
            let mut papers = self.0.lock().unwrap();
            let fate = match papers.mood {
                Mood::Moody => papers.random.below(4),
                Mood::Bad => 0,
            };
            // 0: it did not arrive; 1: it did, but the answer is lost.
            let commits = papers.store.commits();
            papers.sent.push(Sent {
                to: to.as_str().to_owned(),
                key,
                body,
                taken: fate > 0,
                commits,
            });
            (papers.random.next() % 1000, fate > 1)
        };
        async move {
            tokio::time::sleep(Duration::from_millis(pause_ms)).await;
            match heard {
                true => Ok(()),
                false => Err(Failure {
                    reason: "no luck".to_owned(),
                    retry_after: None,
                }),
            }
        }
    }
}

/// See the module.
pub(super) struct Life {
    pub(super) store: MemoryStore,
    pub(super) machine: ManualMachine,
    pub(super) desk: Desk,
    diary: Arc<Mutex<Diary>>,
    running: Running,
    stop: watch::Sender<bool>,
    notifier: JoinHandle<()>,
}

impl Life {
    pub(super) fn begin(
        store: MemoryStore,
        machine: &ManualMachine,
        random: Random,
        terms: Terms,
        notify: notify::Terms,
        every: u64,
    ) -> Self {
        let diary = Arc::new(Mutex::new(Diary::default()));
        let recorder = Recorder {
            inner: store.clone(),
            diary: diary.clone(),
            every,
        };
        let desk = Desk(Arc::new(Mutex::new(Papers {
            store: store.clone(),
            random,
            mood: Mood::Moody,
            sent: Vec::new(),
        })));
        let metrics = Arc::new(Metrics::new());
        let clocks: Arc<dyn Machine> = Arc::new(machine.clone());
        let boot = Boot::load(Box::new(recorder)).unwrap();
        let running = boot.start(terms, clocks, metrics.clone()).unwrap();
        let (stop, stopping) = watch::channel(false);
        let notifier = Notifier::new(
            running.registry().clone(),
            desk.clone(),
            Arc::new(Links::default()),
            metrics,
            notify,
            stopping,
        );
        Self {
            store,
            machine: machine.clone(),
            desk,
            diary,
            running,
            stop,
            notifier: tokio::spawn(notifier.run()),
        }
    }

    pub(super) fn registry(&self) -> &Registry {
        self.running.registry()
    }

    pub(super) fn subscriptions(&self) -> Vec<Arc<Subscription>> {
        let view = self.registry().view();
        let known = view.subscriptions();
        known.map(|known| known.subscription.clone()).collect()
    }

    /// What has happened in this life.
    pub(super) fn events(&self) -> BTreeMap<u64, Event> {
        let diary = self.diary.lock().unwrap();
        let events = diary.events.iter();
        events.map(|(_, e)| (e.sequence, e.clone())).collect()
    }

    /// Waits until everybody has been told of everything, here or `before`, or it was given up.
    pub(super) async fn settled(&self, before: &[Sent], past: &BTreeMap<u64, Event>) {
        let stopwatch = Stopwatch::start();
        loop {
            let sent = [before, &self.desk.sent()].concat();
            let mut events = past.clone();
            events.extend(self.events());
            let letters = self.store.dead_letters().unwrap();
            let missing = self.subscriptions().iter().find_map(|subscription| {
                let missing = expected::check(subscription, &events, &sent, &letters);
                (!missing.is_empty()).then(|| (subscription.callback.as_str().to_owned(), missing))
            });
            match missing {
                None => return,
                Some((to, missing)) => assert!(
                    stopwatch.elapsed() < PATIENCE,
                    "{to} is not told of {missing:?}"
                ),
            }
            tokio::time::sleep(Duration::from_secs(20)).await;
            // What is to be given up is given up by the clock.
            self.machine.advance_ms(20_000);
        }
    }

    /// Ends it, in good order; what is needed of it is in the copies.
    pub(super) async fn end(self) -> (Diary, Vec<Sent>) {
        self.stop.send_replace(true);
        self.notifier.await.unwrap();
        self.running.stop().unwrap();
        let diary = std::mem::take(&mut *self.diary.lock().unwrap());
        (diary, self.desk.sent())
    }
}
