//! What must hold.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use mepulse::domain::liveness::ServiceState;
use mepulse::domain::silence::deadline;
use mepulse::domain::{
    Event, Evidence, Happening, Liveness, Policy, ServiceId, ServiceKey, Steady,
};
use mepulse::store::{Row, Store};

use super::model::{Member, Phase, Timer};
use super::world::{Reach, Sim};

/// Every event that was seen: its sequence is given once, and time goes on with it.
#[derive(Debug, Default)]
pub(super) struct Chronicle(BTreeMap<u64, (Steady, ServiceId)>);

impl Chronicle {
    fn note(&mut self, event: &Event, leap_ms: u64) {
        let seen = (event.at.steady, event.key.service);
        let known = self.0.insert(event.sequence, seen);
        assert!(known.is_none_or(|known| known == seen), "{event:?}");
        let before = self.0.range(..event.sequence).next_back();
        let after = self.0.range(event.sequence + 1..).next();
        assert!(
            before.is_none_or(|(_, (at, _))| at.ms_since(seen.0) <= leap_ms)
                && after.is_none_or(|(_, (at, _))| seen.0.ms_since(*at) <= leap_ms),
            "{event:?} stands between {before:?} and {after:?}"
        );
    }
}

impl Sim {
    /// No verdict comes too early, and none too late.
    pub(super) fn check_states(&mut self) {
        let registry = self.registry();
        let mut suspended = Vec::new();
        let view = registry.view();
        let policy = self.terms.rules.policy;
        for (who, producer) in self.producers.iter().enumerate() {
            for member in &producer.members {
                let id = member.key.service;
                let state = view.service_of(&member.key).map(|e| e.liveness.state());
                match (&member.phase, state) {
                    (Phase::Active(timer), Some(ServiceState::Active)) => {
                        let first_ms = timer.base_ms + member.longest_ms;
                        let is_late = self.reach == Reach::Up
                            && self.last_judged_ms > first_ms
                            && self.last_judged_ms >= member.late_ms(timer, &policy, &self.blind);
                        assert!(!is_late, "declared late: {}", self.story(id));
                    }
                    (Phase::Active(_), Some(ServiceState::Suspended)) => suspended.push((who, id)),
                    (Phase::Inactive, Some(ServiceState::Inactive))
                    | (Phase::Suspended, Some(ServiceState::Suspended)) => {}
                    (_, state) => panic!("it is {state:?}: {}", self.story(id)),
                }
            }
        }
        drop(view);
        for (who, id) in suspended {
            self.check_verdict(who, id, &policy);
        }
    }

    /// A service that was ACTIVE is SUSPENDED.
    fn check_verdict(&mut self, who: usize, id: ServiceId, policy: &Policy) {
        let member = self.producers[who].member(&id).unwrap();
        let timer = member.timer().unwrap();
        let fair_ms = member.fair_ms(&timer, policy, &self.blind);
        let watched_ms = self.blind.watched_ms(timer.base_ms, self.now_ms);
        let is_capped = watched_ms >= (1 + u64::from(policy.blind_cap)) * member.pace_ms;
        let (beats, is_faithful) = (member.beats, member.is_faithful);
        member.phase = Phase::Suspended;
        self.tally.verdicts += 1;
        assert!(
            is_capped || !is_faithful,
            "a living one was suspended: {}",
            self.story(id)
        );
        assert!(
            is_capped || self.now_ms >= fair_ms,
            "suspended too early, not before {fair_ms}: {}",
            self.story(id)
        );
        let history = self.store.history(id).unwrap();
        let leap_ms = if self.keeps_out {
            self.terms.mark_interval_ms
        } else {
            0
        };
        history
            .iter()
            .for_each(|event| self.chronicle.note(event, leap_ms));
        let verdict = history.iter().rev().find_map(|event| match &event.what {
            Happening::Suspended(evidence) => Some((event, evidence)),
            _ => None,
        });
        let (event, evidence) = verdict.unwrap_or_else(|| panic!("{}", self.story(id)));
        let is_proof = evidence.deadline <= event.at.steady
            && evidence.timer.base == timer.base
            && evidence.beats == beats
            && evidence.promised == timer.promise_ms.is_some()
            && are_in_order(evidence);
        assert!(is_proof, "{event:?}: {}", self.story(id));
    }

    /// The registry holds of it what is true.
    pub(super) fn check_member(&self, who: usize, id: ServiceId) {
        if self.reach != Reach::Up {
            return;
        }
        let registry = self.registry();
        let view = registry.view();
        let members = &self.producers[who].members;
        let member = members.iter().find(|member| member.key.service == id);
        let entry = view.service_of(&member.unwrap().key);
        assert!(
            entry.is_some_and(|entry| is_true(member.unwrap(), &entry.liveness)),
            "{:?}: {}",
            entry.map(|entry| entry.liveness),
            self.story(id)
        );
    }

    pub(super) fn check_members(&self) {
        for (who, producer) in self.producers.iter().enumerate() {
            for member in &producer.members {
                self.check_member(who, member.key.service);
            }
        }
    }

