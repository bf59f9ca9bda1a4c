//! Applications that register what they are, through the real binary.
//!
//! Source: GS MEC 011 V3.1.1, 7.2.15 and 7.2.16.

use serde_json::{Value, json};

use crate::support::events::Watch;
use crate::support::{
    Answer, BRIEF, Server, beat, data_dir, get, liveness_of, post, put, self_of, send, service,
};

const APP: &str = "app";

fn collection(server: &Server) -> String {
    format!("{}/mec_app_support/v1/registrations", server.url)
}

fn item(server: &Server, app: &str) -> String {
    format!("{}/{app}", collection(server))
}

fn endpoint() -> Value {
    json!({"uris": ["http://10.0.0.1/"]})
}

/// What an application says of itself; without an id where `id` is empty.
fn info(id: &str, name: &str) -> Value {
    let mut info = json!({"appName": name, "endpoint": endpoint()});
    if !id.is_empty() {
        info["appInstanceId"] = id.into();
    }
    info
}

fn register(server: &Server, info: &Value) -> Answer {
    post(&collection(server), info)
}

fn delete(uri: &str) -> Answer {
    send("DELETE", uri, &[], b"")
}

fn subscription() -> Value {
    json!({
        "subscriptionType": "SerAvailabilityNotificationSubscription",
        "callbackReference": "http://192.0.2.1:9/cb",
        "filteringCriteria": {"serNames": ["nothing"]}
    })
}

#[test]
fn an_application_registers_shows_changes_and_goes() {
    let (_keep, dir) = data_dir();
    let server = Server::start(&dir, &[]);
    let mut said = info("a b", "one");
    said["appProvider"] = "me".into();
    said["appFeatureRequired"] = json!([{"featureName": "f", "version": "1"}]);
    said["colour"] = "red".into();
    let answer = register(&server, &said);
    assert_eq!(answer.status, 201, "{answer:?}");
    let path = "/mec_app_support/v1/registrations/a%20b";
    assert_eq!(answer.header("location"), Some(path));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    said.as_object_mut().unwrap().remove("colour");
    assert_eq!(answer.json(), said);
    let own = item(&server, "a%20b");
    assert_eq!((get(&own).status, get(&own).json()), (200, said.clone()));
    let head = send("HEAD", &own, &[], b"");
    assert_eq!((head.status, head.body.len()), (200, 0));

    let changed = json!({"appName": "two", "endpoint": endpoint()});
    let answer = put(&own, &changed);
    assert_eq!((answer.status, answer.body.len()), (204, 0));
    assert_eq!(
        get(&own).json(),
        info("a b", "two"),
        "it is replaced, not merged"
    );
    assert_eq!(delete(&own).status, 204);
    for (method, body) in [("GET", ""), ("PUT", "{"), ("DELETE", "")] {
        send(method, &own, &[], body.as_bytes()).problem(404);
    }
    for (method, uri, allow) in [
        ("GET", collection(&server), "POST"),
        ("DELETE", collection(&server), "POST"),
        ("POST", own.clone(), "GET, HEAD, PUT, DELETE"),
        ("PATCH", own.clone(), "GET, HEAD, PUT, DELETE"),
    ] {
        let answer = send(method, &uri, &[], changed.to_string().as_bytes());
        answer.problem(405);
        assert_eq!(answer.header("allow"), Some(allow), "{method} {uri}");
    }
}

#[test]
fn an_application_without_an_id_gets_one_of_its_own() {
    let (_keep, dir) = data_dir();
    let server = Server::start(&dir, &["--set", "apps.auto_accept=false"]);
    let mut ids = Vec::new();
    for _ in 0..2 {
        let answer = register(&server, &info("", "one"));
        assert_eq!(answer.status, 201);
        let id = answer.json()["appInstanceId"].as_str().unwrap().to_owned();
        assert_eq!(answer.json(), info(&id, "one"));
        assert_eq!(get(&item(&server, &id)).json(), info(&id, "one"));
        server.register(&id, &service("cam", None));
        ids.push(id);
    }
    assert_ne!(ids[0], ids[1]);
}

