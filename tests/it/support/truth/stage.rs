//! A server with applications around it, and what can be done to it.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::app::{App, Diary, Fate};
use super::home::{Home, Place};
use super::line::Line;
use super::verdict::{self, Row, Spot};
use crate::support::random::Random;
use crate::support::{Server, mepulse, post, service, try_send};

/// Intervals of the applications, in seconds.
const INTERVALS_S: [u64; 2] = [2, 5];
/// The smallest grace that the configuration allows beside its stall and tick. It is the grace of
/// both intervals.
pub(super) const GRACE: Duration = Duration::from_millis(1200);
/// How old the last mark may be when a server is killed: its interval, and a commit to be in.
const MARK_AGE: Duration = Duration::from_millis(1500);
/// How often verdicts are looked for.
pub(super) const LOOK: Duration = Duration::from_millis(250);

/// See the module.
pub(crate) struct Stage {
    home: Home,
    /// Its own loopback address: nobody else takes the port while the server is down.
    address: SocketAddr,
    settings: Vec<String>,
    server: Option<Server>,
    runtime: Runtime,
    curtain: watch::Sender<bool>,
    apps: Vec<(Fate, JoinHandle<Diary>)>,
    begun: Instant,
    suspended: Arc<Mutex<HashMap<String, Instant>>>,
    spots: Vec<Spot>,
    has_ended: Arc<AtomicBool>,
}

fn own_address() -> SocketAddr {
    static STAGES: AtomicU32 = AtomicU32::new(0);
    // A process id has 22 bits.
    let [_, high, middle, low] = (std::process::id() & 0x3f_ffff).to_be_bytes();
    let port = 20_000 + STAGES.fetch_add(1, Ordering::SeqCst) % 10_000;
    let ip = Ipv4Addr::new(127, 64 + high, middle, low);
    SocketAddr::from((ip, u16::try_from(port).unwrap()))
}

impl Stage {
    /// A server, and so many applications that live and die; the fates come within `act`.
    pub(crate) fn new(
        place: &Place,
        settings: &[&str],
        (living, dead): (usize, usize),
        act: Duration,
        mut random: Random,
    ) -> Result<Self, String> {
        let terms = [
            "liveness.min_interval_s=1",
            "liveness.grace_min_ms=1200",
            "liveness.hide_suspended=false",
        ];
        let mut stage = Self {
            home: Home::new(place)?,
            address: own_address(),
            settings: terms.iter().chain(settings).map(|&s| s.into()).collect(),
            server: None,
            runtime: tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .unwrap(),
            curtain: watch::Sender::new(false),
            apps: Vec::new(),
            begun: Instant::now(),
            suspended: Arc::default(),
            spots: Vec::new(),
            has_ended: Arc::default(),
        };
        stage.launch();
        stage.look_for_verdicts();
        stage.begun = Instant::now();
        let fates = [
            (Fate::Lives, living),
            (Fate::Dies, dead),
            (Fate::Leaves, 10),
        ];
        for (fate, count) in fates {
            for number in 0..count {
                let app = stage.app(fate, number, act, random.fork());
                let task = app.live(stage.address, stage.curtain.subscribe());
                stage.apps.push((fate, stage.runtime.spawn(task)));
            }
        }
        Ok(stage)
    }

    fn app(&self, fate: Fate, number: usize, act: Duration, mut random: Random) -> App {
        let interval = Duration::from_secs(INTERVALS_S[number % INTERVALS_S.len()]);
        let promise = random.once_in(3).then(|| Duration::from_secs(1));
        let keeps_connection = random.once_in(2);
        let mut within = |from: f64, to: Duration| {
            let share =
                f64::from(u32::try_from(random.below(1 << 20)).unwrap()) / f64::from(1 << 20);
            self.begun + Duration::from_secs_f64(from + share * (to.as_secs_f64() - from))
        };
        // Most are there from the beginning; of those that live, some come in the middle of it.
        let comes_late = fate == Fate::Lives && number.is_multiple_of(5);
        let begins = within(
            0.0,
            if comes_late {
                act
            } else {
                Duration::from_secs(1)
            },
        );
        let ends = within(2.0, act);
        App {
            name: format!("{fate:?}-{number}").to_lowercase(),
            fate,
            interval,
            promise,
            keeps_connection,
            begins,
            ends,
            random,
        }
    }

