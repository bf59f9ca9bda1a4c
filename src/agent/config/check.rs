//! What a configuration must be to work; the types have settled the rest.

use std::collections::BTreeSet;
use std::path::Path;

use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use url::Url;

use super::{Agent, Config, ConfigError, Probe, SERVICES_MAX, Server, Service};
use crate::domain::AppInstanceId;
use crate::wire::{self, Dialect};

impl Config {
    /// Whether it can work.
    ///
    /// # Errors
    /// [`ConfigError::Wrong`] names the first thing that cannot.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.server.check()?;
        self.agent.check()?;
        self.status.listen()?;
        if self.services.is_empty() && !self.may_be_idle {
            return wrong("there are no [[services]]; an agent needs at least one".to_owned());
        }
        if self.services.len() > SERVICES_MAX {
            let count = self.services.len();
            return wrong(format!(
                "there are {count} [[services]]; one agent takes {SERVICES_MAX}"
            ));
        }
        let mut names = BTreeSet::new();
        for service in &self.services {
            service.check()?;
            if !names.insert(service.name.as_str()) {
                return wrong(format!(
                    "two [[services]] have the name {:?}; each needs one of its own",
                    service.name
                ));
            }
        }
        Ok(())
    }
}

fn wrong(sentence: String) -> Result<(), ConfigError> {
    Err(ConfigError::Wrong(sentence))
}

fn within(key: &str, value: u64, min: u64, max: u64) -> Result<(), ConfigError> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    wrong(format!("`{key}` ({value}) must be between {min} and {max}"))
}

/// A file that must be there from the start: later it may come and go.
fn readable(key: &str, path: &Path) -> Result<(), ConfigError> {
    if path.as_os_str().is_empty() {
        return Ok(());
    }
    match std::fs::File::open(path) {
        Ok(_) => Ok(()),
        Err(error) => wrong(format!(
            "`{key}` {} cannot be read: {error}",
            path.display()
        )),
    }
}

const DAY_MS: u64 = 24 * 3600 * 1000;

impl Server {
    fn check(&self) -> Result<(), ConfigError> {
        let url = &self.url;
        let is_base = Url::parse(url).is_ok_and(|url| {
            matches!(url.scheme(), "http" | "https")
                && url.has_host()
                && url.query().is_none()
                && url.fragment().is_none()
                && url.username().is_empty()
                && url.password().is_none()
        });
        if !is_base {
            return wrong(format!(
                "`server.url` ({url:?}) must be like http://127.0.0.1:8088 or https://mep.example"
            ));
        }
        let root = &self.api_root;
        if !root.starts_with('/') || root.ends_with('/') || root.contains(['?', '#', ' ']) {
            return wrong(format!(
                "`server.api_root` ({root:?}) must be like /mec_service_mgmt/v1, without a slash at the end"
            ));
        }
        within("server.timeout_ms", self.timeout_ms, 10, DAY_MS)?;
        let empty = |path: &Path| path.as_os_str().is_empty();
        if empty(&self.client_cert_file) != empty(&self.client_key_file) {
            return wrong(
                "`server.client_cert_file` and `server.client_key_file` need each other".to_owned(),
            );
        }
        for (key, path) in [
            ("server.ca_file", &self.ca_file),
            ("server.client_cert_file", &self.client_cert_file),
            ("server.client_key_file", &self.client_key_file),
            ("server.token_file", &self.token_file),
            (
                "server.oauth2.client_secret_file",
                &self.oauth2.client_secret_file,
            ),
            (
                "server.access_key.secret_key_file",
                &self.access_key.secret_key_file,
            ),
        ] {
            readable(key, path)?;
        }
        let name = &self.tls_name;
        if !name.is_empty() && ServerName::try_from(name.as_str()).is_err() {
            return wrong(format!(
                "`server.tls_name` ({name:?}) must be a DNS name or an address, like mep.example"
            ));
        }
        self.check_credentials()
    }
}

