//! One test binary: it links once and shares one support module.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod admin;
mod bad_input;
mod blind;
mod config;
mod contract;
mod damage;
mod disk_faults;
mod expiry;
mod h2;
mod lapse;
mod liveness;
mod migrations;
mod openapi;
mod overload;
mod poison;
mod power_cut;
mod races;
mod restart;
mod schemathesis;
mod services;
mod simulation;
mod snapshots;
mod stop;
mod store_guard;
mod support;
mod tidy;
mod truth;
