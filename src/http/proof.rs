//! What a request shows for who makes it, and what follows for what it may do.

use std::sync::Arc;

use warp::http::{HeaderMap, header};

use super::answer::Problem;
use super::peer::Peer;
use super::request::Request;
use crate::domain::{AppInstanceId, Caller};

/// The connection and the headers. Kept as long as the request: what they prove can end.
#[derive(Debug, Clone)]
pub(super) struct Proof {
    /// Who is at the other end of the connection.
    pub(super) peer: Arc<Peer>,
    pub(super) headers: HeaderMap,
}

/// A request of which nobody knows yet who makes it. Handlers do not get it so.
pub(super) struct Arrived(Request);

impl Arrived {
    pub(super) fn new(request: Request) -> Self {
        Self(request)
    }

    /// It does not matter who makes it.
    pub(super) fn open(self) -> Request {
        self.0
    }

    /// Now it is known.
    pub(super) fn of(self, caller: Caller) -> Request {
        self.0.made_by(caller)
    }

    pub(super) fn proof(&self) -> &Proof {
        self.0.proof()
    }
}

impl Proof {
    /// A header that may be there once, as text.
    pub(super) fn header(&self, name: &str) -> Result<Option<&str>, Problem> {
        let mut values = self.headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (None, _) => Ok(None),
            (Some(value), None) => value.to_str().map(Some).map_err(|_| {
                Problem::malformed(format!("the {name} header is not printable ASCII"))
            }),
            (Some(_), Some(_)) => Err(Problem::malformed(format!(
                "the {name} header is there more than once"
            ))),
        }
    }

    /// What `Authorization` has of this scheme (in lower case); other schemes say nothing to us.
    pub(super) fn credentials(&self, scheme: &str) -> Result<Option<&str>, Problem> {
        let mut values = self.headers.get_all(header::AUTHORIZATION).iter();
        let Some(value) = values.next() else {
            return Ok(None);
        };
        if values.next().is_some() {
            return Err(Problem::malformed(
                "the Authorization header is there more than once",
            ));
        }
        // What is not ASCII is no credential of any scheme.
        let text = value.to_str().unwrap_or_default().trim();
        let (name, credentials) = text.split_once(' ').unwrap_or((text, ""));
        Ok(name
            .eq_ignore_ascii_case(scheme)
            .then(|| credentials.trim()))
    }

    /// The bearer token. Source: RFC 6750, 2.1.
    pub(super) fn bearer(&self) -> Result<Option<&str>, Problem> {
        self.credentials("bearer")
    }

    /// The application that `X-AppInstanceID` names.
    pub(super) fn named_application(&self) -> Result<Option<AppInstanceId>, Problem> {
        let claimed = self.header("x-appinstanceid")?.map(AppInstanceId::parse);
        claimed
            .transpose()
            .map_err(|error| Problem::malformed(format!("the X-AppInstanceID header: {error}")))
    }
}

/// Refuses a caller who is not this application, and may not act for it.
pub(super) fn must_act_for(caller: &Caller, app: &AppInstanceId) -> Result<(), Problem> {
    if caller.may_act_for(app) {
        return Ok(());
    }
    Err(Problem::not_yours(format!(
        "the caller has not proved to be application instance {:?}",
        app.as_str()
    )))
}
