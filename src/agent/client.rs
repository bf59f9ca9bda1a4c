//! Requests to the platform: bounded in time and bytes, over connections that are used again.

use std::error::Error as StdError;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT};
use http::{Method, Request, Uri};
use http_body_util::{BodyExt, Full};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde_json::Value;
use tower_service::Service;
use url::Url;

use super::config;
use super::token::Token;
use crate::clock;
use crate::tls::{self, Identity, PemFile, TlsError};
use crate::wire::{links, retry_after};

const AGENT: &str = concat!("mepulse-agent/", env!("CARGO_PKG_VERSION"));

/// EdgeGallery wants to be told again what the path says.
const APP_ID: HeaderName = HeaderName::from_static("x-appinstanceid");

/// A longer answer is none: a thousand services are shorter.
const ANSWER_BYTES_MAX: usize = 8 * 1024 * 1024;

/// A connection between two beats; shorter than what servers commonly allow.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Connections that wait for the next beat.
const IDLE_MAX: usize = super::beat::SINGLES_AT_ONCE;

/// So much of a refusal's text is kept.
const DETAIL_CHARS_MAX: usize = 300;

/// The platform, as one application sees it. Clones share connections and token.
#[derive(Debug, Clone)]
pub struct Client {
    http: Http,
    place: Arc<Place>,
    timeout: Duration,
}

#[derive(Debug)]
struct Place {
    base: Url,
    /// `…/applications/{appInstanceId}`
    app: String,
    app_id: HeaderValue,
    token: Option<Token>,
}

/// A client could not be made ready: a file is not what it should be.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The URL or the application's id cannot stand in a request.
    #[error("server.url {0:?} cannot be called")]
    Url(String),
}

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
        let problem = self.json();
        let detail = problem.as_ref().and_then(|problem| {
            let member = |name| problem.get(name).and_then(Value::as_str);
            member("detail").or(member("title"))
        });
        match detail {
            Some(detail) => {
                let detail: String = detail
                    .chars()
                    .filter(|c| !c.is_control())
                    .take(DETAIL_CHARS_MAX)
                    .collect();
                format!("the server answered {}: {detail}", self.status)
            }
            None => format!("the server answered {}", self.status),
        }
    }
}

impl Client {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn new(server: &config::Server, app: &str) -> Result<Self, ClientError> {
        let bad_url = || ClientError::Url(server.url.clone());
        let base = Url::parse(&server.url).map_err(|_| bad_url())?;
        let prefix = server.url.trim_end_matches('/');
        let app_id = HeaderValue::from_str(app).map_err(|_| bad_url())?;
        let timeout = Duration::from_millis(server.timeout_ms);
        let http = Http::new(server, timeout, IDLE_MAX)?;
        Ok(Self {
            http,
            place: Arc::new(Place {
                base,
                app: format!(
                    "{prefix}{}/applications/{}",
                    server.api_root,
                    links::segment(app)
                ),
                app_id,
                token: Token::new(&server.token_file),
            }),
            timeout,
        })
    }

    /// `…/services`, with a query for one name.
    pub(super) fn services_named(&self, name: &str) -> String {
        format!("{}?ser_name={}", self.services(), links::segment(name))
    }

    /// `…/services`
    pub(super) fn services(&self) -> String {
        format!("{}/services", self.place.app)
    }

    /// `…/services/{serviceId}`
    pub(super) fn service(&self, id: &str) -> String {
        format!("{}/services/{}", self.place.app, links::segment(id))
    }

    /// Where a link leads: links are absolute or path-absolute.
    pub(super) fn resolve(&self, link: &str) -> Option<String> {
        let url = self.place.base.join(link).ok()?;
        matches!(url.scheme(), "http" | "https").then(|| url.into())
    }

    /// How long an exchange may take.
    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// The same, with less patience.
    pub(super) fn within(&self, patience: Duration) -> Self {
        Self {
            timeout: self.timeout.min(patience),
            ..self.clone()
        }
    }

    /// One exchange; after a 401 a second one, if the token has changed meanwhile.
    ///
    /// # Errors
    /// [`Lost`].
    pub(super) async fn send(
        &self,
        method: Method,
        url: &str,
        body: Option<&Value>,
    ) -> Result<Answer, Lost> {
        let token = self.token_for(url);
        let header = token.and_then(Token::header);
        let answer = self
            .exchange(method.clone(), url, body, header.clone())
            .await?;
        match token {
            Some(token) if answer.status == 401 && token.refused(header.as_ref()) => {
                self.exchange(method, url, body, token.header()).await
            }
            Some(_) | None => Ok(answer),
        }
    }

    /// A link may lead to another host; the token is for this one alone.
    fn token_for(&self, url: &str) -> Option<&Token> {
        let url = Url::parse(url).ok()?;
        let token = self.place.token.as_ref()?;
        (url.origin() == self.place.base.origin()).then_some(token)
    }

    async fn exchange(
        &self,
        method: Method,
        url: &str,
        body: Option<&Value>,
        authorization: Option<HeaderValue>,
    ) -> Result<Answer, Lost> {
        let mut request = Request::builder()
            .method(method)
            .uri(url)
            .header(USER_AGENT, AGENT)
            .header(APP_ID, self.place.app_id.clone());
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let bytes = match body {
            None => Bytes::new(),
            Some(body) => {
                request = request.header(CONTENT_TYPE, "application/json");
                Bytes::from(body.to_string())
            }
        };
        let request = request
            .body(Full::new(bytes))
            .map_err(|error| Lost(format!("{url:?} cannot be called: {error}")))?;
        self.http
            .send(request, self.timeout, ANSWER_BYTES_MAX)
            .await
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
        let there = |path: &std::path::Path| !path.as_os_str().is_empty();
        let ca_file = there(&server.ca_file).then(|| file("server.ca_file", &*server.ca_file));
        let identity = there(&server.client_cert_file).then(|| Identity {
            certificates: file("server.client_cert_file", &*server.client_cert_file),
            private_key: file("server.client_key_file", &*server.client_key_file),
        });
        let tls = tls::client_config(ca_file, identity)?;
        Ok(Self(pool(tls, timeout, idle_max)))
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

fn pool(
    tls: rustls::ClientConfig,
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
        Some(source) => format!("{what}: {}", chain(source)),
        None => what.to_owned(),
    }
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
    sentence
        .chars()
        .filter(|c| !c.is_control())
        .take(DETAIL_CHARS_MAX)
        .collect()
}
