//! `size`: what this machine needs for so many services that beat so often.
//!
//! A short run with two modest numbers of services shows what one beat and one service cost here; the
//! rest is arithmetic, and is said to be. Memory and disk are looked at under the rate that is asked
//! for, on a fresh process: after load as fast as it goes they tell of that load, not of the services.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::BenchError;
use super::SERVICES_PER_APP_MAX;
use super::fleet::Fleet;
use super::load::{Pace, Plan};
use super::recover::{own_only, restart};
use super::report::{Failures, Findings, Report};
use super::run::{LONG_INTERVAL_S, Measured, drive};
use super::site::{Setup, Site, make_room};
use super::tally::{Tally, float, per_second, whole};
use super::usage::Usage;
use super::work::{Batches, Beats, Work};

/// Connections of the load.
const CONNECTIONS: usize = 64;
/// Services in one batch heartbeat.
const PER_REQUEST: usize = 100;
/// Not counted.
const WARM_UP: Duration = Duration::from_millis(300);
/// The asked rate is held for so many times the length of the other measurements: what is written for a
/// beat differs several-fold between short windows.
const STEADY: u32 = 5;
/// A machine that is busier than this share of what it can do has nothing left for bad moments.
const SHARE_MAX: f64 = 0.5;

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub struct SizePlan {
    /// Services to be served.
    pub services: u32,
    /// Each beats once in so many seconds.
    pub interval_s: u32,
    /// The two numbers of services that are measured, the smaller one first.
    pub measured: (usize, usize),
    /// Of each of the measurements.
    pub duration: Duration,
}

impl SizePlan {
    /// Heartbeats in each second.
    fn beats_per_s(&self) -> f64 {
        f64::from(self.services) / f64::from(self.interval_s.max(1))
    }
}

/// What one number of services took. Measured.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Calibration {
    /// How many.
    pub services: usize,
    /// Heartbeats per second, one by one.
    pub beats_per_s: f64,
    /// Heartbeats per second, a hundred in each request.
    pub batch_beats_per_s: f64,
    /// From the start of the process to the first beat, after `kill -9`, in milliseconds.
    pub start_ms: f64,
    /// The heartbeats per second, one by one, that the rest was measured under: what is asked for, or half
    /// of what this machine can do.
    pub steady_per_s: u32,
    /// Resident memory then, in bytes.
    pub rss_bytes: u64,
    /// Handed to the disk for each of them, in bytes. At more per second they share commits, and each
    /// takes less.
    pub written_per_beat_bytes: f64,
}

/// What is needed. Computed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Need {
    /// Heartbeats in each second.
    pub beats_per_s: f64,
    /// Their share of what this machine can do, one by one: 1 is all of it.
    pub share: f64,
    /// The same with batch heartbeats.
    pub batch_share: f64,
    /// Resident memory in bytes.
    pub rss_bytes: u64,
    /// Handed to the disk in a day, in bytes: what wears flash out. Rough, an order of magnitude: it differs
    /// several-fold with the length of the measurement.
    pub written_bytes_per_day: u64,
    /// From a start to the first beat, in milliseconds.
    pub start_ms: u64,
    /// Whether this machine has half of itself left, beating one by one.
    pub fits: bool,
    /// The same with batch heartbeats.
    pub batch_fits: bool,
}

/// What a machine needs, and what that rests on.
#[derive(Debug, Serialize)]
pub struct SizeResult {
    /// Services to be served.
    pub services: u32,
    /// Each beats once in so many seconds.
    pub interval_s: u32,
    /// Measured here, just now.
    pub measured: [Calibration; 2],
    /// Extrapolated from there.
    pub extrapolated: Need,
}

/// Measures, and computes what is needed.
///
/// # Errors
/// [`BenchError`]; also for a server that is not ours.
pub async fn size(setup: &Setup, plan: &SizePlan) -> Result<Report, BenchError> {
    own_only(setup)?;
    make_room(CONNECTIONS)?;
    let mut site = setup.open().await?;
    let mut fleet = Fleet::empty(&site.target, "a", SERVICES_PER_APP_MAX as usize);
    let mut all = Tally::new()?;
    let small = calibrate(
        setup,
        &mut site,
        &mut fleet,
        plan.measured.0,
        plan,
        &mut all,
    )
    .await?;
    let large = calibrate(
        setup,
        &mut site,
        &mut fleet,
        plan.measured.1,
        plan,
        &mut all,
    )
    .await?;
    let result = SizeResult {
        services: plan.services,
        interval_s: plan.interval_s,
        measured: [small, large],
        extrapolated: need(plan, small, large),
    };
    let failures = Failures::new(all.failures, all.answers);
    site.close("size", Findings::Size(Box::new(result)), failures)
}

