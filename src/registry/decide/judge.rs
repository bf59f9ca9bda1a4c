//! What time does to services: verdicts, removals, and the upkeep of the expiry index.

use std::collections::VecDeque;

use super::Pending;
use crate::domain::silence::deadline;
use crate::domain::{Evidence, Happening, Liveness, ServiceId, Steady};
use crate::registry::Rules;
use crate::registry::view::Entry;
use crate::store::Armed;

impl Pending<'_> {
    /// Looks at due entries of the expiry index, as of the instant `at`: re-arms those that have
    /// beaten or got credit since, suspends the others.
    pub(in crate::registry) fn judge(&mut self, due: Vec<Armed>, at: Steady) {
        for due in due {
            let id = due.key.service;
            let on_disk = self.view.service_of(&due.key).and_then(|entry| entry.armed);
            if on_disk != Some(due.at) {
                self.orphans.push(due);
                continue;
            }
            // Changed earlier in this batch, or gone: then its place in the index changes with it.
            let Some(entry) = self.entry(&id).filter(|entry| entry.armed == Some(due.at)) else {
                continue;
            };
            let unarmed = Entry {
                armed: None,
                ..entry.clone()
            };
            if let Some((liveness, evidence)) = self.verdict(&unarmed, at) {
                self.tally.suspended.push((due.key, evidence.deadline));
                let subject = unarmed.subject();
                let suspended = Happening::Suspended(Box::new(evidence));
                self.note(&unarmed.key, subject, suspended);
                self.put(Entry {
                    liveness,
                    ..unarmed
                });
            } else if let Some(since) = self.forgotten(&unarmed, at) {
                self.tally.forgotten += 1;
                let subject = unarmed.subject();
                self.note(&unarmed.key, subject, Happening::Forgotten { since });
                self.drop_service(&unarmed.key);
            } else {
                self.put(unarmed);
            }
        }
    }

    /// Since when an entry has been SUSPENDED, if that is too long at `at`.
    fn forgotten(&self, entry: &Entry, at: Steady) -> Option<Steady> {
        let timer = self.rules.policy.removal_of(&entry.liveness)?;
        (deadline(&timer, &self.view.blind_spots) <= at).then_some(timer.base)
    }

    /// The verdict on an entry whose deadline has passed at `at`, with its evidence.
    fn verdict(&self, entry: &Entry, at: Steady) -> Option<(Liveness, Evidence)> {
        let Rules { policy, .. } = self.rules;
        let timer = policy.timer_of(&entry.liveness)?;
        if deadline(&timer, &self.view.blind_spots) > at {
            return None;
        }
        let evidence =
            Evidence::collect(timer, entry.liveness.monitored()?, &self.view.blind_spots);
        Some((entry.liveness.expired(self.now.steady)?, evidence))
    }

    /// Brings the index entries of running timers forward where they are later than their deadlines
    /// (after the grace was made smaller), and puts in missing ones; the first `max` of `late`.
    pub(in crate::registry) fn mend(&mut self, late: &mut VecDeque<ServiceId>, max: usize) {
        for id in late.drain(..late.len().min(max)) {
            if let Some(entry) = self.entry(&id).cloned() {
                self.put(entry);
            }
        }
    }
}
