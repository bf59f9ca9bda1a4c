//! The API's table of contents: which path leads to which handler.
//!
//! A path is matched first and the method inside its handler, so that a wrong method is always 405
//! with `Allow` and a route is never guessed. Handlers return their refusals as values; nothing is
//! rejected but unknown paths.

mod admin;
mod answer;
mod body;
mod connection;
mod events;
mod gate;
pub mod listener;
mod liveness;
mod openapi;
mod ops;
mod patient;
mod peer;
mod proof;
mod registrations;
mod request;
mod services;
mod subscriptions;
mod tokens;

use std::future::{Future, ready};
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::Either;
use tokio::sync::{Semaphore, watch};
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::reply::Response as Answer;

pub use self::admin::known;
use self::answer::Problem;
pub use self::body::BodyLimits;
use self::body::Reading;
pub use self::gate::Gate;
pub use self::openapi::document;
use self::proof::{Arrived, Proof};
use self::request::{Request, Segment, request};
use crate::config::PatchResponse;
use crate::domain::Caller;
use crate::domain::service::Transport;
use crate::metrics::Metrics;
use crate::notify::Guard;
use crate::registry::Registry;
use crate::wire::report::About;
use crate::wire::{Dialect, Links};

/// What the handlers share. Cheap to clone: every request does.
#[derive(Clone)]
pub struct Api(Arc<Parts>);

impl Deref for Api {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl From<Parts> for Api {
    fn from(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }
}

/// See [`Api`].
pub struct Parts {
    /// The registry.
    pub registry: Registry,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// Who may come in.
    pub gate: Gate,
    /// Whose clients are served.
    pub dialect: Dialect,
    /// The API's document.
    pub openapi: Bytes,
    /// How links are made.
    pub links: Arc<Links>,
    /// Bounds of request bodies.
    pub body_limits: BodyLimits,
    /// What can be changed while running.
    pub settings: watch::Receiver<Settings>,
    /// About this server and its store.
    pub about: Arc<About>,
    /// What services may name by `transportId`.
    pub transports: Arc<[Transport]>,
    /// Which callbacks are refused at once.
    pub guard: Guard,
    /// Streams of events that may be open: a part of all connections, because they stay.
    pub streams: Arc<Semaphore>,
    /// A stream that has nothing to tell says so this often at least, or it would be taken for one
    /// that is not read.
    pub sign_of_life: Duration,
    /// Turns true when the server stops: then streams end.
    pub stop: watch::Receiver<bool>,
}

/// What can be changed while running.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// What a plain heartbeat is answered with.
    pub patch_response: PatchResponse,
    /// Whether the list of all services leaves SUSPENDED ones out.
    pub hide_suspended: bool,
    /// Whether an unknown application is accepted with its first service.
    pub auto_accept: bool,
}

impl Api {
    fn settings(&self) -> Settings {
        *self.settings.borrow()
    }

    /// Finds out who makes a request.
    fn identify(&self, arrived: Arrived) -> Result<Request, Problem> {
        let now = || self.registry.now();
        self.gate.identify(arrived, now, &self.metrics)
    }

    /// Whether a request still proves that it is made by this caller.
    fn judge_again(&self, proof: &Proof, caller: &Caller) -> Result<(), Problem> {
        let now = || self.registry.now();
        if self.gate.caller(proof, now)? == *caller {
            return Ok(());
        }
        Err(Problem::no_token())
    }

    /// The whole body.
    async fn body(&self, request: Request) -> Result<Bytes, Problem> {
        let (mut reading, proof, caller) = request.reading(self.body_limits)?;
        match reading.at_hand() {
            Some(body) => body,
            None => self.late_body(reading, proof, caller).await,
        }
    }

    /// A body that has to be waited for. Who takes his time with it has to be still who he was.
    async fn late_body(
        &self,
        reading: Reading,
        proof: Proof,
        caller: Caller,
    ) -> Result<Bytes, Problem> {
        let body = reading.rest().await?;
        self.judge_again(&proof, &caller)?;
        Ok(body)
    }

    /// A filter that hands a clone to each handler.
    fn filter(
        &self,
    ) -> impl Filter<Extract = (Api,), Error = std::convert::Infallible> + Clone + use<> {
        let api = self.clone();
        warp::any().map(move || api.clone())
    }
}

/// Answers, with a refusal rendered for the path it concerns.
async fn render(
    path: warp::path::FullPath,
    handler: impl Future<Output = Result<Answer, Problem>>,
) -> Answer {
    handler
        .await
        .unwrap_or_else(|problem| problem.into_answer(path.as_str()))
}

/// `route!(path filter, api, handler, its path parameters…)`: for whoever proves who he is. A
/// refusal is rendered with the request's own path.
macro_rules! route {
    ($path:expr, $api:expr, $handler:path $(, $segment:ident)*) => {
        $path
            .and(warp::path::full())
            .and(request())
            .and($api.filter())
            .then(|$($segment: Segment,)* path, arrived: Arrived, api: Api| {
                let answer = match api.identify(arrived) {
                    Ok(request) => Either::Left($handler($($segment,)* request, api)),
                    Err(refused) => Either::Right(ready(Err(refused))),
                };
                render(path, answer)
            })
            .boxed()
    };
}

/// The same for everybody.
macro_rules! open_route {
    ($path:expr, $api:expr, $handler:path) => {
        $path
            .and(warp::path::full())
            .and(request())
            .and($api.filter())
            .then(|path, arrived: Arrived, api: Api| render(path, $handler(arrived.open(), api)))
            .boxed()
    };
}

