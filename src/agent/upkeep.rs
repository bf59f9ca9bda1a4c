//! Requests other than beats: services are settled, and removed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::task::JoinError;

use super::client::Client;
use super::config::{OnConflict, OnStop};
use super::pace::{promise_s, retry_ms};
use super::service::Stage;
use super::settle::{self, Settled, Trouble};
use super::state::StateFile;
use super::{Agent, as_ms};
use crate::domain::Steady;

/// Services settled at once.
const SETTLES_AT_ONCE: usize = 4;
/// Services removed at once when the agent stops.
const DEPARTURES_AT_ONCE: usize = 8;
/// Pause between two tries to deregister at the stop.
const DEPARTURE_PAUSE: Duration = Duration::from_millis(200);
/// Several services that are adopted together share their first beat.
const COMPANY_MS: u64 = 100;

/// A service that is to be removed.
#[derive(Debug, Default)]
pub(super) struct Leaving {
    pub(super) not_before: Option<Steady>,
    pub(super) failures: u32,
}

/// A service that was settled or removed, or was not.
pub(super) enum Done {
    Settled(String, Result<Settled, Trouble>),
    Departed(String, Result<(), Trouble>),
}

impl Agent {
    /// What the server has asked for still holds.
    pub(super) fn server_is_back(&mut self, now: Steady) {
        self.troubles = 0;
        self.pause_until = now;
        for service in self.services.values_mut() {
            service.server_is_back(now);
        }
    }

    /// While the server is not reached, one request at a time finds out when it is.
    pub(super) fn has_room(&self) -> bool {
        let most = if self.troubles > 0 {
            1
        } else {
            SETTLES_AT_ONCE
        };
        self.settles.len() < most
    }

    /// When the next service is to be settled or removed.
    pub(super) fn next_settle(&self) -> Option<Steady> {
        let on_conflict = self.config.agent.on_conflict;
        let is_free = |name: &String| !self.busy.contains_key(name);
        let settles = self.services.iter().filter(|(name, _)| is_free(name));
        let settles = settles.filter_map(|(_, service)| service.settle_at(on_conflict));
        let leaving = self.leaving.iter().filter(|(name, _)| is_free(name));
        let leaving = leaving.map(|(_, leaving)| leaving.not_before.unwrap_or(Steady::from_ms(0)));
        settles.chain(leaving).min()
    }

    pub(super) fn start_settles(&mut self, now: Steady) {
        let on_conflict = self.config.agent.on_conflict;
        while self.has_room()
            && now >= self.pause_until.max(self.asked_until)
            && self.next_settle().is_some_and(|at| at <= now)
        {
            let (client, state) = (self.client.clone(), self.state.clone());
            let leaving = self.leaving.iter().find(|(name, leaving)| {
                !self.busy.contains_key(*name) && leaving.not_before.is_none_or(|at| at <= now)
            });
            if let Some((name, _)) = leaving {
                let (name, of) = (name.clone(), name.clone());
                let task = self.settles.spawn(async move {
                    let departed = settle::depart(&client, &state, &of).await;
                    Done::Departed(of, departed)
                });
                self.busy.insert(name, task.id());
                continue;
            }
            // Whoever has waited longest: one that fails again and again must not hold up the others.
            let due = self
                .services
                .iter_mut()
                .filter(|(name, _)| !self.busy.contains_key(*name))
                .filter_map(|(_, service)| Some((service.settle_at(on_conflict)?, service)))
                .filter(|(at, _)| *at <= now)
                .min_by_key(|(at, _)| *at)
                .map(|(_, service)| service);
            let Some(service) = due else { break };
            let wanted = service.settle(on_conflict);
            let name = wanted.name.clone();
            let task = self.settles.spawn(async move {
                let name = wanted.name.clone();
                let settled = settle::settle(&client, &state, wanted).await;
                Done::Settled(name, settled)
            });
            self.busy.insert(name, task.id());
        }
    }

    /// A task panicked, which none should; its service must not suffer for ever.
    pub(super) fn broke(&mut self, error: &JoinError) {
        let broken = self.busy.iter().find(|(_, task)| **task == error.id());
        let Some(name) = broken.map(|(name, _)| name.clone()) else {
            return;
        };
        let trouble = Trouble::Failed(format!("an error of the agent's own: {error}"));
        let done = if self.leaving.contains_key(&name) {
            Done::Departed(name, Err(trouble))
        } else {
            Done::Settled(name, Err(trouble))
        };
        self.done(done);
    }

    pub(super) fn done(&mut self, done: Done) {
        let now = self.clock.now().steady;
        let (name, trouble, departs) = match done {
            Done::Settled(name, settled) => {
                self.busy.remove(&name);
                match settled {
                    Ok(settled) => return self.settled(&name, settled, now),
                    Err(trouble) => (name, trouble, false),
                }
            }
            Done::Departed(name, departed) => {
                self.busy.remove(&name);
                match departed {
                    Ok(()) => {
                        log::info!("service {name:?} is removed");
                        self.leaving.remove(&name);
                        return self.reached(now);
                    }
                    Err(trouble) => (name, trouble, true),
                }
            }
        };
        let (refused, pause_ms) = match &trouble {
            Trouble::Refused(_) | Trouble::Failed(_) => (true, 0),
            Trouble::Busy { pause, .. } => (false, as_ms(*pause)),
            Trouble::Lost(_) => (false, 0),
        };
        let reason = trouble.to_string();
        if refused {
            self.reached(now);
        } else {
            self.troubles = self.troubles.saturating_add(1);
            let wait_ms = retry_ms(self.troubles, self.settle_cap_ms(), fastrand::u64(..));
            self.pause_until = now.plus_ms(wait_ms);
            self.asked_until = self.asked_until.max(now.plus_ms(pause_ms));
            self.last_error = Some(reason.clone());
        }
        let cap_ms = self.config.agent.retry_max_s * 1000;
        if departs {
            if let Some(leaving) = self.leaving.get_mut(&name) {
                leaving.failures += 1;
                let wait_ms = retry_ms(leaving.failures, cap_ms, fastrand::u64(..));
                leaving.not_before = Some(now.plus_ms(wait_ms.max(pause_ms)));
                log::warn!("service {name:?} is not removed: {reason}; trying again");
            }
        } else if let Some(service) = self.services.get_mut(&name) {
            if service.last_error.as_ref() != Some(&reason) {
                log::warn!("service {name:?}: {reason}; trying again");
            }
            service.unsettled(reason, refused, now, pause_ms, cap_ms, fastrand::u64(..));
        }
    }

