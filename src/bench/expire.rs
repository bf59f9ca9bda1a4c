//! `expire`: how long after its deadline a silent service is declared SUSPENDED, seen from outside.

mod silence;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use serde::Serialize;

use self::silence::{CLIENTS, Due, Watch};
use super::fleet::{Fleet, Id};
use super::report::{Failures, Findings, Report};
use super::run::LONG_INTERVAL_S;
use super::site::{Setup, Site};
use super::stream;
use super::tally::{Failed, Latency, Times};
use super::{BenchError, SERVICES_PER_APP_MAX};
use crate::clock::{Stopwatch, wall_now};

/// Deadlines count in whole milliseconds: only a verdict that is earlier than this is too early.
const EARLY: Duration = Duration::from_millis(5);
/// Services that are to fall silent at once must all be registered before the first of them does.
/// Slow machines register so many per second.
const REGISTERED_PER_S: u32 = 500;

/// The server's grace: what its configuration says of it.
#[derive(Debug, Clone, Copy)]
pub struct Grace {
    /// `liveness.grace_percent`
    pub percent: u32,
    /// `liveness.grace_min_ms`
    pub min_ms: u64,
}

impl Grace {
    fn deadline(self, interval_s: u32) -> Duration {
        let interval_ms = u64::from(interval_s) * 1000;
        let grace_ms = (interval_ms * u64::from(self.percent) / 100).max(self.min_ms);
        Duration::from_millis(interval_ms + grace_ms)
    }
}

/// What is to fall silent.
#[derive(Debug, Clone, Copy)]
pub struct ExpirePlan {
    /// Services that do not: with long intervals, in the way.
    pub services: usize,
    /// Services that do, one after the other.
    pub probes: usize,
    /// Services that do, all in one instant.
    pub at_once: usize,
    /// The interval in seconds; the server may raise it.
    pub interval_s: u32,
    /// As the server has it.
    pub grace: Grace,
}

/// How late verdicts were.
#[derive(Debug, Serialize)]
pub struct ExpireResult {
    /// Services that went on.
    pub services: usize,
    /// Services that fell silent, one after the other.
    pub probes: usize,
    /// Their interval in seconds, as the server agreed.
    pub interval_s: u32,
    /// The server's grace, in percent of the interval.
    pub grace_percent: u32,
    /// The server's grace, at least, in milliseconds.
    pub grace_min_ms: u64,
    /// Where the deadline is counted from: `server-timestamp` of the last beat (the server is on this
    /// machine), or `local-send` (what the beat took to get there is part of the lag).
    pub due_from: &'static str,
    /// From the deadline to the event on the stream.
    pub lag: Option<Latency>,
    /// Services that fell silent in one instant.
    pub at_once: usize,
    /// Their interval in seconds, as the server agreed.
    pub at_once_interval_s: u32,
    /// From their deadline to the event on the stream; the last one is the longest.
    pub at_once_lag: Option<Latency>,
}

/// Measures how late verdicts are.
///
/// # Errors
/// [`BenchError`]. Verdicts that are early or do not come are none: they are in the report.
pub async fn expire(setup: &Setup, plan: &ExpirePlan) -> Result<Report, BenchError> {
    let site = setup.open().await?;
    let per_app = SERVICES_PER_APP_MAX as usize;
    let fleet = |what| Fleet::empty(&site.target, what, per_app);
    let mut fleets = [fleet("quiet"), fleet("probe"), fleet("crowd")];
    let measured = measure(setup, &site, plan, &mut fleets).await;
    if !site.about.own {
        for fleet in &fleets {
            let removed = fleet.remove(&setup.progress).await;
            if measured.is_ok() {
                removed?;
            } else if let Err(error) = removed {
                log::warn!("{error}");
            }
        }
    }
    let (result, failures) = measured?;
    site.close("expire", Findings::Expire(Box::new(result)), failures)
}

