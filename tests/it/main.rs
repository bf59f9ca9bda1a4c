//! One test binary: it links once and shares one support module.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod restart;
mod support;
