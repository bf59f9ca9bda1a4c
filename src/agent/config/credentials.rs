//! How the agent proves who it is: `server.oauth2` and `server.access_key`.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use url::{Host, Url};
use zeroize::Zeroizing;

use super::{ConfigError, Server};
use crate::auth::sdk_hmac::ACCESS_KEY_BYTES_MAX;

/// A secret is no longer, in bytes.
const SECRET_BYTES_MAX: u64 = 64 * 1024;

/// `server.oauth2`: client credentials. Source: RFC 6749, 4.4.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OAuth2 {
    /// Where tokens are: absolute, or behind `server.url`.
    pub token_url: String,
    /// Who asks; empty: the application's id.
    pub client_id: String,
    /// The client's secret, alone in a file; empty: no OAuth 2.0.
    pub client_secret_file: PathBuf,
    /// What the token is for; empty: the server decides.
    pub scope: String,
}

impl Default for OAuth2 {
    fn default() -> Self {
        Self {
            token_url: "/oauth2/token".to_owned(),
            client_id: String::new(),
            client_secret_file: PathBuf::new(),
            scope: String::new(),
        }
    }
}

/// `server.access_key`: requests for tokens are signed, as EdgeGallery's applications do it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AccessKey {
    /// Whose signature it is (AK); empty: none.
    pub access_key: String,
    /// The secret key (SK), alone in a file.
    pub secret_key_file: PathBuf,
    /// Where tokens are, behind `server.url`.
    pub token_path: String,
    /// The secret key itself, instead of the file: where it comes from the environment.
    #[serde(skip)]
    pub secret_key: Option<Secret>,
}

impl Default for AccessKey {
    fn default() -> Self {
        Self {
            access_key: String::new(),
            secret_key_file: PathBuf::new(),
            token_path: "/mep/token".to_owned(),
            secret_key: None,
        }
    }
}

/// What nobody may see: neither messages nor logs show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Keeps it.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// Reads it out of a file: its content without white space around it.
    ///
    /// # Errors
    /// A sentence that says what is wrong with the file.
    pub fn read(path: &Path) -> Result<Self, String> {
        let mut text = Zeroizing::new(String::new());
        let read = File::open(path)
            .map(|file| file.take(SECRET_BYTES_MAX + 1))
            .and_then(|mut file| file.read_to_string(&mut text));
        let bytes = read.map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData => "it is no text".to_owned(),
            _ => error.to_string(),
        })?;
        if bytes as u64 > SECRET_BYTES_MAX {
            return Err(format!("it is longer than {SECRET_BYTES_MAX} bytes"));
        }
        match text.trim() {
            "" => Err("it is empty".to_owned()),
            text => Ok(Self::new(text.to_owned())),
        }
    }

    /// Itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl Server {
    /// Something behind the platform's URL.
    #[must_use]
    pub fn below(&self, path: &str) -> String {
        format!("{}{path}", self.url.trim_end_matches('/'))
    }

    /// Where tokens are; `None`: they come from no server.
    #[must_use]
    pub fn token_endpoint(&self) -> Option<String> {
        let place = if self.uses_oauth2() {
            &self.oauth2.token_url
        } else if self.uses_access_key() {
            &self.access_key.token_path
        } else {
            return None;
        };
        Some(match place.starts_with('/') {
            true => self.below(place),
            false => place.clone(),
        })
    }

    /// Whether tokens come by OAuth 2.0.
    #[must_use]
    pub fn uses_oauth2(&self) -> bool {
        !self.oauth2.client_secret_file.as_os_str().is_empty()
    }

    /// Whether requests for tokens are signed.
    #[must_use]
    pub fn uses_access_key(&self) -> bool {
        !self.access_key.access_key.is_empty()
    }

    /// Whether what is configured of tokens goes together.
    pub(super) fn check_credentials(&self) -> Result<(), ConfigError> {
        let sources = [
            ("token_file", !self.token_file.as_os_str().is_empty()),
            ("oauth2", self.uses_oauth2()),
            ("access_key", self.uses_access_key()),
        ];
        let mut used = sources.iter().filter(|(_, used)| *used);
        if let (Some((first, _)), Some((second, _))) = (used.next(), used.next()) {
            return wrong(format!(
                "`server.{first}` and `server.{second}` exclude each other: there is one token"
            ));
        }
        if !self.uses_oauth2() && self.oauth2 != OAuth2::default() {
            return wrong("`server.oauth2` needs a client_secret_file".to_owned());
        }
        self.check_access_key()?;
        let Some(endpoint) = self.token_endpoint() else {
            return Ok(());
        };
        let url = Url::parse(&endpoint).ok().filter(|url| {
            matches!(url.scheme(), "http" | "https")
                && url.has_host()
                && url.fragment().is_none()
                && url.username().is_empty()
                && url.password().is_none()
        });
        let Some(url) = url else {
            return wrong(format!(
                "tokens cannot be fetched at {endpoint:?}; it must be like /oauth2/token or \
                 https://login.example/token, without credentials"
            ));
        };
        if is_readable(&url) && !self.allow_plain {
            return wrong(format!(
                "tokens would be fetched at {endpoint} without TLS, where others can read along; use \
                 https, or set `server.allow_plain` if something else protects the way"
            ));
        }
        if self.shows_tokens() && !self.allow_plain {
            return wrong(format!(
                "tokens would go to `server.url` {} without TLS, where others can read along; use https, \
                 or set `server.allow_plain` if something else protects the way",
                self.url
            ));
        }
        Ok(())
    }

    /// Whether the way to the platform shows tokens to others.
    pub(in crate::agent) fn shows_tokens(&self) -> bool {
        Url::parse(&self.url).is_ok_and(|url| is_readable(&url))
    }

    fn check_access_key(&self) -> Result<(), ConfigError> {
        let own = &self.access_key;
        if !self.uses_access_key() {
            return match *own == AccessKey::default() {
                true => Ok(()),
                false => wrong("`server.access_key` needs an access_key".to_owned()),
            };
        }
        if !is_access_key(&own.access_key) {
            return wrong(format!(
                "`server.access_key.access_key` must be 1 to {ACCESS_KEY_BYTES_MAX} printable \
                 characters, without a comma"
            ));
        }
        if own.secret_key.is_none() && own.secret_key_file.as_os_str().is_empty() {
            return wrong("`server.access_key` needs a secret_key_file".to_owned());
        }
        if !own.token_path.starts_with('/') {
            return wrong(format!(
                "`server.access_key.token_path` ({:?}) must begin with a slash",
                own.token_path
            ));
        }
        Ok(())
    }
}

fn wrong(sentence: String) -> Result<(), ConfigError> {
    Err(ConfigError::Wrong(sentence))
}

/// Whether it can stand in a signature.
pub(in crate::agent) fn is_access_key(text: &str) -> bool {
    let is_printable = text.bytes().all(|it| it.is_ascii_graphic() && it != b',');
    (1..=ACCESS_KEY_BYTES_MAX).contains(&text.len()) && is_printable
}

/// Whether others can read along.
fn is_readable(url: &Url) -> bool {
    url.scheme() == "http" && !is_loopback(url)
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}
