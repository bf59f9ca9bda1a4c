//! Connections to callbacks: guarded, bounded in time, with TLS where the URI says so.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::Uri;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tower_service::Service;

use super::guard::{Forbidden, Guard};
use super::held::{Held, Open};
use crate::tls::{self, PemFile, TlsError};

tokio::task_local! {
    /// Whether the current exchange has begun a connection. If not, it uses an old one.
    pub(super) static BEGAN_CONNECTION: Cell<bool>;
}

/// Names looked up at once.
const LOOKUPS_MAX: usize = 64;

type Connecting<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

/// Why there is no connection. A sentence for the subscription's owner and for the log.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("could not resolve the callback's host: {0}")]
    Resolve(io::Error),
    #[error("could not resolve the callback's host: it has no address")]
    NoAddress,
    #[error("the callback's address is refused: {0}")]
    Forbidden(Forbidden),
    #[error("could not connect to {address}: {source}")]
    Tcp {
        address: SocketAddr,
        source: io::Error,
    },
    #[error("TLS failed: {0}")]
    Tls(Box<dyn std::error::Error + Send + Sync>),
    #[error("timed out after {} ms", .0.as_millis())]
    TimedOut(Duration),
}

/// Connects to what the guard admits. The very address that is connected to is looked at, so a name
/// that resolves to something else by now gains nothing.
#[derive(Debug, Clone)]
pub(super) struct GuardedConnector {
    guard: Guard,
    timeout: Duration,
    open: Open,
    /// A lookup occupies a thread of the blocking pool, and outlives whoever asked for it.
    lookups: Arc<Semaphore>,
}

impl GuardedConnector {
    async fn connect(self, to: Uri) -> Result<TokioIo<Held>, ConnectError> {
        let host = to.host().unwrap_or_default();
        let host = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        let tls = to.scheme_str() == Some("https");
        let port = to.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let found = self.look_up(host, port).await?;

        let mut error = ConnectError::NoAddress;
        let mut admitted = Vec::new();
        for address in found {
            match self.guard.check(address.ip()) {
                Ok(()) => admitted.push(address),
                Err(forbidden) => error = ConnectError::Forbidden(forbidden),
            }
        }
        // One that does not answer leaves time for the others, and for the exchange.
        let attempts = u32::try_from(admitted.len()).unwrap_or(u32::MAX);
        let patience = self.timeout / attempts.saturating_add(1);
        for (at, address) in admitted.iter().copied().enumerate() {
            let tried = if at + 1 == admitted.len() {
                self.open(address).await
            } else {
                timeout(patience, self.open(address))
                    .await
                    .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            };
            match tried {
                Ok(stream) => return Ok(TokioIo::new(self.open.hold(stream))),
                Err(source) => error = ConnectError::Tcp { address, source },
            }
        }
        Err(error)
    }

    async fn look_up(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, ConnectError> {
        let lookups = self.lookups.clone();
        let place = lookups.acquire_owned().await;
        let host = host.to_owned();
        // Goes on when nobody waits for it any more, and holds its place as long.
        let lookup = tokio::spawn(async move {
            let found = lookup_host((host.as_str(), port)).await;
            drop(place);
            found.map(Vec::from_iter)
        });
        let found = lookup.await.unwrap_or_else(|error| Err(error.into()));
        found.map_err(ConnectError::Resolve)
    }

    async fn open(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(address).await?;
        // A notification is one small write; nothing follows that it could wait for.
        stream.set_nodelay(true)?;
        // A peer that takes no bytes keeps a connection that was given up from being closed.
        let limit_ms = u32::try_from(self.timeout.as_millis()).unwrap_or(u32::MAX);
        rustix::net::sockopt::set_tcp_user_timeout(&stream, limit_ms)?;
        Ok(stream)
    }
}

impl Service<Uri> for GuardedConnector {
    type Response = TokioIo<Held>;
    type Error = ConnectError;
    type Future = Connecting<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        Box::pin(self.clone().connect(to))
    }
}

/// The whole way to a usable connection, within the timeout. The pool finishes in the background
/// what an exchange has begun and then did not need; nothing else would end such a handshake.
#[derive(Debug, Clone)]
pub(super) struct Connector {
    inner: HttpsConnector<GuardedConnector>,
    timeout: Duration,
}

impl Connector {
    pub(super) fn new(
        guard: Guard,
        ca_file: Option<&Path>,
        timeout: Duration,
        open: &Open,
    ) -> Result<Self, TlsError> {
        let ca_file = ca_file.map(|path| PemFile {
            key: "notify.ca_file",
            path,
        });
        let inner = HttpsConnectorBuilder::new()
            .with_tls_config(tls::client_config(ca_file, None)?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(GuardedConnector {
                guard,
                timeout,
                open: open.clone(),
                lookups: Arc::new(Semaphore::new(LOOKUPS_MAX)),
            });
        Ok(Self { inner, timeout })
    }
}

impl Service<Uri> for Connector {
    type Response = MaybeHttpsStream<TokioIo<Held>>;
    type Error = ConnectError;
    type Future = Connecting<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        // In the background there is no exchange to tell.
        let _ = BEGAN_CONNECTION.try_with(|began| began.set(true));
        let limit = self.timeout;
        let connecting = self.inner.call(to);
        Box::pin(async move {
            match timeout(limit, connecting).await {
                Err(_) => Err(ConnectError::TimedOut(limit)),
                Ok(Ok(stream)) => Ok(stream),
                Ok(Err(error)) => Err(match error.downcast::<ConnectError>() {
                    Ok(error) => *error,
                    Err(error) => ConnectError::Tls(error),
                }),
            }
        })
    }
}
