//! `mepulse serve`, the composition root: builds inward-out, stops outward-in.

mod listen;
mod reload;
mod terms;
mod upkeep;

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};

use self::listen::Bound;
use self::reload::{Reloader, Signals};
use self::terms::Prepared;
use self::upkeep::Upkeep;
use super::{Failure, ServeArgs};
use crate::clock::{Machine, Stopwatch, SystemMachine};
use crate::config::{Config, Sources};
use crate::http::{self, Api, BodyLimits, Gate, Parts};
use crate::metrics::Metrics;
use crate::notify::Notifier;
use crate::registry::{Boot, Running};
use crate::store::{OpenMode, OpenOptions, SledStore, Store, migrate};
use crate::wire::report::About;
use crate::wire::{Dialect, Links};

/// The socket in the data directory that `mepulse admin` asks.
pub(super) const ADMIN_SOCKET: &str = "admin.sock";

/// The stop must be over within five seconds. Requests under way get at most the larger part, and
/// what they leave goes to the store: to seal a large log is to read it once.
const STOP_TIMEOUT: Duration = Duration::from_millis(4700);
const DRAIN_TIMEOUT: Duration = Duration::from_secs(3);
/// After a failed store there is nothing to wait for but the refusals' way out.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);
pub(super) fn run(args: &ServeArgs) -> Result<(), Failure> {
    let sources = args.sources();
    let config = Config::load(&sources)?;
    config.check_open()?;
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
    let prepared = Prepared::new(&config)?;
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
    let result = runtime.block_on(serve(
        config, sources, signals, machine, boot, about, prepared,
    ));
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
    prepared: Prepared,
) -> Result<(), Failure> {
    let data_dir = config.store.data_dir.clone();
    let bound = match Bound::new(&config).await {
        Ok(bound) => bound,
        Err(failure) => return Err(close_unused(boot.into_store(), failure)),
    };
    let scheme = if prepared.tls.is_some() {
        "https"
    } else {
        "http"
    };
    let address = format!("{scheme}://{}", bound.address);
    let metrics = Arc::new(Metrics::new());
    // The kernel queues connections from here on: the outage ends now.
    let running = boot
        .start(terms::registry(&config), Arc::new(machine), metrics.clone())
        .map_err(Failure::failed)?;
    let registry = running.registry().clone();
    let about = About {
        address: address.clone(),
        started_steady_ms: registry.now().steady.as_ms(),
        ..about
    };
    let (settings_sender, settings_receiver) = watch::channel(terms::settings(&config));
    let (stop_sender, stopping) = watch::channel(false);
    let dialect = if config.edgegallery.enabled {
        Dialect::EdgeGallery
    } else {
        Dialect::Standard
    };
    let gate = Gate::new(&config, prepared.authority)?;
    let api = Api::from(Parts {
        registry: registry.clone(),
        metrics: metrics.clone(),
        openapi: http::document(&gate, dialect),
        gate,
        dialect,
        links: Arc::new(Links::new(&config.server.public_url, dialect)),
        body_limits: BodyLimits {
            bytes: config.server.body_limit_bytes,
            timeout_ms: config.server.body_timeout_ms,
        },
        settings: settings_receiver,
        about: Arc::new(about),
        transports: prepared.transports,
        guard: prepared.guard,
        streams: Arc::new(Semaphore::new((config.server.connections_max / 4).max(1))),
        sign_of_life: Duration::from_millis((config.server.idle_timeout_ms / 3).max(1)),
        stop: stopping.clone(),
    });
    let upkeep = Upkeep {
        tls: prepared.tls.clone(),
        api: api.clone(),
    };
    // Who was given credentials while the server was away is known from the first request on.
    upkeep.look().await;
    let listeners = bound.listen(prepared.tls, &api, &config);
    let notifier = Notifier::new(
        registry.clone(),
        prepared.caller,
        api.links.clone(),
        metrics.clone(),
        terms::notify(&config),
        stopping,
    );
    let mut notifier = tokio::spawn(notifier.run());
    let pulse = tokio::spawn(registry.clone().pulse());
    let upkeep = tokio::spawn(upkeep.run());
    announce(&format!("mepulse listening on {address}"));

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
    let since_told = Stopwatch::start();
    upkeep.abort();
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
    stop(running, STOP_TIMEOUT.saturating_sub(since_told.elapsed())).await?;
    log::info!("stopped in good order");
    Ok(())
}

/// The one line on standard output. A reader that has gone away is no reason to fail.
pub(super) fn announce(line: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}

/// Finishes what was accepted and seals the store, within the time that is left.
async fn stop(running: Running, left: Duration) -> Result<(), Failure> {
    let stopping = tokio::task::spawn_blocking(|| running.stop());
    match tokio::time::timeout(left, stopping).await {
        Ok(Ok(stopped)) => stopped.map_err(Failure::failed),
        Ok(Err(error)) => Err(Failure::failed(format!("stopping failed: {error}"))),
        Err(_) => Err(Failure::failed(
            "the disk did not finish in time; what was acknowledged is on it, and the next start \
             recovers it",
        )),
    }
}
