//! Falls silent for services, knows when each of them is due, and listens for the verdicts.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::time::Duration;

use futures_util::future::join_all;
use serde::Deserialize;
use tokio::sync::mpsc;

use super::{ExpirePlan, Grace};
use crate::bench::BenchError;
use crate::bench::fleet::{Fleet, Id, ask};
use crate::bench::site::{Setup, Site};
use crate::bench::stream::Verdict;
use crate::bench::work::{BEAT, batch, batch_good};
use crate::clock::Stopwatch;
use crate::wire::problem::refusal;

/// Verdicts that have not come so long after they were due do not come any more.
const PATIENCE: Duration = Duration::from_secs(30);
/// So many are registered and beaten at once.
pub(super) const CLIENTS: usize = 8;
/// When services fall silent.
pub(super) struct Due {
    pub(super) at: RefCell<HashMap<Id, Duration>>,
    /// As the server agreed.
    pub(super) interval_s: Cell<u32>,
}

impl Due {
    /// Nobody does yet.
    pub(super) fn none() -> Self {
        Self {
            at: RefCell::default(),
            interval_s: Cell::new(0),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Info {
    time_stamp: TimeStamp,
    interval: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TimeStamp {
    seconds: u64,
    nano_seconds: u64,
}

/// Beats, asks what the server made of it, and waits for verdicts.
pub(super) struct Watch<'a> {
    pub(super) site: &'a Site,
    pub(super) clock: Stopwatch,
    /// The wall clock when `clock` started.
    pub(super) wall_ns: u64,
    /// Whether the server's wall clock is ours.
    pub(super) server_time: bool,
    pub(super) grace: Grace,
}

impl Watch<'_> {
    /// Beats each probe once, for the last time.
    pub(super) async fn probes(
        &self,
        setup: &Setup,
        plan: &ExpirePlan,
        probes: &mut Fleet,
        due: &Due,
    ) -> Result<(), BenchError> {
        let target = &self.site.target;
        let mut first = 0;
        // A few at a time: those at the end must not fall silent before they are beaten.
        while first < plan.probes {
            let last = (first + CLIENTS).min(plan.probes);
            probes
                .grow(last, plan.interval_s, CLIENTS, &setup.stop, &setup.progress)
                .await?;
            let fleet = &*probes;
            let beat = async |number: usize| {
                let (mut link, mut body) = (None, Vec::new());
                let request = target.request("PATCH", &fleet.liveness_of(number), BEAT);
                let what = "the last beat of a probe";
                let sent = self.clock.elapsed();
                let status = ask(target, &mut link, &request, &mut body, what).await?;
                if !matches!(status, 200 | 204) {
                    return Err(BenchError::refused(what, refusal(status, &body)));
                }
                let at = self.due(fleet, number, sent, due).await?;
                due.at.borrow_mut().insert(fleet.ids()[number], at);
                Ok(())
            };
            let beaten = setup.stop.unless(join_all((first..last).map(beat))).await?;
            beaten.into_iter().collect::<Result<(), _>>()?;
            first = last;
        }
        Ok(())
    }

    /// Beats all of a crowd in as few requests as can be, all at once.
    pub(super) async fn silence_at_once(
        &self,
        setup: &Setup,
        crowd: &Fleet,
        due: &Due,
    ) -> Result<(), BenchError> {
        let target = &self.site.target;
        let ids = crowd.ids();
        let beat = async |app: usize| {
            let first = app * crowd.per_app();
            let ids = &ids[first..(first + crowd.per_app()).min(ids.len())];
            let (mut link, mut body) = (None, Vec::new());
            let request = batch(target, &crowd.apps()[app], ids);
            let what = "the last beat of many";
            let sent = self.clock.elapsed();
            let status = ask(target, &mut link, &request, &mut body, what).await?;
            if status != 200 || batch_good(&body) != Some(ids.len() as u64) {
                return Err(BenchError::refused(what, refusal(status, &body)));
            }
            let at = self.due(crowd, first, sent, due).await?;
            due.at.borrow_mut().extend(ids.iter().map(|id| (*id, at)));
            Ok(())
        };
        let beaten = join_all((0..crowd.apps().len()).map(beat));
        let beaten = setup.stop.unless(beaten).await?;
        beaten.into_iter().collect()
    }

    /// When the n-th service is due, beaten at `sent`.
    async fn due(
        &self,
        fleet: &Fleet,
        number: usize,
        sent: Duration,
        due: &Due,
    ) -> Result<Duration, BenchError> {
        let target = &self.site.target;
        let (mut link, mut body) = (None, Vec::new());
        let request = target.request("GET", &fleet.liveness_of(number), b"");
        let what = "asking for the time of a beat";
        let status = ask(target, &mut link, &request, &mut body, what).await?;
        let info: Info = match status {
            200 => serde_json::from_slice(&body)
                .map_err(|_| BenchError::refused(what, "the answer has no timeStamp"))?,
            _ => return Err(BenchError::refused(what, refusal(status, &body))),
        };
        due.interval_s.set(info.interval);
        let base = match self.server_time {
            false => sent,
            true => {
                let TimeStamp {
                    seconds,
                    nano_seconds,
                } = info.time_stamp;
                let stamp_ns = seconds.saturating_mul(1_000_000_000) + nano_seconds;
                Duration::from_nanos(stamp_ns.saturating_sub(self.wall_ns))
            }
        };
        Ok(base + self.grace.deadline(info.interval))
    }

    /// Waits for all verdicts, as long as there is hope; when each was heard of.
    pub(super) async fn listen(
        &self,
        setup: &Setup,
        stream: &mut mpsc::UnboundedReceiver<Result<Verdict, String>>,
        due: &[&HashMap<Id, Duration>],
    ) -> Result<HashMap<Id, Duration>, BenchError> {
        let ids = || due.iter().flat_map(|due| due.iter());
        let wanted = ids().count();
        let end = ids().map(|(_, at)| *at).max().unwrap_or_default() + PATIENCE;
        let mut heard: HashMap<Id, Duration> = HashMap::new();
        while heard.len() < wanted {
            let Some(left) = end.checked_sub(self.clock.elapsed()) else {
                break;
            };
            let next = tokio::time::timeout(left, stream.recv());
            match setup.stop.unless(next).await? {
                Err(_) => break,
                Ok(Some(Ok(verdict))) => {
                    if due.iter().any(|due| due.contains_key(&verdict.id)) {
                        heard.insert(verdict.id, verdict.heard);
                    }
                }
                Ok(Some(Err(reason))) => {
                    return Err(BenchError::refused("following the events", reason));
                }
                Ok(None) => return Err(BenchError::refused("following the events", "it ended")),
            }
            let count = heard.len() as u64;
            setup.progress.count("verdicts", count, wanted as u64);
        }
        Ok(heard)
    }
}
