//! Where the admin's answers come from: the running server, over the data directory's socket, or with
//! the server down the store itself, opened without writing a mark. The same reports either way.

use std::path::Path;
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::Method;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::Failure;
use super::serve::ADMIN_SOCKET;
use crate::clock::{Machine, SystemMachine};
use crate::config::Config;
use crate::domain::{Moment, ServiceId};
use crate::http::{known, listener::short_path};
use crate::registry::Boot;
use crate::store::{OpenError, OpenMode, OpenOptions, SledStore, migrate};
use crate::wire::delivery::{Backlog, DeadLetterReport, FromLog, Letters, SubscriptionReport};
use crate::wire::problem;
use crate::wire::report::{Counts, ServiceDetail, ServiceReport, Status, rfc3339};
use crate::wire::story::{Forecast, Story};

/// A server that is well answers in milliseconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Events read from the log in one go.
const PAGE: usize = 512;

/// Where the answers come from.
pub(super) enum Source {
    /// The running server, over its socket.
    Server(Server),
    /// The store itself; the server is down.
    Store(Box<Opened>),
}

pub(super) struct Opened {
    boot: Boot,
    status: Status,
}

pub(super) struct Server {
    runtime: tokio::runtime::Runtime,
    data_dir: std::path::PathBuf,
    /// What to say when the socket does not answer.
    in_use: String,
}

fn no_service(id: ServiceId) -> Failure {
    Failure::failed(format!("there is no service \"{id}\" here"))
}

