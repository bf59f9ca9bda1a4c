//! What can be typed behind `mepulse bench`.

mod load;
mod value;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, value_parser};

use self::load::{BatchArgs, BeatsArgs, LoadArgs, MixedArgs};
use self::value::{connections, count, duration, positive, services};
use crate::bench::{
    BenchError, ExpirePlan, Grace, Progress, RatioPlan, RecoverPlan, SERVICES_MAX, Setup, SizePlan,
    Stop, Where,
};
use crate::config::Config;

#[derive(Debug, Args)]
pub(in crate::cli) struct BenchArgs {
    #[command(subcommand)]
    pub(super) command: BenchCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum BenchCommand {
    #[command(flatten)]
    Measure(Box<Measurement>),
    /// Serve the heartbeat's route with the same parsing and no store: what the durable heartbeat is
    /// measured against.
    Baseline {
        /// Address to listen on; port 0 picks a free one.
        #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
        listen: SocketAddr,
    },
}

/// What ends with a report.
#[derive(Debug, Subcommand)]
pub(super) enum Measurement {
    /// Heartbeats one by one.
    Beats(BeatsArgs),
    /// Heartbeats of many services in one request.
    Batch(BatchArgs),
    /// Registrations of new services; they are removed afterwards.
    Register(LoadArgs),
    /// 90 % heartbeats, 5 % reads of liveness, 3 % registrations, 2 % removals.
    Mixed(MixedArgs),
    /// From the deadline of a silent service to its verdict on the stream of events.
    Expire(ExpireArgs),
    /// From the start of a server that was killed under load to its first accepted heartbeat.
    Recover(RecoverArgs),
    /// Durable heartbeats against the same route with nothing behind it, by turns.
    Ratio(RatioArgs),
    /// What this machine needs for so many services: a short calibration, the rest extrapolated.
    Size(SizeArgs),
}

impl Measurement {
    /// Whether the report is to be JSON.
    pub(super) fn wants_json(&self) -> bool {
        match self {
            Self::Beats(args) => args.load.at.own.json,
            Self::Batch(args) => args.load.at.own.json,
            Self::Register(args) => args.at.own.json,
            Self::Mixed(args) => args.load.at.own.json,
            Self::Expire(args) => args.at.own.json,
            Self::Recover(args) => args.own.json,
            Self::Ratio(args) => args.own.json,
            Self::Size(args) => args.own.json,
        }
    }
}

/// A server of our own.
#[derive(Debug, Args)]
pub(super) struct OwnArgs {
    /// Where the temporary store is made: on the filesystem that is to be measured.
    #[arg(long, value_name = "DIR", default_value = ".")]
    data_dir: PathBuf,
    /// Set any key of the server that is started, e.g. --server-set store.commit_linger_ms=0; may be
    /// repeated.
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    server_set: Vec<String>,
    /// For each connection and each answer.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    timeout: Duration,
    /// Print one JSON object instead of text.
    #[arg(long)]
    json: bool,
}

impl OwnArgs {
    pub(super) fn setup(&self, stop: Stop) -> Setup {
        Setup {
            server: Where::Own,
            directory: self.data_dir.clone(),
            settings: self.server_set.clone(),
            ca_file: None,
            token_file: None,
            timeout: self.timeout,
            stop,
            progress: Progress::new(),
        }
    }
}

/// A server of our own, or one that is there.
#[derive(Debug, Args)]
pub(super) struct AtArgs {
    /// Measure the mepulse that runs there instead of one that is started for this.
    #[arg(long, value_name = "URL", conflicts_with = "server_set")]
    url: Option<String>,
    /// Certificate authorities besides the system's.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// A bearer token, alone in a file: an operator's, because it must be good for all applications.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    #[command(flatten)]
    pub(super) own: OwnArgs,
}

impl AtArgs {
    pub(super) fn setup(&self, stop: Stop) -> Setup {
        Setup {
            server: self.url.clone().map_or(Where::Own, Where::Url),
            ca_file: self.ca_file.clone(),
            token_file: self.token_file.clone(),
            ..self.own.setup(stop)
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct ExpireArgs {
    #[command(flatten)]
    at: AtArgs,
    /// Services that do not fall silent, in the way.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = count(0, SERVICES_MAX))]
    services: usize,
    /// Services that fall silent, one after the other.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = count(1, 10_000))]
    probes: usize,
    /// Services that fall silent all at once.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = count(0, 100_000))]
    at_once: usize,
    /// Their interval in seconds; the server may raise it (liveness.min_interval_s).
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = value_parser!(u32).range(1..=3600))]
    interval: u32,
    /// The server's liveness.grace_percent, if it is not the default; a server that is started gets it.
    #[arg(long, value_name = "PERCENT", value_parser = value_parser!(u32).range(0..=1000))]
    grace_percent: Option<u32>,
    /// The server's liveness.grace_min_ms, if it is not the default; a server that is started gets it.
    #[arg(long, value_name = "MS", value_parser = value_parser!(u64).range(1..=3_600_000))]
    grace_min_ms: Option<u64>,
}

impl ExpireArgs {
    pub(super) fn setup(&self, stop: Stop) -> Setup {
        let mut setup = self.at.setup(stop);
        let percent = self.grace_percent.map(u64::from);
        for (key, value) in [("percent", percent), ("min_ms", self.grace_min_ms)] {
            setup
                .settings
                .extend(value.map(|value| format!("liveness.grace_{key}={value}")));
        }
        setup
    }

