//! The service resources through the real binary.
//!
//! Source: GS MEC 011 V2.2.1, 8.2.3 to 8.2.7.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::{Server, data_dir, get, id_of, post, put, send, service};

const APP: &str = "app";
const UNKNOWN: &str = "00000000-0000-4000-8000-000000000000";

fn start(args: &[&str]) -> (tempfile::TempDir, Server) {
    let (keep, dir) = data_dir();
    let server = Server::start(&dir, args);
    (keep, server)
}

/// The service with some members set; `null` removes one.
fn with(mut body: Value, members: &Value) -> Value {
    let map = body.as_object_mut().unwrap();
    for (name, value) in members.as_object().unwrap() {
        if value.is_null() {
            map.remove(name);
        } else {
            map.insert(name.clone(), value.clone());
        }
    }
    body
}

fn own(server: &Server, info: &Value) -> String {
    let href = info["_links"]["self"]["href"].as_str().unwrap();
    format!("{}{href}", server.url)
}

/// Both members of the agreement say `interval`, or both are absent.
fn check_agreement(info: &Value, interval: Option<u32>) {
    assert_eq!(
        info["livenessInterval"],
        interval.map_or(Value::Null, Into::into)
    );
    let link = info["_links"]["liveness"]["href"].as_str();
    assert_eq!(link.is_some(), interval.is_some(), "{info}");
    let batch = info["_links"]["livenessBatch"]["href"].as_str();
    assert_eq!(batch.is_some(), interval.is_some(), "{info}");
    let members = info.as_object().unwrap();
    assert_eq!(
        members.contains_key("livenessInterval"),
        interval.is_some(),
        "{info}"
    );
}