/// Everything that is served to clients.
#[must_use]
pub fn routes(api: &Api) -> BoxedFilter<(Answer,)> {
    use warp::path;
    let root = || path!("mec_service_mgmt" / "v1" / ..);
    let app = || path!("applications" / Segment / ..);
    let end = path::end;

    // The heartbeat first: it is most of the traffic. The singular form and the one without a root
    // are how EdgeGallery's requirement writes it.
    let plural = root()
        .and(app())
        .and(path!("services" / Segment / "liveness"));
    let singular = root()
        .and(app())
        .and(path!("service" / Segment / "liveness"));
    let rootless = app().and(path!("service" / Segment / "liveness"));
    let heartbeat = route!(plural, api, liveness::resource, app, service)
        .or(route!(singular, api, liveness::resource, app, service))
        .unify()
        .or(route!(rootless, api, liveness::resource, app, service))
        .unify()
        .or(route!(
            root().and(app()).and(path!("liveness")),
            api,
            liveness::batch,
            app
        ))
        .unify();

    // Of one application.
    let item = root().and(app()).and(path!("services" / Segment));
    let collection = root().and(app()).and(path!("services"));
    let subscriptions = root().and(app()).and(path!("subscriptions"));
    let subscription = root().and(app()).and(path!("subscriptions" / Segment));
    let owned = route!(item, api, services::item, app, service)
        .or(route!(collection, api, services::collection, app))
        .unify()
        .or(route!(subscriptions, api, subscriptions::collection, app))
        .unify()
        .or(route!(
            subscription,
            api,
            subscriptions::item,
            app,
            subscription
        ))
        .unify();

    // Of all applications. No service has the id "events".
    let events = root().and(path!("services" / "events"));
    let all = route!(root().and(path!("services")), api, services::all)
        .or(route!(events, api, events::stream))
        .unify()
        .or(route!(
            root().and(path!("services" / Segment)),
            api,
            services::by_id,
            service
        ))
        .unify()
        .or(route!(
            root().and(path!("transports")),
            api,
            services::transports
        ))
        .unify();

    // Applications themselves.
    let registrations = || path!("mec_app_support" / "v1" / "registrations" / ..);
    let apps = route!(registrations().and(end()), api, registrations::collection)
        .or(route!(
            registrations().and(path!(Segment)),
            api,
            registrations::item,
            app
        ))
        .unify();

    let api_routes = heartbeat
        .or(owned)
        .unify()
        .or(all)
        .unify()
        .or(apps)
        .unify()
        .boxed();
    let mut routes = api_routes.clone().or(open_routes(api)).unify().boxed();
    if api.gate.issues_tokens() {
        let tokens = open_route!(path!("oauth2" / "token"), api, tokens::oauth2);
        routes = routes.or(tokens).unify().boxed();
    }
    if api.dialect.is_edgegallery() {
        let theirs = open_route!(path!("mep" / "token"), api, tokens::edgegallery)
            .or(open_route!(path!("health"), api, ops::health))
            .unify()
            .or(path("mep").and(api_routes))
            .unify();
        routes = routes.or(theirs).unify().boxed();
    }
    routes.or(nowhere()).unify().boxed()
}

/// For the operator and the orchestrator, whoever that is.
fn open_routes(api: &Api) -> BoxedFilter<(Answer,)> {
    use warp::path;
    open_route!(path!("healthz"), api, ops::healthz)
        .or(open_route!(path!("readyz"), api, ops::readyz))
        .unify()
        .or(open_route!(path!("metrics"), api, ops::metrics))
        .unify()
        .or(open_route!(path!("version"), api, ops::version))
        .unify()
        .or(open_route!(path!("openapi.json"), api, ops::openapi))
        .unify()
        .boxed()
}

/// What is served on the data directory's socket, to `mepulse admin`.
#[must_use]
pub fn admin_routes(api: &Api) -> BoxedFilter<(Answer,)> {
    use warp::path;
    route!(path!("admin" / "services"), api, admin::services)
        .or(route!(
            path!("admin" / "services" / Segment),
            api,
            admin::service,
            service
        ))
        .unify()
        .or(route!(
            path!("admin" / "services" / Segment / "why"),
            api,
            admin::why,
            service
        ))
        .unify()
        .or(route!(path!("admin" / "forecast"), api, admin::forecast))
        .unify()
        .or(route!(
            path!("admin" / "subscriptions"),
            api,
            admin::subscriptions
        ))
        .unify()
        .or(route!(
            path!("admin" / "dead-letters"),
            api,
            admin::dead_letters
        ))
        .unify()
        .or(route!(path!("admin" / "status"), api, admin::status))
        .unify()
        .or(route!(
            path!("admin" / "credentials"),
            api,
            admin::credentials
        ))
        .unify()
        .or(nowhere())
        .unify()
        .boxed()
}

/// The heartbeat's route with nothing behind it: the same path, the same body, 204. What a
/// durable heartbeat costs is measured against this.
#[must_use]
pub fn baseline_routes(limits: BodyLimits) -> BoxedFilter<(Answer,)> {
    use warp::path;
    path!("mec_service_mgmt" / "v1" / "applications" / Segment / "services" / Segment / "liveness")
        .and(path::full())
        .and(request())
        .then(move |_: Segment, _: Segment, path, arrived: Arrived| {
            render(path, liveness::unheard(arrived.open(), limits))
        })
        .or(nowhere())
        .unify()
        .boxed()
}

/// Every other path.
fn nowhere() -> impl Filter<Extract = (Answer,), Error = std::convert::Infallible> + Clone {
    warp::path::full()
        .map(|path: warp::path::FullPath| Problem::no_route().into_answer(path.as_str()))
}
