//! One service, as the agent sees it: what its probe says, what the platform says, and what follows.
//! Pure: time comes in as an argument, and requests go out as values.

use super::beat::{Said, Single};
use super::config::{self, OnConflict, WhenUnhealthy};
use super::info::Info;
use super::pace::retry_ms;
use super::settle::{Settled, Wanted};
use crate::domain::{Moment, Steady};

/// What the probe has said so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Health {
    /// Nothing yet.
    Unknown,
    /// The service is well, or has no probe.
    Healthy,
    /// It is not.
    Unhealthy,
}

/// Counts yeses and noes.
#[derive(Debug, Clone)]
pub(super) struct Verdict {
    health: Health,
    unhealthy_after: u32,
    healthy_after: u32,
    /// In a row.
    yeses: u32,
    noes: u32,
    /// Why the probe said no last.
    pub(super) reason: Option<String>,
}

impl Verdict {
    /// Without a probe a service is always well.
    pub(super) fn new(probe: Option<&config::Probe>) -> Self {
        Self {
            health: probe.map_or(Health::Healthy, |_| Health::Unknown),
            unhealthy_after: probe.map_or(1, |probe| probe.unhealthy_after),
            healthy_after: probe.map_or(1, |probe| probe.healthy_after),
            yeses: 0,
            noes: 0,
            reason: None,
        }
    }

    /// The same under another probe: what is known holds until that one has spoken.
    fn under(self, probe: Option<&config::Probe>) -> Self {
        let fresh = Self::new(probe);
        match probe {
            Some(_) => Self {
                health: self.health,
                ..fresh
            },
            None => fresh,
        }
    }

    pub(super) fn health(&self) -> Health {
        self.health
    }

    /// The probe has spoken. The first yes of all is enough: a service that is up need not prove it
    /// for long, one that comes back has failed before.
    pub(super) fn judge(&mut self, said: Result<(), String>) {
        match said {
            Ok(()) => {
                self.yeses = self.yeses.saturating_add(1);
                self.noes = 0;
                self.reason = None;
                if self.health == Health::Unknown || self.yeses >= self.healthy_after {
                    self.health = Health::Healthy;
                }
            }
            Err(reason) => {
                self.noes = self.noes.saturating_add(1);
                self.yeses = 0;
                self.reason = Some(reason);
                if self.noes >= self.unhealthy_after {
                    self.health = Health::Unhealthy;
                }
            }
        }
    }
}

/// Where a service stands with the platform.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Stage {
    /// It is not known to be registered.
    Unsettled,
    /// It is.
    Settled(Info),
    /// It is, and somebody else has set it INACTIVE.
    Conflict(Info),
}

/// One service.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) config: config::Service,
    pub(super) verdict: Verdict,
    pub(super) stage: Stage,
    /// Its configuration has changed since it was settled.
    pub(super) changed: bool,
    /// It had when the request under way began.
    was_changed: bool,
    /// A request that settles it is under way.
    pub(super) settling: bool,
    /// There may be a second registration; see [`super::settle`].
    in_doubt: bool,
    doubt_ends: bool,
    /// A beat that is heard after this ends the doubt.
    doubted_until: Steady,
    /// It is not settled (again) before.
    not_before: Steady,
    /// Settling has failed, or led nowhere, so many times in a row.
    failures: u32,
    /// When its newest beat that was heard began.
    pub(super) last_beat: Option<Moment>,
    pub(super) last_error: Option<String>,
}

impl Service {
    pub(super) fn new(config: config::Service) -> Self {
        Self {
            verdict: Verdict::new(config.probe.as_ref()),
            config,
            stage: Stage::Unsettled,
            changed: false,
            was_changed: false,
            settling: false,
            in_doubt: false,
            doubt_ends: false,
            doubted_until: Steady::from_ms(0),
            not_before: Steady::from_ms(0),
            failures: 0,
            last_beat: None,
            last_error: None,
        }
    }

    pub(super) fn info(&self) -> Option<&Info> {
        match &self.stage {
            Stage::Unsettled => None,
            Stage::Settled(info) | Stage::Conflict(info) => Some(info),
        }
    }

    /// The interval in seconds, as the platform wants it or as it is offered.
    pub(super) fn interval_s(&self) -> u32 {
        let told = self.info().and_then(|info| info.interval_s);
        told.unwrap_or(self.config.interval_s)
    }

    /// Whether it should be shown as ACTIVE, INACTIVE, or as whatever it is.
    fn wants_active(&self) -> Option<bool> {
        match (self.verdict.health(), self.config.when_unhealthy) {
            (Health::Healthy, _) => Some(true),
            (Health::Unhealthy, WhenUnhealthy::Inactive) => Some(false),
            // What is not known to be well is not announced.
            (Health::Unhealthy, WhenUnhealthy::Silence) | (Health::Unknown, _) => None,
        }
    }

    /// When it is to be settled, if there is anything to settle.
    pub(super) fn settle_at(&self, on_conflict: OnConflict) -> Option<Steady> {
        if self.settling {
            return None;
        }
        // While it only keeps quiet nothing is sent: a PUT of ACTIVE would wake it.
        let active = self.wants_active()?;
        let due = match &self.stage {
            Stage::Unsettled => true,
            Stage::Settled(info) => active == info.inactive || self.changed || self.doubt_ends,
            // What is to be INACTIVE, and is, can stay so.
            Stage::Conflict(_) => active && on_conflict != OnConflict::Stop || self.changed,
        };
        due.then_some(self.not_before)
    }

