//! What can be typed behind `mepulse bench beats`, `batch`, `register` and `mixed`.

use std::time::Duration;

use clap::{Args, value_parser};

use super::AtArgs;
use super::value::{connections, count, duration, positive, services};
use crate::bench::{BenchError, Kind, LoadPlan, Pace, Plan, RATE_PER_S_MAX, SERVICES_PER_APP_MAX};

#[derive(Debug, Args)]
pub(in crate::cli::bench) struct LoadArgs {
    #[command(flatten)]
    pub(in crate::cli::bench) at: AtArgs,
    /// Connections, each with one request under way at the most.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = connections())]
    connections: usize,
    /// Requests per second, due whatever becomes of those before them: for latency. Without it each
    /// connection asks again as soon as it is answered: for capacity.
    #[arg(long, value_name = "PER_S", value_parser = value_parser!(u32).range(1..=i64::from(RATE_PER_S_MAX)))]
    rate: Option<u32>,
    /// Threads that make the load; more than one only if it is not the server that is busy.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = count(1, 256))]
    threads: usize,
    /// Not counted, before what is: 500ms, 5s, 1m.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration)]
    warm_up: Duration,
    /// What is counted.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = positive)]
    duration: Duration,
    /// Leave on the server at --url what was registered.
    #[arg(long)]
    keep: bool,
}

impl LoadArgs {
    fn of(&self, kind: Kind, fleet: Option<&FleetArgs>) -> Result<LoadPlan, BenchError> {
        let services = fleet.map_or(0, |fleet| fleet.services);
        let least = services.div_ceil(SERVICES_PER_APP_MAX as usize);
        let applications = fleet.and_then(|fleet| fleet.apps).unwrap_or(least);
        if applications > services || applications < least {
            return Err(BenchError::Usage(format!(
                "--apps {applications}: {services} services need {least} to {services} applications"
            )));
        }
        Ok(LoadPlan {
            kind,
            services,
            applications,
            keep: self.keep,
            plan: Plan {
                pace: match self.rate {
                    None => Pace::Closed,
                    Some(rate_per_s) => Pace::Open { rate_per_s },
                },
                connections: self.connections,
                threads: self.threads,
                warm_up: self.warm_up,
                duration: self.duration,
            },
        })
    }

    /// Of registrations: nobody beats.
    pub(in crate::cli::bench) fn plan(&self) -> Result<LoadPlan, BenchError> {
        self.of(Kind::Register, None)
    }
}

/// Who beats.
#[derive(Debug, Args)]
struct FleetArgs {
    /// Services that beat, in turn.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = services())]
    services: usize,
    /// Applications that they are spread over [default: one for each thousand].
    #[arg(long, value_name = "N", value_parser = services())]
    apps: Option<usize>,
}

#[derive(Debug, Args)]
pub(in crate::cli::bench) struct BeatsArgs {
    #[command(flatten)]
    pub(in crate::cli::bench) load: LoadArgs,
    #[command(flatten)]
    fleet: FleetArgs,
}

impl BeatsArgs {
    pub(in crate::cli::bench) fn plan(&self) -> Result<LoadPlan, BenchError> {
        self.load.of(Kind::Beats, Some(&self.fleet))
    }
}

#[derive(Debug, Args)]
pub(in crate::cli::bench) struct BatchArgs {
    #[command(flatten)]
    pub(in crate::cli::bench) load: LoadArgs,
    #[command(flatten)]
    fleet: FleetArgs,
    /// Services in one request.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = count(1, SERVICES_PER_APP_MAX))]
    per_request: usize,
}

impl BatchArgs {
    pub(in crate::cli::bench) fn plan(&self) -> Result<LoadPlan, BenchError> {
        let per_request = self.per_request;
        self.load.of(Kind::Batch { per_request }, Some(&self.fleet))
    }
}

#[derive(Debug, Args)]
pub(in crate::cli::bench) struct MixedArgs {
    #[command(flatten)]
    pub(in crate::cli::bench) load: LoadArgs,
    #[command(flatten)]
    fleet: FleetArgs,
    /// Repeats the order of an earlier run, whose report has it.
    #[arg(long, value_name = "SEED")]
    seed: Option<u64>,
}

impl MixedArgs {
    pub(in crate::cli::bench) fn plan(&self) -> Result<LoadPlan, BenchError> {
        let seed = self.seed.unwrap_or_else(|| fastrand::u64(..));
        self.load.of(Kind::Mixed { seed }, Some(&self.fleet))
    }
}
