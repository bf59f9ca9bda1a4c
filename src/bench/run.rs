//! `beats`, `batch`, `register`, `mixed`: one kind of load, and what the server makes of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::Serialize;

use super::fleet::{Fleet, Names, remove_apps};
use super::load::{Pace, Plan, Running};
use super::report::{Failures, Findings, Report};
use super::site::{Setup, Site, make_room};
use super::tally::{Latency, Tally, float, per_second};
use super::usage::{Resources, Usage};
use super::work::{Batches, Beats, Mixed, Registrations, Work};
use super::{BenchError, SERVICES_PER_APP_MAX};

/// What beaten services agree on: long, so that nobody falls silent however slow the load is.
pub(super) const LONG_INTERVAL_S: u32 = 86_400;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Heartbeats one by one.
    Beats,
    /// Heartbeats of many services in one request.
    Batch {
        /// How many.
        per_request: usize,
    },
    /// New services.
    Register,
    /// 90 % beats, 5 % reads, 3 % registrations, 2 % removals.
    Mixed {
        /// Decides which comes when.
        seed: u64,
    },
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Beats => "beats",
            Self::Batch { .. } => "batch",
            Self::Register => "register",
            Self::Mixed { .. } => "mixed",
        }
    }
}

/// A run of one kind.
#[derive(Debug, Clone, Copy)]
pub struct LoadPlan {
    /// What is asked.
    pub kind: Kind,
    /// Services that beat.
    pub services: usize,
    /// Applications that they are spread over; at most a thousand services each.
    pub applications: usize,
    /// Leave on a server that is not ours what was registered, if nothing goes wrong.
    pub keep: bool,
    /// How.
    pub plan: Plan,
}

/// What a load came to.
#[derive(Debug, Serialize)]
pub struct LoadResult {
    /// `closed` or `open`.
    #[serde(rename = "loop")]
    pub pace: &'static str,
    /// Of an open loop: requests that were due in each second.
    pub asked_per_s: Option<u32>,
    /// Connections, each with one request under way at the most.
    pub connections: usize,
    /// Threads of the load.
    pub threads: usize,
    /// Services that beat.
    pub services: usize,
    /// Applications that they belong to.
    pub applications: usize,
    /// Of a batch: services in one request.
    pub per_request: Option<usize>,
    /// Of a mix: repeats its order.
    pub seed: Option<u64>,
    /// Not counted, in seconds.
    pub warm_up_s: f64,
    /// Counted, in seconds.
    pub duration_s: f64,
    /// Good answers to what was due (open loop) or under way (closed loop) in that time.
    pub answers: u64,
    /// Good answers that came in each second of it.
    pub answers_per_s: f64,
    /// Heartbeats, registrations, … in those: more than answers only for batches.
    pub entries_per_s: f64,
    /// Good answers by what was asked.
    pub answers_by_kind: BTreeMap<&'static str, u64>,
    /// Open loop: from when a request was due; closed loop: from when it was sent. Failures included.
    pub latency: Option<Latency>,
    /// CPU time that the load itself took per good answer, in microseconds: on one machine it is taken
    /// from the server.
    pub load_cpu_per_answer_us: f64,
    /// What a server of our own took.
    pub resources: Option<Resources>,
    /// Applications that were left on the server (`--keep`).
    pub kept: Vec<String>,
}

/// What was counted outside and inside.
pub(super) struct Measured {
    pub(super) tally: Tally,
    pub(super) usage: Option<(Usage, Usage)>,
    /// CPU time of the load.
    pub(super) cpu: Duration,
}

