//! Other platforms: plain MEC 011, EdgeGallery's, and some that do not work.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use super::{QUICK, services};
use crate::support::agent::{Agent, Config, until, until_true};
use crate::support::stub::{Reply, Request, Stub};
use crate::support::{Server, data_dir};

/// A platform that keeps services, and calls `beat` for everything below them.
pub(super) struct Platform {
    services: Mutex<Vec<Value>>,
    registered: AtomicUsize,
    /// What a service's `_links` and `livenessInterval` are, for its id.
    links: fn(&str) -> (Value, u32),
    beat: fn(&Request) -> Reply,
    /// Whether it shows its gateway's address instead of an application's.
    is_gateway: bool,
}

impl Platform {
    pub(super) fn new(links: fn(&str) -> (Value, u32), beat: fn(&Request) -> Reply) -> Self {
        Self {
            services: Mutex::default(),
            registered: AtomicUsize::new(0),
            links,
            beat,
            is_gateway: false,
        }
    }

    /// Another application has this one.
    fn with(self, service: Value) -> Self {
        self.services.lock().unwrap().push(service);
        self
    }

    pub(super) fn answer(&self, request: &Request) -> Reply {
        let mut services = self.services.lock().unwrap();
        let path = request.path.split('?').next().unwrap();
        let below = path.rsplit_once("/services").map_or("", |(_, below)| below);
        let shown = |id: &str| {
            let mut info = request.json();
            let (mut links, interval) = (self.links)(id);
            let offered = info.get("livenessInterval").is_some();
            if !offered {
                links = json!({"self": {}});
            }
            info["serInstanceId"] = id.into();
            info["_links"] = links;
            if self.is_gateway && info["transportInfo"].is_object() {
                let uri = format!("https://gateway.example:8443/{id}");
                info["transportInfo"]["endpoint"] = json!({"uris": [uri]});
            }
            if interval > 0 && offered {
                info["livenessInterval"] = interval.into();
            }
            info
        };
        let at = services
            .iter()
            .position(|it| below == format!("/{}", it["serInstanceId"].as_str().unwrap()));
        match (request.method.as_str(), below, at) {
            ("POST", "", _) => {
                let n = self.registered.fetch_add(1, Ordering::SeqCst);
                let info = shown(&format!("{n:032x}"));
                services.push(info.clone());
                Reply::json(201, &info)
            }
            // Like many, it does not filter as it is asked to.
            ("GET", "", _) => Reply::json(200, &json!(*services)),
            ("GET", _, Some(at)) => Reply::json(200, &services[at]),
            ("PUT", _, Some(at)) => {
                let id = services[at]["serInstanceId"].as_str().unwrap().to_owned();
                services[at] = shown(&id);
                Reply::json(200, &services[at])
            }
            ("DELETE", _, Some(at)) => {
                services.remove(at);
                Reply::empty(204)
            }
            (_, "" | "/", _) if !path.contains("/liveness") => Reply::empty(404),
            _ if path.contains("/liveness") => (self.beat)(request),
            _ => Reply::json(404, &json!({"title": "Not Found"})),
        }
    }

    fn start(self) -> Stub {
        Stub::start(move |request| self.answer(request))
    }
}

/// Plain MEC 011, an interval of 2 s.
fn plain_links(id: &str) -> (Value, u32) {
    let own = format!("/mec_service_mgmt/v1/applications/app/services/{id}");
    (
        json!({"self": {"href": own}, "liveness": {"href": format!("{own}/liveness")}}),
        2,
    )
}

pub(super) fn beats(stub: &Stub) -> Vec<Request> {
    let requests = stub.requests().into_iter();
    requests
        .filter(|it| it.path.contains("/liveness"))
        .collect()
}

#[test]
fn a_plain_mec_011_platform_gets_single_beats_without_promises() {
    let platform = Platform::new(plain_links, |request| {
        match (
            request.method.as_str(),
            request.json().as_object().map(|it| it.len()),
        ) {
            ("PATCH", Some(1)) if request.json()["state"] == "ACTIVE" => Reply::empty(204),
            ("PATCH", _) => Reply::json(400, &json!({"detail": "unknown member"})),
            _ => Reply::empty(405),
        }
    });
    let (keep, _) = data_dir();
    let stub = platform.start();
    let config = Config::new(&stub.url)
        .service("cam", 2, "")
        .service("map", 2, "");
    let agent = Agent::start(keep.path(), &config);
    agent.beating("cam");
    agent.beating("map");
    until_true("promises are given up", || beats(&stub).len() > 6);
    let beats = beats(&stub);
    let promised = beats
        .iter()
        .filter(|it| it.json().get("retryInterval").is_some());
    // At most one round was under way when it learnt.
    assert!(promised.count() <= 4);
    assert!(beats.iter().all(|it| it.method == "PATCH"));
    assert!(agent.status().get("retryInterval").is_none());
    assert_eq!(stub.count("POST"), 2);
    agent.stop();
    assert_eq!(stub.count("DELETE"), 2);
}

