//! Heartbeats for applications that cannot send their own.
//!
//! The agent stands beside an application, registers its services, and beats for them as long as
//! their probes say that they are well. One task ties it together: it owns all state, wakes for what
//! is due next, and starts requests, which come back as values.
//!
//! Pure: [`pace`] (when to beat, and the promise), `service` (what follows from what), `info` (what a
//! platform says, in any dialect). `settle` brings one service and the platform together, `beat` is
//! one round of beats, `upkeep` everything else that is sent, [`client`] the HTTP client, [`state`]
//! the state file, `probe` the probes, [`status`] what is told of all this.

mod beat;
pub mod client;
pub mod config;
pub mod edgegallery;
mod info;
mod line;
pub mod local;
pub mod pace;
mod probe;
mod service;
mod settle;
pub mod state;
pub mod status;
mod token;
mod upkeep;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinSet};

use self::beat::{Plan, Report};
use self::client::{Client, Http};
pub use self::config::Config;
use self::local::Local;
use self::pace::{Pace, Terms, promise_s};
use self::service::Service;
use self::state::StateFile;
use self::status::{Meters, Status};
use self::upkeep::{Done, Leaving};
use crate::clock::Clock;
use crate::domain::{Moment, Steady};

/// Rounds under way at once; only a server that hangs gets more than one.
const ROUNDS_MAX: u8 = 8;
/// The same, where each is many requests: a server that is only slow must not get more and more.
const LONG_ROUNDS_MAX: u8 = 2;
/// What a server does not take is offered again after this: it may have been something in front of it.
const ASK_AGAIN_MS: u64 = 10 * 60 * 1000;
/// The loop looks around at least this often: timers stand still while the machine is suspended.
const LOOK_MS: u64 = 1000;

/// What the agent is told from outside.
#[derive(Debug)]
pub enum Order {
    /// Another configuration holds.
    Reload(Box<Config>),
    /// Says how things stand.
    Report(oneshot::Sender<Status>),
    /// Stops.
    Stop,
}

/// Why the agent has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// It was told to.
    Stopped,
    /// A service was set INACTIVE by somebody else, and `agent.on_conflict` is "stop".
    Conflict(String),
}

/// See the module.
pub struct Agent {
    config: Config,
    client: Client,
    /// For probes: without token and certificate, each over a connection of its own.
    prober: Http,
    state: Arc<StateFile>,
    clock: Clock,
    meters: Arc<Meters>,
    services: BTreeMap<String, Service>,
    /// To be removed, and when to try (again).
    leaving: BTreeMap<String, Leaving>,
    pace: Pace,
    rounds: JoinSet<Round>,
    settles: JoinSet<Done>,
    probes: BTreeMap<String, AbortHandle>,
    probe_news: (mpsc::Sender<probe::News>, mpsc::Receiver<probe::News>),
    /// Requests other than beats that did not reach the server, in a row, and until when there are
    /// no more.
    troubles: u32,
    pause_until: Steady,
    /// The server wants to be left alone until then.
    asked_until: Steady,
    /// Those for whom a task of `settles` is under way: one at a time for each name, whoever bears
    /// it now.
    busy: BTreeMap<String, tokio::task::Id>,
    promise_refused: bool,
    batch_refused: bool,
    /// When either was noticed.
    refused_at: Steady,
    last_error: Option<String>,
}

/// A round that has come back.
struct Round {
    began: Moment,
    terms: Terms,
    report: Report,
}

