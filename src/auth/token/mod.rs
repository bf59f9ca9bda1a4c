//! Verification of one bearer token: a compact JWS (RFC 7515) with the claims of a JWT (RFC 7519).
//!
//! The claims are judged here and not by the library, which reads the machine's clock.

mod claims;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use uuid::Uuid;

use self::claims::Claims;
use super::keys::{KeySet, algorithm_named, library_name};
use crate::config::{Auth, KeyAlgorithm};
use crate::domain::{AppInstanceId, Caller, Moment, Steady};

/// Longer tokens are refused before anything is done with them, in bytes.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;

/// `iss` and `aud` of our own tokens.
pub(super) const OWN_NAME: &str = "mepulse";

/// `scope` of our own tokens for operators, whatever the configuration calls those of others.
pub(super) const OWN_OPERATOR_SCOPE: &str = "mepulse.operator";

/// Why a token is not accepted. Every message may be shown to whoever sent the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidToken {
    /// Not looked at.
    #[error("the token is longer than {TOKEN_BYTES_MAX} bytes")]
    TooLong,
    /// It is no JWT, or a claim is not what it must be.
    #[error("the token is malformed: {0}")]
    Malformed(&'static str),
    /// `alg` is "none", a shared secret, or something else that is not taken.
    #[error("the token's algorithm is none of RS256, RS384, RS512, ES256 and EdDSA")]
    Unsupported,
    /// No key for it.
    #[error("the token is signed with a key that is not known here")]
    UnknownKey,
    /// The key is for another algorithm.
    #[error("the token's algorithm is not that of its key")]
    Algorithm,
    /// Somebody else has signed it, or it was changed.
    #[error("the token's signature does not verify")]
    Signature,
    /// `exp` has passed.
    #[error("the token has expired")]
    Expired,
    /// `nbf`, or the time at which it was issued, is still to come.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// `iss` is another one.
    #[error("the token is of another issuer")]
    Issuer,
    /// `aud` does not name this platform.
    #[error("the token is for another audience")]
    Audience,
    /// Neither an application nor an operator.
    #[error("the token names no application instance")]
    NoApplication,
    /// The credential was removed or rotated.
    #[error("the token's credential has been removed or replaced")]
    Revoked,
}

/// A token whose signature has been verified: what must be judged again at every use.
#[derive(Debug, Clone)]
pub(super) struct Verified {
    /// On whose behalf.
    pub(super) caller: Caller,
    /// The credential that must still be that application's.
    pub(super) credential: Option<(AppInstanceId, Uuid)>,
    life: Life,
}

/// When a token is good, both ends with their leeway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    /// By the wall clock, in milliseconds since the epoch.
    Wall { from_ms: u64, until_ms: u64 },
    /// By the platform's own timeline: whoever steps the clock neither ends nor prolongs it.
    ///
    /// That timeline goes back when a backup is put back. A token with longer to live than its whole
    /// life is of the time that was lost, and not good. What remains: one that was issued before the
    /// backup was made lives as long again as it had left then, and one of the lost time is good
    /// once more when its time comes. Rotating the credential ends both.
    Steady { until: Steady, whole_ms: u64 },
}

impl Verified {
    /// Whether it is good now, as far as time goes.
    ///
    /// # Errors
    /// [`InvalidToken::Expired`] or [`InvalidToken::NotYetValid`].
    pub(super) fn judge(&self, now: Moment) -> Result<(), InvalidToken> {
        let wall_ms = now.wall.as_ms();
        match self.life {
            Life::Wall { until_ms, .. } if wall_ms >= until_ms => Err(InvalidToken::Expired),
            Life::Wall { from_ms, .. } if wall_ms < from_ms => Err(InvalidToken::NotYetValid),
            Life::Steady { until, .. } if now.steady >= until => Err(InvalidToken::Expired),
            Life::Steady { until, whole_ms } if until.ms_since(now.steady) > whole_ms => {
                Err(InvalidToken::NotYetValid)
            }
            Life::Wall { .. } | Life::Steady { .. } => Ok(()),
        }
    }
}

/// A token, taken apart; nothing of it has been verified.
#[derive(Debug)]
pub(super) struct Token<'a> {
    /// What is signed: header and claims.
    message: &'a str,
    claims: &'a str,
    signature: &'a str,
    algorithm: KeyAlgorithm,
    kid: Option<String>,
}

/// The members of a header that matter; all others change nothing.
#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    #[serde(default, deserialize_with = "is_there")]
    crit: bool,
}

/// Whatever it is.
fn is_there<'de, D: Deserializer<'de>>(member: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(member).map(|_| true)
}

