//! The liveness resource and the batch heartbeat through the real binary.
//!
//! Source: GS MEC 011 V2.2.1, 8.2.10; the batch and `retryInterval` are our extensions.

use serde_json::{Value, json};

use crate::support::{
    Answer, Server, beat, data_dir, get, id_of, liveness_of, patch, post, put, send, service,
};

const APP: &str = "app";
const UNKNOWN: &str = "00000000-0000-4000-8000-000000000000";
const ACTIVE: &[u8] = br#"{"state":"ACTIVE"}"#;

fn start(args: &[&str]) -> (tempfile::TempDir, Server) {
    let (keep, dir) = data_dir();
    let server = Server::start(&dir, args);
    (keep, server)
}

fn own(server: &Server, info: &Value) -> String {
    let href = info["_links"]["self"]["href"].as_str().unwrap();
    format!("{}{href}", server.url)
}

/// A registered service and its liveness URI.
fn monitored(server: &Server, interval: u32) -> (Value, String) {
    let info = server.register(APP, &service("cam", Some(interval)));
    let uri = liveness_of(server, &info);
    (info, uri)
}

/// Switches a service off.
fn switch_off(server: &Server, info: &Value) {
    let mut body = service("cam", None);
    body["state"] = json!("INACTIVE");
    assert_eq!(put(&own(server, info), &body).status, 200);
}

/// `timeStamp` in nanoseconds.
fn time_stamp(info: &Value) -> u64 {
    let part = |name: &str| info["timeStamp"][name].as_u64().unwrap();
    assert!(part("nanoSeconds") < 1_000_000_000, "{info}");
    part("seconds") * 1_000_000_000 + part("nanoSeconds")
}

/// The answer is a whole `ServiceLivenessInfo` of an ACTIVE service.
fn check_info(answer: &Answer, interval: u32) {
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let info = answer.json();
    assert_eq!(info.as_object().unwrap().len(), 3, "{info}");
    assert_eq!(
        (&info["state"], &info["interval"]),
        (&json!("ACTIVE"), &json!(interval))
    );
    assert!(time_stamp(&info) > 1_600_000_000_000_000_000, "{info}");
}

fn check_no_content(answer: &Answer) {
    assert_eq!((answer.status, answer.body.len()), (204, 0), "{answer:?}");
}

fn metric(server: &Server, name: &str) -> u64 {
    let text = get(&format!("{}/metrics", server.url)).text();
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap().parse().unwrap()
}

#[test]
fn one_resource_answers_under_all_its_names() {
    let (_keep, server) = start(&[]);
    let (info, link) = monitored(&server, 60);
    let tail = format!("applications/{APP}/service/{}/liveness", id_of(&info));
    let mut last = time_stamp(&get(&link).json());
    for uri in [
        link.clone(),
        format!("{}/{tail}", server.root()),
        format!("{}/{tail}", server.url),
    ] {
        check_info(&get(&uri), 60);
        let head = send("HEAD", &uri, &[], b"");
        assert_eq!((head.status, head.body.len()), (200, 0), "{uri}");
        check_no_content(&beat(&uri));
        let now = time_stamp(&get(&link).json());
        assert!(now > last, "a beat under {uri} is a beat");
        last = now;
        for method in ["PUT", "POST", "DELETE", "OPTIONS"] {
            let answer = send(method, &uri, &[], ACTIVE);
            answer.problem(405);
            assert_eq!(
                answer.header("allow"),
                Some("GET, HEAD, PATCH"),
                "{method} {uri}"
            );
        }
        for method in ["GET", "PATCH"] {
            send(method, &format!("{uri}?x=1"), &[], ACTIVE).problem(400);
            let header = [("X-AppInstanceID", "other")];
            send(method, &uri, &header, ACTIVE).problem(403);
        }
    }
    assert_eq!(
        time_stamp(&get(&link).json()),
        last,
        "what was refused is no beat"
    );
}

#[test]
fn there_is_no_resource_without_an_agreement_or_a_service() {
    let (_keep, server) = start(&[]);
    let plain = server.register(APP, &service("plain", None));
    let (foreign, _) = monitored(&server, 60);
    server.register("other", &service("door", Some(60)));
    for (app, id) in [
        (APP, id_of(&plain)),
        (APP, UNKNOWN),
        (APP, "x"),
        ("other", id_of(&foreign)),
        ("nobody", id_of(&foreign)),
    ] {
        for kind in ["services", "service"] {
            let uri = format!("{}/{kind}/{id}/liveness", server.app(app));
            get(&uri).problem(404);
            beat(&uri).problem(404);
            send("PATCH", &uri, &[], b"{").problem(404);
            send("PATCH", &uri, &[("X-AppInstanceID", "third")], b"{").problem(403);
        }
    }
    let rootless = format!("{}/applications/{APP}/services", server.url);
    beat(&format!("{rootless}/{}/liveness", id_of(&foreign))).problem(404);
}

