//! For the operator and the orchestrator: health, readiness, metrics, version, the API's document.

use prometheus_client::metrics::gauge::Gauge;
use serde_json::json;
use warp::reply::Response as Answer;

use super::Api;
use super::answer::{self, Problem};
use super::request::Request;
use crate::domain::ServiceState;

/// `/healthz`: the process is alive.
pub(super) async fn healthz(request: Request, _: Api) -> Result<Answer, Problem> {
    request.only_get()?;
    Ok(answer::ok(&json!({"status": "ok"})))
}

/// `/health`: the same, as EdgeGallery's platform says it.
pub(super) async fn health(request: Request, _: Api) -> Result<Answer, Problem> {
    request.only_get()?;
    Ok(answer::ok_text("text/plain; charset=utf-8", "ok"))
}

/// `/readyz`: the store commits and verdicts are on time; and what the truth depends on.
pub(super) async fn readyz(request: Request, api: Api) -> Result<Answer, Problem> {
    request.only_get()?;
    let condition = api.registry.condition();
    if !condition.not_ready.is_empty() {
        return Err(Problem::not_ready(condition.not_ready));
    }
    let now = api.registry.now().steady;
    let last_blind_spot = condition.last_blind_spot.map(|spot| {
        json!({
            "cause": spot.cause.as_str(),
            "lengthMs": spot.end.ms_since(spot.start),
            "endedMsAgo": now.ms_since(spot.end),
        })
    });
    Ok(answer::ok(&json!({
        "status": "ready",
        "lastCommitMs": condition.last_commit_ms,
        "pulseAgeMs": condition.pulse_age_ms,
        "verdictsLateMs": condition.verdicts_late_ms,
        "queueDepth": api.registry.queue_depth(),
        "lastBlindSpot": last_blind_spot,
    })))
}

/// `/metrics`: OpenMetrics text.
pub(super) async fn metrics(request: Request, api: Api) -> Result<Answer, Problem> {
    request.only_get()?;
    {
        let view = api.registry.view();
        for state in ServiceState::ALL {
            api.metrics.set_services(state, view.count(state));
        }
        set(&api.metrics.apps, view.apps_count());
        set(&api.metrics.subscriptions, view.subscriptions().count());
        let failing = view
            .subscriptions()
            .filter(|known| known.cursor.failing.is_some());
        set(&api.metrics.subscriptions_failing, failing.count());
    }
    set(&api.metrics.queue_depth, api.registry.queue_depth());
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(answer::ok_text(content_type, api.metrics.text()))
}

fn set(gauge: &Gauge, count: usize) {
    gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
}

/// `/version`
pub(super) async fn version(request: Request, api: Api) -> Result<Answer, Problem> {
    request.only_get()?;
    Ok(answer::ok(&json!({
        "name": env!("CARGO_PKG_NAME"),
        "version": env!("CARGO_PKG_VERSION"),
        "schema": api.about.schema,
        "durability": api.about.durability,
    })))
}

/// `/openapi.json`
pub(super) async fn openapi(request: Request, api: Api) -> Result<Answer, Problem> {
    request.only_get()?;
    Ok(answer::ok_text("application/json", api.openapi.clone()))
}
