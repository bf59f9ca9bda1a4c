//! The standard's nouns and our rules, pure: no I/O, no clock, no async.
//!
//! Everything here is a value or a function of values; time comes in as an argument.

pub mod app;
pub mod backoff;
pub mod caller;
pub mod event;
pub mod id;
pub mod liveness;
pub mod policy;
pub mod selection;
pub mod service;
pub mod silence;
pub mod subscription;
pub mod time;
pub mod timeline;

pub use app::AppInfo;
pub use caller::Caller;
pub use event::{Attributes, Event, Evidence, Happening};
pub use id::{AppInstanceId, AsItIs, ByService, ServiceId, ServiceKey, SubscriptionId};
pub use liveness::{Agreement, Heartbeat, Liveness, Monitored, Phase, ProducerState, ServiceState};
pub use policy::Policy;
pub use selection::{Query, Selection, Subject};
pub use service::Service;
pub use subscription::{Cursor, DeadLetter, Failing, Notice, Subscription};
pub use time::{BlindCause, BlindSpot, LivenessInterval, Moment, RetryPromise, Steady, Wall};
pub use timeline::{BootId, Mark, Reading};
