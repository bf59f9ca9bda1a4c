//! Requests to the platform: with the application's id and token, each within its time.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue, USER_AGENT};
use http::{Method, Request};
use http_body_util::Full;
use serde_json::Value;
use tokio::time::Instant;
use url::Url;

use super::config;
use super::edgegallery;
use super::info::BeatLink;
use super::line::Line;
pub(super) use super::line::{Answer, Http, Lost};
use super::status::TokenMeters;
use super::token::Source;
use crate::clock::Clock;
use crate::tls::TlsError;
use crate::wire::links;

/// How we call ourselves.
pub(super) const AGENT: &str = concat!("mepulse-agent/", env!("CARGO_PKG_VERSION"));

/// EdgeGallery wants to be told again what the path says.
const APP_ID: HeaderName = HeaderName::from_static("x-appinstanceid");

/// A longer answer is none: a thousand services are shorter.
const ANSWER_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Connections that wait for the next beat.
const IDLE_MAX: usize = super::beat::SINGLES_AT_ONCE;

/// The platform, as one application sees it. Clones share connections and token.
#[derive(Debug, Clone)]
pub struct Client {
    line: Line,
    place: Arc<Place>,
    timeout: Duration,
}

#[derive(Debug)]
struct Place {
    base: Url,
    /// Of service management.
    root: String,
    /// `…/applications/{appInstanceId}`
    app: String,
    app_id: HeaderValue,
    app_name: String,
    token: Option<Source>,
}

/// A client could not be made ready: a file is not what it should be.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The URL or the application's id cannot stand in a request.
    #[error("{0:?} cannot be called")]
    Url(String),
}

impl Client {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// [`ClientError`].
    pub(super) fn new(
        server: &config::Server,
        app: &str,
        meters: &TokenMeters,
        clock: &Clock,
    ) -> Result<Self, ClientError> {
        let bad_url = || ClientError::Url(server.url.clone());
        let base = Url::parse(&server.url).map_err(|_| bad_url())?;
        let app_id = HeaderValue::from_str(app).map_err(|_| bad_url())?;
        let timeout = Duration::from_millis(server.timeout_ms);
        let line = Line::new(Http::new(server, timeout, IDLE_MAX)?);
        let token = Source::of(server, app, &line, meters, clock);
        let root = server.below(&server.api_root);
        Ok(Self {
            line,
            place: Arc::new(Place {
                base,
                app: format!("{root}/applications/{}", links::segment(app)),
                root,
                app_id,
                app_name: app.to_owned(),
                token: token.map_err(ClientError::Url)?,
            }),
            timeout,
        })
    }

    /// Certificates may have been renewed where they are. The token stays, and so do all clones.
    ///
    /// # Errors
    /// [`ClientError`]; everything is then as it was.
    pub(super) fn renew(&self, server: &config::Server) -> Result<(), ClientError> {
        if let Some(token) = self.token() {
            token.relent();
        }
        let timeout = Duration::from_millis(server.timeout_ms);
        self.line.renew(Http::new(server, timeout, IDLE_MAX)?);
        Ok(())
    }

    /// What the requests carry, if anything.
    pub(super) fn token(&self) -> Option<&Source> {
        self.place.token.as_ref()
    }

    /// All services of a name, whoever's they are.
    pub(super) fn discovery(&self, name: &str) -> String {
        format!(
            "{}/services?ser_name={}",
            self.place.root,
            links::segment(name)
        )
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

    /// Whose services these are.
    pub(super) fn app_name(&self) -> &str {
        &self.place.app_name
    }

    /// Whether the platform is EdgeGallery's, by where its service management is.
    pub(super) fn is_edgegallerys(&self) -> bool {
        self.place.root.ends_with(edgegallery::API_ROOT)
    }

    /// Where a service beats that has an interval and shows no link. EdgeGallery's platform may tell
    /// it once, at the registration, of which an agent without a state file may know nothing.
    pub(super) fn untold_link(&self, id: &str) -> Option<BeatLink> {
        self.is_edgegallerys().then(|| BeatLink {
            href: format!("{}/liveness", self.service(id)),
            put: true,
        })
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

    /// One exchange, and after a 401 a second one if there is another token by then; all of it,
    /// and the wait for a token, within the timeout.
    ///
    /// # Errors
    /// [`Lost`].
    pub(super) async fn send(
        &self,
        method: Method,
        url: &str,
        body: Option<&Value>,
    ) -> Result<Answer, Lost> {
        let deadline = Instant::now() + self.timeout;
        let sent = tokio::time::timeout_at(deadline, self.sent(method, url, body, deadline)).await;
        sent.unwrap_or_else(|_| {
            let limit_ms = self.timeout.as_millis();
            Err(Lost(format!("no answer within {limit_ms} ms")))
        })
    }

    async fn sent(
        &self,
        method: Method,
        url: &str,
        body: Option<&Value>,
        deadline: Instant,
    ) -> Result<Answer, Lost> {
        let Some(token) = self.token_for(url) else {
            return self.exchange(method, url, body, None).await;
        };
        let header = token.header(deadline).await?;
        let answer = self
            .exchange(method.clone(), url, body, header.clone())
            .await?;
        if answer.status != 401 {
            return Ok(answer);
        }
        match token.refused(header.as_ref(), deadline).await {
            Some(other) => self.exchange(method, url, body, Some(other)).await,
            None => Ok(answer),
        }
    }

    /// A link may lead to another host; the token is for this one alone.
    fn token_for(&self, url: &str) -> Option<&Source> {
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
        let http = self.line.http();
        http.send(request, self.timeout, ANSWER_BYTES_MAX).await
    }
}