    /// Polls for SUSPENDED until the end.
    fn look_for_verdicts(&self) {
        let uri = format!("http://{}/mec_service_mgmt/v1/services", self.address);
        let (suspended, has_ended) = (self.suspended.clone(), self.has_ended.clone());
        std::thread::spawn(move || {
            while !has_ended.load(Ordering::SeqCst) {
                std::thread::sleep(LOOK);
                let Ok(answer) = try_send("GET", &uri, &[], b"") else {
                    continue;
                };
                let seen = Instant::now();
                if answer.status != 200 {
                    continue;
                }
                for info in answer.json().as_array().unwrap() {
                    if info["state"] == "SUSPENDED" {
                        let id = info["serInstanceId"].as_str().unwrap().to_owned();
                        suspended.lock().unwrap().entry(id).or_insert(seen);
                    }
                }
            }
        });
    }

    fn launch(&mut self) {
        let address = self.address.to_string();
        let mut args = vec!["--listen", &address];
        args.extend(self.settings.iter().flat_map(|s| ["--set", s.as_str()]));
        let mut command = mepulse();
        if let Home::FalseClock(_, wall) = &self.home {
            wall.deceive(&mut command);
        }
        let (dir, log) = (self.home.data_dir(), self.home.log());
        let server = Server::try_start(command, &dir, &log, &args);
        self.server = Some(server.unwrap_or_else(|code| {
            panic!(
                "exit code {code:?}: {}",
                std::fs::read_to_string(&log).unwrap()
            )
        }));
    }

    /// Lets time pass.
    pub(crate) fn pause(&self, time: Duration) {
        std::thread::sleep(time);
    }

    /// `kill -9`, and a start after so long.
    pub(crate) fn kill_for(&mut self, outage: Duration) {
        self.kill_and(|stage| stage.pause(outage));
    }

    /// The same, and the wall clock is stepped in between.
    pub(crate) fn kill_and_set_wall(&mut self, ahead_s: i64, outage: Duration) {
        self.kill_and(|stage| {
            stage.set_wall(ahead_s);
            stage.pause(outage);
        });
    }

    fn kill_and(&mut self, outage: impl FnOnce(&Self)) {
        let start = Instant::now() - MARK_AGE;
        self.server.take().unwrap().kill();
        outage(self);
        self.launch();
        self.was_blind(start);
    }

    /// A planned restart.
    pub(crate) fn stop_for(&mut self, outage: Duration) {
        let start = Instant::now();
        self.server.take().unwrap().stop();
        self.pause(outage);
        self.launch();
        self.was_blind(start);
    }

    pub(crate) fn freeze_for(&mut self, time: Duration) {
        let start = Instant::now();
        let server = self.server.as_ref().unwrap();
        server.signal("STOP");
        self.pause(time);
        server.signal("CONT");
        self.was_blind(start);
    }

    /// One sync takes so long.
    pub(crate) fn stall_disk_for(&mut self, time: Duration) {
        let Home::SlowDisk(disk, _) = &self.home else {
            panic!("this disk cannot stall");
        };
        let start = Instant::now();
        let syncs = disk.syncs();
        disk.delay_syncs(time);
        // The next one has begun by then, with all those that beat.
        self.pause(Duration::from_millis(300));
        disk.delay_syncs(Duration::ZERO);
        while disk.syncs() == syncs {
            self.pause(Duration::from_millis(10));
        }
        self.was_blind(start);
    }

    /// Steps the wall clock of the server.
    pub(crate) fn set_wall(&self, ahead_s: i64) {
        let Home::FalseClock(_, wall) = &self.home else {
            panic!("this clock is right");
        };
        wall.step(ahead_s);
    }