/// EdgeGallery's, an interval of 2 s.
pub(super) fn edgegallery() -> Platform {
    let links = |id: &str| {
        let own = format!("/mep/mec_service_mgmt/v1/applications/app/services/{id}/liveness");
        (json!({"self": {"liveness": own}, "appInstanceId": ""}), 2)
    };
    Platform::new(links, |request| {
        let known = request.header("x-appinstanceid") == Some("app");
        match request.method.as_str() {
            "PUT" if known && request.body == br#"{"state":"ACTIVE"}"# => Reply::empty(204),
            "PUT" => Reply::empty(400),
            _ => Reply::empty(405),
        }
    })
}

#[test]
fn edgegallerys_platform_gets_put() {
    let platform = edgegallery();
    let (keep, _) = data_dir();
    // The link is in the answer to the registration, and nowhere else.
    let stub = Stub::start(move |request| match platform.answer(request) {
        Reply::Answer(200, headers, body) if request.method == "GET" => {
            let body = String::from_utf8(body).unwrap();
            let body = body.replace("\"liveness\":", "\"nothing\":");
            Reply::Answer(200, headers, body.into_bytes())
        }
        reply => reply,
    });
    let config = Config::new(&stub.url)
        .server("api_root = \"/mep/mec_service_mgmt/v1\"")
        .service("cam", 2, "");
    let agent = Agent::start(keep.path(), &config);
    let id = agent.beating("cam");
    agent.kill();
    let agent = Agent::start(keep.path(), &config);
    assert_eq!(agent.beating("cam"), id);
    assert_eq!(stub.count("POST"), 1);
    assert!(beats(&stub).iter().all(|it| it.method == "PUT"));
    assert!(
        stub.requests()
            .iter()
            .all(|it| it.path.starts_with("/mep/"))
    );
}

/// As EdgeGallery's lists it for everybody.
fn of_another(name: &str) -> Value {
    json!({"serInstanceId": "f".repeat(32), "serName": name, "version": "1", "state": "ACTIVE",
        "serializer": "JSON", "livenessInterval": 2,
        "_links": {"self": {"liveness": "/elsewhere/liveness"}, "appInstanceId": "other"}})
}

/// EdgeGallery's as it is behind its gateway: what it shows says whose it is, and where the gateway is.
fn gateway() -> Platform {
    let links = |id: &str| {
        let own = format!("/mep/mec_service_mgmt/v1/applications/app/services/{id}/liveness");
        (
            json!({"self": {"liveness": own}, "appInstanceId": "app"}),
            2,
        )
    };
    let platform = Platform::new(links, edgegallery().beat).with(of_another("cam"));
    Platform {
        is_gateway: true,
        ..platform
    }
}

#[test]
fn a_service_of_another_application_is_left_alone() {
    let (keep, _) = data_dir();
    let stub = gateway().start();
    let config = Config::new(&stub.url)
        .server("api_root = \"/mep/mec_service_mgmt/v1\"")
        .service("cam", 2, "");
    let agent = Agent::start(keep.path(), &config);
    let id = agent.beating("cam");
    assert_ne!(id, "f".repeat(32));
    agent.kill();
    // An agent that has forgotten everything finds its own.
    std::fs::remove_file(keep.path().join("state.json")).unwrap();
    let agent = Agent::start(keep.path(), &config);
    assert_eq!(agent.beating("cam"), id);
    agent.stop();
    let touched = stub.requests().into_iter();
    let touched = touched.filter(|it| it.path.contains(&"f".repeat(32)));
    assert_eq!(touched.count(), 0);
    assert_eq!((stub.count("POST"), stub.count("DELETE")), (1, 1));
}

#[test]
fn what_a_lost_answer_leaves_behind_a_gateway_is_removed() {
    let platform = gateway();
    let late = Mutex::new(None);
    // The first registration arrives after the second, and its answer never.
    let stub = Stub::start(move |request| {
        let mut late = late.lock().unwrap();
        match (request.method.as_str(), late.take()) {
            ("POST", None) => {
                *late = Some(request.clone());
                Reply::Close
            }
            ("POST", Some(first)) => {
                platform.answer(&first);
                platform.answer(request)
            }
            (_, kept) => {
                *late = kept;
                platform.answer(request)
            }
        }
    });
    let (keep, _) = data_dir();
    let config = Config::new(&stub.url)
        .server("api_root = \"/mep/mec_service_mgmt/v1\"")
        .agent("retry_max_s = 1")
        .service("cam", 2, "");
    let agent = Agent::start(keep.path(), &config);
    agent.beating("cam");
    until_true("the other one is removed", || {
        agent.counter("surplus_removed") == 1
    });
    agent.stop();
    assert_eq!((stub.count("POST"), stub.count("DELETE")), (2, 2));
}

