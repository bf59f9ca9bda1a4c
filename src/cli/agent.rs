//! `mepulse agent`: beats for applications, and runs one if asked to.

mod args;

use std::ffi::OsString;
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal as Number};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::process::{Child, Command};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinHandle};

pub(super) use self::args::AgentArgs;
use self::args::{AgentCommand, RunArgs};
use super::Failure;
use super::serve::announce;
use crate::agent::config::{ConfigError, Listen};
use crate::agent::state::{Scope, StateError, StateFile};
use crate::agent::status::{self, Meters};
use crate::agent::{Agent, Config, Ended, Order};
use crate::clock::{Clock, Machine, SystemMachine};
use crate::domain::Steady;
use crate::http::listener::{self, Door, Limits, Server};
use crate::metrics::Metrics;

/// Orders that wait for the agent; it takes them at once.
const ORDERS_MAX: usize = 16;

/// Names that are being resolved, and writes of the state file.
const BLOCKING_THREADS_MAX: usize = 32;

/// What the status server allows: it is for the operator of this machine.
const STATUS_LIMITS: Limits = Limits {
    header_timeout: Duration::from_secs(5),
    body_timeout: Duration::from_secs(5),
    idle_timeout: Duration::from_secs(30),
    connections_max: 64,
    drain_timeout: Duration::from_millis(500),
};

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self {
            code: 2,
            message: error.to_string(),
        }
    }
}

impl From<StateError> for Failure {
    fn from(error: StateError) -> Self {
        let code = if matches!(error, StateError::InUse(_)) {
            3
        } else {
            1
        };
        Self {
            code,
            message: error.to_string(),
        }
    }
}

pub(super) fn run(args: &AgentArgs) -> Result<ExitCode, Failure> {
    // Beats are rare and small: one thread does it all.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .enable_all()
        .build()
        .map_err(Failure::failed)?;
    let ended = runtime.block_on(async {
        match &args.command {
            Some(AgentCommand::Run(run)) => alongside(run).await,
            None => alone(args).await,
        }
    });
    // A name that is still being resolved must not hold the exit up.
    runtime.shutdown_background();
    ended
}

/// What works.
struct Working {
    orders: mpsc::Sender<Order>,
    agent: JoinHandle<Ended>,
    around: Around,
    /// Where the status server is.
    place: Option<String>,
}

/// What outlives the agent for a moment.
struct Around {
    stop_status: watch::Sender<bool>,
    status: Option<JoinHandle<()>>,
    /// The status server's socket.
    socket: Option<PathBuf>,
}

impl Working {
    /// Makes everything ready, then starts what `before` starts, then the agent.
    async fn start<T>(
        config: Config,
        prune: bool,
        before: impl FnOnce() -> Result<T, Failure>,
    ) -> Result<(Self, T), Failure> {
        let machine = SystemMachine::new();
        let reading = machine.read();
        let clock = Clock::anchored(
            Arc::new(machine),
            Steady::from_ms(reading.wall.as_ms()),
            &reading,
        );
        let scope = Scope {
            server: config.server.url.trim_end_matches('/').to_owned(),
            app: config.agent.app_instance_id.clone(),
        };
        let state = StateFile::open(&config.agent.state_file, scope)?;
        let meters = Arc::new(Meters::new());
        let listen = config.status.listen()?;
        let agent = Agent::new(config, state, clock, meters.clone(), prune)
            .map_err(|error| ConfigError::Wrong(error.to_string()))?;
        let (orders, receiver) = mpsc::channel(ORDERS_MAX);
        let (stop_status, stopped) = watch::channel(false);
        let routes = status::routes(&orders, &meters, agent.local());
        let server = Server::new(routes, STATUS_LIMITS, Arc::new(Metrics::new()), || {});
        let door = Door::Plain { exposed: false };
        let (status, socket, place) = match listen {
            None => (None, None, None),
            Some(Listen::Tcp(address)) => {
                let listener = TcpListener::bind(address).await;
                let listener = listener.map_err(|error| cannot_listen(&address, &error))?;
                let address: SocketAddr = listener.local_addr().map_err(Failure::failed)?;
                let serving = async move { server.serve(listener, door, stopped).await };
                (
                    Some(tokio::spawn(serving)),
                    None,
                    Some(format!("http://{address}")),
                )
            }
            Some(Listen::Unix(path)) => {
                let listener = bind_unix(&path).await;
                let listener = listener.map_err(|error| cannot_listen(&path.display(), &error))?;
                let serving = async move { server.serve(listener, door, stopped).await };
                let place = format!("unix:{}", path.display());
                (Some(tokio::spawn(serving)), Some(path), Some(place))
            }
        };
        let around = Around {
            stop_status,
            status,
            socket,
        };
        let started = match before() {
            Ok(started) => started,
            Err(failure) => {
                around.end().await;
                return Err(failure);
            }
        };
        let working = Self {
            orders,
            agent: tokio::spawn(agent.run(receiver)),
            around,
            place,
        };
        Ok((working, started))
    }
}

