//! The URIs that we hand out.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, PercentEncode, utf8_percent_encode};
use serde::Serialize;

use super::dialect::Dialect;
use crate::domain::{AppInstanceId, ServiceId, ServiceKey, SubscriptionId};

/// Root of the service management API. Source: GS MEC 011 V2.2.1, 8.2.1.
pub const ROOT: &str = "/mec_service_mgmt/v1";

/// Root of the application support API. Source: GS MEC 011 V2.2.1, 7.2.1.
pub const APP_SUPPORT_ROOT: &str = "/mec_app_support/v1";

/// Everything but the unreserved characters of RFC 3986.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// Makes links: path-absolute, or absolute where the operator has set `server.public_url`.
#[derive(Debug, Clone, Default)]
pub struct Links {
    prefix: String,
    dialect: Dialect,
}

impl Links {
    /// With the operator's prefix; empty for path-absolute links.
    #[must_use]
    pub fn new(public_url: &str, dialect: Dialect) -> Self {
        Self {
            prefix: public_url.to_owned(),
            dialect,
        }
    }

    fn app(&self, app: &AppInstanceId) -> String {
        format!(
            "{}{ROOT}/applications/{}",
            self.prefix,
            segment(app.as_str())
        )
    }

    /// The service, below its application.
    #[must_use]
    pub fn service(&self, key: &ServiceKey) -> String {
        format!("{}/services/{}", self.app(&key.app), key.service)
    }

    /// The service, as every application may see it.
    #[must_use]
    pub fn service_for_all(&self, service: ServiceId) -> String {
        format!("{}{ROOT}/services/{service}", self.prefix)
    }

    /// The liveness resource of a service.
    #[must_use]
    pub fn liveness(&self, key: &ServiceKey) -> String {
        format!("{}/services/{}/liveness", self.app(&key.app), key.service)
    }

    /// The same as EdgeGallery's agent wants it, if it is served: a path, which it puts behind the
    /// address that it knows.
    #[must_use]
    pub fn edgegallery_liveness(&self, key: &ServiceKey) -> Option<String> {
        self.dialect.is_edgegallery().then(|| {
            format!(
                "{}{ROOT}/applications/{}/services/{}/liveness",
                Dialect::EDGEGALLERY_PREFIX,
                segment(key.app.as_str()),
                key.service
            )
        })
    }

    /// The batch heartbeat of its application: our extension.
    #[must_use]
    pub fn liveness_batch(&self, app: &AppInstanceId) -> String {
        format!("{}/liveness", self.app(app))
    }

    /// The subscriptions of an application.
    #[must_use]
    pub fn subscriptions(&self, app: &AppInstanceId) -> String {
        format!("{}/subscriptions", self.app(app))
    }

    /// One of them.
    #[must_use]
    pub fn subscription(&self, app: &AppInstanceId, id: SubscriptionId) -> String {
        format!("{}/subscriptions/{id}", self.app(app))
    }

    /// The watch of all services: our extension.
    #[must_use]
    pub fn events(&self) -> String {
        format!("{}{ROOT}/services/events", self.prefix)
    }

    /// The registration of an application with the platform. Source: GS MEC 011 V3.1.1, 7.2.
    #[must_use]
    pub fn registration(&self, app: &AppInstanceId) -> String {
        let prefix = &self.prefix;
        format!(
            "{prefix}{APP_SUPPORT_ROOT}/registrations/{}",
            segment(app.as_str())
        )
    }
}

/// A text as one segment of a path.
#[must_use]
pub fn segment(text: &str) -> PercentEncode<'_> {
    utf8_percent_encode(text, SEGMENT)
}

/// `LinkType`.
#[derive(Debug, Serialize)]
pub struct Link {
    /// The URI.
    pub href: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_encoded_below_their_root() {
        let app = AppInstanceId::parse("a b?%").unwrap();
        let key = ServiceKey {
            app: app.clone(),
            service: ServiceId::from_bytes([0; 16]),
        };
        let id = "00000000-0000-0000-0000-000000000000";
        let subscription = SubscriptionId::from_bytes([0; 16]);
        for prefix in ["", "https://mep.example/p"] {
            let links = Links::new(prefix, Dialect::Standard);
            assert_eq!(links.edgegallery_liveness(&key), None);
            let own = "mec_service_mgmt/v1/applications/a%20b%3F%25";
            for (link, expected) in [
                (links.service(&key), format!("{own}/services/{id}")),
                (
                    links.liveness(&key),
                    format!("{own}/services/{id}/liveness"),
                ),
                (links.liveness_batch(&app), format!("{own}/liveness")),
                (links.subscriptions(&app), format!("{own}/subscriptions")),
                (
                    links.subscription(&app, subscription),
                    format!("{own}/subscriptions/{id}"),
                ),
                (
                    links.service_for_all(key.service),
                    format!("mec_service_mgmt/v1/services/{id}"),
                ),
                (links.events(), "mec_service_mgmt/v1/services/events".into()),
                (
                    links.registration(&app),
                    "mec_app_support/v1/registrations/a%20b%3F%25".into(),
                ),
            ] {
                assert_eq!(link, format!("{prefix}/{expected}"));
            }
        }
    }

    #[test]
    fn edgegallery_beats_at_a_path_of_its_own() {
        let key = ServiceKey {
            app: AppInstanceId::parse("a b").unwrap(),
            service: ServiceId::from_bytes([0; 16]),
        };
        let links = Links::new("https://mep.example/p", Dialect::EdgeGallery);
        assert_eq!(
            links.edgegallery_liveness(&key).unwrap(),
            "/mep/mec_service_mgmt/v1/applications/a%20b/services/\
             00000000-0000-0000-0000-000000000000/liveness"
        );
    }
}
