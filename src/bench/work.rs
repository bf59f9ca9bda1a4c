//! What is asked, and what is a good answer to it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Deserialize;

use super::fleet::{Fleet, Id, Names};
use super::link::Target;
use crate::wire::problem::refusal;

/// A plain heartbeat.
pub(super) const BEAT: &[u8] = br#"{"state":"ACTIVE"}"#;

/// Something that was asked.
#[derive(Debug, Clone)]
pub(super) struct Job {
    /// What it is counted under.
    pub(super) kind: &'static str,
    what: What,
}

#[derive(Debug, Clone)]
enum What {
    Beat,
    Batch { entries: u64 },
    Read,
    Register { number: usize },
    Remove,
}

/// An answer that is not as it should be.
#[derive(Debug)]
pub(super) struct Wrong {
    /// What it is counted under.
    pub(super) kind: String,
    /// In words.
    pub(super) example: String,
}

impl Wrong {
    fn status(status: u16, body: &[u8]) -> Self {
        Self {
            kind: format!("status {status}"),
            example: refusal(status, body),
        }
    }

    fn content(example: &str) -> Self {
        Self {
            kind: "unexpected content".to_owned(),
            example: example.to_owned(),
        }
    }
}

/// A kind of load. Shared by all threads.
pub(super) trait Work: Send + Sync + 'static {
    /// Writes the next request; `None` if there is nothing left to ask.
    fn next(&self, request: &mut Vec<u8>) -> Option<Job>;

    /// Whether that is a good answer, and for how many entries it stands.
    fn judge(&self, job: &Job, status: u16, body: &[u8]) -> Result<u64, Wrong>;
}

fn expect(status: u16, expected: &[u16], body: &[u8]) -> Result<u64, Wrong> {
    match expected.contains(&status) {
        true => Ok(1),
        false => Err(Wrong::status(status, body)),
    }
}

/// Heartbeats one by one, of all services in turn.
pub(super) struct Beats {
    heads: Vec<Vec<u8>>,
    tail: Vec<u8>,
    ids: Arc<[Id]>,
    per_app: usize,
    next: AtomicUsize,
}

impl Beats {
    pub(super) fn new(target: &Target, fleet: &Fleet) -> Self {
        let heads = fleet.apps().iter();
        let heads =
            heads.map(|app| target.start("PATCH", &format!("{}/services/", Names::app(app))));
        Self {
            heads: heads.collect(),
            tail: [b"/liveness".as_slice(), &target.end(BEAT)].concat(),
            ids: fleet.ids(),
            per_app: fleet.per_app(),
            next: AtomicUsize::new(0),
        }
    }

    fn write(&self, number: usize, request: &mut Vec<u8>) {
        let number = number % self.ids.len();
        request.extend_from_slice(&self.heads[number / self.per_app]);
        request.extend_from_slice(&self.ids[number]);
        request.extend_from_slice(&self.tail);
    }
}

impl Work for Beats {
    fn next(&self, request: &mut Vec<u8>) -> Option<Job> {
        self.write(self.next.fetch_add(1, Ordering::Relaxed), request);
        Some(Job {
            kind: "beat",
            what: What::Beat,
        })
    }

    fn judge(&self, _: &Job, status: u16, body: &[u8]) -> Result<u64, Wrong> {
        expect(status, &[200, 204], body)
    }
}

/// Heartbeats of many services at once.
pub(super) struct Batches {
    requests: Vec<(Vec<u8>, u64)>,
    next: AtomicUsize,
}

impl Batches {
    /// `per_request` services in one, as far as an application has so many.
    pub(super) fn new(target: &Target, fleet: &Fleet, per_request: usize) -> Self {
        let ids = fleet.ids();
        let mut requests = Vec::new();
        for (app, ids) in fleet.apps().iter().zip(ids.chunks(fleet.per_app())) {
            for ids in ids.chunks(per_request.max(1)) {
                requests.push((batch(target, app, ids), ids.len() as u64));
            }
        }
        Self {
            requests,
            next: AtomicUsize::new(0),
        }
    }
}

/// One batch heartbeat.
pub(super) fn batch(target: &Target, app: &str, ids: &[Id]) -> Vec<u8> {
    let ids: Vec<_> = ids.iter().map(|id| String::from_utf8_lossy(id)).collect();
    let body = serde_json::json!({"state": "ACTIVE", "serviceIds": ids}).to_string();
    let path = format!("{}/liveness", Names::app(app));
    target.request("PATCH", &path, body.as_bytes())
}

/// How many entries of a batch's answer are good.
pub(super) fn batch_good(body: &[u8]) -> Option<u64> {
    #[derive(Deserialize)]
    struct Entry {
        status: u16,
    }
    let entries: Vec<Entry> = serde_json::from_slice(body).ok()?;
    let good = entries.iter().filter(|it| matches!(it.status, 200 | 204));
    Some(good.count() as u64)
}

impl Work for Batches {
    fn next(&self, request: &mut Vec<u8>) -> Option<Job> {
        let number = self.next.fetch_add(1, Ordering::Relaxed) % self.requests.len();
        let (bytes, entries) = &self.requests[number];
        request.extend_from_slice(bytes);
        Some(Job {
            kind: "batch",
            what: What::Batch { entries: *entries },
        })
    }

