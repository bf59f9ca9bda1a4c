//! Our own tokens: signed with a key that never leaves the data directory.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header};
use ring::digest;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde::Serialize;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::place::{self, Lock};
use super::token::{OWN_NAME, OWN_OPERATOR_SCOPE, Token, Verified};
use super::{AuthError, InvalidToken, crypto};
use crate::domain::{AppInstanceId, Moment, Wall};

const BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const END: &str = "-----END PRIVATE KEY-----";

/// What the file with the key is called in messages.
const KEY_FILE: &str = "signing key (PEM, PKCS #8, Ed25519)";

/// Signs our own tokens, and knows them again.
pub struct Issuer {
    signing: EncodingKey,
    verifying: DecodingKey,
    /// Made of the public key, so that another key has another name.
    kid: String,
}

impl std::fmt::Debug for Issuer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "issuer {}", self.kid)
    }
}

/// Whom a token is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// An application instance that has shown a credential.
    Application {
        /// Which one.
        app: AppInstanceId,
        /// The credential: the token ends with it.
        credential: Uuid,
    },
    /// Whoever runs the platform.
    Operator {
        /// Who it is, for logs.
        name: String,
    },
}

/// A token that was issued.
#[derive(Clone, PartialEq, Eq)]
pub struct Issued {
    /// The token, to be sent as `Authorization: Bearer …`.
    pub token: String,
    /// It is good for so many seconds.
    pub expires_in_s: u64,
}

impl std::fmt::Debug for Issued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a token for {} s", self.expires_in_s)
    }
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'static str,
    sub: &'a str,
    aud: &'static str,
    iat: u64,
    exp: u64,
    jti: Uuid,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    credential: Option<Uuid>,
    /// When the token expires on the platform's own timeline, in milliseconds: a step of the wall
    /// clock neither ends nor prolongs it.
    #[serde(skip_serializing_if = "Option::is_none")]
    exp_steady_ms: Option<u64>,
}

impl Issuer {
    /// The key of this directory (see [`super::directory`]); makes one if there is none.
    ///
    /// # Errors
    /// [`AuthError`]: a file operation fails, or the key is none, or others can get at it.
    pub fn open(directory: &Path) -> Result<Self, AuthError> {
        if let Some(known) = Self::open_existing(directory)? {
            return Ok(known);
        }
        let _lock = Lock::take(directory)?;
        // Somebody else may have been first.
        if let Some(known) = Self::open_existing(directory)? {
            return Ok(known);
        }
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
            .map_err(|_| AuthError::Cryptography("making a signing key"))?;
        let text = Zeroizing::new(STANDARD.encode(pkcs8.as_ref()));
        let mut pem = Zeroizing::new(String::with_capacity(256));
        pem.push_str(BEGIN);
        for (at, letter) in text.chars().enumerate() {
            if at % 64 == 0 {
                pem.push('\n');
            }
            pem.push(letter);
        }
        pem.push('\n');
        pem.push_str(END);
        pem.push('\n');
        place::write(&Self::file(directory), pem.as_bytes())?;
        log::info!(
            "made a new signing key for tokens in {}",
            directory.display()
        );
        Self::from_pkcs8(pkcs8.as_ref()).ok_or(AuthError::Cryptography("making a signing key"))
    }

    /// The key of this directory, if there is one.
    ///
    /// # Errors
    /// [`AuthError`]: it cannot be read, or is none, or others can get at it.
    pub fn open_existing(directory: &Path) -> Result<Option<Self>, AuthError> {
        let path = Self::file(directory);
        let Some(content) = place::read_secret(&path)? else {
            return Ok(None);
        };
        let malformed = |reason: &str| AuthError::malformed(&path, KEY_FILE, reason);
        let text = std::str::from_utf8(&content).map_err(|_| malformed("it is not UTF-8"))?;
        let body = text
            .trim()
            .strip_prefix(BEGIN)
            .and_then(|rest| rest.strip_suffix(END))
            .ok_or_else(|| malformed("it is not one block PRIVATE KEY"))?;
        let mut joined = Zeroizing::new(String::with_capacity(body.len()));
        joined.extend(body.split_ascii_whitespace());
        let pkcs8 = STANDARD
            .decode(joined.as_bytes())
            .map(Zeroizing::new)
            .map_err(|_| malformed("it is not base64"))?;
        Self::from_pkcs8(&pkcs8)
            .map(Some)
            .ok_or_else(|| malformed("it is no Ed25519 key"))
    }

    /// Where the key is.
    #[must_use]
    pub fn file(directory: &Path) -> PathBuf {
        directory.join("signing-key.pem")
    }

    fn from_pkcs8(pkcs8: &[u8]) -> Option<Self> {
        crypto::install();
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8).ok()?;
        let public = pair.public_key().as_ref();
        let fingerprint = digest::digest(&digest::SHA256, public);
        let name = fingerprint.as_ref().get(..9)?;
        Some(Self {
            signing: EncodingKey::from_ed_der(pkcs8),
            verifying: DecodingKey::from_ed_der(public),
            kid: format!("{OWN_NAME}-{}", URL_SAFE_NO_PAD.encode(name)),
        })
    }

    /// A token for `ttl_s` seconds from now. An application's ends by steady time, an operator's by
    /// the wall clock.
    ///
    /// # Errors
    /// [`AuthError::Cryptography`].
    pub fn issue(&self, who: &Subject, ttl_s: u64, now: Moment) -> Result<Issued, AuthError> {
        let until = now.steady.plus_ms(ttl_s.saturating_mul(1000));
        let until_ms = match who {
            Subject::Application { .. } => Some(until.as_ms()),
            Subject::Operator { .. } => None,
        };
        self.sign(who, ttl_s, now.wall, until_ms)
    }

    /// The same where nobody knows the platform's steady time: the token ends by the wall clock.
    ///
    /// # Errors
    /// [`AuthError::Cryptography`].
    pub fn issue_offline(&self, who: &Subject, ttl_s: u64, now: Wall) -> Result<Issued, AuthError> {
        self.sign(who, ttl_s, now, None)
    }

    fn sign(
        &self,
        who: &Subject,
        ttl_s: u64,
        now: Wall,
        exp_steady_ms: Option<u64>,
    ) -> Result<Issued, AuthError> {
        let (iat, _) = now.split();
        let (sub, scope, credential) = match who {
            Subject::Application { app, credential } => (app.as_str(), None, Some(*credential)),
            Subject::Operator { name } => (name.as_str(), Some(OWN_OPERATOR_SCOPE), None),
        };
        let claims = Claims {
            iss: OWN_NAME,
            sub,
            aud: OWN_NAME,
            iat,
            exp: iat.saturating_add(ttl_s),
            jti: Uuid::new_v4(),
            scope,
            credential,
            exp_steady_ms,
        };
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = Some(self.kid.clone());
        let token = jsonwebtoken::encode(&header, &claims, &self.signing)
            .map_err(|_| AuthError::Cryptography("signing a token"))?;
        Ok(Issued {
            token,
            expires_in_s: ttl_s,
        })
    }

    /// Whether a token says that it is signed with this key.
    pub(super) fn is_named_by(&self, token: &Token<'_>) -> bool {
        token.kid() == Some(&self.kid)
    }

    /// Verifies such a token.
    ///
    /// # Errors
    /// [`InvalidToken`].
    pub(super) fn verify(&self, token: &Token<'_>) -> Result<Verified, InvalidToken> {
        token.verify_own(&self.verifying)
    }
}

#[cfg(test)]
mod tests;