    /// Nothing acknowledged is lost, nothing deleted returns, the view is the store.
    pub(super) fn check_restart(&mut self, judged_by: &Policy) {
        let mut services = BTreeMap::new();
        let mut liveness = HashMap::new();
        let mut index = BTreeSet::new();
        let loaded = self.store.clone().load(&mut |row| match row {
            Row::App(..) | Row::AppInfo(..) | Row::Subscription(_) | Row::Cursor(..) => {}
            Row::Service(key, service) => drop(services.insert(key, service)),
            Row::Liveness(key, row) => drop(liveness.insert(key, row)),
            Row::Armed(armed) => {
                index.insert((armed.key, armed.at));
            }
        });
        let loaded = loaded.unwrap();
        let last = self.chronicle.0.last_key_value();
        assert!(last.is_none_or(|(last, _)| *last < loaded.next_sequence));
        {
            let registry = self.registry();
            let view = registry.view();
            assert_eq!(view.blind_spots, loaded.blind_spots);
            assert_eq!(view.services().count(), services.len());
            assert_eq!(services.len(), liveness.len());
            let mut armed = BTreeSet::new();
            for entry in view.services() {
                let id = entry.key.service;
                assert_eq!(services[&entry.key], entry.service);
                assert_eq!(liveness[&entry.key], entry.liveness);
                assert!(
                    !self.deleted.contains(&id),
                    "it is back: {}",
                    self.story(id)
                );
                if let Some(timer) = self.terms.rules.policy.timer_of(&entry.liveness) {
                    assert!(timer.base <= self.steady(self.now_ms));
                    let at = entry.armed.unwrap();
                    assert!(at <= deadline(&timer, &view.blind_spots));
                    armed.insert((entry.key.clone(), at));
                }
            }
            assert_eq!(armed, index, "one index entry for each running timer");
        }
        let members: usize = self.producers.iter().map(|p| p.members.len()).sum();
        assert_eq!(
            members,
            services.len(),
            "known to their producers, and stored"
        );
        self.check_rows(&liveness, judged_by);
    }

    fn check_rows(&mut self, liveness: &HashMap<ServiceKey, Liveness>, judged_by: &Policy) {
        let mut suspended = Vec::new();
        for (who, producer) in self.producers.iter().enumerate() {
            for member in &producer.members {
                let row = liveness.get(&member.key);
                let id = member.key.service;
                let is_new_verdict = member.timer().is_some()
                    && row.is_some_and(|row| row.state() == ServiceState::Suspended);
                if is_new_verdict {
                    // Committed just before the crash.
                    suspended.push((who, id));
                } else {
                    let is_true = row.is_some_and(|row| is_true(member, row));
                    assert!(is_true, "stored: {row:?}: {}", self.story(id));
                }
            }
        }
        for (who, id) in suspended {
            self.check_verdict(who, id, judged_by);
        }
    }

    /// Forgets what can be of no use to any timer.
    pub(super) fn forget_the_past(&mut self) {
        let members = self.producers.iter().flat_map(|p| &p.members);
        let oldest = members.filter_map(|m| Some(m.timer()?.base_ms)).min();
        self.blind.forget_before(oldest.unwrap_or(self.now_ms));
    }

    /// For a failure: all that is known of a service.
    pub(super) fn story(&self, id: ServiceId) -> String {
        let owner = self.producers.iter().find_map(|producer| {
            let member = producer.members.iter().find(|m| m.key.service == id)?;
            let policy = self.terms.rules.policy;
            let times = member.timer().map(|timer: Timer| {
                let fair_ms = member.fair_ms(&timer, &policy, &self.blind);
                (fair_ms, member.late_ms(&timer, &policy, &self.blind))
            });
            Some(format!("{producer:?}\nfair and late: {times:?}"))
        });
        let events = self.store.history(id).unwrap_or_default();
        format!(
            "service {id}, step {}, now {} ms (clock {} ms ahead), {:?}\n{}\ndark: {}\nexcused: {}\n\
             its last events: {}",
            self.steps,
            self.now_ms,
            self.ahead_ms,
            self.reach,
            owner.unwrap_or_default(),
            last(&self.blind.dark),
            last(&self.blind.excused),
            last(&events)
        )
    }
}

/// The last few, one a line.
fn last<T: std::fmt::Debug>(all: &[T]) -> String {
    let few = &all[all.len().saturating_sub(5)..];
    few.iter().map(|one| format!("\n    {one:?}")).collect()
}

fn is_true(member: &Member, liveness: &Liveness) -> bool {
    let Some(stored) = liveness.monitored() else {
        return false;
    };
    let state = liveness.state();
    let is_in_phase = match (&member.phase, liveness.running()) {
        (Phase::Active(timer), Some((running, _))) => {
            running.base == timer.base
                && running.promise.map(|promise| promise.as_ms()) == timer.promise_ms
        }
        (Phase::Inactive, None) => state == ServiceState::Inactive,
        (Phase::Suspended, None) => state == ServiceState::Suspended,
        (Phase::Active(_), None) | (Phase::Inactive | Phase::Suspended, Some(_)) => false,
    };
    is_in_phase
        && stored.beats == member.beats
        && liveness.interval().map(|i| i.as_ms()) == Some(member.newest_ms)
}

fn are_in_order(evidence: &Evidence) -> bool {
    let deadlines: Vec<_> = evidence.credits.iter().map(|c| c.deadline).collect();
    deadlines.is_sorted()
        && deadlines
            .last()
            .is_none_or(|last| *last == evidence.deadline)
}