#[test]
fn a_platform_whose_liveness_takes_no_patch_gets_put() {
    let links = |id: &str| {
        (
            json!({"liveness": {"href": format!("/elsewhere/{id}/liveness")}}),
            2,
        )
    };
    let platform = Platform::new(links, |request| {
        Reply::empty(if request.method == "PUT" { 204 } else { 405 })
    });
    let (keep, _) = data_dir();
    let stub = platform.start();
    let agent = Agent::start(keep.path(), &Config::new(&stub.url).service("cam", 2, ""));
    agent.beating("cam");
    until_true("it goes on", || agent.counter("beats") > 3);
    assert_eq!(
        beats(&stub)
            .iter()
            .filter(|it| it.method == "PATCH")
            .count(),
        1
    );
}

#[test]
fn a_platform_that_wants_no_beats_gets_none() {
    let platform = Platform::new(
        |_| (json!({"self": {"href": "/s"}}), 0),
        |_| Reply::empty(404),
    );
    let (keep, _) = data_dir();
    let stub = platform.start();
    let agent = Agent::start(keep.path(), &Config::new(&stub.url).service("cam", 1, ""));
    until_true("it is registered", || agent.state("cam") == "no-beats");
    std::thread::sleep(Duration::from_millis(1500));
    assert!(beats(&stub).is_empty());
    agent.stop();
    assert_eq!(stub.count("DELETE"), 1);
}

#[test]
fn a_batch_heartbeat_that_does_not_work_is_given_up() {
    let links = |id: &str| {
        let own = json!({"href": format!("/s/{id}/liveness")});
        (
            json!({"liveness": own, "livenessBatch": {"href": "/batch/liveness"}}),
            2,
        )
    };
    for refusal in [
        Reply::empty(404),
        Reply::empty(405),
        Reply::json(200, &json!({"what": "is this?"})),
        Reply::Answer(200, Vec::new(), b"<html>".to_vec()),
    ] {
        let platform = Platform::new(links, |_| Reply::empty(204));
        let stub = Stub::start(move |request| match request.path.starts_with("/batch") {
            true => refusal.clone(),
            false => platform.answer(request),
        });
        let (keep, _) = data_dir();
        let config = Config::new(&stub.url)
            .service("cam", 2, "")
            .service("map", 2, "");
        let agent = Agent::start(keep.path(), &config);
        agent.beating("cam");
        agent.beating("map");
        until_true("it goes on", || agent.counter("beats") > 6);
        let batches = beats(&stub)
            .iter()
            .filter(|it| it.path.starts_with("/batch"))
            .count();
        assert!(batches <= 2, "{batches}");
    }
}

#[test]
fn an_interval_that_is_told_holds_in_every_form() {
    let single = |id: &str| {
        (
            json!({"liveness": {"href": format!("/s/{id}/liveness")}}),
            2,
        )
    };
    let batch = |id: &str| {
        let own = json!({"href": format!("/s/{id}/liveness")});
        (
            json!({"liveness": own, "livenessBatch": {"href": "/batch/liveness"}}),
            2,
        )
    };
    let alone: fn(&Request) -> Reply = |_| {
        let time = json!({"seconds": 1, "nanoSeconds": 0});
        Reply::json(
            200,
            &json!({"state": "ACTIVE", "timeStamp": time, "interval": 60}),
        )
    };
    let together: fn(&Request) -> Reply = |request| {
        let ids = request.json()["serviceIds"].as_array().unwrap().clone();
        let told = |id: Value| json!({"serInstanceId": id, "status": 200, "interval": 60});
        Reply::json(200, &ids.into_iter().map(told).collect())
    };
    for platform in [Platform::new(single, alone), Platform::new(batch, together)] {
        let (keep, _) = data_dir();
        let stub = platform.start();
        let agent = Agent::start(keep.path(), &Config::new(&stub.url).service("cam", 2, ""));
        until_true("the interval holds", || {
            agent.service("cam")["interval"] == 60
        });
        until_true("the next beat is later", || {
            agent.status()["nextBeatInMs"]
                .as_u64()
                .is_some_and(|ms| ms > 10_000)
        });
        assert_eq!(agent.status()["retryInterval"], 5);
    }
}

