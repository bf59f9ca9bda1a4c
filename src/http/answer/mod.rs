//! Every outcome as an HTTP answer: the only place that picks status codes.

mod caller;

use bytes::Bytes;
use serde::Serialize;
use warp::Reply;
use warp::http::header::{self, HeaderName, HeaderValue};
use warp::http::{Response, StatusCode};
use warp::reply::Response as Answer;
use xxhash_rust::xxh3::xxh3_128;

pub(super) use self::caller::{OAuthError, oauth_error};
use crate::registry::{self, BatchOutcome};
use crate::wire::Malformed;
use crate::wire::liveness::{BatchResult, ServiceLivenessInfo};
use crate::wire::problem::ProblemDetails;

/// A refusal on its way to `application/problem+json`.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    detail: String,
    reasons: Vec<String>,
    allow: Option<&'static str>,
    retry_after_s: Option<u32>,
    /// How the caller can prove who he is. Source: RFC 9110, 11.6.1.
    challenge: Option<HeaderValue>,
}

/// What to tell a client that comes at a bad moment: a batch takes milliseconds, a restart about a
/// second.
const RETRY_SOON_S: u32 = 1;
/// A full share is not freed by hurrying.
const RETRY_LATER_S: u32 = 5;

impl Problem {
    fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        Self {
            status,
            detail,
            reasons: Vec::new(),
            allow: None,
            retry_after_s: None,
            challenge: None,
        }
    }

    /// A parameter or a body is wrong.
    pub(super) fn malformed(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    /// The caller is not who the path says.
    pub(super) fn not_yours(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, detail)
    }

    /// No such route.
    pub(super) fn no_route() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "there is no resource at this path; see /openapi.json",
        )
    }

    /// No such service; `id` as it came.
    pub(super) fn no_service(id: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            format!("there is no service {id:?} here"),
        )
    }

    /// No such subscription; `id` as it came.
    pub(super) fn no_subscription(id: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            format!("this application has no subscription {id:?}"),
        )
    }

    /// The resource does not have this method.
    pub(super) fn method(allow: &'static str) -> Self {
        Self {
            allow: Some(allow),
            ..Self::new(
                StatusCode::METHOD_NOT_ALLOWED,
                format!("this resource supports {allow} only"),
            )
        }
    }

    /// The body did not arrive in time.
    pub(super) fn too_slow(timeout_ms: u64) -> Self {
        Self::new(
            StatusCode::REQUEST_TIMEOUT,
            format!("the body was not complete within {timeout_ms} ms"),
        )
    }

    /// The body is too long.
    pub(super) fn too_large(limit: usize) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the body is longer than {limit} bytes"),
        )
    }

    /// The URI is too long.
    pub(super) fn uri_too_long(limit: usize) -> Self {
        Self::new(
            StatusCode::URI_TOO_LONG,
            format!("the URI is longer than {limit} bytes"),
        )
    }

    /// No more connections.
    pub(super) fn too_many_connections(limit: usize) -> Self {
        Self {
            retry_after_s: Some(RETRY_SOON_S),
            ..Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                format!("there are {limit} connections already; try again in a moment"),
            )
        }
    }

    /// No more streams.
    pub(super) fn too_many_streams() -> Self {
        Self {
            retry_after_s: Some(RETRY_LATER_S),
            ..Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "as many streams are open as a quarter of server.connections_max allows; try again \
                 later, or subscribe",
            )
        }
    }

    /// The registry is not ready, for these reasons.
    pub(super) fn not_ready(reasons: Vec<String>) -> Self {
        Self {
            reasons,
            retry_after_s: Some(RETRY_LATER_S),
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, "the registry is not ready")
        }
    }

    /// The full answer. `instance` is the request's path.
    pub(super) fn into_answer(self, instance: &str) -> Answer {
        let body = self.body(instance);
        let mut answer = with_body(self.status, "application/problem+json", body);
        let headers = answer.headers_mut();
        if let Some(allow) = self.allow {
            headers.insert(header::ALLOW, HeaderValue::from_static(allow));
        }
        if let Some(secs) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(secs));
        }
        if let Some(challenge) = self.challenge {
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        answer
    }

    /// The full answer, with which the connection ends.
    pub(super) fn into_last_answer(self, instance: &str) -> Answer {
        let mut answer = self.into_answer(instance);
        let close = HeaderValue::from_static("close");
        answer.headers_mut().insert(header::CONNECTION, close);
        answer
    }

    fn body(&self, instance: &str) -> Bytes {
        json(&ProblemDetails {
            kind: "about:blank",
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            detail: &self.detail,
            instance,
            reasons: &self.reasons,
        })
    }

    /// The answer as raw HTTP/1.1, for a connection that is refused before any request is read.
    pub(super) fn into_raw_http(self) -> Vec<u8> {
        let body = self.body("");
        let reason = self.status.canonical_reason().unwrap_or("Error");
        let mut raw = format!(
            "HTTP/1.1 {} {reason}\r\ncontent-type: application/problem+json\r\n\
             content-length: {}\r\nretry-after: {}\r\nconnection: close\r\n\r\n",
            self.status.as_u16(),
            body.len(),
            self.retry_after_s.unwrap_or(RETRY_SOON_S),
        )
        .into_bytes();
        raw.extend_from_slice(&body);
        raw
    }
}

