//! One notification to one callback: bounded in time and in bytes, whatever the peer does.

use std::cell::Cell;
use std::error::Error as StdError;
use std::io;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, LOCATION, RETRY_AFTER, USER_AGENT};
use hyper::{Method, Request, Response, Uri};
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::{Instant, timeout_at};

use super::connect::{BEGAN_CONNECTION, ConnectError, Connector};
use super::guard::Guard;
use super::held::Open;
use crate::clock;
use crate::domain::subscription::CallbackUri;
use crate::domain::{Failing, Wall};
use crate::tls::TlsError;
use crate::wire;

/// The same number on a repeat means the same notification.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

const AGENT: &str = concat!("mepulse/", env!("CARGO_PKG_VERSION"));

/// So much of an answer is read, so that its connection can be used again. Nobody looks at it.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// An answer's head is no longer, and a connection holds no more in memory.
const BUFFER_BYTES_MAX: usize = 64 * 1024;

/// A connection between two notifications.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

const IDLE_PER_HOST_MAX: usize = 4;

/// While more connections than these are open, none is kept after its notification.
pub(super) const KEPT_MAX: usize = 128;

/// Calls callbacks. Cheap to clone; clones share their connections.
#[derive(Debug, Clone)]
pub struct Caller {
    keeping: Client<Connector, Full<Bytes>>,
    /// The same, but closes each connection after use.
    closing: Client<Connector, Full<Bytes>>,
    open: Open,
    timeout: Duration,
}

/// A notification that did not arrive, as far as we know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Failure {
    /// A sentence of at most [`Failing::ERROR_BYTES_MAX`] bytes without control characters.
    pub reason: String,
    /// How long the peer asks to be left alone; an hour at the most.
    pub retry_after: Option<Duration>,
}

impl Caller {
    /// A caller that trusts the system's certificate authorities and those in `ca_file` (PEM), and
    /// whose exchanges take no longer than `timeout`.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn new(guard: Guard, ca_file: Option<&Path>, timeout: Duration) -> Result<Self, TlsError> {
        let open = Open::default();
        let connector = Connector::new(guard, ca_file, timeout, &open)?;
        let client = |idle_per_host_max| {
            Client::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(IDLE_TIMEOUT)
                .pool_max_idle_per_host(idle_per_host_max)
                .http1_max_buf_size(BUFFER_BYTES_MAX)
                .build(connector.clone())
        };
        Ok(Self {
            keeping: client(IDLE_PER_HOST_MAX),
            closing: client(0),
            open,
            timeout,
        })
    }

    /// Sends a notification. Any 2xx says that it arrived; redirects are not followed, because the
    /// subscriber named this callback and no other.
    ///
    /// # Errors
    /// [`Failure`]. The peer may have taken it nevertheless, and knows a repeat by its key.
    pub async fn post(
        &self,
        to: &CallbackUri,
        body: Bytes,
        idempotency_key: u64,
    ) -> Result<(), Failure> {
        let deadline = Instant::now() + self.timeout;
        let uri = to.url().and_then(|url| url.as_str().parse::<Uri>().ok());
        let uri = uri.ok_or_else(|| Failure::because("callbackReference cannot be called"))?;
        let request = Request::builder()
            .method(Method::POST)
            .uri(uri)
            .header(CONTENT_TYPE, "application/json")
            .header(IDEMPOTENCY_KEY, idempotency_key)
            .header(USER_AGENT, AGENT)
            .body(Full::new(body))
            .map_err(|error| Failure::because(&error.to_string()))?;
        let answer = match timeout_at(deadline, self.send(request)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(Failure::because(&explain(&error))),
            Err(_) => {
                let error = ConnectError::TimedOut(self.timeout);
                return Err(Failure::because(&error.to_string()));
            }
        };
        let verdict = judge(&answer, to);
        // The status has settled it; what becomes of the body decides about the connection alone.
        let _ = timeout_at(deadline, drain(answer.into_body())).await;
        verdict
    }

    /// Sends a request until a connection lasts. The pool knows an idle connection to be closed only
    /// when the peer's goodbye is here; if that crosses with the request, another one is due.
    async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Error> {
        // Descriptors are for those who send heartbeats, too.
        let client = if self.open.count() < KEPT_MAX {
            &self.keeping
        } else {
            &self.closing
        };
        loop {
            let attempt = async {
                let sent = client.request(request.clone()).await;
                (sent, BEGAN_CONNECTION.with(Cell::get))
            };
            let (sent, fresh) = BEGAN_CONNECTION.scope(Cell::new(false), attempt).await;
            match sent {
                Err(error) if !fresh && was_closed(&error) => {}
                sent => return sent,
            }
        }
    }
}

