//! The services that are beaten: registered before, removed after.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use futures_util::future::join_all;
use serde::Deserialize;
use serde_json::json;

use super::link::{Link, Target};
use super::{BenchError, Progress, Stop};
use crate::wire::links;
use crate::wire::problem::refusal;

/// A service's id as it stands in a path.
pub(super) type Id = [u8; 36];

/// Connections that register and remove, at the most.
const CONNECTIONS_MAX: usize = 64;

/// Names that no other run has.
#[derive(Debug, Clone)]
pub(super) struct Names(String);

impl Names {
    pub(super) fn new(what: &str) -> Self {
        Self(format!("bench-{:08x}-{what}", fastrand::u32(..)))
    }

    /// One of its applications.
    pub(super) fn nth(&self, number: usize) -> String {
        format!("{}{number}", self.0)
    }

    /// The path of an application. Its name needs no encoding.
    pub(super) fn app(name: &str) -> String {
        format!("{}/applications/{name}", links::ROOT)
    }

    /// What is registered: as small as a usual one.
    pub(super) fn service(interval_s: u32) -> String {
        json!({
            "serName": "mepulse-bench", "version": "1.0", "state": "ACTIVE", "serializer": "JSON",
            "livenessInterval": interval_s,
            "transportInfo": {
                "id": "bench", "name": "REST", "type": "REST_HTTP", "protocol": "HTTP",
                "version": "1.1", "endpoint": {"uris": ["http://192.0.2.1/bench"]}, "security": {}
            }
        })
        .to_string()
    }
}

/// Registered services: the same number in each application, but for the last.
pub(super) struct Fleet {
    target: Arc<Target>,
    apps: Vec<String>,
    names: Names,
    per_app: usize,
    ids: Arc<[Id]>,
}

impl Fleet {
    /// Nobody yet; of `per_app` services in each application.
    pub(super) fn empty(target: &Arc<Target>, what: &str, per_app: usize) -> Self {
        Self {
            target: target.clone(),
            apps: Vec::new(),
            names: Names::new(what),
            per_app: per_app.max(1),
            ids: Arc::new([]),
        }
    }

    /// The applications.
    pub(super) fn apps(&self) -> &[String] {
        &self.apps
    }

    /// All ids, in the order of the applications.
    pub(super) fn ids(&self) -> Arc<[Id]> {
        self.ids.clone()
    }

    /// Services in each application, but for the last.
    pub(super) fn per_app(&self) -> usize {
        self.per_app
    }

    /// The application of the n-th service.
    pub(super) fn app_of(&self, number: usize) -> &str {
        &self.apps[number / self.per_app]
    }

    /// The path of the n-th service's liveness.
    pub(super) fn liveness_of(&self, number: usize) -> String {
        let id = String::from_utf8_lossy(&self.ids[number]);
        let app = Names::app(self.app_of(number));
        format!("{app}/services/{id}/liveness")
    }

    /// The server is somewhere else, with all that is registered.
    pub(super) fn move_to(&mut self, target: &Arc<Target>) {
        self.target = target.clone();
    }

    /// Registers until there are `services`. After an error the applications are known all the same, so
    /// that what was registered until then can be removed.
    pub(super) async fn grow(
        &mut self,
        services: usize,
        interval_s: u32,
        connections: usize,
        stop: &Stop,
        progress: &Progress,
    ) -> Result<(), BenchError> {
        let have = self.ids.len();
        let apps = services.div_ceil(self.per_app);
        self.apps
            .extend((self.apps.len()..apps).map(|number| self.names.nth(number)));
        let tail = self.target.end(Names::service(interval_s).as_bytes());
        let tail = [b"/services".as_slice(), &tail].concat();
        let mut ids: Vec<Id> = self.ids.to_vec();
        ids.resize(services, [0; 36]);
        let (next, done, ids) = (Cell::new(have), Cell::new(0_u64), RefCell::new(ids));
        let this = &*self;
        let client = || async {
            let mut link = None;
            let (mut request, mut body) = (Vec::new(), Vec::new());
            loop {
                let number = next.replace(next.get() + 1);
                if number >= services {
                    return Ok(());
                }
                request.clear();
                request.extend(this.target.start("POST", &Names::app(this.app_of(number))));
                request.extend_from_slice(&tail);
                let what = "registering a service";
                let status = ask(&this.target, &mut link, &request, &mut body, what).await?;
                let id = match status {
                    201 => Self::id_in(&body).ok_or_else(|| {
                        BenchError::refused(what, "the answer has no serInstanceId")
                    }),
                    _ => Err(BenchError::refused(what, refusal(status, &body))),
                };
                let id = id.inspect_err(|_| next.set(services))?;
                ids.borrow_mut()[number] = id;
                done.set(done.get() + 1);
                progress.count("registering", done.get(), (services - have) as u64);
            }
        };
        let clients = connections.clamp(1, CONNECTIONS_MAX).min(services - have);
        let all = join_all((0..clients).map(|_| client()));
        let ended = stop.unless(all).await?;
        ended.into_iter().collect::<Result<(), BenchError>>()?;
        self.ids = ids.into_inner().into();
        Ok(())
    }

    /// The id in a registration's answer.
    pub(super) fn id_in(body: &[u8]) -> Option<Id> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Registered<'a> {
            ser_instance_id: &'a str,
        }
        let registered: Registered<'_> = serde_json::from_slice(body).ok()?;
        registered.ser_instance_id.as_bytes().try_into().ok()
    }

    /// Removes all of it.
    pub(super) async fn remove(&self, progress: &Progress) -> Result<(), BenchError> {
        remove_apps(&self.target, &self.apps, progress).await
    }
}

/// Removes applications with all that they have. Those that are unknown were never used.
pub(super) async fn remove_apps(
    target: &Target,
    apps: &[String],
    progress: &Progress,
) -> Result<(), BenchError> {
    let next = Cell::new(0_usize);
    let client = || async {
        let (mut link, mut body) = (None, Vec::new());
        loop {
            let number = next.replace(next.get() + 1);
            let Some(app) = apps.get(number) else {
                return Ok(());
            };
            let path = format!("{}/registrations/{app}", links::APP_SUPPORT_ROOT);
            let request = target.request("DELETE", &path, b"");
            let what = format!("removing application {app}");
            let status = ask(target, &mut link, &request, &mut body, &what).await?;
            if !matches!(status, 204 | 404) {
                return Err(BenchError::refused(what, refusal(status, &body)));
            }
            progress.count("removing", number as u64 + 1, apps.len() as u64);
        }
    };
    let clients = apps.len().min(8);
    let ended = join_all((0..clients).map(|_| client())).await;
    ended.into_iter().collect()
}

/// One exchange, over a new connection where there is none.
pub(super) async fn ask(
    target: &Target,
    link: &mut Option<Link>,
    request: &[u8],
    body: &mut Vec<u8>,
    what: &str,
) -> Result<u16, BenchError> {
    let lost = |lost: super::link::Lost| BenchError::refused(what, lost.to_string());
    let mut open = match link.take().filter(|link| !link.is_over()) {
        Some(open) => open,
        None => Link::open(target).await.map_err(lost)?,
    };
    let status = open
        .exchange(request, body, target.timeout())
        .await
        .map_err(lost)?;
    *link = Some(open);
    Ok(status)
}
