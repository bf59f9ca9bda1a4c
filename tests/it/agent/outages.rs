//! Whoever goes away, server or agent: nobody who lives is suspended, and nobody is there twice.

use std::path::Path;
use std::time::Duration;

use super::{QUICK, services, state, story};
use crate::support::agent::{Agent, Config, until, until_true};
use crate::support::stub::Stub;
use crate::support::{Server, data_dir, get};

fn restart(url: &str, dir: &Path) -> Server {
    let address = url.strip_prefix("http://").unwrap();
    Server::start(dir, &[&QUICK[..], &["--listen", address]].concat())
}

/// Waits for a beat of the agent's that begins after this call.
fn another_beat(agent: &Agent) {
    let before = agent.counter("beats");
    until_true("another beat", || agent.counter("beats") > before + 1);
}

fn check_nobody_was_suspended(server: &Server, dir: &Path, count: usize) {
    let services = services(server);
    assert_eq!(services.len(), count, "{services:?}");
    for service in services {
        let story = story(dir, service["serInstanceId"].as_str().unwrap());
        assert!(!story.contains("SUSPENDED"), "{story}");
    }
}

#[test]
fn a_server_that_is_killed_and_restarted_suspends_nobody_and_has_nobody_twice() {
    let (keep, dir) = data_dir();
    let mut server = Server::start(&dir, &QUICK);
    let url = server.url.clone();
    let config = Config::new(&url)
        .service("cam", 2, "")
        .service("map", 3, "");
    let agent = Agent::start(keep.path(), &config);
    let id = agent.beating("cam");
    for _ in 0..3 {
        server.kill();
        until_true("the agent notices", || agent.status()["reached"] == false);
        server = restart(&url, &dir);
        until_true("the agent is back", || agent.status()["reached"] == true);
        another_beat(&agent);
    }
    assert_eq!(agent.beating("cam"), id);
    check_nobody_was_suspended(&server, &dir, 2);
    agent.stop();
    assert_eq!(services(&server).len(), 0);
    server.stop();
}

#[test]
fn planned_restarts_suspend_nobody_and_have_nobody_twice() {
    let (keep, dir) = data_dir();
    let mut server = Server::start(&dir, &QUICK);
    let url = server.url.clone();
    let mut config = Config::new(&url);
    for n in 0..5 {
        config = config.service(&format!("s{n}"), 2, "");
    }
    let agent = Agent::start(keep.path(), &config);
    agent.beating("s0");
    for _ in 0..5 {
        server.stop();
        server = restart(&url, &dir);
        another_beat(&agent);
    }
    check_nobody_was_suspended(&server, &dir, 5);
}

#[test]
fn an_outage_much_longer_than_the_interval_suspends_nobody() {
    let (keep, dir) = data_dir();
    let server = Server::start(&dir, &QUICK);
    let url = server.url.clone();
    let agent = Agent::start(keep.path(), &Config::new(&url).service("cam", 2, ""));
    agent.beating("cam");
    server.kill();
    // Five intervals and more, in which the server refuses connections.
    std::thread::sleep(Duration::from_secs(11));
    assert!(agent.status()["failures"].as_u64().unwrap() > 5);
    let server = restart(&url, &dir);
    another_beat(&agent);
    check_nobody_was_suspended(&server, &dir, 1);
}

#[test]
fn a_frozen_server_suspends_nobody_when_it_thaws() {
    let (keep, dir) = data_dir();
    let server = Server::start(&dir, &QUICK);
    let agent = Agent::start(keep.path(), &Config::new(&server.url).service("cam", 2, ""));
    agent.beating("cam");
    server.signal("STOP");
    // Its kernel still accepts connections; nothing is answered.
    std::thread::sleep(Duration::from_secs(7));
    server.signal("CONT");
    until_true("the agent is back", || agent.status()["reached"] == true);
    another_beat(&agent);
    check_nobody_was_suspended(&server, &dir, 1);
}

#[test]
fn an_agent_that_is_killed_is_found_out() {
    let (keep, dir) = data_dir();
    let server = Server::start(&dir, &QUICK);
    let agent = Agent::start(keep.path(), &Config::new(&server.url).service("cam", 2, ""));
    agent.beating("cam");
    agent.kill();
    until_true("it is suspended", || state(&server, "cam") == "SUSPENDED");
}

