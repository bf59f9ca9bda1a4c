//! Telling consumers: notifications go to their `callbackReference`s by HTTP POST.
//!
//! * [`Guard`]: which addresses are never called, because a callback is whatever a stranger wrote
//! * [`delay_ms`]: when to try again

mod backoff;
mod guard;

pub use self::backoff::delay_ms;
pub use self::guard::{Forbidden, Guard, Kind};