#[test]
fn saying_the_same_again_is_fine_and_something_else_a_conflict() {
    let (_keep, dir) = data_dir();
    let mut server = Server::start(&dir, &[]);
    assert_eq!(register(&server, &info(APP, "one")).status, 201);
    for restart in [false, true] {
        if restart {
            server.kill();
            server = Server::start(&dir, &[]);
        }
        let again = register(&server, &info(APP, "one"));
        assert_eq!((again.status, again.json()), (201, info(APP, "one")));
        let detail = register(&server, &info(APP, "two")).problem(409);
        assert!(detail.contains(APP) && detail.contains("PUT"), "{detail}");
        assert_eq!(get(&item(&server, APP)).json(), info(APP, "one"));
    }
    // One that was accepted with its first service has said nothing yet.
    server.register("quiet", &service("cam", None));
    let quiet = item(&server, "quiet");
    let detail = get(&quiet).problem(404);
    assert!(detail.contains("AppInfo"), "{detail}");
    assert_eq!(register(&server, &info("quiet", "one")).status, 201);
    assert_eq!(get(&quiet).json(), info("quiet", "one"));
    server.register("silent", &service("cam", None));
    assert_eq!(put(&item(&server, "silent"), &info("", "one")).status, 204);
    assert_eq!(get(&item(&server, "silent")).json(), info("silent", "one"));
}

#[test]
fn what_cannot_be_registered_is_refused_and_changes_nothing() {
    let (_keep, dir) = data_dir();
    let server = Server::start(&dir, &["--set", "apps.auto_accept=false"]);
    let by_mec = json!({"appName": "a", "isInsByMec": true, "appDId": "d", "appInstanceId": "x"});
    let without = |body: &Value, member: &str| {
        let mut body = body.clone();
        body.as_object_mut().unwrap().remove(member);
        body
    };
    let mut both = info("x", "a");
    both["appDId"] = "d".into();
    both["appServiceRequired"] = json!([{"serName": "s", "version": "1"}]);
    for (body, named) in [
        (without(&info("x", "a"), "appName"), "appName"),
        (without(&info("x", "a"), "endpoint"), "endpoint"),
        (without(&by_mec, "appDId"), "appDId"),
        (without(&by_mec, "appInstanceId"), "appInstanceId"),
        (info("a/b", "a"), "appInstanceId"),
        (info("..", "a"), "appInstanceId"),
        (info(&"x".repeat(129), "a"), "appInstanceId"),
        (info("é", "a"), "appInstanceId"),
        (both, "appServiceRequired"),
        (json!([]), "array"),
    ] {
        let detail = register(&server, &body).problem(400);
        assert!(detail.contains(named), "{body}: {detail}");
    }
    assert_eq!(register(&server, &by_mec).status, 201);
    let x = item(&server, "x");
    let detail = put(&x, &info("y", "a")).problem(400);
    assert!(
        detail.contains("\"y\"") && detail.contains("\"x\""),
        "{detail}"
    );
    put(&x, &json!({})).problem(400);
    send("POST", &format!("{}?x=1", collection(&server)), &[], b"{}").problem(400);
    for claim in ["y", "", "é"] {
        let body = info("z", "a").to_string();
        let answer = send(
            "POST",
            &collection(&server),
            &[("X-AppInstanceID", claim)],
            body.as_bytes(),
        );
        assert!(matches!(answer.status, 400 | 403), "{claim:?}: {answer:?}");
        for method in ["GET", "PUT", "DELETE"] {
            send(method, &x, &[("X-AppInstanceID", claim)], body.as_bytes()).problem(403);
        }
    }
    let mine = [("X-AppInstanceID", "x")];
    assert_eq!(send("GET", &x, &mine, b"").json(), by_mec);
    get(&item(&server, "y")).problem(404);
    get(&item(&server, "z")).problem(404);
}

#[test]
fn without_auto_accept_nothing_is_there_for_an_application_that_has_not_registered() {
    let (_keep, dir) = data_dir();
    let server = Server::start(&dir, &["--set", "apps.auto_accept=false"]);
    let requests = [
        ("GET", "services", Value::Null, 200),
        ("POST", "services", service("cam", Some(60)), 201),
        ("GET", "subscriptions", Value::Null, 200),
        ("POST", "subscriptions", subscription(), 201),
        ("PATCH", "liveness", json!({"state": "ACTIVE"}), 200),
    ];
    let check = |known: bool| {
        for (method, path, body, fine) in &requests {
            let uri = format!("{}/{path}", server.app(APP));
            let body = body.to_string();
            let body = if *method == "GET" {
                b""
            } else {
                body.as_bytes()
            };
            let answer = send(method, &uri, &[], body);
            assert_eq!(
                answer.status,
                if known { *fine } else { 404 },
                "{method} {path}: {answer:?}"
            );
        }
    };
    check(false);
    delete(&item(&server, APP)).problem(404);
    put(&item(&server, APP), &info(APP, "one")).problem(404);
    assert_eq!(register(&server, &info(APP, "one")).status, 201);
    check(true);
    assert_eq!(delete(&item(&server, APP)).status, 204);
    check(false);
}

