//! One test binary: it links once and shares one support module.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod admin;
mod admin_app;
mod agent;
mod app_races;
mod auth;
mod bad_input;
mod bench;
mod blind;
mod callbacks;
mod config;
mod contract;
mod damage;
mod delivery;
mod disk_faults;
mod edgegallery;
mod etags;
mod expiry;
mod h2;
mod journal;
mod lapse;
mod liveness;
mod long_lists;
mod migrations;
mod openapi;
mod overload;
mod poison;
mod power_cut;
mod queries;
mod races;
mod registrations;
mod restart;
mod schemathesis;
mod services;
mod simulation;
mod snapshots;
mod stop;
mod store_guard;
mod subscriptions;
mod support;
mod tidy;
mod tls;
mod transports;
mod truth;
mod watch;
