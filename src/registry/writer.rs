//! The one writer: drain, decide, commit, install, answer. A thread of its own, because the disk
//! blocks.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError, RwLock};

use super::command::{Ack, Command};
use super::decide::{self, Outcome, Pending, Tally};
use super::health::Health;
use super::queue::Queue;
use super::view::View;
use super::{Error, Terms};
use crate::clock::{Clock, Stopwatch};
use crate::domain::{Mark, Moment, Policy, Reading, ServiceId, Steady};
use crate::metrics::Metrics;
use crate::store::{self, Armed, Batch, Store};

/// Due entries judged per pulse, and index entries mended per commit: bounds what a mass expiry
/// costs the beats that wait behind it.
const JUDGED_MAX: usize = 1024;

pub(super) struct Writer {
    pub(super) store: Box<dyn Store>,
    pub(super) view: Arc<RwLock<View>>,
    pub(super) queue: Arc<Queue>,
    pub(super) health: Arc<Health>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) clock: Clock,
    pub(super) terms: Terms,
    /// Timers whose index entry may be missing or too late.
    pub(super) mend: VecDeque<ServiceId>,
    pub(super) last_mark: Steady,
}

impl Writer {
    /// Runs until the queue is closed and empty, then ends in good order: a mark that says so, and
    /// the seal. After a failure of the store it answers everybody and leaves the store alone.
    pub(super) fn run(mut self) -> Result<(), Error> {
        let mut commands = Vec::new();
        while self.queue.take(&self.terms, &mut commands) {
            if let Err((acks, error)) = self.process(commands.drain(..)) {
                return Err(self.give_up(acks, &error));
            }
        }
        let (now, reading) = self.clock.read();
        let batch = Batch {
            mark: Some(mark(now, reading, true)),
            ..Batch::default()
        };
        if let Err(error) = self.store.commit(&batch) {
            return Err(self.give_up(Vec::new(), &error));
        }
        self.store.close().map_err(|error| {
            log::error!("closing the store failed: {error}; what was acknowledged is on the disk");
            Error::Failed
        })
    }

    /// What reached the disk is unknown, so nothing is retried: the next start decides.
    fn give_up(self, acks: Vec<Ack>, error: &store::Error) -> Error {
        log::error!(
            "{error}; nothing more is accepted. What was acknowledged is on the disk; restart to go on"
        );
        self.health.fail(error.to_string());
        self.queue.close();
        self.store.abandon();
        for ack in acks {
            ack.send_failed();
        }
        let mut rest = Vec::new();
        while self.queue.take(&self.terms, &mut rest) {
            // Dropping a command's reply tells its caller.
            rest.clear();
        }
        Error::Failed
    }

    /// One batch, from commands to answers.
    fn process(
        &mut self,
        commands: impl Iterator<Item = Command>,
    ) -> Result<(), (Vec<Ack>, store::Error)> {
        let (now, reading) = self.clock.read();
        let mut pulse = None;
        let mut reload = None;
        let mut outcome = {
            let view = self.view.read().unwrap_or_else(PoisonError::into_inner);
            let mut pending = Pending::new(&view, &self.terms, now);
            for command in commands {
                match &command {
                    Command::Pulse { at, .. } => {
                        pulse = Some(*at);
                        let due = self.store.due(*at, JUDGED_MAX);
                        match due {
                            Ok(due) => pending.judge(due, *at),
                            Err(error) => return Err((pending.fold().acks, error)),
                        }
                    }
                    Command::Reload(terms) => reload = Some(terms.clone()),
                    Command::Register { .. }
                    | Command::Replace { .. }
                    | Command::Remove { .. }
                    | Command::Beat { .. }
                    | Command::BeatMany { .. } => {}
                }
                pending.decide(command);
            }
            if pulse.is_some() {
                let count = self.mend.len().min(JUDGED_MAX);
                self.mend.drain(..count).for_each(|id| pending.mend(&id));
            }
            pending.fold()
        };
        if let Some(terms) = &reload {
            outcome.batch.policy = Some(terms.policy);
        }
        self.add_mark(&mut outcome.batch, now, reading);
        let acks = self.commit(outcome)?;
        acks.into_iter().for_each(Ack::send);
        if let Some(terms) = reload {
            self.take_over(*terms);
        }
        if pulse.is_some() {
            self.health.pulse_done(self.clock.now().steady);
        }
        Ok(())
    }