    pub(super) fn plan(&self) -> Result<ExpirePlan, BenchError> {
        let mut settings = self.at.own.server_set.iter();
        if let Some(setting) = settings.find(|it| it.trim_start().starts_with("liveness.grace_")) {
            return Err(BenchError::Usage(format!(
                "--server-set {setting}: use --grace-percent and --grace-min-ms, so that the deadlines \
                 here are the server's"
            )));
        }
        let usual = Config::default().liveness;
        Ok(ExpirePlan {
            services: self.services,
            probes: self.probes,
            at_once: self.at_once,
            interval_s: self.interval,
            grace: Grace {
                percent: self.grace_percent.unwrap_or(usual.grace_percent),
                min_ms: self.grace_min_ms.unwrap_or(usual.grace_min_ms),
            },
        })
    }
}

#[derive(Debug, Args)]
pub(super) struct RecoverArgs {
    #[command(flatten)]
    pub(super) own: OwnArgs,
    /// Services in the store.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = services())]
    services: usize,
    /// How often the server is killed.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Connections that beat until it is.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = connections())]
    connections: usize,
    /// For how long they do, each time.
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = positive)]
    duration: Duration,
}

impl RecoverArgs {
    pub(super) fn plan(&self) -> RecoverPlan {
        RecoverPlan {
            services: self.services,
            rounds: self.rounds,
            connections: self.connections,
            load: self.duration,
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct RatioArgs {
    #[command(flatten)]
    pub(super) own: OwnArgs,
    /// Services that beat.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = services())]
    services: usize,
    /// Connections; each number is measured by itself.
    #[arg(long, value_name = "N,…", default_value = "64,256", value_delimiter = ',', value_parser = connections())]
    connections: Vec<usize>,
    /// Turns of each server.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Threads that make the load.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = count(1, 256))]
    threads: usize,
    /// Of each turn; not counted.
    #[arg(long, value_name = "TIME", default_value = "500ms", value_parser = duration)]
    warm_up: Duration,
    /// Of each turn; counted.
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = positive)]
    duration: Duration,
}

impl RatioArgs {
    pub(super) fn plan(&self) -> RatioPlan {
        RatioPlan {
            services: self.services,
            connections: self.connections.clone(),
            rounds: self.rounds,
            threads: self.threads,
            warm_up: self.warm_up,
            duration: self.duration,
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct SizeArgs {
    #[command(flatten)]
    pub(super) own: OwnArgs,
    /// Services to be served.
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=i64::from(SERVICES_MAX)))]
    services: u32,
    /// Each beats once in so many seconds.
    #[arg(long, value_name = "SECONDS", value_parser = value_parser!(u32).range(1..=86_400))]
    interval: u32,
    /// The two numbers of services that are measured.
    #[arg(long, value_name = "N,N", default_value = "1000,10000", value_delimiter = ',', num_args = 1, value_parser = services())]
    measure: Vec<usize>,
    /// Of each measurement as fast as it goes; the asked rate is held for five times as long.
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = positive)]
    duration: Duration,
}

impl SizeArgs {
    pub(super) fn plan(&self) -> Result<SizePlan, BenchError> {
        match self.measure.as_slice() {
            [small, large] if small < large => Ok(SizePlan {
                services: self.services,
                interval_s: self.interval,
                measured: (*small, *large),
                duration: self.duration,
            }),
            _ => Err(BenchError::Usage(
                "--measure: two numbers of services are expected, the smaller one first".to_owned(),
            )),
        }
    }
}
