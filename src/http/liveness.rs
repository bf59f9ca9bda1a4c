//! The liveness resource and the batch heartbeat.
//!
//! Source: GS MEC 011 V2.2.1, 8.2.10. Check order: 403, 404, 400, 412, 409.

use std::future::{Future, ready};

use bytes::Bytes;
use futures_util::future::Either;
use warp::http::Method;
use warp::reply::Response as Answer;

use super::Api;
use super::answer::{self, Problem};
use super::body::BodyLimits;
use super::request::{IfMatch, Request, Segment};
use super::services::find;
use crate::config::PatchResponse;
use crate::domain::ServiceKey;
use crate::registry::{self, BatchOutcome, Entry, Precondition};
use crate::wire::liveness::{self, BatchId, ServiceLivenessInfo};

/// What a path names.
fn show(app: &Segment, service: &Segment, request: &Request, api: &Api) -> Result<Answer, Problem> {
    let found = |entry: &Entry, _| (entry.key.service, entry.liveness.monitored().copied());
    let (id, monitored) = find(app, service, request, api, found)?;
    let monitored = monitored.ok_or(registry::Error::NoLiveness(id))?;
    request.no_query()?;
    Ok(answer::ok_tagged(&ServiceLivenessInfo::from(&monitored)))
}

/// `…/services/{serviceId}/liveness`, under all its names.
///
/// Does at once what can be done at once, and so does a heartbeat whose body is there: of most
/// requests nothing has to be kept but the wait for the disk. (What is kept for each one that waits
/// takes more time, in cold caches, than what is done for it.)
pub(super) fn resource(
    app: Segment,
    service: Segment,
    request: Request,
    api: Api,
) -> impl Future<Output = Result<Answer, Problem>> + Send {
    let beats = match *request.verb() {
        Method::GET => return Either::Left(ready(show(&app, &service, &request, &api))),
        Method::PATCH => Ok(()),
        // EdgeGallery's agent: its framework routes no PATCH.
        Method::PUT if api.dialect.is_edgegallery() => Ok(()),
        _ if api.dialect.is_edgegallery() => Err(Problem::method("GET, HEAD, PATCH, PUT")),
        _ => Err(Problem::method("GET, HEAD, PATCH")),
    };
    match beats.and_then(|()| beat(&app, &service, request, api)) {
        Ok(beating) => Either::Right(beating),
        Err(refused) => Either::Left(ready(Err(refused))),
    }
}

/// A heartbeat.
fn beat(
    app: &Segment,
    service: &Segment,
    request: Request,
    api: Api,
) -> Result<impl Future<Output = Result<Answer, Problem>> + Send + use<>, Problem> {
    let beat = Beat::begin(app, service, &request, &api)?;
    let (mut reading, proof, caller) = request.reading(api.body_limits)?;
    Ok(match reading.at_hand() {
        Some(body) => Either::Left(beat.send(&body?, &api)?),
        None => Either::Right(Box::pin(async move {
            let body = api.late_body(reading, proof, caller).await?;
            beat.send(&body, &api)?.await
        })),
    })
}

/// A heartbeat but for its body.
struct Beat {
    key: ServiceKey,
    if_match: Option<IfMatch>,
    preference: Option<bool>,
    /// Whether the representation is what is answered when nobody says what he wants.
    by_default: bool,
}

impl Beat {
    fn begin(
        app: &Segment,
        service: &Segment,
        request: &Request,
        api: &Api,
    ) -> Result<Self, Problem> {
        let monitored = |entry: &Entry, key: ServiceKey| match entry.liveness.monitored() {
            Some(_) => Ok(key),
            None => Err(registry::Error::NoLiveness(key.service)),
        };
        let key = find(app, service, request, api, monitored)??;
        request.no_query()?;
        Ok(Self {
            key,
            by_default: request.method == Method::PATCH
                && api.settings().patch_response == PatchResponse::Representation,
            preference: request.prefers_representation(),
            if_match: request.if_match()?,
        })
    }

    /// Hands it to the registry. What is waited for is that it is on the disk.
    fn send(
        self,
        body: &[u8],
        api: &Api,
    ) -> Result<impl Future<Output = Result<Answer, Problem>> + Send + use<>, Problem> {
        let update = liveness::parse_update(body)?;
        let condition = self.if_match.map_or(Precondition::NONE, |if_match| {
            Precondition::when(move |entry| {
                let info = entry.liveness.monitored().map(ServiceLivenessInfo::from);
                info.is_some_and(|info| if_match.admits(&info))
            })
        });
        let preference = self.preference;
        let wanted = preference.unwrap_or(update.wrapped || self.by_default);
        let heard = api
            .registry
            .heartbeat(self.key, update.heartbeat, condition);
        Ok(async move {
            let beaten = heard.await?;
            let tell = beaten.new_interval || wanted;
            let info = tell.then(|| ServiceLivenessInfo::from(&beaten.liveness));
            let applied = match preference {
                Some(true) => Some("return=representation"),
                Some(false) if !tell => Some("return=minimal"),
                Some(false) | None => None,
            };
            Ok(answer::beaten(info.as_ref(), applied))
        })
    }
}

/// The same for a heartbeat that nobody hears: what the others are measured against.
pub(super) fn unheard(
    request: Request,
    limits: BodyLimits,
) -> impl Future<Output = Result<Answer, Problem>> + Send {
    let parsed = |body: Result<Bytes, Problem>| {
        liveness::parse_update(&body?)?;
        Ok(answer::no_content())
    };
    match request.reading(limits) {
        Err(refused) => Either::Left(ready(Err(refused))),
        Ok((mut reading, ..)) => match reading.at_hand() {
            Some(body) => Either::Left(ready(parsed(body))),
            None => Either::Right(Box::pin(async move { parsed(reading.rest().await) })),
        },
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
