//! The accept loop: limits, timeouts, drain.
//!
//! `warp::serve` has none of these: a half-sent head would hold a connection for ever. So we accept
//! ourselves and hand each connection to hyper with warp's filter as its service; see
//! `connection` for the watchdog beside it.

use std::future::Future;
use std::io;
use std::net::IpAddr;
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
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use warp::filters::BoxedFilter;
use warp::reply::Response as Answer;

use super::answer::Problem;
use super::connection;
use super::peer::Peer;
use crate::metrics::Metrics;
use crate::tls::ServerTls;

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
    /// Waits for the next one; and where it comes from, if that has an address.
    fn accept(&self)
    -> impl Future<Output = io::Result<(Self::Connection, Option<IpAddr>)>> + Send;
}

impl Accept for TcpListener {
    type Connection = tokio::net::TcpStream;

    async fn accept(&self) -> io::Result<(Self::Connection, Option<IpAddr>)> {
        let (stream, from) = TcpListener::accept(self).await?;
        // Answers are small and whole: waiting to fill a packet only adds delay.
        let _ = stream.set_nodelay(true);
        Ok((stream, Some(from.ip().to_canonical())))
    }
}

impl Accept for UnixListener {
    type Connection = tokio::net::UnixStream;

    async fn accept(&self) -> io::Result<(Self::Connection, Option<IpAddr>)> {
        Ok((UnixListener::accept(self).await?.0, None))
    }
}

/// What is true of everybody who comes in at a listener.
#[derive(Debug, Clone)]
pub enum Door {
    /// The admin's socket: whoever may open it runs the platform.
    Private,
    /// Without TLS.
    Plain {
        /// Others may listen in: tokens and secrets must not come this way.
        exposed: bool,
    },
    /// With TLS.
    Tls(Arc<ServerTls>),
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

/// What several listeners serve together: one set of routes, one number of connections.
#[derive(Clone)]
pub struct Server {
    routes: BoxedFilter<(Answer,)>,
    limits: Limits,
    metrics: Arc<Metrics>,
    slots: Arc<Semaphore>,
    farewells: Arc<Semaphore>,
    refused: Arc<dyn Fn() + Send + Sync>,
}

impl Server {
    /// Tells `refused` of every connection that it turns away.
    pub fn new(
        routes: BoxedFilter<(Answer,)>,
        limits: Limits,
        metrics: Arc<Metrics>,
        refused: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        Self {
            routes,
            limits,
            metrics,
            slots: Arc::new(Semaphore::new(limits.connections_max)),
            farewells: Arc::new(Semaphore::new(FAREWELLS_MAX)),
            refused: Arc::new(refused),
        }
    }

    /// Serves until `stop` turns true. Then stops accepting, finishes what was accepted within the
    /// drain timeout, and returns.
    pub async fn serve<L: Accept>(&self, listener: L, door: Door, mut stop: watch::Receiver<bool>) {
        let service = TowerToHyperService::new(warp::service(self.routes.clone()));
        let graceful = GracefulShutdown::new();
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                Some(_) = connections.join_next() => continue,
                _ = stop.wait_for(|stop| *stop) => break,
            };
            let (stream, from) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    log::warn!("accepting a connection failed: {error}; trying again");
                    self.metrics.connections_refused.inc();
                    (self.refused)();
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Ok(slot) = self.slots.clone().try_acquire_owned() else {
                self.turn_away(stream, &door, &mut connections);
                continue;
            };
            let open = Open::new(self.metrics.clone(), slot);
            let (limits, metrics) = (self.limits, self.metrics.clone());
            let (watcher, stop) = (graceful.watcher(), stop.clone());
            let (service, door) = (service.clone(), door.clone());
            connections.spawn(async move {
                let _open = open;
                let peer = match door {
                    Door::Private => Peer::private(),
                    Door::Plain { exposed } => Peer::plain(from, exposed),
                    Door::Tls(tls) => {
                        match shake_hands(stream, from, &tls, limits.header_timeout, stop).await {
                            Ok((stream, peer)) => {
                                let peer = Arc::new(peer);
                                connection::serve(stream, peer, service, limits, metrics, watcher)
                                    .await;
                            }
                            Err(why) => {
                                metrics.tls_handshakes_failed.inc();
                                log::debug!("a TLS handshake failed: {why}");
                            }
                        }
                        return;
                    }
                };
                let peer = Arc::new(peer);
                connection::serve(stream, peer, service, limits, metrics, watcher).await;
            });
        }
        drop(listener);
        let drained = tokio::time::timeout(self.limits.drain_timeout, graceful.shutdown());
        if drained.await.is_err() {
            log::warn!(
                "closing {} connections that did not finish in time",
                connections.len()
            );
        }
        connections.shutdown().await;
    }

    /// There is no room: says so where it can be said at once.
    fn turn_away<S>(&self, stream: S, door: &Door, connections: &mut JoinSet<()>)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        self.metrics.connections_refused.inc();
        (self.refused)();
        if matches!(door, Door::Tls(_)) {
            return;
        }
        if let Ok(permit) = self.farewells.clone().try_acquire_owned() {
            let limit = self.limits.connections_max;
            connections.spawn(async move {
                let _ = tokio::time::timeout(FAREWELL_TIMEOUT, refuse(stream, limit)).await;
                drop(permit);
            });
        }
    }
}

/// A TLS connection whose handshake is done, and who is at its other end; nothing if it comes to
/// nothing.
async fn shake_hands<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    from: Option<IpAddr>,
    tls: &Arc<ServerTls>,
    limit: Duration,
    mut stop: watch::Receiver<bool>,
) -> Result<(TlsStream<S>, Peer), String> {
    // Before the handshake: what changes meanwhile makes it void.
    let authorities = tls.authorities();
    let handshake = TlsAcceptor::from(tls.config()).accept(stream);
    let done = tokio::select! {
        done = tokio::time::timeout(limit, handshake) => done,
        // It has asked for nothing yet, and must not hold up the end.
        _ = stop.wait_for(|stop| *stop) => return Err("the server stops".to_owned()),
    };
    let stream = done
        .map_err(|_| "it was not complete in time".to_owned())?
        .map_err(|error| error.to_string())?;
    let chain = stream.get_ref().1.peer_certificates();
    let peer = Peer::tls(from, chain.and_then(<[_]>::first), tls, authorities);
    Ok((stream, peer))
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