#[test]
fn an_application_takes_everything_of_its_own_along_and_nothing_else() {
    let (_keep, dir) = data_dir();
    let server = Server::start(&dir, &BRIEF);
    assert_eq!(register(&server, &info(APP, "one")).status, 201);
    let mut watch = Watch::open(&server, "", None);
    let names = ["cam", "door", "bell"];
    let mine = names.map(|name| server.register(APP, &service(name, Some(3))));
    let subscriptions = format!("{}/subscriptions", server.app(APP));
    let subscribed = post(&subscriptions, &subscription());
    let subscribed = format!("{}{}", server.url, subscribed.header("location").unwrap());
    for name in names {
        assert_eq!(watch.event().tells().2, name);
    }
    assert_eq!(delete(&item(&server, APP)).status, 204);
    // The other's timer runs out after those that are gone would have.
    let other = server.register("other", &service("other", Some(3)));
    let mut removed: Vec<_> = (0..3)
        .map(|_| {
            let event = watch.event();
            let (_, change, name, _) = event.tells();
            assert_eq!(change, "REMOVED", "{event:?}");
            name.to_owned()
        })
        .collect();
    removed.sort();
    assert_eq!(removed, ["bell", "cam", "door"]);
    assert_eq!(watch.event().tells().1, "ADDED");
    let event = watch.event();
    let (_, change, name, state) = event.tells();
    assert_eq!(
        (change, name, state),
        ("STATE_CHANGED", "other", "SUSPENDED")
    );

    let gone: Vec<String> = mine
        .iter()
        .flat_map(|info| [self_of(&server, info), liveness_of(&server, info)])
        .chain([
            subscriptions,
            subscribed,
            item(&server, APP),
            format!("{}/services", server.app(APP)),
        ])
        .collect();
    let check = |server: &Server, from: &str| {
        for uri in &gone {
            get(&uri.replace(from, &server.url)).problem(404);
        }
        let all = get(&format!(
            "{}/services?ser_name=cam&ser_name=door",
            server.root()
        ));
        assert_eq!(all.json(), json!([]));
        let other = get(&self_of(server, &other)).json();
        assert_eq!(other["serName"], "other");
    };
    check(&server, &server.url);
    beat(&liveness_of(&server, &mine[0])).problem(404);
    let from = server.url.clone();
    server.kill();
    let server = Server::start(&dir, &BRIEF);
    check(&server, &from);
    // Its id is free again, and what was its is not its any more.
    assert_eq!(register(&server, &info(APP, "two")).status, 201);
    for list in ["services", "subscriptions"] {
        let list = get(&format!("{}/{list}", server.app(APP))).json();
        let list = list.pointer("/_links/subscriptions").unwrap_or(&list);
        assert_eq!(*list, json!([]));
    }
}

#[test]
fn a_share_is_counted_anew_for_whoever_comes_back() {
    let (_keep, dir) = data_dir();
    let terms = [
        "--set",
        "apps.services_max_per_app=2",
        "--set",
        "apps.subscriptions_max_per_app=1",
    ];
    let server = Server::start(&dir, &terms);
    let services = format!("{}/services", server.app(APP));
    let subscriptions = format!("{}/subscriptions", server.app(APP));
    for _ in 0..3 {
        assert_eq!(register(&server, &info(APP, "one")).status, 201);
        for _ in 0..2 {
            server.register(APP, &service("cam", None));
        }
        post(&services, &service("cam", None)).problem(429);
        assert_eq!(post(&subscriptions, &subscription()).status, 201);
        post(&subscriptions, &subscription()).problem(429);
        assert_eq!(delete(&item(&server, APP)).status, 204);
    }
    server.register(APP, &service("cam", None));
    assert_eq!(get(&services).json().as_array().unwrap().len(), 1);
}
