//! Connections to the platform and to applications: bounded in time and bytes, and used again.

use std::error::Error as StdError;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::RETRY_AFTER;
use http::{Request, Uri};
use http_body_util::{BodyExt, Full};
use hyper_rustls::{
    DefaultServerNameResolver, HttpsConnector, HttpsConnectorBuilder, ResolveServerName,
};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::pki_types::ServerName;
use serde_json::Value;
use tower_service::Service;
use url::Url;

use super::config;
use crate::clock;
use crate::tls::{self, Identity, PemFile, TlsError};
use crate::wire::{problem, retry_after};

/// A connection between two beats; shorter than what servers commonly allow.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// What helps when a certificate is not taken.
const ADVICE: &str = "certificates are always verified: put its authority into server.ca_file, or the \
name that it has into server.tls_name (with --edgegallery: ca.crt or MEPULSE_CA_FILE, \
CA_CERT_DOMAIN_NAME)";

/// What came back, complete.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// How long the server asks to be left alone.
    pub(super) retry_after: Option<Duration>,
    /// Where something new is.
    pub(super) location: Option<String>,
    pub(super) body: Bytes,
}

/// No complete answer came. The server may have done what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Lost(pub(super) String);

impl Answer {
    pub(super) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The body, where it is JSON.
    pub(super) fn json(&self) -> Option<Value> {
        serde_json::from_slice(&self.body).ok()
    }

    /// The refusal as a sentence: the status, and what the server says of it.
    pub(super) fn refusal(&self) -> String {
        problem::refusal(self.status, &self.body)
    }
}

/// An HTTP client with bounds. Also what probes use.
#[derive(Debug, Clone)]
pub(super) struct Http(Pool<Bounded, Full<Bytes>>);

impl Http {
    /// Keeps `idle_max` connections to each host for the next request.
    pub(super) fn new(
        server: &config::Server,
        timeout: Duration,
        idle_max: usize,
    ) -> Result<Self, TlsError> {
        let file = |key, path| PemFile { key, path };
        let there = |path: &Path| !path.as_os_str().is_empty();
        let ca_file = there(&server.ca_file).then(|| file("server.ca_file", &*server.ca_file));
        let identity = there(&server.client_cert_file).then(|| Identity {
            certificates: file("server.client_cert_file", &*server.client_cert_file),
            private_key: file("server.client_key_file", &*server.client_key_file),
        });
        let tls = tls::client_config(ca_file, identity)?;
        let names = Names::new(server)?;
        Ok(Self(pool(tls, names, timeout, idle_max)))
    }

    /// Sends a request and reads the whole answer, at most `bytes_max` of it, within `limit`.
    pub(super) async fn send(
        &self,
        request: Request<Full<Bytes>>,
        limit: Duration,
        bytes_max: usize,
    ) -> Result<Answer, Lost> {
        let exchange = async {
            let sent = self.0.request(request).await;
            let answer = sent.map_err(|error| Lost(explain(&error)))?;
            let header = |name| answer.headers().get(name)?.to_str().ok();
            let asked =
                header(RETRY_AFTER).and_then(|value| retry_after::parse(value, clock::wall_now()));
            let location = header(http::header::LOCATION).map(str::to_owned);
            let status = answer.status().as_u16();
            let mut body = answer.into_body();
            let mut read = BytesMut::new();
            while let Some(frame) = body.frame().await {
                let frame = frame
                    .map_err(|error| Lost(format!("the answer broke off: {}", chain(&error))))?;
                if let Some(data) = frame.data_ref() {
                    if read.len() + data.len() > bytes_max {
                        return Err(Lost(format!("the answer is longer than {bytes_max} bytes")));
                    }
                    read.extend_from_slice(data);
                }
            }
            Ok(Answer {
                status,
                retry_after: asked,
                location,
                body: read.freeze(),
            })
        };
        tokio::time::timeout(limit, exchange)
            .await
            .unwrap_or_else(|_| Err(Lost(format!("no answer within {} ms", limit.as_millis()))))
    }
}

/// A connection that can be made anew while others hold it: certificates may be renewed.
#[derive(Debug, Clone)]
pub(super) struct Line(Arc<Mutex<Http>>);

impl Line {
    pub(super) fn new(http: Http) -> Self {
        Self(Arc::new(Mutex::new(http)))
    }

    /// As it is now.
    pub(super) fn http(&self) -> Http {
        let http = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        http.clone()
    }

    /// From now on.
    pub(super) fn renew(&self, http: Http) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = http;
    }
}

