//! The URIs that we hand out.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::domain::{AppInstanceId, ServiceKey};

/// Root of the service management API. Source: GS MEC 011 V2.2.1, 8.2.1.
pub const ROOT: &str = "/mec_service_mgmt/v1";

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
}

impl Links {
    /// With the operator's prefix; empty for path-absolute links.
    #[must_use]
    pub fn new(public_url: &str) -> Self {
        Self {
            prefix: public_url.to_owned(),
        }
    }

    fn app(&self, app: &AppInstanceId) -> String {
        let app = utf8_percent_encode(app.as_str(), SEGMENT);
        format!("{}{ROOT}/applications/{app}", self.prefix)
    }

    /// The service, below its application.
    #[must_use]
    pub fn service(&self, key: &ServiceKey) -> String {
        format!("{}/services/{}", self.app(&key.app), key.service)
    }

    /// Its liveness resource.
    #[must_use]
    pub fn liveness(&self, key: &ServiceKey) -> String {
        format!("{}/services/{}/liveness", self.app(&key.app), key.service)
    }

    /// The batch heartbeat of its application: our extension.
    #[must_use]
    pub fn liveness_batch(&self, app: &AppInstanceId) -> String {
        format!("{}/liveness", self.app(app))
    }
}
