//! The service resources.
//!
//! Source: GS MEC 011 V2.2.1, 8.2.3 to 8.2.7.

use std::collections::VecDeque;
use std::convert::Infallible;

use bytes::Bytes;
use futures_util::stream;
use warp::http::Method;
use warp::reply::Response as Answer;

use super::Api;
use super::answer::{self, Problem};
use super::request::{IfMatch, Request, Segment};
use crate::domain::{
    AppInstanceId, ProducerState, Query, Selection, ServiceId, ServiceKey, ServiceState,
};
use crate::registry::{self, Entry, Precondition, View};
use crate::wire::service::{self, ServiceInfo};
use crate::wire::transport::TransportInfo;
use crate::wire::{Links, query};

/// Services rendered at a time: a long list is sent in parts, so that neither the view nor the
/// event loop is held for it.
const PAGE: usize = 64;

impl Api {
    /// What is answered about a service.
    fn with_info<T>(&self, entry: &Entry, f: impl FnOnce(&ServiceInfo) -> T) -> T {
        with_info(&self.links, entry, f)
    }

    /// `If-Match`, for the writer to judge.
    fn condition(&self, if_match: Option<IfMatch>) -> Precondition {
        let links = self.links.clone();
        if_match.map_or(Precondition::NONE, |if_match| {
            Precondition::when(move |entry| with_info(&links, entry, |info| if_match.admits(info)))
        })
    }
}

fn with_info<T>(links: &Links, entry: &Entry, f: impl FnOnce(&ServiceInfo) -> T) -> T {
    let service = entry.service.service();
    f(&ServiceInfo::new(
        &entry.key,
        &service,
        &entry.liveness,
        links,
    ))
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
            let query = query::parse_services(request.query(), api.dialect)?;
            Ok(list(api, Source::All(Some(app)), query, false))
        }
        Method::POST => {
            let app = request.application(&app)?;
            if !api.settings().auto_accept && api.registry.view().app(&app).is_none() {
                return Err(registry::Error::UnknownApp(app).into());
            }
            request.no_query()?;
            let body = api.body(request).await?;
            let (service, state) = service::parse(&body, &api.transports, api.dialect)?;
            let state = match state {
                ServiceState::Active => ProducerState::Active,
                ServiceState::Inactive => ProducerState::Inactive,
                ServiceState::Suspended => return Err(registry::Error::SuspendedByProducer.into()),
            };
            let entry = api.registry.register(app, service, state).await?;
            let location = api.links.service(&entry.key);
            Ok(api.with_info(&entry, |info| answer::created_tagged(&location, info)))
        }
        _ => Err(Problem::method("GET, HEAD, POST")),
    }
}

/// What is wanted of the service that a path names, if this application has it.
pub(super) fn find<T>(
    app: &Segment,
    service: &Segment,
    request: &Request,
    api: &Api,
    of: impl FnOnce(&Entry, ServiceKey) -> T,
) -> Result<T, Problem> {
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
    match view.service_of(&key) {
        Some(entry) => Ok(of(entry, key)),
        None => Err(registry::Error::UnknownService(id).into()),
    }
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
            let entry = find(&app, &service, &request, &api, |entry, _| entry.clone())?;
            request.no_query()?;
            Ok(api.with_info(&entry, |info| answer::ok_tagged(info)))
        }
        Method::PUT => {
            let key = find(&app, &service, &request, &api, |_, key| key)?;
            request.no_query()?;
            let if_match = request.if_match()?;
            let body = api.body(request).await?;
            let (service, state) = service::parse(&body, &api.transports, api.dialect)?;
            let condition = api.condition(if_match);
            let entry = api.registry.replace(key, service, state, condition).await?;
            Ok(api.with_info(&entry, |info| answer::ok_tagged(info)))
        }
        Method::DELETE => {
            let key = find(&app, &service, &request, &api, |_, key| key)?;
            request.no_query()?;
            api.registry.remove(key).await?;
            Ok(answer::no_content())
        }
        _ => Err(Problem::method("GET, HEAD, PUT, DELETE")),
    }
}

/// `/services`
pub(super) async fn all(request: Request, api: Api) -> Result<Answer, Problem> {
    request.must_get()?;
    let query = query::parse_services(request.query(), api.dialect)?;
    let source = match api.registry.view().candidates(&query.selection) {
        None => Source::All(None),
        Some(ids) => Source::Some(ids.into()),
    };
    // Who asks for a service by its id wants to know, whatever its state.
    let hide_suspended =
        api.settings().hide_suspended && !matches!(query.selection, Selection::Ids(_));
    Ok(list(api, source, query, hide_suspended))
}

fn list(api: Api, source: Source, query: Query, hide_suspended: bool) -> Answer {
    answer::ok_stream(json_array(api, source, move |api, entry| {
        if hide_suspended && entry.liveness.state() == ServiceState::Suspended {
            return None;
        }
        let service = entry.service.service();
        let asked_for = query.matches(entry.key.service, &service);
        asked_for.then(|| {
            let info = ServiceInfo::new(&entry.key, &service, &entry.liveness, &api.links);
            answer::json(&info)
        })
    }))
}

/// Which services a list is about.
pub(super) enum Source {
    /// Those of one application, or of all.
    All(Option<AppInstanceId>),
    /// These, as far as they are there.
    Some(VecDeque<ServiceId>),
}

impl Source {
    /// The next few; none at the end.
    fn next(&mut self, view: &View, after: Option<&ServiceKey>) -> Vec<Entry> {
        match self {
            Self::All(of) => view.page(of.as_ref(), after, PAGE),
            Self::Some(ids) => {
                let page = ids.drain(..ids.len().min(PAGE));
                page.filter_map(|id| view.service(&id).cloned()).collect()
            }
        }
    }

    /// Whether a page was the last.
    fn is_exhausted(&self, page: &[Entry]) -> bool {
        match self {
            Self::All(_) => page.len() < PAGE,
            Self::Some(ids) => ids.is_empty(),
        }
    }
}

/// Services as a JSON array, rendered page by page while it is sent.
pub(super) fn json_array(
    api: Api,
    source: Source,
    render: impl Fn(&Api, &Entry) -> Option<Bytes> + Send + Sync + 'static,
) -> impl futures_util::Stream<Item = Result<Bytes, Infallible>> + Send + Sync {
    struct At {
        source: Source,
        after: Option<ServiceKey>,
        /// How the next part begins.
        begin: &'static str,
        separated: bool,
    }
    let start = At {
        source,
        after: None,
        begin: "[",
        separated: false,
    };
    stream::unfold(Some(start), move |at| {
        let part = at.map(|mut at| {
            let page = at.source.next(&api.registry.view(), at.after.as_ref());
            let mut part = at.begin.as_bytes().to_vec();
            for info in page.iter().filter_map(|entry| render(&api, entry)) {
                if std::mem::replace(&mut at.separated, true) {
                    part.push(b',');
                }
                part.extend_from_slice(&info);
            }
            let next = if at.source.is_exhausted(&page) {
                part.push(b']');
                None
            } else {
                at.begin = "";
                at.after = page.last().map(|last| last.key.clone());
                Some(at)
            };
            (Ok(part.into()), next)
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
    Ok(api.with_info(&entry, |info| answer::ok_tagged(info)))
}

/// `/transports`. Source: GS MEC 011 V2.2.1, 8.2.5.
pub(super) async fn transports(request: Request, api: Api) -> Result<Answer, Problem> {
    request.only_get()?;
    let transports: Vec<_> = api.transports.iter().map(TransportInfo::new).collect();
    Ok(answer::ok(&transports))
}
