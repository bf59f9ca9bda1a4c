//! Subscriptions as resources, through the real binary.
//!
//! Source: GS MEC 011 V2.2.1, 8.1.3.2, 8.2.8 and 8.2.9.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::support::{Answer, Server, data_dir, get, post, send, service};

const APP: &str = "app";
const TYPE: &str = "SerAvailabilityNotificationSubscription";
/// Reserved for documentation: nobody is there.
const CALLBACK: &str = "http://192.0.2.1:9/cb";
const BODY_LIMIT: usize = 65_536;

/// A server that knows [`APP`].
fn start(args: &[&str]) -> (tempfile::TempDir, std::path::PathBuf, Server) {
    let (keep, dir) = data_dir();
    let server = Server::start(&dir, args);
    server.register(APP, &service("cam", None));
    (keep, dir, server)
}

fn collection(server: &Server) -> String {
    format!("{}/subscriptions", server.app(APP))
}

fn to(callback: &str) -> Value {
    json!({"subscriptionType": TYPE, "callbackReference": callback})
}

fn filtered(criteria: &Value) -> Value {
    let mut body = to(CALLBACK);
    body["filteringCriteria"] = criteria.clone();
    body
}

/// Creates one; its URI and its representation.
fn create(server: &Server, body: &Value) -> (String, Value) {
    let answer = post(&collection(server), body);
    assert_eq!(answer.status, 201, "{body}: {answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let info = answer.json();
    let own = info["_links"]["self"]["href"].as_str().unwrap();
    assert_eq!(answer.header("location"), Some(own), "{info}");
    (own.to_owned(), info)
}

fn at(server: &Server, own: &str) -> Answer {
    get(&format!("{}{own}", server.url))
}

/// The URIs in the list of an application's subscriptions.
fn listed(server: &Server) -> Vec<String> {
    let answer = get(&collection(server));
    assert_eq!(answer.status, 200, "{answer:?}");
    let list = answer.json();
    let own = collection(server).replace(&server.url, "");
    assert_eq!(list["_links"]["self"]["href"], own.as_str());
    let all = list["_links"]["subscriptions"].as_array().unwrap().iter();
    let mut uris: Vec<_> = all
        .map(|link| {
            assert_eq!(link["subscriptionType"], TYPE, "{list}");
            link["href"].as_str().unwrap().to_owned()
        })
        .collect();
    uris.sort();
    uris
}

fn category(id: &str) -> Value {
    json!({"href": "/c", "id": id, "name": "n", "version": "v"})
}

#[test]
fn a_subscription_is_made_shown_listed_and_ended() {
    let (_keep, _, server) = start(&[]);
    assert!(listed(&server).is_empty());
    let mut made = Vec::new();
    let id = "00000000-0000-4000-8000-000000000000";
    for (criteria, shown) in [
        (Value::Null, Value::Null),
        (json!({}), Value::Null),
        (json!({"serNames": [], "states": []}), Value::Null),
        (
            json!({"serNames": ["a", "b,c"]}),
            json!({"serNames": ["a", "b,c"]}),
        ),
        (
            json!({"serInstanceIds": [id, "x"]}),
            json!({"serInstanceIds": [id, "x"]}),
        ),
        (
            json!({"serCategories": [category("c")]}),
            json!({"serCategories": [category("c")]}),
        ),
        (
            json!({"states": ["SUSPENDED"]}),
            json!({"states": ["SUSPENDED"]}),
        ),
        (json!({"isLocal": false}), json!({"isLocal": false})),
        (
            json!({"serNames": ["a"], "serCategories": [], "states": ["ACTIVE", "INACTIVE"], "isLocal": true}),
            json!({"serNames": ["a"], "states": ["ACTIVE", "INACTIVE"], "isLocal": true}),
        ),
    ] {
        let mut body = filtered(&criteria);
        // What is the platform's, or unknown, is ignored.
        body["_links"] = json!({"self": {"href": "/mine"}});
        body["colour"] = "red".into();
        let (own, info) = create(&server, &body);
        assert!(
            own.starts_with(&collection(&server).replace(&server.url, "")),
            "{own}"
        );
        let mut expected = to(CALLBACK);
        if !shown.is_null() {
            expected["filteringCriteria"] = shown;
        }
        expected["_links"] = json!({"self": {"href": own}});
        assert_eq!(info, expected);
        let again = at(&server, &own);
        assert_eq!((again.status, again.json()), (200, info));
        made.push(own);
    }
    made.sort();
    assert_eq!(listed(&server), made);
    while let Some(own) = made.pop() {
        let uri = format!("{}{own}", server.url);
        let head = send("HEAD", &uri, &[], b"");
        assert_eq!((head.status, head.body.len()), (200, 0));
        let gone = send("DELETE", &uri, &[], b"");
        assert_eq!((gone.status, gone.body.len()), (204, 0));
        for method in ["GET", "DELETE"] {
            send(method, &uri, &[], b"").problem(404);
        }
        assert_eq!(listed(&server), made);
    }
}

#[test]
fn a_subscription_is_its_application_s_alone() {
    let (_keep, _, server) = start(&[]);
    server.register("other", &service("door", None));
    let (own, info) = create(&server, &to(CALLBACK));
    let id = own.rsplit('/').next().unwrap();
    for uri in [
        format!("{}/subscriptions/{id}", server.app("other")),
        format!("{}/subscriptions/{id}", server.app("nobody")),
        format!(
            "{}/subscriptions/00000000-0000-4000-8000-000000000000",
            server.app(APP)
        ),
        format!("{}/subscriptions/x", server.app(APP)),
    ] {
        for method in ["GET", "HEAD", "DELETE"] {
            assert_eq!(send(method, &uri, &[], b"").status, 404, "{method} {uri}");
        }
    }
    let nobody = format!("{}/subscriptions", server.app("nobody"));
    get(&nobody).problem(404);
    // Not even a good one makes an application known, and a bad one is not looked at.
    post(&nobody, &to(CALLBACK)).problem(404);
    send("POST", &nobody, &[], b"{").problem(404);
    let item = format!("{}{own}", server.url);
    for (method, uri, allow) in [
        ("PUT", &item, "GET, HEAD, DELETE"),
        ("PATCH", &item, "GET, HEAD, DELETE"),
        ("POST", &item, "GET, HEAD, DELETE"),
        ("PUT", &collection(&server), "GET, HEAD, POST"),
        ("DELETE", &collection(&server), "GET, HEAD, POST"),
    ] {
        let answer = send(method, uri, &[], to(CALLBACK).to_string().as_bytes());
        answer.problem(405);
        assert_eq!(answer.header("allow"), Some(allow), "{method} {uri}");
    }
    let claim = [("X-AppInstanceID", "other")];
    for (method, uri) in [
        ("GET", &item),
        ("DELETE", &item),
        ("GET", &collection(&server)),
        ("POST", &collection(&server)),
    ] {
        let body = to(CALLBACK).to_string();
        let body = if method == "POST" {
            body.as_bytes()
        } else {
            b""
        };
        send(method, uri, &claim, body).problem(403);
        send(method, &format!("{uri}?x=1"), &[], body).problem(400);
    }
    assert_eq!(at(&server, &own).json(), info);
    assert_eq!(listed(&server), [own]);
}

#[test]
fn every_wrong_type_of_every_member_is_400_and_named() {
    let (_keep, _, server) = start(&[]);
    type Accepts<'a> = &'a dyn Fn(&Value) -> bool;
    let nothing = |value: &Value| value.is_null() || *value == json!([]);
    let members: &[(&str, Accepts<'_>)] = &[
        ("/subscriptionType", &|_| false),
        ("/callbackReference", &|_| false),
        ("/filteringCriteria", &|value| {
            value.is_null() || value.is_object()
        }),
        ("/filteringCriteria/serInstanceIds", &nothing),
        ("/filteringCriteria/serNames", &nothing),
        ("/filteringCriteria/serCategories", &nothing),
        ("/filteringCriteria/states", &nothing),
        ("/filteringCriteria/isLocal", &|value| {
            value.is_null() || value.is_boolean()
        }),
        ("/filteringCriteria/serCategories/0/href", &Value::is_string),
        ("/filteringCriteria/serCategories/0/id", &Value::is_string),
        ("/filteringCriteria/serCategories/0/name", &Value::is_string),
        (
            "/filteringCriteria/serCategories/0/version",
            &Value::is_string,
        ),
    ];
    let values = [
        json!(null),
        json!(true),
        json!(7),
        json!(-1),
        json!(2.5),
        json!("text"),
        json!([]),
        json!([1]),
        json!([null]),
        json!([[]]),
        json!({}),
    ];
    for (pointer, accepts) in members {
        for value in values.iter().filter(|value| !accepts(value)) {
            let mut body = filtered(&json!({
                "serInstanceIds": null, "serNames": null, "states": null, "isLocal": null,
                "serCategories": pointer.contains("/0").then(|| [category("c")]),
            }));
            *body.pointer_mut(pointer).unwrap() = value.clone();
            let detail = post(&collection(&server), &body).problem(400);
            let named = pointer[1..].replace("/0", "[0]").replace('/', ".");
            assert!(detail.contains(&named), "{body}: {detail}");
        }
    }
    let many: Vec<_> = (0..1001).map(|n| n.to_string()).collect();
    for (criteria, names) in [
        (
            json!({"serNames": ["a"], "serInstanceIds": ["b"]}),
            vec!["serNames", "serInstanceIds"],
        ),
        (
            json!({"serNames": ["a"], "serCategories": [category("c")]}),
            vec!["serNames", "serCategories"],
        ),
        (
            json!({"serInstanceIds": ["a"], "serCategories": [category("c")]}),
            vec!["serInstanceIds", "serCategories"],
        ),
        (
            json!({"serNames": ["a", ""]}),
            vec!["filteringCriteria.serNames[1]"],
        ),
        (
            json!({"states": ["ACTIVE", "DEAD"]}),
            vec!["filteringCriteria.states[1]", "SUSPENDED"],
        ),
        (
            json!({"serNames": many}),
            vec!["filteringCriteria.serNames", "1001", "1000"],
        ),
    ] {
        let detail = post(&collection(&server), &filtered(&criteria)).problem(400);
        assert!(
            names.iter().all(|name| detail.contains(name)),
            "{criteria}: {detail}"
        );
    }
    for body in [
        "",
        "{",
        "[]",
        "null",
        "\"x\"",
        "{\"subscriptionType\":\"X\"}",
    ] {
        send("POST", &collection(&server), &[], body.as_bytes()).problem(400);
    }
    assert!(listed(&server).is_empty());
}

#[test]
fn a_flood_fills_its_own_share_and_nothing_else() {
    let (_keep, _, server) = start(&[]);
    let (made, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..10_000 / 8 {
                    let answer = post(&collection(&server), &to(CALLBACK));
                    if answer.status == 201 {
                        made.fetch_add(1, Ordering::Relaxed);
                        continue;
                    }
                    let detail = answer.problem(429);
                    assert!(detail.contains("100 subscriptions"), "{detail}");
                    let wait: u32 = answer.header("retry-after").unwrap().parse().unwrap();
                    assert!(wait > 0);
                    refused.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!((made.into_inner(), refused.into_inner()), (100, 9900));
    let all = listed(&server);
    assert_eq!(all.len(), 100);
    server.register("other", &service("door", None));
    let other = format!("{}/subscriptions", server.app("other"));
    assert_eq!(post(&other, &to(CALLBACK)).status, 201);
    // One goes, one more fits.
    let first = format!("{}{}", server.url, all[0]);
    assert_eq!(send("DELETE", &first, &[], b"").status, 204);
    create(&server, &to(CALLBACK));
    post(&collection(&server), &to(CALLBACK)).problem(429);
}

#[test]
fn subscriptions_survive_whatever_ends_the_server() {
    let (_keep, dir, mut server) = start(&[]);
    let names: Vec<_> = (0..1000).map(|n| format!("{n:040}")).collect();
    let made: Vec<_> = [
        Value::Null,
        json!({"serNames": ["a", "監視"], "states": ["SUSPENDED"], "isLocal": true}),
        json!({"serCategories": [category("c"), category("d")]}),
        json!({"serInstanceIds": ["00000000-0000-4000-8000-000000000000"]}),
        // More than one row holds.
        json!({"serNames": names}),
    ]
    .iter()
    .map(|criteria| create(&server, &filtered(criteria)))
    .collect();
    let (gone, _) = create(&server, &filtered(&json!({"serNames": names})));
    assert_eq!(
        send("DELETE", &format!("{}{gone}", server.url), &[], b"").status,
        204
    );
    for kill in [true, false, true] {
        if kill {
            server.kill()
        } else {
            server.stop()
        }
        server = Server::start(&dir, &[]);
        for (own, info) in &made {
            assert_eq!(at(&server, own).json(), *info);
        }
        at(&server, &gone).problem(404);
        assert_eq!(listed(&server).len(), made.len());
    }
}

#[test]
fn a_body_may_be_as_long_as_the_limit() {
    let (_keep, _, server) = start(&[]);
    let mut body = to(CALLBACK).to_string();
    body.push_str(&" ".repeat(BODY_LIMIT - body.len()));
    let uri = collection(&server);
    assert_eq!(send("POST", &uri, &[], body.as_bytes()).status, 201);
    body.push(' ');
    send("POST", &uri, &[], body.as_bytes()).problem(413);
    assert_eq!(listed(&server).len(), 1);
}
