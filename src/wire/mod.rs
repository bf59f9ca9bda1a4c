//! JSON of MEC 011, field for field, and of our own reports. Parses into the domain and renders
//! from it; knows no routes and no status codes.

pub mod app_info;
pub mod delivery;
pub mod dialect;
pub mod links;
pub mod liveness;
pub mod member;
pub mod notification;
pub mod problem;
pub mod query;
pub mod report;
pub mod retry_after;
pub mod service;
pub mod story;
pub mod subscription;
pub mod token;
pub mod transport;

pub use dialect::Dialect;
pub use links::Links;
pub use member::Malformed;
