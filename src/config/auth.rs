//! Who may speak for whom: the sections `[auth]` and `[edgegallery]`.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{Config, ConfigError};

/// `[auth]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Auth {
    /// Whether anybody asks who is calling.
    pub mode: AuthMode,
    /// Serve without authentication on an address that others can reach.
    pub i_know_this_is_open: bool,
    /// Keys of an identity server that tokens are verified with.
    pub keys: Vec<VerificationKey>,
    /// A JWKS file (RFC 7517) with more of them; empty: none. Read again when it changes.
    pub jwks_file: PathBuf,
    /// The claim that names the application instance.
    pub app_claim: String,
    /// The `iss` that such tokens must have; empty: any.
    pub issuer: String,
    /// One of the `aud` that such tokens must have; empty: any.
    pub audience: String,
    /// How far the clocks of such an identity server may be away, in seconds.
    pub leeway_s: u64,
    /// A token with this scope may act for every application.
    pub operator_scope: String,
    /// Networks of proxies that have authenticated the caller and say in `X-AppInstanceID` who it is.
    pub trusted_proxies: Vec<String>,
    /// Whether tokens are issued at `/oauth2/token`.
    pub token_endpoint: bool,
    /// Tokens from `/oauth2/token` are good for so many seconds.
    pub token_ttl_s: u64,
    /// Requests with new or wrong secrets from one address for one client, and with wrong signatures
    /// from one address, per minute; further ones get 429.
    pub token_requests_per_min: u32,
}

/// `[auth] mode`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AuthMode {
    /// Nobody does.
    None,
    /// Every request of the API carries a token, or comes with a certificate.
    Jwt,
}

/// `[[auth.keys]]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerificationKey {
    /// The one algorithm that the key is good for.
    pub algorithm: KeyAlgorithm,
    /// The public key, a PEM file.
    pub file: PathBuf,
    /// The `kid` of its tokens; empty: those whose `kid` names no other key.
    #[serde(default)]
    pub kid: String,
}

/// Signatures of tokens that are verified. Source: RFC 7518, 3.1; RFC 8037.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names are the registry's")]
pub enum KeyAlgorithm {
    RS256,
    RS384,
    RS512,
    ES256,
    EdDSA,
}

/// `[edgegallery]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EdgeGallery {
    /// Whether EdgeGallery's own clients are served.
    pub enabled: bool,
    /// A second listener without TLS, e.g. "127.0.0.1:8000"; empty: none.
    pub plain_listen: String,
    /// Tokens from `/mep/token` are good for so many seconds.
    pub token_ttl_s: u64,
    /// How far the date of such a request may be away, in seconds; 0: it is not looked at.
    pub max_skew_s: u64,
    /// A request for a token cannot be played again within so many seconds.
    pub replay_window_s: u64,
    /// The key that secret keys are encrypted with; empty: `auth/access-keys.key` in the data
    /// directory, made when it is first needed.
    pub key_file: PathBuf,
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            mode: AuthMode::None,
            i_know_this_is_open: false,
            keys: Vec::new(),
            jwks_file: PathBuf::new(),
            app_claim: "sub".to_owned(),
            issuer: String::new(),
            audience: String::new(),
            leeway_s: 30,
            operator_scope: "mepulse.operator".to_owned(),
            trusted_proxies: Vec::new(),
            token_endpoint: true,
            token_ttl_s: 900,
            token_requests_per_min: 60,
        }
    }
}

impl Default for EdgeGallery {
    fn default() -> Self {
        Self {
            enabled: false,
            plain_listen: String::new(),
            token_ttl_s: 3_600,
            max_skew_s: 0,
            replay_window_s: 900,
            key_file: PathBuf::new(),
        }
    }
}

impl Auth {
    /// The networks of `trusted_proxies`.
    ///
    /// # Errors
    /// [`ConfigError::Conflict`], naming the entry.
    pub fn proxies(&self) -> Result<Vec<IpNet>, ConfigError> {
        super::sections::networks("auth.trusted_proxies", &self.trusted_proxies)
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        self.proxies()?;
        for (key, value) in [
            ("auth.app_claim", &self.app_claim),
            ("auth.operator_scope", &self.operator_scope),
        ] {
            if value.is_empty() || value.contains(char::is_whitespace) {
                return Err(ConfigError::Conflict(format!(
                    "`{key}` ({value:?}) must be one word"
                )));
            }
        }
        Ok(())
    }
}

impl EdgeGallery {
    /// The address of `plain_listen`.
    ///
    /// # Errors
    /// [`ConfigError::Conflict`] when it is none.
    pub fn plain_address(&self) -> Result<Option<SocketAddr>, ConfigError> {
        let text = self.plain_listen.trim();
        if text.is_empty() {
            return Ok(None);
        }
        text.parse().map(Some).map_err(|_| {
            ConfigError::Conflict(format!(
                "`edgegallery.plain_listen` ({text:?}) is no address; expected one like 127.0.0.1:8000"
            ))
        })
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let conflict = |sentence: &str| Err(ConfigError::Conflict(sentence.to_owned()));
        if self.plain_address()?.is_some() && !self.enabled {
            return conflict(
                "`edgegallery.plain_listen` is set, but `edgegallery.enabled` is false",
            );
        }
        // What is older than the window must be refused for its date, or it could be played again.
        if self.max_skew_s > 0 && self.replay_window_s < 2 * self.max_skew_s {
            return conflict(
                "`edgegallery.replay_window_s` must be at least twice `edgegallery.max_skew_s`: a \
                 request is remembered for as long as its date is good",
            );
        }
        Ok(())
    }
}

/// Whether only this machine reaches a listener there.
#[must_use]
pub fn is_local(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

impl Config {
    /// Whether a server may be started so: an open registry must be wanted.
    ///
    /// # Errors
    /// [`ConfigError::Conflict`], naming the address, or what would not be asked for.
    pub fn check_open(&self) -> Result<(), ConfigError> {
        let has_client_ca = !self.server.tls_client_ca_file.as_os_str().is_empty();
        if has_client_ca && self.auth.mode == AuthMode::None {
            return Err(ConfigError::Conflict(
                "`server.tls_client_ca_file` is set, but with auth.mode = \"none\" nobody needs a \
                 certificate. Set auth.mode = \"jwt\": then a certificate is as good as a token"
                    .to_owned(),
            ));
        }
        if self.auth.mode == AuthMode::Jwt || self.auth.i_know_this_is_open {
            return Ok(());
        }
        let addresses = [Some(self.server.listen), self.edgegallery.plain_address()?];
        match addresses
            .into_iter()
            .flatten()
            .find(|at| !is_local(at.ip()))
        {
            None => Ok(()),
            Some(open) => Err(ConfigError::Conflict(format!(
                "listening on {open} without authentication would let everybody who reaches it beat, \
                 change and remove every service. Set auth.mode = \"jwt\" (see README: Who may speak for whom), \
                 or listen on 127.0.0.1, or, if that is what you want, set \
                 auth.i_know_this_is_open = true"
            ))),
        }
    }
}
