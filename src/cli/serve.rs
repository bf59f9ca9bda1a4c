//! `mepulse serve`, the composition root: builds inward-out, stops outward-in.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, UnixListener};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use super::{Failure, ServeArgs};
use crate::clock::{Machine, SystemMachine};
use crate::config::{Config, ConfigError, Sources};
use crate::domain::service::Transport;
use crate::http::listener::{self, Limits};
use crate::http::{self, Api, BodyLimits, Parts, Settings};
use crate::metrics::Metrics;
use crate::notify::{self, Caller, Guard, Notifier};
use crate::registry::{Boot, Registry, Rules, Running, Terms};
use crate::store::{OpenMode, OpenOptions, SledStore, Store, migrate};
use crate::wire::Links;
use crate::wire::report::About;
use crate::wire::transport::parse_transports;

/// The socket in the data directory that `mepulse admin` asks.
pub(super) const ADMIN_SOCKET: &str = "admin.sock";

/// The stop must be over within five seconds, of which requests under way get the larger part.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(3);
const STOP_TIMEOUT: Duration = Duration::from_millis(1700);
/// After a failed store there is nothing to wait for but the refusals' way out.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);
/// Connections to the admin's socket at once.
const ADMIN_CONNECTIONS_MAX: usize = 64;
/// Descriptors that are not connections of clients: the store, sockets, standard streams; the
/// admin's connections; farewells of both listeners. Those of callbacks come on top.
const DESCRIPTORS_RESERVED: u64 = 64 + 64 + 2 * 64;

pub(super) fn run(args: &ServeArgs) -> Result<(), Failure> {
    let sources = args.sources();
    let config = Config::load(&sources)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| {
            Failure::failed(format!("the event loop could not be started: {error}"))
        })?;
    // From here on a signal waits for its turn: opening and migrating are not torn.
    let signals = runtime.block_on(async { Signals::new() });
    let signals = signals.map_err(Failure::failed)?;
    log::info!(
        "mepulse {} starting on {}",
        env!("CARGO_PKG_VERSION"),
        config.store.data_dir.display()
    );
    // What only shows when it is used must show before anything is opened.
    let calls = Calls::new(&config)?;
    let machine = SystemMachine::new();
    let store = SledStore::open(&OpenOptions {
        data_dir: &config.store.data_dir,
        mode: OpenMode::Serve,
        cache_mb: config.store.cache_mb,
        durability: config.store.durability,
        steps: migrate::STEPS,
        boot_id: machine.read().boot_id,
    })?;
    let about = About {
        data_dir: store.data_dir().display().to_string(),
        store_id: store.store_id().to_string(),
        schema: store.schema(),
        durability: config.store.durability.as_str(),
        address: String::new(),
        started_steady_ms: 0,
    };
    let boot = Boot::load(Box::new(store)).map_err(Failure::failed)?;
    let result = runtime.block_on(serve(config, sources, signals, machine, boot, about, calls));
    // Whatever still runs in there must not hold the exit up.
    runtime.shutdown_background();
    result
}

/// Nothing was written: leave the store sealed as it was found.
fn close_unused(store: Box<dyn Store>, failure: Failure) -> Failure {
    if let Err(error) = store.close() {
        log::error!("{error}");
    }
    failure
}

