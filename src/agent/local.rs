//! What applications ask their agent: `/mep-agent/v1/token` and `/mep-agent/v1/endpoint/{serName}`,
//! as EdgeGallery's agent has them.
//!
//! A page in a browser on this machine must not get at them by a name of its own that leads here: a
//! `Host` has to be an address or `localhost`.

use std::net::IpAddr;

use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::uri::Authority;
use http::{Method, StatusCode};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};
use warp::filters::BoxedFilter;
use warp::reply::Response as Answer;
use warp::{Filter, Reply};

use super::client::Client;
use super::config::Status;
use crate::domain::Subject;

/// See the module.
#[derive(Debug, Clone)]
pub struct Local {
    client: Client,
    hand_out_tokens: bool,
    /// No browser gets at a socket in the file system.
    any_host: bool,
}

/// No answer: the status, and a sentence.
type Refusal = (StatusCode, String);

impl Local {
    pub(super) fn new(client: Client, status: &Status) -> Self {
        Self {
            client,
            hand_out_tokens: status.hand_out_tokens,
            any_host: status.listen.starts_with("unix:"),
        }
    }

    /// The routes; whatever else is asked for is somebody else's.
    pub(super) fn routes(self) -> BoxedFilter<(Answer,)> {
        use warp::path;
        let local = warp::any().map(move || self.clone());
        let host = warp::host::optional();
        let token = warp::get()
            .and(path!("mep-agent" / "v1" / "token"))
            .and(local.clone())
            .and(host)
            .map(|local: Self, host: Option<Authority>| {
                let told = local.admit(host.as_ref()).and_then(|()| local.token());
                answer(told)
            });
        let endpoint = warp::get()
            .and(path!("mep-agent" / "v1" / "endpoint" / String))
            .and(local)
            .and(host)
            .then(
                |name: String, local: Self, host: Option<Authority>| async move {
                    match local.admit(host.as_ref()) {
                        Ok(()) => answer(local.endpoint(&name).await),
                        Err(refusal) => answer(Err(refusal)),
                    }
                },
            );
        token.or(endpoint).unify().boxed()
    }

    fn admit(&self, host: Option<&Authority>) -> Result<(), Refusal> {
        let Some(host) = host.filter(|_| !self.any_host) else {
            return Ok(());
        };
        let name = host.host();
        let bare = name.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
        let is_address = bare.unwrap_or(name).parse::<IpAddr>().is_ok();
        match is_address || name.eq_ignore_ascii_case("localhost") {
            true => Ok(()),
            false => Err((
                StatusCode::FORBIDDEN,
                "the Host of the request is a name; call the agent by its address, or localhost"
                    .to_owned(),
            )),
        }
    }

    /// Fields as EdgeGallery's agent has them, which are those of RFC 6749, 5.1.
    fn token(&self) -> Result<Value, Refusal> {
        let refused = |status, sentence: &str| Err((status, sentence.to_owned()));
        if !self.hand_out_tokens {
            return refused(
                StatusCode::NOT_FOUND,
                "this agent hands out no tokens; status.hand_out_tokens = true makes it",
            );
        }
        let Some(token) = self.client.token() else {
            return refused(
                StatusCode::NOT_FOUND,
                "this agent has no token: it needs none, or none is configured",
            );
        };
        let handed = token.hand_out();
        let text = handed.as_ref().and_then(|it| it.header.to_str().ok());
        let text = text.and_then(|text| text.strip_prefix("Bearer "));
        let Some(text) = text else {
            let reason = token
                .error()
                .unwrap_or_else(|| "it is being fetched".to_owned());
            return Err((
                StatusCode::PRECONDITION_FAILED,
                format!("there is no token yet: {reason}; ask again"),
            ));
        };
        let mut body = json!({"access_token": text, "token_type": "Bearer"});
        if let Some(secs) = handed.as_ref().and_then(|it| it.ends_in_s) {
            body["expires_in"] = secs.into();
        }
        Ok(body)
    }

    /// Where a service is reached: `transportInfo.endpoint` of the first one of that name, rather of
    /// one that is ACTIVE.
    async fn endpoint(&self, name: &str) -> Result<Value, Refusal> {
        let name = percent_decode_str(name).decode_utf8().unwrap_or_default();
        if name.is_empty() || name.len() > Subject::NAME_BYTES_MAX {
            return Err((
                StatusCode::BAD_REQUEST,
                format!(
                    "a serName of 1 to {} bytes was expected",
                    Subject::NAME_BYTES_MAX
                ),
            ));
        }
        let url = self.client.discovery(&name);
        let found = self.client.send(Method::GET, &url, None).await;
        let found = found.map_err(|lost| (StatusCode::SERVICE_UNAVAILABLE, lost.to_string()))?;
        let services = match (found.status, found.json()) {
            (200, Some(Value::Array(services))) => services,
            (404, _) => Vec::new(),
            (200, _) => {
                return Err((
                    StatusCode::BAD_GATEWAY,
                    "the list of services that the server answered cannot be understood".to_owned(),
                ));
            }
            _ => return Err((StatusCode::BAD_GATEWAY, found.refusal())),
        };
        // Not every server filters as it is asked to.
        let mut named = services.iter().filter(|it| it["serName"] == *name);
        let active = named.clone().find(|it| it["state"] == "ACTIVE");
        let endpoint = active.or_else(|| named.next());
        let endpoint = endpoint.and_then(|it| it.pointer("/transportInfo/endpoint"));
        endpoint.cloned().ok_or_else(|| {
            (
                StatusCode::BAD_REQUEST,
                format!("the platform has no service {name:?} that says where it is"),
            )
        })
    }
}

fn answer(told: Result<Value, Refusal>) -> Answer {
    let (status, content_type, body) = match told {
        Ok(body) => (StatusCode::OK, "application/json", body),
        Err((status, detail)) => {
            let title = status.canonical_reason().unwrap_or_default();
            let problem = json!({"title": title, "status": status.as_u16(), "detail": detail});
            (status, "application/problem+json", problem)
        }
    };
    let mut answer = warp::reply::json(&body).into_response();
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
