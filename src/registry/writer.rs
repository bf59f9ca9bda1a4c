//! The one writer: drain, decide, commit, install, answer. A thread of its own, because the disk
//! blocks.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use super::command::{Ack, Instant, Item, Look};
use super::decide::{self, Outcome, Pending, Tally};
use super::health::Health;
use super::queue::Queue;
use super::tail::Log;
use super::view::{Entry, View};
use super::watch::{self, Watch};
use super::{Error, Rules, Terms};
use crate::clock::{Clock, Stopwatch};
use crate::domain::{BlindSpot, Policy, ServiceId, Steady, Wall};
use crate::metrics::Metrics;
use crate::store::{self, Armed, Batch, Store};

/// Due entries judged per pulse, and index entries mended per commit: bounds what a mass expiry
/// costs the beats that wait behind it.
const JUDGED_MAX: usize = 1024;

/// So few blind spots are not worth looking at every service to drop some.
const BLIND_SPOTS_FEW: usize = 16;

/// Blind spots for the next commit.
#[derive(Default)]
struct Learnt {
    seen: Vec<BlindSpot>,
    forgotten: Vec<Steady>,
}

pub(super) struct Writer {
    pub(super) store: Box<dyn Store>,
    pub(super) view: Arc<RwLock<View>>,
    pub(super) queue: Arc<Queue>,
    pub(super) health: Arc<Health>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) clock: Clock,
    pub(super) terms: Terms,
    pub(super) last_mark: Steady,
    pub(super) watch: Watch,
    /// The server takes in no more beats, so nobody is judged.
    pub(super) has_stopped: bool,
    /// The sequence that the next event gets.
    pub(super) next_sequence: u64,
    pub(super) log: Arc<Log>,
}

