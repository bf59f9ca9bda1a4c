//! The service resources.
//!
//! Source: GS MEC 011 V2.2.1, 8.2.3 to 8.2.7.

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::stream;
use warp::http::Method;
use warp::reply::Response as Answer;

use super::Api;
use super::answer::{self, Problem};
use super::request::{Request, Segment};
use crate::domain::{AppInstanceId, ProducerState, ServiceKey, ServiceState};
use crate::registry::{self, Entry};
use crate::wire::service::{self, ServiceInfo};

/// Services rendered at a time: a long list is sent in parts, so that neither the view nor the
/// event loop is held for it.
const PAGE: usize = 64;

impl Api {
    fn info<'a>(&self, entry: &'a Entry) -> ServiceInfo<'a> {
        ServiceInfo::new(&entry.key, &entry.service, &entry.liveness, &self.links)
    }
}

/// `/applications/{appInstanceId}/services`
pub(super) async fn collection(
    app: Segment,
    request: Request,
    api: Api,
) -> Result<Answer, Problem> {
    match *request.verb() {
        Method::GET => {
            let app = request.application(&app)?;
            if api.registry.view().app(&app).is_none() {
                return Err(registry::Error::UnknownApp(app).into());
            }
            request.no_query()?;
            Ok(answer::ok_stream(json_array(
                api,
                Some(app),
                |api, entry| Some(answer::json(&api.info(entry))),
            )))
        }
        Method::POST => {
            let app = request.application(&app)?;
            if !api.settings().auto_accept && api.registry.view().app(&app).is_none() {
                return Err(registry::Error::UnknownApp(app).into());
            }
            request.no_query()?;
            let body = request.body(api.body_limits).await?;
            let (service, state) = service::parse(&body, &[])?;
            let state = match state {
                ServiceState::Active => ProducerState::Active,
                ServiceState::Inactive => ProducerState::Inactive,
                ServiceState::Suspended => return Err(registry::Error::SuspendedByProducer.into()),
            };
            let entry = api.registry.register(app, service, state).await?;
            Ok(answer::created(
                &api.links.service(&entry.key),
                &api.info(&entry),
            ))
        }
        _ => Err(Problem::method("GET, HEAD, POST")),
    }
}

/// The service that a path names, if this application has it.
pub(super) fn find(
    app: &Segment,
    service: &Segment,
    request: &Request,
    api: &Api,
) -> Result<Entry, Problem> {
    let app = request.application(app)?;
    let id = service.service()?;
    let view = api.registry.view();
    if view.app(&app).is_none() {
        return Err(registry::Error::UnknownApp(app).into());
    }
    let Some(id) = id else {
        return Err(Problem::no_service(service.raw()));
    };
    let key = ServiceKey { app, service: id };
    Ok(view
        .service_of(&key)
        .cloned()
        .ok_or(registry::Error::UnknownService(id))?)
}

/// `/applications/{appInstanceId}/services/{serviceId}`
pub(super) async fn item(
    app: Segment,
    service: Segment,
    request: Request,
    api: Api,
) -> Result<Answer, Problem> {
    match *request.verb() {
        Method::GET => {
            let entry = find(&app, &service, &request, &api)?;
            request.no_query()?;
            Ok(answer::ok(&api.info(&entry)))
        }
        Method::PUT => {
            let key = find(&app, &service, &request, &api)?.key;
            request.no_query()?;
            let body = request.body(api.body_limits).await?;
            let (service, state) = service::parse(&body, &[])?;
            let entry = api.registry.replace(key, service, state).await?;
            Ok(answer::ok(&api.info(&entry)))
        }
        Method::DELETE => {
            let key = find(&app, &service, &request, &api)?.key;
            request.no_query()?;
            api.registry.remove(key).await?;
            Ok(answer::no_content())
        }
        _ => Err(Problem::method("GET, HEAD, PUT, DELETE")),
    }
}

/// `/services`
pub(super) async fn all(request: Request, api: Api) -> Result<Answer, Problem> {
    request.only_get()?;
    let hide_suspended = api.settings().hide_suspended;
    Ok(answer::ok_stream(json_array(
        api,
        None,
        move |api, entry| {
            let hidden = hide_suspended && entry.liveness.state() == ServiceState::Suspended;
            (!hidden).then(|| answer::json(&api.info(entry)))
        },
    )))
}

/// The services of one application, or all, as a JSON array, rendered page by page while it is sent.
pub(super) fn json_array(
    api: Api,
    of: Option<AppInstanceId>,
    render: impl Fn(&Api, &Entry) -> Option<Bytes> + Send + Sync + 'static,
) -> impl futures_util::Stream<Item = Result<Bytes, Infallible>> + Send + Sync {
    enum At {
        Start,
        After(ServiceKey),
        End,
    }
    stream::unfold((At::Start, false), move |(at, mut separated)| {
        let page = match &at {
            At::Start => Some(api.registry.view().page(of.as_ref(), None, PAGE)),
            At::After(key) => Some(api.registry.view().page(of.as_ref(), Some(key), PAGE)),
            At::End => None,
        };
        let part = page.map(|page| {
            let mut part = if matches!(at, At::Start) {
                b"[".to_vec()
            } else {
                Vec::new()
            };
            for info in page.iter().filter_map(|entry| render(&api, entry)) {
                if std::mem::replace(&mut separated, true) {
                    part.push(b',');
                }
                part.extend_from_slice(&info);
            }
            let next = match page.last() {
                Some(last) if page.len() == PAGE => At::After(last.key.clone()),
                _ => {
                    part.push(b']');
                    At::End
                }
            };
            (Ok(part.into()), (next, separated))
        });
        std::future::ready(part)
    })
}

/// `/services/{serviceId}`
pub(super) async fn by_id(service: Segment, request: Request, api: Api) -> Result<Answer, Problem> {
    if *request.verb() != Method::GET {
        return Err(Problem::method("GET, HEAD"));
    }
    let id = service.service()?;
    let entry = id.and_then(|id| api.registry.view().service(&id).cloned());
    let entry = entry.ok_or_else(|| Problem::no_service(service.raw()))?;
    request.no_query()?;
    Ok(answer::ok(&api.info(&entry)))
}
