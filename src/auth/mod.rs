//! Who is calling: keys, tokens, credentials.

pub mod sdk_hmac;