async fn calibrate(
    setup: &Setup,
    site: &mut Site,
    fleet: &mut Fleet,
    services: usize,
    plan: &SizePlan,
    all: &mut Tally,
) -> Result<Calibration, BenchError> {
    let (stop, progress) = (&setup.stop, &setup.progress);
    // After a restart the server is somewhere else.
    fleet.move_to(&site.target);
    fleet
        .grow(services, LONG_INTERVAL_S, CONNECTIONS, stop, progress)
        .await?;
    let load = |pace| Plan {
        pace,
        connections: CONNECTIONS,
        threads: 1,
        warm_up: WARM_UP,
        duration: plan.duration,
    };
    let work: Arc<dyn Work> = Arc::new(Beats::new(&site.target, fleet));
    let singles = drive(setup, site, &work, load(Pace::Closed)).await?.tally;
    let work: Arc<dyn Work> = Arc::new(Batches::new(&site.target, fleet, PER_REQUEST));
    let batches = drive(setup, site, &work, load(Pace::Closed)).await?.tally;
    if let Some(process) = site.process.take() {
        process.kill().await?;
    }
    let back = restart(setup, site, fleet).await?;
    let beats_per_s = per_second(singles.entries_in_time, plan.duration);
    let rate_per_s = plan.beats_per_s().min(beats_per_s * SHARE_MAX).max(1.0);
    let rate_per_s = u32::try_from(whole(rate_per_s)).unwrap_or(u32::MAX);
    let work: Arc<dyn Work> = Arc::new(Beats::new(&site.target, fleet));
    let steady = Plan {
        duration: plan.duration * STEADY,
        ..load(Pace::Open { rate_per_s })
    };
    let Measured { tally, usage, .. } = drive(setup, site, &work, steady).await?;
    let beats = tally.answers_in_time.max(1);
    for tally in [&singles, &batches, &tally] {
        all.add(tally);
    }
    let written = |(before, after): (Usage, Usage)| {
        float(after.written_bytes.saturating_sub(before.written_bytes)) / float(beats)
    };
    Ok(Calibration {
        services,
        beats_per_s,
        batch_beats_per_s: per_second(batches.entries_in_time, plan.duration),
        start_ms: back.first_beat_ms,
        steady_per_s: rate_per_s,
        rss_bytes: usage.map_or(0, |(_, after)| after.rss_bytes),
        written_per_beat_bytes: usage.map_or(0.0, written),
    })
}

/// The line through two measured points, where `services` are. It never falls: what costs less with
/// more services was not the services.
fn line((x0, y0): (usize, f64), (x1, y1): (usize, f64), services: u32) -> f64 {
    let x = |count: usize| float(count as u64);
    let slope = match x1 > x0 {
        true => ((y1 - y0) / (x(x1) - x(x0))).max(0.0),
        false => 0.0,
    };
    (y1 + slope * (f64::from(services) - x(x1))).max(0.0)
}

/// What is needed, by arithmetic.
fn need(plan: &SizePlan, small: Calibration, large: Calibration) -> Need {
    let beats_per_s = plan.beats_per_s();
    let share = |capacity_per_s: f64| match capacity_per_s > 0.0 {
        true => beats_per_s / capacity_per_s,
        false => f64::MAX,
    };
    let at = |of: fn(&Calibration) -> f64| {
        let point = |measured: &Calibration| (measured.services, of(measured));
        whole(line(point(&small), point(&large), plan.services))
    };
    let (share, batch_share) = (share(large.beats_per_s), share(large.batch_beats_per_s));
    Need {
        beats_per_s,
        share,
        batch_share,
        rss_bytes: at(|measured| float(measured.rss_bytes)),
        written_bytes_per_day: whole(large.written_per_beat_bytes * beats_per_s * 86_400.0),
        start_ms: at(|measured| measured.start_ms),
        fits: share <= SHARE_MAX,
        batch_fits: batch_share <= SHARE_MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: SizePlan = SizePlan {
        services: 100_000,
        interval_s: 10,
        measured: (1_000, 5_000),
        duration: Duration::from_secs(1),
    };

    fn measured(services: usize, rss_bytes: u64, start_ms: f64) -> Calibration {
        Calibration {
            services,
            beats_per_s: 40_000.0,
            batch_beats_per_s: 100_000.0,
            rss_bytes,
            start_ms,
            steady_per_s: 1_000,
            written_per_beat_bytes: 50.0,
        }
    }

    #[test]
    fn what_is_needed_follows_from_two_points() {
        let small = measured(1_000, 30_000_000, 100.0);
        let large = measured(5_000, 34_000_000, 120.0);
        let found = need(&PLAN, small, large);
        assert_eq!(found.beats_per_s, 10_000.0);
        assert_eq!((found.share, found.batch_share), (0.25, 0.1));
        // A thousand bytes and 5 µs for each service.
        assert_eq!(found.rss_bytes, 129_000_000);
        assert_eq!(found.start_ms, 595);
        assert_eq!(found.written_bytes_per_day, 43_200_000_000);
        assert!(found.fits && found.batch_fits);
        let busy = SizePlan {
            interval_s: 1,
            ..PLAN
        };
        let found = need(&busy, small, large);
        assert!(!found.fits && !found.batch_fits);
    }

    #[test]
    fn noise_is_no_gain() {
        let small = measured(1_000, 50_000_000, 300.0);
        let large = measured(5_000, 40_000_000, 200.0);
        let found = need(&PLAN, small, large);
        assert_eq!((found.rss_bytes, found.start_ms), (40_000_000, 200));
        let nothing = Calibration {
            beats_per_s: 0.0,
            ..large
        };
        assert!(!need(&PLAN, nothing, nothing).fits);
    }
}
