//! The fake applications: how they pace their beats, and what they ask of the registry.

use mepulse::domain::service::LivenessOffer;
use mepulse::domain::{
    AppInstanceId, Heartbeat, ProducerState, RetryPromise, Service, ServiceId, ServiceKey,
    ServiceState,
};
use mepulse::registry::{BatchOutcome, Entry, Error, Precondition, Registry};

use super::model::{Member, Phase};
use super::{STALL_MS, between};
use crate::support::bench::{GRACE_MS, service};
use crate::support::random::Random;

/// What a producer asks for.
#[derive(Debug, Clone)]
pub(super) enum Wish {
    Register(AppInstanceId, Box<Service>, ProducerState),
    Put(ServiceKey, Box<Service>, ServiceState),
    Remove(ServiceKey),
    Beat(ServiceKey, Heartbeat),
    /// `None`: for all.
    BeatMany(AppInstanceId, Option<Vec<ServiceId>>, Heartbeat),
}

/// What it is told.
#[derive(Debug)]
pub(super) enum Told {
    Entry(Box<Entry>),
    Removed,
    Beaten(Vec<(ServiceId, BatchOutcome)>),
}

impl Wish {
    pub(super) async fn ask(self, registry: Registry) -> Result<Told, Error> {
        let entry = |entry| Told::Entry(Box::new(entry));
        match self {
            Self::Register(app, service, state) => {
                registry.register(app, *service, state).await.map(entry)
            }
            Self::Put(key, service, state) => registry
                .replace(key, *service, state, Precondition::NONE)
                .await
                .map(entry),
            Self::Remove(key) => registry.remove(key).await.map(|()| Told::Removed),
            Self::Beat(key, heartbeat) => {
                let id = key.service;
                let beaten = registry
                    .heartbeat(key, heartbeat, Precondition::NONE)
                    .await?;
                let outcome = if beaten.new_interval {
                    BatchOutcome::NewInterval(beaten.liveness.agreement.shown())
                } else {
                    BatchOutcome::Alive
                };
                Ok(Told::Beaten(vec![(id, outcome)]))
            }
            Self::BeatMany(app, ids, heartbeat) => registry
                .heartbeat_many(app, ids, heartbeat)
                .await
                .map(Told::Beaten),
        }
    }

    /// What is promised with it.
    pub(super) fn promise_ms(&self) -> Option<u64> {
        match self {
            Self::Beat(_, heartbeat) | Self::BeatMany(_, _, heartbeat) => {
                heartbeat.promise.map(|promise| promise.as_ms())
            }
            Self::Register(..) | Self::Put(..) | Self::Remove(_) => None,
        }
    }

    pub(super) fn is_beat(&self) -> bool {
        matches!(self, Self::Beat(..) | Self::BeatMany(..))
    }
}

pub(super) fn offering(offer_s: Option<u32>) -> Box<Service> {
    Box::new(Service {
        liveness_offer: offer_s.map(LivenessOffer::Seconds),
        ..service()
    })
}

/// One application instance. While it lives it keeps its promises.
#[derive(Debug)]
pub(super) struct Producer {
    pub(super) app: AppInstanceId,
    pub(super) is_alive: bool,
    /// While it is not heard it tries again so often; `None`: as if nothing were wrong.
    retry_s: Option<u32>,
    /// All its services beat at once.
    beats_many: bool,
    /// It counts the interval from the answer. Only for those who promise nothing: they are granted
    /// the interval from the end of a blind spot.
    paces_from_answer: bool,
    pub(super) next_try_ms: Option<u64>,
    pub(super) next_turn_ms: u64,
    /// Its registration is not answered yet.
    pub(super) is_registering: bool,
    pub(super) members: Vec<Member>,
}

impl Producer {
    pub(super) fn new(number: usize, random: &mut Random) -> Self {
        let retry_s = (!random.once_in(3)).then(|| draw_u32(random, 1, 30));
        Self {
            app: AppInstanceId::parse(&format!("app-{number}")).unwrap(),
            is_alive: true,
            retry_s,
            beats_many: random.once_in(3),
            paces_from_answer: retry_s.is_none() && random.once_in(2),
            next_try_ms: None,
            next_turn_ms: between(random, 1, 60_000),
            is_registering: false,
            members: Vec::new(),
        }
    }

    pub(super) fn member(&mut self, id: &ServiceId) -> Option<&mut Member> {
        self.members
            .iter_mut()
            .find(|member| member.key.service == *id)
    }

    /// The shortest interval it goes by.
    fn pace_ms(&self) -> Option<u64> {
        let beating = self.members.iter().filter(|member| beats(member));
        beating.map(|member| member.pace_ms).min()
    }

    fn retry_ms(&self) -> Option<u64> {
        let pace_ms = self.pace_ms()?;
        Some(self.retry_s.map_or(pace_ms, |secs| u64::from(secs) * 1000))
    }

    /// The next try, when this one at `sent_ms` was heard and answered.
    pub(super) fn was_answered(&mut self, sent_ms: u64, now_ms: u64, random: &mut Random) {
        let from_ms = if self.paces_from_answer {
            now_ms
        } else {
            sent_ms
        };
        self.plan(from_ms, self.pace_ms(), now_ms, random);
    }

    /// The next try, when this one at `sent_ms` is not answered, or not yet.
    pub(super) fn was_not_answered(&mut self, sent_ms: u64, now_ms: u64, random: &mut Random) {
        self.plan(sent_ms, self.retry_ms(), now_ms, random);
    }