    /// A service that beat before a restart of ours has promised something, too.
    pub(super) fn settle_cap_ms(&self) -> u64 {
        let retry_max_ms = self.config.agent.retry_max_s * 1000;
        let promised = self.services.values().filter(|service| {
            service.stage == Stage::Unsettled && self.state.get(&service.config.name).id.is_some()
        });
        let promised = promised.map(|service| u64::from(promise_s(service.interval_s())) * 900);
        promised.min().unwrap_or(retry_max_ms).min(retry_max_ms)
    }

    pub(super) fn settled(&mut self, name: &str, settled: Settled, now: Steady) {
        self.reached(now);
        self.meters.settled(&settled);
        let (fresh, id) = (settled.fresh, settled.info.id.clone());
        let offers_batch = settled.info.batch.is_some();
        let Some(service) = self.services.get_mut(name) else {
            // It was taken out of the configuration meanwhile.
            if let Some(leaving) = self.leaving.get_mut(name) {
                leaving.not_before = None;
            }
            return;
        };
        let known = service.info().is_some();
        let conflict = settled.conflict;
        let active = !settled.info.inactive;
        service.settled(settled, now, as_ms(self.client.timeout()));
        if conflict {
            if !known {
                log::warn!(
                    "service {name:?}: {}",
                    service.last_error.clone().unwrap_or_default()
                );
            }
            return;
        }
        match (known, fresh, active) {
            (false, true, _) => log::info!("service {name:?} is registered as {id}"),
            (false, false, _) => log::info!("service {name:?} goes on as {id}"),
            (true, _, true) => log::info!("service {name:?} is as configured, and ACTIVE"),
            (true, _, false) => log::info!("service {name:?} is INACTIVE: its probe says no"),
        }
        if !known && offers_batch {
            // Another server, perhaps, or what stood in front of it is gone: once more.
            (self.batch_refused, self.promise_refused) = (false, false);
        }
        if !service.beats() {
            return;
        }
        if service.beat(|link| self.client.resolve(link)).is_none() {
            // It gets no beats; somebody has to be told.
            let reason = "its liveness link cannot be called";
            log::warn!("service {name:?}: {reason}");
            service.last_error = Some(reason.to_owned());
        }
        if let Some(terms) = self.terms() {
            match fresh {
                true => self.pace.shorten(&terms, now, fastrand::u64(..)),
                false => self.pace.hurry(now.plus_ms(COMPANY_MS)),
            }
        }
    }

    /// The server has answered.
    pub(super) fn reached(&mut self, now: Steady) {
        if self.troubles > 0 {
            self.server_is_back(now);
            self.last_error = None;
        }
        if self.pace.failures() > 0 {
            self.pace.hurry(now);
        }
    }

    /// A conflict that must not be lived with.
    pub(super) fn must_end(&self) -> Option<String> {
        if self.config.agent.on_conflict != OnConflict::Stop {
            return None;
        }
        self.services.values().find_map(|service| match &service.stage {
            Stage::Conflict(info) => Some(format!(
                "service {:?} ({}) was set INACTIVE by somebody else, and agent.on_conflict is \"stop\"",
                service.config.name, info.id
            )),
            Stage::Unsettled | Stage::Settled(_) => None,
        })
    }

    /// Leaves the services, or removes them within the time that there is for it.
    pub(super) async fn stop(&mut self) {
        for probe in self.probes.values() {
            probe.abort();
        }
        self.rounds.abort_all();
        let limit = Duration::from_millis(self.config.agent.stop_timeout_ms);
        let leaves = self.config.agent.on_stop == OnStop::Leave;
        let mut names: BTreeSet<String> = self.leaving.keys().cloned().collect();
        if !leaves {
            names.extend(self.services.keys().cloned());
        }
        let farewell = async {
            // What is under way may be a registration.
            while self.settles.join_next().await.is_some() {}
            let (client, state) = (self.client.clone(), self.state.clone());
            let farewells = stream::iter(names)
                .map(|name| part(client.clone(), state.clone(), name))
                .buffer_unordered(DEPARTURES_AT_ONCE);
            farewells.for_each(|()| async {}).await;
        };
        if tokio::time::timeout(limit, farewell).await.is_err() {
            log::warn!(
                "not every service was removed within agent.stop_timeout_ms ({}); the next start \
                 takes them over, or the platform suspends them",
                limit.as_millis()
            );
        } else if !leaves {
            log::info!("all services are removed");
        }
    }
}

/// Removes a service at the stop, however often it takes; the caller's patience bounds it.
async fn part(client: Client, state: Arc<StateFile>, name: String) {
    while let Err(trouble) = settle::depart(&client, &state, &name).await {
        if let Trouble::Refused(reason) = trouble {
            log::warn!("service {name:?} was not removed: {reason}");
            return;
        }
        tokio::time::sleep(DEPARTURE_PAUSE).await;
    }
}