    /// Commits and installs; the answers may go out when this returns.
    fn commit(&mut self, outcome: Outcome) -> Result<Vec<Ack>, (Vec<Ack>, store::Error)> {
        if outcome.batch.is_empty() {
            // Nothing to write: only refusals and empty pulses.
            return Ok(outcome.acks);
        }
        let changes_index = !outcome.batch.arm.is_empty() || !outcome.batch.disarm.is_empty();
        let stopwatch = Stopwatch::start();
        if let Err(error) = self.store.commit(&outcome.batch) {
            return Err((outcome.acks, error));
        }
        self.metrics.commits.inc();
        self.metrics
            .commit_seconds
            .observe(stopwatch.elapsed().as_secs_f64());
        let (acks, tally) = {
            let mut view = self.view.write().unwrap_or_else(PoisonError::into_inner);
            outcome.install(&mut view)
        };
        self.tell(&tally);
        if changes_index {
            match self.next_due() {
                Ok(next_due) => self.health.set_next_due(next_due),
                Err(error) => return Err((acks, error)),
            }
        }
        Ok(acks)
    }

    /// When to look next: at once while there is something to mend.
    fn next_due(&self) -> Result<Option<Steady>, store::Error> {
        if self.mend.is_empty() {
            self.store.next_due()
        } else {
            Ok(Some(Steady::from_ms(0)))
        }
    }

    /// The mark joins a commit once the last one is old, and makes one of its own when idle.
    fn add_mark(&mut self, batch: &mut Batch, now: Moment, reading: Reading) {
        let age_ms = now.steady.ms_since(self.last_mark);
        let due_ms = if batch.is_empty() {
            self.terms.idle_mark_interval_ms
        } else {
            self.terms.mark_interval_ms
        };
        if age_ms >= due_ms {
            batch.mark = Some(mark(now, reading, false));
            self.last_mark = now.steady;
        }
    }

    /// New terms: a smaller grace may leave index entries later than their deadlines.
    fn take_over(&mut self, terms: Terms) {
        self.terms = terms;
        let late = {
            let mut view = self.view.write().unwrap_or_else(PoisonError::into_inner);
            view.policy = Some(self.terms.policy);
            late_entries(&view, &self.terms.policy)
        };
        if !late.is_empty() {
            log::info!(
                "the new configuration brings {} deadlines forward",
                late.len()
            );
            self.mend = late;
            self.health.set_next_due(Some(Steady::from_ms(0)));
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
                #[expect(clippy::cast_precision_loss, reason = "a lag in ms is far below 2^53")]
                metrics.expiry_lag_seconds.observe(lag_ms as f64 / 1000.0);
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
        if tally.revived > 0 {
            log::info!("{} suspended services beat again", tally.revived);
        }
    }
}

pub(super) fn mark(now: Moment, reading: Reading, clean_stop: bool) -> Mark {
    Mark {
        steady: now.steady,
        reading,
        clean_stop,
    }
}

/// Running timers whose index entry is missing, or later than the deadline.
pub(super) fn late_entries(view: &View, policy: &Policy) -> VecDeque<ServiceId> {
    view.services()
        .filter(|entry| decide::armed(entry, policy, &view.blind_spots) != entry.armed)
        .map(|entry| entry.key.service)
        .collect()
}

/// Mends the index before anything else happens: at start, in bounded commits.
pub(super) fn mend_all(writer: &mut Writer, mut orphans: Vec<Armed>) -> Result<(), store::Error> {
    while !writer.mend.is_empty() || !orphans.is_empty() {
        let now = writer.clock.now();
        let outcome = {
            let view = writer.view.read().unwrap_or_else(PoisonError::into_inner);
            let mut pending = Pending::new(&view, &writer.terms, now);
            let count = writer.mend.len().min(JUDGED_MAX);
            writer.mend.drain(..count).for_each(|id| pending.mend(&id));
            pending.drop_orphans(orphans.drain(..orphans.len().min(JUDGED_MAX)));
            pending.fold()
        };
        writer.commit(outcome).map_err(|(_, error)| error)?;
    }
    writer.health.set_next_due(writer.store.next_due()?);
    Ok(())
}