#[test]
fn a_beat_is_bare_or_wrapped_but_not_both() {
    let (_keep, server) = start(&[]);
    let (_, uri) = monitored(&server, 60);
    let active = json!({"state": "ACTIVE"});
    check_no_content(&patch(&uri, &active));
    check_info(&patch(&uri, &json!({"ServiceLivenessUpdate": active})), 60);
    let before = get(&uri).json();
    for (body, named) in [
        (
            json!({"state": "ACTIVE", "ServiceLivenessUpdate": active}),
            "one of the two",
        ),
        (json!({"state": "INACTIVE"}), "state"),
        (json!({"state": "SUSPENDED"}), "state"),
        (json!({"state": "active"}), "state"),
        (json!({"state": null}), "state"),
        (json!({"ServiceLivenessUpdate": {}}), "state"),
        (
            json!({"ServiceLivenessUpdate": [active]}),
            "ServiceLivenessUpdate",
        ),
        (json!({}), "state"),
        (json!([active]), "array"),
    ] {
        let detail = patch(&uri, &body).problem(400);
        assert!(detail.contains(named), "{body}: {detail}");
    }
    assert_eq!(get(&uri).json(), before);
    for content_type in ["application/merge-patch+json", "text/plain", "nonsense"] {
        let answer = send("PATCH", &uri, &[("content-type", content_type)], ACTIVE);
        check_no_content(&answer);
    }
}

/// `Prefer`, body, expected status, expected `Preference-Applied`.
type PreferRow<'a> = (Option<&'a str>, &'a [u8], u16, Option<&'a str>);

#[test]
fn a_preference_is_followed_and_said_so() {
    let (_keep, dir) = data_dir();
    let server = Server::start(&dir, &[]);
    let (info, _) = monitored(&server, 60);
    let wrapped: &[u8] = br#"{"ServiceLivenessUpdate":{"state":"ACTIVE"}}"#;
    let check = |server: &Server, rows: [PreferRow<'_>; 7]| {
        for (preference, body, status, applied) in rows {
            let headers: Vec<_> = preference
                .map(|value| ("Prefer", value))
                .into_iter()
                .collect();
            let answer = send("PATCH", &liveness_of(server, &info), &headers, body);
            match status {
                204 => check_no_content(&answer),
                _ => check_info(&answer, 60),
            }
            assert_eq!(
                answer.header("preference-applied"),
                applied,
                "{preference:?}"
            );
        }
    };
    let (full, least) = ("return=representation", "return=minimal");
    check(
        &server,
        [
            (None, ACTIVE, 204, None),
            (Some(full), ACTIVE, 200, Some(full)),
            (Some(least), ACTIVE, 204, Some(least)),
            (Some(least), wrapped, 204, Some(least)),
            (
                Some("wait=5, RETURN=\"representation\"; x=1"),
                ACTIVE,
                200,
                Some(full),
            ),
            (Some("return=everything"), ACTIVE, 204, None),
            (Some("respond-async"), wrapped, 200, None),
        ],
    );
    server.stop();
    let server = Server::start(&dir, &["--set", "liveness.patch_response=representation"]);
    check(
        &server,
        [
            (None, ACTIVE, 200, None),
            (None, wrapped, 200, None),
            (Some(full), ACTIVE, 200, Some(full)),
            (Some(full), wrapped, 200, Some(full)),
            (Some(least), ACTIVE, 204, Some(least)),
            (Some(least), wrapped, 204, Some(least)),
            (Some("return"), ACTIVE, 200, None),
        ],
    );
}

#[test]
fn a_new_interval_is_told_exactly_once() {
    let (_keep, server) = start(&[]);
    let (info, uri) = monitored(&server, 60);
    check_no_content(&beat(&uri));
    for interval in [90, 30, 60] {
        let answer = put(&own(&server, &info), &service("cam", Some(interval)));
        assert_eq!(answer.json()["livenessInterval"], interval);
        check_info(&get(&uri), interval);
        check_info(&beat(&uri), interval);
        check_no_content(&beat(&uri));
        check_no_content(&beat(&uri));
        put(&own(&server, &info), &service("renamed", Some(interval)));
        check_no_content(&beat(&uri));
    }
    put(&own(&server, &info), &service("cam", Some(90)));
    let minimal = send("PATCH", &uri, &[("Prefer", "return=minimal")], ACTIVE);
    check_info(&minimal, 90);
    assert_eq!(minimal.header("preference-applied"), None);
    check_no_content(&beat(&uri));
}

