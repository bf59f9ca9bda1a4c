//! Subscriptions to service availability, and how far each has been told.
//!
//! Source: GS MEC 011 V2.2.1, 8.1.3.2 and 8.1.4.2.

use std::net::IpAddr;

use url::{Host, Url};

use super::event::Event;
use super::id::{AppInstanceId, ServiceId, SubscriptionId};
use super::liveness::ServiceState;
use super::selection::{NamesCategory, Selection, Subject};
use super::service::Category;
use super::time::{Steady, Wall};

/// `SerAvailabilityNotificationSubscription`. Never changes: the standard has no PUT for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// Its id.
    pub id: SubscriptionId,
    /// Whose it is.
    pub app: AppInstanceId,
    /// Where notifications go.
    pub callback: CallbackUri,
    /// `filteringCriteria`.
    pub filter: Filter,
    /// The first event that concerns it: the first one after its creation.
    pub from: u64,
}

/// `filteringCriteria`; its members are AND-ed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// `serInstanceIds`, `serNames` or `serCategories`.
    pub selection: Selection<Category>,
    /// `states`, after the change; empty: any.
    pub states: Vec<ServiceState>,
    /// `isLocal`. Every service of this platform is local to it, so it excludes none.
    pub is_local: Option<bool>,
}

impl Filter {
    /// Whether a subscriber is to be told.
    #[must_use]
    pub fn matches(&self, notice: &Notice<'_>) -> bool {
        (self.states.is_empty() || self.states.contains(&notice.state))
            && self.selection.concerns(notice)
    }
}

impl<C: NamesCategory> Selection<C> {
    /// Whether a change concerns whoever asks for these services: also the change by which one of
    /// them leaves the name or category.
    #[must_use]
    pub fn concerns(&self, notice: &Notice<'_>) -> bool {
        let known = |subject: &Subject| self.matches(notice.service, subject);
        known(notice.subject) || notice.former.is_some_and(known)
    }
}

/// What a consumer is told of one event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Notice<'a> {
    /// The event's.
    pub sequence: u64,
    /// The service.
    pub service: ServiceId,
    /// Its name and category after the change.
    pub subject: &'a Subject,
    /// Before, where they differ.
    pub former: Option<&'a Subject>,
    /// After the change; of a service that is gone: its last.
    pub state: ServiceState,
    /// `changeType`.
    pub change: ChangeType,
}

/// Source: GS MEC 011 V2.2.1, 8.1.6.x (`ChangeType`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeType {
    /// Registered.
    Added,
    /// Gone.
    Removed,
    /// Only the state changed.
    StateChanged,
    /// Something else changed, and perhaps the state, too.
    AttributesChanged,
}

impl ChangeType {
    /// The wire name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Removed => "REMOVED",
            Self::StateChanged => "STATE_CHANGED",
            Self::AttributesChanged => "ATTRIBUTES_CHANGED",
        }
    }
}

/// `callbackReference`: an absolute http or https URI without credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallbackUri {
    /// As sent.
    text: String,
    url: Option<Url>,
}

/// Why a text is no [`CallbackUri`]; completes "callbackReference …".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCallback {
    /// Too long.
    #[error("is longer than {} bytes", CallbackUri::MAX_BYTES)]
    TooLong,
    /// Blanks or control characters.
    #[error("has blanks or control characters in it")]
    Blank,
    /// Not a URI.
    #[error("is no absolute URI: {0}")]
    Syntax(String),
    /// Another scheme.
    #[error("has the scheme {0:?}; http or https was expected")]
    Scheme(String),
    /// `user:password@`.
    #[error("must not carry credentials")]
    Credentials,
    /// Nowhere to send to.
    #[error("names no host")]
    NoHost,
}

impl CallbackUri {
    /// The longest in bytes.
    pub const MAX_BYTES: usize = 2048;

