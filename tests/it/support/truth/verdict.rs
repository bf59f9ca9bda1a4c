//! The verdict on the registry's verdicts: what it said, against what the applications know.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use mepulse::clock::{Machine, SystemMachine, wall_now};
use mepulse::domain::{Event, Happening, ServiceId, Steady};
use mepulse::registry::Boot;
use mepulse::store::{Durability, OpenMode, OpenOptions, SledStore, migrate};
use tokio::time::Instant;

use super::app::{App, Diary, Fate};
use super::stage::{GRACE, LOOK};
use crate::support::once_unlocked;

/// A verdict that is later than its minimum by more than this is counted as late: for the polls, the
/// scheduler and the test's own imprecision.
const TOLERATED: Duration = Duration::from_secs(1);
/// A verdict this late fails the test.
pub(super) const GROSS: Duration = Duration::from_secs(10);
/// The default of `truth.stall_ms`.
const STALL: Duration = Duration::from_secs(1);
/// The default of `truth.blind_cap`.
const BLIND_CAP: u32 = 10;

/// When nobody could be heard, as whoever caused it saw it: not shorter than it was.
pub(super) struct Spot {
    start: Instant,
    end: Instant,
    /// Counts as watched.
    is_overload: bool,
}

impl Spot {
    pub(super) fn until_now(start: Instant, is_overload: bool) -> Self {
        Self {
            start,
            end: Instant::now(),
            is_overload,
        }
    }

    /// What the applications saw of an overload: refusals that follow each other within a stall.
    fn bursts(diaries: &[Diary]) -> Vec<Self> {
        let refusals = diaries.iter().flat_map(|diary| &diary.refusals);
        let mut refusals: Vec<_> = refusals.copied().collect();
        refusals.sort();
        let mut bursts: Vec<Self> = Vec::new();
        for (start, end) in refusals {
            match bursts.last_mut() {
                Some(burst) if start <= burst.end + STALL => burst.end = burst.end.max(end),
                _ => bursts.push(Self {
                    start,
                    end,
                    is_overload: true,
                }),
            }
        }
        bursts
    }
}

/// The provable minimum: up to here a living application may have been quiet that was last heard
/// at `base`, after so many beats. The rule of the design once more.
pub(super) fn minimum(app: &App, base: Instant, beats: u64, spots: &[Spot]) -> Instant {
    // Only a beat carries a promise.
    let retry = if beats > 0 { app.retry() } else { app.interval };
    let cap = app.interval * (1 + BLIND_CAP) + GRACE;
    let (mut deadline, mut blind) = (base + app.interval + GRACE, Duration::ZERO);
    for spot in spots.iter().filter(|spot| spot.end > base) {
        if spot.start >= deadline {
            break;
        }
        let from = spot.start.max(base);
        let unwatched = |to: Instant| match spot.is_overload {
            true => Duration::ZERO,
            false => to.saturating_duration_since(from),
        };
        let watched = (deadline - base).saturating_sub(blind + unwatched(spot.end.min(deadline)));
        if watched > cap + TOLERATED {
            break;
        }
        blind += unwatched(spot.end);
        deadline = deadline.max(spot.end + retry + GRACE);
    }
    // Due right before nobody could judge, or nobody look: then it is behind that.
    let hidden =
        |spot: &&Spot| !spot.is_overload && deadline < spot.end && deadline + 2 * LOOK > spot.start;
    let ends = spots.iter().filter(hidden).map(|spot| spot.end);
    ends.max().unwrap_or(deadline)
}

/// Steady time, in terms of this process' clock.
struct Conversion(Vec<(Steady, Instant)>);

impl Conversion {
    /// From the registrations: each was decided before it was acknowledged.
    fn new(boot: &Boot, diaries: &[Diary]) -> Self {
        let pair = |diary: &Diary| {
            let id = ServiceId::parse(diary.id.as_ref()?)?;
            let events = boot.history(id).unwrap();
            Some((events.first()?.at.steady, diary.registered?))
        };
        Self(diaries.iter().filter_map(pair).collect())
    }

    fn instant(&self, steady: Steady) -> Instant {
        let convert = |(known, at): &(Steady, Instant)| {
            let ahead = Duration::from_millis(steady.ms_since(*known));
            let behind = Duration::from_millis(known.ms_since(steady));
            *at + ahead - behind
        };
        self.0.iter().map(convert).min().unwrap()
    }
}

/// One row of the table.
#[derive(Debug, Default)]
pub(crate) struct Row {
    pub(crate) name: String,
    living: usize,
    dead: usize,
    living_declared_dead: usize,
    dead_declared_late: usize,
    lost: usize,
    /// The latest verdict, behind its minimum; in seconds.
    latest: f64,
    pub(crate) beats: u64,
    /// Tries that were turned away.
    pub(crate) refused: usize,
    /// Tries that nobody answered.
    pub(crate) unanswered: u64,
    /// Somebody was told a time that is wrong by an hour or so.
    pub(crate) clock_was_wrong: bool,
    left_out: usize,
    /// What is wrong, one sentence each; empty: nothing.
    pub(crate) complaints: Vec<String>,
}

