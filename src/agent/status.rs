//! What the agent tells of itself: `/healthz`, `/status` (JSON) and `/metrics`, on a local socket.

use std::sync::Arc;

use http::Response;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use serde::Serialize;
use serde_json::json;
use tokio::sync::{mpsc, oneshot};
use warp::filters::BoxedFilter;
use warp::reply::Response as Answer;
use warp::{Filter, Reply};

use super::local::Local;
use super::service::{Health, Service, Stage};
use super::settle::Settled;
use super::token::Source;
use super::{Agent, Order};
use crate::domain::{Moment, Steady};

/// How things stand.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The platform.
    server: String,
    app_instance_id: String,
    /// Whether the last request was answered.
    reached: bool,
    /// Tries in a row that were not.
    failures: u32,
    /// What every beat promises, in seconds; absent: nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_interval: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_beat_in_ms: Option<u64>,
    /// The server has asked to be left alone for longer than was promised to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    left_alone_for_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<String>,
    /// Why there is no fresh token; the old one may still hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    token_error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_ends_in_s: Option<u64>,
    /// Beats that need a token wait for this, whatever was promised.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token_try_in_ms: Option<u64>,
    services: Vec<ServiceStatus>,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct ServiceStatus {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    state: &'static str,
    probe: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    probe_error: Option<String>,
    interval: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_beat_ms_ago: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_beat_in_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<String>,
}

/// The states of a service, as [`Status`] names them.
const STATES: [&str; 6] = [
    "unregistered",
    "beating",
    "silent",
    "inactive",
    "conflict",
    "no-beats",
];

/// Unregistered: not known to the platform (yet). Beating. Silent: its probe says no. Inactive: it
/// was set so because its probe says no. Conflict: somebody else has set it INACTIVE. No-beats: the
/// platform wants none.
fn state_of(service: &Service) -> &'static str {
    match &service.stage {
        Stage::Unsettled => "unregistered",
        Stage::Conflict(_) => "conflict",
        Stage::Settled(info) if info.inactive => "inactive",
        Stage::Settled(info) if info.beat.is_none() => "no-beats",
        Stage::Settled(_) if service.beats() => "beating",
        Stage::Settled(_) => "silent",
    }
}

fn probe_of(service: &Service) -> &'static str {
    match service.verdict.health() {
        _ if service.config.probe.is_none() => "none",
        Health::Unknown => "unknown",
        Health::Healthy => "healthy",
        Health::Unhealthy => "unhealthy",
    }
}

pub(super) fn report(agent: &Agent, now: Moment) -> Status {
    let until = |at: Steady| at.ms_since(now.steady);
    let next_beat_in_ms = agent.pace.next().map(until);
    let services = agent.services.iter().map(|(name, service)| ServiceStatus {
        name: name.clone(),
        id: service.info().map(|info| info.id.clone()),
        state: state_of(service),
        probe: probe_of(service),
        probe_error: service.verdict.reason.clone(),
        interval: service.interval_s(),
        last_beat_ms_ago: service
            .last_beat
            .map(|beat| now.steady.ms_since(beat.steady)),
        next_beat_in_ms: next_beat_in_ms.filter(|_| service.beats()),
        last_error: service.last_error.clone(),
    });
    let failures = agent.pace.failures().max(agent.troubles);
    let token = agent.client.token();
    let status = Status {
        server: agent.config.server.url.clone(),
        app_instance_id: agent.config.agent.app_instance_id.clone(),
        reached: failures == 0,
        failures,
        retry_interval: agent.terms().and_then(|terms| terms.promise_s),
        next_beat_in_ms,
        left_alone_for_ms: agent.pace.left_alone_until().map(until),
        last_error: agent.last_error.clone(),
        token_error: token.and_then(Source::error),
        token_ends_in_s: token.and_then(Source::ends_in_s),
        next_token_try_in_ms: token.and_then(Source::next_try_in_ms),
        services: services.collect(),
    };
    agent.meters.set(&status);
    status
}

/// The agent's metrics.
#[derive(Debug)]
pub struct Meters {
    registry: Registry,
    /// Beats that were heard, one for each service.
    pub(super) beats: Counter,
    /// Requests that carried beats.
    pub(super) requests: Counter,
    /// Rounds of beats that were not heard.
    pub(super) missed: Counter,
    /// Times that the server was reached again.
    pub(super) reconnects: Counter,
    registrations: Counter,
    surplus: Counter,
    conflicts: Counter,
    reached: Gauge,
    /// Of the token endpoint.
    pub(super) token: TokenMeters,
    token_ends_in_s: Gauge,
    services: Family<StateLabel, Gauge>,
}