async fn serve(
    config: Config,
    sources: Sources,
    signals: Signals,
    machine: SystemMachine,
    boot: Boot,
    about: About,
    calls: Calls,
) -> Result<(), Failure> {
    let data_dir = config.store.data_dir.clone();
    let bound = async {
        let tcp = bind_tcp(config.server.listen)?;
        let admin = listener::bind_unix(&data_dir, ADMIN_SOCKET).map_err(|error| {
            Failure::failed(format!(
                "listening on {} failed: {error}",
                data_dir.join(ADMIN_SOCKET).display()
            ))
        })?;
        Ok((tcp, admin))
    };
    let (tcp, admin) = match bound.await {
        Ok(bound) => bound,
        Err(failure) => return Err(close_unused(boot.into_store(), failure)),
    };
    let address = tcp.local_addr().unwrap_or(config.server.listen);
    let metrics = Arc::new(Metrics::new());
    // The kernel queues connections from here on: the outage ends now.
    let running = boot
        .start(terms(&config), Arc::new(machine), metrics.clone())
        .map_err(Failure::failed)?;
    let registry = running.registry().clone();
    let about = About {
        address: format!("http://{address}"),
        started_steady_ms: registry.now().steady.as_ms(),
        ..about
    };
    let (settings_sender, settings_receiver) = watch::channel(settings(&config));
    let (stop_sender, stopping) = watch::channel(false);
    let api = Api::from(Parts {
        registry: registry.clone(),
        metrics: metrics.clone(),
        links: Arc::new(Links::new(&config.server.public_url)),
        body_limits: BodyLimits {
            bytes: config.server.body_limit_bytes,
            timeout_ms: config.server.body_timeout_ms,
        },
        settings: settings_receiver,
        about: Arc::new(about),
        transports: calls.transports,
        guard: calls.guard,
        streams: Arc::new(Semaphore::new((config.server.connections_max / 4).max(1))),
        sign_of_life: Duration::from_millis((config.server.idle_timeout_ms / 3).max(1)),
        stop: stopping.clone(),
    });
    let listeners = listen(tcp, admin, &api, &config);
    let notifier = Notifier::new(
        registry.clone(),
        calls.caller,
        api.links.clone(),
        metrics.clone(),
        notify_terms(&config),
        stopping,
    );
    let mut notifier = tokio::spawn(notifier.run());
    let pulse = tokio::spawn(registry.clone().pulse());
    announce(&format!("mepulse listening on http://{address}"));

    let reloader = Reloader {
        config,
        sources,
        settings: settings_sender,
        registry: registry.clone(),
    };
    let failed = tokio::select! {
        () = signals.until_stop(reloader) => false,
        () = registry.failed() => true,
        // It ends only with the store; or it panicked, and nobody would be told of anything.
        _ = &mut notifier => true,
    };
    registry.stop_watching();
    stop_sender.send_replace(true);
    if failed {
        // The refusals' way out; then the store is left as it is.
        let _ = tokio::time::timeout(FAREWELL_TIMEOUT, listeners).await;
        let _ = std::fs::remove_file(data_dir.join(ADMIN_SOCKET));
        return Err(Failure::failed(
            "the store or the notifier failed; see the log. Restart to go on",
        ));
    }
    let _ = tokio::join!(listeners, tokio::time::timeout(DRAIN_TIMEOUT, notifier));
    pulse.abort();
    // Before the lock goes: after it, the name may be a successor's.
    let _ = std::fs::remove_file(data_dir.join(ADMIN_SOCKET));
    stop(running).await?;
    log::info!("stopped in good order");
    Ok(())
}

/// Starts both accept loops; they end when the server stops.
fn listen(tcp: TcpListener, admin: UnixListener, api: &Api, config: &Config) -> JoinHandle<()> {
    let limits = Limits {
        header_timeout: Duration::from_millis(config.server.header_timeout_ms),
        body_timeout: Duration::from_millis(config.server.body_timeout_ms),
        idle_timeout: Duration::from_millis(config.server.idle_timeout_ms),
        connections_max: descriptors_for(config),
        drain_timeout: DRAIN_TIMEOUT,
    };
    let public = listener::serve(
        tcp,
        http::routes(api),
        limits,
        api.metrics.clone(),
        {
            let registry = api.registry.clone();
            move || registry.note_refusal()
        },
        api.stop.clone(),
    );
    let private = listener::serve(
        admin,
        http::admin_routes(api),
        Limits {
            connections_max: ADMIN_CONNECTIONS_MAX,
            ..limits
        },
        api.metrics.clone(),
        || {},
        api.stop.clone(),
    );
    tokio::spawn(async move {
        tokio::join!(public, private);
    })
}

/// Connections that the kernel holds until they are accepted: everybody reconnects at once when the
/// server is back. The kernel's own limit (net.core.somaxconn) still holds.
const BACKLOG: u32 = 4096;

fn bind_tcp(address: SocketAddr) -> Result<TcpListener, Failure> {
    let listen = || {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        // A restarted server takes its port back at once.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    listen().map_err(|error: std::io::Error| {
        Failure::failed(format!(
            "listening on {address} failed: {error}; name another address with --listen, or port 0 for any"
        ))
    })
}

/// The one line on standard output. A reader that has gone away is no reason to fail.
pub(super) fn announce(line: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}

/// Finishes what was accepted and seals the store, within the time that is left.
async fn stop(running: Running) -> Result<(), Failure> {
    let stopping = tokio::task::spawn_blocking(|| running.stop());
    match tokio::time::timeout(STOP_TIMEOUT, stopping).await {
        Ok(Ok(stopped)) => stopped.map_err(Failure::failed),
        Ok(Err(error)) => Err(Failure::failed(format!("stopping failed: {error}"))),
        Err(_) => Err(Failure::failed(
            "the disk did not finish in time; what was acknowledged is on it, and the next start \
             recovers it",
        )),
    }
}

