//! A request as the handlers see it: path parameters strictly decoded, and who makes it.

use std::convert::Infallible;
use std::str::FromStr;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use futures_util::{Stream, StreamExt};
use serde::Serialize;
use warp::Filter;
use warp::http::{HeaderMap, Method, header};

use super::answer::{self, Problem};
use super::body::{BodyLimits, BodyStream, Reading};
use super::peer::Peer;
use super::proof::{Arrived, Proof, must_act_for};
use crate::domain::{AppInstanceId, Caller, ServiceId, SubscriptionId};
use crate::wire::query::decode;

/// The request without its path parameters, and who makes it.
pub(super) struct Request {
    pub(super) method: Method,
    query: String,
    body: BodyStream,
    proof: Proof,
    caller: Caller,
}

/// `If-Match`.
#[derive(Debug)]
pub(super) enum IfMatch {
    /// `*`: whatever it is, it must be there.
    Any,
    /// One of these strong tags, in their quotes.
    Tags(Vec<String>),
}

impl IfMatch {
    /// Whether a representation is what the client thinks.
    pub(super) fn admits(&self, representation: &impl Serialize) -> bool {
        match self {
            Self::Any => true,
            Self::Tags(tags) => tags.contains(&answer::entity_tag(representation)),
        }
    }
}

/// Takes the request apart; matches always.
pub(super) fn request() -> impl Filter<Extract = (Arrived,), Error = warp::Rejection> + Clone {
    let query = warp::query::raw().or(warp::any().map(String::new)).unify();
    warp::method()
        .and(query)
        .and(warp::header::headers_cloned())
        .and(warp::body::stream())
        .and(warp::ext::optional::<Arc<Peer>>())
        .map(|method, query, headers: HeaderMap, body, peer: Option<_>| {
            let peer = peer.unwrap_or_else(|| Arc::new(Peer::plain(None, true)));
            Arrived::new(Request {
                method,
                query,
                body: Box::pin(whole_parts(body)),
                proof: Proof { peer, headers },
                caller: Caller::Anyone,
            })
        })
}

/// The body's parts as plain bytes.
fn whole_parts<B: Buf>(
    body: impl Stream<Item = Result<B, warp::Error>>,
) -> impl Stream<Item = Result<Bytes, warp::Error>> {
    body.map(|part| {
        part.map(|mut part| {
            let length = part.remaining();
            part.copy_to_bytes(length)
        })
    })
}

impl Request {
    /// The method, with HEAD seen as GET (the transport leaves the body out).
    pub(super) fn verb(&self) -> &Method {
        if self.method == Method::HEAD {
            &Method::GET
        } else {
            &self.method
        }
    }

    /// For resources that can be read and nothing else.
    pub(super) fn must_get(&self) -> Result<(), Problem> {
        if *self.verb() == Method::GET {
            Ok(())
        } else {
            Err(Problem::method("GET, HEAD"))
        }
    }

    /// For those that take no parameters besides.
    pub(super) fn only_get(&self) -> Result<(), Problem> {
        self.must_get()?;
        self.no_query()
    }

    /// The query as it came.
    pub(super) fn query(&self) -> &str {
        &self.query
    }

    /// Refuses query parameters where none is served: silence would be taken for a filter.
    pub(super) fn no_query(&self) -> Result<(), Problem> {
        if self.query.is_empty() {
            return Ok(());
        }
        let name = self.query.split(['=', '&']).next().unwrap_or_default();
        Err(Problem::malformed(format!(
            "query parameter {name:?} is not supported here; no query parameters are"
        )))
    }

    /// A header that may be there once, as text.
    pub(super) fn header(&self, name: &str) -> Result<Option<&str>, Problem> {
        self.proof.header(name)
    }

    /// What it has to show for who makes it.
    pub(super) fn proof(&self) -> &Proof {
        &self.proof
    }

    /// Who makes it.
    pub(super) fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Now that is known.
    pub(super) fn made_by(self, caller: Caller) -> Self {
        Self { caller, ..self }
    }

