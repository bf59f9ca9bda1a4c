//! What whoever does not prove who he is gets to hear.

use std::time::Duration;

use serde_json::json;
use warp::http::StatusCode;
use warp::http::header::{self, HeaderValue};
use warp::reply::Response as Answer;

use super::{Problem, RETRY_LATER_S, not_stored, with_body};

impl Problem {
    /// Nobody has said who he is. Source: RFC 6750, 3.
    pub(in crate::http) fn no_token() -> Self {
        Self {
            challenge: Some(HeaderValue::from_static(r#"Bearer realm="mepulse""#)),
            ..Self::new(
                StatusCode::UNAUTHORIZED,
                "a bearer token is needed here (Authorization: Bearer …)",
            )
        }
    }

    /// The token is no good. Source: RFC 6750, 3.1.
    pub(in crate::http) fn invalid_token(why: &str) -> Self {
        let told: String = why
            .chars()
            .filter(|c| matches!(c, ' '..='~') && !matches!(c, '"' | '\\'))
            .collect();
        let challenge =
            format!(r#"Bearer realm="mepulse", error="invalid_token", error_description="{told}""#);
        Self {
            challenge: HeaderValue::try_from(challenge).ok(),
            ..Self::new(
                StatusCode::UNAUTHORIZED,
                format!("the token is not accepted: {why}"),
            )
        }
    }

    /// The certificate that the connection came with is no good any more.
    pub(in crate::http) fn certificate_over() -> Self {
        Self {
            detail: "the client's certificate has run out, or its authority is not trusted any \
                     more; connect again with another one"
                .to_owned(),
            ..Self::no_token()
        }
    }

    /// An access key's signature is no good.
    pub(in crate::http) fn bad_signature(why: impl Into<String>) -> Self {
        Self {
            challenge: Some(HeaderValue::from_static("SDK-HMAC-SHA256")),
            ..Self::new(StatusCode::UNAUTHORIZED, why)
        }
    }

    /// Others may have read what was sent.
    pub(in crate::http) fn in_the_clear() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "tokens and secrets are not taken over a connection without TLS that others may listen \
             to; what was sent should be replaced. Connect with https",
        )
    }

    /// Too many requests for tokens.
    pub(in crate::http) fn too_many_token_requests(wait: Duration, detail: &str) -> Self {
        Self {
            retry_after_s: Some(whole_s(wait)),
            ..Self::new(StatusCode::TOO_MANY_REQUESTS, detail)
        }
    }

    /// It is our fault that there is no token.
    pub(in crate::http) fn no_token_issued() -> Self {
        Self {
            retry_after_s: Some(RETRY_LATER_S),
            ..Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "no token could be issued; the operator finds the reason in the log",
            )
        }
    }

    /// Credentials have changed, and cannot be taken over.
    pub(in crate::http) fn credentials_not_in_force(reasons: Vec<String>) -> Self {
        Self {
            reasons,
            ..Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "the change is on the disk, but the server cannot read it, and what was before is \
                 still in force",
            )
        }
    }
}

/// Why there is no token. Source: RFC 6749, 5.2.
#[derive(Debug, Clone, Copy)]
pub(in crate::http) enum OAuthError {
    /// The request is malformed.
    InvalidRequest,
    /// The client is unknown, or its secret is wrong.
    InvalidClient,
    /// Another grant was asked for.
    UnsupportedGrantType,
    /// Not now.
    Later(Duration),
    /// It is our fault.
    Failed,
}

/// The refusal as clients of OAuth know it.
pub(in crate::http) fn oauth_error(error: OAuthError, why: &str) -> Answer {
    let (status, code, retry_after_s) = match error {
        OAuthError::InvalidRequest => (StatusCode::BAD_REQUEST, "invalid_request", None),
        OAuthError::InvalidClient => (StatusCode::UNAUTHORIZED, "invalid_client", None),
        OAuthError::UnsupportedGrantType => {
            (StatusCode::BAD_REQUEST, "unsupported_grant_type", None)
        }
        OAuthError::Later(wait) => (
            StatusCode::TOO_MANY_REQUESTS,
            "temporarily_unavailable",
            Some(whole_s(wait)),
        ),
        OAuthError::Failed => (
            StatusCode::SERVICE_UNAVAILABLE,
            "temporarily_unavailable",
            Some(RETRY_LATER_S),
        ),
    };
    let body = super::json(&json!({"error": code, "error_description": why}));
    let mut answer = not_stored(with_body(status, "application/json", body));
    let headers = answer.headers_mut();
    if status == StatusCode::UNAUTHORIZED {
        let basic = HeaderValue::from_static(r#"Basic realm="mepulse""#);
        headers.insert(header::WWW_AUTHENTICATE, basic);
    }
    if let Some(secs) = retry_after_s {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(secs));
    }
    answer
}

/// Whole seconds, at least one.
fn whole_s(wait: Duration) -> u32 {
    u32::try_from(wait.as_millis().div_ceil(1000)).map_or(u32::MAX, |secs| secs.max(1))
}
