//! Who is calling: keys, tokens, credentials.

mod crypto;
mod error;
mod keys;
mod place;
pub mod sdk_hmac;
#[cfg(test)]
mod testing;
mod token;

pub use self::error::AuthError;
pub use self::keys::{KEYS_MAX, KeySet};
pub use self::place::directory;
pub use self::token::{InvalidToken, TOKEN_BYTES_MAX};
