//! The listeners and their doors.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, UnixListener};
use tokio::task::JoinHandle;

use super::super::Failure;
use super::{ADMIN_SOCKET, DRAIN_TIMEOUT};
use crate::config::{AuthMode, Config, is_local};
use crate::http::listener::{self, Door, Limits, Server};
use crate::http::{self, Api};
use crate::notify;
use crate::tls::ServerTls;

/// Connections to the admin's socket at once.
const ADMIN_CONNECTIONS_MAX: usize = 64;
/// Descriptors that are not connections of clients: the store, sockets, standard streams; the
/// admin's connections; farewells of both servers. Those of callbacks come on top.
const DESCRIPTORS_RESERVED: u64 = 64 + 64 + 2 * 64;

/// Sockets that the kernel queues connections for.
pub(super) struct Bound {
    /// Where the first one is, with its real port.
    pub(super) address: SocketAddr,
    main: TcpListener,
    /// For EdgeGallery's clients that know no TLS.
    plain: Option<TcpListener>,
    admin: UnixListener,
}

impl Bound {
    pub(super) async fn new(config: &Config) -> Result<Self, Failure> {
        let data_dir = &config.store.data_dir;
        let main = bind_tcp(config.server.listen, "--listen")?;
        let plain = config.edgegallery.plain_address()?;
        let plain = plain
            .map(|address| bind_tcp(address, "edgegallery.plain_listen"))
            .transpose()?;
        let admin = listener::bind_unix(data_dir, ADMIN_SOCKET).map_err(|error| {
            Failure::failed(format!(
                "listening on {} failed: {error}",
                data_dir.join(ADMIN_SOCKET).display()
            ))
        })?;
        Ok(Self {
            address: main.local_addr().unwrap_or(config.server.listen),
            main,
            plain,
            admin,
        })
    }

    /// Starts the accept loops; they end when the server stops.
    pub(super) fn listen(
        self,
        tls: Option<Arc<ServerTls>>,
        api: &Api,
        config: &Config,
    ) -> JoinHandle<()> {
        let limits = Limits {
            header_timeout: Duration::from_millis(config.server.header_timeout_ms),
            body_timeout: Duration::from_millis(config.server.body_timeout_ms),
            idle_timeout: Duration::from_millis(config.server.idle_timeout_ms),
            connections_max: descriptors_for(config),
            drain_timeout: DRAIN_TIMEOUT,
        };
        let registry = api.registry.clone();
        let public = Server::new(http::routes(api), limits, api.metrics.clone(), move || {
            registry.note_refusal();
        });
        let admin_limits = Limits {
            connections_max: ADMIN_CONNECTIONS_MAX,
            ..limits
        };
        let routes = http::admin_routes(api);
        let private = Server::new(routes, admin_limits, api.metrics.clone(), || {});
        let plain_door = |listener: &TcpListener| Door::Plain {
            exposed: !config.server.tls_in_front
                && !listener.local_addr().is_ok_and(|at| is_local(at.ip())),
        };
        let door = tls.map_or_else(|| plain_door(&self.main), Door::Tls);
        let second = self.plain.map(|listener| {
            let door = plain_door(&listener);
            if let Ok(address) = listener.local_addr() {
                log::info!("EdgeGallery's clients without TLS are served on http://{address}");
            }
            (listener, door)
        });
        let asks = config.auth.mode == AuthMode::Jwt;
        for door in [Some(&door), second.as_ref().map(|(_, door)| door)]
            .into_iter()
            .flatten()
        {
            if asks && matches!(door, Door::Plain { exposed: true }) {
                log::warn!(
                    "there is no TLS on an address that others can reach: tokens and secrets that \
                     come there are refused. Set server.tls_cert_file and server.tls_key_file, or \
                     server.tls_in_front = true if TLS ends in front of this server"
                );
            }
        }
        let (main, admin, stop) = (self.main, self.admin, api.stop.clone());
        tokio::spawn(async move {
            let second = async {
                if let Some((listener, door)) = second {
                    public.serve(listener, door, stop.clone()).await;
                }
            };
            tokio::join!(
                public.serve(main, door, stop.clone()),
                second,
                private.serve(admin, Door::Private, stop.clone())
            );
        })
    }
}

/// Connections that the kernel holds until they are accepted: everybody reconnects at once when the
/// server is back. The kernel's own limit (net.core.somaxconn) still holds.
const BACKLOG: u32 = 4096;

fn bind_tcp(address: SocketAddr, setting: &str) -> Result<TcpListener, Failure> {
    let listen = || {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        // A restarted server takes its port back at once.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    listen().map_err(|error: std::io::Error| {
        Failure::failed(format!(
            "listening on {address} failed: {error}; name another address with {setting}, or port 0 for any"
        ))
    })
}

/// Raises the limit on open files as far as it goes, and lowers the connections to what fits.
fn descriptors_for(config: &Config) -> usize {
    let connections_max = config.server.connections_max;
    let callbacks = notify::descriptors(config.notify.in_flight_max) as u64;
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let open_files = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    let Some(open_files) = open_files else {
        return connections_max;
    };
    let room = usize::try_from(open_files.saturating_sub(DESCRIPTORS_RESERVED + callbacks))
        .unwrap_or(usize::MAX);
    if room < connections_max {
        log::warn!(
            "server.connections_max is {connections_max}, but the limit on open files leaves room \
             for {room} connections; raise it (ulimit -n, LimitNOFILE=)"
        );
    }
    connections_max.min(room.max(1))
}
