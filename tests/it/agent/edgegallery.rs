//! `mepulse agent --edgegallery`: instead of EdgeGallery's agent, with its file and environment.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use mepulse::auth::sdk_hmac::{self, Authorization};
use mepulse::clock::wall_now;
use serde_json::json;

use super::dialects::{beats, edgegallery};
use super::setup::{Authority, tls_server};
use crate::support::agent::{Agent, until_true};
use crate::support::stub::{Reply, Request, Stub, Tokens};
use crate::support::{data_dir, get, mepulse};

const AK: &str = "QVUJMSUMgS0VZLS0tLS0";
const SK: &str = "DXPb4sqElKhcHe07Kw5uorayETwId1JOjjOIRomRs5wyszoCR5R7AtVa28KT3lSc";

const FILE: &str = "\
serviceInfoPosts:
  - serName: cam
    version: v1
    state: ACTIVE
    transportInfo: {id: t1, name: REST, type: REST_HTTP, protocol: HTTP, version: '2.0',
      endpoint: {uris: [], addresses: [{host: 192.0.2.1, port: 80}], alternative: {}},
      security: {oAuth2Info: {grantTypes: null, tokenEndpoint: ''}}}
    serializer: JSON
    livenessInterval: 60
  - {serName: map, version: v1, serializer: JSON, livenessInterval: 60, whatever: 1}
  - {serName: log, version: v1, serializer: JSON, livenessInterval: 60}
  - {serName: still, version: v1, serializer: JSON, livenessInterval: 0}
serAvailabilityNotificationSubscriptions:
  - {subscriptionType: SerAvailabilityNotificationSubscription}
";

fn agent(dir: &Path, variables: &[(&str, &str)]) -> Command {
    std::fs::create_dir_all(dir.join("eg/conf")).unwrap();
    std::fs::write(dir.join("eg/conf/app_instance_info.yaml"), FILE).unwrap();
    let mut command = mepulse();
    for name in [
        "MEP_IP",
        "MEP_APIGW_PORT",
        "CA_CERT_DOMAIN_NAME",
        "EG_PROTOCOL",
    ] {
        command.env_remove(name);
    }
    command
        .args([
            "agent",
            "--edgegallery",
            "eg",
            "--status-listen",
            "127.0.0.1:0",
        ])
        .env("RUST_LOG", "trace")
        .env("APPINSTID", "app")
        .env("AK", AK)
        .env("SK", SK)
        .envs(variables.iter().copied());
    command
}

/// As a server that knows the secret key.
fn is_signed(request: &Request) -> bool {
    let header = |name: &str| request.header(name).unwrap_or_default();
    let Ok(signed) = Authorization::parse(header("authorization")) else {
        return false;
    };
    let date = header("x-sdk-date");
    let now_s = wall_now().as_ms() / 1000;
    let is_now = sdk_hmac::seconds_of(date).is_some_and(|secs| secs.abs_diff(now_s) < 120);
    let headers: Vec<_> = signed
        .signed_headers
        .iter()
        .map(|name| (name.as_str(), header(name)))
        .collect();
    let canonical = sdk_hmac::Request {
        method: &request.method,
        path: &request.path,
        query: "",
        headers: &headers,
        body: &request.body,
    };
    let names = ["content-type", "host", "x-sdk-date"];
    is_now
        && signed.access_key == AK
        && signed.signed_headers == names
        && header("content-type") == "application/json"
        && request.body.is_empty()
        && sdk_hmac::verify(SK.as_bytes(), date, &canonical, &signed.signature)
}

/// Without TLS the port is fixed, so each test has an address of its own.
fn place(number: u8) -> String {
    let pid = std::process::id().to_be_bytes();
    format!(
        "127.{}.{}.{}",
        10 * number + pid[1] % 10,
        pid[2],
        pid[3].max(1)
    )
}