    fn plan(&mut self, from_ms: u64, period_ms: Option<u64>, now_ms: u64, random: &mut Random) {
        let (Some(period_ms), Some(pace_ms), true) = (period_ms, self.pace_ms(), self.is_alive)
        else {
            self.next_try_ms = None;
            return;
        };
        // As late as is legal: a frozen moment may add the stall.
        let jitter_ms = (pace_ms / 5).max(GRACE_MS) - STALL_MS - 1;
        let wait_ms = match random.below(4) {
            0 => between(random, 1, period_ms + jitter_ms),
            1 => period_ms + jitter_ms,
            _ => between(random, period_ms, period_ms + jitter_ms),
        };
        self.next_try_ms = Some((from_ms + wait_ms).max(now_ms + 1));
    }

    /// Makes sure that it tries in time for a service that has just become ACTIVE.
    pub(super) fn has_more_to_beat(&mut self, now_ms: u64, random: &mut Random) {
        let planned_ms = self.next_try_ms;
        self.plan(now_ms, self.pace_ms(), now_ms, random);
        self.next_try_ms = match (self.next_try_ms, planned_ms) {
            (Some(new_ms), Some(planned_ms)) => Some(new_ms.min(planned_ms)),
            (new_ms, _) => new_ms,
        };
    }

    /// While nobody can be reached until `until_ms`: tries that change nothing are skipped.
    pub(super) fn skips_hopeless_tries(&mut self, now_ms: u64, until_ms: u64) {
        if let (Some(next_ms), Some(retry_ms)) = (self.next_try_ms, self.retry_ms()) {
            let tries = (until_ms.saturating_sub(now_ms) / retry_ms).saturating_sub(2);
            self.next_try_ms = Some(next_ms + tries * retry_ms);
        }
    }

    /// It may not promise more than the interval.
    pub(super) fn learns_interval(&mut self, secs: u32) {
        self.retry_s = self.retry_s.map(|retry| retry.min(secs));
    }

    /// Its beat, if it has a service to beat for.
    pub(super) fn beat(&self, random: &mut Random) -> Option<Wish> {
        let beating = || self.members.iter().filter(|member| beats(member));
        let first = beating().next()?;
        let promise = self.retry_s.filter(|_| !random.once_in(8));
        let heartbeat = Heartbeat {
            promise: promise.and_then(RetryPromise::from_secs),
        };
        if !self.beats_many {
            return Some(Wish::Beat(first.key.clone(), heartbeat));
        }
        let named = random.once_in(2);
        let ids = named.then(|| beating().map(|member| member.key.service).collect());
        Some(Wish::BeatMany(self.app.clone(), ids, heartbeat))
    }

    /// What else it does when its turn comes; dying and coming back are done at once.
    pub(super) fn turn(&mut self, now_ms: u64, random: &mut Random) -> Option<Wish> {
        self.next_turn_ms = now_ms + super::spread(random, 5_000, 2_000_000);
        if !self.is_alive {
            if !random.once_in(4) {
                self.is_alive = true;
                self.next_try_ms = Some(now_ms + between(random, 1, 5_000));
            }
            return None;
        }
        if self.is_registering {
            return None;
        }
        if self.members.is_empty() || (self.beats_many && self.members.len() < 4) {
            return Some(self.registration(random));
        }
        let chosen = random.below(self.members.len());
        let member = self.members.get_mut(chosen)?;
        let key = member.key.clone();
        let put =
            |offer_s: Option<u32>, state| Some(Wish::Put(key.clone(), offering(offer_s), state));
        let was_on = beats(member);
        match random.below(10) {
            0..3 => {
                self.is_alive = false;
                self.next_try_ms = None;
                self.members.iter_mut().for_each(|m| m.is_faithful = false);
                None
            }
            3 => Some(Wish::Remove(key)),
            4 | 5 => put(
                None,
                if was_on {
                    ServiceState::Inactive
                } else {
                    ServiceState::Active
                },
            ),
            6 | 7 => {
                let same = random.once_in(2).then_some(member.offer_s);
                put(same, ServiceState::Active)
            }
            8 => {
                let offer_s = draw_interval(random);
                // It may be told so at any time from now on.
                member.offer_s = offer_s;
                self.learns_interval(offer_s);
                put(Some(offer_s), ServiceState::Active)
            }
            _ if self.beats_many => Some(self.registration(random)),
            _ => None,
        }
    }

    pub(super) fn registration(&mut self, random: &mut Random) -> Wish {
        let offer_s = draw_interval(random);
        self.learns_interval(offer_s);
        self.is_registering = true;
        let state = if random.once_in(10) {
            ProducerState::Inactive
        } else {
            ProducerState::Active
        };
        Wish::Register(self.app.clone(), offering(Some(offer_s)), state)
    }
}

/// Whether its producer beats for it: the SUSPENDED come back by a beat.
fn beats(member: &Member) -> bool {
    matches!(member.phase, Phase::Active(_) | Phase::Suspended)
}

/// 5 to 600 s; short ones are for the speed, long ones for the blind spots.
fn draw_interval(random: &mut Random) -> u32 {
    if random.once_in(3) {
        draw_u32(random, 5, 60)
    } else {
        draw_u32(random, 30, 600)
    }
}

fn draw_u32(random: &mut Random, from: u32, to: u32) -> u32 {
    u32::try_from(between(random, u64::from(from), u64::from(to))).unwrap()
}