impl Around {
    /// Takes the status server down.
    async fn end(self) {
        self.stop_status.send_replace(true);
        if let Some(status) = self.status {
            let _ = status.await;
        }
        if let Some(socket) = self.socket {
            let _ = std::fs::remove_file(socket);
        }
    }
}

fn broken(error: &JoinError) -> Failure {
    Failure::failed(format!("the agent broke: {error}"))
}

fn cannot_listen(place: &dyn std::fmt::Display, error: &std::io::Error) -> Failure {
    Failure::failed(format!(
        "listening on {place} failed: {error}; choose another status.listen, or leave it empty"
    ))
}

/// A socket that nobody answers on is left from an earlier agent, and is replaced.
async fn bind_unix(path: &Path) -> std::io::Result<UnixListener> {
    if UnixStream::connect(path).await.is_ok() {
        return Err(std::io::ErrorKind::AddrInUse.into());
    }
    let taken = std::fs::symlink_metadata(path);
    if taken.is_ok_and(|found| !found.file_type().is_socket()) {
        return Err(std::io::ErrorKind::AlreadyExists.into());
    }
    let name = path.file_name().and_then(std::ffi::OsStr::to_str);
    let name = name.ok_or(std::io::ErrorKind::InvalidInput)?;
    let directory = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    listener::bind_unix(directory.unwrap_or(Path::new(".")), name)
}

/// `mepulse agent --config FILE`, or `--edgegallery DIR`
async fn alone(args: &AgentArgs) -> Result<ExitCode, Failure> {
    let config = args.load()?;
    let mut signals = Signals::new().map_err(Failure::failed)?;
    warn_of_listeners(&config);
    let (mut working, ()) = Working::start(config, true, || Ok(())).await?;
    if let Some(place) = &working.place {
        announce(&format!("mepulse agent status on {place}"));
    }
    loop {
        let number = tokio::select! {
            ended = &mut working.agent => {
                working.around.end().await;
                return match ended.map_err(|error| broken(&error))? {
                    Ended::Stopped => Ok(ExitCode::SUCCESS),
                    Ended::Conflict(sentence) => Err(Failure::failed(sentence)),
                };
            }
            number = signals.next() => number,
        };
        let order = match number {
            Number::TERM | Number::INT => Order::Stop,
            Number::HUP => match args.load() {
                Ok(config) => Order::Reload(Box::new(config)),
                Err(error) => {
                    log::error!("SIGHUP: {error}. Everything stays as it was");
                    continue;
                }
            },
            _ => continue,
        };
        // An agent that has just ended takes no orders, and is seen above.
        let _ = working.orders.send(order).await;
    }
}

/// Whoever reaches the status server gets the token, where it is handed out.
fn warn_of_listeners(config: &Config) {
    if config.status.hand_out_tokens
        && let Ok(Some(Listen::Tcp(address))) = config.status.listen()
        && !address.ip().is_loopback()
    {
        log::warn!("whoever reaches {address} gets the token (status.hand_out_tokens)");
    }
}

