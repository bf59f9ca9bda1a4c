//! Where tokens are issued: `/oauth2/token` (RFC 6749, 4.4) and EdgeGallery's `/mep/token`.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use warp::http::Method;
use warp::reply::Response as Answer;
use zeroize::Zeroizing;

use super::Api;
use super::answer::{self, OAuthError, Problem};
use super::request::Request;
use crate::auth::{Issued, Refused, sdk_hmac};
use crate::wire::token::TokenResponse;

/// `/oauth2/token`
pub(super) async fn oauth2(request: Request, api: Api) -> Result<Answer, Problem> {
    if request.method != Method::POST {
        return Err(Problem::method("POST"));
    }
    request.no_query()?;
    if request.proof().peer.is_exposed {
        return Err(Problem::in_the_clear());
    }
    let from = request.proof().peer.address;
    let basic = match request.proof().credentials("basic")?.map(basic) {
        None => None,
        Some(Some(pair)) => Some(pair),
        Some(None) => return Ok(answer::oauth_error(OAuthError::InvalidClient, UNREADABLE)),
    };
    let (reading, ..) = request.reading(api.body_limits)?;
    let body = Zeroizing::new(reading.whole().await?.to_vec());
    let form = match Form::parse(&body) {
        Ok(form) => form,
        Err((error, why)) => return Ok(answer::oauth_error(error, why)),
    };
    let (id, secret) = match (basic, form.client) {
        (Some(_), (_, Some(_))) => {
            let why = "the client authenticates in the header and in the body; once was expected";
            return Ok(answer::oauth_error(OAuthError::InvalidRequest, why));
        }
        // The id may be repeated in the body (RFC 6749, 3.2.1).
        (Some(pair), (None, None)) => pair,
        (Some(pair), (Some(id), None)) if id == pair.0 => pair,
        (None, (Some(id), Some(secret))) => (id, secret),
        _ => {
            let why =
                "client_id and client_secret were expected, in the header (Basic) or the body";
            return Ok(answer::oauth_error(OAuthError::InvalidClient, why));
        }
    };
    let now = api.registry.now();
    let issued = api.gate.client_credentials(from, id, secret, now).await;
    Ok(match counted(&api, issued) {
        Ok(issued) => token(&issued),
        Err(refused) => oauth_refusal(refused),
    })
}

const UNREADABLE: &str =
    "the Authorization header is not Basic with base64(client_id:client_secret)";

fn oauth_refusal(refused: Refused) -> Answer {
    match refused {
        Refused::Malformed(why) => answer::oauth_error(OAuthError::InvalidRequest, &why),
        Refused::Denied(why) => answer::oauth_error(OAuthError::InvalidClient, &why),
        Refused::Later(wait) => answer::oauth_error(OAuthError::Later(wait), TOO_MANY),
        Refused::Failed(why) => {
            log::error!("issuing a token failed: {why}");
            answer::oauth_error(OAuthError::Failed, "no token could be issued; see the log")
        }
    }
}

const TOO_MANY: &str = "there are too many requests for tokens; try again later";

/// What the body of a request says.
struct Form {
    /// `client_id` and `client_secret`.
    client: (Option<String>, Option<String>),
}

impl Form {
    fn parse(body: &[u8]) -> Result<Self, (OAuthError, &'static str)> {
        let (mut grant, mut id, mut secret) = (None, None, None);
        for (name, value) in url::form_urlencoded::parse(body) {
            let place = match &*name {
                "grant_type" => &mut grant,
                "client_id" => &mut id,
                "client_secret" => &mut secret,
                // Unknown parameters are ignored (RFC 6749, 3.2), and a scope changes nothing: what
                // an application may do follows from who it is.
                _ => continue,
            };
            if place.replace(value.into_owned()).is_some() {
                return Err((OAuthError::InvalidRequest, "a parameter is there twice"));
            }
        }
        match grant.as_deref() {
            Some("client_credentials") => Ok(Self {
                client: (id, secret),
            }),
            Some(_) => Err((
                OAuthError::UnsupportedGrantType,
                "only client_credentials is served",
            )),
            None => Err((
                OAuthError::InvalidRequest,
                "grant_type is missing; client_credentials was expected",
            )),
        }
    }
}

/// Id and secret out of Basic credentials, in which both are encoded as in a form (RFC 6749, 2.3.1).
fn basic(encoded: &str) -> Option<(String, String)> {
    let decoded = Zeroizing::new(BASE64_STANDARD.decode(encoded).ok()?);
    let (id, secret) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
    let plain = |text: &str| crate::wire::query::decode(text.replace('+', " ").as_bytes());
    Some((plain(id)?, plain(secret)?))
}

/// `/mep/token`
pub(super) async fn edgegallery(request: Request, api: Api) -> Result<Answer, Problem> {
    if request.method != Method::POST {
        return Err(Problem::method("POST"));
    }
    if request.proof().peer.is_exposed {
        return Err(Problem::in_the_clear());
    }
    let malformed = |error: sdk_hmac::Malformed| Problem::malformed(error.to_string());
    let authorization = request.header("authorization")?.unwrap_or_default();
    let authorization = sdk_hmac::Authorization::parse(authorization).map_err(malformed)?;
    let date = request.header(sdk_hmac::DATE_HEADER)?;
    let date = date.unwrap_or_default().to_owned();
    let mut headers = Vec::new();
    for name in &authorization.signed_headers {
        let value = request.header(name)?.ok_or_else(|| {
            Problem::malformed(format!("SignedHeaders names {name}, which is not there"))
        })?;
        headers.push((name.clone(), value.to_owned()));
    }
    let (from, query) = (request.proof().peer.address, request.query().to_owned());
    let (reading, ..) = request.reading(api.body_limits)?;
    let body = reading.whole().await?;
    let headers: Vec<_> = headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let signed = sdk_hmac::Request {
        method: "POST",
        path: PATH,
        query: &query,
        headers: &headers,
        body: &body,
    };
    let now = api.registry.now();
    let authority = api.gate.authority();
    let issued = authority.sdk_hmac(from, &authorization, &date, &signed, now);
    match counted(&api, issued) {
        Ok(issued) => Ok(token(&issued)),
        Err(Refused::Malformed(why)) => Err(Problem::malformed(why)),
        Err(Refused::Denied(why)) => Err(Problem::bad_signature(why)),
        Err(Refused::Later(wait)) => Err(Problem::too_many_token_requests(wait, TOO_MANY)),
        Err(Refused::Failed(why)) => {
            log::error!("issuing a token failed: {why}");
            Err(Problem::no_token_issued())
        }
    }
}

/// Where EdgeGallery's clients ask; they sign it.
const PATH: &str = "/mep/token";

fn counted(api: &Api, issued: Result<Issued, Refused>) -> Result<Issued, Refused> {
    match &issued {
        Ok(_) => api.metrics.tokens_issued.inc(),
        Err(_) => api.metrics.tokens_refused.inc(),
    };
    issued
}

fn token(issued: &Issued) -> Answer {
    answer::ok_secret(&TokenResponse::new(&issued.token, issued.expires_in_s))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn basic_credentials_are_decoded_as_a_form() {
        let pair = |text: &str| basic(&BASE64_STANDARD.encode(text));
        let ours = |id: &str, secret: &str| Some((id.to_owned(), secret.to_owned()));
        assert_eq!(pair("app:secret"), ours("app", "secret"));
        assert_eq!(pair("a%3Ab+c:s%25:t"), ours("a:b c", "s%:t"));
        assert_eq!(pair("no colon"), None);
        assert_eq!(pair("a%ZZ:b"), None);
        assert_eq!(basic("***"), None);
    }
}
