//! Every metric by name, with its unit. Served as OpenMetrics text.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::domain::{BlindCause, ServiceState};

/// All metrics of the process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Heartbeats accepted, those of batches included.
    pub heartbeats: Counter,
    /// Services registered.
    pub registrations: Counter,
    /// Services removed by their producers.
    pub deregistrations: Counter,
    /// Services suspended for silence.
    pub verdicts: Counter,
    /// Suspended services removed because they did not come back.
    pub removals: Counter,
    /// Suspended services that beat again.
    pub revivals: Counter,
    /// Writes refused because the queue was full.
    pub refused: Counter,
    /// Commits.
    pub commits: Counter,
    /// Syncs of the disk for commits.
    pub syncs: Counter,
    /// How long a commit took.
    pub commit_seconds: Histogram,
    expiry_lag_seconds: Histogram,
    /// Rows skipped at start because they cannot be decoded.
    pub undecodable_rows: Gauge,
    /// Open connections.
    pub connections: Gauge,
    /// Connections refused because too many were open.
    pub connections_refused: Counter,
    /// TLS handshakes that came to nothing.
    pub tls_handshakes_failed: Counter,
    /// When the server's certificate ends, in seconds since the epoch; 0: no TLS.
    pub tls_certificate_end: Gauge,
    /// Requests that did not prove who makes them.
    pub unauthenticated: Counter,
    /// Tokens issued.
    pub tokens_issued: Counter,
    /// Requests for tokens that were refused.
    pub tokens_refused: Counter,
    /// Commands that wait for the writer; set when scraped.
    pub queue_depth: Gauge,
    /// Known applications; set when scraped.
    pub apps: Gauge,
    /// Subscriptions; set when scraped.
    pub subscriptions: Gauge,
    /// Subscriptions whose callback does not take notifications; set when scraped.
    pub subscriptions_failing: Gauge,
    /// Attempts to notify that failed.
    pub notifications_failed: Counter,
    /// Events that were given up.
    pub dead_letters: Counter,
    /// Open streams of events.
    pub event_streams: Gauge,
    notified_events: Counter,
    notification_delay_seconds: Histogram,
    services: Family<StateLabel, Gauge>,
    responses: Family<CodeLabel, Counter>,
    blind_seconds: Family<CauseLabel, Counter<f64, AtomicU64>>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct StateLabel {
    state: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct CodeLabel {
    code: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct CauseLabel {
    cause: &'static str,
}

/// From 100 µs (a fast disk) to 10 s (a stalled one).
const SECONDS: [f64; 16] = [
    0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
];

impl Metrics {
    /// All at zero.
    #[must_use]
    pub fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("mepulse"),
            heartbeats: Counter::default(),
            registrations: Counter::default(),
            deregistrations: Counter::default(),
            verdicts: Counter::default(),
            removals: Counter::default(),
            revivals: Counter::default(),
            refused: Counter::default(),
            commits: Counter::default(),
            syncs: Counter::default(),
            commit_seconds: Histogram::new(SECONDS),
            expiry_lag_seconds: Histogram::new(SECONDS),
            undecodable_rows: Gauge::default(),
            connections: Gauge::default(),
            connections_refused: Counter::default(),
            tls_handshakes_failed: Counter::default(),
            tls_certificate_end: Gauge::default(),
            unauthenticated: Counter::default(),
            tokens_issued: Counter::default(),
            tokens_refused: Counter::default(),
            queue_depth: Gauge::default(),
            apps: Gauge::default(),
            subscriptions: Gauge::default(),
            subscriptions_failing: Gauge::default(),
            notifications_failed: Counter::default(),
            dead_letters: Counter::default(),
            event_streams: Gauge::default(),
            notified_events: Counter::default(),
            notification_delay_seconds: Histogram::new(SECONDS),
            services: Family::default(),
            responses: Family::default(),
            blind_seconds: Family::default(),
        };
        metrics.name_all();
        metrics.name_notifications();
        metrics.name_callers();
        metrics
    }

    fn name_all(&mut self) {
        let registry = &mut self.registry;
        registry.register("heartbeats", "Heartbeats accepted", self.heartbeats.clone());
        registry.register(
            "registrations",
            "Services registered",
            self.registrations.clone(),
        );
        registry.register(
            "deregistrations",
            "Services removed by their producers",
            self.deregistrations.clone(),
        );
        registry.register(
            "verdicts",
            "Services suspended for silence",
            self.verdicts.clone(),
        );
        registry.register(
            "removals",
            "Suspended services removed because they did not come back",
            self.removals.clone(),
        );
        registry.register(
            "revivals",
            "Suspended services that beat again",
            self.revivals.clone(),
        );
        registry.register(
            "refused",
            "Writes refused: the queue was full",
            self.refused.clone(),
        );
        registry.register("commits", "Commits to the store", self.commits.clone());
        registry.register(
            "fsyncs",
            "Syncs of the disk for commits",
            self.syncs.clone(),
        );
        registry.register_with_unit(
            "commit",
            "How long a commit took",
            Unit::Seconds,
            self.commit_seconds.clone(),
        );
        registry.register_with_unit(
            "expiry_lag",
            "From a deadline to the committed verdict",
            Unit::Seconds,
            self.expiry_lag_seconds.clone(),
        );
        registry.register(
            "undecodable_rows",
            "Rows skipped at start because they cannot be decoded",
            self.undecodable_rows.clone(),
        );
        registry.register("connections", "Open connections", self.connections.clone());
        registry.register(
            "connections_refused",
            "Connections refused: too many were open",
            self.connections_refused.clone(),
        );
        registry.register(
            "queue_depth",
            "Writes that wait for the disk",
            self.queue_depth.clone(),
        );
        registry.register("apps", "Known application instances", self.apps.clone());
        registry.register(
            "services",
            "Registered services by state",
            self.services.clone(),
        );
        registry.register(
            "http_responses",
            "Answers by status code",
            self.responses.clone(),
        );
        registry.register_with_unit(
            "blind",
            "Time that was not watched, by cause",
            Unit::Seconds,
            self.blind_seconds.clone(),
        );
    }

    fn name_callers(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "tls_handshakes_failed",
            "TLS handshakes that came to nothing",
            self.tls_handshakes_failed.clone(),
        );
        registry.register_with_unit(
            "tls_certificate_end",
            "When the server's certificate ends, since the epoch; 0 without TLS",
            Unit::Seconds,
            self.tls_certificate_end.clone(),
        );
        registry.register(
            "unauthenticated",
            "Requests that did not prove who makes them",
            self.unauthenticated.clone(),
        );
        registry.register("tokens_issued", "Tokens issued", self.tokens_issued.clone());
        registry.register(
            "tokens_refused",
            "Requests for tokens that were refused",
            self.tokens_refused.clone(),
        );
    }

    fn name_notifications(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "subscriptions",
            "Subscriptions to service availability",
            self.subscriptions.clone(),
        );
        registry.register(
            "subscriptions_failing",
            "Subscriptions whose callback does not take notifications",
            self.subscriptions_failing.clone(),
        );
        registry.register(
            "notified_events",
            "Events that subscribers took, each counted once for each of them",
            self.notified_events.clone(),
        );
        registry.register(
            "notifications_failed",
            "Attempts to notify that failed",
            self.notifications_failed.clone(),
        );
        registry.register(
            "dead_letters",
            "Events that could not be delivered in time",
            self.dead_letters.clone(),
        );
        registry.register_with_unit(
            "notification_delay",
            "From an event to the subscriber's answer",
            Unit::Seconds,
            self.notification_delay_seconds.clone(),
        );
        registry.register(
            "event_streams",
            "Open streams of events",
            self.event_streams.clone(),
        );
    }

    /// A verdict was committed so many milliseconds after its deadline.
    pub fn expired(&self, lag_ms: u64) {
        self.expiry_lag_seconds.observe(seconds(lag_ms));
    }

    /// A subscriber took events that were so old, in milliseconds.
    pub fn notified(&self, ages_ms: impl Iterator<Item = u64>) {
        for age_ms in ages_ms {
            self.notified_events.inc();
            self.notification_delay_seconds.observe(seconds(age_ms));
        }
    }

    /// Counts an answer.
    pub fn response(&self, code: u16) {
        self.responses.get_or_create(&CodeLabel { code }).inc();
    }

    /// Counts a blind spot.
    pub fn blind(&self, cause: BlindCause, length_ms: u64) {
        let label = CauseLabel {
            cause: cause.as_str(),
        };
        self.blind_seconds
            .get_or_create(&label)
            .inc_by(seconds(length_ms));
    }

    /// Sets how many services are in a state.
    pub fn set_services(&self, state: ServiceState, count: usize) {
        let label = StateLabel {
            state: state.as_str(),
        };
        self.services
            .get_or_create(&label)
            .set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// The OpenMetrics text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }
}

fn seconds(ms: u64) -> f64 {
    #[expect(
        clippy::cast_precision_loss,
        reason = "milliseconds are far below 2^53"
    )]
    let ms = ms as f64;
    ms / 1000.0
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}