impl Agent {
    /// Nothing is sent before it runs. With `prune`, services that the state file remembers and the
    /// configuration does not name are removed.
    ///
    /// # Errors
    /// [`client::ClientError`] when a file of the configuration is not what it should be.
    pub fn new(
        config: Config,
        state: StateFile,
        clock: Clock,
        meters: Arc<Meters>,
        prune: bool,
    ) -> Result<Self, client::ClientError> {
        let app = &config.agent.app_instance_id;
        if !config.server.token_file.as_os_str().is_empty() && config.server.shows_tokens() {
            log::warn!(
                "server.url is {}: the token of server.token_file goes there without TLS, where others \
                 can read along; use https",
                config.server.url
            );
        }
        let client = Client::new(&config.server, app, &meters.token, &clock)?;
        let prober = prober(&config.server)?;
        let services: BTreeMap<_, _> = config
            .services
            .iter()
            .map(|service| (service.name.clone(), Service::new(service.clone())))
            .collect();
        let mut leaving = BTreeMap::new();
        if prune {
            let gone = state.names().into_iter();
            let gone = gone.filter(|name| !services.contains_key(name));
            leaving.extend(gone.map(|name| (name, Leaving::default())));
        }
        Ok(Self {
            config,
            client,
            prober,
            state: Arc::new(state),
            clock,
            meters,
            services,
            leaving,
            pace: Pace::default(),
            rounds: JoinSet::new(),
            settles: JoinSet::new(),
            probes: BTreeMap::new(),
            probe_news: mpsc::channel(64),
            troubles: 0,
            pause_until: Steady::from_ms(0),
            asked_until: Steady::from_ms(0),
            busy: BTreeMap::new(),
            promise_refused: false,
            batch_refused: false,
            refused_at: Steady::from_ms(0),
            last_error: None,
        })
    }

    /// What applications may ask it for.
    #[must_use]
    pub fn local(&self) -> Local {
        Local::new(self.client.clone(), &self.config.status)
    }

    /// Works until it is told to stop, or has to.
    pub async fn run(mut self, mut orders: mpsc::Receiver<Order>) -> Ended {
        let names: Vec<_> = self.services.keys().cloned().collect();
        for name in names {
            self.start_probe(&name);
        }
        // An application's first question must not be for nothing.
        if self.config.status.hand_out_tokens
            && let Some(token) = self.client.token()
        {
            token.prepare();
        }
        loop {
            let now = self.clock.now();
            self.start_round(now);
            self.start_settles(now.steady);
            let wake = self.wake_ms(self.clock.now().steady);
            tokio::select! {
                order = orders.recv() => match order {
                    Some(Order::Reload(config)) => {
                        self.reload(*config);
                        if let Some(sentence) = self.must_end() {
                            self.stop().await;
                            return Ended::Conflict(sentence);
                        }
                    }
                    Some(Order::Report(asker)) => {
                        let _ = asker.send(status::report(&self, self.clock.now()));
                    }
                    Some(Order::Stop) | None => break,
                },
                Some(Ok(round)) = self.rounds.join_next(), if !self.rounds.is_empty() => {
                    self.came_back(round);
                }
                Some(done) = self.settles.join_next_with_id(), if !self.settles.is_empty() => {
                    match done {
                        Ok((_, done)) => self.done(done),
                        Err(error) => self.broke(&error),
                    }
                    if let Some(sentence) = self.must_end() {
                        self.stop().await;
                        return Ended::Conflict(sentence);
                    }
                }
                Some((name, said)) = self.probe_news.1.recv() => self.probed(&name, said),
                () = tokio::time::sleep(Duration::from_millis(wake)) => {}
            }
        }
        self.stop().await;
        Ended::Stopped
    }

    /// What the pace depends on now; `None`: there is nobody to beat for.
    fn terms(&self) -> Option<Terms> {
        let beating = self.services.values().filter(|service| service.beats());
        let interval_s = beating.map(Service::interval_s).min()?;
        Some(Terms {
            interval_ms: u64::from(interval_s) * 1000,
            promise_s: (!self.promise_refused).then(|| promise_s(interval_s)),
            retry_max_ms: self.config.agent.retry_max_s * 1000,
        })
    }

    /// Milliseconds to what is due next.
    fn wake_ms(&self, now: Steady) -> u64 {
        let pause_until = self.pause_until.max(self.asked_until);
        let settle = self.next_settle().map(|at| at.max(pause_until));
        let settle = settle.filter(|_| self.has_room());
        let next = [self.pace.next(), settle].into_iter().flatten().min();
        next.map_or(LOOK_MS, |next| next.ms_since(now).min(LOOK_MS))
    }

