//! What clients know for certain: who was told what, and what was still under way.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use super::random::Random;
use super::{Answer, Server, get, service, try_send};

/// Clients at once. Each has an application of its own and one request under way.
const CLIENTS: usize = 6;
/// Services of a client: enough for every size, few enough for a long soak.
const SERVICES_MAX: usize = 40;
/// Waiting for something is given up then.
const PATIENCE: Duration = Duration::from_secs(60);

/// The service management root.
const ROOT: &str = "/mec_service_mgmt/v1";

/// One service, as its client knows it.
#[derive(Debug, Clone)]
struct Known {
    own: String,
    liveness: String,
    /// The representation last acknowledged.
    info: Value,
    /// The time stamp last acknowledged (seconds and nanoseconds), once it has beaten.
    beat: Option<(u64, u64)>,
    removed: bool,
    under_way: Option<Change>,
}

/// A request whose answer has not come.
#[derive(Debug, Clone)]
enum Change {
    Beat,
    Replace(Value),
    Remove,
}

/// The clients' common memory.
pub(crate) struct Clients {
    services_max: usize,
    known: Mutex<BTreeMap<String, Known>>,
    /// Names of registrations that may be there or not.
    registering: Mutex<BTreeSet<String>>,
    acknowledged: AtomicU64,
    refused: AtomicU64,
}

impl Default for Clients {
    fn default() -> Self {
        Self::hoarding(SERVICES_MAX)
    }
}

/// Waits until something is so, for a minute at most.
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let pause = Duration::from_millis(2);
    for _ in 0..PATIENCE.as_millis() / pause.as_millis() {
        if is_so() {
            return;
        }
        std::thread::sleep(pause);
    }
    panic!("waited too long: {what}");
}

fn app(client: usize) -> String {
    format!("app-{client}")
}

impl Clients {
    /// Clients that keep so many services each.
    pub(crate) fn hoarding(services_max: usize) -> Self {
        Self {
            services_max,
            known: Mutex::default(),
            registering: Mutex::default(),
            acknowledged: AtomicU64::default(),
            refused: AtomicU64::default(),
        }
    }

    /// All acknowledgements so far.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::SeqCst)
    }

    /// All 503 so far.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::SeqCst)
    }

    /// Load from several clients, until `until` returns or the server fails them.
    pub(crate) fn load(&self, server: &Server, random: &mut Random, until: impl FnOnce()) {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for client in 0..CLIENTS {
                let client = Client {
                    clients: self,
                    server,
                    number: client,
                    random: random.fork(),
                };
                let stop = &stop;
                scope.spawn(move || client.run(stop));
            }
            // Also when it panics: the scope waits for the clients.
            let _stop = StopOnDrop(&stop);
            until();
        });
    }

    /// Compares a restarted registry with what clients know, and settles what was in doubt.
    pub(crate) fn check(&self, server: &Server) {
        let mut known = self.known.lock().unwrap();
        let mut registering = self.registering.lock().unwrap();
        let mut found = BTreeMap::new();
        for client in 0..CLIENTS {
            let list = get(&format!("{}/services", server.app(&app(client))));
            // An application whose first registration was never acknowledged may be unknown.
            if list.status == 404 {
                continue;
            }
            for info in list.json().as_array().unwrap() {
                found.insert(text(info, "serInstanceId"), info.clone());
            }
        }
        for (id, known) in known.iter_mut() {
            let at = |path: &str| format!("{}{path}", server.url);
            let under_way = known.under_way.take();
            let Some(info) = found.remove(id) else {
                let gone = known.removed || matches!(under_way, Some(Change::Remove));
                assert!(gone, "{id} is lost, beaten at {:?}", known.beat);
                assert_eq!(get(&at(&known.own)).status, 404);
                known.removed = true;
                continue;
            };
            assert!(
                !known.removed,
                "{id} was removed, acknowledged, and is back"
            );
            let replaced = match &under_way {
                Some(Change::Replace(body)) => ["serName", "transportInfo"]
                    .iter()
                    .all(|member| info[*member] == body[*member]),
                _ => false,
            };
            assert!(
                info == known.info || replaced,
                "{id} is {} long and was acknowledged as {} long",
                info.to_string().len(),
                known.info.to_string().len()
            );
            known.info = info;
            let stored = stamp(&get(&at(&known.liveness)).json());
            let in_doubt = matches!(under_way, Some(Change::Beat));
            if let Some(beat) = known.beat {
                assert!(
                    stored == beat || (in_doubt && stored > beat),
                    "{id} has beaten at {stored:?}, acknowledged {beat:?}, under way {under_way:?}"
                );
            }
            known.beat = Some(stored);
        }
        // What is there beyond that was being registered.
        for (id, info) in found {
            let name = text(&info, "serName");
            assert!(registering.remove(&name), "{id} was never registered");
            known.insert(id, Known::new(info));
        }
        registering.clear();
        let counted = known.values().filter(|known| !known.removed).count();
        eprintln!(
            "  {} acknowledged, {counted} services, all there",
            self.acknowledged()
        );
    }
}

