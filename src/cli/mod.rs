//! The command line: one binary, its roles as subcommands. All exit codes are chosen here.

mod admin;
mod agent;
mod app;
mod bench;
mod data_dir;
mod delivery;
mod human;
mod serve;
mod source;
mod story;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use self::agent::AgentArgs;
use self::app::{AppCommand, TokenArgs};
use self::bench::BenchArgs;
use crate::auth::AuthError;
use crate::config::{ConfigError, Sources};
use crate::store::OpenError;

/// What was typed.
#[derive(Debug, Parser)]
#[command(name = "mepulse", version, about, long_about = LONG_ABOUT, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

const LONG_ABOUT: &str = "Keeps the truth about which MEC application services are alive (ETSI GS MEC 011, \
Mp1), across restarts, crashes, power cuts and wrong clocks. An acknowledged heartbeat is on the disk.

Exit codes: 0 fine, 1 failed, 2 wrong usage or configuration, 3 the data directory (or an agent's state file) is in use
by another process; agent run: that of its command.
Logs go to standard error; RUST_LOG sets what is logged (default: info for serve and agent, else warn).";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server.
    Serve(ServeArgs),
    /// Look into the database and hand out credentials, whether the server runs or not.
    Admin(AdminArgs),
    /// Register and beat for applications that cannot.
    Agent(AgentArgs),
    /// Measure a server: one that is started for this, or any other.
    Bench(BenchArgs),
}

/// Where the configuration comes from; flags win over the environment, then the file, then the
/// defaults.
#[derive(Debug, Args)]
struct ConfigArgs {
    /// Configuration file [default: ./config.toml if it is there, else built-in defaults].
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Data directory (store.data_dir) [default: data].
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<String>,
    /// Set any key, e.g. --set liveness.default_interval_s=10; may be repeated.
    #[arg(long, global = true, value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
}

impl ConfigArgs {
    /// The layers; dedicated flags win over `--set`.
    fn sources(&self) -> Sources {
        let mut set = self.set.clone();
        if let Some(dir) = &self.data_dir {
            set.push(format!("store.data_dir={dir}"));
        }
        let env = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Sources {
            file: self.config.clone(),
            set,
            env,
        }
    }
}

#[derive(Debug, Args)]
struct ServeArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Address to listen on (server.listen) [default: 127.0.0.1:8088]; port 0 picks a free one.
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
}

impl ServeArgs {
    fn sources(&self) -> Sources {
        let mut sources = self.config.sources();
        sources.set.extend(
            self.listen
                .map(|address| format!("server.listen={address}")),
        );
        sources
    }
}

#[derive(Debug, Args)]
struct AdminArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Print JSON instead of a table.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: AdminCommand,
}

#[derive(Debug, Subcommand)]
enum AdminCommand {
    /// List all services.
    Services,
    /// Show all that is known of one service.
    Show {
        /// The service's id (serInstanceId).
        service: String,
    },
    /// Tell the story of one service: what happened to it, and what each verdict rests on.
    Why {
        /// The service's id (serInstanceId); it may be gone.
        service: String,
    },
    /// If nothing beats from now on: who is suspended when, and who gets credit from which outage.
    /// With the server down: as if it were started now.
    Forecast,
    /// List all subscriptions: whom they tell what, what is still to be delivered, what goes wrong.
    Subscriptions,
    /// List the events that could not be delivered in time (notify.give_up_after_s).
    DeadLetters,
    /// Show the server and its store.
    Status,
    /// Hand out, change and take away the credentials of applications.
    App {
        #[command(subcommand)]
        command: AppCommand,
    },
    /// Print a token that is signed with the data directory's key.
    Token(TokenArgs),
}

/// Why a command failed: a sentence, and the exit code that goes with it.
#[derive(Debug)]
struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    fn failed(message: impl std::fmt::Display) -> Self {
        Self {
            code: 1,
            message: message.to_string(),
        }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self {
            code: 2,
            message: error.to_string(),
        }
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        let code = if matches!(error, OpenError::InUse { .. }) {
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

impl From<AuthError> for Failure {
    fn from(error: AuthError) -> Self {
        let code = if matches!(error, AuthError::Unfit(_)) {
            2
        } else {
            1
        };
        Self {
            code,
            message: error.to_string(),
        }
    }
}

/// Runs what was typed.
#[must_use]
pub fn run(cli: Cli) -> ExitCode {
    let default_filter = match &cli.command {
        Command::Serve(_) => "info",
        Command::Agent(args) => args.default_filter(),
        // Their output is the interface; the log speaks up only when something is wrong.
        Command::Admin(_) | Command::Bench(_) => "warn",
    };
    let env = env_logger::Env::default().default_filter_or(default_filter);
    env_logger::Builder::from_env(env).init();
    let done = |()| ExitCode::SUCCESS;
    let result = match cli.command {
        Command::Serve(args) => serve::run(&args).map(done),
        Command::Admin(args) => admin::run(&args).map(done),
        Command::Agent(args) => agent::run(&args),
        Command::Bench(args) => bench::run(args),
    };
    match result {
        Ok(code) => code,
        Err(Failure { code, message }) => {
            eprintln!("mepulse: {message}");
            ExitCode::from(code)
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        super::Cli::command().debug_assert();
    }
}