    /// Checks and takes a URI.
    ///
    /// # Errors
    /// [`InvalidCallback`].
    pub fn parse(text: &str) -> Result<Self, InvalidCallback> {
        if text.len() > Self::MAX_BYTES {
            return Err(InvalidCallback::TooLong);
        }
        // The parser would take these out silently.
        if text.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
            return Err(InvalidCallback::Blank);
        }
        let url = Url::parse(text).map_err(|error| InvalidCallback::Syntax(error.to_string()))?;
        // Browsers also take `http:host` and `http:\\host`; the standards do not.
        let authority = text.split_once("://").map(|(_, rest)| rest);
        if authority.is_none_or(|rest| rest.starts_with('/')) || text.contains('\\') {
            return Err(InvalidCallback::Syntax(
                "scheme://host was expected".to_owned(),
            ));
        }
        if !matches!(url.scheme(), "http" | "https") {
            return Err(InvalidCallback::Scheme(url.scheme().to_owned()));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(InvalidCallback::Credentials);
        }
        if url.host().is_none() {
            return Err(InvalidCallback::NoHost);
        }
        // Stricter about some characters; what it does not take cannot be called.
        if let Err(error) = url.as_str().parse::<http::Uri>() {
            return Err(InvalidCallback::Syntax(error.to_string()));
        }
        Ok(Self {
            text: text.to_owned(),
            url: Some(url),
        })
    }

    /// One that was taken earlier. If today's rules are stricter it cannot be called, and its owner
    /// sees why; it does not vanish.
    #[must_use]
    pub fn stored(text: String) -> Self {
        Self::parse(&text).unwrap_or(Self { text, url: None })
    }

    /// As it was sent.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Normalised: what is called; `None` if it cannot be.
    #[must_use]
    pub fn url(&self) -> Option<&Url> {
        self.url.as_ref()
    }

    /// Host and port: who is called; empty if it cannot be called.
    #[must_use]
    pub fn authority(&self) -> String {
        let host = self.url().and_then(Url::host_str).unwrap_or_default();
        let port = self.url().and_then(Url::port_or_known_default);
        format!("{host}:{}", port.unwrap_or(0))
    }

    /// The address, where the host is one (in any notation: `127.1`, `0x7f000001`, `[::1]`).
    #[must_use]
    pub fn literal_address(&self) -> Option<IpAddr> {
        match self.url()?.host()? {
            Host::Ipv4(address) => Some(IpAddr::V4(address)),
            Host::Ipv6(address) => Some(IpAddr::V6(address)),
            Host::Domain(_) => None,
        }
    }
}

/// How far a subscription has been told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// The first event that it has not been told of.
    pub next: u64,
    /// The last event of the notification that is to be sent next. Fixed before it is sent, so that
    /// a repeat is the same notification, under the same key, even after a crash. `None`: it is
    /// about one event, the first that matches.
    pub through: Option<u64>,
    /// Set while its callback does not take notifications.
    pub failing: Option<Failing>,
}

/// A callback that does not take notifications.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failing {
    /// When it began.
    pub since: Steady,
    /// How many attempts have failed since.
    pub attempts: u32,
    /// Not to be tried again before.
    pub retry_at: Steady,
    /// What went wrong last, at most [`Failing::ERROR_BYTES_MAX`] bytes.
    pub error: String,
}

impl Failing {
    /// So much of an error is kept.
    pub const ERROR_BYTES_MAX: usize = 300;
}

impl Cursor {
    /// Of a subscription that has not been told anything.
    #[must_use]
    pub fn at(next: u64) -> Self {
        Self {
            next,
            through: None,
            failing: None,
        }
    }
}

/// An event that could not be delivered in time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// To whom.
    pub subscription: SubscriptionId,
    /// Which event.
    pub sequence: u64,
    /// When it was given up.
    pub at: Wall,
    /// What went wrong last.
    pub error: String,
}

impl Event {
    /// What consumers are told of it; `None` where nothing changed that they can see.
    #[must_use]
    pub fn notice(&self) -> Option<Notice<'_>> {
        let (state, change, former) = self.what.change()?;
        Some(Notice {
            sequence: self.sequence,
            service: self.key.service,
            subject: self.subject.as_ref()?,
            former,
            state,
            change,
        })
    }
}
