//! Everything that can befall a registry, and when.

use std::sync::Arc;

use mepulse::clock::Machine;
use mepulse::domain::{BlindCause, LivenessInterval};
use mepulse::metrics::Metrics;
use mepulse::registry::{Boot, Error};

use super::producer::Wish;
use super::world::{Reach, Sim};
use super::{STALL_MS, between, spread};
use crate::support::bench::terms;

const HOUR_MS: u64 = 3_600_000;

/// What happens next, and when.
#[derive(Debug)]
pub(super) struct Trouble {
    pub(super) at_ms: u64,
    next: Next,
}

#[derive(Debug, Clone, Copy)]
enum Next {
    /// Something new.
    Begin,
    Thaw,
    /// The disk goes on, if it does; the stall began then.
    Release {
        since_ms: u64,
    },
    EndOfDrain,
    Start {
        reboots: bool,
        wall_step_ms: i64,
    },
}

impl Trouble {
    pub(super) fn first() -> Self {
        Self {
            at_ms: 60_000,
            next: Next::Begin,
        }
    }
}

impl Sim {
    pub(super) async fn step_trouble(&mut self) {
        match self.trouble.next {
            Next::Begin => self.begin_trouble().await,
            Next::Thaw => self.thaw().await,
            Next::Release { since_ms } => self.release(since_ms).await,
            Next::EndOfDrain => {
                self.running.take().unwrap().stop().unwrap();
                self.stays_down();
            }
            Next::Start {
                reboots,
                wall_step_ms,
            } => {
                if reboots {
                    self.machine.reboot();
                }
                self.machine.step_wall_ms(wall_step_ms);
                if self.start() {
                    self.calm();
                } else {
                    let again_ms = spread(&mut self.random, 100, 10_000);
                    self.next_in(again_ms, self.trouble.next);
                }
            }
        }
    }

    fn next_in(&mut self, ms: u64, next: Next) {
        self.trouble = Trouble {
            at_ms: self.now_ms + ms,
            next,
        };
    }

    /// Time to be judged in; sometimes hardly any.
    fn calm(&mut self) {
        let calm_ms = if self.random.once_in(2) {
            between(&mut self.random, 1, 5_000)
        } else {
            spread(&mut self.random, 5_000, 1_000_000)
        };
        self.pulse_every_ms = spread(&mut self.random, STALL_MS / 4, STALL_MS);
        self.next_in(calm_ms, Next::Begin);
    }

    async fn begin_trouble(&mut self) {
        self.steps += 1;
        self.tally.troubles += 1;
        self.forget_the_past();
        let is_short = self.random.once_in(3);
        let length_ms = if is_short {
            between(&mut self.random, 1, STALL_MS)
        } else {
            spread(&mut self.random, STALL_MS + 1, 200_000)
        };
        match self.random.below(10) {
            0 | 1 => self.freeze(length_ms, false),
            2 => self.freeze(length_ms, true),
            3..6 => self.stall(length_ms).await,
            6 => self.crash(),
            7 => {
                self.store.fail_commits();
                self.fail().await;
            }
            8 => self.stop_in_order(),
            _ => self.reconfigure().await,
        }
    }

    fn freeze(&mut self, length_ms: u64, asleep: bool) {
        if length_ms > STALL_MS {
            self.blind.begins(self.now_ms);
        }
        self.reach = Reach::Frozen { asleep };
        self.next_in(length_ms, Next::Thaw);
    }

    /// Who has waited is heard now, before or after the first pulse.
    async fn thaw(&mut self) {
        self.blind.ends(self.now_ms);
        self.reach = Reach::Up;
        if self.random.once_in(2) {
            self.pulse().await;
        }
        for (who, wish, sent_ms) in std::mem::take(&mut self.in_the_ice) {
            self.steps += 1;
            let answer = wish.clone().ask(self.registry()).await;
            self.answered(who, &wish, answer, sent_ms, self.now_ms, true);
        }
        let end = self.random.below(8);
        if self.keeps_out {
            self.pulse().await;
        }
        match end {
            0 => self.crash(),
            1 => self.stop_in_order(),
            _ => {
                self.pulse().await;
                self.calm();
            }
        }
    }