impl From<registry::Error> for Problem {
    fn from(error: registry::Error) -> Self {
        use registry::Error;
        let detail = error.to_string();
        let (status, retry_after_s) = match error {
            Error::UnknownApp(_)
            | Error::NotRegistered(_)
            | Error::UnknownService(_)
            | Error::UnknownSubscription(_)
            | Error::NoLiveness(_) => (StatusCode::NOT_FOUND, None),
            Error::PromiseTooLong { .. } | Error::SuspendedByProducer => {
                (StatusCode::BAD_REQUEST, None)
            }
            Error::Inactive(_) | Error::AlreadyRegistered(_) => (StatusCode::CONFLICT, None),
            Error::Changed(_) => (StatusCode::PRECONDITION_FAILED, None),
            Error::TooManyServices { .. } | Error::TooManySubscriptions { .. } => {
                (StatusCode::TOO_MANY_REQUESTS, Some(RETRY_LATER_S))
            }
            // Whoever has promised to try again soon must not be asked to break that.
            Error::Busy | Error::Stopping | Error::Failed => {
                (StatusCode::SERVICE_UNAVAILABLE, Some(RETRY_SOON_S))
            }
        };
        Self {
            retry_after_s,
            ..Self::new(status, detail)
        }
    }
}

impl From<Malformed> for Problem {
    fn from(error: Malformed) -> Self {
        Self::malformed(error.to_string())
    }
}

/// 200 with a JSON body.
pub(super) fn ok<T: Serialize>(value: &T) -> Answer {
    with_body(StatusCode::OK, "application/json", json(value))
}

/// 200 with a body of another type.
pub(super) fn ok_text(content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    with_body(StatusCode::OK, content_type, body.into())
}

/// 200 with what nobody else may keep.
pub(super) fn ok_secret<T: Serialize>(value: &T) -> Answer {
    not_stored(ok(value))
}

fn not_stored(mut answer: Answer) -> Answer {
    let no_store = HeaderValue::from_static("no-store");
    answer.headers_mut().insert(header::CACHE_CONTROL, no_store);
    answer
}

/// 200 with JSON that is made while it is sent.
pub(super) fn ok_stream<S>(parts: S) -> Answer
where
    S: futures_util::Stream<Item = Result<Bytes, std::convert::Infallible>> + Send + Sync + 'static,
{
    let mut answer = warp::reply::stream(parts).into_response();
    let json = HeaderValue::from_static("application/json");
    answer.headers_mut().insert(header::CONTENT_TYPE, json);
    answer
}

