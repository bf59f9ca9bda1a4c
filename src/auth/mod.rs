//! Who is calling: keys, tokens, credentials.

mod credentials;
mod crypto;
mod error;
mod issuer;
mod keys;
mod place;
pub mod sdk_hmac;
mod secret;
#[cfg(test)]
mod testing;
mod token;
mod watched;

pub use self::credentials::{AccessKey, Credentials, Listed};
pub use self::error::AuthError;
pub use self::issuer::{Issued, Issuer, Subject};
pub use self::keys::{KEYS_MAX, KeySet};
pub use self::place::directory;
pub use self::token::{InvalidToken, TOKEN_BYTES_MAX};
