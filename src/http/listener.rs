//! The accept loop: limits, timeouts, drain.
//!
//! `warp::serve` has none of these: a half-sent head would hold a connection for ever. So we accept
//! ourselves and hand each connection to hyper with warp's filter as its service; see
//! `connection` for the watchdog beside it.

use std::future::Future;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use warp::filters::BoxedFilter;
use warp::reply::Response as Answer;

use super::answer::Problem;
use super::connection;
use crate::metrics::Metrics;

/// Refused connections that are told so at once; the rest is closed without a word.
const FAREWELLS_MAX: usize = 64;
/// How long a refused connection may take to hear it.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);
/// Pause after a failed accept (out of descriptors, mostly): trying again at once would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a listener allows.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// From the first byte of a request to the end of its head.
    pub header_timeout: Duration,
    /// For a body, also one that nobody wants.
    pub body_timeout: Duration,
    /// Silence between requests, and not taking an answer.
    pub idle_timeout: Duration,
    /// Connections at once.
    pub connections_max: usize,
    /// For requests under way when the server stops.
    pub drain_timeout: Duration,
}

/// Something that accepts connections.
pub trait Accept: Send + 'static {
    /// A connection.
    type Connection: AsyncRead + AsyncWrite + Send + Unpin + 'static;
    /// Waits for the next one.
    fn accept(&self) -> impl Future<Output = io::Result<Self::Connection>> + Send;
}

impl Accept for TcpListener {
    type Connection = tokio::net::TcpStream;

    async fn accept(&self) -> io::Result<Self::Connection> {
        let (stream, _) = TcpListener::accept(self).await?;
        // Answers are small and whole: waiting to fill a packet only adds delay.
        let _ = stream.set_nodelay(true);
        Ok(stream)
    }
}

impl Accept for UnixListener {
    type Connection = tokio::net::UnixStream;

    async fn accept(&self) -> io::Result<Self::Connection> {
        Ok(UnixListener::accept(self).await?.0)
    }
}

/// Listens on a socket in a directory that this process has locked: a stale one is replaced. The
/// path may be longer than the 107 bytes that a socket's address holds.
///
/// # Errors
/// When the directory cannot be opened or the socket not bound.
pub fn bind_unix(dir: &Path, name: &str) -> io::Result<UnixListener> {
    let path = dir.join(name);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(short_path(&std::fs::File::open(dir)?, name))?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// A path to a name in an open directory that is short, however deep the directory is.
#[must_use]
pub fn short_path(dir: &std::fs::File, name: &str) -> std::path::PathBuf {
    use std::os::fd::AsRawFd;
    Path::new("/proc/self/fd")
        .join(dir.as_raw_fd().to_string())
        .join(name)
}

/// Serves until `stop` turns true; tells `refused` of every connection that it turns away. Then stops accepting, finishes what was accepted within the
/// drain timeout, and returns.
pub async fn serve<L: Accept>(
    listener: L,
    routes: BoxedFilter<(Answer,)>,
    limits: Limits,
    metrics: Arc<Metrics>,
    refused: impl Fn(),
    mut stop: watch::Receiver<bool>,
) {
    let service = TowerToHyperService::new(warp::service(routes));
    let slots = Arc::new(Semaphore::new(limits.connections_max));
    let farewells = Arc::new(Semaphore::new(FAREWELLS_MAX));
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let stream = match accepted {
            Ok(stream) => stream,
            Err(error) => {
                log::warn!("accepting a connection failed: {error}; trying again");
                metrics.connections_refused.inc();
                refused();
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(slot) = slots.clone().try_acquire_owned() else {
            metrics.connections_refused.inc();
            refused();
            if let Ok(permit) = farewells.clone().try_acquire_owned() {
                let limit = limits.connections_max;
                connections.spawn(async move {
                    let _ = tokio::time::timeout(FAREWELL_TIMEOUT, refuse(stream, limit)).await;
                    drop(permit);
                });
            }
            continue;
        };
        let (service, metrics, watcher) = (service.clone(), metrics.clone(), graceful.watcher());
        connections.spawn(async move {
            let _open = Open::new(metrics.clone(), slot);
            connection::serve(stream, service, limits, metrics, watcher).await;
        });
    }
    drop(listener);
    if tokio::time::timeout(limits.drain_timeout, graceful.shutdown())
        .await
        .is_err()
    {
        log::warn!(
            "closing {} connections that did not finish in time",
            connections.len()
        );
    }
    connections.shutdown().await;
}

/// An open connection: counted, and in its slot, until dropped.
struct Open {
    metrics: Arc<Metrics>,
    _slot: OwnedSemaphorePermit,
}

impl Open {
    fn new(metrics: Arc<Metrics>, slot: OwnedSemaphorePermit) -> Self {
        metrics.connections.inc();
        Self {
            metrics,
            _slot: slot,
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.metrics.connections.dec();
    }
}

/// Tells a connection that there is no room, and waits until it has heard.
async fn refuse<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, limit: usize) {
    let farewell = Problem::too_many_connections(limit).into_raw_http();
    if stream.write_all(&farewell).await.is_ok() && stream.shutdown().await.is_ok() {
        // Closing on unread bytes would reset the connection under the answer.
        let mut rest = [0; 1024];
        while matches!(stream.read(&mut rest).await, Ok(read) if read > 0) {}
    }
}