/// Raises the limit on open files as far as it goes, and lowers the connections to what fits.
fn descriptors_for(config: &Config) -> usize {
    let connections_max = config.server.connections_max;
    let callbacks = notify::descriptors(config.notify.in_flight_max) as u64;
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let open_files = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    let Some(open_files) = open_files else {
        return connections_max;
    };
    let room = usize::try_from(open_files.saturating_sub(DESCRIPTORS_RESERVED + callbacks))
        .unwrap_or(usize::MAX);
    if room < connections_max {
        log::warn!(
            "server.connections_max is {connections_max}, but the limit on open files leaves room \
             for {room} connections; raise it (ulimit -n, LimitNOFILE=)"
        );
    }
    connections_max.min(room.max(1))
}

fn rules(config: &Config) -> Rules {
    Rules {
        policy: config.policy(),
        auto_accept: config.apps.auto_accept,
        services_max_per_app: config.apps.services_max_per_app,
        subscriptions_max_per_app: config.apps.subscriptions_max_per_app,
    }
}

fn terms(config: &Config) -> Terms {
    Terms {
        rules: rules(config),
        queue_max: config.server.queue_max,
        linger_ms: config.store.commit_linger_ms,
        linger_commands: config.store.commit_linger_beats,
        mark_interval_ms: config.store.mark_interval_ms,
        idle_mark_interval_ms: config.store.idle_mark_interval_ms,
        tick_ms: config.truth.tick_ms,
        stall_ms: config.truth.stall_ms,
        events_per_service_max: config.history.keep_per_service,
        events_kept_ms: config.history.keep_days * 24 * 3600 * 1000,
    }
}

fn notify_terms(config: &Config) -> notify::Terms {
    notify::Terms {
        give_up_after_ms: config.notify.give_up_after_s * 1000,
        in_flight_max: config.notify.in_flight_max,
        batch_max: config.notify.batch_max,
    }
}

/// What is made of the configuration beyond its own checks.
struct Calls {
    guard: Guard,
    caller: Caller,
    transports: Arc<[Transport]>,
}

impl Calls {
    fn new(config: &Config) -> Result<Self, Failure> {
        let guard = Guard::new(&config.notify.networks()?);
        let ca_file = &config.notify.ca_file;
        let ca_file = (!ca_file.as_os_str().is_empty()).then_some(ca_file.as_path());
        let timeout = Duration::from_millis(config.notify.timeout_ms);
        let caller = Caller::new(guard.clone(), ca_file, timeout)
            .map_err(|error| ConfigError::Conflict(error.to_string()))?;
        let transports: Result<Vec<_>, _> = config
            .platform
            .transports
            .iter()
            .map(serde_json::to_value)
            .collect();
        let transports = transports
            .map_err(|error| error.to_string())
            .and_then(|list| parse_transports(list).map_err(|error| error.to_string()))
            .map_err(|error| ConfigError::Conflict(format!("`platform.transports`: {error}")))?;
        Ok(Self {
            guard,
            caller,
            transports: transports.into(),
        })
    }
}

fn settings(config: &Config) -> Settings {
    Settings {
        patch_response: config.liveness.patch_response,
        hide_suspended: config.liveness.hide_suspended,
        auto_accept: config.apps.auto_accept,
    }
}

/// Takes a changed configuration over.
struct Reloader {
    config: Config,
    sources: Sources,
    settings: watch::Sender<Settings>,
    registry: Registry,
}

impl Reloader {
    fn reload(&mut self) {
        let new = match Config::load(&self.sources) {
            Ok(new) => new,
            Err(error) => {
                log::error!("SIGHUP: {error}. Everything stays as it was");
                return;
            }
        };
        let (merged, need_restart) = self.config.reloaded(&new);
        if let Err(error) = merged.check() {
            log::error!(
                "SIGHUP: {error}, as long as {} are as they were. Everything stays; restart to take \
                 all of it over",
                need_restart.join(", ")
            );
            return;
        }
        // Also what takes effect only then must not keep the next start from succeeding.
        if let Err(Failure { message, .. }) = Calls::new(&new) {
            log::error!("SIGHUP: {message}. Everything stays as it was");
            return;
        }
        for key in need_restart {
            log::warn!("SIGHUP: `{key}` has changed and takes effect at the next start");
        }
        let changed = self.config.differences(&merged);
        log::info!(
            "SIGHUP: configuration read; {}",
            if changed.is_empty() {
                "nothing changed".to_owned()
            } else {
                format!("changed: {}", changed.join(", "))
            }
        );
        self.settings.send_replace(settings(&merged));
        self.registry.reload(rules(&merged));
        self.config = merged;
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Until SIGTERM or SIGINT; SIGHUP reloads.
    async fn until_stop(mut self, mut reloader: Reloader) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => break log::info!("SIGTERM: stopping"),
                _ = self.interrupt.recv() => break log::info!("SIGINT: stopping"),
                _ = self.hangup.recv() => reloader.reload(),
            }
        }
    }
}