    /// Somebody beats, so that there is something to commit; his place, if anybody lives.
    async fn somebody_beats(&mut self) -> Option<(usize, Wish)> {
        let count = self.producers.len();
        let first = self.random.below(count);
        let mut all = (first..count).chain(0..first);
        all.find_map(|who| {
            let producer = &self.producers[who];
            let beat = producer.is_alive.then(|| producer.beat(&mut self.random));
            Some((who, beat??))
        })
    }

    async fn stall(&mut self, length_ms: u64) {
        let Some((who, wish)) = self.somebody_beats().await else {
            return self.calm();
        };
        if length_ms > STALL_MS {
            self.blind.begins(self.now_ms);
        }
        self.store.hold_commits(true);
        self.reach = Reach::Stalled;
        let since_ms = self.now_ms;
        self.next_in(length_ms, Next::Release { since_ms });
        self.send(who, wish).await;
        while self.store.waiting() == 0 {
            tokio::task::yield_now().await;
        }
    }

    /// The disk goes on, and everything that waits is dealt with; or the process dies before, in the
    /// middle or right after.
    async fn release(&mut self, since_ms: u64) {
        let end = self.random.below(8);
        // What is committed before the cut.
        let cut = match end {
            0 => Some(0),
            1 => Some(1),
            _ => None,
        };
        if cut.is_some() {
            // Even of a short stall nothing is heard that came in the meantime.
            self.blind.begins(since_ms);
        }
        self.store.fail_commits_after(cut);
        self.store.hold_commits(false);
        let mut at_ms = since_ms;
        for waiting in std::mem::take(&mut self.waiting) {
            let answer = waiting.answer.await;
            let is_heard = end >= 3;
            let (who, sent_ms) = (waiting.who, waiting.sent_ms);
            assert!(cut != Some(0) || matches!(answer, Err(Error::Failed)));
            self.answered(who, &waiting.wish, answer, sent_ms, at_ms, is_heard);
            at_ms = self.now_ms;
        }
        let has_pulsed = !self.pulses.is_empty();
        for pulse in std::mem::take(&mut self.pulses) {
            pulse.await;
        }
        if end < 3 {
            return self.crash();
        }
        if self.now_ms - since_ms > STALL_MS {
            self.blind.excuse(since_ms, self.now_ms, true);
        }
        self.blind.ends(self.now_ms);
        self.reach = Reach::Up;
        if has_pulsed {
            self.last_judged_ms = self.last_pulse_ms;
        }
        self.check_states();
        self.check_members();
        self.calm();
    }

    /// The store fails under somebody's beat.
    async fn fail(&mut self) {
        if let Some((_, wish)) = self.somebody_beats().await {
            let answer = wish.ask(self.registry()).await;
            assert!(matches!(answer, Err(Error::Failed)), "{answer:?}");
            self.registry().failed().await;
            assert!(!self.registry().condition().not_ready.is_empty());
        }
        self.crash();
    }

    /// The process dies without a word.
    fn crash(&mut self) {
        self.blind.begins(self.now_ms);
        let survivor = self.store.snapshot();
        self.store.fail_commits();
        let _ = self.running.take().unwrap().stop();
        self.store = survivor;
        self.stays_down();
    }

    fn stop_in_order(&mut self) {
        self.registry().stop_watching();
        self.blind.begins(self.now_ms);
        self.reach = Reach::Stopping;
        let drain_ms = between(&mut self.random, 0, 5_000);
        self.next_in(drain_ms, Next::EndOfDrain);
    }

    fn stays_down(&mut self) {
        self.reach = Reach::Down;
        let outage_ms = if self.random.once_in(2) {
            spread(&mut self.random, 100, 30_000)
        } else {
            spread(&mut self.random, 10_000, 4 * HOUR_MS)
        };
        let reboots = self.random.once_in(3);
        let wall_step_ms = self.draw_wall_step();
        let is_ahead = self.wall_gained_ms() + wall_step_ms > 0;
        self.next_in(
            outage_ms,
            Next::Start {
                reboots: reboots && !(is_ahead && self.keeps_out),
                wall_step_ms,
            },
        );
    }