impl Row {
    /// Judges what is in the store now, and when SUSPENDED was seen before.
    pub(super) fn judge(
        name: &str,
        data_dir: &Path,
        diaries: &[Diary],
        mut spots: Vec<Spot>,
        seen: &HashMap<String, Instant>,
    ) -> Self {
        spots.extend(Spot::bursts(diaries));
        spots.sort_by_key(|spot| spot.start);
        let mut row = Self {
            name: name.to_owned(),
            latest: f64::NEG_INFINITY,
            ..Self::default()
        };
        let options = OpenOptions {
            data_dir,
            mode: OpenMode::Inspect,
            cache_mb: 16,
            durability: Durability::PowerLoss,
            steps: migrate::STEPS,
            boot_id: SystemMachine::new().read().boot_id,
        };
        let store = once_unlocked(|| SledStore::open(&options));
        let boot = Boot::load(Box::new(store.unwrap())).unwrap();
        let steady = Conversion::new(&boot, diaries);
        for diary in diaries {
            row.beats += diary.beats;
            row.refused += diary.refusals.len();
            row.unanswered += diary.doubts;
            let now_s = wall_now().as_ms() / 1000;
            row.clock_was_wrong |= diary.stamp > 0 && diary.stamp.abs_diff(now_s) > 3000;
            let Some(id) = &diary.id else {
                row.left_out += 1;
                continue;
            };
            row.look_for_losses(&boot, diary, id);
            if diary.unlawful {
                row.left_out += 1;
                continue;
            }
            let events = boot.history(ServiceId::parse(id).unwrap()).unwrap();
            let evidence = |event: &Event| match &event.what {
                Happening::Suspended(evidence) => Some(evidence.clone()),
                _ => None,
            };
            let verdicts: Vec<_> = events.iter().filter_map(evidence).collect();
            if diary.app.fate == Fate::Dies {
                row.dead += 1;
                let (Some(&seen), [evidence]) = (seen.get(id), &verdicts[..]) else {
                    row.complain(
                        diary,
                        &format!("is dead, and the verdicts are {verdicts:?}"),
                    );
                    continue;
                };
                let (begun, heard) = diary.told.unwrap();
                // The last beat may have been heard, and the answer lost.
                let base = match evidence.beats > diary.beats {
                    true => heard.max(steady.instant(evidence.timer.base)),
                    false => heard,
                };
                let minimum = minimum(&diary.app, base, evidence.beats, &spots);
                row.judge_dead(diary, begun, minimum, seen);
            } else {
                row.living += 1;
                if !verdicts.is_empty() || seen.contains_key(id) {
                    row.living_declared_dead += 1;
                    row.complain(diary, &format!("lives and was declared dead: {verdicts:?}"));
                }
            }
        }
        boot.into_store().close().unwrap();
        row
    }

    fn judge_dead(&mut self, diary: &Diary, begun: Instant, minimum: Instant, seen: Instant) {
        let late = seen.saturating_duration_since(minimum);
        let early = minimum.saturating_duration_since(seen);
        self.latest = self.latest.max(late.as_secs_f64() - early.as_secs_f64());
        self.dead_declared_late += usize::from(late > TOLERATED);
        if late > GROSS {
            self.complain(diary, &format!("was declared dead {late:?} too late"));
        }
        if seen < begun + diary.app.interval + GRACE {
            self.living_declared_dead += 1;
            self.complain(diary, "was declared dead when it could have been alive");
        }
    }

    fn look_for_losses(&mut self, boot: &Boot, diary: &Diary, id: &str) {
        let stored = boot.view().service(&ServiceId::parse(id).unwrap());
        let beats = stored
            .and_then(|entry| entry.liveness.monitored())
            .map(|m| m.beats);
        let is_right = match beats {
            None => diary.left,
            Some(beats) => {
                let known = diary.beats..=diary.beats + diary.doubts;
                !diary.left && known.contains(&beats)
            }
        };
        if !is_right || (diary.disowned && !diary.left) {
            self.lost += 1;
            self.complain(
                diary,
                &format!("is not what was acknowledged: {beats:?} beats"),
            );
        }
    }

    fn complain(&mut self, diary: &Diary, what: &str) {
        self.complaints
            .push(format!("{} {what} ({diary:?})", diary.app.name));
    }

    /// Too many were too slow themselves: this run says nothing.
    pub(crate) fn is_void(&self) -> bool {
        self.left_out * 5 > self.left_out + self.living + self.dead
    }

    /// The names of the columns.
    pub(crate) const HEAD: &str = "\
| scenario (intervals 2 s and 5 s, grace 1.2 s) | living | dead | living declared dead | dead declared late | acknowledged writes lost \
| latest verdict, past its minimum | left out |
|---|---|---|---|---|---|---|---|";
}

impl fmt::Display for Row {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "| {} | {} | {} | {} | {} | {} | {:+.2} s | {} |",
            self.name,
            self.living,
            self.dead,
            self.living_declared_dead,
            self.dead_declared_late,
            self.lost,
            self.latest,
            self.left_out
        )
    }
}
