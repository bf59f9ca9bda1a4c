//! What happens, as server-sent events, through the real binary: our extension.

use std::io::Write;

use serde_json::{Value, json};

use crate::support::clients::wait_until;
use crate::support::events::Watch;
use crate::support::{
    BRIEF, Server, beat, data_dir, get, id_of, liveness_of, put, self_of, send, service,
};

const APP: &str = "app";
const PATH: &str = "/mec_service_mgmt/v1/services/events";

fn start(args: &[&str]) -> (tempfile::TempDir, Server) {
    let (keep, dir) = data_dir();
    let server = Server::start(&dir, args);
    (keep, server)
}

fn of_category(name: &str, id: &str) -> Value {
    let mut body = service(name, None);
    body["serCategory"] = json!({"href": "/c", "id": id, "name": "n", "version": "v"});
    body
}

fn delete(server: &Server, info: &Value) {
    assert_eq!(send("DELETE", &self_of(server, info), &[], b"").status, 204);
}

#[test]
fn every_change_is_told_once_in_order_as_a_subscriber_would_be() {
    let (_keep, server) = start(&BRIEF);
    let mut watch = Watch::open(&server, "", None);
    // Not so short that it falls silent a second time.
    let info = server.register(APP, &service("cam", Some(3)));
    let own = self_of(&server, &info);
    let liveness = liveness_of(&server, &info);
    wait_until("silence", || get(&own).json()["state"] == "SUSPENDED");
    assert!(matches!(beat(&liveness).status, 200 | 204));
    let mut off = service("cam", Some(3600));
    off["state"] = "INACTIVE".into();
    assert_eq!(put(&own, &off).status, 200);
    assert_eq!(put(&own, &off).status, 200, "nothing changes");
    assert_eq!(put(&own, &service("cam", Some(3600))).status, 200);
    assert_eq!(beat(&liveness).status / 100, 2, "a plain beat is no change");
    assert_eq!(put(&own, &service("door", Some(3600))).status, 200);
    delete(&server, &info);
    let mut last = None;
    for (change, name, state) in [
        ("ADDED", "cam", "ACTIVE"),
        ("STATE_CHANGED", "cam", "SUSPENDED"),
        ("STATE_CHANGED", "cam", "ACTIVE"),
        ("ATTRIBUTES_CHANGED", "cam", "INACTIVE"),
        ("STATE_CHANGED", "cam", "ACTIVE"),
        ("ATTRIBUTES_CHANGED", "door", "ACTIVE"),
        ("REMOVED", "door", "ACTIVE"),
    ] {
        let event = watch.event();
        assert_eq!(event.tells(), (id_of(&info), change, name, state));
        assert!(last.is_none_or(|last| event.sequence() > last), "{event:?}");
        last = Some(event.sequence());
        assert_eq!(
            event.data["notificationType"],
            "SerAvailabilityNotification"
        );
        assert_eq!(event.data["_links"]["subscription"]["href"], PATH);
        let link = &event.data["serviceReferences"][0]["link"]["href"];
        if change == "REMOVED" {
            assert!(link.is_null(), "{event:?}");
        } else {
            let by_id = format!("/mec_service_mgmt/v1/services/{}", id_of(&info));
            assert_eq!(*link, by_id.as_str());
        }
    }
}

#[test]
fn a_filter_lets_through_what_is_or_was_asked_for() {
    let (_keep, server) = start(&[]);
    let first = server.register(APP, &of_category("cam", "c1"));
    let id = id_of(&first);
    // Which of the changes below each of them sees.
    let cases: Vec<(String, &[u64])> = vec![
        (String::new(), &[0, 1, 2, 3, 4, 5]),
        ("?is_local=true".to_owned(), &[0, 1, 2, 3, 4, 5]),
        ("?ser_name=cam".to_owned(), &[0, 2, 3, 5]),
        (
            "?ser_name=cam&ser_name=bell&is_local=false".to_owned(),
            &[0, 1, 2, 3, 5],
        ),
        ("?ser_category_id=c1".to_owned(), &[0, 2, 3, 5]),
        (format!("?ser_instance_id={id}"), &[0, 5]),
        (
            format!("?ser_instance_id={}&ser_instance_id=x", id.to_uppercase()),
            &[0, 5],
        ),
    ];
    let watches: Vec<_> = cases
        .into_iter()
        .map(|(query, seen)| (Watch::open(&server, &query, None), query, seen))
        .collect();
    let change = |info: &Value, body: &Value| {
        assert_eq!(put(&self_of(&server, info), body).status, 200);
    };
    change(&first, &of_category("eye", "c1"));
    server.register(APP, &service("bell", None));
    let second = server.register(APP, &of_category("cam", "c1"));
    // Who followed it under its former name or category is told.
    change(&second, &service("door", None));
    delete(&server, &second);
    change(&first, &of_category("cam", "c1"));
    for (mut watch, query, seen) in watches {
        let start: u64 = watch.last_id.clone().unwrap().parse().unwrap();
        let found: Vec<_> = seen
            .iter()
            .map(|_| watch.event().sequence() - start - 1)
            .collect();
        assert_eq!(found, seen, "{query}");
    }
}

