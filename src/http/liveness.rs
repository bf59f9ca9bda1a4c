//! The liveness resource and the batch heartbeat.
//!
//! Source: GS MEC 011 V2.2.1, 8.2.10. Check order: 403, 404, 400, 409.

use std::collections::HashMap;

use warp::http::Method;
use warp::reply::Response as Answer;

use super::Api;
use super::answer::{self, Problem};
use super::request::{Request, Segment};
use super::services::find;
use crate::config::PatchResponse;
use crate::domain::ServiceId;
use crate::registry::{self, BatchOutcome};
use crate::wire::liveness::{self, BatchId, ServiceLivenessInfo};

/// `…/services/{serviceId}/liveness`, under all its names.
pub(super) async fn resource(
    app: Segment,
    service: Segment,
    request: Request,
    api: Api,
) -> Result<Answer, Problem> {
    match *request.verb() {
        Method::GET => {
            let entry = find(&app, &service, &request, &api)?;
            let no_liveness = registry::Error::NoLiveness(entry.key.service);
            let monitored = entry.liveness.monitored().ok_or(no_liveness)?;
            request.no_query()?;
            Ok(answer::ok(&ServiceLivenessInfo::from(monitored)))
        }
        Method::PATCH => {
            let entry = find(&app, &service, &request, &api)?;
            if entry.liveness.monitored().is_none() {
                return Err(registry::Error::NoLiveness(entry.key.service).into());
            }
            request.no_query()?;
            let preference = request.prefers_representation();
            let body = request.body(api.body_limits).await?;
            let update = liveness::parse_update(&body)?;
            let beaten = api.registry.heartbeat(entry.key, update.heartbeat).await?;
            let wanted = preference.unwrap_or_else(|| {
                update.wrapped || api.settings().patch_response == PatchResponse::Representation
            });
            let tell = beaten.new_interval || wanted;
            let info = tell.then(|| ServiceLivenessInfo::from(&beaten.liveness));
            let applied = match preference {
                Some(true) => Some("return=representation"),
                Some(false) if !tell => Some("return=minimal"),
                Some(false) | None => None,
            };
            Ok(answer::beaten(info.as_ref(), applied))
        }
        _ => Err(Problem::method("GET, HEAD, PATCH")),
    }
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
    let body = request.body(api.body_limits).await?;
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
    let results: Vec<_> = match update.ids {
        None => outcomes
            .into_iter()
            .map(|(id, outcome)| answer::batch_result(id.to_string(), outcome))
            .collect(),
        Some(ids) => {
            let outcomes: HashMap<ServiceId, BatchOutcome> = outcomes.into_iter().collect();
            let result = |id| match id {
                BatchId::Service(id) => {
                    let outcome = outcomes.get(&id).copied().unwrap_or(BatchOutcome::Unknown);
                    answer::batch_result(id.to_string(), outcome)
                }
                BatchId::Other(text) => answer::batch_result(text, BatchOutcome::Unknown),
            };
            ids.into_iter().map(result).collect()
        }
    };
    Ok(answer::ok(&results))
}
