//! `mepulse bench baseline`: what durable heartbeats are measured against.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::cli::Failure;
use crate::cli::serve::announce;
use crate::config::Config;
use crate::http::listener::{Door, Limits, Server};
use crate::http::{self, BodyLimits};
use crate::metrics::Metrics;

/// Serves the heartbeat's route with the same listener and the same parsing, and nothing behind.
pub(in crate::cli) fn baseline(address: SocketAddr) -> Result<(), Failure> {
    let server = Config::default().server;
    let limits = Limits {
        header_timeout: Duration::from_millis(server.header_timeout_ms),
        body_timeout: Duration::from_millis(server.body_timeout_ms),
        idle_timeout: Duration::from_millis(server.idle_timeout_ms),
        connections_max: server.connections_max,
        drain_timeout: Duration::ZERO,
    };
    let body_limits = BodyLimits {
        bytes: server.body_limit_bytes,
        timeout_ms: server.body_timeout_ms,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(Failure::failed)?;
    runtime.block_on(async {
        let listener = TcpListener::bind(address).await.map_err(Failure::failed)?;
        let address = listener.local_addr().map_err(Failure::failed)?;
        announce(&format!("mepulse listening on http://{address}"));
        let (stop, stopped) = watch::channel(false);
        let routes = http::baseline_routes(body_limits);
        let metrics = Arc::new(Metrics::new());
        let server = Server::new(routes, limits, metrics, || {});
        let door = Door::Plain { exposed: false };
        let serving = server.serve(listener, door, stopped);
        tokio::select! {
            () = serving => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        drop(stop);
        Ok(())
    })
}
