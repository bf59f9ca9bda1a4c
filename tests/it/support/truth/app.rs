//! Applications that keep the contract for as long as they live, and what they know in the end.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::line::Line;
use crate::support::random::Random;
use crate::support::service;

/// So late a try may be by design: the smallest grace, less the longest stall that nobody records.
const LATENESS_MAX: Duration = Duration::from_millis(200);

/// What is in store for an application.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Lives,
    /// Falls silent without a word.
    Dies,
    /// Removes its service.
    Leaves,
}

/// One application with one service.
#[derive(Debug, Clone)]
pub(crate) struct App {
    pub(crate) name: String,
    pub(crate) fate: Fate,
    pub(crate) interval: Duration,
    /// The promise it makes with every beat, if it makes one.
    pub(crate) promise: Option<Duration>,
    pub(crate) keeps_connection: bool,
    pub(crate) begins: Instant,
    /// When its fate comes, unless it lives.
    pub(crate) ends: Instant,
    pub(crate) random: Random,
}

/// What an application knows in the end.
#[derive(Debug, Clone)]
pub(crate) struct Diary {
    pub(crate) app: App,
    /// Its service, once the registration was acknowledged.
    pub(crate) id: Option<String>,
    /// When that was acknowledged.
    pub(crate) registered: Option<Instant>,
    /// When the last acknowledged beat (or the registration) was begun, and acknowledged.
    pub(crate) told: Option<(Instant, Instant)>,
    /// Acknowledged beats.
    pub(crate) beats: u64,
    /// Beats that nobody answered: they may have been taken.
    pub(crate) doubts: u64,
    /// Requests that were turned away: when they were begun, and when that was heard.
    pub(crate) refusals: Vec<(Instant, Instant)>,
    /// The removal was acknowledged.
    pub(crate) left: bool,
    /// Broke the contract: this process was too slow.
    pub(crate) unlawful: bool,
    /// The last time stamp acknowledged, in seconds.
    pub(crate) stamp: u64,
    /// Was told that its service is unknown.
    pub(crate) disowned: bool,
}

impl App {
    /// Within how long it tries again while it cannot reach the server.
    pub(crate) fn retry(&self) -> Duration {
        self.promise.unwrap_or(self.interval)
    }

    /// Registers, and beats until its fate or the curtain comes.
    pub(super) async fn live(self, address: SocketAddr, curtain: watch::Receiver<bool>) -> Diary {
        let mut line = Line::new(address, self.keeps_connection);
        let mut diary = Diary::new(self);
        sleep_until(diary.app.begins).await;
        let Some(liveness) = diary.register(&mut line, &curtain).await else {
            return diary;
        };
        let mut body = json!({"state": "ACTIVE"});
        if let Some(promise) = diary.app.promise {
            body["retryInterval"] = json!(promise.as_secs());
        }
        // The contract's next try, and the one that this application makes.
        let heard = Instant::now();
        let mut bound = heard + diary.app.interval;
        let mut next = heard + diary.pace(diary.app.interval, 0);
        while !diary.has_ended(next, &curtain) {
            wait(next, &curtain).await;
            if diary.has_ended(Instant::now(), &curtain) {
                break;
            }
            let begun = Instant::now();
            let patience = diary.app.retry();
            let asked = line.ask("PATCH", &liveness, Some(&body), patience).await;
            diary.unlawful |= asked.sent > bound + LATENESS_MAX;
            diary.doubts += asked.doubts;
            let status = asked.answer.as_ref().map(|(status, _)| *status);
            let (most, least) = if let (Some(200), Some((_, info))) = (status, &asked.answer) {
                diary.hear(begun, info);
                (diary.app.interval, 50)
            } else {
                diary.note(begun, status);
                diary.disowned |= status == Some(404);
                (diary.app.retry(), 20)
            };
            bound = begun + most;
            next = begun + diary.pace(most, least);
        }
        if diary.app.fate == Fate::Leaves {
            diary.leave(&mut line, &liveness).await;
        }
        diary
    }
}

/// Until then, or the curtain.
async fn wait(until: Instant, curtain: &watch::Receiver<bool>) {
    let mut curtain = curtain.clone();
    tokio::select! {
        () = sleep_until(until) => {}
        _ = curtain.wait_for(|fallen| *fallen) => {}
    }
}

impl Diary {
    fn new(app: App) -> Self {
        Self {
            app,
            id: None,
            registered: None,
            told: None,
            beats: 0,
            doubts: 0,
            refusals: Vec::new(),
            left: false,
            unlawful: false,
            stamp: 0,
            disowned: false,
        }
    }

    fn has_ended(&self, at: Instant, curtain: &watch::Receiver<bool>) -> bool {
        *curtain.borrow() || (self.app.fate != Fate::Lives && at >= self.app.ends)
    }

    /// How long until the next try: a third of them use all the time they may, the others not
    /// less than so many percent of it.
    fn pace(&mut self, most: Duration, least: u32) -> Duration {
        if self.app.random.once_in(3) {
            return most;
        }
        let percent = self.app.random.below(100 - least as usize);
        most * (least + u32::try_from(percent).unwrap()) / 100
    }

    /// Registers until that is acknowledged; the path of the liveness then.
    async fn register(
        &mut self,
        line: &mut Line,
        curtain: &watch::Receiver<bool>,
    ) -> Option<String> {
        let interval = u32::try_from(self.app.interval.as_secs()).unwrap();
        let body = service(&self.app.name, Some(interval));
        let path = format!(
            "/mec_service_mgmt/v1/applications/{}/services",
            self.app.name
        );
        while !self.has_ended(Instant::now(), curtain) {
            let begun = Instant::now();
            let patience = Duration::from_secs(10);
            let asked = line.ask("POST", &path, Some(&body), patience).await;
            if let Some((201, info)) = asked.answer {
                let info: Value = serde_json::from_slice(&info).unwrap();
                self.id = info["serInstanceId"].as_str().map(str::to_owned);
                let heard = Instant::now();
                (self.registered, self.told) = (Some(heard), Some((begun, heard)));
                let href = &info["_links"]["liveness"]["href"];
                return Some(href.as_str().unwrap().to_owned());
            }
            self.note(begun, asked.answer.map(|(status, _)| status));
            sleep(Duration::from_millis(300)).await;
        }
        None
    }

    fn note(&mut self, begun: Instant, status: Option<u16>) {
        if status == Some(503) {
            self.refusals.push((begun, Instant::now()));
        }
    }

    fn hear(&mut self, begun: Instant, info: &[u8]) {
        let info: Value = serde_json::from_slice(info).unwrap();
        self.told = Some((begun, Instant::now()));
        self.beats += 1;
        self.stamp = info["timeStamp"]["seconds"].as_u64().unwrap();
    }

    /// Removes the service until that is acknowledged.
    async fn leave(&mut self, line: &mut Line, liveness: &str) {
        let own = liveness.strip_suffix("/liveness").unwrap();
        while !self.left {
            let asked = line.ask("DELETE", own, None, self.app.retry()).await;
            match asked.answer {
                // 404: the removal before this one was carried out.
                Some((204 | 404, _)) => self.left = true,
                _ => sleep(Duration::from_millis(300)).await,
            }
        }
    }
}