/// The name that a server's certificate must have: `server.tls_name` for the platform, for all others
/// the host that is called.
struct Names {
    platform: Option<(Url, ServerName<'static>)>,
}

impl Names {
    fn new(server: &config::Server) -> Result<Self, TlsError> {
        if server.tls_name.is_empty() {
            return Ok(Self { platform: None });
        }
        // The configuration has been checked: both can be read.
        let name = ServerName::try_from(server.tls_name.clone());
        let name = name.map_err(|error| rustls::Error::General(error.to_string()))?;
        let platform = Url::parse(&server.url).ok().map(|url| (url, name));
        Ok(Self { platform })
    }
}

impl ResolveServerName for Names {
    fn resolve(&self, uri: &Uri) -> Result<ServerName<'static>, Box<dyn StdError + Send + Sync>> {
        if let Some((platform, name)) = &self.platform
            && Url::parse(&uri.to_string()).is_ok_and(|url| url.origin() == platform.origin())
        {
            return Ok(name.clone());
        }
        DefaultServerNameResolver::default().resolve(uri)
    }
}

fn pool(
    tls: rustls::ClientConfig,
    names: Names,
    timeout: Duration,
    idle_max: usize,
) -> Pool<Bounded, Full<Bytes>> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(timeout));
    // A peer that is gone without a word must not hold a connection that was given up.
    tcp.set_tcp_user_timeout(Some(timeout));
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_or_http()
        .with_server_name_resolver(names)
        .enable_http1()
        .wrap_connector(tcp);
    Pool::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_max_idle_per_host(idle_max)
        .build(Bounded {
            inner: connector,
            timeout,
        })
}

/// The whole way to a usable connection, within the timeout. The pool finishes in the background
/// what an exchange has begun and then did not need; nothing else would end such a handshake.
#[derive(Debug, Clone)]
struct Bounded {
    inner: HttpsConnector<HttpConnector>,
    timeout: Duration,
}

impl Service<Uri> for Bounded {
    type Response = <HttpsConnector<HttpConnector> as Service<Uri>>::Response;
    type Error = Box<dyn StdError + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let limit = self.timeout;
        let connecting = self.inner.call(to);
        Box::pin(async move {
            match tokio::time::timeout(limit, connecting).await {
                Ok(connected) => connected,
                Err(_) => Err(format!("no connection within {} ms", limit.as_millis()).into()),
            }
        })
    }
}

/// What went wrong before there was an answer.
fn explain(error: &hyper_util::client::legacy::Error) -> String {
    let what = if error.is_connect() {
        "the server cannot be reached"
    } else {
        "the exchange failed"
    };
    match error.source() {
        Some(source) if distrusts(source) => format!("{what}: {}; {ADVICE}", chain(source)),
        Some(source) => format!("{what}: {}", chain(source)),
        None => what.to_owned(),
    }
}

/// Whether the server's certificate was not taken.
fn distrusts(error: &(dyn StdError + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(mut error) = next {
        // I/O errors keep to themselves what they were made of.
        while let Some(io) = error.downcast_ref::<std::io::Error>()
            && let Some(inner) = io.get_ref()
        {
            error = inner;
        }
        let found = error.downcast_ref::<rustls::Error>();
        if matches!(found, Some(rustls::Error::InvalidCertificate(_))) {
            return true;
        }
        next = error.source();
    }
    false
}

/// An error with its causes, on one line.
fn chain(error: &dyn StdError) -> String {
    let mut sentence = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let cause = error.to_string();
        // Some errors repeat their cause.
        if !sentence.ends_with(&cause) {
            sentence.push_str(": ");
            sentence.push_str(&cause);
        }
        source = error.source();
    }
    problem::tame(&sentence)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_platforms_name_is_nobody_elses() {
        let server = config::Server {
            tls_name: "edgegallery".to_owned(),
            ..config::Server::at("https://192.0.2.1:8443/mep")
        };
        let names = Names::new(&server).unwrap();
        let name_of = |uri: &str| names.resolve(&uri.parse().unwrap()).unwrap();
        let platform = ServerName::try_from("edgegallery").unwrap();
        assert_eq!(name_of("https://192.0.2.1:8443/oauth2/token"), platform);
        for other in [
            "https://login.example/token",
            "https://192.0.2.1/token",
            "https://192.0.2.1:8444/token",
            "https://192.0.2.2:8443/token",
        ] {
            assert_ne!(name_of(other), platform, "{other}");
        }
    }
}