    fn judge(&self, job: &Job, status: u16, body: &[u8]) -> Result<u64, Wrong> {
        expect(status, &[200], body)?;
        let good = batch_good(body)
            .ok_or_else(|| Wrong::content("the answer to a batch is no list of statuses"))?;
        match job.what {
            What::Batch { entries } if entries != good => Err(Wrong::content(&format!(
                "{good} of {entries} entries of a batch were accepted"
            ))),
            _ => Ok(good),
        }
    }
}

/// New services, again and again, a thousand for each application.
pub(super) struct Registrations {
    target: Arc<Target>,
    tail: Vec<u8>,
    names: Names,
    next: AtomicUsize,
}

impl Registrations {
    pub(super) fn new(target: &Arc<Target>, names: Names, interval_s: u32) -> Self {
        let body = Names::service(interval_s);
        let tail = [b"/services".as_slice(), &target.end(body.as_bytes())].concat();
        Self {
            target: target.clone(),
            tail,
            names,
            next: AtomicUsize::new(0),
        }
    }

    fn write(&self, request: &mut Vec<u8>) -> Job {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let app = self.app_of(number);
        request.extend_from_slice(&self.target.start("POST", &Names::app(&app)));
        request.extend_from_slice(&self.tail);
        Job {
            kind: "register",
            what: What::Register { number },
        }
    }

    fn app_of(&self, number: usize) -> String {
        self.names
            .nth(number / super::SERVICES_PER_APP_MAX as usize)
    }

    /// All applications that have been used.
    pub(super) fn apps(&self) -> Vec<String> {
        let used = self.next.load(Ordering::Relaxed);
        let apps = used.div_ceil(super::SERVICES_PER_APP_MAX as usize);
        (0..apps).map(|number| self.names.nth(number)).collect()
    }
}

impl Work for Registrations {
    fn next(&self, request: &mut Vec<u8>) -> Option<Job> {
        Some(self.write(request))
    }

    fn judge(&self, _: &Job, status: u16, body: &[u8]) -> Result<u64, Wrong> {
        expect(status, &[201], body)
    }
}

/// Nine beats in ten, and a bit of everything else.
pub(super) struct Mixed {
    target: Arc<Target>,
    beats: Beats,
    read_tail: Vec<u8>,
    remove_tail: Vec<u8>,
    /// Services that come and go; those that beat stay.
    registrations: Registrations,
    random: Mutex<Random>,
}

struct Random {
    numbers: fastrand::Rng,
    /// Registered meanwhile: number and id.
    guests: Vec<(usize, Id)>,
}

impl Mixed {
    pub(super) fn new(
        target: &Arc<Target>,
        fleet: &Fleet,
        registrations: Registrations,
        seed: u64,
    ) -> Self {
        Self {
            target: target.clone(),
            beats: Beats::new(target, fleet),
            read_tail: [b"/liveness".as_slice(), &target.end(b"")].concat(),
            remove_tail: target.end(b""),
            registrations,
            random: Mutex::new(Random {
                numbers: fastrand::Rng::with_seed(seed),
                guests: Vec::new(),
            }),
        }
    }

    /// Applications whose services come and go.
    pub(super) fn guest_apps(&self) -> Vec<String> {
        self.registrations.apps()
    }

    fn path_of(&self, method: &str, app: &str, id: &Id, tail: &[u8], request: &mut Vec<u8>) {
        let path = format!("{}/services/", Names::app(app));
        request.extend_from_slice(&self.target.start(method, &path));
        request.extend_from_slice(id);
        request.extend_from_slice(tail);
    }
}

impl Work for Mixed {
    fn next(&self, request: &mut Vec<u8>) -> Option<Job> {
        let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        let roll = random.numbers.u8(0..100);
        let number = random.numbers.usize(0..self.beats.ids.len());
        let job = |kind, what| Some(Job { kind, what });
        if roll >= 98 && !random.guests.is_empty() {
            let guests = random.guests.len();
            let guest = random.numbers.usize(0..guests);
            let (number, id) = random.guests.swap_remove(guest);
            drop(random);
            let app = self.registrations.app_of(number);
            self.path_of("DELETE", &app, &id, &self.remove_tail, request);
            return job("remove", What::Remove);
        }
        drop(random);
        match roll {
            0..90 => {
                self.beats.write(number, request);
                job("beat", What::Beat)
            }
            90..95 => {
                let mut head = self.beats.heads[number / self.beats.per_app].clone();
                head.splice(..b"PATCH".len(), *b"GET");
                request.extend_from_slice(&head);
                request.extend_from_slice(&self.beats.ids[number]);
                request.extend_from_slice(&self.read_tail);
                job("read", What::Read)
            }
            // Also where there is nobody to be removed yet.
            _ => Some(self.registrations.write(request)),
        }
    }

    fn judge(&self, job: &Job, status: u16, body: &[u8]) -> Result<u64, Wrong> {
        match job.what {
            What::Register { number } => {
                expect(status, &[201], body)?;
                let id = Fleet::id_in(body).ok_or_else(|| {
                    Wrong::content("a registration's answer has no serInstanceId")
                })?;
                let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
                random.guests.push((number, id));
                Ok(1)
            }
            What::Read => expect(status, &[200], body),
            What::Remove => expect(status, &[204], body),
            What::Beat | What::Batch { .. } => self.beats.judge(job, status, body),
        }
    }
}
