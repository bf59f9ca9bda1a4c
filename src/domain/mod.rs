//! The standard's nouns and our rules, pure: no I/O, no clock, no async.
//!
//! Everything here is a value or a function of values; time comes in as an argument.

pub mod event;
pub mod id;
pub mod liveness;
pub mod policy;
pub mod service;
pub mod silence;
pub mod time;
pub mod timeline;

pub use event::{Event, Evidence, Happening};
pub use id::{AppInstanceId, ServiceId, ServiceKey};
pub use liveness::{Agreement, Heartbeat, Liveness, Monitored, Phase, ProducerState, ServiceState};
pub use policy::Policy;
pub use service::Service;
pub use time::{BlindCause, BlindSpot, LivenessInterval, Moment, RetryPromise, Steady, Wall};
pub use timeline::{BootId, Mark, Reading};