    /// Starts a round of beats if one is due.
    fn start_round(&mut self, now: Moment) {
        if now.steady.ms_since(self.refused_at) >= ASK_AGAIN_MS {
            (self.batch_refused, self.promise_refused) = (false, false);
        }
        let Some(terms) = self.terms() else {
            return self.pace.rest();
        };
        if let Some(token) = self.client.token() {
            token.promise(terms.retry_cap_ms());
        }
        if self.pace.next().is_none() {
            // The first one: the registration has just told the platform as much as a beat would.
            self.pace.begin(&terms, now.steady);
            self.pace.heard(&terms, now.steady, fastrand::u64(..));
        }
        if self.pace.next().is_none_or(|next| next > now.steady) {
            return;
        }
        let plan = self.plan(&terms, now.steady);
        self.pace.begin(&terms, now.steady);
        if plan.batch.is_none() && plan.singles.is_empty() {
            return self.pace.heard(&terms, now.steady, fastrand::u64(..));
        }
        let rounds_max = match plan.singles.len() {
            0..=beat::SINGLES_AT_ONCE => ROUNDS_MAX,
            _ => LONG_ROUNDS_MAX,
        };
        if self.rounds.len() >= usize::from(rounds_max) {
            return;
        }
        // A try makes room for the next one before there are too many.
        let patience = Duration::from_millis(terms.retry_cap_ms()) * u32::from(rounds_max);
        let client = self.client.within(patience);
        self.rounds.spawn(async move {
            Round {
                began: now,
                terms,
                report: beat::round(&client, plan).await,
            }
        });
    }

    /// Who beats now, and how.
    fn plan(&self, terms: &Terms, now: Steady) -> Plan {
        let mut plan = Plan {
            promise_s: terms.promise_s,
            ..Plan::default()
        };
        for service in self.services.values().filter(|service| service.beats()) {
            let Some(single) = service.beat(|link| self.client.resolve(link)) else {
                continue;
            };
            let batch = service.info().and_then(|info| info.batch.as_deref());
            let batch = batch.and_then(|link| self.client.resolve(link));
            match (batch, &mut plan.batch) {
                (Some(url), None) if !self.batch_refused => plan.batch = Some((url, vec![single])),
                (Some(url), Some((same, members))) if url == *same => members.push(single),
                _ if service.is_due(now) => plan.singles.push(single),
                _ => {}
            }
        }
        plan
    }

    /// A round is over.
    fn came_back(&mut self, round: Round) {
        let Round {
            began,
            terms,
            report,
        } = round;
        let now = self.clock.now().steady;
        self.meters.requests.inc_by(report.requests);
        if report.promise_refused && !self.promise_refused {
            log::warn!("the server takes no promises (retryInterval); beating without");
            self.promise_refused = true;
            self.refused_at = now;
        }
        if report.batch_refused && !self.batch_refused {
            log::warn!(
                "the server offers a batch heartbeat and does not take it; beating one by one"
            );
            self.batch_refused = true;
            self.refused_at = now;
        }
        let names: BTreeMap<String, String> = self
            .services
            .iter()
            .filter_map(|(name, service)| Some((service.info()?.id.clone(), name.clone())))
            .collect();
        for id in &report.put {
            if let Some(service) = names.get(id).and_then(|name| self.services.get_mut(name)) {
                service.put();
            }
        }
        for (id, said) in report.said {
            let Some(service) = names.get(&id).and_then(|name| self.services.get_mut(name)) else {
                continue;
            };
            if matches!(said, beat::Said::Heard(_)) {
                self.meters.beats.inc();
            }
            let before = service.interval_s();
            let error = service.last_error.clone();
            service.said(said, began, now, fastrand::u64(..));
            if service.last_error != error
                && let Some(error) = &service.last_error
            {
                log::warn!("service {:?}: {error}", service.config.name);
            }
            if service.interval_s() != before {
                log::info!(
                    "service {:?}: the interval is now {} s",
                    service.config.name,
                    service.interval_s()
                );
                // What was too long for the old interval may not be for the new one.
                self.promise_refused = false;
            }
        }
        match report.missed {
            None => {
                if self.pace.failures() > 0 {
                    log::info!("the server is reached again");
                    self.meters.reconnects.inc();
                    self.server_is_back(now);
                }
                self.last_error = None;
                // The new interval, where one was told.
                let terms = self.terms().unwrap_or(terms);
                self.pace.heard(&terms, began.steady, fastrand::u64(..));
            }
            Some(missed) => {
                self.meters.missed.inc();
                if self.pace.failures() == 0 {
                    log::warn!("{}; trying again", missed.reason);
                }
                self.last_error = Some(missed.reason);
                let pause_ms = missed.pause.map(as_ms);
                self.pace
                    .missed(&terms, began.steady, now, pause_ms, fastrand::u64(..));
                if let Some(until) = self.pace.left_alone_until() {
                    log::warn!(
                        "the server asks to be left alone for {} ms, longer than promised",
                        until.ms_since(now)
                    );
                }
            }
        }
    }