    /// How far the wall clock has got ahead of true time since the last mark.
    fn wall_gained_ms(&self) -> i64 {
        let mark = self.store.mark().unwrap();
        let passed_ms = self.steady(self.now_ms).ms_since(mark.steady);
        let signed = |ms: u64| i64::try_from(ms).unwrap();
        let wall_ms = self.machine.read().wall.as_ms();
        signed(wall_ms) - signed(mark.reading.wall.as_ms() + passed_ms)
    }

    fn draw_wall_step(&mut self) -> i64 {
        let ms = i64::try_from(between(&mut self.random, 1, HOUR_MS)).unwrap();
        match self.random.below(4) {
            0 => ms,
            1 => -ms,
            _ => 0,
        }
    }

    /// Loads the store and starts on it; `false` when the store fails before the first answer.
    pub(super) fn start(&mut self) -> bool {
        let judged_by = self.terms.rules.policy;
        if self.random.once_in(3) {
            self.draw_policy();
        }
        self.terms.queue_max = [2, 64][self.random.below(2)];
        let is_cut = self.tally.starts > 0 && self.random.once_in(6);
        let left = is_cut.then(|| self.random.next() % 2);
        self.store.fail_commits_after(left);
        let clocks: Arc<dyn Machine> = Arc::new(self.machine.clone());
        let boot = Boot::load(Box::new(self.store.clone())).unwrap();
        let proof_ms = self.last_proof_ms();
        let started = boot.start(self.terms.clone(), clocks, Arc::new(Metrics::new()));
        let Ok(running) = started else {
            assert!(is_cut);
            self.store = self.store.snapshot();
            return false;
        };
        self.store.fail_commits_after(None);
        let ahead_ms = running.registry().now().steady.as_ms() - self.now_ms;
        // Whether the registry knows how long it was away.
        let spots = self.store.blind_spots().into_iter();
        let outage = spots
            .filter(|spot| matches!(spot.cause, BlindCause::Down | BlindCause::PlannedStop))
            .max_by_key(|spot| spot.end);
        let is_measured =
            ahead_ms == self.ahead_ms && outage.is_none_or(|outage| outage.length_known);
        self.ahead_ms = ahead_ms;
        self.running = Some(running);
        self.blind.excuse(proof_ms, self.now_ms, is_measured);
        self.blind.ends(self.now_ms);
        self.last_pulse_ms = self.now_ms;
        self.reach = Reach::Up;
        self.tally.starts += 1;
        self.check_restart(&judged_by);
        true
    }

    /// Until then it is on the disk that somebody watched, or was judged.
    fn last_proof_ms(&self) -> u64 {
        let mark = self.store.mark().map(|mark| mark.steady.as_ms());
        let mark_ms = mark.map_or(0, |steady_ms| steady_ms - self.ahead_ms);
        let is_old = self.last_judged_ms > mark_ms + self.terms.idle_mark_interval_ms + STALL_MS;
        assert!(!is_old, "the mark of {mark_ms} is stale");
        mark_ms.min(self.last_judged_ms)
    }

    async fn reconfigure(&mut self) {
        let wall_step_ms = self.draw_wall_step();
        self.machine.step_wall_ms(wall_step_ms);
        // What is due by the old rules is judged by them.
        self.pulse().await;
        self.draw_policy();
        let registry = self.registry();
        registry.reload(self.terms.rules);
        // One for the new rules, one for the index that they bring forward.
        registry.settle().await;
        registry.settle().await;
        self.pulse().await;
        self.calm();
    }

    /// Never less grace than the producers count on.
    fn draw_policy(&mut self) {
        let mut policy = terms().rules.policy;
        if self.random.once_in(2) {
            policy.grace_percent += u32::try_from(self.random.below(40)).unwrap();
            policy.grace_min_ms += between(&mut self.random, 0, 10_000);
        }
        if self.random.once_in(3) {
            policy.max_interval = LivenessInterval::from_secs(120).unwrap();
        }
        self.terms.rules.policy = policy;
    }
}
