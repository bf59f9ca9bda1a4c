//! What a token endpoint is asked, and what it answers. Pure, but for the file with the secret.

use std::path::PathBuf;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use http::{Method, Request};
use http_body_util::Full;
use serde_json::Value;
use url::Url;
use url::form_urlencoded::byte_serialize;
use zeroize::Zeroizing;

use super::super::client::AGENT;
use super::super::config::{Secret, Server};
use super::super::line::Answer;
use crate::auth::sdk_hmac;
use crate::domain::Wall;
use crate::files::Version;

/// A token of which nobody says how long it is good.
const LIFE_DEFAULT_S: f64 = 300.0;
/// Bounds of what is believed of a token's life.
const LIFE_MIN_S: f64 = 1.0;
const LIFE_MAX_S: f64 = 30.0 * 24.0 * 3600.0;
/// Longest `error` that is shown.
const ERROR_CHARS_MAX: usize = 64;

/// A longest token in bytes; a head of a request holds no more.
const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// How tokens are had.
#[derive(Debug)]
pub(super) struct Grant {
    url: Url,
    kind: Kind,
    secret: Kept,
}

#[derive(Debug)]
enum Kind {
    /// Source: RFC 6749, 4.4.
    ClientCredentials { client_id: String, scope: String },
    /// EdgeGallery's: a signed request with nothing in it.
    AccessKey { access_key: String },
}

/// Where a secret is kept.
#[derive(Debug)]
enum Kept {
    /// Read anew for each request: it may be replaced.
    File {
        key: &'static str,
        path: PathBuf,
    },
    Here(Secret),
}

/// A token as it was answered.
#[derive(Debug, PartialEq)]
pub(super) struct Granted {
    pub(super) header: HeaderValue,
    pub(super) life: Duration,
}

/// Why there is no token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) reason: String,
    pub(super) kind: FailureKind,
}

/// What may help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FailureKind {
    /// Trying again: nobody has answered, or somebody who is not well.
    Away,
    /// The same, not before this has passed.
    Busy(Duration),
    /// Somebody has to do something: asking often would only look like guessing.
    Refused,
}

impl Failure {
    pub(super) fn away(reason: String) -> Self {
        Self {
            reason,
            kind: FailureKind::Away,
        }
    }

    fn refused(reason: String) -> Self {
        Self {
            reason,
            kind: FailureKind::Refused,
        }
    }
}

impl Grant {
    /// As configured; `None`: tokens come from no server.
    ///
    /// # Errors
    /// The URL that cannot be called.
    pub(super) fn of(server: &Server, app: &str) -> Result<Option<Self>, String> {
        let Some(endpoint) = server.token_endpoint() else {
            return Ok(None);
        };
        let url = Url::parse(&endpoint).map_err(|_| endpoint)?;
        let (kind, secret) = if server.uses_oauth2() {
            let own = &server.oauth2;
            let client_id = match own.client_id.as_str() {
                "" => app,
                id => id,
            };
            let kind = Kind::ClientCredentials {
                client_id: client_id.to_owned(),
                scope: own.scope.clone(),
            };
            let secret = Kept::File {
                key: "server.oauth2.client_secret_file",
                path: own.client_secret_file.clone(),
            };
            (kind, secret)
        } else {
            let own = &server.access_key;
            let kind = Kind::AccessKey {
                access_key: own.access_key.clone(),
            };
            let secret = match &own.secret_key {
                Some(secret) => Kept::Here(secret.clone()),
                None => Kept::File {
                    key: "server.access_key.secret_key_file",
                    path: own.secret_key_file.clone(),
                },
            };
            (kind, secret)
        };
        Ok(Some(Self { url, kind, secret }))
    }

    /// Whether requests are signed, each with the second that it was made in.
    pub(super) fn is_signed(&self) -> bool {
        matches!(self.kind, Kind::AccessKey { .. })
    }

    /// What the file with the secret looks like now; `None`: there is none.
    pub(super) fn version(&self) -> Option<Version> {
        match &self.secret {
            Kept::File { path, .. } => Version::of(path),
            Kept::Here(_) => None,
        }
    }

    /// For messages.
    pub(super) fn url(&self) -> &str {
        self.url.as_str()
    }

    /// The request; `now` is when it is signed. May wait for the disk.
    ///
    /// # Errors
    /// [`Failure`], where there is no secret.
    pub(super) fn request(&self, now: Wall) -> Result<Request<Full<Bytes>>, Failure> {
        let secret = self.secret.get().map_err(Failure::away)?;
        let host = match (self.url.host_str(), self.url.port()) {
            (host, None) => host.unwrap_or_default().to_owned(),
            (host, Some(port)) => format!("{}:{port}", host.unwrap_or_default()),
        };
        let request = Request::builder()
            .method(Method::POST)
            .uri(self.url.as_str())
            .header(HOST, &host)
            .header(USER_AGENT, AGENT)
            .header(ACCEPT, "application/json");
        let (request, authorization, body) = match &self.kind {
            Kind::ClientCredentials { client_id, scope } => {
                let mut body = "grant_type=client_credentials".to_owned();
                if !scope.is_empty() {
                    body.push_str("&scope=");
                    body.extend(byte_serialize(scope.as_bytes()));
                }
                let content_type = "application/x-www-form-urlencoded";
                (
                    request.header(CONTENT_TYPE, content_type),
                    basic(client_id, &secret),
                    body,
                )
            }
            Kind::AccessKey { access_key } => {
                let date = date(now);
                let content_type = "application/json";
                let signed = sdk_hmac::sign(
                    access_key,
                    secret.expose().as_bytes(),
                    &date,
                    &sdk_hmac::Request {
                        method: "POST",
                        path: self.url.path(),
                        query: self.url.query().unwrap_or_default(),
                        headers: &[
                            ("content-type", content_type),
                            ("host", &host),
                            (sdk_hmac::DATE_HEADER, &date),
                        ],
                        body: b"",
                    },
                );
                let request = request
                    .header(CONTENT_TYPE, content_type)
                    .header(sdk_hmac::DATE_HEADER, &date);
                (request, Zeroizing::new(signed), String::new())
            }
        };
        let wrong = |_| Failure::refused("the access key cannot stand in a header".to_owned());
        let mut authorization = HeaderValue::from_str(&authorization).map_err(wrong)?;
        authorization.set_sensitive(true);
        request
            .header(AUTHORIZATION, authorization)
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| Failure::refused(format!("it cannot be called: {error}")))
    }
}