#[test]
fn every_service_of_the_file_beats_with_the_tokens_of_the_access_key() {
    let (keep, _) = data_dir();
    let tokens = Tokens::new(Duration::from_secs(6));
    let (platform, issuing, ip) = (edgegallery(), tokens.clone(), place(1));
    let stub = Stub::start_at(&format!("{ip}:8000"), move |request| {
        match request.path.as_str() {
            "/mep/token" if is_signed(request) => issuing.issue(),
            "/mep/token" => Reply::empty(401),
            _ => issuing
                .refuse(request)
                .unwrap_or_else(|| platform.answer(request)),
        }
    });
    let variables = [("MEP_IP", &*ip), ("EG_PROTOCOL", "http")];
    let agent = Agent::spawn(keep.path(), agent(keep.path(), &variables));
    for name in ["cam", "map", "log"] {
        agent.beating(name);
    }
    until_true("the fourth is registered", || {
        agent.state("still") == "no-beats"
    });
    until_true("tokens are renewed", || tokens.issued() >= 4);
    let count = |id: &str| {
        beats(&stub)
            .iter()
            .filter(|it| it.path.contains(id))
            .count()
    };
    let id_of = |name| agent.service(name)["id"].as_str().unwrap().to_owned();
    until_true("they beat again", || {
        ["cam", "map", "log"]
            .iter()
            .all(|name| count(&id_of(name)) > 1)
    });
    assert_eq!(count(&id_of("still")), 0);
    let beats = beats(&stub);
    assert!(beats.iter().all(|it| it.method == "PUT"));
    assert_eq!(tokens.refused(), 0);

    let api = format!("{}/mep-agent/v1", agent.place());
    let token = get(&format!("{api}/token")).json();
    assert!(
        token["access_token"]
            .as_str()
            .unwrap()
            .starts_with("secret-token-")
    );
    assert_eq!(token["token_type"], "Bearer");
    assert!(token["expires_in"].as_u64().is_some_and(|secs| secs <= 6));
    let endpoint = get(&format!("{api}/endpoint/cam"));
    assert_eq!(
        endpoint.json(),
        json!({"addresses": [{"host": "192.0.2.1", "port": 80}]})
    );
    assert_eq!(get(&format!("{api}/endpoint/nobody")).status, 400);

    let (log, status) = (agent.log(), agent.status().to_string());
    for part in [
        "TRACE",
        "serviceInfoPosts[1].whatever is not known",
        "1 serAvailabilityNotificationSubscriptions are ignored",
        "without TLS",
    ] {
        assert!(log.contains(part), "{part} not in\n{log}");
    }
    for secret in [SK, "secret-token"] {
        assert!(
            !log.contains(secret) && !status.contains(secret),
            "{secret} in\n{log}"
        );
    }
    agent.stop();
    assert_eq!(stub.count("DELETE"), 4);
}

#[test]
fn an_agent_that_was_killed_goes_on_although_it_remembers_nothing() {
    let (keep, _) = data_dir();
    let (platform, ip) = (edgegallery(), place(2));
    // The link is in the answer to the registration, and nowhere else.
    let stub = Stub::start_at(&format!("{ip}:8000"), move |request| {
        match platform.answer(request) {
            Reply::Answer(200, headers, body) => {
                let body = String::from_utf8(body).unwrap();
                let body = body.replace("\"liveness\":", "\"nothing\":");
                Reply::Answer(200, headers, body.into_bytes())
            }
            reply => reply,
        }
    });
    let variables = [
        ("MEP_IP", &*ip),
        ("EG_PROTOCOL", "http"),
        ("AK", ""),
        ("SK", ""),
    ];
    let first = Agent::spawn(keep.path(), agent(keep.path(), &variables));
    let id = first.beating("cam");
    until_true("all are registered", || first.state("still") == "no-beats");
    first.kill();
    let second = Agent::spawn(keep.path(), agent(keep.path(), &variables));
    assert_eq!(second.beating("cam"), id);
    assert_eq!(stub.count("POST"), 4);
}

#[test]
fn the_certificate_is_verified_by_its_own_name() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let port = tls_server(&authority, "edgegallery", false).to_string();
    for (ca, name, part) in [
        (
            Some(&authority),
            "edgegallery",
            "/mep/token: the server answered 418",
        ),
        (Some(&authority), "other", "not valid for name"),
        (Some(&authority), "", "not valid for name"),
        (Some(&stranger), "edgegallery", "MEPULSE_CA_FILE"),
        (None, "edgegallery", "MEPULSE_CA_FILE"),
    ] {
        let (keep, _) = data_dir();
        let variables = [
            ("MEP_IP", "127.0.0.1"),
            ("MEP_APIGW_PORT", &*port),
            ("CA_CERT_DOMAIN_NAME", name),
        ];
        let command = agent(keep.path(), &variables);
        if let Some(ca) = ca {
            std::fs::write(keep.path().join("eg/ca.crt"), ca.pem()).unwrap();
        }
        let agent = Agent::spawn(keep.path(), command);
        until_true(part, || {
            let error = agent.status()["tokenError"].clone();
            error.as_str().unwrap_or_default().contains(part)
        });
        let warned = agent
            .log()
            .contains("only the system's certificate authorities");
        assert_eq!(warned, ca.is_none());
    }
}

#[test]
fn a_bad_environment_is_refused_as_a_whole() {
    let (keep, _) = data_dir();
    let variables = [("MEP_IP", ""), ("EG_PROTOCOL", "ftp"), ("SK", "")];
    let output = agent(keep.path(), &variables)
        .current_dir(keep.path())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{text}");
    for name in ["MEP_IP", "EG_PROTOCOL", "MEP_APIGW_PORT", "SK is missing"] {
        assert!(text.contains(name), "{name}: {text}");
    }
    assert!(output.stdout.is_empty());
}
