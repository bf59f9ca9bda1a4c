//! A token of a token endpoint. One task fetches for all who need it, one request at a time; what
//! fails costs nobody anything while the old token holds.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::HeaderValue;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::HandedOut;
use super::grant::{self, Failure, Grant, Granted};
use super::schedule::Schedule;
use crate::agent::line::{Line, Lost};
use crate::agent::status::TokenMeters;
use crate::clock;

/// A longer answer is none.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

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
}

#[derive(Debug, Default)]
struct State {
    held: Option<Held>,
    /// Why the newest fetch brought nothing.
    error: Option<String>,
    schedule: Schedule,
    under_way: bool,
}

#[derive(Debug, Clone)]
struct Held {
    header: HeaderValue,
    ends: Instant,
}

impl State {
    /// The token, while it holds.
    fn valid(&self, now: Instant) -> Option<&Held> {
        self.held.as_ref().filter(|held| now < held.ends)
    }
}

impl Fetched {
    /// Nothing is fetched before a token is needed.
    pub(super) fn new(grant: Grant, line: Line, timeout_ms: u64, meters: TokenMeters) -> Self {
        Self {
            shared: Arc::new(Shared {
                grant: Arc::new(grant),
                line,
                timeout: Duration::from_millis(timeout_ms),
                state: Mutex::default(),
                wake: Notify::new(),
                done: watch::Sender::new(0),
                meters,
            }),
            task: Mutex::default(),
        }
    }

    /// The token that holds now; else the next one, if it comes in time.
    ///
    /// # Errors
    /// [`Lost`], with what the token endpoint said last.
    pub(super) async fn header(&self, deadline: Instant) -> Result<HeaderValue, Lost> {
        let done = self.shared.done.subscribe();
        {
            let now = Instant::now();
            let mut state = self.shared.state();
            if let Some(held) = state.valid(now) {
                return Ok(held.header.clone());
            }
            let at_once = state.schedule.wanted(now) || state.under_way;
            if let Some(error) = state.error.as_ref().filter(|_| !at_once) {
                return Err(Lost(error.clone()));
            }
        }
        self.outcome(done, deadline).await;
        let state = self.shared.state();
        match (state.valid(Instant::now()), &state.error) {
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
            let held = state.valid(Instant::now());
            let held = held.filter(|held| Some(&held.header) != header);
            held.map(|held| held.header.clone())
        };
        {
            let mut state = self.shared.state();
            if let Some(other) = other(&state) {
                return Some(other);
            }
            let now = Instant::now();
            // Others may have been answered the same, and have seen to it.
            let coming = state.under_way || state.schedule.due().is_some_and(|due| due <= now);
            if !coming && !state.schedule.unwelcome(now, fastrand::u64(..)) {
                return None;
            }
        }
        self.outcome(done, deadline).await;
        other(&self.shared.state())
    }

    /// The token, while it holds; if there is none, one is fetched for the next who asks.
    pub(super) fn hand_out(&self) -> Option<HandedOut> {
        let now = Instant::now();
        let mut state = self.shared.state();
        if let Some(held) = state.valid(now) {
            return Some(HandedOut {
                header: held.header.clone(),
                ends_in_s: Some((held.ends - now).as_secs()),
            });
        }
        state.schedule.wanted(now);
        drop(state);
        self.nudge();
        None
    }

    /// How long the token holds, in seconds.
    pub(super) fn ends_in_s(&self) -> Option<u64> {
        let now = Instant::now();
        let state = self.shared.state();
        state.valid(now).map(|held| (held.ends - now).as_secs())
    }

    /// Why the newest fetch brought nothing.
    pub(super) fn error(&self) -> Option<String> {
        self.shared.state().error.clone()
    }

    /// Waits until something has come of a fetch.
    async fn outcome(&self, mut done: watch::Receiver<u64>, deadline: Instant) {
        self.nudge();
        let _ = tokio::time::timeout_at(deadline, done.changed()).await;
    }

    /// The task looks at its schedule; the first time, and should it ever break, it is started.
    fn nudge(&self) {
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        if task.as_ref().is_none_or(JoinHandle::is_finished) {
            self.shared.state().under_way = false;
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
    loop {
        let due = shared.state().schedule.due();
        match due {
            None => shared.wake.notified().await,
            Some(due) => tokio::select! {
                () = tokio::time::sleep_until(due) => shared.fetch().await,
                () = shared.wake.notified() => {}
            },
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn fetch(&self) {
        self.state().under_way = true;
        // The token's life begins somewhere in between; counted from here it ends early, not late.
        let began = Instant::now();
        let fetched = self.exchange().await;
        self.meters.fetches.inc();
        let url = self.grant.url();
        let now = Instant::now();
        {
            let mut state = self.state();
            state.under_way = false;
            match fetched {
                Ok(Granted { header, life }) => {
                    if state.error.take().is_some() {
                        log::info!("there is a token from {url} again");
                    }
                    log::debug!("a token from {url}, good for {} s", life.as_secs());
                    let ends = began + life;
                    state.held = Some(Held { header, ends });
                    state.schedule.fetched(began, life, now, fastrand::u64(..));
                }
                Err(Failure { reason, kind }) => {
                    self.meters.failures.inc();
                    let reason = format!("no token from {url}: {reason}");
                    let ends = state.valid(now).map(|held| held.ends);
                    if state.error.as_ref() != Some(&reason) {
                        match ends.map(|ends| (ends - now).as_secs()) {
                            Some(secs) => log::warn!("{reason}; the old one holds for {secs} s"),
                            None => log::warn!("{reason}; trying again"),
                        }
                    }
                    state.error = Some(reason);
                    let jitter = fastrand::u64(..);
                    state.schedule.failed(kind, ends, now, jitter);
                }
            }
        }
        self.done.send_modify(|count| *count += 1);
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
        grant::read(&answer.map_err(|Lost(reason)| Failure::away(reason))?)
    }
}

#[cfg(test)]
mod tests;