#[test]
fn a_server_that_asks_for_a_pause_gets_it_and_the_status_says_so() {
    let (keep, dir) = data_dir();
    let server = Server::start(&dir, &QUICK);
    let (target, busy) = (server.url.clone(), AtomicBool::new(false));
    let busy = std::sync::Arc::new(busy);
    let is_busy = busy.clone();
    let proxy = Stub::start(move |request| match is_busy.load(Ordering::SeqCst) {
        true => Reply::Answer(503, vec![("retry-after", "4".to_owned())], Vec::new()),
        false => request.forward(&target),
    });
    let agent = Agent::start(keep.path(), &Config::new(&proxy.url).service("cam", 6, ""));
    agent.beating("cam");
    busy.store(true, Ordering::SeqCst);
    let told = until("it is told", || {
        let status = agent.status();
        status["leftAloneForMs"].is_u64().then_some(status)
    });
    busy.store(false, Ordering::SeqCst);
    let error = told["lastError"].as_str().unwrap();
    assert!(error.contains("a pause of 4 s"), "{error}");
    until_true("it beats again", || agent.status()["reached"] == true);
    assert!(agent.status().get("leftAloneForMs").is_none());
    assert!(agent.log().contains("longer than promised"));
}

#[test]
fn a_server_that_answers_badly_or_not_at_all_is_survived() {
    let (keep, dir) = data_dir();
    let server = Server::start(&dir, &QUICK);
    let target = server.url.clone();
    let bad = [
        Reply::Bytes(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()),
        Reply::Bytes(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n[{\"ser".to_vec()),
        Reply::Bytes(b"HTTP/1.1 200 OK\r\n".to_vec()),
        Reply::Answer(200, Vec::new(), b"\xff\xfe{{{".to_vec()),
        Reply::json(200, &json!([1, {}, {"serInstanceId": 7}, null])),
        Reply::json(200, &json!({"serInstanceId": ""})),
        Reply::empty(200),
        Reply::empty(204),
        Reply::empty(500),
        Reply::Answer(
            302,
            vec![("location", "http://127.0.0.1:1/".to_owned())],
            Vec::new(),
        ),
        Reply::Close,
        Reply::Hang,
    ];
    // Each kind of nonsense for a while, before the registration and after it, then sense again.
    let turn = std::sync::Arc::new(AtomicUsize::new(0));
    let now = turn.clone();
    let kinds = bad.len();
    let proxy = Stub::start(move |request| {
        let turn = now.load(Ordering::SeqCst);
        match turn % 2 {
            0 if turn / 2 < bad.len() => bad[turn / 2].clone(),
            _ => request.forward(&target),
        }
    });
    let config = Config::new(&proxy.url)
        .timeout_ms(300)
        .agent("retry_max_s = 1")
        .service("cam", 2, "");
    let agent = Agent::start(keep.path(), &config);
    for kind in 0..kinds {
        let before = proxy.requests().len();
        until_true("it tries", || proxy.requests().len() > before + 2);
        turn.fetch_add(1, Ordering::SeqCst);
        let heard = agent.counter("beats");
        until_true(&format!("it recovers from {kind}"), || {
            agent.counter("beats") > heard + 1
        });
        turn.fetch_add(1, Ordering::SeqCst);
    }
    turn.store(1, Ordering::SeqCst);
    until_true("one is left", || services(&server).len() == 1);
    agent.stop();
    assert_eq!(services(&server).len(), 0);
}

#[test]
fn one_that_the_platform_cannot_hear_costs_the_others_nothing() {
    // The first by every order.
    let platform = Platform::new(plain_links, |request| {
        let first = request.path.contains(&format!("/{:032x}/", 0));
        Reply::empty(if first { 500 } else { 204 })
    });
    let (keep, _) = data_dir();
    let stub = platform.start();
    let mut config = Config::new(&stub.url);
    for number in 0..20 {
        config = config.service(&format!("s-{number:02}"), 2, "");
    }
    let agent = Agent::start(keep.path(), &config);
    until_true("all others are heard again and again", || {
        let beats = beats(&stub);
        (1..20).all(|number| {
            let id = format!("/{number:032x}/");
            beats.iter().filter(|it| it.path.contains(&id)).count() >= 4
        })
    });
    let failing = |agent: &Agent| {
        let names = (0..20).map(|number| format!("s-{number:02}"));
        names
            .filter(|name| agent.service(name)["lastError"].is_string())
            .count()
    };
    assert_eq!(failing(&agent), 1);
    agent.stop();
}
