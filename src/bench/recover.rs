//! `recover`: how long nobody is heard after `kill -9`.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::disk;
use super::fleet::{Fleet, ask};
use super::link::Target;
use super::load::{Pace, Plan, Running};
use super::own::Process;
use super::report::{Failures, Findings, Report};
use super::run::LONG_INTERVAL_S;
use super::site::{Setup, Site, Where, make_room};
use super::tally::median;
use super::work::{BEAT, Beats, Work};
use super::{BenchError, SERVICES_PER_APP_MAX};
use crate::wire::problem::refusal;

/// What is killed, and how often.
#[derive(Debug, Clone, Copy)]
pub struct RecoverPlan {
    /// Services in the store.
    pub services: usize,
    /// How often the server is killed.
    pub rounds: u32,
    /// Connections that beat until it is.
    pub connections: usize,
    /// For how long they do, each time.
    pub load: Duration,
}

/// How long it took to come back.
#[derive(Debug, Serialize)]
pub struct RecoverResult {
    /// Services in the store.
    pub services: usize,
    /// How often the server was killed.
    pub rounds: u32,
    /// Connections that beat until it was.
    pub connections: usize,
    /// Beats of all rounds before the kills.
    pub beats: u64,
    /// From the start of the process to its start-up line, each round, in milliseconds.
    pub listening_ms: Vec<f64>,
    /// From the start of the process to the first beat that was accepted, each round, in milliseconds.
    pub first_beat_ms: Vec<f64>,
    /// The one in the middle of those.
    pub first_beat_median_ms: f64,
    /// The longest of those.
    pub first_beat_max_ms: f64,
    /// The store's directory at the end, in bytes.
    pub store_bytes: u64,
}

/// Kills a server of our own under load, and measures how long it takes to be back.
///
/// # Errors
/// [`BenchError`]; also for a server that is not ours.
pub async fn recover(setup: &Setup, plan: &RecoverPlan) -> Result<Report, BenchError> {
    own_only(setup)?;
    make_room(plan.connections)?;
    let mut site = setup.open().await?;
    let mut fleet = Fleet::empty(&site.target, "a", SERVICES_PER_APP_MAX as usize);
    let (stop, progress) = (&setup.stop, &setup.progress);
    fleet
        .grow(
            plan.services,
            LONG_INTERVAL_S,
            plan.connections,
            stop,
            progress,
        )
        .await?;
    let mut result = RecoverResult {
        services: plan.services,
        rounds: plan.rounds,
        connections: plan.connections,
        beats: 0,
        listening_ms: Vec::new(),
        first_beat_ms: Vec::new(),
        first_beat_median_ms: 0.0,
        first_beat_max_ms: 0.0,
        store_bytes: 0,
    };
    for round in 0..plan.rounds {
        progress.count("killing", u64::from(round), u64::from(plan.rounds));
        result.beats += beat_and_kill(setup, &mut site, &fleet, plan).await?;
        let back = restart(setup, &mut site, &fleet).await?;
        result.listening_ms.push(back.listening_ms);
        result.first_beat_ms.push(back.first_beat_ms);
    }
    result.first_beat_median_ms = median(&result.first_beat_ms);
    result.first_beat_max_ms = result.first_beat_ms.iter().copied().fold(0.0, f64::max);
    let workdir = site.workdir.as_ref();
    result.store_bytes = workdir.map_or(0, |workdir| disk::size_bytes(&workdir.store()));
    let failures = Failures::new(Default::default(), u64::from(plan.rounds));
    site.close("recover", Findings::Recover(Box::new(result)), failures)
}

/// What ends servers or puts others beside them is not for one that others use.
pub(super) fn own_only(setup: &Setup) -> Result<(), BenchError> {
    match setup.server {
        Where::Own => Ok(()),
        Where::Url(_) => Err(not_own()),
    }
}

/// See [`own_only`].
pub(super) fn not_own() -> BenchError {
    BenchError::Usage("this is measured on a server that is started for it, not on others".into())
}

/// Load, and `kill -9` in the middle of it; how many beats there were.
async fn beat_and_kill(
    setup: &Setup,
    site: &mut Site,
    fleet: &Fleet,
    plan: &RecoverPlan,
) -> Result<u64, BenchError> {
    let work: Arc<dyn Work> = Arc::new(Beats::new(&site.target, fleet));
    let load = Plan {
        pace: Pace::Closed,
        connections: plan.connections,
        threads: 1,
        warm_up: Duration::ZERO,
        // It is cut before.
        duration: plan.load * 10 + Duration::from_secs(60),
    };
    let running = Running::prepare(&site.target, &work, load, &setup.stop).await?;
    running.go();
    setup.stop.unless(tokio::time::sleep(plan.load)).await?;
    if let Some(process) = site.process.take() {
        process.kill().await?;
    }
    // Those that were under way are lost, as they should be.
    Ok(running.cut()?.answers)
}

/// How long a start took, in milliseconds.
pub(super) struct Back {
    pub(super) listening_ms: f64,
    pub(super) first_beat_ms: f64,
}

/// Starts the server again on its store, and beats until it says yes.
pub(super) async fn restart(
    setup: &Setup,
    site: &mut Site,
    fleet: &Fleet,
) -> Result<Back, BenchError> {
    let Some(workdir) = &site.workdir else {
        return Err(not_own());
    };
    let process = Process::serve(workdir, &setup.settings, &setup.stop).await?;
    let started = process.started;
    let listening = started.elapsed();
    let target: Arc<Target> = Arc::new(setup.target(&process.url)?);
    site.process = Some(process);
    site.target = target.clone();
    let what = "the first beat after a restart";
    let (mut link, mut body) = (None, Vec::new());
    let request = target.request("PATCH", &fleet.liveness_of(0), BEAT);
    let beat = ask(&target, &mut link, &request, &mut body, what);
    let status = setup.stop.unless(beat).await??;
    if !matches!(status, 200 | 204) {
        return Err(BenchError::refused(what, refusal(status, &body)));
    }
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    Ok(Back {
        listening_ms: ms(listening),
        first_beat_ms: ms(started.elapsed()),
    })
}