    /// Begins to settle it.
    pub(super) fn settle(&mut self, on_conflict: OnConflict) -> Wanted {
        self.settling = true;
        self.was_changed = std::mem::take(&mut self.changed);
        Wanted {
            name: self.config.name.clone(),
            registration: self.config.registration(),
            active: self.wants_active() != Some(false),
            insist: on_conflict == OnConflict::Activate,
            doubt_ends: self.doubt_ends,
        }
    }

    /// It is settled. A request whose answer was lost may arrive for `timeout_ms` more.
    pub(super) fn settled(&mut self, settled: Settled, now: Steady, timeout_ms: u64) {
        // An answer to what an earlier service of this name wanted: ours may be different.
        self.changed |= !self.settling;
        self.settling = false;
        self.in_doubt = settled.in_doubt;
        self.doubt_ends = false;
        self.doubted_until = now.plus_ms(timeout_ms);
        let has_beats = settled.info.beat.is_some();
        if settled.conflict {
            self.last_error = Some(
                "it is INACTIVE, and this agent has not set it so; see agent.on_conflict"
                    .to_owned(),
            );
            self.stage = Stage::Conflict(settled.info);
            self.not_before = now.plus_ms(u64::from(self.interval_s()) * 1000);
            return;
        }
        self.last_error = None;
        self.stage = Stage::Settled(settled.info);
        self.not_before = now;
        if !has_beats {
            self.failures = 0;
            // No beat will tell when the server has got over it.
            self.doubt_ends = self.in_doubt;
            self.not_before = self.doubted_until;
        }
    }

    /// Settling failed; the next try is not before `pause_ms`, and not before its own backoff.
    pub(super) fn unsettled(
        &mut self,
        reason: String,
        refused: bool,
        now: Steady,
        pause_ms: u64,
        cap_ms: u64,
        jitter: u64,
    ) {
        self.changed |= self.settling && self.was_changed;
        self.settling = false;
        self.last_error = Some(reason);
        let own_ms = match refused {
            true => {
                self.failures = self.failures.saturating_add(1);
                retry_ms(self.failures, cap_ms, jitter)
            }
            false => 0,
        };
        self.not_before = now.plus_ms(own_ms.max(pause_ms));
    }

    /// Its configuration has changed.
    pub(super) fn reconfigure(&mut self, config: config::Service, now: Steady) {
        if config.probe != self.config.probe {
            self.verdict = self.verdict.clone().under(config.probe.as_ref());
        }
        if config.registration() != self.config.registration() {
            self.changed = true;
            self.not_before = now;
        }
        self.config = config;
    }

    /// Whether beats go out for it.
    pub(super) fn beats(&self) -> bool {
        match &self.stage {
            Stage::Settled(info) => {
                info.beat.is_some() && !info.inactive && self.verdict.health() == Health::Healthy
            }
            Stage::Unsettled | Stage::Conflict(_) => false,
        }
    }

    /// Whether a beat of its own is due: it may have a longer interval than others.
    pub(super) fn is_due(&self, now: Steady) -> bool {
        let third_ms = u64::from(self.interval_s()) * 1000 / 3;
        self.last_beat
            .is_none_or(|beat| now.ms_since(beat.steady) >= third_ms - third_ms / 10)
    }

    /// Its beat.
    pub(super) fn beat(&self, resolve: impl Fn(&str) -> Option<String>) -> Option<Single> {
        let info = self.info()?;
        let link = info.beat.as_ref()?;
        Some(Single {
            id: info.id.clone(),
            url: resolve(&link.href)?,
            put: link.put,
        })
    }

    /// The server takes PUT, not PATCH.
    pub(super) fn put(&mut self) {
        if let Stage::Settled(info) = &mut self.stage
            && let Some(link) = &mut info.beat
        {
            link.put = true;
        }
    }

    /// What a beat led to that began then.
    pub(super) fn said(&mut self, said: Said, began: Moment, now: Steady, jitter: u64) {
        let failures = self.failures.saturating_add(1);
        // A beat that leads nowhere although the service is there must not become a busy loop.
        let again = match self.failures {
            0 => now,
            _ => now.plus_ms(retry_ms(failures, 30_000, jitter)),
        };
        match said {
            Said::Heard(interval_s) => {
                self.last_error = None;
                self.failures = 0;
                if self.last_beat.is_none_or(|beat| beat.steady < began.steady) {
                    self.last_beat = Some(began);
                }
                if let (Stage::Settled(info), Some(secs)) = (&mut self.stage, interval_s) {
                    info.interval_s = Some(secs);
                }
                self.doubt_ends |= self.in_doubt && began.steady >= self.doubted_until;
            }
            Said::Gone => {
                self.last_error = Some("the server does not know it any more".to_owned());
                self.stage = Stage::Unsettled;
                self.failures = failures;
                self.not_before = again;
            }
            Said::Inactive => {
                // A beat may cross with our own change.
                if let Stage::Settled(info) = &self.stage
                    && !info.inactive
                    && !self.settling
                {
                    self.last_error = Some("its beat was answered 409: it is INACTIVE".to_owned());
                    self.stage = Stage::Unsettled;
                    self.failures = failures;
                    self.not_before = again;
                }
            }
            Said::Refused(reason) => self.last_error = Some(reason),
        }
    }

    /// The server is back: there is no reason to wait any more.
    pub(super) fn server_is_back(&mut self, now: Steady) {
        if self.stage == Stage::Unsettled && self.failures == 0 {
            self.not_before = self.not_before.min(now);
        }
    }
}

#[cfg(test)]
mod tests;
