//! mepulse keeps the truth about which MEC application services are alive.
//!
//! The rooms, in reading order (ARCHITECTURE.md tells more):
//!
//! * [`domain`]: the standard's nouns and our rules, pure
//! * [`clock`]: the only reader of machine time
//! * [`wire`]: JSON of MEC 011
//! * [`tls`]: whom we trust when we call somebody, and who we are
//! * [`files`]: small files that change, and are replaced as a whole
//! * [`auth`]: who is calling: keys, tokens, credentials
//! * [`store`]: durable state behind a small seam; the only room that knows bytes
//! * [`registry`]: the use cases, and the one writer
//! * [`notify`]: tells subscribers
//! * [`http`]: routes, the accept loop, status codes
//! * [`agent`]: heartbeats for applications that cannot
//! * [`mod@bench`]: how much, and how fast, measured from outside
//! * [`config`], [`metrics`]
//! * [`cli`]: the commands; builds everything inward-out and stops it outward-in

pub mod agent;
pub mod auth;
pub mod bench;
pub mod cli;
pub mod clock;
pub mod config;
pub mod domain;
pub mod files;
pub mod http;
pub mod metrics;
pub mod notify;
pub mod registry;
pub mod store;
pub mod tls;
pub mod wire;