/// What is counted of fetches of tokens.
#[derive(Debug, Clone, Default)]
pub(super) struct TokenMeters {
    /// All of them.
    pub(super) fetches: Counter,
    /// Those that brought no token.
    pub(super) failures: Counter,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct StateLabel {
    state: &'static str,
}

impl Meters {
    /// All at zero.
    #[must_use]
    pub fn new() -> Self {
        let mut meters = Self {
            registry: Registry::with_prefix("mepulse_agent"),
            beats: Counter::default(),
            requests: Counter::default(),
            missed: Counter::default(),
            reconnects: Counter::default(),
            registrations: Counter::default(),
            surplus: Counter::default(),
            conflicts: Counter::default(),
            reached: Gauge::default(),
            token: TokenMeters::default(),
            token_ends_in_s: Gauge::default(),
            services: Family::default(),
        };
        let registry = &mut meters.registry;
        for (name, help, counter) in [
            ("beats", "Beats heard, one for each service", &meters.beats),
            (
                "beat_requests",
                "Requests that carried beats",
                &meters.requests,
            ),
            (
                "rounds_missed",
                "Rounds of beats that were not heard",
                &meters.missed,
            ),
            (
                "reconnects",
                "Times that the server was reached again",
                &meters.reconnects,
            ),
            (
                "registrations",
                "Services registered",
                &meters.registrations,
            ),
            (
                "surplus_removed",
                "Registrations of a name removed because there were two",
                &meters.surplus,
            ),
            (
                "conflicts",
                "Services found INACTIVE by somebody else",
                &meters.conflicts,
            ),
            (
                "token_fetches",
                "Requests for a token",
                &meters.token.fetches,
            ),
            (
                "token_failures",
                "Requests for a token that brought none",
                &meters.token.failures,
            ),
        ] {
            registry.register(name, help, counter.clone());
        }
        registry.register(
            "server_reached",
            "Whether the last request was answered",
            meters.reached.clone(),
        );
        registry.register(
            "token_ends_in_seconds",
            "How long the token still holds; 0 where there is none, or nobody knows",
            meters.token_ends_in_s.clone(),
        );
        registry.register(
            "services",
            "Services by state, as /status names it",
            meters.services.clone(),
        );
        meters
    }

    pub(super) fn settled(&self, settled: &Settled) {
        self.registrations.inc_by(settled.fresh.into());
        self.conflicts.inc_by(settled.conflict.into());
        self.surplus.inc_by(settled.surplus as u64);
    }

    fn set(&self, status: &Status) {
        self.reached.set(status.reached.into());
        let secs = status.token_ends_in_s.unwrap_or(0);
        self.token_ends_in_s
            .set(i64::try_from(secs).unwrap_or(i64::MAX));
        for state in STATES {
            let count = status.services.iter().filter(|s| s.state == state).count();
            self.services
                .get_or_create(&StateLabel { state })
                .set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }
}

impl Default for Meters {
    fn default() -> Self {
        Self::new()
    }
}

/// What is served; `orders` leads to the agent.
#[must_use]
pub fn routes(
    orders: &mpsc::Sender<Order>,
    meters: &Arc<Meters>,
    local: Local,
) -> BoxedFilter<(Answer,)> {
    use warp::path;
    let orders = orders.clone();
    let asked = warp::any().and_then(move || {
        let orders = orders.clone();
        async move { ask(orders).await.ok_or_else(warp::reject::not_found) }
    });
    let meters = meters.clone();
    let get = || warp::get().or(warp::head()).unify();
    let healthz = path("healthz")
        .and(path::end())
        .and(get())
        .map(|| warp::reply::json(&json!({"status": "ok"})).into_response());
    let status = path("status")
        .and(path::end())
        .and(get())
        .and(asked.clone())
        .map(|status: Status| warp::reply::json(&status).into_response());
    let metrics = path("metrics")
        .and(path::end())
        .and(get())
        .and(asked)
        .map(move |_: Status| {
            let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            let mut answer = Response::new(meters.text()).into_response();
            let value = http::HeaderValue::from_static(content_type);
            answer
                .headers_mut()
                .insert(http::header::CONTENT_TYPE, value);
            answer
        });
    healthz
        .or(status)
        .unify()
        .or(metrics)
        .unify()
        .or(local.routes())
        .unify()
        .recover(|_| async {
            let nothing = json!({"detail": "there are /healthz, /status, /metrics, \
                /mep-agent/v1/token and /mep-agent/v1/endpoint/{serName}, with GET"});
            let mut answer = warp::reply::json(&nothing).into_response();
            *answer.status_mut() = http::StatusCode::NOT_FOUND;
            Ok::<_, std::convert::Infallible>(answer)
        })
        .unify()
        .boxed()
}

/// `None`: the agent is about to end.
async fn ask(orders: mpsc::Sender<Order>) -> Option<Status> {
    let (asker, answer) = oneshot::channel();
    orders.send(Order::Report(asker)).await.ok()?;
    answer.await.ok()
}