impl Failure {
    fn because(reason: &str) -> Self {
        Self {
            reason: one_line(reason),
            retry_after: None,
        }
    }
}

/// What a head says about the delivery.
fn judge(answer: &Response<Incoming>, to: &CallbackUri) -> Result<(), Failure> {
    let status = answer.status();
    if status.is_success() {
        return Ok(());
    }
    let reason = match redirect_host(answer.headers(), to) {
        Some(host) if status.is_redirection() => {
            format!(
                "answered {}, a redirect to {host}, which is not followed",
                status.as_u16()
            )
        }
        _ => format!("answered {}", status.as_u16()),
    };
    Err(Failure {
        retry_after: retry_after(answer.headers(), clock::wall_now()),
        ..Failure::because(&reason)
    })
}

/// Where `Location` leads.
fn redirect_host(headers: &HeaderMap, to: &CallbackUri) -> Option<String> {
    let location = headers.get(LOCATION)?.to_str().ok()?;
    let target = to.url()?.join(location).ok()?;
    target.host_str().map(str::to_owned)
}

/// What a peer asks for.
fn retry_after(headers: &HeaderMap, now: Wall) -> Option<Duration> {
    wire::retry_after::parse(headers.get(RETRY_AFTER)?.to_str().ok()?, now)
}

/// Reads a body to its end, or drops it, which closes its connection.
async fn drain(mut body: Incoming) {
    let mut bytes = 0;
    let announced = body.size_hint().lower();
    if usize::try_from(announced).is_ok_and(|announced| announced <= ANSWER_BYTES_MAX) {
        while bytes <= ANSWER_BYTES_MAX
            && let Some(Ok(frame)) = body.frame().await
        {
            bytes += frame.data_ref().map_or(0, Bytes::len);
        }
    }
}

/// What went wrong before there was an answer.
fn explain(error: &Error) -> String {
    if let Some(error) = cause::<ConnectError>(error) {
        return error.to_string();
    }
    if was_closed(error) {
        return "the connection was closed before an answer".to_owned();
    }
    let mut sentence = match cause::<hyper::Error>(error) {
        Some(error) if error.is_parse() => "the answer is not HTTP/1.1".to_owned(),
        _ => "the exchange failed".to_owned(),
    };
    let mut source = error.source();
    while let Some(error) = source {
        sentence.push_str(": ");
        sentence.push_str(&error.to_string());
        source = error.source();
    }
    sentence
}

/// Whether the peer hung up instead of answering.
fn was_closed(error: &Error) -> bool {
    let hung_up = |error: &io::Error| {
        matches!(
            error.kind(),
            io::ErrorKind::BrokenPipe
                | io::ErrorKind::ConnectionAborted
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::UnexpectedEof
        )
    };
    cause::<hyper::Error>(error).is_some_and(|error| {
        error.is_incomplete_message()
            || error.is_canceled()
            || error.is_closed()
            || cause::<io::Error>(error).is_some_and(hung_up)
    })
}

fn cause<'a, T: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    error.source()?.downcast_ref()
}

/// The text as far as it fits, with control characters escaped: it ends up in logs and answers, and
/// parts of it come from strangers.
fn one_line(text: &str) -> String {
    let mut line = String::new();
    for c in text.chars() {
        let start = line.len();
        if c.is_control() {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
        if line.len() > Failing::ERROR_BYTES_MAX {
            line.truncate(start);
            break;
        }
    }
    line
}

#[cfg(test)]
mod tests;