impl Source {
    pub(super) fn open(config: &Config) -> Result<Self, Failure> {
        let data_dir = &config.store.data_dir;
        let opened = SledStore::open(&OpenOptions {
            data_dir,
            mode: OpenMode::Inspect,
            cache_mb: config.store.cache_mb,
            durability: config.store.durability,
            steps: migrate::STEPS,
            boot_id: SystemMachine::new().read().boot_id,
        });
        match opened {
            Ok(store) => Ok(Self::Store(Box::new(Opened::new(store)?))),
            Err(OpenError::InUse { dir, pid }) => {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .map_err(Failure::failed)?;
                let in_use = OpenError::InUse {
                    dir: dir.clone(),
                    pid,
                }
                .to_string();
                Ok(Self::Server(Server {
                    runtime,
                    data_dir: dir,
                    in_use,
                }))
            }
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn services(&self) -> Result<Vec<ServiceReport>, Failure> {
        match self {
            Self::Server(server) => server.ask("/admin/services"),
            Self::Store(opened) => {
                let view = opened.boot.view();
                let entries = view.page(None, None, usize::MAX);
                let report = |entry| {
                    ServiceReport::new(known(entry), view.policy.as_ref(), &view.blind_spots)
                };
                Ok(entries.iter().map(report).collect())
            }
        }
    }

    pub(super) fn service(&self, id: ServiceId) -> Result<ServiceDetail, Failure> {
        match self {
            Self::Server(server) => server.ask(&format!("/admin/services/{id}")),
            Self::Store(opened) => {
                let view = opened.boot.view();
                let entry = view.service(&id).ok_or_else(|| no_service(id))?;
                Ok(ServiceDetail::new(
                    known(entry),
                    &entry.service.service(),
                    view.policy.as_ref(),
                    &view.blind_spots,
                ))
            }
        }
    }

    pub(super) fn story(&self, id: ServiceId) -> Result<Story, Failure> {
        match self {
            Self::Server(server) => server.ask(&format!("/admin/services/{id}/why")),
            Self::Store(opened) => {
                let view = opened.boot.view();
                let events = opened.boot.history(id).map_err(Failure::failed)?;
                let reading = SystemMachine::new().read();
                let now = Moment {
                    steady: opened.boot.resume(&reading).steady,
                    wall: reading.wall,
                };
                Story::new(
                    now,
                    view.service(&id).map(known),
                    view.policy.as_ref(),
                    &opened.boot.blind_spots_at(&reading),
                    &events,
                )
                .ok_or_else(|| no_service(id))
            }
        }
    }

    pub(super) fn forecasts(&self) -> Result<Vec<Forecast>, Failure> {
        match self {
            Self::Server(server) => server.ask("/admin/forecast"),
            Self::Store(opened) => {
                let view = opened.boot.view();
                let spots = opened.boot.blind_spots_at(&SystemMachine::new().read());
                let entries = view.page(None, None, usize::MAX);
                let forecast = |entry| Forecast::new(known(entry), view.policy.as_ref(), &spots);
                Ok(entries.iter().filter_map(forecast).collect())
            }
        }
    }

    pub(super) fn subscriptions(&self) -> Result<Vec<SubscriptionReport>, Failure> {
        match self {
            Self::Server(server) => server.ask("/admin/subscriptions"),
            Self::Store(opened) => {
                let boot = &opened.boot;
                let letters = boot.dead_letters().map_err(Failure::failed)?;
                let known = boot.view().subscriptions();
                let known = known.map(|known| (known.subscription.as_ref(), &known.cursor));
                let mut backlog = Backlog::new(known, &letters);
                opened.read(&mut backlog)?;
                Ok(backlog.into_reports())
            }
        }
    }

    pub(super) fn dead_letters(&self) -> Result<Vec<DeadLetterReport>, Failure> {
        match self {
            Self::Server(server) => server.ask("/admin/dead-letters"),
            Self::Store(opened) => {
                let letters = opened.boot.dead_letters().map_err(Failure::failed)?;
                let mut letters = Letters::new(&letters);
                opened.read(&mut letters)?;
                Ok(letters.into_reports())
            }
        }
    }

    pub(super) fn status(&self) -> Result<Status, Failure> {
        match self {
            Self::Server(server) => server.ask("/admin/status"),
            Self::Store(opened) => Ok(opened.status.clone()),
        }
    }

    /// Steady time now, for relative times.
    pub(super) fn now_ms(&self) -> Result<u64, Failure> {
        Ok(self.status()?.steady_ms)
    }

    pub(super) fn close(self) -> Result<(), Failure> {
        match self {
            Self::Server(_) => Ok(()),
            Self::Store(opened) => opened.boot.into_store().close().map_err(Failure::failed),
        }
    }
}

impl Opened {
    fn new(store: SledStore) -> Result<Self, Failure> {
        let (data_dir, store_id, schema) = (
            store.data_dir().display().to_string(),
            store.store_id().to_string(),
            store.schema(),
        );
        let boot = Boot::load(Box::new(store)).map_err(Failure::failed)?;
        let view = boot.view();
        let status = Status {
            server: "stopped".to_owned(),
            process: None,
            data_dir,
            store_id,
            schema,
            counts: Counts::new(view.apps_count(), |state| view.count(state)),
            blind_spots: view.blind_spots.len(),
            undecodable_rows: boot.skipped().len() as u64,
            steady_ms: boot.resume(&SystemMachine::new().read()).steady.as_ms(),
            last_watched: boot.mark().map(|mark| rfc3339(mark.reading.wall)),
            clean_stop: boot.mark().map(|mark| mark.clean_stop),
        };
        Ok(Self { boot, status })
    }
}

impl Opened {
    /// Shows a report what it needs of the log, part by part.
    fn read(&self, report: &mut impl FromLog) -> Result<(), Failure> {
        let Some((from, until)) = report.range() else {
            return Ok(());
        };
        let log = self.boot.log();
        let mut next = Some(from);
        while let Some(from) = next.filter(|from| *from < until) {
            let page = log.read(from, PAGE).map_err(Failure::failed)?;
            page.events.iter().for_each(|event| report.see(event));
            next = page.next;
        }
        Ok(())
    }
}

impl Server {
    /// GETs a report over the socket.
    fn ask<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.runtime.block_on(async {
            let exchange = send(&self.data_dir, Method::GET, path);
            let answer = tokio::time::timeout(ANSWER_TIMEOUT, exchange).await;
            let answer = answer.unwrap_or_else(|_| Err("no answer in time".into()));
            let (status, body) = answer.map_err(|error| Failure {
                code: 3,
                message: format!(
                    "{}. It does not answer on {ADMIN_SOCKET} ({error}); it may be starting, \
                     stopping or frozen: try again in a moment",
                    self.in_use
                ),
            })?;
            if status.is_success() {
                return serde_json::from_slice(&body).map_err(|error| {
                    Failure::failed(format!("the server's answer makes no sense: {error}"))
                });
            }
            Err(Failure::failed(detail(&body)))
        })
    }
}

/// Has a running server read the credentials again, and waits until it has. Without a server there
/// is nothing to do: the next one reads them when it starts.
pub(super) fn tell_server(config: &Config) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::failed)?;
    let failed = |code, reason: &str| Failure {
        code,
        message: format!(
            "the credentials have been changed, but the running server has not taken that over: \
             {reason}"
        ),
    };
    let exchange = send(&config.store.data_dir, Method::POST, "/admin/credentials");
    match runtime.block_on(async { tokio::time::timeout(ANSWER_TIMEOUT, exchange).await }) {
        Ok(Ok((status, _))) if status.is_success() => Ok(()),
        Ok(Ok((_, body))) => Err(failed(1, &detail(&body))),
        Ok(Err(error)) if nobody_listens(&error) => Ok(()),
        Ok(Err(error)) => Err(failed(3, &format!("{ADMIN_SOCKET}: {error}"))),
        Err(_) => Err(failed(
            3,
            &format!("no answer on {ADMIN_SOCKET} in time; it may be starting, stopping or frozen"),
        )),
    }
}

