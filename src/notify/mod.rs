//! Telling consumers: notifications go to their `callbackReference`s by HTTP POST.
//!
//! * [`Guard`]: which addresses are never called, because a callback is whatever a stranger wrote
//! * [`Caller`]: one notification to one callback, bounded in time and in bytes
//! * [`delay_ms`]: when to try again

mod backoff;
mod callback;
mod connect;
mod guard;

pub use self::backoff::delay_ms;
pub use self::callback::{Caller, Failure};
pub use self::connect::CallerError;
pub use self::guard::{Forbidden, Guard, Kind};
