//! Exactly one registration, whatever happens to requests; probes; conflicts; reload; tokens.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;

use super::{QUICK, deactivate, services, state, story};
use crate::support::agent::{Agent, Config, until_true};
use crate::support::random::Random;
use crate::support::stub::{Reply, Stub};
use crate::support::{Server, data_dir, get, put};

#[test]
fn a_registration_whose_answer_is_lost_is_made_once() {
    let (keep, dir) = data_dir();
    let server = Server::start(&dir, &QUICK);
    let (target, lost) = (server.url.clone(), AtomicUsize::new(0));
    let proxy = Stub::start(move |request| {
        let reply = request.forward(&target);
        match request.method == "POST" && lost.fetch_add(1, Ordering::SeqCst) < 2 {
            true => Reply::Close,
            false => reply,
        }
    });
    let config = Config::new(&proxy.url)
        .service("cam", 2, "")
        .service("map", 2, "");
    let agent = Agent::start(keep.path(), &config);
    agent.beating("cam");
    agent.beating("map");
    assert_eq!(services(&server).len(), 2);
    assert_eq!(proxy.count("POST"), 2);
}

#[test]
fn an_agent_that_is_killed_while_it_registers_finds_its_service_again() {
    let (keep, dir) = data_dir();
    let server = Server::start(&dir, &QUICK);
    let (target, hang) = (server.url.clone(), AtomicBool::new(true));
    let proxy = Stub::start(move |request| {
        let reply = request.forward(&target);
        match request.method == "POST" && hang.swap(false, Ordering::SeqCst) {
            true => Reply::Hang,
            false => reply,
        }
    });
    let config = Config::new(&proxy.url).service("cam", 2, "");
    let agent = Agent::start(keep.path(), &config);
    until_true("it is registered", || services(&server).len() == 1);
    agent.kill();
    let agent = Agent::start(keep.path(), &config);
    agent.beating("cam");
    assert_eq!(services(&server).len(), 1);
    assert_eq!(proxy.count("POST"), 1);
}

#[test]
fn a_registration_that_arrives_late_is_removed_after_the_next_beat() {
    let (keep, dir) = data_dir();
    let server = Server::start(&dir, &QUICK);
    let (target, first) = (server.url.clone(), AtomicBool::new(true));
    // The first POST takes its time on the way, and the agent sends another one.
    let proxy = Stub::start(move |request| {
        if request.method == "POST" && first.swap(false, Ordering::SeqCst) {
            request.forward_later(&target, Duration::from_millis(1200));
            return Reply::Close;
        }
        request.forward(&target)
    });
    let agent = Agent::start(keep.path(), &Config::new(&proxy.url).service("cam", 3, ""));
    let id = agent.beating("cam");
    until_true("the late one is removed", || {
        agent.counter("surplus_removed") == 1
    });
    let found = services(&server);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0]["serInstanceId"], *id);
    assert_eq!(proxy.count("POST"), 2);
}

#[test]
fn random_trouble_and_kills_leave_one_registration_of_each() {
    let (keep, dir) = data_dir();
    let server = Server::start(&dir, &QUICK);
    let (target, random) = (server.url.clone(), Mutex::new(Random::from_env("agent")));
    let trouble = Arc::new(AtomicBool::new(true));
    let troubled = trouble.clone();
    let proxy = Stub::start(move |request| {
        let draw = random.lock().unwrap().next() % 100;
        let calm = !troubled.load(Ordering::SeqCst);
        match draw {
            _ if calm => request.forward(&target),
            0..15 => Reply::Close,
            15..30 => {
                request.forward(&target);
                Reply::Close
            }
            30..40 => {
                request.forward(&target);
                Reply::Hang
            }
            40..50 if request.method == "POST" => {
                request.forward_later(&target, Duration::from_millis(10 * draw));
                Reply::Close
            }
            50..55 => Reply::empty(503),
            _ => request.forward(&target),
        }
    });
    let names = ["a", "b", "c", "d", "e"];
    let mut config = Config::new(&proxy.url)
        .timeout_ms(600)
        .agent("retry_max_s = 1");
    for name in names {
        config = config.service(name, 3, "");
    }
    for _ in 0..4 {
        let agent = Agent::start(keep.path(), &config);
        let before = proxy.requests().len();
        until_true("it works", || proxy.requests().len() > before + 15);
        agent.kill();
    }
    trouble.store(false, Ordering::SeqCst);
    let agent = Agent::start(keep.path(), &config);
    for name in names {
        agent.beating(name);
    }
    until_true("nothing is in doubt", || {
        let state = std::fs::read(keep.path().join("state.json")).unwrap();
        let state: serde_json::Value = serde_json::from_slice(&state).unwrap();
        let rows = state["services"].as_array().unwrap();
        rows.iter().all(|row| row["in_doubt"] == false)
    });
    let found = services(&server);
    let mut found: Vec<_> = found
        .iter()
        .map(|it| it["serName"].as_str().unwrap())
        .collect();
    found.sort_unstable();
    assert_eq!(found, names);
}