/// Whether there is no server: no data directory, no socket in it, or one that a killed server has
/// left behind.
fn nobody_listens(error: &BoxError) -> bool {
    let error = error.downcast_ref::<std::io::Error>();
    error.is_some_and(|error| {
        use std::io::ErrorKind::{ConnectionRefused, NotFound};
        matches!(error.kind(), NotFound | ConnectionRefused)
    })
}

/// What a problem document says.
fn detail(body: &[u8]) -> String {
    problem::said(body).unwrap_or_else(|| "the server refused without a reason".to_owned())
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// One request over the socket, without a body.
async fn send(
    data_dir: &Path,
    method: Method,
    path: &str,
) -> Result<(hyper::StatusCode, bytes::Bytes), BoxError> {
    let dir = std::fs::File::open(data_dir)?;
    let stream = UnixStream::connect(short_path(&dir, ADMIN_SOCKET)).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = hyper::Request::builder()
        .method(method)
        .uri(path)
        .header(hyper::header::HOST, "mepulse")
        .body(Empty::<bytes::Bytes>::new())?;
    let exchange = async {
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        Ok::<_, BoxError>((status, answer.into_body().collect().await?.to_bytes()))
    };
    tokio::pin!(exchange);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        answer = &mut exchange => answer,
        ended = &mut connection => {
            ended?;
            exchange.await
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;

    use super::*;

    /// What is made of a server that answers so; and what it was asked.
    fn told(answer: &'static str) -> (Result<(), Failure>, String) {
        let temporary = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(temporary.path().join(ADMIN_SOCKET)).unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = [0; 4096];
            let read = stream.read(&mut asked).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
            String::from_utf8_lossy(&asked[..read]).into_owned()
        });
        let told = tell_server(&config(temporary.path()));
        (told, server.join().unwrap())
    }

    fn config(data_dir: &Path) -> Config {
        let mut config = Config::default();
        config.store.data_dir = data_dir.to_owned();
        config
    }

    #[test]
    fn a_server_is_told_and_its_refusal_is_passed_on() {
        let (told_fine, asked) = told("HTTP/1.1 204 No Content\r\n\r\n");
        assert!(told_fine.is_ok(), "{told_fine:?}");
        assert!(
            asked.starts_with("POST /admin/credentials HTTP/1.1\r\n"),
            "{asked}"
        );
        let (refused, _) = told(
            "HTTP/1.1 500 Internal Server Error\r\ncontent-length: 23\r\n\r\n{\"detail\":\"no clients\"}",
        );
        let refused = refused.unwrap_err();
        assert_eq!(refused.code, 1);
        assert!(
            refused.message.contains("no clients"),
            "{}",
            refused.message
        );
        let (broken, _) = told("nonsense");
        assert_eq!(broken.unwrap_err().code, 3);
    }

    #[test]
    fn without_a_server_nobody_is_told() {
        let temporary = tempfile::tempdir().unwrap();
        assert!(tell_server(&config(&temporary.path().join("missing"))).is_ok());
        assert!(tell_server(&config(temporary.path())).is_ok());
        // As a server leaves it that was killed.
        drop(UnixListener::bind(temporary.path().join(ADMIN_SOCKET)).unwrap());
        assert!(tell_server(&config(temporary.path())).is_ok());
    }
}
