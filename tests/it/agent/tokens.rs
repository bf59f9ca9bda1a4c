//! Tokens of a token endpoint: no beat is missed for them, and nobody sees them.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::{QUICK, services, story};
use crate::support::agent::{Agent, Config, ended, until, until_true};
use crate::support::stub::{Reply, Stub, Tokens};
use crate::support::{Server, data_dir, get, mepulse, send};

const SECRET: &str = "s3cret/of the client";
/// `app:s3cret%2Fof+the+client`
const BASIC: &str = "Basic YXBwOnMzY3JldCUyRm9mK3RoZStjbGllbnQ=";

/// Asks for a token before it hands anything on.
fn gate(server: &Server, tokens: &Arc<Tokens>) -> Stub {
    let (target, tokens) = (server.url.clone(), tokens.clone());
    Stub::start(move |request| {
        if request.path != "/oauth2/token" {
            return tokens
                .refuse(request)
                .unwrap_or_else(|| request.forward(&target));
        }
        let form = request.header("content-type") == Some("application/x-www-form-urlencoded");
        let known = request.header("authorization") == Some(BASIC);
        let asks = request.body == b"grant_type=client_credentials&scope=mp1";
        match (request.method.as_str(), form && asks, known) {
            ("POST", true, true) => tokens.issue(),
            ("POST", true, false) => Reply::json(401, &json!({"error": "invalid_client"})),
            _ => Reply::json(400, &json!({"error": "invalid_request"})),
        }
    })
}

fn config(gate: &Stub, dir: &std::path::Path) -> Config {
    patient(gate, dir).agent("retry_max_s = 1")
}

fn patient(gate: &Stub, dir: &std::path::Path) -> Config {
    std::fs::write(dir.join("secret"), format!("{SECRET}\n")).unwrap();
    Config::new(&gate.url).server("oauth2 = { client_secret_file = \"secret\", scope = \"mp1\" }")
}

/// Neither logs nor what the agent tells of itself.
fn nobody_sees(agent: &Agent) {
    let metrics = get(&format!("{}/metrics", agent.place())).text();
    let (status, log) = (agent.status().to_string(), agent.log());
    assert!(log.contains("TRACE") && status.contains("services"));
    for text in [log, status, metrics] {
        for secret in [SECRET, &BASIC[6..], "secret-token"] {
            assert!(!text.contains(secret), "{secret} in\n{text}");
        }
    }
}

#[test]
fn a_token_that_ends_is_renewed_without_a_missed_beat() {
    let (keep, dir) = data_dir();
    let server = Server::start(&dir, &QUICK);
    // It is renewed after some 4 s: what comes before has time on a slow machine.
    let tokens = Tokens::new(Duration::from_secs(6));
    let gate = gate(&server, &tokens);
    let config = config(&gate, keep.path())
        .service("cam", 2, "")
        .service("map", 2, "");
    let agent = Agent::start_with(keep.path(), &config, &[("RUST_LOG", "trace")]);
    let id = agent.beating("cam");
    agent.beating("map");
    assert_eq!(tokens.issued(), 1, "one for all");
    until_true("tokens are renewed", || tokens.issued() >= 5);
    assert_eq!(tokens.refused(), 0);
    assert_eq!(agent.counter("rounds_missed"), 0);
    assert!(agent.counter("token_fetches") >= 5);
    assert_eq!(agent.counter("token_failures"), 0);
    let told = story(&dir, &id);
    assert!(!told.contains("SUSPENDED"), "{told}");
    nobody_sees(&agent);
    agent.stop();
    assert_eq!(services(&server).len(), 0);
}

#[test]
fn while_the_endpoint_is_down_the_old_token_is_used_until_its_end() {
    let (keep, dir) = data_dir();
    let server = Server::start(&dir, &QUICK);
    // Renewals fail from some 7 s on: enough is left for another beat on a slow machine.
    let tokens = Tokens::new(Duration::from_secs(12));
    let gate = gate(&server, &tokens);
    let agent = Agent::start(
        keep.path(),
        &config(&gate, keep.path()).service("cam", 2, ""),
    );
    let id = agent.beating("cam");
    tokens.set_down(true);
    let error = until("a renewal fails", || {
        let status = agent.status();
        let error = status["tokenError"].as_str()?.to_owned();
        assert_eq!(status["reached"], true);
        Some(error)
    });
    assert!(
        error.contains("/oauth2/token: the server answered 503"),
        "{error}"
    );
    let heard = agent.counter("beats");
    until_true("it goes on", || agent.counter("beats") > heard);
    assert_eq!(agent.counter("rounds_missed"), 0);
    until_true("the token ends", || agent.status()["reached"] == false);
    assert_eq!(tokens.refused(), 0, "what has ended is not sent");
    let error = agent.status()["lastError"].as_str().unwrap().to_owned();
    assert!(error.contains("no token from"), "{error}");
    tokens.set_down(false);
    until_true("it is heard again", || agent.status()["reached"] == true);
    assert_eq!(agent.beating("cam"), id);
    assert!(agent.status().get("tokenError").is_none());
}

#[test]
fn a_token_that_is_not_taken_is_replaced_and_the_beat_repeated() {
    let (keep, dir) = data_dir();
    let server = Server::start(&dir, &QUICK);
    let tokens = Tokens::new(Duration::from_secs(3600));
    let gate = gate(&server, &tokens);
    // No round begins while the one that is refused is under way.
    let agent = Agent::start(
        keep.path(),
        &patient(&gate, keep.path()).service("cam", 10, ""),
    );
    agent.beating("cam");
    tokens.revoke();
    until_true("there is another one", || tokens.issued() == 2);
    let heard = agent.counter("beats");
    until_true("it goes on", || agent.counter("beats") > heard + 1);
    assert_eq!((tokens.refused(), tokens.issued()), (1, 2));
    assert_eq!(agent.counter("rounds_missed"), 0);
}

