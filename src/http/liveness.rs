//! The liveness resource and the batch heartbeat.
//!
//! Source: GS MEC 011 V2.2.1, 8.2.10. Check order: 403, 404, 400, 412, 409.

use warp::http::Method;
use warp::reply::Response as Answer;

use super::Api;
use super::answer::{self, Problem};
use super::request::{Request, Segment};
use super::services::find;
use crate::config::PatchResponse;
use crate::domain::{Monitored, ServiceKey};
use crate::registry::{self, BatchOutcome, Precondition};
use crate::wire::liveness::{self, BatchId, ServiceLivenessInfo};

/// The service that a path names, if it has a liveness resource.
fn find_monitored(
    app: &Segment,
    service: &Segment,
    request: &Request,
    api: &Api,
) -> Result<(ServiceKey, Monitored), Problem> {
    let entry = find(app, service, request, api)?;
    let monitored = entry.liveness.monitored().copied();
    let monitored = monitored.ok_or(registry::Error::NoLiveness(entry.key.service))?;
    Ok((entry.key, monitored))
}

/// `…/services/{serviceId}/liveness`, under all its names.
pub(super) async fn resource(
    app: Segment,
    service: Segment,
    request: Request,
    api: Api,
) -> Result<Answer, Problem> {
    match *request.verb() {
        Method::GET => {
            let (_, monitored) = find_monitored(&app, &service, &request, &api)?;
            request.no_query()?;
            Ok(answer::ok_tagged(&ServiceLivenessInfo::from(&monitored)))
        }
        Method::PATCH => beat(&app, &service, request, &api).await,
        // EdgeGallery's agent: its framework routes no PATCH.
        Method::PUT if api.dialect.is_edgegallery() => beat(&app, &service, request, &api).await,
        _ if api.dialect.is_edgegallery() => Err(Problem::method("GET, HEAD, PATCH, PUT")),
        _ => Err(Problem::method("GET, HEAD, PATCH")),
    }
}

/// A heartbeat.
async fn beat(
    app: &Segment,
    service: &Segment,
    request: Request,
    api: &Api,
) -> Result<Answer, Problem> {
    let (key, _) = find_monitored(app, service, &request, api)?;
    request.no_query()?;
    let by_default = request.method == Method::PATCH
        && api.settings().patch_response == PatchResponse::Representation;
    let preference = request.prefers_representation();
    let if_match = request.if_match()?;
    let body = api.body(request).await?;
    let update = liveness::parse_update(&body)?;
    let condition = if_match.map_or(Precondition::NONE, |if_match| {
        Precondition::when(move |entry| {
            let info = entry.liveness.monitored().map(ServiceLivenessInfo::from);
            info.is_some_and(|info| if_match.admits(&info))
        })
    });
    let beaten = api
        .registry
        .heartbeat(key, update.heartbeat, condition)
        .await?;
    let wanted = preference.unwrap_or(update.wrapped || by_default);
    let tell = beaten.new_interval || wanted;
    let info = tell.then(|| ServiceLivenessInfo::from(&beaten.liveness));
    let applied = match preference {
        Some(true) => Some("return=representation"),
        Some(false) if !tell => Some("return=minimal"),
        Some(false) | None => None,
    };
    Ok(answer::beaten(info.as_ref(), applied))
}

/// `/applications/{appInstanceId}/liveness`: our extension, one commit for many services.
pub(super) async fn batch(app: Segment, request: Request, api: Api) -> Result<Answer, Problem> {
    if request.method != Method::PATCH {
        return Err(Problem::method("PATCH"));
    }
    let app = request.application(&app)?;
    if api.registry.view().app(&app).is_none() {
        return Err(registry::Error::UnknownApp(app).into());
    }
    request.no_query()?;
    let body = api.body(request).await?;
    let update = liveness::parse_batch(&body)?;
    let ours = update.ids.as_ref().map(|ids| {
        let ours = ids.iter().filter_map(|id| match id {
            BatchId::Service(id) => Some(*id),
            BatchId::Other(_) => None,
        });
        ours.collect::<Vec<_>>()
    });
    let outcomes = api
        .registry
        .heartbeat_many(app, ours, update.heartbeat)
        .await?;
    let mut outcomes = outcomes.into_iter();
    let results: Vec<_> = match update.ids {
        None => outcomes
            .map(|(id, outcome)| answer::batch_result(id.to_string(), outcome))
            .collect(),
        // The outcomes of those that may be ours come in the order in which they were asked for.
        Some(ids) => ids
            .into_iter()
            .map(|id| match id {
                BatchId::Service(id) => {
                    let outcome = outcomes.next().map_or(BatchOutcome::Unknown, |(_, o)| o);
                    answer::batch_result(id.to_string(), outcome)
                }
                BatchId::Other(text) => answer::batch_result(text, BatchOutcome::Unknown),
            })
            .collect(),
    };
    Ok(answer::ok(&results))
}