#[test]
fn a_service_that_the_server_cannot_take_does_not_hold_up_the_others() {
    let (keep, dir) = data_dir();
    let server = Server::start(&dir, &QUICK);
    let target = server.url.clone();
    let proxy = Stub::start(move |request| {
        match request.method == "POST" && request.json()["serName"] == "a" {
            true => Reply::json(500, &json!({"detail": "not this one"})),
            false => request.forward(&target),
        }
    });
    let mut config = Config::new(&proxy.url).agent("retry_max_s = 1");
    for name in ["a", "b", "c"] {
        config = config.service(name, 2, "");
    }
    let agent = Agent::start(keep.path(), &config);
    agent.beating("b");
    agent.beating("c");
    let error = agent.service("a")["lastError"].as_str().unwrap().to_owned();
    assert!(error.contains("not this one"), "{error}");
}

/// A probe that says yes while there is a file `well`.
fn probe(when_unhealthy: &str) -> String {
    format!(
        "when_unhealthy = \"{when_unhealthy}\"\n[services.probe]\nexec = {{ command = [\"test\", \
         \"-e\", \"well\"] }}\ninterval_s = 1\nunhealthy_after = 2\nhealthy_after = 2"
    )
}

#[test]
fn what_a_probe_says_is_what_the_platform_shows() {
    for (when_unhealthy, shown) in [("silence", "SUSPENDED"), ("inactive", "INACTIVE")] {
        let (keep, dir) = data_dir();
        let server = Server::start(&dir, &QUICK);
        let well = keep.path().join("well");
        let config = Config::new(&server.url)
            .service("cam", 2, &probe(when_unhealthy))
            .service("map", 2, "");
        let agent = Agent::start(keep.path(), &config);
        let other = agent.beating("map");
        if when_unhealthy == "silence" {
            assert_eq!(state(&server, "cam"), "", "not announced before it is well");
        }
        std::fs::write(&well, "").unwrap();
        let id = agent.beating("cam");
        for _ in 0..2 {
            until_true("it is well", || state(&server, "cam") == "ACTIVE");
            std::fs::remove_file(&well).unwrap();
            until_true("it is ill", || state(&server, "cam") == shown);
            assert_eq!(agent.service("cam")["probe"], "unhealthy");
            std::fs::write(&well, "").unwrap();
        }
        until_true("it is well", || state(&server, "cam") == "ACTIVE");
        assert_eq!(agent.beating("cam"), id);
        let told = story(&dir, &other);
        assert!(!told.contains("SUSPENDED"), "{told}");
    }
}

#[test]
fn a_conflict_is_waited_out() {
    let (keep, dir) = data_dir();
    let server = Server::start(&dir, &QUICK);
    let agent = Agent::start(keep.path(), &Config::new(&server.url).service("cam", 2, ""));
    let id = agent.beating("cam");
    let url = deactivate(&server);
    until_true("the agent sees it", || agent.state("cam") == "conflict");
    assert_eq!(state(&server, "cam"), "INACTIVE");
    let mut info = services(&server).remove(0);
    info["state"] = "ACTIVE".into();
    assert_eq!(put(&url, &info).status, 200);
    until_true("the agent sees it", || agent.state("cam") == "beating");
    assert_eq!(agent.beating("cam"), id);
}