impl<'a> Token<'a> {
    /// Takes a token apart.
    ///
    /// # Errors
    /// [`InvalidToken`] when it is too long, malformed, or of an algorithm that is not taken.
    pub(super) fn parse(token: &'a str) -> Result<Self, InvalidToken> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(InvalidToken::TooLong);
        }
        let three = InvalidToken::Malformed("three parts with dots between them were expected");
        let (message, signature) = token.rsplit_once('.').ok_or(three)?;
        let (header, claims) = message.split_once('.').ok_or(three)?;
        if claims.contains('.') {
            return Err(three);
        }
        let header = URL_SAFE_NO_PAD
            .decode(header)
            .map_err(|_| InvalidToken::Malformed("its header is not base64url"))?;
        let header: Header = serde_json::from_slice(&header)
            .map_err(|_| InvalidToken::Malformed("its header is no JSON object with alg"))?;
        if header.crit {
            // Extensions that must be understood; we understand none. Source: RFC 7515, 4.1.11.
            return Err(InvalidToken::Malformed(
                "its header demands extensions (crit)",
            ));
        }
        Ok(Self {
            message,
            claims,
            signature,
            algorithm: algorithm_named(&header.alg).ok_or(InvalidToken::Unsupported)?,
            kid: header.kid,
        })
    }

    /// The name of the key that it says it is signed with.
    pub(super) fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// Verifies a token of an identity server. It may have expired: see [`Verified::judge`].
    ///
    /// # Errors
    /// [`InvalidToken`].
    pub(super) fn verify(&self, keys: &KeySet, rules: &Auth) -> Result<Verified, InvalidToken> {
        let mut candidates = keys.candidates(self.kid(), self.algorithm)?;
        if !candidates.any(|key| self.is_signed_with(key)) {
            return Err(InvalidToken::Signature);
        }
        let claims = self.claims()?;
        if !rules.issuer.is_empty() && claims.text("iss") != Some(&rules.issuer) {
            return Err(InvalidToken::Issuer);
        }
        if !rules.audience.is_empty() && !claims.is_among("aud", &rules.audience) {
            return Err(InvalidToken::Audience);
        }
        let leeway_ms = rules.leeway_s.saturating_mul(1000);
        let life = Life::Wall {
            from_ms: claims.ms("nbf")?.unwrap_or(0).saturating_sub(leeway_ms),
            until_ms: claims.expiry_ms()?.saturating_add(leeway_ms),
        };
        let scope = &rules.operator_scope;
        let caller = if claims.has_word("scope", scope) || claims.has_word("scp", scope) {
            Caller::Operator
        } else {
            Caller::application(claims.app(&rules.app_claim)?)
        };
        Ok(Verified {
            caller,
            credential: None,
            life,
        })
    }

    /// Verifies a token of our own, by our own key. It may have expired, and its credential may be
    /// gone.
    ///
    /// # Errors
    /// [`InvalidToken`].
    pub(super) fn verify_own(&self, key: &DecodingKey) -> Result<Verified, InvalidToken> {
        if self.algorithm != KeyAlgorithm::EdDSA {
            return Err(InvalidToken::Algorithm);
        }
        if !self.is_signed_with(key) {
            return Err(InvalidToken::Signature);
        }
        let claims = self.claims()?;
        if claims.text("iss") != Some(OWN_NAME) {
            return Err(InvalidToken::Issuer);
        }
        if !claims.is_among("aud", OWN_NAME) {
            return Err(InvalidToken::Audience);
        }
        let life = match claims.whole("exp_steady_ms")? {
            Some(until_ms) => Life::Steady {
                until: Steady::from_ms(until_ms),
                // A second more, because of two clocks that are read at once one may be behind.
                whole_ms: claims
                    .expiry_ms()?
                    .saturating_sub(claims.issued_ms()?)
                    .saturating_add(1000),
            },
            None => Life::Wall {
                from_ms: 0,
                until_ms: claims.expiry_ms()?,
            },
        };
        if claims.has_word("scope", OWN_OPERATOR_SCOPE) {
            return Ok(Verified {
                caller: Caller::Operator,
                credential: None,
                life,
            });
        }
        let app = claims.app("sub")?;
        let credential = claims
            .text("credential")
            .and_then(|text| Uuid::try_parse(text).ok())
            .ok_or(InvalidToken::Malformed("its credential is none"))?;
        Ok(Verified {
            caller: Caller::application(app.clone()),
            credential: Some((app, credential)),
            life,
        })
    }

    fn is_signed_with(&self, key: &DecodingKey) -> bool {
        let algorithm = library_name(self.algorithm);
        let message = self.message.as_bytes();
        jsonwebtoken::crypto::verify(self.signature, message, key, algorithm).unwrap_or(false)
    }

    /// To be read only when the signature is known to be good.
    fn claims(&self) -> Result<Claims, InvalidToken> {
        let text = URL_SAFE_NO_PAD
            .decode(self.claims)
            .map_err(|_| InvalidToken::Malformed("its claims are not base64url"))?;
        serde_json::from_slice(&text)
            .map_err(|_| InvalidToken::Malformed("its claims are no JSON object"))
    }
}

#[cfg(test)]
mod tests;