#[test]
fn a_restarted_agent_goes_on_with_the_same_services_with_and_without_a_state_file() {
    for state_file in [true, false] {
        let (keep, dir) = data_dir();
        let server = Server::start(&dir, &QUICK);
        let config = Config::new(&server.url).service("cam", 2, "");
        let agent = Agent::start(keep.path(), &config);
        let id = agent.beating("cam");
        agent.kill();
        until_true("it is suspended", || state(&server, "cam") == "SUSPENDED");
        if !state_file {
            std::fs::remove_file(keep.path().join("state.json")).unwrap();
        }
        let agent = Agent::start(keep.path(), &config);
        assert_eq!(agent.beating("cam"), id);
        until_true("it is revived", || state(&server, "cam") == "ACTIVE");
        assert_eq!(services(&server).len(), 1);
        assert_eq!(agent.counter("registrations"), 0);
    }
}

#[test]
fn a_registration_that_has_changed_while_the_agent_was_away_is_updated() {
    let (keep, dir) = data_dir();
    let server = Server::start(&dir, &QUICK);
    let config = |version: &str| {
        let version = format!("version = \"{version}\"");
        Config::new(&server.url)
            .agent("on_stop = \"leave\"")
            .service("cam", 2, &version)
    };
    let agent = Agent::start(keep.path(), &config("1"));
    let id = agent.beating("cam");
    agent.stop();
    let agent = Agent::start(keep.path(), &config("2"));
    assert_eq!(agent.beating("cam"), id);
    let found = services(&server);
    assert_eq!((found.len(), &found[0]["version"]), (1, &"2".into()));
    // And one that is not named any more is removed.
    agent.stop();
    let agent = Agent::start(keep.path(), &Config::new(&server.url).service("map", 2, ""));
    agent.beating("map");
    until_true("cam is gone", || state(&server, "cam").is_empty());
}

#[test]
fn a_server_that_has_lost_everything_gets_the_services_anew() {
    let (keep, dir) = data_dir();
    let server = Server::start(&dir, &QUICK);
    let url = server.url.clone();
    let config = Config::new(&url)
        .service("cam", 2, "")
        .service("map", 2, "");
    let agent = Agent::start(keep.path(), &config);
    let id = agent.beating("cam");
    server.kill();
    let server = restart(&url, &keep.path().join("other"));
    let new = until("there is another id", || {
        let service = agent.service("cam");
        let new = service["id"].as_str().filter(|new| *new != id)?.to_owned();
        (service["state"] == "beating").then_some(new)
    });
    until_true("both are there", || services(&server).len() == 2);
    assert!(
        services(&server)
            .iter()
            .any(|it| it["serInstanceId"] == *new)
    );
    another_beat(&agent);
    assert_eq!(services(&server).len(), 2);
}

#[test]
fn a_service_that_somebody_removes_is_registered_again() {
    let (keep, dir) = data_dir();
    let server = Server::start(&dir, &QUICK);
    let agent = Agent::start(keep.path(), &Config::new(&server.url).service("cam", 2, ""));
    let id = agent.beating("cam");
    let own = format!("{}/services/{id}", server.app("app"));
    assert_eq!(crate::support::send("DELETE", &own, &[], b"").status, 204);
    until_true("it is there again", || state(&server, "cam") == "ACTIVE");
    assert_ne!(agent.beating("cam"), id);
    assert_eq!(get(&own).status, 404);
    assert_eq!(services(&server).len(), 1);
}

#[test]
fn fifty_services_beat_in_one_request() {
    let (keep, dir) = data_dir();
    let server = Server::start(&dir, &QUICK);
    let target = server.url.clone();
    let proxy = Stub::start(move |request| request.forward(&target));
    let mut config = Config::new(&proxy.url);
    for n in 0..50 {
        config = config.service(&format!("s{n}"), 3, "");
    }
    let agent = Agent::start(keep.path(), &config);
    until_true("all beat", || {
        let status = agent.status();
        let services = status["services"].as_array().unwrap();
        services.iter().all(|it| it["lastBeatMsAgo"].is_u64())
    });
    another_beat(&agent);
    let beats: Vec<_> = proxy
        .requests()
        .into_iter()
        .filter(|it| it.method == "PATCH")
        .collect();
    assert!(
        beats
            .iter()
            .all(|it| it.path.ends_with("/applications/app/liveness"))
    );
    let last = beats.last().unwrap().json();
    assert_eq!(last["serviceIds"].as_array().unwrap().len(), 50);
    assert_eq!(last["retryInterval"], 1);
    assert_eq!(proxy.count("POST"), 50);
    agent.stop();
    assert_eq!(proxy.count("DELETE"), 50);
    assert_eq!(services(&server).len(), 0);
}