#[test]
fn a_conflict_is_solved_by_activating() {
    let (keep, dir) = data_dir();
    let server = Server::start(&dir, &QUICK);
    let config = Config::new(&server.url)
        .agent("on_conflict = \"activate\"")
        .service("cam", 2, "");
    let agent = Agent::start(keep.path(), &config);
    let id = agent.beating("cam");
    deactivate(&server);
    until_true("it is ACTIVE", || state(&server, "cam") == "ACTIVE");
    assert_eq!(agent.beating("cam"), id);
}

#[test]
fn a_conflict_ends_the_agent() {
    let (keep, dir) = data_dir();
    let server = Server::start(&dir, &QUICK);
    let config = Config::new(&server.url)
        .agent("on_conflict = \"stop\"\non_stop = \"leave\"")
        .service("cam", 2, "");
    let agent = Agent::start(keep.path(), &config);
    agent.beating("cam");
    deactivate(&server);
    let (code, log) = agent.ended();
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("was set INACTIVE by somebody else"), "{log}");
    assert_eq!(state(&server, "cam"), "INACTIVE");
}

#[test]
fn a_reload_adds_removes_and_changes_services() {
    let (keep, dir) = data_dir();
    let server = Server::start(&dir, &QUICK);
    let base = || Config::new(&server.url);
    let agent = Agent::start(
        keep.path(),
        &base().service("cam", 2, "").service("map", 2, ""),
    );
    let cam = agent.beating("cam");
    agent.beating("map");
    base()
        .service("cam", 3, "version = \"2\"")
        .service("new", 2, "")
        .write(keep.path());
    agent.signal("HUP");
    agent.beating("new");
    until_true("map is gone", || state(&server, "map").is_empty());
    until_true("cam has changed", || {
        let found = services(&server);
        let found = found.iter().find(|it| it["serInstanceId"] == *cam).unwrap();
        found["version"] == "2" && found["livenessInterval"] == 3
    });
    until_true("the interval is new", || {
        agent.service("cam")["interval"] == 3
    });
    // A mistake leaves everything as it is.
    std::fs::write(keep.path().join("agent.toml"), "nonsense").unwrap();
    agent.signal("HUP");
    until_true("it is refused", || {
        agent.log().contains("Everything stays as it was")
    });
    assert_eq!(agent.beating("cam"), cam);
    assert_eq!(services(&server).len(), 2);
    agent.stop();
}

#[test]
fn a_new_token_is_taken_up_and_goes_nowhere_else() {
    let (keep, dir) = data_dir();
    let server = Server::start(&dir, &QUICK);
    let target = server.url.clone();
    let valid = Arc::new(Mutex::new("Bearer one".to_owned()));
    let expected = valid.clone();
    let proxy = Stub::start(move |request| {
        match request.header("authorization") == Some(&*expected.lock().unwrap()) {
            true => request.forward(&target),
            false => Reply::json(401, &json!({"detail": "who are you?"})),
        }
    });
    let token = keep.path().join("token");
    std::fs::write(&token, "wrong").unwrap();
    let config = Config::new(&proxy.url)
        .server("token_file = \"token\"")
        .agent("retry_max_s = 1")
        .service("cam", 2, "");
    let agent = Agent::start(keep.path(), &config);
    until_true("it is told why", || {
        agent.service("cam")["lastError"]
            .as_str()
            .is_some_and(|it| it.contains("who are you?"))
    });
    std::fs::write(&token, "one\n").unwrap();
    let id = agent.beating("cam");
    // The platform forgets the old one before the file has the new one.
    *valid.lock().unwrap() = "Bearer two".to_owned();
    until_true("it is refused", || agent.status()["reached"] == false);
    std::fs::write(keep.path().join("token.new"), "two").unwrap();
    std::fs::rename(keep.path().join("token.new"), &token).unwrap();
    until_true("it is heard", || agent.status()["reached"] == true);
    assert_eq!(agent.beating("cam"), id);
    for secret in ["wrong", "one", "two"] {
        assert!(!agent.log().contains(&format!("Bearer {secret}")));
    }
    assert_eq!(
        get(&format!("{}/services", server.app("app")))
            .json()
            .as_array()
            .unwrap()
            .len(),
        1
    );
}