/// Runs one kind of load.
///
/// # Errors
/// [`BenchError`]. Requests of the load that fail are none: they are in the report.
pub async fn load(setup: &Setup, plan: &LoadPlan) -> Result<Report, BenchError> {
    make_room(plan.plan.connections)?;
    let site = setup.open().await?;
    let per_app = plan.services.div_ceil(plan.applications.max(1));
    if per_app > SERVICES_PER_APP_MAX as usize {
        return Err(BenchError::Usage(format!(
            "{per_app} services of one application are more than a server takes \
             ({SERVICES_PER_APP_MAX}); use more --apps"
        )));
    }
    let mut fleet = Fleet::empty(&site.target, "a", per_app);
    let guests = Names::new("g");
    let mut used = Vec::new();
    let measured = measure(setup, &site, plan, &mut fleet, guests, &mut used).await;
    used.extend_from_slice(fleet.apps());
    let kept = plan.keep && measured.is_ok();
    if !kept && !site.about.own {
        // After a failure or an interruption nobody asked for it to stay.
        let removed = remove_apps(&site.target, &used, &setup.progress).await;
        if measured.is_ok() {
            removed?;
        } else if let Err(error) = removed {
            log::warn!("{error}; some of {} are left", used.join(", "));
        }
    }
    let Measured { tally, usage, cpu } = measured?;
    let duration = plan.plan.duration;
    let workdir = site.workdir.as_ref();
    let resources = usage.zip(workdir).map(|(usage, workdir)| {
        let (answers, entries) = (tally.answers_in_time, tally.entries_in_time);
        Resources::between(usage, answers, entries, &workdir.store())
    });
    let result = LoadResult {
        pace: match plan.plan.pace {
            Pace::Closed => "closed",
            Pace::Open { .. } => "open",
        },
        asked_per_s: match plan.plan.pace {
            Pace::Closed => None,
            Pace::Open { rate_per_s } => Some(rate_per_s),
        },
        connections: plan.plan.connections,
        threads: plan.plan.threads,
        services: fleet.ids().len(),
        applications: fleet.apps().len(),
        per_request: match plan.kind {
            Kind::Batch { per_request } => Some(per_request),
            _ => None,
        },
        seed: match plan.kind {
            Kind::Mixed { seed } => Some(seed),
            _ => None,
        },
        warm_up_s: plan.plan.warm_up.as_secs_f64(),
        duration_s: duration.as_secs_f64(),
        answers: tally.answers,
        answers_per_s: per_second(tally.answers_in_time, duration),
        entries_per_s: per_second(tally.entries_in_time, duration),
        latency: tally.times.summary(),
        answers_by_kind: tally.by_kind,
        load_cpu_per_answer_us: cpu.as_secs_f64() * 1e6 / float(tally.answers_in_time.max(1)),
        resources,
        kept: match kept && !site.about.own {
            true => used,
            false => Vec::new(),
        },
    };
    let failures = Failures::new(tally.failures, tally.answers);
    site.close(plan.kind.name(), Findings::Load(Box::new(result)), failures)
}

/// Registers whom it takes, and loads. The applications that it uses besides the fleet's are in `used`,
/// also if it fails.
async fn measure(
    setup: &Setup,
    site: &Site,
    plan: &LoadPlan,
    fleet: &mut Fleet,
    guests: Names,
    used: &mut Vec<String>,
) -> Result<Measured, BenchError> {
    if plan.kind != Kind::Register {
        let connections = plan.plan.connections;
        fleet
            .grow(
                plan.services,
                LONG_INTERVAL_S,
                connections,
                &setup.stop,
                &setup.progress,
            )
            .await?;
    }
    let target = &site.target;
    match plan.kind {
        Kind::Beats => {
            let work: Arc<dyn Work> = Arc::new(Beats::new(target, fleet));
            drive(setup, site, &work, plan.plan).await
        }
        Kind::Batch { per_request } => {
            let work: Arc<dyn Work> = Arc::new(Batches::new(target, fleet, per_request));
            drive(setup, site, &work, plan.plan).await
        }
        Kind::Register => {
            let registrations = Arc::new(Registrations::new(target, guests, LONG_INTERVAL_S));
            let work: Arc<dyn Work> = registrations.clone();
            let measured = drive(setup, site, &work, plan.plan).await;
            used.extend(registrations.apps());
            measured
        }
        Kind::Mixed { seed } => {
            let registrations = Registrations::new(target, guests, LONG_INTERVAL_S);
            let mixed = Arc::new(Mixed::new(target, fleet, registrations, seed));
            let work: Arc<dyn Work> = mixed.clone();
            let measured = drive(setup, site, &work, plan.plan).await;
            used.extend(mixed.guest_apps());
            measured
        }
    }
}

/// Makes load on the site's own target.
pub(super) async fn drive(
    setup: &Setup,
    site: &Site,
    work: &Arc<dyn Work>,
    plan: Plan,
) -> Result<Measured, BenchError> {
    let running = Running::prepare(&site.target, work, plan, &setup.stop).await?;
    let started = running.go();
    let until = async |at: Duration, doing: &str| {
        let mut before = (Duration::ZERO, 0);
        while let Some(left) = at.checked_sub(started.elapsed()).filter(|d| !d.is_zero()) {
            let pause = tokio::time::sleep(left.min(Duration::from_secs(1)));
            setup.stop.unless(pause).await?;
            let (now, answered) = (started.elapsed(), running.answered.load(Ordering::Relaxed));
            let rate = per_second(answered - before.1, now.saturating_sub(before.0));
            before = (now, answered);
            let (now, at) = (now.as_secs(), at.as_secs());
            setup
                .progress
                .say(|| format!("{doing}: {now} of {at} s, {rate:.0} answers/s"));
        }
        Ok::<_, BenchError>(())
    };
    until(plan.warm_up, "warming up").await?;
    let own_cpu = || Usage::of(std::process::id()).map_or(Duration::ZERO, |usage| usage.cpu);
    let (before, cpu_before) = (site.usage(), own_cpu());
    until(plan.warm_up + plan.duration, "measuring").await?;
    let (after, cpu_after) = (site.usage(), own_cpu());
    let tally = running.finish(&setup.stop).await?;
    Ok(Measured {
        tally,
        usage: before.zip(after),
        cpu: cpu_after.saturating_sub(cpu_before),
    })
}