impl Known {
    fn new(info: Value) -> Self {
        let link = |name: &str| text(&info["_links"][name], "href");
        Self {
            own: link("self"),
            liveness: link("liveness"),
            info,
            beat: None,
            removed: false,
            under_way: None,
        }
    }
}

fn text(value: &Value, member: &str) -> String {
    value[member].as_str().unwrap().to_owned()
}

fn stamp(liveness: &Value) -> (u64, u64) {
    let number = |member: &str| liveness["timeStamp"][member].as_u64().unwrap();
    (number("seconds"), number("nanoSeconds"))
}

/// One client: one request at a time, the next once the last is answered.
struct Client<'a> {
    clients: &'a Clients,
    server: &'a Server,
    number: usize,
    random: Random,
}

impl Client<'_> {
    fn run(mut self, stop: &AtomicBool) {
        let mut turn = 0;
        while !stop.load(Ordering::SeqCst) {
            turn += 1;
            let mine = self.services();
            let id = &mine.get(self.random.below(mine.len().max(1)));
            let done = match (id, self.random.below(16)) {
                (None, _) => self.register(turn),
                (_, 0..4) if mine.len() < self.clients.services_max => self.register(turn),
                (Some(id), 4) => self.remove(id),
                (Some(id), 5) => self.replace(id, turn),
                (Some(id), _) => self.beat(id),
            };
            if done.is_none() {
                return;
            }
            self.clients.acknowledged.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn services(&self) -> Vec<String> {
        let known = self.clients.known.lock().unwrap();
        let owner = format!("/applications/{}/", app(self.number));
        let mine = known
            .iter()
            .filter(|(_, known)| !known.removed && known.own.contains(&owner));
        mine.map(|(id, _)| id.clone()).collect()
    }

    /// Short ones mostly, and up to 60 kB.
    fn body(&mut self, turn: usize) -> Value {
        let length = 60_000 >> (2 * self.random.below(6));
        let length = self.random.below(length) + 1;
        let filling: String = (0..length).map(|_| self.letter()).collect();
        let name = format!("s-{}-{turn}-{}", self.number, self.clients.acknowledged());
        let mut body = service(&name, Some(3600));
        body["transportInfo"]["implSpecificInfo"] = json!(filling);
        body
    }

    fn letter(&mut self) -> char {
        char::from(b"abcdefghijklmnop"[self.random.below(16)])
    }

    fn register(&mut self, turn: usize) -> Option<()> {
        let body = self.body(turn);
        let name = text(&body, "serName");
        self.clients
            .registering
            .lock()
            .unwrap()
            .insert(name.clone());
        let path = format!("{ROOT}/applications/{}/services", app(self.number));
        let answer = self.ask("POST", &path, &[], Some(&body))?;
        assert_eq!(answer.status, 201, "{answer:?}");
        let info = answer.json();
        let id = text(&info, "serInstanceId");
        self.clients
            .known
            .lock()
            .unwrap()
            .insert(id, Known::new(info));
        self.clients.registering.lock().unwrap().remove(&name);
        Some(())
    }

    fn beat(&self, id: &str) -> Option<()> {
        let known = self.begin(id, Change::Beat);
        let wanted = [("prefer", "return=representation")];
        let state = json!({"state": "ACTIVE"});
        let answer = self.ask("PATCH", &known.liveness, &wanted, Some(&state))?;
        assert_eq!(answer.status, 200, "{answer:?}");
        let state = &answer.json()["state"];
        assert!(state == "ACTIVE", "{id} is alive and was found {state}");
        self.end(id, |known| known.beat = Some(stamp(&answer.json())));
        Some(())
    }

    fn replace(&mut self, id: &str, turn: usize) -> Option<()> {
        let body = self.body(turn);
        let known = self.begin(id, Change::Replace(body.clone()));
        let answer = self.ask("PUT", &known.own, &[], Some(&body))?;
        assert_eq!(answer.status, 200, "{answer:?}");
        self.end(id, |known| known.info = answer.json());
        Some(())
    }

    fn remove(&self, id: &str) -> Option<()> {
        let known = self.begin(id, Change::Remove);
        let answer = self.ask("DELETE", &known.own, &[], None)?;
        assert_eq!(answer.status, 204, "{answer:?}");
        self.end(id, |known| known.removed = true);
        Some(())
    }

    fn begin(&self, id: &str, change: Change) -> Known {
        let mut known = self.clients.known.lock().unwrap();
        let known = known.get_mut(id).unwrap();
        known.under_way = Some(change);
        known.clone()
    }

    fn end(&self, id: &str, note: impl FnOnce(&mut Known)) {
        let mut known = self.clients.known.lock().unwrap();
        let known = known.get_mut(id).unwrap();
        note(known);
        known.under_way = None;
    }

    /// `None`: the server could not do it, so nobody knows whether it is done.
    fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Option<Answer> {
        let body = body.map(Value::to_string).unwrap_or_default();
        let uri = format!("{}{path}", self.server.url);
        let answer = try_send(method, &uri, headers, body.as_bytes()).ok()?;
        if answer.status == 503 {
            self.clients.refused.fetch_add(1, Ordering::SeqCst);
            return None;
        }
        Some(answer)
    }
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