async fn measure(
    setup: &Setup,
    site: &Site,
    plan: &ExpirePlan,
    fleets: &mut [Fleet; 3],
) -> Result<(ExpireResult, Failures), BenchError> {
    let [quiet, probes, crowd] = fleets;
    let (stop, progress) = (&setup.stop, &setup.progress);
    quiet
        .grow(plan.services, LONG_INTERVAL_S, CLIENTS, stop, progress)
        .await?;
    let watch = Watch {
        site,
        clock: Stopwatch::start(),
        wall_ns: wall_now().as_ns(),
        server_time: site.about.own || site.target.is_loopback(),
        grace: plan.grace,
    };
    let mut stream = stop
        .unless(stream::follow(&site.target, watch.clock))
        .await??;
    let probe_due = Due::none();
    watch.probes(setup, plan, probes, &probe_due).await?;
    let crowd_due = Due::none();
    if plan.at_once > 0 {
        let interval_s = plan
            .interval_s
            .max(u32::try_from(plan.at_once).unwrap_or(u32::MAX) / REGISTERED_PER_S + 2);
        let registering = Stopwatch::start();
        crowd
            .grow(plan.at_once, interval_s, 8 * CLIENTS, stop, progress)
            .await?;
        if registering.elapsed() >= Duration::from_secs(u64::from(interval_s)) {
            return Err(BenchError::Usage(format!(
                "--at-once {}: registering them took longer than their interval of {interval_s} s; use \
                 a longer --interval or fewer services",
                plan.at_once
            )));
        }
        watch.silence_at_once(setup, crowd, &crowd_due).await?;
    }
    let (probe_at, crowd_at) = (probe_due.at.into_inner(), crowd_due.at.into_inner());
    let heard = watch
        .listen(setup, &mut stream, &[&probe_at, &crowd_at])
        .await?;
    let mut failures = BTreeMap::new();
    let lag = lags(&probe_at, &heard, &mut failures)?;
    let at_once_lag = lags(&crowd_at, &heard, &mut failures)?;
    let good = [&lag, &at_once_lag];
    let good = good
        .iter()
        .map(|lag| lag.as_ref().map_or(0, |lag| lag.count));
    let failures = Failures::new(failures, good.sum());
    let result = ExpireResult {
        services: plan.services,
        probes: plan.probes,
        interval_s: probe_due.interval_s.get(),
        grace_percent: plan.grace.percent,
        grace_min_ms: plan.grace.min_ms,
        due_from: match watch.server_time {
            true => "server-timestamp",
            false => "local-send",
        },
        lag,
        at_once: plan.at_once,
        at_once_interval_s: crowd_due.interval_s.get(),
        at_once_lag,
    };
    Ok((result, failures))
}

/// How late they were; those that were early or did not come are failures.
fn lags(
    due: &HashMap<Id, Duration>,
    heard: &HashMap<Id, Duration>,
    failures: &mut BTreeMap<String, Failed>,
) -> Result<Option<Latency>, BenchError> {
    let mut times = Times::new()?;
    for (id, at) in due {
        let kind = match heard.get(id) {
            None => "no verdict",
            Some(heard) if *heard + EARLY < *at => "early verdict",
            Some(heard) => {
                times.record(heard.saturating_sub(*at));
                continue;
            }
        };
        let failed = failures.entry(kind.to_owned()).or_insert_with(|| Failed {
            count: 0,
            example: format!("service {}", String::from_utf8_lossy(id)),
        });
        failed.count += 1;
    }
    Ok(times.summary())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_early_or_missing_is_a_failure() {
        let ms = Duration::from_millis;
        let grace = Grace {
            percent: 20,
            min_ms: 2000,
        };
        assert_eq!(
            (grace.deadline(5), grace.deadline(60)),
            (ms(7000), ms(72_000))
        );
        let due: HashMap<Id, Duration> = (0..4_u8).map(|n| ([n; 36], ms(7000))).collect();
        let heard = HashMap::from([
            ([0; 36], ms(7100)),
            ([1; 36], ms(6999)),
            ([2; 36], ms(6000)),
        ]);
        let mut failures = BTreeMap::new();
        let lag = lags(&due, &heard, &mut failures).unwrap().unwrap();
        assert_eq!((lag.count, lag.p50_us), (2, 0));
        assert_eq!(failures["early verdict"].count, 1);
        assert_eq!(failures["no verdict"].count, 1);
    }
}