    fn start_probe(&mut self, name: &str) {
        if let Some(old) = self.probes.remove(name) {
            old.abort();
        }
        let Some(probe) = self
            .services
            .get(name)
            .and_then(|service| service.config.probe.clone())
        else {
            return;
        };
        let (news, http, of) = (
            self.probe_news.0.clone(),
            self.prober.clone(),
            name.to_owned(),
        );
        let task = tokio::spawn(probe::run(probe, http, of, news));
        self.probes.insert(name.to_owned(), task.abort_handle());
    }

    fn probed(&mut self, name: &str, said: Result<(), String>) {
        let Some(service) = self.services.get_mut(name) else {
            return;
        };
        let before = service.verdict.health();
        service.verdict.judge(said);
        let health = service.verdict.health();
        if health == before {
            return;
        }
        match &service.verdict.reason {
            None => log::info!("service {name:?} is healthy"),
            Some(reason) => log::warn!("service {name:?} is unhealthy: {reason}"),
        }
        if service.beats() {
            self.pace.hurry(self.clock.now().steady);
        }
    }

    /// Certificates may have been renewed where they are.
    fn renew_clients(&mut self) {
        let server = &self.config.server;
        let renewed = self.client.renew(server).and_then(|()| prober(server));
        match renewed {
            Ok(prober) => self.prober = prober,
            Err(error) => {
                log::error!("SIGHUP: {error}; going on with the certificates as they were")
            }
        }
    }

    /// Adds, removes and changes services.
    fn reload(&mut self, new: Config) {
        let now = self.clock.now().steady;
        for (key, differs) in [
            ("server", new.server != self.config.server),
            (
                "agent.app_instance_id",
                new.agent.app_instance_id != self.config.agent.app_instance_id,
            ),
            (
                "agent.state_file",
                new.agent.state_file != self.config.agent.state_file,
            ),
            ("status", new.status != self.config.status),
        ] {
            if differs {
                log::warn!("SIGHUP: `{key}` has changed and takes effect at the next start");
            }
        }
        self.renew_clients();
        let names: BTreeSet<String> = new.services.iter().map(|s| s.name.clone()).collect();
        let gone: Vec<_> = self.services.keys().cloned().collect();
        for name in gone.into_iter().filter(|name| !names.contains(name)) {
            self.services.remove(&name);
            if let Some(probe) = self.probes.remove(&name) {
                probe.abort();
            }
            log::info!("SIGHUP: service {name:?} is taken out");
            // A registration under way may still succeed; it is removed after that.
            self.leaving.insert(name, Leaving::default());
        }
        for service in &new.services {
            let name = &service.name;
            self.leaving.remove(name);
            match self.services.get_mut(name) {
                None => {
                    log::info!("SIGHUP: service {name:?} is new");
                    self.services
                        .insert(name.clone(), Service::new(service.clone()));
                    self.start_probe(name);
                }
                Some(known) if known.config != *service => {
                    log::info!("SIGHUP: service {name:?} has changed");
                    let other_probe = known.config.probe != service.probe;
                    known.reconfigure(service.clone(), now);
                    if other_probe {
                        self.start_probe(name);
                    }
                }
                Some(_) => {}
            }
        }
        self.config.agent = config::Agent {
            app_instance_id: self.config.agent.app_instance_id.clone(),
            state_file: self.config.agent.state_file.clone(),
            ..new.agent
        };
        self.config.services = new.services;
    }
}

/// Who speaks to applications. They are no platform: they are not shown who we are.
fn prober(server: &config::Server) -> Result<Http, client::ClientError> {
    let stranger = config::Server {
        client_cert_file: PathBuf::new(),
        client_key_file: PathBuf::new(),
        tls_name: String::new(),
        ..server.clone()
    };
    let timeout = Duration::from_millis(server.timeout_ms);
    Ok(Http::new(&stranger, timeout, 0)?)
}

fn as_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