#[test]
fn every_row_of_the_resource_tables_holds() {
    let (_keep, server) = start(&[]);
    let collection = format!("{}/services", server.app(APP));
    let answer = post(&collection, &service("cam", Some(60)));
    assert_eq!(answer.status, 201, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let info = answer.json();
    let path = format!(
        "/mec_service_mgmt/v1/applications/{APP}/services/{}",
        id_of(&info)
    );
    assert_eq!(answer.header("location"), Some(path.as_str()));
    assert_eq!(info["_links"]["self"]["href"], path.as_str());
    assert_eq!(
        info["_links"]["liveness"]["href"],
        format!("{path}/liveness")
    );

    let item = own(&server, &info);
    let by_id = format!("{}/services/{}", server.root(), id_of(&info));
    let all = format!("{}/services", server.root());
    for uri in [&item, &by_id] {
        let answer = get(uri);
        assert_eq!(
            (answer.status, answer.json()),
            (200, info.clone()),
            "GET {uri}"
        );
    }
    for uri in [&collection, &all] {
        let answer = get(uri);
        assert_eq!(
            (answer.status, answer.json()),
            (200, json!([info])),
            "GET {uri}"
        );
        assert_eq!(answer.header("content-type"), Some("application/json"));
    }
    for uri in [&item, &by_id, &collection, &all] {
        let head = send("HEAD", uri, &[], b"");
        assert_eq!(
            (head.status, head.body.len()),
            (200, 0),
            "HEAD {uri}: {head:?}"
        );
        assert_eq!(
            head.header("content-type"),
            Some("application/json"),
            "{uri}"
        );
    }

    let answer = put(&item, &service("door", Some(60)));
    let replaced = with(info, &json!({"serName": "door"}));
    assert_eq!((answer.status, answer.json()), (200, replaced.clone()));
    assert_eq!(get(&by_id).json(), replaced);

    let answer = send("DELETE", &item, &[], b"");
    assert_eq!((answer.status, answer.body.len()), (204, 0));
    for uri in [&item, &by_id, &format!("{item}/liveness")] {
        get(uri).problem(404);
    }
    for method in ["PUT", "DELETE"] {
        let body = service("door", None).to_string();
        send(method, &item, &[], body.as_bytes()).problem(404);
    }
    assert_eq!(get(&all).json(), json!([]));
    assert_eq!(
        get(&collection).json(),
        json!([]),
        "the application stays known"
    );
}

#[test]
fn an_empty_registry_lists_nothing_and_knows_nobody() {
    let (_keep, server) = start(&[]);
    let all = get(&format!("{}/services", server.root()));
    assert_eq!((all.status, all.json()), (200, json!([])));
    let body = service("cam", None).to_string();
    for (method, path) in [
        ("GET", format!("{}/services", server.app("nobody"))),
        (
            "GET",
            format!("{}/services/{UNKNOWN}", server.app("nobody")),
        ),
        (
            "PUT",
            format!("{}/services/{UNKNOWN}", server.app("nobody")),
        ),
        (
            "DELETE",
            format!("{}/services/{UNKNOWN}", server.app("nobody")),
        ),
        ("GET", format!("{}/services/{UNKNOWN}", server.root())),
        ("GET", format!("{}/services/{UNKNOWN}/x", server.root())),
        ("GET", format!("{}/applications", server.root())),
    ] {
        send(method, &path, &[], body.as_bytes()).problem(404);
    }
}

#[test]
fn links_are_absolute_where_the_operator_says_so() {
    let url = "https://mep.example";
    let (_keep, server) = start(&["--set", "server.public_url=https://mep.example"]);
    let answer = post(
        &format!("{}/services", server.app("a%20b~")),
        &service("cam", Some(0)),
    );
    let info = answer.json();
    let app = format!("{url}/mec_service_mgmt/v1/applications/a%20b~");
    let item = format!("{app}/services/{}", id_of(&info));
    assert_eq!(answer.header("location"), Some(item.as_str()));
    let links = json!({
        "self": {"href": item},
        "liveness": {"href": format!("{item}/liveness")},
        "livenessBatch": {"href": format!("{app}/liveness")},
    });
    assert_eq!(info["_links"], links);
}

#[test]
fn an_interval_is_negotiated_within_bounds_or_not_at_all() {
    let (_keep, server) = start(&[
        "--set",
        "liveness.min_interval_s=10",
        "--set",
        "liveness.max_interval_s=100",
        "--set",
        "liveness.default_interval_s=40",
    ]);
    for (offer, agreed) in [
        (Value::Null, None),
        (json!(0), Some(40)),
        (json!(50), Some(50)),
        (json!(10), Some(10)),
        (json!(1), Some(10)),
        (json!(101), Some(100)),
        (json!(u64::MAX), Some(100)),
    ] {
        let body = with(
            service("cam", None),
            &json!({"livenessInterval": offer.clone()}),
        );
        let info = server.register(APP, &body);
        check_agreement(&info, agreed);
        check_agreement(&get(&own(&server, &info)).json(), agreed);
        check_agreement(&put(&own(&server, &info), &body).json(), agreed);
    }
}

#[test]
fn a_put_replaces_all_but_the_agreement() {
    let (_keep, server) = start(&[]);
    let full = json!({
        "serCategory": {"href": "/c", "id": "i", "name": "n", "version": "v"},
        "scopeOfLocality": "ZONE", "consumedLocalOnly": false, "livenessInterval": 60,
    });
    let info = server.register(APP, &with(service("cam", None), &full));
    let item = own(&server, &info);
    assert_eq!(info["serCategory"], full["serCategory"]);

    let bare = put(&item, &with(service("cam", None), &json!({}))).json();
    assert_eq!(bare.get("serCategory"), None, "{bare}");
    assert_eq!(
        (&bare["scopeOfLocality"], &bare["consumedLocalOnly"]),
        (&json!("MEC_HOST"), &json!(true))
    );
    assert_eq!(bare["serInstanceId"], info["serInstanceId"]);
    assert_eq!(bare["_links"], info["_links"]);
    check_agreement(&bare, Some(60));

    check_agreement(&put(&item, &service("cam", Some(90))).json(), Some(90));
    check_agreement(&get(&item).json(), Some(90));
    let silent = with(service("cam", None), &json!({"livenessInterval": null}));
    check_agreement(&put(&item, &silent).json(), Some(90));

    let off = put(
        &item,
        &with(service("cam", None), &json!({"state": "INACTIVE"})),
    );
    assert_eq!(
        (off.status, &off.json()["state"]),
        (200, &json!("INACTIVE"))
    );
    check_agreement(&off.json(), Some(90));
    let what_was_got = get(&item).json();
    let again = put(&item, &what_was_got);
    assert_eq!((again.status, again.json()), (200, what_was_got));

    let none = server.register(APP, &service("door", None));
    check_agreement(
        &put(&own(&server, &none), &service("door", Some(30))).json(),
        Some(30),
    );
}

#[test]
fn suspended_is_not_for_producers_to_say() {
    let (_keep, server) = start(&[]);
    let info = server.register(APP, &service("cam", Some(60)));
    let suspended = with(service("cam", Some(60)), &json!({"state": "SUSPENDED"}));
    let detail = post(&format!("{}/services", server.app(APP)), &suspended).problem(400);
    assert!(detail.contains("SUSPENDED"), "{detail}");
    let detail = put(&own(&server, &info), &suspended).problem(400);
    assert!(detail.contains("SUSPENDED"), "{detail}");
    assert_eq!(get(&own(&server, &info)).json(), info);
    post(&format!("{}/services", server.app("other")), &suspended).problem(400);
    get(&format!("{}/services", server.app("other"))).problem(404);
}

#[test]
fn a_service_is_found_below_its_own_application_only() {
    let (_keep, server) = start(&[]);
    let mine = server.register(APP, &service("cam", Some(60)));
    server.register("other", &service("door", None));
    let foreign = format!("{}/services/{}", server.app("other"), id_of(&mine));
    let nobody = format!("{}/services/{}", server.app("nobody"), id_of(&mine));
    let body = service("stolen", None).to_string();
    for uri in [&foreign, &nobody] {
        for method in ["GET", "HEAD", "PUT", "DELETE"] {
            let answer = send(
                method,
                uri,
                &[],
                if method == "PUT" {
                    body.as_bytes()
                } else {
                    b""
                },
            );
            assert_eq!(answer.status, 404, "{method} {uri}");
        }
        send("PUT", uri, &[], b"not even JSON").problem(404);
    }
    assert_eq!(get(&own(&server, &mine)).json(), mine);
}

#[test]
fn unknown_applications_are_refused_without_auto_accept() {
    let (_keep, dir) = data_dir();
    let server = Server::start(&dir, &[]);
    server.register(APP, &service("cam", None));
    server.stop();
    let server = Server::start(&dir, &["--set", "apps.auto_accept=false"]);
    let detail = post(
        &format!("{}/services", server.app("new")),
        &service("cam", None),
    )
    .problem(404);
    assert!(detail.contains("new"), "{detail}");
    send(
        "POST",
        &format!("{}/services", server.app("new")),
        &[],
        b"{",
    )
    .problem(404);
    server.register(APP, &service("door", None));
    assert_eq!(
        get(&format!("{}/services", server.root()))
            .json()
            .as_array()
            .unwrap()
            .len(),
        2
    );
}

#[test]
fn a_full_share_is_429_until_a_service_goes() {
    let (_keep, server) = start(&["--set", "apps.services_max_per_app=2"]);
    let first = server.register(APP, &service("one", None));
    server.register(APP, &service("two", None));
    let collection = format!("{}/services", server.app(APP));
    let refused = post(&collection, &service("three", None));
    refused.problem(429);
    assert!(
        refused
            .header("retry-after")
            .unwrap()
            .parse::<u32>()
            .unwrap()
            > 0
    );
    server.register("other", &service("three", None));
    assert_eq!(
        put(&own(&server, &first), &service("one", None)).status,
        200
    );
    assert_eq!(send("DELETE", &own(&server, &first), &[], b"").status, 204);
    server.register(APP, &service("three", None));
    post(&collection, &service("four", None)).problem(429);
}

#[test]
fn query_parameters_are_refused_by_name() {
    let (_keep, server) = start(&[]);
    let info = server.register(APP, &service("cam", Some(60)));
    let item = own(&server, &info);
    let collection = format!("{}/services", server.app(APP));
    let body = service("door", None).to_string();
    for (method, uri) in [
        ("GET", format!("{}/services", server.root())),
        (
            "GET",
            format!("{}/services/{}", server.root(), id_of(&info)),
        ),
        ("GET", collection.clone()),
        ("POST", collection.clone()),
        ("GET", item.clone()),
        ("PUT", item.clone()),
        ("DELETE", item.clone()),
    ] {
        for query in ["colour=red", "colour", "colour=a&b=c"] {
            let answer = send(method, &format!("{uri}?{query}"), &[], body.as_bytes());
            let detail = answer.problem(400);
            assert!(detail.contains("colour"), "{method} {uri}: {detail}");
        }
    }
    assert_eq!(get(&collection).json(), json!([info]));
}

#[test]
fn a_header_that_contradicts_the_path_is_403() {
    let (_keep, server) = start(&[]);
    let info = server.register(APP, &service("cam", Some(60)));
    let item = own(&server, &info);
    let collection = format!("{}/services", server.app(APP));
    let unknown = format!("{}/services", server.app("nobody"));
    let body = service("cam", Some(60)).to_string();
    let name = "X-AppInstanceID";
    for contradiction in [
        &[(name, "\u{e9}")][..],
        &[(name, APP), (name, "other")],
        &[(name, "other"), (name, APP)],
        &[(name, "")],
    ] {
        send("GET", &item, contradiction, b"").problem(403);
    }
    for (method, uri, fine) in [
        ("GET", &item, 200),
        ("PUT", &item, 200),
        ("GET", &collection, 200),
        ("POST", &collection, 201),
        ("DELETE", &item, 204),
    ] {
        let answer = send(
            method,
            uri,
            &[("X-AppInstanceID", "other")],
            body.as_bytes(),
        );
        let detail = answer.problem(403);
        assert!(
            detail.contains("other") && detail.contains(APP),
            "{method}: {detail}"
        );
        let answer = send(method, uri, &[("X-AppInstanceID", APP)], body.as_bytes());
        assert_eq!(answer.status, fine, "{method} {uri}");
    }
    send("GET", &unknown, &[("X-AppInstanceID", "other")], b"").problem(403);
}

#[test]
fn path_parameters_are_decoded_strictly() {
    let (_keep, server) = start(&[]);
    let info = server.register("a%20%62%25", &service("cam", None));
    let href = info["_links"]["self"]["href"].as_str().unwrap();
    assert!(href.contains("/applications/a%20b%25/"), "{href}");
    for spelled in ["a%20b%25", "a%20%62%25", "%61%20b%25"] {
        let answer = get(&format!(
            "{}/services/{}",
            server.app(spelled),
            id_of(&info)
        ));
        assert_eq!(answer.json(), info, "{spelled}");
    }
    let long = "x".repeat(129);
    for bad in [
        "a%zz",
        "a%2",
        "a%",
        "a%2Fb",
        "%ff",
        "%c3%28",
        "%00",
        "caf%C3%A9",
        "a%0d%0ab",
        &long,
    ] {
        let uri = format!("{}/services", server.app(bad));
        let detail = get(&uri).problem(400);
        assert!(detail.contains("appInstanceId"), "{bad}: {detail}");
        post(&uri, &service("cam", None)).problem(400);
        get(&format!("{uri}/{}/liveness", id_of(&info))).problem(400);
    }
    for bad in ["%zz", "%f", "%ff"] {
        let detail = get(&format!("{}/services/{bad}", server.root())).problem(400);
        assert!(detail.contains("serviceId"), "{bad}: {detail}");
        get(&format!("{}/services/{bad}", server.app("a%20b%25"))).problem(400);
    }
}

#[test]
fn a_service_id_may_lack_hyphens_and_is_unknown_when_no_uuid() {
    let (_keep, server) = start(&[]);
    let info = server.register(APP, &service("cam", None));
    let id = id_of(&info);
    let bare = id.replace('-', "");
    for root in [server.app(APP), server.root()] {
        for spelled in [&bare, &bare.to_uppercase(), &id.replace('-', "%2D")] {
            let answer = get(&format!("{root}/services/{spelled}"));
            assert_eq!(answer.json(), info, "{spelled}");
        }
        for spelled in [
            "x",
            UNKNOWN,
            &bare[1..],
            &format!("%7B{id}%7D"),
            &format!("urn:uuid:{id}"),
            &format!("{id}%2Fliveness"),
        ] {
            get(&format!("{root}/services/{spelled}")).problem(404);
        }
    }
}

#[test]
fn other_methods_are_405_with_what_is_allowed() {
    let (_keep, server) = start(&[]);
    let info = server.register(APP, &service("cam", None));
    let (url, root, app) = (server.url.clone(), server.root(), server.app(APP));
    for (uri, allow) in [
        (format!("{root}/services"), "GET, HEAD"),
        (format!("{root}/services/{}", id_of(&info)), "GET, HEAD"),
        (format!("{app}/services"), "GET, HEAD, POST"),
        (own(&server, &info), "GET, HEAD, PUT, DELETE"),
        (
            format!("{}/services/{UNKNOWN}", server.app("nobody")),
            "GET, HEAD, PUT, DELETE",
        ),
        (format!("{url}/healthz"), "GET, HEAD"),
        (format!("{url}/readyz"), "GET, HEAD"),
        (format!("{url}/metrics"), "GET, HEAD"),
        (format!("{url}/version"), "GET, HEAD"),
        (format!("{url}/openapi.json"), "GET, HEAD"),
    ] {
        for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW"] {
            if allow.split(", ").any(|allowed| allowed == method) {
                continue;
            }
            let answer = send(method, &uri, &[], b"");
            answer.problem(405);
            assert_eq!(answer.header("allow"), Some(allow), "{method} {uri}");
        }
    }
    assert_eq!(get(&own(&server, &info)).json(), info);
}