#[test]
fn a_beat_never_switches_an_inactive_service_on() {
    let (_keep, server) = start(&[]);
    let (info, uri) = monitored(&server, 60);
    check_no_content(&beat(&uri));
    switch_off(&server, &info);
    let before = get(&uri).json();
    assert_eq!(before["state"], "INACTIVE");
    for (body, status) in [
        (json!({"state": "ACTIVE"}), 409),
        (
            json!({"ServiceLivenessUpdate": {"state": "ACTIVE", "retryInterval": 1}}),
            409,
        ),
        (json!({"state": "INACTIVE"}), 400),
        (json!({}), 400),
        (json!({"state": "ACTIVE", "retryInterval": 0}), 400),
        (json!({"state": "ACTIVE", "retryInterval": 61}), 400),
    ] {
        assert!(!patch(&uri, &body).problem(status).is_empty(), "{body}");
    }
    send("PATCH", &uri, &[], b"\xff").problem(400);
    assert!(beat(&uri).problem(409).contains("INACTIVE"));
    assert_eq!(get(&uri).json(), before);

    put(&own(&server, &info), &service("cam", None));
    let after = get(&uri).json();
    assert_eq!(after["state"], "ACTIVE");
    assert!(time_stamp(&after) > time_stamp(&before));
    check_no_content(&beat(&uri));
}

#[test]
fn a_retry_promise_is_whole_seconds_within_the_interval() {
    let (_keep, server) = start(&[]);
    let (info, uri) = monitored(&server, 60);
    let check = |promise: Value, status: u16| {
        let bare = json!({"state": "ACTIVE", "retryInterval": promise});
        for body in [&bare, &json!({"ServiceLivenessUpdate": bare})] {
            let answer = patch(&uri, body);
            if status == 400 {
                let detail = answer.problem(400);
                assert!(
                    detail.contains("retryInterval") || detail.contains("60"),
                    "{detail}"
                );
            } else {
                assert_eq!(answer.status / 100, 2, "{body}: {answer:?}");
            }
        }
    };
    for promise in [json!(1), json!(60), Value::Null] {
        check(promise, 204);
    }
    let before = get(&uri).json();
    for promise in [
        json!(0),
        json!(-1),
        json!(1.5),
        json!("2"),
        json!([2]),
        json!(true),
        json!({}),
        json!(61),
        json!(u64::MAX),
        json!(1e30),
    ] {
        check(promise, 400);
    }
    assert_eq!(get(&uri).json(), before);
    // Until the shorter interval has been told and taken up, the longer one counts.
    put(&own(&server, &info), &service("cam", Some(30)));
    check(json!(60), 200);
    check_no_content(&beat(&uri));
    let late = patch(&uri, &json!({"state": "ACTIVE", "retryInterval": 31}));
    late.problem(400);
}

