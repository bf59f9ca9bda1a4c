//! A registry on a store in memory and on clocks that move by hand.

use std::sync::Arc;

use mepulse::clock::{Machine, ManualMachine};
use mepulse::domain::liveness::ServiceState;
use mepulse::domain::service::{Endpoint, JsonText, LivenessOffer, Locality, Transport};
use mepulse::domain::{
    AppInstanceId, Heartbeat, LivenessInterval, Policy, ProducerState, Service, ServiceKey,
};
use mepulse::metrics::Metrics;
use mepulse::registry::{Boot, Entry, Precondition, Registry, Rules, Running, Terms};
use mepulse::store::memory::MemoryStore;

/// Of the service below.
pub(crate) const INTERVAL_MS: u64 = 10_000;
/// Of that interval.
pub(crate) const GRACE_MS: u64 = 2_000;

pub(crate) fn terms() -> Terms {
    let secs = |s| LivenessInterval::from_secs(s).unwrap();
    Terms {
        rules: Rules {
            policy: Policy {
                default_interval: secs(30),
                min_interval: secs(1),
                max_interval: secs(3600),
                grace_percent: 20,
                grace_min_ms: GRACE_MS,
                blind_cap: 10,
                remove_after_ms: None,
            },
            auto_accept: true,
            subscriptions_max_per_app: 100,
            services_max_per_app: 1000,
        },
        queue_max: 4,
        linger_ms: 0,
        linger_commands: 8,
        mark_interval_ms: 1_000,
        idle_mark_interval_ms: 60_000,
        tick_ms: 100,
        stall_ms: 1_000,
        events_per_service_max: 100,
        events_kept_ms: 30 * 24 * 3_600_000,
    }
}

/// A registry on a store in memory and clocks that move by hand.
pub(crate) struct Bench {
    pub(crate) store: MemoryStore,
    pub(crate) machine: ManualMachine,
    pub(crate) running: Running,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::on(MemoryStore::default(), ManualMachine::new(), terms())
    }

    pub(crate) fn on(store: MemoryStore, machine: ManualMachine, terms: Terms) -> Self {
        let clocks: Arc<dyn Machine> = Arc::new(machine.clone());
        let boot = Boot::load(Box::new(store.clone())).unwrap();
        let running = boot.start(terms, clocks, Arc::new(Metrics::new())).unwrap();
        Self {
            store,
            machine,
            running,
        }
    }

    pub(crate) fn registry(&self) -> &Registry {
        self.running.registry()
    }

    /// One that takes no jump of the clock for a blind spot.
    pub(crate) fn unblinking() -> Self {
        let terms = Terms {
            stall_ms: 1 << 40,
            ..terms()
        };
        Self::on(MemoryStore::default(), ManualMachine::new(), terms)
    }

    /// Lets time pass under watch, and everything due be judged.
    pub(crate) async fn pass(&self, ms: u64) {
        let mut left_ms = ms;
        while left_ms > 0 {
            let step_ms = left_ms.min(1_000);
            self.machine.advance_ms(step_ms);
            self.registry().settle().await;
            left_ms -= step_ms;
        }
    }

    pub(crate) async fn register(&self) -> ServiceKey {
        let app = AppInstanceId::parse("app").unwrap();
        self.registry()
            .register(app, service(), ProducerState::Active)
            .await
            .unwrap()
            .key
    }

    pub(crate) async fn beat(&self, key: &ServiceKey) {
        self.registry()
            .heartbeat(key.clone(), Heartbeat::default(), Precondition::NONE)
            .await
            .unwrap();
    }

    pub(crate) fn entry(&self, key: &ServiceKey) -> Entry {
        self.registry().view().service_of(key).unwrap().clone()
    }

    pub(crate) fn state(&self, key: &ServiceKey) -> ServiceState {
        self.entry(key).liveness.state()
    }

    /// The process dies without a word; a new one starts on the same data.
    pub(crate) fn crash(self, terms: Terms, outage: impl FnOnce(&ManualMachine)) -> Self {
        // What a crash leaves behind is what was committed.
        let store = self.store.snapshot();
        outage(&self.machine);
        Self::on(store, self.machine.clone(), terms)
    }
}

/// Offers heartbeats every ten seconds.
pub(crate) fn service() -> Service {
    Service {
        name: "cam".into(),
        category: None,
        version: "1".into(),
        serializer: "JSON".into(),
        transport: Transport {
            id: "t".into(),
            name: "REST".into(),
            description: None,
            kind: "REST_HTTP".into(),
            protocol: "HTTP".into(),
            version: "2".into(),
            endpoint: Endpoint::Uris(vec!["http://a".into()]),
            security: JsonText::from_json("{}".into()),
            impl_specific_info: None,
        },
        scope_of_locality: Locality::MecHost,
        consumed_local_only: true,
        liveness_offer: Some(LivenessOffer::Seconds(10)),
    }
}