    /// Others beat so often that the queue is full.
    pub(crate) fn flood_for(&mut self, time: Duration) {
        const FLOODERS: usize = 32;
        let body = json!({"state": "ACTIVE"});
        let start = Instant::now();
        let app = self.server().app("flood");
        let registration = loop {
            // There is hardly any room for the others already.
            let answer = post(&format!("{app}/services"), &service("flood", Some(3600)));
            if answer.status == 201 {
                break answer.json();
            }
        };
        let path = registration["_links"]["liveness"]["href"].as_str().unwrap();
        let flood = (0..FLOODERS).map(|_| {
            let (mut line, body) = (Line::new(self.address, true), body.clone());
            let path = path.to_owned();
            self.runtime.spawn(async move {
                while start.elapsed() < time {
                    line.ask("PATCH", &path, Some(&body), time).await;
                    tokio::time::sleep(Duration::from_millis(25)).await;
                }
            })
        });
        for flooder in flood.collect::<Vec<_>>() {
            self.runtime.block_on(flooder).unwrap();
        }
        self.was_overloaded(start);
    }

    /// Others hold all connections that are to be had, and say nothing.
    pub(crate) fn hog_for(&mut self, time: Duration) {
        let start = Instant::now();
        let mut held = Vec::new();
        while start.elapsed() < time {
            let stream = self.server().connect();
            stream.set_nonblocking(true).unwrap();
            held.push(stream);
            self.pause(Duration::from_millis(5));
            // Those that were turned away have heard it.
            held.retain(|stream| {
                let peeked = stream.peek(&mut [0]);
                peeked.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
            });
        }
        drop(held);
        self.was_overloaded(start);
    }

    fn server(&self) -> &Server {
        self.server.as_ref().unwrap()
    }

    fn was_blind(&mut self, start: Instant) {
        self.spots.push(Spot::until_now(start, false));
    }

    fn was_overloaded(&mut self, start: Instant) {
        self.spots.push(Spot::until_now(start, true));
    }

    /// Waits for the last verdict that is due, ends it all with a `kill -9` and compares.
    pub(crate) fn verdict(mut self, name: &str) -> Row {
        let log = self.home.log();
        let (living, others): (Vec<_>, Vec<_>) = self
            .apps
            .drain(..)
            .partition(|(fate, _)| *fate == Fate::Lives);
        let join = |tasks: Vec<(Fate, JoinHandle<Diary>)>| -> Vec<Diary> {
            let tasks = tasks.into_iter();
            tasks
                .map(|(_, task)| self.runtime.block_on(task).unwrap())
                .collect()
        };
        let mut diaries = join(others);
        // Long enough for every wrong verdict, too.
        let longest = Duration::from_secs(INTERVALS_S[1]) + GRACE;
        let mut until = Instant::now() + longest + 2 * LOOK;
        for diary in &diaries {
            if let Some((_, heard)) = diary.told {
                until = until
                    .max(verdict::minimum(&diary.app, heard, diary.beats, &self.spots) + 2 * LOOK);
            }
        }
        self.pause(until.saturating_duration_since(Instant::now()));
        let is_seen = |diary: &Diary| {
            let id = diary.id.as_ref();
            diary.app.fate != Fate::Dies
                || id.is_none_or(|id| self.suspended.lock().unwrap().contains_key(id))
        };
        while !diaries.iter().all(is_seen) && until.elapsed() < verdict::GROSS {
            self.pause(LOOK);
        }
        self.curtain.send_replace(true);
        diaries.extend(join(living));
        self.has_ended.store(true, Ordering::SeqCst);
        self.server.take().unwrap().kill();
        let seen = self.suspended.lock().unwrap().clone();
        let mut row = Row::judge(name, &self.home.data_dir(), &diaries, self.spots, &seen);
        if !row.complaints.is_empty() {
            let log = std::fs::read_to_string(log).unwrap();
            row.complaints.push(format!("the server's log: {log}"));
        }
        row
    }
}