#[test]
fn foreign_members_and_nulls_change_nothing() {
    let (_keep, server) = start(&[]);
    let plain = server.register(APP, &service("cam", Some(60)));
    let mut body = service("cam", Some(60));
    let noise = json!({
        "serInstanceId": UNKNOWN, "isLocal": false, "_links": {"self": {"href": "http://evil/"}},
        "extension": {"a": [1, {}]}, "state ": "SUSPENDED",
    });
    let members = body.as_object_mut().unwrap();
    members.extend(noise.as_object().unwrap().clone());
    for name in [
        "serCategory",
        "scopeOfLocality",
        "consumedLocalOnly",
        "transportId",
    ] {
        members.insert(name.to_owned(), Value::Null);
    }
    body["transportInfo"]["description"] = Value::Null;
    body["transportInfo"]["implSpecificInfo"] = Value::Null;
    body["transportInfo"]["endpoint"]["fqdn"] = Value::Null;
    body["transportInfo"]["more"] = json!(true);
    let posted = server.register(APP, &body);
    let put = put(&own(&server, &plain), &body).json();
    assert_ne!(id_of(&posted), UNKNOWN);
    assert_eq!(put, plain);
    let own_members = json!({"serInstanceId": plain["serInstanceId"], "_links": plain["_links"]});
    assert_eq!(with(posted, &own_members), plain);
}

