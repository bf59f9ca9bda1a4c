//! Who is calling: keys, tokens, credentials.
//!
//! * [`Authority`] is what the server asks, and what it holds.
//! * [`Credentials`] is what an administrator changes, with the server running or not.
//! * [`Issuer`] signs our own tokens; [`KeySet`] verifies those of identity servers.
//! * [`sdk_hmac`] is how EdgeGallery's applications sign.
//!
//! Time is told, never read.

mod authority;
mod cache;
mod credentials;
mod crypto;
mod error;
mod hashing;
mod issuer;
mod keys;
mod limits;
mod place;
mod remembered;
mod replay;
pub mod sdk_hmac;
mod secret;
#[cfg(test)]
mod testing;
mod token;

pub use self::authority::{Authority, Refused};
pub use self::credentials::{AccessKey, Credentials, Listed};
pub use self::error::AuthError;
pub use self::issuer::{Issued, Issuer, Subject};
pub use self::keys::{KEYS_MAX, KeySet};
pub use self::place::directory;
pub use self::token::{InvalidToken, TOKEN_BYTES_MAX};