#[test]
fn what_is_malformed_is_400_and_the_stream_can_only_be_read() {
    let (_keep, server) = start(&[]);
    let uri = format!("{}{PATH}", server.url);
    for (query, named) in [
        ("ser_name=a&ser_category_id=b", "ser_category_id"),
        ("ser_name=", "ser_name"),
        ("is_local=perhaps", "is_local"),
        ("scope_of_locality=ZONE", "scope_of_locality"),
        ("consumed_local_only=true", "consumed_local_only"),
        ("ser_name=%f", "ser_name"),
        ("last_event_id=1", "last_event_id"),
    ] {
        let detail = get(&format!("{uri}?{query}")).problem(400);
        assert!(detail.contains(named), "{query}: {detail}");
    }
    for id in ["", "x", "-1", "1.5", "0x1", "18446744073709551616", "1 2"] {
        let detail = send("GET", &uri, &[("Last-Event-ID", id)], b"").problem(400);
        assert!(detail.contains("Last-Event-ID"), "{id:?}: {detail}");
    }
    let twice = [("Last-Event-ID", "1"), ("Last-Event-ID", "1")];
    send("GET", &uri, &twice, b"").problem(400);
    for method in ["POST", "PUT", "PATCH", "DELETE"] {
        let answer = send(method, &uri, &[], b"");
        answer.problem(405);
        assert_eq!(answer.header("allow"), Some("GET, HEAD"));
    }
    let head = send("HEAD", &uri, &[], b"");
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.header("content-type"), Some("text/event-stream"));
    assert_eq!(head.header("cache-control"), Some("no-store"));
    wait_until("nobody watches", || {
        server.metric("mepulse_event_streams") == 0
    });
}

#[test]
fn who_comes_back_gets_what_it_missed_whatever_ended_the_server() {
    let (_keep, dir) = data_dir();
    let mut server = Server::start(&dir, &[]);
    let first = server.register(APP, &service("first", None));
    // One that has not seen a single event knows where it stands, too.
    let mut idle = Watch::open(&server, "", None);
    let mut narrow = Watch::open(&server, "?ser_name=mine", None);
    let mut watch = Watch::open(&server, "", Some("0"));
    let mut last = idle.last_id.clone().unwrap().parse::<u64>().unwrap();
    for round in 0..4 {
        let name = format!("before-{round}");
        server.register(APP, &service(&name, None));
        while watch.event().tells().2 != name {}
        if round % 2 == 0 {
            server.kill();
        } else {
            server.stop();
        }
        assert_eq!(watch.next(), None, "the stream has ended");
        server = Server::start(&dir, &[]);
        let missed = format!("missed-{round}");
        server.register(APP, &service(&missed, None));
        let seen: u64 = watch.last_id.clone().unwrap().parse().unwrap();
        watch = watch.reopen(&server, "");
        let event = watch.event();
        assert_eq!(
            (event.tells().2, event.sequence()),
            (missed.as_str(), seen + 1)
        );
    }
    idle.last_id = Some(last.to_string());
    let mut idle = idle.reopen(&server, "");
    for round in 0..4 {
        for name in ["before", "missed"] {
            let event = idle.event();
            last += 1;
            assert_eq!(event.tells().2, format!("{name}-{round}"));
            assert_eq!(event.sequence(), last, "no gap");
        }
    }
    narrow = narrow.reopen(&server, "?ser_name=mine");
    server.register(APP, &service("mine", None));
    assert_eq!(narrow.event().tells().2, "mine");
    assert_eq!(get(&self_of(&server, &first)).status, 200);
}