#[test]
fn a_long_registration_comes_back_whole() {
    let (_keep, dir) = data_dir();
    let server = Server::start(&dir, &[]);
    let uris: Vec<_> = (0..1000)
        .map(|n| format!("http://10.0.0.1/{n}/ünï"))
        .collect();
    let mut body = service("cam", Some(60));
    body["transportInfo"]["endpoint"] = json!({"uris": uris});
    body["transportInfo"]["implSpecificInfo"] =
        json!({"text": "\"\\\u{1F980}\n".repeat(3000), "deep": [[{"x": [1.5, null]}]]});
    let length = body.to_string().len();
    assert!((55_000..65_536).contains(&length), "{length}");
    let info = server.register(APP, &body);
    let check = |server: &Server| {
        let found = get(&own(server, &info)).json();
        for (name, value) in body.as_object().unwrap() {
            assert_eq!(&found[name], value, "{name}");
        }
        assert_eq!(found, info);
    };
    check(&server);
    server.kill();
    check(&Server::start(&dir, &[]));
}

#[test]
fn a_long_list_has_every_service_exactly_once() {
    let (_keep, server) = start(&[]);
    let register = &|thread: usize| {
        let app = format!("app-{}", thread % 2);
        (0..75)
            .map(|n| {
                let info = server.register(&app, &service(&format!("s-{n}"), Some(3600)));
                (app.clone(), id_of(&info).to_owned())
            })
            .collect::<Vec<_>>()
    };
    let made: Vec<(String, String)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|thread| scope.spawn(move || register(thread)))
            .collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect()
    });
    let check = |uri: &str, app: &str| {
        let listed = get(uri).json();
        let listed: Vec<_> = listed
            .as_array()
            .unwrap()
            .iter()
            .map(|info| id_of(info).to_owned())
            .collect();
        let mine = made.iter().filter(|(of, _)| of.starts_with(app));
        let expected: BTreeSet<_> = mine.map(|(_, id)| id.clone()).collect();
        assert_eq!(listed.len(), expected.len(), "{uri}");
        assert_eq!(listed.into_iter().collect::<BTreeSet<_>>(), expected);
    };
    assert_eq!(made.len(), 600);
    check(&format!("{}/services", server.root()), "app-");
    check(&format!("{}/services", server.app("app-0")), "app-0");
    check(&format!("{}/services", server.app("app-1")), "app-1");
}