#[test]
fn a_server_that_takes_no_token_is_not_stormed() {
    let tokens = Tokens::new(Duration::from_secs(3600));
    let issuing = tokens.clone();
    let stub = Stub::start(move |request| match request.path.as_str() {
        "/oauth2/token" => issuing.issue(),
        _ => Reply::empty(401),
    });
    let (keep, _) = data_dir();
    let config = config(&stub, keep.path())
        .service("cam", 2, "")
        .service("map", 2, "");
    let agent = Agent::start(keep.path(), &config);
    until_true("it tries again and again", || stub.count("GET") > 12);
    // Each try could have fetched one.
    assert!(
        tokens.issued() * 2 < stub.count("GET"),
        "{}",
        tokens.issued()
    );
    let error = agent.service("cam")["lastError"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(error.contains("401"), "{error}");
}

#[test]
fn an_application_asks_its_agent() {
    let (keep, dir) = data_dir();
    let server = Server::start(&dir, &QUICK);
    let tokens = Tokens::new(Duration::from_secs(3600));
    let gate = gate(&server, &tokens);
    tokens.set_down(true);
    let config = config(&gate, keep.path())
        .status("hand_out_tokens = true")
        .service("cam", 2, "");
    let agent = Agent::start(keep.path(), &config);
    let api = format!("{}/mep-agent/v1", agent.place());
    let early = get(&format!("{api}/token"));
    assert_eq!(early.status, 412);
    assert!(
        early.text().contains("there is no token yet"),
        "{}",
        early.text()
    );
    assert_eq!(get(&format!("{api}/endpoint/cam")).status, 503);
    tokens.set_down(false);
    agent.beating("cam");
    let told = get(&format!("{api}/token"));
    assert_eq!(told.status, 200);
    assert_eq!(told.header("cache-control"), Some("no-store"));
    let told = told.json();
    assert_eq!(told["token_type"], "Bearer");
    assert_eq!(told["access_token"], "secret-token-0");
    assert!(
        told["expires_in"]
            .as_u64()
            .is_some_and(|secs| secs > 3500 && secs <= 3600)
    );
    let endpoint = get(&format!("{api}/endpoint/cam"));
    assert_eq!(endpoint.status, 200);
    assert_eq!(endpoint.json(), json!({"uris": ["http://10.0.0.1/"]}));
    let nothing = get(&format!("{api}/endpoint/no%20such"));
    assert_eq!(nothing.status, 400);
    assert!(
        nothing.text().contains("no service \\\"no such\\\""),
        "{}",
        nothing.text()
    );
    // A name that leads here is somebody else's.
    for (host, status) in [
        ("evil.example", 403),
        ("evil.example:8080", 403),
        ("localhost:1", 200),
        ("[::1]", 200),
    ] {
        for path in ["token", "endpoint/cam"] {
            let answer = send("GET", &format!("{api}/{path}"), &[("host", host)], b"");
            assert_eq!(answer.status, status, "{host} {path}");
        }
    }
    assert_eq!(get(&format!("{api}/nothing")).status, 404);
}

#[test]
fn tokens_are_handed_out_only_where_that_is_configured() {
    let (keep, dir) = data_dir();
    let server = Server::start(&dir, &QUICK);
    for (line, sentence) in [
        ("", "hands out no tokens"),
        ("hand_out_tokens = true", "has no token"),
    ] {
        let config = Config::new(&server.url).status(line).service("cam", 2, "");
        let agent = Agent::start(keep.path(), &config);
        agent.beating("cam");
        let api = format!("{}/mep-agent/v1", agent.place());
        let refused = get(&format!("{api}/token"));
        assert_eq!(refused.status, 404);
        assert!(refused.text().contains(sentence), "{}", refused.text());
        assert_eq!(get(&format!("{api}/endpoint/cam")).status, 200);
        agent.stop();
    }
}

#[test]
fn a_command_is_taken_care_of_with_a_client_of_its_own() {
    let (keep, dir) = data_dir();
    let server = Server::start(&dir, &QUICK);
    let tokens = Tokens::new(Duration::from_secs(3600));
    let (target, issuing) = (server.url.clone(), tokens.clone());
    // me:pass
    let gate = Stub::start(move |request| match request.path.as_str() {
        "/oauth2/token" if request.header("authorization") == Some("Basic bWU6cGFzcw==") => {
            issuing.issue()
        }
        _ => issuing
            .refuse(request)
            .unwrap_or_else(|| request.forward(&target)),
    });
    std::fs::write(keep.path().join("secret"), "pass").unwrap();
    let mut child = mepulse()
        .args(["agent", "run", "--server", &gate.url, "--app", "app"])
        .args(["--service", "cam", "--interval", "2"])
        .args(["--client-secret-file", "secret", "--client-id", "me"])
        .args(["--", "sh", "-c", "while [ ! -e over ]; do sleep 0.05; done"])
        .current_dir(keep.path())
        .spawn()
        .unwrap();
    until_true("it is registered", || services(&server).len() == 1);
    std::fs::write(keep.path().join("over"), "").unwrap();
    assert!(ended(&mut child).success());
    assert_eq!((services(&server).len(), tokens.issued()), (0, 1));
}