/// 200 with a JSON body and its strong `ETag`.
pub(super) fn ok_tagged<T: Serialize>(value: &T) -> Answer {
    tagged(StatusCode::OK, value)
}

/// The strong entity tag of a representation: it changes whenever a byte of it does.
pub(super) fn entity_tag<T: Serialize>(value: &T) -> String {
    tag_of(&json(value))
}

fn tag_of(body: &[u8]) -> String {
    format!("\"{:032x}\"", xxh3_128(body))
}

fn tagged<T: Serialize>(status: StatusCode, value: &T) -> Answer {
    let body = json(value);
    let tag = tag_of(&body);
    let mut answer = with_body(status, "application/json", body);
    // Hex digits in quotes.
    if let Ok(tag) = HeaderValue::try_from(tag) {
        answer.headers_mut().insert(header::ETAG, tag);
    }
    answer
}

/// 200 with server-sent events.
pub(super) fn ok_events<S>(parts: S) -> Answer
where
    S: futures_util::Stream<Item = Result<Bytes, std::convert::Infallible>> + Send + Sync + 'static,
{
    let mut answer = warp::reply::stream(parts).into_response();
    let headers = answer.headers_mut();
    let events = HeaderValue::from_static("text/event-stream");
    headers.insert(header::CONTENT_TYPE, events);
    // Or a proxy may keep events to itself.
    not_stored(answer)
}

/// 201 with `Location` and the strong `ETag` of what was made.
pub(super) fn created_tagged<T: Serialize>(location: &str, value: &T) -> Answer {
    with_location(tagged(StatusCode::CREATED, value), location)
}

/// 201 with `Location`.
pub(super) fn created<T: Serialize>(location: &str, value: &T) -> Answer {
    let answer = with_body(StatusCode::CREATED, "application/json", json(value));
    with_location(answer, location)
}

fn with_location(mut answer: Answer, location: &str) -> Answer {
    // Links are percent-encoded, and the operator's prefix was checked with the configuration.
    if let Ok(location) = HeaderValue::from_str(location) {
        answer.headers_mut().insert(header::LOCATION, location);
    }
    answer
}

/// 204.
pub(super) fn no_content() -> Answer {
    let mut answer = Answer::default();
    *answer.status_mut() = StatusCode::NO_CONTENT;
    answer
}

/// The answer to an accepted heartbeat: 200 with what is to be told, else 204. `applied` repeats a
/// preference of the client's that was followed (RFC 7240).
///
/// Source: GS MEC 011 V2.2.1, 8.2.10.3.3.
pub(super) fn beaten(info: Option<&ServiceLivenessInfo>, applied: Option<&'static str>) -> Answer {
    let mut answer = info.map_or_else(no_content, ok_tagged);
    if let Some(applied) = applied {
        let name = HeaderName::from_static("preference-applied");
        answer
            .headers_mut()
            .insert(name, HeaderValue::from_static(applied));
    }
    answer
}

/// One service's part of the answer to a batch heartbeat, with the status that the single
/// heartbeat would have got.
pub(super) fn batch_result(ser_instance_id: String, outcome: BatchOutcome) -> BatchResult {
    let (status, interval) = match outcome {
        BatchOutcome::NewInterval(interval) => (StatusCode::OK, Some(interval.as_secs())),
        BatchOutcome::Alive => (StatusCode::NO_CONTENT, None),
        BatchOutcome::Unknown => (StatusCode::NOT_FOUND, None),
        BatchOutcome::Inactive => (StatusCode::CONFLICT, None),
    };
    BatchResult {
        ser_instance_id,
        status: status.as_u16(),
        interval,
    }
}

/// Bytes of a value of ours; they always serialise.
pub(super) fn json<T: Serialize>(value: &T) -> Bytes {
    serde_json::to_vec(value).unwrap_or_default().into()
}

fn with_body(status: StatusCode, content_type: &'static str, body: Bytes) -> Answer {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.into_response()
}
