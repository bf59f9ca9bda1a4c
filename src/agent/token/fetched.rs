//! A token of a token endpoint. One task fetches for all who need it, one request at a time; what
//! fails costs nobody anything while the old token holds.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::HeaderValue;
use tokio::sync::{Notify, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use super::HandedOut;
use super::grant::{self, Failure, FailureKind, Grant, Granted};
use super::schedule::Schedule;
use crate::agent::line::{Line, Lost};
use crate::agent::status::TokenMeters;
use crate::clock::{self, Clock};
use crate::files::Version;

/// A longer answer is none.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// The task looks around at least this often: timers stand still while the machine is suspended, and a
/// secret may have been replaced.
const LOOK: Duration = Duration::from_secs(1);

/// Fetches under way at once; only an endpoint that hangs gets more than one.
const FETCHES_MAX: u8 = 8;

/// Two fetches are no further apart while there is no token, before anybody has promised less.
const PATIENCE: Duration = Duration::from_secs(5);

/// See the module. Its task ends when it is dropped.
#[derive(Debug)]
pub(in crate::agent) struct Fetched {
    shared: Arc<Shared>,
    /// Started when the first token is needed.
    task: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Shared {
    grant: Arc<Grant>,
    line: Line,
    timeout: Duration,
    state: Mutex<State>,
    /// The schedule has changed.
    wake: Notify,
    /// Counts what came of fetches.
    done: watch::Sender<u64>,
    meters: TokenMeters,
    clock: Clock,
    /// For how long the machine had been suspended when this was made.
    asleep_ms: u64,
}

#[derive(Debug)]
struct State {
    held: Option<Held>,
    /// Why the newest fetch brought nothing.
    error: Option<String>,
    schedule: Schedule,
    under_way: u8,
    /// When the newest fetch began, and the newest one that brought a token.
    began: Option<Instant>,
    brought: Option<Instant>,
    /// While there is no token a fetch that hangs is given company after this.
    patience: Duration,
    /// What the secret looked like when it was refused.
    refused_secret: Option<Version>,
}

#[derive(Debug, Clone)]
struct Held {
    header: HeaderValue,
    ends: Instant,
    /// It was answered 401.
    unwelcome: bool,
}

impl State {
    /// The token, while it holds.
    fn valid(&self, now: Instant) -> Option<&Held> {
        self.held.as_ref().filter(|held| now < held.ends)
    }

    /// When the next fetch is to begin.
    fn next(&self, now: Instant) -> Option<Instant> {
        let due = self.schedule.due()?;
        match (self.under_way, self.began) {
            (0, _) | (_, None) => Some(due),
            // It must not cost anybody a beat that one hangs.
            (1..FETCHES_MAX, Some(began)) if self.valid(now).is_none() => {
                Some(began + self.patience.max(self.schedule.spacing()))
            }
            _ => None,
        }
    }
}

impl Fetched {
    /// Nothing is fetched before a token is needed.
    pub(super) fn new(
        grant: Grant,
        line: Line,
        timeout_ms: u64,
        meters: TokenMeters,
        clock: Clock,
    ) -> Self {
        let state = State {
            held: None,
            error: None,
            schedule: Schedule::new(grant.is_signed()),
            under_way: 0,
            began: None,
            brought: None,
            patience: PATIENCE,
            refused_secret: None,
        };
        Self {
            shared: Arc::new(Shared {
                grant: Arc::new(grant),
                line,
                timeout: Duration::from_millis(timeout_ms),
                state: Mutex::new(state),
                wake: Notify::new(),
                done: watch::Sender::new(0),
                meters,
                asleep_ms: clock.asleep_ms(),
                clock,
            }),
            task: Mutex::default(),
        }
    }

    /// Fetches the first one before anybody asks.
    pub(super) fn prepare(&self) {
        self.shared.state().schedule.wanted(self.shared.now());
        self.nudge();
    }

    /// Whoever beats has promised to try again within this.
    pub(super) fn promise(&self, patience: Duration) {
        self.shared.state().patience = patience;
    }

    /// Something was changed by hand, perhaps what was refused: tries again soon.
    pub(super) fn relent(&self) {
        self.shared.state().schedule.relent(self.shared.now());
        self.shared.wake.notify_one();
    }

    /// The token that holds now; else the next one, if it comes in time.
    ///
    /// # Errors
    /// [`Lost`], with what the token endpoint said last.
    pub(super) async fn header(&self, deadline: Instant) -> Result<HeaderValue, Lost> {
        let done = self.shared.done.subscribe();
        {
            let now = self.shared.now();
            let mut state = self.shared.state();
            if let Some(held) = state.valid(now) {
                return Ok(held.header.clone());
            }
            let at_once = state.schedule.wanted(now) || state.under_way > 0;
            if let Some(error) = state.error.as_ref().filter(|_| !at_once) {
                return Err(Lost(error.clone()));
            }
        }
        self.outcome(done, deadline).await;
        let state = self.shared.state();
        match (state.valid(self.shared.now()), &state.error) {
            (Some(held), _) => Ok(held.header.clone()),
            (None, Some(error)) => Err(Lost(error.clone())),
            (None, None) => Err(Lost(format!(
                "no token from {} in time",
                self.shared.grant.url()
            ))),
        }
    }

    /// The server has answered 401 to this one: another one, if it comes in time. One that was
    /// fetched only just now is not replaced at once.
    pub(super) async fn refused(
        &self,
        header: Option<&HeaderValue>,
        deadline: Instant,
    ) -> Option<HeaderValue> {
        let done = self.shared.done.subscribe();
        let other = |state: &State| {
            let held = state.valid(self.shared.now());
            let held = held.filter(|held| Some(&held.header) != header);
            held.map(|held| held.header.clone())
        };
        {
            let mut state = self.shared.state();
            if let Some(other) = other(&state) {
                return Some(other);
            }
            let now = self.shared.now();
            if let Some(held) = &mut state.held {
                held.unwelcome |= Some(&held.header) == header;
            }
            // Others may have been answered the same, and have seen to it.
            let coming = state.under_way > 0 || state.schedule.due().is_some_and(|due| due <= now);
            if !coming && !state.schedule.unwelcome(now, fastrand::u64(..)) {
                return None;
            }
        }
        self.outcome(done, deadline).await;
        other(&self.shared.state())
    }

    /// The token, while it holds and is taken; if there is none, one is fetched for the next who asks.
    /// Whoever asks again and again does not make that any quicker.
    pub(super) fn hand_out(&self) -> Option<HandedOut> {
        let now = self.shared.now();
        let state = self.shared.state();
        if let Some(held) = state.valid(now).filter(|held| !held.unwelcome) {
            return Some(HandedOut {
                header: held.header.clone(),
                ends_in_s: Some((held.ends - now).as_secs()),
            });
        }
        let is_coming = state.under_way > 0 || state.schedule.due().is_some();
        drop(state);
        if !is_coming {
            self.prepare();
        }
        None
    }

    /// How long the token holds, in seconds.
    pub(super) fn ends_in_s(&self) -> Option<u64> {
        let now = self.shared.now();
        let state = self.shared.state();
        state.valid(now).map(|held| (held.ends - now).as_secs())
    }

    /// Why the newest fetch brought nothing.
    pub(super) fn error(&self) -> Option<String> {
        self.shared.state().error.clone()
    }

    /// When the next fetch begins, while there is a reason why there is no fresh token.
    pub(super) fn next_try_in_ms(&self) -> Option<u64> {
        let now = self.shared.now();
        let state = self.shared.state();
        state.error.as_ref()?;
        let pause = state.next(now)?.saturating_duration_since(now);
        u64::try_from(pause.as_millis()).ok()
    }

    /// Waits until something has come of the fetches under way, and of the last one if there are several.
    async fn outcome(&self, mut done: watch::Receiver<u64>, deadline: Instant) {
        self.nudge();
        while let Ok(Ok(())) = tokio::time::timeout_at(deadline, done.changed()).await {
            let state = self.shared.state();
            if state.under_way == 0 || state.valid(self.shared.now()).is_some() {
                break;
            }
        }
    }

    /// The task looks at its schedule; the first time, and should it ever break, it is started.
    fn nudge(&self) {
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        if task.as_ref().is_none_or(JoinHandle::is_finished) {
            self.shared.state().under_way = 0;
            *task = Some(tokio::spawn(work(self.shared.clone())));
        }
        self.shared.wake.notify_one();
    }
}

impl Drop for Fetched {
    fn drop(&mut self) {
        let task = self.task.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(task) = task {
            task.abort();
        }
    }
}

/// Fetches whenever it is time, for ever.
async fn work(shared: Arc<Shared>) {
    let mut fetches = JoinSet::new();
    loop {
        shared.look_at_secret();
        let now = shared.now();
        let next = shared.state().next(now);
        if next.is_some_and(|at| at <= now) {
            shared.begin(now);
            let shared = shared.clone();
            fetches.spawn(async move { shared.fetch(now).await });
            continue;
        }
        let pause = next.map(|at| (at - now).min(LOOK));
        tokio::select! {
            Some(ended) = fetches.join_next(), if !fetches.is_empty() => {
                if ended.is_err() {
                    shared.broke();
                }
            }
            () = shared.wake.notified() => {}
            () = tokio::time::sleep(pause.unwrap_or(LOOK)), if pause.is_some() => {}
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tokens end also while the machine is suspended, when timers stand still.
    fn now(&self) -> Instant {
        let asleep_ms = self.clock.asleep_ms().saturating_sub(self.asleep_ms);
        Instant::now() + Duration::from_millis(asleep_ms)
    }

    /// Another secret may not be refused.
    fn look_at_secret(&self) {
        let refused = {
            let state = self.state();
            state.schedule.is_refused().then_some(state.refused_secret)
        };
        if let Some(refused) = refused
            && self.grant.version() != refused
        {
            self.state().schedule.relent(self.now());
        }
    }

    fn begin(&self, now: Instant) {
        let mut state = self.state();
        state.under_way += 1;
        state.began = Some(now);
    }

    /// A fetch panicked, which none should; the others must not wait for it.
    fn broke(&self) {
        let now = self.now();
        let mut state = self.state();
        state.under_way = state.under_way.saturating_sub(1);
        let ends = state.valid(now).map(|held| held.ends);
        let jitter = fastrand::u64(..);
        state.schedule.failed(FailureKind::Away, ends, now, jitter);
    }

    /// The token's life begins somewhere after `began`; counted from there it ends early, not late.
    async fn fetch(&self, began: Instant) {
        let secret = self.grant.version();
        let fetched = self.exchange().await;
        self.meters.fetches.inc();
        let now = self.now();
        {
            let mut state = self.state();
            state.under_way = state.under_way.saturating_sub(1);
            match fetched {
                Ok(granted) => self.granted(&mut state, granted, began, now),
                Err(failure) => {
                    self.meters.failures.inc();
                    // One that began later has brought a token.
                    if state.brought.is_none_or(|brought| brought <= began) {
                        state.refused_secret = secret;
                        self.failed(&mut state, failure, now);
                    }
                }
            }
        }
        self.done.send_modify(|count| *count += 1);
    }

    fn granted(&self, state: &mut State, granted: Granted, began: Instant, now: Instant) {
        let Granted { header, life } = granted;
        let url = self.grant.url();
        if state.error.take().is_some() {
            log::info!("there is a token from {url} again");
        }
        log::debug!("a token from {url}, good for {} s", life.as_secs());
        state.held = Some(Held {
            header,
            ends: began + life,
            unwelcome: false,
        });
        state.brought = state.brought.max(Some(began));
        state.schedule.fetched(began, life, now, fastrand::u64(..));
    }

    fn failed(&self, state: &mut State, failure: Failure, now: Instant) {
        let Failure { reason, kind } = failure;
        let reason = format!("no token from {}: {reason}", self.grant.url());
        let ends = state.valid(now).map(|held| held.ends);
        if state.error.as_ref() != Some(&reason) {
            match ends.map(|ends| (ends - now).as_secs()) {
                Some(secs) => log::warn!("{reason}; the old one holds for {secs} s"),
                None => log::warn!("{reason}; trying again"),
            }
        }
        state.error = Some(reason);
        state.schedule.failed(kind, ends, now, fastrand::u64(..));
    }

    async fn exchange(&self) -> Result<Granted, Failure> {
        let (grant, now) = (self.grant.clone(), clock::wall_now());
        let request = tokio::task::spawn_blocking(move || grant.request(now));
        let request = tokio::time::timeout(self.timeout, request).await;
        let request = match request {
            Ok(Ok(request)) => request?,
            Ok(Err(error)) => return Err(Failure::away(error.to_string())),
            Err(_) => {
                return Err(Failure::away(
                    "its secret cannot be read in time".to_owned(),
                ));
            }
        };
        let http = self.line.http();
        let answer = http.send(request, self.timeout, ANSWER_BYTES_MAX).await;
        let answer = answer.map_err(|Lost(reason)| Failure::away(reason))?;
        grant::read(&answer, self.grant.is_signed())
    }
}

#[cfg(test)]
mod tests;