#[test]
fn a_batch_answers_each_service_as_the_single_beat_would() {
    let (_keep, server) = start(&[]);
    let (plain_beat, _) = monitored(&server, 60);
    let (off, _) = monitored(&server, 60);
    switch_off(&server, &off);
    let (changed, changed_uri) = monitored(&server, 60);
    put(&own(&server, &changed), &service("cam", Some(90)));
    let none = server.register(APP, &service("plain", None));
    let foreign = server.register("other", &service("door", Some(60)));
    let before = get(&liveness_of(&server, &foreign)).json();
    let bare = id_of(&plain_beat).replace('-', "");
    let ids = [
        id_of(&none),
        "garbage",
        id_of(&changed),
        id_of(&plain_beat),
        id_of(&off),
        bare.as_str(),
        UNKNOWN,
        id_of(&changed),
        id_of(&foreign),
        "garbage",
        "",
    ];
    let batch = format!("{}/liveness", server.app(APP));
    assert_eq!(
        plain_beat["_links"]["livenessBatch"]["href"],
        batch.strip_prefix(&server.url).unwrap()
    );
    let answer = patch(&batch, &json!({"state": "ACTIVE", "serviceIds": ids}));
    let result = |id: &str, status: u16| json!({"serInstanceId": id, "status": status});
    let expected = json!([
        result(id_of(&none), 404),
        result("garbage", 404),
        {"serInstanceId": id_of(&changed), "status": 200, "interval": 90},
        result(id_of(&plain_beat), 204),
        result(id_of(&off), 409),
        result(UNKNOWN, 404),
        result(id_of(&foreign), 404),
        result("", 404),
    ]);
    assert_eq!((answer.status, answer.json()), (200, expected));
    assert_eq!(get(&liveness_of(&server, &foreign)).json(), before);
    check_no_content(&beat(&changed_uri));
    let empty = patch(&batch, &json!({"state": "ACTIVE", "serviceIds": []}));
    assert_eq!((empty.status, empty.json()), (200, json!([])));

    let answer = beat(&batch);
    assert_eq!(answer.status, 200);
    let mut everyone: Vec<_> = answer
        .json()
        .as_array()
        .unwrap()
        .iter()
        .map(|result| (id_of(result).to_owned(), result["status"].as_u64().unwrap()))
        .collect();
    everyone.sort();
    let mut expected = [(&plain_beat, 204), (&off, 409), (&changed, 204)]
        .map(|(info, status)| (id_of(info).to_owned(), status));
    expected.sort();
    assert_eq!(everyone, expected);
}

#[test]
fn a_malformed_batch_beats_nobody() {
    let (_keep, server) = start(&[]);
    let (info, uri) = monitored(&server, 60);
    let (long, _) = monitored(&server, 3600);
    let batch = format!("{}/liveness", server.app(APP));
    let before = get(&uri).json();
    let ours = [id_of(&long), id_of(&info)];
    let too_many: Vec<_> = (0..1001).map(|n| format!("{}{n}", id_of(&info))).collect();
    for body in [
        json!({"state": "ACTIVE", "serviceIds": too_many}),
        json!({"state": "ACTIVE", "serviceIds": [id_of(&info), 5]}),
        json!({"state": "ACTIVE", "serviceIds": id_of(&info)}),
        json!({"state": "ACTIVE", "serviceIds": {}}),
        json!({"state": "INACTIVE", "serviceIds": ours}),
        json!({"serviceIds": ours}),
        json!({"state": "ACTIVE", "serviceIds": ours, "retryInterval": 61}),
        json!({"state": "ACTIVE", "retryInterval": 61}),
        json!({"state": "ACTIVE", "retryInterval": 0}),
        json!([]),
    ] {
        patch(&batch, &body).problem(400);
    }
    send("PATCH", &batch, &[], b"").problem(400);
    send("PATCH", &format!("{batch}?x"), &[], ACTIVE).problem(400);
    send("PATCH", &batch, &[("X-AppInstanceID", "other")], ACTIVE).problem(403);
    for body in [ACTIVE, b"{"] {
        let nobody = format!("{}/liveness", server.app("nobody"));
        send("PATCH", &nobody, &[], body).problem(404);
    }
    for method in ["GET", "HEAD", "PUT", "POST", "DELETE"] {
        let answer = send(method, &batch, &[], ACTIVE);
        assert_eq!(
            (answer.status, answer.header("allow")),
            (405, Some("PATCH")),
            "{method}"
        );
    }
    assert_eq!(get(&uri).json(), before);
    let most: Vec<_> = (0..1000).map(|n| format!("x{n}")).collect();
    let answer = patch(&batch, &json!({"state": "ACTIVE", "serviceIds": most}));
    assert_eq!(answer.json().as_array().unwrap().len(), 1000);
}

#[test]
fn a_whole_batch_is_one_commit() {
    let (_keep, server) = start(&["--set", "store.mark_interval_ms=3600000"]);
    let collection = format!("{}/services", server.app(APP));
    for n in 0..50 {
        let answer = post(&collection, &service(&format!("s-{n}"), Some(3600)));
        assert_eq!(answer.status, 201);
    }
    let commits = metric(&server, "mepulse_commits_total");
    let beats = metric(&server, "mepulse_heartbeats_total");
    let answer = beat(&format!("{}/liveness", server.app(APP)));
    let results = answer.json();
    assert_eq!(results.as_array().unwrap().len(), 50);
    assert!(
        results
            .as_array()
            .unwrap()
            .iter()
            .all(|result| result["status"] == 204)
    );
    assert_eq!(metric(&server, "mepulse_commits_total"), commits + 1);
    assert_eq!(metric(&server, "mepulse_heartbeats_total"), beats + 50);
}
