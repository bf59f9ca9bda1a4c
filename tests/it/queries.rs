//! Queries on both lists of services, through the real binary.
//!
//! Source: GS MEC 011 V2.2.1, 8.2.3.3.1.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use crate::support::clients::wait_until;
use crate::support::{
    Answer, BRIEF, Server, beat, data_dir, get, id_of, liveness_of, put, self_of, send, service,
};

pub(crate) const APP: &str = "app";
const UNKNOWN: &str = "00000000-0000-4000-8000-000000000000";

pub(crate) fn start(args: &[&str]) -> (tempfile::TempDir, Server) {
    let (keep, dir) = data_dir();
    let server = Server::start(&dir, args);
    (keep, server)
}

fn category(id: &str) -> Value {
    json!({"href": "/c", "id": id, "name": "n", "version": "v"})
}

/// The list of all services, and the one of [`APP`].
pub(crate) fn lists(server: &Server) -> [String; 2] {
    [
        format!("{}/services", server.root()),
        format!("{}/services", server.app(APP)),
    ]
}

/// One member of every service in a list, sorted.
pub(crate) fn each(member: &str, answer: &Answer) -> Vec<String> {
    assert_eq!(answer.status, 200, "{answer:?}");
    let all = answer.json();
    let all = all.as_array().unwrap().iter();
    let mut found: Vec<_> = all
        .map(|s| s[member].as_str().unwrap().to_owned())
        .collect();
    found.sort();
    found
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

#[test]
fn every_parameter_selects_and_all_of_them_together() {
    let (_keep, server) = start(&[]);
    let fleet = [
        (APP, "cam", Some("c1"), "ZONE", true),
        (APP, "cam", Some("c2"), "MEC_HOST", false),
        (APP, "door", Some("c1"), "MEC_HOST", true),
        (APP, "bell", None, "ZONE", false),
        ("other", "cam", Some("c1"), "NFVI_NODE", false),
    ];
    let mut ids = Vec::new();
    for (number, (app, name, of, scope, only)) in fleet.into_iter().enumerate() {
        let mut body = service(name, None);
        body["version"] = number.to_string().into();
        body["scopeOfLocality"] = scope.into();
        body["consumedLocalOnly"] = only.into();
        body["serCategory"] = of.map_or(Value::Null, category);
        ids.push(id_of(&server.register(app, &body)).to_owned());
    }
    // `$0` stands for the id of the first one.
    let cases: &[(&str, &[u8])] = &[
        ("", &[0, 1, 2, 3, 4]),
        ("?", &[0, 1, 2, 3, 4]),
        ("?&&", &[0, 1, 2, 3, 4]),
        ("?ser_instance_id=$2", &[2]),
        (
            "?ser_instance_id=$4&ser_instance_id=$0&ser_instance_id=$0",
            &[0, 4],
        ),
        (
            "?ser_instance_id=$3&ser_instance_id=00000000-0000-4000-8000-000000000000",
            &[3],
        ),
        ("?ser_instance_id=cam", &[]),
        ("?ser_name=cam", &[0, 1, 4]),
        ("?ser_name=cam&ser_name=bell", &[0, 1, 3, 4]),
        ("?ser_name=Cam", &[]),
        ("?ser_name=ca", &[]),
        ("?ser_name=cam,bell", &[]),
        ("?ser_category_id=c1", &[0, 2, 4]),
        // A category's name is no id.
        ("?ser_category_id=n", &[]),
        ("?scope_of_locality=ZONE", &[0, 3]),
        ("?scope_of_locality=MEC_SYSTEM", &[]),
        ("?consumed_local_only=true", &[0, 2]),
        ("?consumed_local_only=false", &[1, 3, 4]),
        ("?is_local=true", &[0, 1, 2, 3, 4]),
        ("?is_local=false", &[0, 1, 2, 3, 4]),
        ("?ser_name=cam&scope_of_locality=ZONE", &[0]),
        ("?scope_of_locality=ZONE&consumed_local_only=false", &[3]),
        (
            "?ser_category_id=c1&scope_of_locality=MEC_HOST&consumed_local_only=true",
            &[2],
        ),
        (
            "?ser_instance_id=$0&ser_instance_id=$1&consumed_local_only=false&is_local=true",
            &[1],
        ),
        ("?ser_instance_id=$0&scope_of_locality=MEC_HOST", &[]),
        ("?%73er_name=%63am&consumed_local_only=tru%65", &[0]),
    ];
    for (query, expected) in cases {
        let mut query = (*query).to_owned();
        for (number, id) in ids.iter().enumerate() {
            query = query.replace(&format!("${number}"), id);
        }
        let [all, own] = lists(&server).map(|uri| each("version", &get(&format!("{uri}{query}"))));
        let numbers = |mine: bool| {
            let numbers = expected.iter().filter(|n| !mine || **n < 4);
            numbers.map(u8::to_string).collect::<Vec<_>>()
        };
        assert_eq!((all, own), (numbers(false), numbers(true)), "{query}");
        for uri in lists(&server) {
            let head = send("HEAD", &format!("{uri}{query}"), &[], b"");
            assert_eq!((head.status, head.body.len()), (200, 0), "{query}");
        }
    }
}

#[test]
fn an_id_is_found_in_every_notation() {
    let (_keep, server) = start(&[]);
    let info = server.register(APP, &service("cam", None));
    let id = id_of(&info);
    let bare = id.replace('-', "");
    for id in [id.to_uppercase(), bare.to_uppercase(), bare] {
        for uri in lists(&server) {
            let found = get(&format!("{uri}?ser_instance_id={id}"));
            assert_eq!(found.json(), json!([info]), "{id}");
        }
    }
}

#[test]
fn what_is_wrong_with_a_query_is_said_by_name() {
    let (_keep, server) = start(&[]);
    server.register(APP, &service("cam", None));
    for (query, named) in [
        (
            "ser_instance_id=a&ser_name=b",
            "ser_instance_id and ser_name",
        ),
        (
            "ser_category_id=a&ser_instance_id=b",
            "ser_instance_id and ser_category_id",
        ),
        (
            "ser_category_id=a&ser_name=b",
            "ser_name and ser_category_id",
        ),
        (
            "ser_name=a&is_local=true&ser_category_id=b",
            "ser_name and ser_category_id",
        ),
        ("scope_of_locality=zone", "scope_of_locality"),
        ("scope_of_locality=CITY", "scope_of_locality"),
        (
            "scope_of_locality=ZONE&scope_of_locality=ZONE",
            "scope_of_locality",
        ),
        ("consumed_local_only=yes", "consumed_local_only"),
        ("consumed_local_only=TRUE", "consumed_local_only"),
        ("consumed_local_only=1", "consumed_local_only"),
        (
            "consumed_local_only=true&consumed_local_only=false",
            "consumed_local_only",
        ),
        ("is_local=maybe", "is_local"),
        ("is_local=true&is_local=true", "is_local"),
        ("ser_category_id=a&ser_category_id=a", "ser_category_id"),
        ("ser_instance_id=", "ser_instance_id"),
        ("ser_name=", "ser_name"),
        ("ser_name", "ser_name"),
        ("ser_name=cam&ser_name=", "ser_name"),
        ("ser_category_id", "ser_category_id"),
        ("scope_of_locality=", "scope_of_locality"),
        ("consumed_local_only=", "consumed_local_only"),
        ("is_local", "is_local"),
        ("ser_name=%", "ser_name"),
        ("ser_name=%4", "ser_name"),
        ("ser_name=%zz", "ser_name"),
        ("ser_name=%ff", "ser_name"),
        ("ser_name=%c3%28", "ser_name"),
        ("ser_name=a;ser_name=b&colour=red", "colour"),
        ("SER_NAME=cam", "SER_NAME"),
        ("ser-name=cam", "ser-name"),
        ("serName=cam", "serName"),
        ("ser_name[]=cam", "ser_name[]"),
        ("ser_name+=cam", "ser_name "),
        ("=cam", "\"\""),
        ("%zz=cam", "%zz"),
        ("state=ACTIVE", "state"),
    ] {
        for uri in lists(&server) {
            let detail = get(&format!("{uri}?{query}")).problem(400);
            assert!(detail.contains(named), "{query}: {detail}");
        }
        // Who asks is judged first.
        get(&format!("{}/services?{query}", server.app("nobody"))).problem(404);
    }
    for uri in lists(&server) {
        let long = format!("{uri}?ser_name={}", "x".repeat(9000));
        get(&long).problem(414);
    }
}

#[test]
fn a_name_is_found_whatever_characters_it_is_made_of() {
    let (_keep, server) = start(&[]);
    let names = [
        "a,b",
        "a b",
        " a ",
        "a+b",
        "a&b",
        "a=b",
        "a%26b",
        "%",
        "100%",
        "a;b",
        "a#b",
        "a?b",
        "a/b",
        "\"quoted\"",
        "Ünïcödé",
        "監視カメラ",
        "🎥",
        "e\u{301}",
        "é",
        "\u{0}",
        "line\nbreak",
        "'; DROP TABLE services; --",
    ];
    for name in names {
        let mut body = service(name, None);
        body["serCategory"] = category(name);
        server.register(APP, &body);
    }
    for uri in lists(&server) {
        for name in names {
            for key in ["ser_name", "ser_category_id"] {
                let encoded = encoded(name);
                let found = get(&format!("{uri}?{key}={encoded}"));
                assert_eq!(each("serName", &found), [name], "{key}={encoded}");
                let form = encoded.replace("%20", "+");
                let found = get(&format!("{uri}?{key}={form}"));
                assert_eq!(each("serName", &found), [name], "{key}={form}");
            }
        }
        let query: Vec<_> = names
            .map(|name| format!("ser_name={}", encoded(name)))
            .into();
        let found = each("serName", &get(&format!("{uri}?{}", query.join("&"))));
        assert_eq!(found.len(), names.len());
    }
}

#[test]
fn the_suspended_are_hidden_but_from_their_owner_and_who_asks_by_id() {
    for (hide, visible) in [("true", vec!["awake"]), ("false", vec!["asleep", "awake"])] {
        let hide = format!("liveness.hide_suspended={hide}");
        let (_keep, server) = start(&[&BRIEF[..], &["--set", &hide]].concat());
        let asleep = server.register(APP, &service("asleep", Some(1)));
        let awake = server.register(APP, &service("awake", Some(3600)));
        let (asleep_id, awake_id) = (id_of(&asleep), id_of(&awake));
        let liveness = liveness_of(&server, &asleep);
        wait_until("silence", || get(&liveness).json()["state"] == "SUSPENDED");
        let both = vec!["asleep", "awake"];
        let [all, own] = lists(&server);
        for (query, expected) in [
            (String::new(), &visible),
            ("?ser_name=asleep&ser_name=awake".to_owned(), &visible),
            ("?consumed_local_only=true".to_owned(), &visible),
            (
                format!("?ser_instance_id={asleep_id}&ser_instance_id={awake_id}"),
                &both,
            ),
        ] {
            assert_eq!(
                each("serName", &get(&format!("{all}{query}"))),
                **expected,
                "{query}"
            );
            assert_eq!(
                each("serName", &get(&format!("{own}{query}"))),
                both,
                "{query}"
            );
        }
        // A beat brings it back, and long enough so: then it has another interval.
        let long = service("asleep", Some(3600));
        assert_eq!(put(&self_of(&server, &asleep), &long).status, 200);
        assert!(matches!(beat(&liveness).status, 200 | 204));
        assert_eq!(each("serName", &get(&all)), both);
    }
}

/// What is found by these names and categories.
fn check_found(server: &Server, expected: &[(&str, &[&str])]) {
    for (query, names) in expected {
        for uri in lists(server) {
            let found = get(&format!("{uri}?{query}"));
            assert_eq!(each("serName", &found), **names, "{query}");
        }
    }
}

#[test]
fn the_index_follows_every_change_and_every_restart() {
    let (_keep, dir) = data_dir();
    let mut server = Server::start(&dir, &[]);
    let named = |name: &str, of: Option<&str>| {
        let mut body = service(name, Some(3600));
        body["serCategory"] = of.map_or(Value::Null, category);
        body
    };
    let info = server.register(APP, &named("old", Some("c1")));
    server.register(APP, &named("twin", Some("c1")));
    check_found(
        &server,
        &[
            ("ser_name=old", &["old"]),
            ("ser_category_id=c1", &["old", "twin"]),
        ],
    );
    let renamed: [(&str, &[&str]); 4] = [
        ("ser_name=old", &[]),
        ("ser_name=new", &["new"]),
        ("ser_category_id=c1", &["twin"]),
        ("ser_category_id=c2", &["new"]),
    ];
    assert_eq!(
        put(&self_of(&server, &info), &named("new", Some("c2"))).status,
        200
    );
    check_found(&server, &renamed);
    // A beat and a change of the state change no name.
    assert_eq!(beat(&liveness_of(&server, &info)).status, 204);
    let mut off = named("new", Some("c2"));
    off["state"] = "INACTIVE".into();
    assert_eq!(put(&self_of(&server, &info), &off).status, 200);
    check_found(&server, &renamed);
    for kill in [true, false] {
        if kill {
            server.kill()
        } else {
            server.stop()
        }
        server = Server::start(&dir, &[]);
        check_found(&server, &renamed);
    }
    assert_eq!(
        put(&self_of(&server, &info), &named("twin", None)).status,
        200
    );
    let twins: [(&str, &[&str]); 4] = [
        ("ser_name=new", &[]),
        ("ser_name=twin", &["twin", "twin"]),
        ("ser_category_id=c1", &["twin"]),
        ("ser_category_id=c2", &[]),
    ];
    check_found(&server, &twins);
    assert_eq!(
        send("DELETE", &self_of(&server, &info), &[], b"").status,
        204
    );
    check_found(
        &server,
        &[
            ("ser_name=twin", &["twin"]),
            ("ser_category_id=c1", &["twin"]),
        ],
    );
    server.kill();
    let server = Server::start(&dir, &[]);
    check_found(
        &server,
        &[("ser_name=twin", &["twin"]), ("ser_category_id=c2", &[])],
    );
    let none = get(&format!("{}?ser_instance_id={UNKNOWN}", lists(&server)[0]));
    assert_eq!(none.json(), json!([]));
}