    /// What the client thinks the resource is. Source: RFC 9110, 13.1.1.
    pub(super) fn if_match(&self) -> Result<Option<IfMatch>, Problem> {
        if !self.proof.headers.contains_key(header::IF_MATCH) {
            return Ok(None);
        }
        let mut tags = Vec::new();
        let mut any = false;
        for value in self.proof.headers.get_all(header::IF_MATCH) {
            let malformed = || {
                Problem::malformed(format!(
                    "If-Match {value:?} is neither * nor a list of entity tags like \"0123\""
                ))
            };
            let mut rest = value.to_str().map_err(|_| malformed())?.trim();
            if rest == "*" {
                any = true;
                continue;
            }
            // Commas may stand within a tag, and elements of a list may be empty (RFC 9110, 5.6.1).
            let mut found = false;
            loop {
                rest = rest.trim_start_matches([',', ' ', '\t']);
                if rest.is_empty() && found {
                    break;
                }
                found = true;
                let weak = rest.starts_with("W/");
                let tag = rest.strip_prefix("W/").unwrap_or(rest);
                let tag = tag.strip_prefix('"').ok_or_else(malformed)?;
                let (tag, after) = tag.split_once('"').ok_or_else(malformed)?;
                // A weak tag never matches strongly.
                if !weak {
                    tags.push(format!("\"{tag}\""));
                }
                rest = after.trim_start();
                if !rest.is_empty() && !rest.starts_with(',') {
                    return Err(malformed());
                }
            }
        }
        Ok(Some(if any {
            IfMatch::Any
        } else {
            IfMatch::Tags(tags)
        }))
    }

    /// What the client prefers to get back (RFC 7240): `Some(true)` for the representation.
    pub(super) fn prefers_representation(&self) -> Option<bool> {
        let preferences = self
            .proof
            .headers
            .get_all("prefer")
            .iter()
            .filter_map(|v| v.to_str().ok());
        preferences
            .flat_map(|value| value.split(','))
            .find_map(|preference| {
                let preference = preference.split(';').next().unwrap_or_default();
                let (name, value) = preference.split_once('=')?;
                if !name.trim().eq_ignore_ascii_case("return") {
                    return None;
                }
                match value.trim().trim_matches('"') {
                    "representation" => Some(true),
                    "minimal" => Some(false),
                    _ => None,
                }
            })
    }

    /// The application of the path. Who is another one is refused; where nobody asks who is calling,
    /// so is a contradicting `X-AppInstanceID` header.
    pub(super) fn application(&self, segment: &Segment) -> Result<AppInstanceId, Problem> {
        let app = AppInstanceId::parse(&segment.decode("appInstanceId")?)
            .map_err(|error| Problem::malformed(error.to_string()))?;
        must_act_for(&self.caller, &app)?;
        if self.caller != Caller::Anyone {
            return Ok(app);
        }
        let claims = self.proof.headers.get_all("x-appinstanceid");
        match claims
            .iter()
            .find(|claim| claim.as_bytes() != app.as_str().as_bytes())
        {
            Some(claim) => Err(Problem::not_yours(format!(
                "the X-AppInstanceID header names application instance {claim:?}, the path {:?}",
                app.as_str()
            ))),
            None => Ok(app),
        }
    }

    /// The application that the caller is, where no path says it.
    pub(super) fn claimed_application(&self) -> Result<Option<AppInstanceId>, Problem> {
        match &self.caller {
            Caller::Anyone => self.proof.named_application(),
            Caller::Operator => Ok(None),
            known @ Caller::Applications(_) => Ok(known.sole_application().cloned()),
        }
    }

    /// Begins to read the body; and what there is to judge again, should it have to be waited for.
    ///
    /// # Errors
    /// A body that says itself that it is too long.
    pub(super) fn reading(self, limits: BodyLimits) -> Result<(Reading, Proof, Caller), Problem> {
        let declared = self.proof.headers.get(header::CONTENT_LENGTH);
        let declared = declared.and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
        if declared.is_some_and(|bytes| bytes > limits.bytes) {
            return Err(Problem::too_large(limits.bytes));
        }
        Ok((Reading::new(self.body, limits), self.proof, self.caller))
    }
}

/// A path parameter as it came. Decoded by the handler, because a parameter that cannot be decoded
/// is a malformed request, not an unknown route.
#[derive(Debug)]
pub(super) struct Segment(String);

impl FromStr for Segment {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.to_owned()))
    }
}

impl Segment {
    /// Strict percent-decoding: every `%` starts two hex digits, and the result is UTF-8.
    fn decode(&self, name: &str) -> Result<String, Problem> {
        decode(self.0.as_bytes()).ok_or_else(|| {
            Problem::malformed(format!(
                "{name} in the path is not valid percent-encoded UTF-8: {:?}",
                self.0
            ))
        })
    }

    /// A service id. What is no UUID cannot be one of ours: unknown, not malformed, because the
    /// standard leaves the form of the id to the platform.
    pub(super) fn service(&self) -> Result<Option<ServiceId>, Problem> {
        Ok(ServiceId::parse(&self.decode("serviceId")?))
    }

    /// A subscription id. What is no UUID cannot be one of ours.
    pub(super) fn subscription(&self) -> Result<Option<SubscriptionId>, Problem> {
        Ok(SubscriptionId::parse(&self.decode("subscriptionId")?))
    }

    /// The parameter for messages.
    pub(super) fn raw(&self) -> &str {
        &self.0
    }
}