impl Writer {
    /// Runs until the queue is closed and empty, then ends in good order. After a failure of the
    /// store, or a panic of the engine, it leaves the store alone; whoever waits is told by the
    /// dropped reply and the failure that is then said.
    pub(super) fn run_guarded(mut self) -> Result<(), Error> {
        match catch_unwind(AssertUnwindSafe(|| self.run())) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(self.give_up(&error.to_string())),
            Err(_) => return Err(self.give_up("the writer panicked")),
        }
        self.store.close().map_err(|error| {
            log::error!("closing the store failed: {error}; what was acknowledged is on the disk");
            Error::Failed
        })
    }

    fn run(&mut self) -> Result<(), store::Error> {
        let mut items = Vec::new();
        // Without pulses it wakes by itself: so it knows that it could have run.
        let rest_max = Duration::from_millis(self.terms.stall_ms / 4 + self.terms.tick_ms);
        while self.queue.take(&self.terms, rest_max, &mut items) {
            self.process(&mut items)?;
        }
        self.store.commit(&Batch {
            mark: Some(self.watch.mark(true)),
            ..Batch::default()
        })
    }

    /// What reached the disk is unknown, so nothing is retried: the next start decides.
    fn give_up(self, reason: &str) -> Error {
        log::error!(
            "{reason}; nothing more is accepted. What was acknowledged is on the disk; restart to go on"
        );
        self.health.fail(reason.to_owned());
        self.queue.close();
        self.store.abandon();
        let mut rest = Vec::new();
        while self.queue.take(&self.terms, Duration::ZERO, &mut rest) {
            rest.clear();
        }
        Error::Failed
    }

    /// One batch, from what stood in the queue to the answers.
    fn process(&mut self, items: &mut Vec<Item>) -> Result<(), store::Error> {
        let now = self.clock.now();
        self.look(items, now.steady);
        let blind_spots = self.learn();
        let mut pulsed = false;
        let mut settled = Vec::new();
        let mut reload = None;
        let mut mend = VecDeque::new();
        let mut outcome = {
            let view = self.view.read().unwrap_or_else(PoisonError::into_inner);
            let mut pending = Pending::new(&view, &self.terms.rules, now, self.next_sequence);
            for item in items.drain(..) {
                match item {
                    Item::Client(command) => pending.decide(command),
                    Item::Pulse { now, done } => {
                        if !self.has_stopped {
                            let due = self.store.due(now.steady, JUDGED_MAX)?;
                            pending.judge(due, now.steady);
                        }
                        pulsed = true;
                        settled.extend(done);
                    }
                    Item::Reload(rules) => reload = Some(rules),
                    Item::Mend(late) => mend.extend(late),
                    Item::Look(Look(look)) => look(&*self.store)?,
                    Item::Advance { told, reply } => {
                        pending.advance(told);
                        pending.when_done(reply);
                    }
                    // Seen to when it was looked at.
                    Item::StopWatching { .. } => {}
                }
            }
            pending.mend(&mut mend, JUDGED_MAX);
            pending.fold()
        };
        if !mend.is_empty() {
            self.queue.push_own(|| Item::Mend(mend));
        }
        outcome.batch.blind_spots = blind_spots.seen;
        outcome.batch.forget_blind_spots = blind_spots.forgotten;
        outcome.batch.policy = reload.map(|rules| rules.policy);
        self.add_mark(&mut outcome.batch, now.steady);
        let acks = self.commit(outcome)?;
        acks.into_iter().for_each(Ack::send);
        if let Some(rules) = reload {
            self.take_over(rules);
        }
        if pulsed {
            self.health.set_next_due(self.store.next_due()?);
            self.health.pulse_done(self.clock.now().steady);
            for done in settled {
                let _ = done.send(());
            }
        }
        Ok(())
    }

    /// Looks at what was taken from the queue for signs that we were blind.
    fn look(&mut self, items: &[Item], now: Steady) {
        self.watch.run(now);
        for item in items {
            match item {
                // Once the server has stopped listening, pulses prove nothing.
                Item::Pulse { now, .. } if !self.has_stopped => self.watch.pulse(*now),
                Item::StopWatching { now } => {
                    self.watch.pulse(*now);
                    self.has_stopped = true;
                }
                _ => {}
            }
        }
        if let Some((first, last)) = self.health.take_refused() {
            self.watch.refused(first, last);
        }
    }

    /// Takes new blind spots into the view, before anybody is judged. The view may be ahead of the
    /// disk here: a blind spot only ever gives credit, and the commit that follows has it.
    fn learn(&mut self) -> Learnt {
        let found = self.watch.take();
        if found.is_empty() {
            return Learnt::default();
        }
        let mut view = self.view.write().unwrap_or_else(PoisonError::into_inner);
        let mut learnt = Learnt::default();
        let known = view.blind_spots.len();
        for spot in found {
            let (spot, longer_ms) = watch::add(&mut view.blind_spots, spot);
            self.metrics.blind(spot.cause, longer_ms);
            if view.blind_spots.len() > known {
                log::warn!(
                    "blind for {} ms, cause {}: nobody is charged for it",
                    spot.end.ms_since(spot.start),
                    spot.cause.as_str()
                );
            }
            learnt.seen.push(spot);
        }
        if view.blind_spots.len() > known && view.blind_spots.len() >= BLIND_SPOTS_FEW {
            learnt.forgotten = view.forget_blind_spots();
            let forgotten = &learnt.forgotten;
            learnt.seen.retain(|spot| !forgotten.contains(&spot.start));
        }
        learnt
    }

    /// Commits and installs; the answers may go out when this returns.
    fn commit(&mut self, mut outcome: Outcome) -> Result<Vec<Ack>, store::Error> {
        if outcome.batch.is_empty() {
            // Nothing to write: only refusals and empty pulses.
            return Ok(outcome.acks);
        }
        let changes_index = !outcome.batch.arm.is_empty() || !outcome.batch.disarm.is_empty();
        self.date_events(&mut outcome.batch);
        let syncs = self.store.syncs();
        let stopwatch = Stopwatch::start();
        let start = self.clock.now().steady;
        self.store.commit(&outcome.batch)?;
        self.watch.commit(start, self.clock.now().steady);
        self.health.commit_done(stopwatch.elapsed_ms());
        self.metrics.commits.inc();
        self.metrics.syncs.inc_by(self.store.syncs() - syncs);
        self.metrics
            .commit_seconds
            .observe(stopwatch.elapsed().as_secs_f64());
        let events = std::mem::take(&mut outcome.batch.events);
        let (acks, tally) = {
            let mut view = self.view.write().unwrap_or_else(PoisonError::into_inner);
            outcome.install(&mut view)
        };
        self.log.append(events);
        self.tell(&tally);
        if changes_index {
            self.health.set_next_due(self.store.next_due()?);
        }
        Ok(acks)
    }

    /// Gives events their sequence, and says what may be forgotten.
    fn date_events(&mut self, batch: &mut Batch) {
        for event in &mut batch.events {
            event.sequence = self.next_sequence;
            self.next_sequence += 1;
        }
        let view = self.view.read().unwrap_or_else(PoisonError::into_inner);
        let nobody = view.subscriptions().next().is_none() && batch.subscriptions.is_empty();
        batch.events_needed_from = if nobody {
            u64::MAX
        } else {
            self.log.needed_from()
        };
        drop(view);
        batch.events_per_service_max = self.terms.events_per_service_max;
        batch.forget_events_before = batch.mark.map(|mark| {
            let kept_ns = self.terms.events_kept_ms.saturating_mul(1_000_000);
            Wall::from_ns(mark.reading.wall.as_ns().saturating_sub(kept_ns))
        });
    }

    /// Mends the index before anything else happens: at start, in bounded commits.
    pub(super) fn mend_all(
        &mut self,
        mut late: VecDeque<ServiceId>,
        mut orphans: Vec<Armed>,
    ) -> Result<(), store::Error> {
        if !late.is_empty() || !orphans.is_empty() {
            log::info!(
                "mending the expiry index: {} entries missing or late, {} belong to nobody",
                late.len(),
                orphans.len()
            );
        }
        while !late.is_empty() || !orphans.is_empty() {
            let now = self.clock.now();
            let outcome = {
                let view = self.view.read().unwrap_or_else(PoisonError::into_inner);
                let mut pending = Pending::new(&view, &self.terms.rules, now, self.next_sequence);
                pending.mend(&mut late, JUDGED_MAX);
                pending.drop_orphans(orphans.drain(..orphans.len().min(JUDGED_MAX)));
                pending.fold()
            };
            self.commit(outcome)?;
        }
        self.health.set_next_due(self.store.next_due()?);
        Ok(())
    }

    /// The outage is over: its blind spot, the first mark and the policy are one commit.
    pub(super) fn begin(
        &mut self,
        outage: Option<BlindSpot>,
        forgotten: Vec<Steady>,
    ) -> Result<(), store::Error> {
        let now = Instant::now(&self.clock);
        self.watch = Watch::new(now, self.terms.stall_ms);
        let outage = outage.map(|outage| BlindSpot {
            end: now.steady,
            ..outage
        });
        self.store.commit(&Batch {
            blind_spots: outage.into_iter().collect(),
            forget_blind_spots: forgotten,
            mark: Some(self.watch.mark(false)),
            policy: Some(self.terms.rules.policy),
            ..Batch::default()
        })?;
        self.last_mark = now.steady;
        self.health.pulse_done(now.steady);
        if let Some(outage) = outage {
            let length_ms = outage.end.ms_since(outage.start);
            let measured = if outage.length_known {
                ""
            } else {
                " (not measurable)"
            };
            log::info!(
                "blind for {length_ms} ms{measured}, cause {}: nobody is charged for it",
                outage.cause.as_str()
            );
            self.metrics.blind(outage.cause, length_ms);
            let mut view = self.view.write().unwrap_or_else(PoisonError::into_inner);
            watch::add(&mut view.blind_spots, outage);
        }
        Ok(())
    }

    /// The mark joins a commit once the last one is old, and makes one of its own when idle.
    fn add_mark(&mut self, batch: &mut Batch, now: Steady) {
        let age_ms = now.ms_since(self.last_mark);
        let due_ms = if batch.is_empty() {
            self.terms.idle_mark_interval_ms
        } else {
            self.terms.mark_interval_ms
        };
        if age_ms >= due_ms {
            let mark = self.watch.mark(false);
            self.last_mark = mark.steady;
            batch.mark = Some(mark);
        }
    }

    /// New rules: a smaller grace may leave index entries later than their deadlines.
    fn take_over(&mut self, rules: Rules) {
        self.terms.rules = rules;
        let mut view = self.view.write().unwrap_or_else(PoisonError::into_inner);
        view.policy = Some(rules.policy);
        drop(view);
        // Readers go on meanwhile; nobody else changes anything.
        let view = self.view.read().unwrap_or_else(PoisonError::into_inner);
        let late = late_entries(&view, &rules.policy);
        drop(view);
        if !late.is_empty() {
            log::info!(
                "the new configuration brings {} deadlines forward",
                late.len()
            );
            self.queue.push_own(|| Item::Mend(late));
        }
    }

    fn tell(&self, tally: &Tally) {
        let metrics = &self.metrics;
        metrics.heartbeats.inc_by(tally.beats);
        metrics.registrations.inc_by(tally.registered);
        metrics.deregistrations.inc_by(tally.removed);
        metrics.revivals.inc_by(tally.revived);
        metrics.verdicts.inc_by(tally.suspended.len() as u64);
        if let Some((first, _)) = tally.suspended.first() {
            let now = self.clock.now().steady;
            for (key, deadline) in &tally.suspended {
                let lag_ms = now.ms_since(*deadline);
                metrics.expired(lag_ms);
                log::debug!(
                    "suspended app.id={} service.id={} lag_ms={lag_ms}",
                    key.app,
                    key.service
                );
            }
            let others = tally.suspended.len() - 1;
            let and = if others > 0 {
                format!(" and {others} more")
            } else {
                String::new()
            };
            log::info!(
                "suspended for silence: app.id={} service.id={}{and}",
                first.app,
                first.service
            );
        }
        metrics.removals.inc_by(tally.forgotten);
        if tally.forgotten > 0 {
            log::info!(
                "removed {} services that were SUSPENDED for too long",
                tally.forgotten
            );
        }
        if tally.revived > 0 {
            log::info!("{} suspended services beat again", tally.revived);
        }
    }
}

/// Running timers whose index entry is missing, or later than the deadline.
pub(super) fn late_entries(view: &View, policy: &Policy) -> VecDeque<ServiceId> {
    let is_late = |entry: &Entry| decide::index_at(entry, policy, &view.blind_spots) != entry.armed;
    let late = view.collect(|entry| is_late(entry).then_some(entry.key.service));
    late.into()
}