impl Agent {
    fn check(&self) -> Result<(), ConfigError> {
        if let Err(error) = AppInstanceId::parse(&self.app_instance_id) {
            return wrong(format!(
                "`agent.app_instance_id` ({:?}): {error}",
                self.app_instance_id
            ));
        }
        within("agent.stop_timeout_ms", self.stop_timeout_ms, 0, DAY_MS)?;
        within("agent.retry_max_s", self.retry_max_s, 1, 3600)?;
        let directory = self.state_file.parent();
        let directory = directory.filter(|path| !path.as_os_str().is_empty());
        match directory {
            Some(directory) if !directory.is_dir() => wrong(format!(
                "`agent.state_file` {}: there is no directory {}; make it first",
                self.state_file.display(),
                directory.display()
            )),
            Some(_) | None => Ok(()),
        }
    }
}

impl Service {
    fn check(&self) -> Result<(), ConfigError> {
        let name = &self.name;
        let named = |sentence: String| wrong(format!("service {name:?}: {sentence}"));
        if self.interval_s == 0 {
            return named("`interval_s` must be 1 or more".to_owned());
        }
        match (&self.transport, &self.transport_id) {
            (Some(_), None) | (None, Some(_)) => {}
            (Some(_), Some(_)) => {
                return named("`transport` and `transport_id` exclude each other".to_owned());
            }
            (None, None) => {
                return named("one of `transport` and `transport_id` is needed".to_owned());
            }
        }
        // As the platform will read it. What stands behind a transportId is known there alone.
        let mut body = self.registration();
        if body.remove("transportId").is_some() {
            body.insert("transportInfo".to_owned(), any_transport());
        }
        let body = Value::Object(body).to_string();
        if let Err(error) = wire::service::parse(body.as_bytes(), &[], Dialect::Standard) {
            return named(error.to_string());
        }
        self.probe.as_ref().map_or(Ok(()), |probe| {
            probe
                .check()
                .or_else(|sentence| named(format!("`probe`: {sentence}")))
        })
    }
}

/// A transport that says nothing.
fn any_transport() -> Value {
    json!({
        "id": "any", "name": "any", "type": "any", "protocol": "any", "version": "any",
        "endpoint": {"alternative": {}}, "security": {}
    })
}

impl Probe {
    fn check(&self) -> Result<(), String> {
        let kinds = [
            self.http.is_some(),
            self.tcp.is_some(),
            self.exec.is_some(),
            self.file.is_some(),
        ];
        if kinds.iter().filter(|there| **there).count() != 1 {
            return Err("exactly one of http, tcp, exec and file is needed".to_owned());
        }
        for (key, value) in [
            ("interval_s", self.interval_s),
            ("timeout_ms", self.timeout_ms),
            ("unhealthy_after", self.unhealthy_after.into()),
            ("healthy_after", self.healthy_after.into()),
            (
                "file.max_age_s",
                self.file.as_ref().map_or(1, |file| file.max_age_s),
            ),
        ] {
            if value == 0 || value > DAY_MS {
                return Err(format!("{key} ({value}) must be between 1 and {DAY_MS}"));
            }
        }
        if let Some(http) = &self.http
            && !Url::parse(&http.url).is_ok_and(|url| {
                matches!(url.scheme(), "http" | "https")
                    && url.has_host()
                    && url.username().is_empty()
                    && url.password().is_none()
            })
        {
            return Err(format!(
                "http.url ({:?}) must be like http://127.0.0.1:8080/health, without credentials",
                http.url
            ));
        }
        if let Some(tcp) = &self.tcp {
            let port = tcp.address.rsplit_once(':').map(|(_, port)| port.parse());
            if !matches!(port, Some(Ok(1_u16..))) {
                return Err(format!(
                    "tcp.address ({:?}) must be like 127.0.0.1:8080",
                    tcp.address
                ));
            }
        }
        if self.exec.as_ref().is_some_and(|exec| {
            exec.command
                .first()
                .is_none_or(std::string::String::is_empty)
        }) {
            return Err("exec.command names no program".to_owned());
        }
        Ok(())
    }
}
