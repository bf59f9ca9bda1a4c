//! `mepulse admin`: asks the running server over the data directory's socket; with the server down
//! it opens the store itself, writing no mark. The same reports either way.

use std::path::Path;
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::delivery;
use super::human::{duration, relative, table};
use super::serve::ADMIN_SOCKET;
use super::story;
use super::{AdminArgs, AdminCommand, Failure};
use crate::clock::{Machine, SystemMachine, wall_now};
use crate::config::Config;
use crate::domain::{DeadLetter, Moment, ServiceId};
use crate::http::{known, listener::short_path};
use crate::registry::Boot;
use crate::store::{OpenError, OpenMode, OpenOptions, SledStore, migrate};
use crate::wire::delivery::{Backlog, DeadLetterReport, SubscriptionReport};
use crate::wire::report::{Counts, ServiceDetail, ServiceReport, Status, rfc3339};
use crate::wire::story::{Forecast, Story};

/// A server that is well answers in milliseconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Events read from the log in one go.
const PAGE: usize = 512;

/// Where the answers come from.
enum Source {
    /// The running server, over its socket.
    Server(Server),
    /// The store itself; the server is down.
    Store(Box<Opened>),
}

struct Opened {
    boot: Boot,
    status: Status,
}

struct Server {
    runtime: tokio::runtime::Runtime,
    data_dir: std::path::PathBuf,
    /// What to say when the socket does not answer.
    in_use: String,
}

pub(super) fn run(args: &AdminArgs) -> Result<(), Failure> {
    let config = Config::load(&args.config.sources())?;
    let source = Source::open(&config)?;
    let result = print(&source, args);
    source.close()?;
    result
}

fn print(source: &Source, args: &AdminArgs) -> Result<(), Failure> {
    match &args.command {
        AdminCommand::Services => {
            let services = source.services()?;
            if args.json {
                print_json(&services)
            } else {
                print_services(&services, source.now_ms()?)
            }
        }
        AdminCommand::Show { service } => {
            let detail = source.service(parse_id(service)?)?;
            if args.json {
                print_json(&detail)
            } else {
                print_service(&detail, source.now_ms()?)
            }
        }
        AdminCommand::Why { service } => {
            let story = source.story(parse_id(service)?)?;
            if args.json {
                print_json(&story)
            } else {
                print_text(&story::why(&story))
            }
        }
        AdminCommand::Forecast => {
            let mut forecasts = source.forecasts()?;
            forecasts.sort_by_key(|forecast| forecast.evidence.deadline_steady_ms);
            if args.json {
                print_json(&forecasts)
            } else {
                print_text(&story::forecast(&forecasts, source.now_ms()?))
            }
        }
        AdminCommand::Subscriptions => {
            let subscriptions = source.subscriptions()?;
            if args.json {
                print_json(&subscriptions)
            } else {
                print_text(&delivery::subscriptions(&subscriptions, source.now_ms()?))
            }
        }
        AdminCommand::DeadLetters => {
            let letters = source.dead_letters()?;
            if args.json {
                print_json(&letters)
            } else {
                print_text(&delivery::dead_letters(&letters))
            }
        }
        AdminCommand::Status => {
            let status = source.status()?;
            if args.json {
                print_json(&status)
            } else {
                print_status(&status)
            }
        }
    }
}

fn parse_id(text: &str) -> Result<ServiceId, Failure> {
    ServiceId::parse(text).ok_or_else(|| Failure {
        code: 2,
        message: format!("{text:?} is no service id: expected a UUID (serInstanceId)"),
    })
}

fn no_service(id: ServiceId) -> Failure {
    Failure::failed(format!("there is no service \"{id}\" here"))
}