impl Kept {
    fn get(&self) -> Result<Secret, String> {
        match self {
            Self::Here(secret) => Ok(secret.clone()),
            Self::File { key, path } => {
                Secret::read(path).map_err(|reason| format!("{key} {}: {reason}", path.display()))
            }
        }
    }
}

/// Source: RFC 6749, 2.3.1: both are form-encoded before they are joined.
fn basic(client_id: &str, secret: &Secret) -> Zeroizing<String> {
    let mut pair = Zeroizing::new(String::new());
    pair.extend(byte_serialize(client_id.as_bytes()));
    pair.push(':');
    pair.extend(byte_serialize(secret.expose().as_bytes()));
    Zeroizing::new(format!("Basic {}", BASE64_STANDARD.encode(pair.as_bytes())))
}

/// In UTC, as [`sdk_hmac::seconds_of`] reads it.
fn date(now: Wall) -> String {
    let secs = i64::try_from(now.as_ms() / 1000).unwrap_or(0);
    let date = chrono::DateTime::from_timestamp(secs, 0).unwrap_or_default();
    date.format("%Y%m%dT%H%M%SZ").to_string()
}

/// What the server says. Source: RFC 6749, 5; read leniently. Nothing of an answer is shown but its
/// status and its `error`: what a server repeats may be a secret.
///
/// Only who says that it does not know us refuses: without an OAuth `error` it may be something in
/// front of it that answers, as while it starts. EdgeGallery's (`is_signed`) has no such member.
///
/// # Errors
/// [`Failure`].
pub(super) fn read(answer: &Answer, is_signed: bool) -> Result<Granted, Failure> {
    let status = answer.status;
    let body = answer.json();
    let member = |name| body.as_ref().and_then(|body| body.get(name));
    if !answer.is_success() {
        let error = member("error").and_then(Value::as_str).unwrap_or_default();
        let error: String = error
            .chars()
            .filter(|c| c.is_ascii_alphanumeric() || "_-.".contains(*c))
            .take(ERROR_CHARS_MAX)
            .collect();
        let says_why = !error.is_empty();
        let error = match error.as_str() {
            "" => String::new(),
            error => format!(" ({error})"),
        };
        let advice = match status {
            400 | 401 | 403 => {
                "; see whether it knows this client, and whether the secret is right"
            }
            404 | 405 => "; tokens are elsewhere",
            _ => "",
        };
        let reason = format!("the server answered {status}{error}{advice}");
        let kind = match (status, answer.retry_after) {
            (429 | 503, Some(pause)) => FailureKind::Busy(pause),
            (400 | 401 | 403, _) if says_why => FailureKind::Refused,
            (401 | 403, _) if is_signed => FailureKind::Refused,
            _ => FailureKind::Away,
        };
        return Err(Failure { reason, kind });
    }
    let unusable = |what: &str| Err(Failure::away(format!("the server's answer {what}")));
    let Some(token) = member("access_token").and_then(Value::as_str) else {
        return unusable("has no access_token");
    };
    if let Some(kind) = member("token_type").and_then(Value::as_str)
        && !kind.eq_ignore_ascii_case("bearer")
    {
        return unusable("has a token_type that is not Bearer");
    }
    let fits = (1..=TOKEN_BYTES_MAX).contains(&token.len())
        && token.bytes().all(|byte| byte.is_ascii_graphic());
    let header = Zeroizing::new(format!("Bearer {token}"));
    let Some(mut header) = HeaderValue::from_str(&header).ok().filter(|_| fits) else {
        return unusable("has an access_token that cannot stand in a header");
    };
    header.set_sensitive(true);
    let life_s = match member("expires_in") {
        Some(Value::Number(number)) => number.as_f64(),
        Some(Value::String(text)) => text.trim().parse().ok(),
        Some(_) | None => None,
    };
    // Servers write 0 or less for what they do not know; a token that ends at once is none.
    let life_s = life_s.filter(|secs: &f64| secs.is_finite() && *secs > 0.0);
    let life_s = life_s.unwrap_or(LIFE_DEFAULT_S);
    let life = Duration::from_secs_f64(life_s.clamp(LIFE_MIN_S, LIFE_MAX_S));
    Ok(Granted { header, life })
}

#[cfg(test)]
mod tests;
