//! The registry, its machine and its store, and the producers around it: moves true time.

use std::collections::{BTreeSet, HashSet};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

use mepulse::clock::ManualMachine;
use mepulse::domain::ServiceId;
use mepulse::registry::{Error, Registry, Running, Terms};
use mepulse::store::memory::MemoryStore;

use super::check::Chronicle;
use super::model::Blindness;
use super::producer::{Producer, Told, Wish};
use super::trouble::Trouble;
use super::{STALL_MS, between};
use crate::support::bench::terms;
use crate::support::random::Random;

/// Whether beats get through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    Up,
    /// Whoever waits long enough is heard at the end.
    Frozen {
        asleep: bool,
    },
    /// The disk stalls: what comes now waits for it.
    Stalled,
    /// The server takes in nothing more, and is about to end.
    Stopping,
    Down,
}

type Answer = Pin<Box<dyn Future<Output = Result<Told, Error>>>>;

/// A wish whose answer has not come.
pub(super) struct Waiting {
    pub(super) who: usize,
    pub(super) wish: Wish,
    pub(super) sent_ms: u64,
    pub(super) answer: Answer,
}

/// Counts what happened, to show that the run was worth it.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) beats: u64,
    pub(super) refused: u64,
    pub(super) verdicts: u64,
    pub(super) starts: u64,
    pub(super) troubles: u64,
}

pub(super) struct Sim {
    /// Of what is known to go wrong, see [`super::found`].
    pub(super) keeps_out: bool,
    pub(super) random: Random,
    pub(super) now_ms: u64,
    pub(super) machine: ManualMachine,
    pub(super) store: MemoryStore,
    pub(super) running: Option<Running>,
    pub(super) terms: Terms,
    /// What the registry's clock shows beyond true time.
    pub(super) ahead_ms: u64,
    pub(super) pulse_every_ms: u64,
    pub(super) last_pulse_ms: u64,
    pub(super) last_judged_ms: u64,
    pub(super) reach: Reach,
    pub(super) trouble: Trouble,
    pub(super) blind: Blindness,
    pub(super) producers: Vec<Producer>,
    /// Who does something next, and when.
    agenda: BTreeSet<(u64, usize)>,
    pub(super) waiting: Vec<Waiting>,
    pub(super) pulses: Vec<Pin<Box<dyn Future<Output = ()>>>>,
    /// Wishes that arrive when the process thaws.
    pub(super) in_the_ice: Vec<(usize, Wish, u64)>,
    pub(super) deleted: HashSet<ServiceId>,
    pub(super) chronicle: Chronicle,
    pub(super) steps: u64,
    pub(super) tally: Tally,
}

impl Sim {
    pub(super) fn new(mut random: Random, producers: usize) -> Self {
        let producers: Vec<_> = (0..producers)
            .map(|number| Producer::new(number, &mut random))
            .collect();
        let agenda = producers
            .iter()
            .enumerate()
            .map(|(who, producer)| (producer.next_turn_ms, who))
            .collect();
        let mut sim = Self {
            keeps_out: std::env::var_os("MEPULSE_SIMULATION_ALL").is_none(),
            random,
            now_ms: 0,
            machine: ManualMachine::new(),
            store: MemoryStore::default(),
            running: None,
            terms: Terms {
                stall_ms: STALL_MS,
                queue_max: 64,
                ..terms()
            },
            ahead_ms: 0,
            pulse_every_ms: STALL_MS,
            last_pulse_ms: 0,
            last_judged_ms: 0,
            reach: Reach::Down,
            trouble: Trouble::first(),
            blind: Blindness::default(),
            producers,
            agenda,
            waiting: Vec::new(),
            pulses: Vec::new(),
            in_the_ice: Vec::new(),
            deleted: HashSet::new(),
            chronicle: Chronicle::default(),
            steps: 0,
            tally: Tally::default(),
        };
        sim.blind.begins(0);
        assert!(sim.start());
        sim
    }

    /// Runs so many steps, and ends in good order.
    pub(super) async fn run(&mut self, steps: u64) {
        while self.steps < steps || self.reach != Reach::Up {
            let (wakes_ms, who) = *self.agenda.first().unwrap();
            if self.trouble.at_ms <= wakes_ms {
                self.pass_until(self.trouble.at_ms).await;
                self.step_trouble().await;
                continue;
            }
            self.pass_until(wakes_ms).await;
            self.wake(who).await;
        }
        self.running.take().unwrap().stop().unwrap();
        // A run that shows nothing would be green as well.
        let Tally {
            verdicts, refused, ..
        } = self.tally;
        assert!(steps < 10_000 || (verdicts > 100 && refused > 0 && self.tally.starts > 5));
    }

    pub(super) fn summary(&self) -> String {
        let (steps, secs) = (self.steps, self.now_ms / 1000);
        format!("{steps} steps, {secs} s, {:?}", self.tally)
    }

    pub(super) fn registry(&self) -> Registry {
        self.running.as_ref().unwrap().registry().clone()
    }