#[test]
fn events_that_are_not_kept_are_a_gap_that_is_told() {
    let (_keep, dir) = data_dir();
    let terms = ["--set", "history.keep_per_service=1"];
    let server = Server::start(&dir, &terms);
    let mut watch = Watch::open(&server, "", None);
    let info = server.register(APP, &service("cam", None));
    let first = watch.event().sequence();
    let flip = |state: &str| {
        let mut body = service("cam", None);
        body["state"] = state.into();
        assert_eq!(put(&self_of(&server, &info), &body).status, 200);
    };
    for _ in 0..5 {
        flip("INACTIVE");
        flip("ACTIVE");
    }
    // Out of the memory of the newest.
    server.kill();
    let server = Server::start(&dir, &terms);
    let mut watch = watch.reopen(&server, "");
    let gap = watch.event();
    assert_eq!(gap.kind, "gap");
    assert_eq!(gap.data, json!({"from": first + 1, "to": first + 9}));
    assert_eq!(watch.last_id, Some((first + 9).to_string()), "told once");
    let event = watch.event();
    assert_eq!(
        (event.tells().1, event.sequence()),
        ("STATE_CHANGED", first + 10)
    );
    // Ids of another log: what is told is that nothing fits.
    for beyond in [first + 11, first + 1000, u64::MAX] {
        let mut lost = Watch::open(&server, "", Some(&beyond.to_string()));
        let gap = lost.event();
        assert_eq!(gap.kind, "gap", "{beyond}");
        assert_eq!(lost.last_id, Some((first + 10).to_string()));
    }
    let mut lost = Watch::open(&server, "", Some("99999"));
    assert_eq!(lost.event().kind, "gap");
    let new = server.register(APP, &service("new", None));
    assert_eq!(lost.event().tells().0, id_of(&new));
    assert_eq!(watch.event().tells().0, id_of(&new));
}

#[test]
fn a_quiet_stream_lives_and_one_that_is_not_read_is_cut_off() {
    let args = [
        "--set",
        "server.idle_timeout_ms=1000",
        "--set",
        "store.durability=process-crash",
        "--set",
        "store.commit_linger_ms=0",
    ];
    let (_keep, server) = start(&args);
    let mut reader = Watch::open(&server, "", None);
    let mut deaf = server.connect();
    rustix::net::sockopt::set_socket_recv_buffer_size(&deaf, 4096).unwrap();
    let ask = format!("GET {PATH} HTTP/1.1\r\nhost: x\r\n\r\n");
    deaf.write_all(ask.as_bytes()).unwrap();
    wait_until("both watch", || server.metric("mepulse_event_streams") == 2);
    // More than all buffers on the way hold.
    let name = "\u{1}".repeat(255);
    let mut told = 0;
    let mut made = 0;
    while server.metric("mepulse_event_streams") == 2 {
        assert!(made < 100_000, "it is never cut off");
        for _ in 0..50 {
            let info = server.register(APP, &service(&name, None));
            delete(&server, &info);
            made += 2;
        }
        // The one that reads is not kept waiting by the other.
        while told < made {
            reader.event();
            told += 1;
        }
    }
    drop(deaf);
    assert_eq!(server.metric("mepulse_event_streams"), 1);
    // So many signs of life are several timeouts.
    for _ in 0..8 {
        reader.sign();
    }
    let late = server.register(APP, &service("late", None));
    assert_eq!(reader.event().tells().0, id_of(&late));
}

#[test]
fn a_stop_ends_all_streams_and_is_not_held_up() {
    let (_keep, server) = start(&["--set", "server.idle_timeout_ms=600000"]);
    let mut watches: Vec<_> = (0..20).map(|_| Watch::open(&server, "", None)).collect();
    let mut deaf = server.connect();
    deaf.write_all(format!("GET {PATH} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes())
        .unwrap();
    wait_until("all watch", || server.metric("mepulse_event_streams") == 21);
    let info = server.register(APP, &service("cam", None));
    server.stop();
    for watch in &mut watches {
        assert_eq!(watch.event().tells().0, id_of(&info));
        assert_eq!(watch.next(), None);
    }
}

#[test]
fn two_hundred_watchers_are_told_of_one_transition_once_each() {
    let (_keep, server) = start(&BRIEF);
    let mut watches: Vec<_> = (0..200)
        .map(|_| Watch::open(&server, "?ser_name=cam", None))
        .collect();
    assert_eq!(server.metric("mepulse_event_streams"), 200);
    let info = server.register(APP, &service("cam", Some(1)));
    let own = self_of(&server, &info);
    wait_until("silence", || get(&own).json()["state"] == "SUSPENDED");
    delete(&server, &info);
    for watch in &mut watches {
        let told = ["ADDED", "STATE_CHANGED", "REMOVED"].map(|change| {
            let event = watch.event();
            assert_eq!(event.tells().1, change);
            event.sequence()
        });
        assert_eq!(told, [1, 2, 3]);
    }
    drop(watches);
    wait_until("nobody watches", || {
        server.metric("mepulse_event_streams") == 0
    });
}