impl Source {
    fn open(config: &Config) -> Result<Self, Failure> {
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

    fn services(&self) -> Result<Vec<ServiceReport>, Failure> {
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

    fn service(&self, id: ServiceId) -> Result<ServiceDetail, Failure> {
        match self {
            Self::Server(server) => server.ask(&format!("/admin/services/{id}")),
            Self::Store(opened) => {
                let view = opened.boot.view();
                let entry = view.service(&id).ok_or_else(|| no_service(id))?;
                Ok(ServiceDetail::new(
                    known(entry),
                    view.policy.as_ref(),
                    &view.blind_spots,
                ))
            }
        }
    }

    fn story(&self, id: ServiceId) -> Result<Story, Failure> {
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

    fn forecasts(&self) -> Result<Vec<Forecast>, Failure> {
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

    fn subscriptions(&self) -> Result<Vec<SubscriptionReport>, Failure> {
        match self {
            Self::Server(server) => server.ask("/admin/subscriptions"),
            Self::Store(opened) => {
                let boot = &opened.boot;
                let letters = boot.dead_letters().map_err(Failure::failed)?;
                let known = boot.view().subscriptions();
                let known = known.map(|known| (known.subscription.as_ref(), &known.cursor));
                let mut backlog = Backlog::new(known, &letters);
                let mut next = backlog.from();
                while let Some(from) = next {
                    let events = boot.events(from, PAGE).map_err(Failure::failed)?;
                    events.iter().for_each(|event| backlog.see(event));
                    next = events.last().map(|last| last.sequence + 1);
                }
                Ok(backlog.into_reports())
            }
        }
    }

    fn dead_letters(&self) -> Result<Vec<DeadLetterReport>, Failure> {
        match self {
            Self::Server(server) => server.ask("/admin/dead-letters"),
            Self::Store(opened) => {
                let boot = &opened.boot;
                let report = |letter: DeadLetter| {
                    let event = boot.events(letter.sequence, 1).map_err(Failure::failed)?;
                    let event = event.first().filter(|e| e.sequence == letter.sequence);
                    Ok(DeadLetterReport::new(&letter, event))
                };
                let letters = boot.dead_letters().map_err(Failure::failed)?;
                letters.into_iter().map(report).collect()
            }
        }
    }

    fn status(&self) -> Result<Status, Failure> {
        match self {
            Self::Server(server) => server.ask("/admin/status"),
            Self::Store(opened) => Ok(opened.status.clone()),
        }
    }

    /// Steady time now, for relative times.
    fn now_ms(&self) -> Result<u64, Failure> {
        Ok(self.status()?.steady_ms)
    }

    fn close(self) -> Result<(), Failure> {
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

impl Server {
    /// GETs a report over the socket.
    fn ask<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.runtime.block_on(async {
            let answer = tokio::time::timeout(ANSWER_TIMEOUT, get(&self.data_dir, path)).await;
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
            let problem: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
            let detail = problem.get("detail").and_then(|detail| detail.as_str());
            Err(Failure::failed(
                detail.unwrap_or("the server refused without a reason"),
            ))
        })
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

async fn get(data_dir: &Path, path: &str) -> Result<(hyper::StatusCode, bytes::Bytes), BoxError> {
    let dir = std::fs::File::open(data_dir)?;
    let stream = UnixStream::connect(short_path(&dir, ADMIN_SOCKET)).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = hyper::Request::get(path)
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

/// Prints to standard output; a reader that has gone away (`| head`) is no failure.
fn print_text(text: &str) -> Result<(), Failure> {
    use std::io::Write;
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure::failed(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn print_json<T: Serialize>(value: &T) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(Failure::failed)?;
    print_text(&format!("{text}\n"))
}

fn print_services(services: &[ServiceReport], steady_now_ms: u64) -> Result<(), Failure> {
    let header = [
        "SERVICE",
        "APPLICATION",
        "NAME",
        "STATE",
        "INTERVAL",
        "LAST HEARTBEAT",
        "SILENT",
    ];
    let row = |service: &ServiceReport| {
        [
            service.ser_instance_id.clone(),
            service.app_instance_id.clone(),
            service.ser_name.clone(),
            service.state.clone(),
            service
                .liveness_interval
                .map_or("-".to_owned(), |secs| format!("{secs} s")),
            last_heartbeat(service),
            silent(service, steady_now_ms),
        ]
    };
    print_text(&table(Some(header), services.iter().map(row).collect()))
}

fn last_heartbeat(service: &ServiceReport) -> String {
    match (&service.time_stamp, service.beats) {
        (Some(_), Some(0)) => "none yet".to_owned(),
        (Some(at), _) => match chrono::DateTime::parse_from_rfc3339(at) {
            Ok(at) => {
                let at_ms = u64::try_from(at.timestamp_millis()).unwrap_or(0);
                relative(at_ms, wall_now().as_ms())
            }
            Err(_) => at.clone(),
        },
        (None, _) => "-".to_owned(),
    }
}

/// When it will count as silent, or since when it does.
fn silent(service: &ServiceReport, steady_now_ms: u64) -> String {
    match (service.deadline_steady_ms, service.suspended_steady_ms) {
        (Some(at), _) => relative(at, steady_now_ms),
        (None, Some(since)) => format!("for {}", duration(steady_now_ms.saturating_sub(since))),
        (None, None) => "-".to_owned(),
    }
}

/// Names and values, one a line.
#[derive(Default)]
struct Facts(Vec<[String; 2]>);

impl Facts {
    fn add(&mut self, name: &str, value: impl ToString) {
        self.0.push([name.to_owned(), value.to_string()]);
    }

    fn into_text(self) -> String {
        table(None, self.0)
    }
}

fn print_service(detail: &ServiceDetail, steady_now_ms: u64) -> Result<(), Failure> {
    let report = &detail.report;
    let mut facts = Facts::default();
    facts.add("service", &report.ser_instance_id);
    facts.add("application", &report.app_instance_id);
    facts.add("name", &report.ser_name);
    facts.add("state", &report.state);
    match report.liveness_interval {
        None => facts.add("heartbeat", "none agreed on"),
        Some(secs) => {
            facts.add("interval", format!("{secs} s"));
            facts.add("last heartbeat", last_heartbeat(report));
            facts.add("time stamp", report.time_stamp.as_deref().unwrap_or("-"));
            facts.add("heartbeats", report.beats.unwrap_or(0));
            facts.add("silent", silent(report, steady_now_ms));
        }
    }
    if let Some(timer) = &detail.timer {
        facts.add("timer since", relative(timer.base_steady_ms, steady_now_ms));
        facts.add("grace", duration(timer.grace_ms));
        let why = if timer.promised {
            "promised"
        } else {
            "its interval; nothing promised"
        };
        facts.add(
            "tries again within",
            format!("{} ({why})", duration(timer.retry_ms)),
        );
    }
    let info = serde_json::to_string_pretty(&detail.service_info).map_err(Failure::failed)?;
    print_text(&format!("{}\n{info}\n", facts.into_text()))
}

fn print_status(status: &Status) -> Result<(), Failure> {
    let mut facts = Facts::default();
    match &status.process {
        Some(process) => {
            facts.add("server", format!("running (pid {})", process.pid));
            facts.add("address", &process.address);
            facts.add("version", &process.version);
            facts.add("up for", duration(process.uptime_ms));
            facts.add("durability", &process.durability);
            let ready = match process.not_ready.as_slice() {
                [] => "yes".to_owned(),
                reasons => format!("no: {}", reasons.join("; ")),
            };
            facts.add("ready", ready);
        }
        None => {
            facts.add("server", "stopped (this is what the store says)");
            facts.add(
                "last watched",
                status.last_watched.as_deref().unwrap_or("never"),
            );
            let how = match status.clean_stop {
                Some(true) => "in good order",
                Some(false) => "not in good order (crash, kill or power cut)",
                None => "-",
            };
            facts.add("stopped", how);
        }
    }
    let Counts {
        apps,
        active,
        inactive,
        suspended,
    } = status.counts;
    facts.add("data directory", &status.data_dir);
    facts.add(
        "store",
        format!("{} (schema {})", status.store_id, status.schema),
    );
    facts.add("applications", apps);
    facts.add(
        "services",
        format!("{active} ACTIVE, {suspended} SUSPENDED, {inactive} INACTIVE"),
    );
    facts.add("blind spots kept", status.blind_spots);
    facts.add("undecodable rows", status.undecodable_rows);
    print_text(&facts.into_text())
}