    /// Lets time pass; under watch a pulse comes often enough.
    async fn pass_until(&mut self, until_ms: u64) {
        while self.now_ms < until_ms {
            let step_ms = match self.reach {
                Reach::Up | Reach::Stopping | Reach::Stalled => self.pulse_every_ms,
                Reach::Frozen { .. } | Reach::Down => u64::MAX / 2,
            };
            let pulse_ms = (self.last_pulse_ms + step_ms).max(self.now_ms);
            let to_ms = until_ms.min(pulse_ms);
            self.advance(to_ms - self.now_ms);
            if to_ms < pulse_ms {
                return;
            }
            match self.reach {
                Reach::Up | Reach::Stopping => self.pulse().await,
                Reach::Stalled => self.pulse_into_the_queue().await,
                Reach::Frozen { .. } | Reach::Down => {}
            }
        }
    }

    pub(super) fn advance(&mut self, ms: u64) {
        match self.reach {
            Reach::Frozen { asleep: true } => self.machine.sleep_ms(ms),
            Reach::Frozen { asleep: false }
            | Reach::Up
            | Reach::Stalled
            | Reach::Stopping
            | Reach::Down => self.machine.advance_ms(ms),
        }
        self.now_ms += ms;
    }

    /// Has everything judged that is due, and the verdicts checked.
    pub(super) async fn pulse(&mut self) {
        self.note_pulse();
        self.registry().settle().await;
        if self.reach == Reach::Up {
            self.last_judged_ms = self.now_ms;
        }
        self.check_states();
    }

    async fn pulse_into_the_queue(&mut self) {
        self.note_pulse();
        let registry = self.registry();
        let mut pulse: Pin<Box<dyn Future<Output = ()>>> =
            Box::pin(async move { registry.settle().await });
        poll_fn(|context| Poll::Ready(pulse.as_mut().poll(context).is_ready())).await;
        self.pulses.push(pulse);
    }

    /// A gap between pulses is excused, whatever it came from.
    pub(super) fn note_pulse(&mut self) {
        if self.now_ms - self.last_pulse_ms > STALL_MS {
            self.blind.excuse(self.last_pulse_ms, self.now_ms, true);
        }
        self.last_pulse_ms = self.now_ms;
    }

    /// A producer tries to beat, or does what its turn is.
    async fn wake(&mut self, who: usize) {
        let now_ms = self.now_ms;
        self.agenda.pop_first();
        let producer = &mut self.producers[who];
        if producer.next_try_ms.is_some_and(|at| at <= now_ms) {
            match producer.beat(&mut self.random) {
                Some(beat) => self.send(who, beat).await,
                None => producer.next_try_ms = None,
            }
        } else if matches!(self.reach, Reach::Up | Reach::Stalled) {
            if let Some(wish) = producer.turn(now_ms, &mut self.random) {
                self.send(who, wish).await;
            }
        } else {
            // It looks again when somebody may answer.
            producer.next_turn_ms = self.trouble.at_ms + between(&mut self.random, 1, 10_000);
        }
        self.reschedule(who);
    }

    /// After its next try or turn has changed.
    pub(super) fn reschedule(&mut self, who: usize) {
        let producer = &self.producers[who];
        let next_ms = producer
            .next_try_ms
            .map_or(producer.next_turn_ms, |at| at.min(producer.next_turn_ms));
        self.agenda.retain(|(_, other)| *other != who);
        self.agenda.insert((next_ms, who));
    }

    /// A wish goes out, and is answered as the state of things allows.
    pub(super) async fn send(&mut self, who: usize, wish: Wish) {
        let sent_ms = self.now_ms;
        if wish.is_beat() {
            self.producers[who].was_not_answered(sent_ms, sent_ms, &mut self.random);
        }
        match self.reach {
            Reach::Up => {
                self.steps += 1;
                let answer = wish.clone().ask(self.registry()).await;
                let is_heard = !self.random.once_in(200);
                self.answered(who, &wish, answer, sent_ms, sent_ms, is_heard);
            }
            Reach::Stalled => {
                self.steps += 1;
                let mut answer: Answer = Box::pin(wish.clone().ask(self.registry()));
                let polled = poll_fn(|context| Poll::Ready(answer.as_mut().poll(context))).await;
                match polled {
                    Poll::Ready(told) => self.answered(who, &wish, told, sent_ms, sent_ms, true),
                    Poll::Pending => self.waiting.push(Waiting {
                        who,
                        wish,
                        sent_ms,
                        answer,
                    }),
                }
            }
            Reach::Frozen { .. } => {
                // It waits for the answer only until it has to try again.
                let until_ms = self.trouble.at_ms;
                let waits = self.producers[who]
                    .next_try_ms
                    .is_some_and(|next| next >= until_ms);
                let is_long = self.blind.is_open();
                if wish.is_beat() && (waits || !is_long) {
                    self.in_the_ice.push((who, wish, sent_ms));
                }
            }
            Reach::Stopping | Reach::Down => {
                let until_ms = self.trouble.at_ms;
                if self.reach == Reach::Down {
                    self.producers[who].skips_hopeless_tries(sent_ms, until_ms);
                }
            }
        }
    }
}
