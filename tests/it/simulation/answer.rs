//! What the producers are told, and what it makes true.

use mepulse::domain::{ServiceId, Steady};
use mepulse::registry::{BatchOutcome, Entry, Error};

use super::STALL_MS;
use super::model::{Member, Phase, Timer};
use super::producer::{Told, Wish};
use super::world::Sim;

impl Sim {
    /// What an answer means: `at_ms` is when the registry dealt with the wish.
    pub(super) fn answered(
        &mut self,
        who: usize,
        wish: &Wish,
        answer: Result<Told, Error>,
        sent_ms: u64,
        at_ms: u64,
        is_heard: bool,
    ) {
        if matches!(wish, Wish::Register(..)) {
            self.producers[who].is_registering = false;
        }
        match (wish, answer) {
            (_, Err(Error::Busy)) => {
                self.tally.refused += 1;
                self.blind.refused(self.now_ms, STALL_MS);
            }
            // Nothing of it was committed: the checks after the restart will tell.
            (_, Err(Error::Failed)) => {}
            (Wish::Register(..), Ok(Told::Entry(entry))) => {
                self.registered(who, &entry, at_ms);
            }
            (Wish::Put(key, _, _), Ok(Told::Entry(entry))) => {
                self.replaced(who, key.service, &entry, at_ms);
            }
            (Wish::Remove(key), Ok(Told::Removed)) => {
                self.producers[who].members.retain(|m| m.key != *key);
                self.deleted.insert(key.service);
            }
            (_, Err(Error::PromiseTooLong { service, interval })) => {
                // Its telling answer was lost; now it knows, and tries again at once.
                let producer = &mut self.producers[who];
                producer.learns_interval(interval.as_secs());
                producer.next_try_ms = Some(self.now_ms);
                producer.member(&service).unwrap().pace_ms = interval.as_ms();
            }
            (Wish::Put(key, ..) | Wish::Remove(key) | Wish::Beat(key, _), Err(error)) => {
                let member = self.producers[who].member(&key.service);
                let expected = match member.map(|member| member.phase) {
                    None => Error::UnknownService(key.service),
                    Some(_) => Error::Inactive(key.service),
                };
                assert_eq!(error, expected, "{}", self.story(key.service));
            }
            (_, Ok(Told::Beaten(outcomes))) => {
                for (id, outcome) in outcomes {
                    self.beaten(who, id, outcome, wish.promise_ms(), at_ms, is_heard);
                }
                let producer = &mut self.producers[who];
                if is_heard {
                    producer.was_answered(sent_ms, self.now_ms, &mut self.random);
                } else {
                    producer.was_not_answered(sent_ms, self.now_ms, &mut self.random);
                }
            }
            (wish, answer) => panic!("{wish:?} was answered by {answer:?}"),
        }
        self.reschedule(who);
    }

    fn registered(&mut self, who: usize, entry: &Entry, at_ms: u64) {
        let interval_ms = entry.liveness.interval().unwrap().as_ms();
        let started = self.timer_from(at_ms, None);
        let producer = &mut self.producers[who];
        producer.members.push(Member {
            key: entry.key.clone(),
            phase: match entry.liveness.running() {
                Some(_) => Phase::Active(started),
                None => Phase::Inactive,
            },
            is_faithful: producer.is_alive,
            beats: 0,
            offer_s: u32::try_from(interval_ms / 1000).unwrap(),
            pace_ms: interval_ms,
            newest_ms: interval_ms,
            longest_ms: interval_ms,
            follows: false,
        });
        producer.has_more_to_beat(self.now_ms, &mut self.random);
        self.check_member(who, entry.key.service);
    }

    fn replaced(&mut self, who: usize, id: ServiceId, entry: &Entry, at_ms: u64) {
        let started = self.timer_from(at_ms, None);
        let policy = self.terms.rules.policy;
        let newest_ms = entry.liveness.interval().unwrap().as_ms();
        let blind = &self.blind;
        let producer = &mut self.producers[who];
        let is_alive = producer.is_alive;
        let member = producer.member(&id).unwrap();
        let has_changed = newest_ms != member.newest_ms;
        member.newest_ms = newest_ms;
        if has_changed {
            member.longest_ms = member.longest_ms.max(newest_ms);
        }
        let is_running = entry.liveness.running();
        member.phase = match (member.phase, is_running) {
            (_, None) => Phase::Inactive,
            (Phase::Active(timer), Some(_)) if has_changed => Phase::Active(Timer {
                promise_ms: timer.promise_ms,
                ..started
            }),
            (Phase::Active(timer), Some((running, _))) => {
                // It may have been SUSPENDED just before, by a pulse in the same commit.
                let was_due = at_ms >= member.fair_ms(&timer, &policy, blind);
                if running.base == started.base && was_due && !member.is_faithful {
                    Phase::Active(started)
                } else {
                    Phase::Active(timer)
                }
            }
            (Phase::Inactive | Phase::Suspended, Some(_)) => {
                member.is_faithful = is_alive;
                Phase::Active(started)
            }
        };
        producer.has_more_to_beat(self.now_ms, &mut self.random);
        self.check_member(who, id);
    }

    fn beaten(
        &mut self,
        who: usize,
        id: ServiceId,
        outcome: BatchOutcome,
        promise_ms: Option<u64>,
        at_ms: u64,
        is_heard: bool,
    ) {
        let heard = self.timer_from(at_ms, promise_ms);
        let keeps_out = self.keeps_out;
        let is_alive = self.producers[who].is_alive;
        let Some(member) = self.producers[who].member(&id) else {
            assert_eq!(outcome, BatchOutcome::Unknown, "{}", self.story(id));
            return;
        };
        let is_off = matches!(member.phase, Phase::Inactive);
        let is_refused = matches!(outcome, BatchOutcome::Unknown | BatchOutcome::Inactive);
        if is_off || is_refused {
            assert!(
                is_off && outcome == BatchOutcome::Inactive,
                "{outcome:?}: {}",
                self.story(id)
            );
            return;
        }
        member.phase = Phase::Active(heard);
        member.beats += 1;
        member.is_faithful = is_alive;
        match outcome {
            BatchOutcome::NewInterval(told) => {
                member.newest_ms = told.as_ms();
                member.follows = false;
                member.longest_ms = member.longest_ms.max(told.as_ms());
                if is_heard || keeps_out {
                    member.pace_ms = told.as_ms();
                    self.producers[who].learns_interval(told.as_secs());
                }
            }
            // The first such beat may repeat one whose answer was lost.
            _ if member.follows => member.longest_ms = member.newest_ms,
            _ => member.follows = true,
        }
        self.tally.beats += 1;
        self.check_member(who, id);
    }

    /// The registry's clock at an instant of its present life.
    pub(super) fn steady(&self, at_ms: u64) -> Steady {
        Steady::from_ms(at_ms + self.ahead_ms)
    }

    /// A timer that starts in the registry's present life.
    fn timer_from(&self, at_ms: u64, promise_ms: Option<u64>) -> Timer {
        Timer {
            base_ms: at_ms,
            base: self.steady(at_ms),
            promise_ms,
        }
    }
}