/// `mepulse agent run … -- COMMAND`
async fn alongside(args: &RunArgs) -> Result<ExitCode, Failure> {
    let config = args.config()?;
    let patience = Duration::from_millis(config.agent.stop_timeout_ms);
    // Before the command starts: no signal is lost between the two.
    let mut signals = Signals::new().map_err(Failure::failed)?;
    let prune = args.config.is_some();
    let (mut working, mut child) = Working::start(config, prune, || start(&args.command)).await?;
    if let Some(place) = &working.place {
        log::info!("status on {place}");
    }
    let status = loop {
        tokio::select! {
            status = child.wait() => break status.map_err(Failure::failed)?,
            ended = &mut working.agent => {
                give_up(&mut child, patience).await;
                working.around.end().await;
                return Err(match ended.map_err(|error| broken(&error))? {
                    Ended::Stopped => Failure::failed("the agent ended before its command"),
                    Ended::Conflict(sentence) => Failure::failed(sentence),
                });
            }
            number = signals.next() => {
                // On a terminal the command has it from there already; twice means "at once" to many.
                if !(comes_from_terminal(number) && std::io::stdin().is_terminal()) {
                    forward(&child, number);
                }
            }
        }
    };
    let _ = working.orders.send(Order::Stop).await;
    let ended = working.agent.await;
    working.around.end().await;
    // The command's own end is what counts; the log has what else went wrong.
    if let Err(error) = ended {
        log::error!("{}", broken(&error).message);
    }
    Ok(ExitCode::from(exit_code(status)))
}

/// Exit codes as shells have them: 127 where there is no such command, 126 where it cannot run.
fn start(command: &[OsString]) -> Result<Child, Failure> {
    let Some((program, arguments)) = command.split_first() else {
        return Err(Failure::failed("there is no command to run"));
    };
    Command::new(program)
        .args(arguments)
        .spawn()
        .map_err(|error| Failure {
            code: match error.kind() {
                std::io::ErrorKind::NotFound => 127,
                _ => 126,
            },
            message: format!("{} could not be started: {error}", program.display()),
        })
}

/// Whether a terminal sends it to everybody on it.
fn comes_from_terminal(number: Number) -> bool {
    [Number::INT, Number::HUP, Number::QUIT].contains(&number)
}

fn forward(child: &Child, number: Number) {
    // Its id is gone once it was waited for.
    let id = child.id().and_then(|id| i32::try_from(id).ok());
    if let Some(pid) = id.and_then(Pid::from_raw)
        && let Err(error) = rustix::process::kill_process(pid, number)
    {
        log::warn!("forwarding {number:?} to the command failed: {error}");
    }
}

/// Ends a command that cannot be taken care of.
async fn give_up(child: &mut Child, patience: Duration) {
    forward(child, Number::TERM);
    if tokio::time::timeout(patience, child.wait()).await.is_err() {
        let _ = child.kill().await;
    }
}

fn exit_code(status: ExitStatus) -> u8 {
    let code = status
        .code()
        .or(status.signal().map(|signal| 128 + signal))
        .unwrap_or(1);
    u8::try_from(code).unwrap_or(1)
}

struct Signals([(Number, Signal); 6]);

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self([
            (Number::TERM, signal(SignalKind::terminate())?),
            (Number::INT, signal(SignalKind::interrupt())?),
            (Number::HUP, signal(SignalKind::hangup())?),
            (Number::QUIT, signal(SignalKind::quit())?),
            (Number::USR1, signal(SignalKind::user_defined1())?),
            (Number::USR2, signal(SignalKind::user_defined2())?),
        ]))
    }

    /// The next one that comes.
    async fn next(&mut self) -> Number {
        std::future::poll_fn(|context| {
            for (number, signal) in &mut self.0 {
                if signal.poll_recv(context).is_ready() {
                    return std::task::Poll::Ready(*number);
                }
            }
            std::task::Poll::Pending
        })
        .await
    }
}
