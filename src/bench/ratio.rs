//! `ratio`: what durability costs. The same beats for a server of our own and for the baseline, by turns,
//! so that whatever else this machine does meets both.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::BenchError;
use super::SERVICES_PER_APP_MAX;
use super::fleet::Fleet;
use super::link::Target;
use super::load::{Pace, Plan, Running};
use super::own::Process;
use super::recover::{not_own, own_only};
use super::report::{Failures, Findings, Report};
use super::run::LONG_INTERVAL_S;
use super::site::{Setup, Site, make_room};
use super::tally::{Tally, median, per_second};
use super::work::{Beats, Work};

/// What is compared.
#[derive(Debug, Clone)]
pub struct RatioPlan {
    /// Services that beat.
    pub services: usize,
    /// Each number of connections is measured by itself.
    pub connections: Vec<usize>,
    /// Turns of each server.
    pub rounds: u32,
    /// Threads of the load.
    pub threads: usize,
    /// Of each turn; not counted.
    pub warm_up: Duration,
    /// Of each turn; counted.
    pub duration: Duration,
}

/// What durability costs.
#[derive(Debug, Serialize)]
pub struct RatioResult {
    /// Services that beat.
    pub services: usize,
    /// Turns of each server.
    pub rounds: u32,
    /// Of each turn, not counted, in seconds.
    pub warm_up_s: f64,
    /// Of each turn, counted, in seconds.
    pub duration_s: f64,
    /// One for each number of connections.
    pub rows: Vec<RatioRow>,
}

/// Both servers with the same load.
#[derive(Debug, Clone, Serialize)]
pub struct RatioRow {
    /// Connections.
    pub connections: usize,
    /// Beats per second, acknowledged durably, turn by turn.
    pub mepulse_per_s: Vec<f64>,
    /// Beats per second of the same route with nothing behind it, turn by turn.
    pub baseline_per_s: Vec<f64>,
    /// The median of mepulse.
    pub mepulse_median_per_s: f64,
    /// The median of the baseline.
    pub baseline_median_per_s: f64,
    /// Of the first to the second: 1 would mean that durability costs nothing.
    pub ratio: f64,
}

/// Compares a server of our own with the baseline.
///
/// # Errors
/// [`BenchError`]; also for a server that is not ours.
pub async fn ratio(setup: &Setup, plan: &RatioPlan) -> Result<Report, BenchError> {
    own_only(setup)?;
    make_room(plan.connections.iter().copied().max().unwrap_or(0))?;
    let site = setup.open().await?;
    let mut all = Tally::new()?;
    let result = compare(setup, &site, plan, &mut all).await?;
    let failures = Failures::new(all.failures, all.answers);
    site.close("ratio", Findings::Ratio(Box::new(result)), failures)
}

async fn compare(
    setup: &Setup,
    site: &Site,
    plan: &RatioPlan,
    all: &mut Tally,
) -> Result<RatioResult, BenchError> {
    let mut fleet = Fleet::empty(&site.target, "a", SERVICES_PER_APP_MAX as usize);
    let (stop, progress) = (&setup.stop, &setup.progress);
    fleet
        .grow(plan.services, LONG_INTERVAL_S, 64, stop, progress)
        .await?;
    let Some(workdir) = &site.workdir else {
        return Err(not_own());
    };
    let baseline = Process::baseline(workdir, stop).await?;
    let baseline_target = Arc::new(setup.target(&baseline.url)?);
    let mut rows = Vec::new();
    for connections in &plan.connections {
        let load = Plan {
            pace: Pace::Closed,
            connections: *connections,
            threads: plan.threads,
            warm_up: plan.warm_up,
            duration: plan.duration,
        };
        let (mut mepulse_per_s, mut baseline_per_s) = (Vec::new(), Vec::new());
        for round in 0..plan.rounds {
            for (target, rates) in [
                (&site.target, &mut mepulse_per_s),
                (&baseline_target, &mut baseline_per_s),
            ] {
                progress.say(|| format!("{connections} connections, round {}", round + 1));
                let tally = turn(setup, target, &fleet, load).await?;
                rates.push(per_second(tally.answers_in_time, plan.duration));
                all.add(&tally);
            }
        }
        rows.push(row(*connections, mepulse_per_s, baseline_per_s));
    }
    Ok(RatioResult {
        services: plan.services,
        rounds: plan.rounds,
        warm_up_s: plan.warm_up.as_secs_f64(),
        duration_s: plan.duration.as_secs_f64(),
        rows,
    })
}

/// One server's turn.
async fn turn(
    setup: &Setup,
    target: &Arc<Target>,
    fleet: &Fleet,
    load: Plan,
) -> Result<Tally, BenchError> {
    // The very same requests: the baseline does not mind whose services they are.
    let work: Arc<dyn Work> = Arc::new(Beats::new(target, fleet));
    let running = Running::prepare(target, &work, load, &setup.stop).await?;
    running.go();
    running.finish(&setup.stop).await
}

fn row(connections: usize, mepulse_per_s: Vec<f64>, baseline_per_s: Vec<f64>) -> RatioRow {
    let mepulse = median(&mepulse_per_s);
    let baseline = median(&baseline_per_s);
    RatioRow {
        connections,
        mepulse_per_s,
        baseline_per_s,
        mepulse_median_per_s: mepulse,
        baseline_median_per_s: baseline,
        ratio: match baseline > 0.0 {
            true => mepulse / baseline,
            false => 0.0,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_is_that_of_the_medians() {
        let found = row(64, vec![50.0, 10.0, 60.0], vec![100.0, 90.0, 400.0]);
        assert_eq!(found.mepulse_median_per_s, 50.0);
        assert_eq!(found.baseline_median_per_s, 100.0);
        assert_eq!(found.ratio, 0.5);
        assert_eq!(row(1, vec![1.0], vec![]).ratio, 0.0);
    }
}
