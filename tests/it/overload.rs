//! A full queue: refused at once, in words, and whatever was not refused is on record.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

use crate::support::load::stored;
use crate::support::{
    Answer, LINGERING, Server, beat, data_dir, get, liveness_of, mepulse, self_of, send, service,
};

/// Refused for lack of room: a problem document that says when to come back.
fn check_refused(answer: &Answer) {
    assert!(!answer.problem(503).is_empty());
    let wait: u32 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!(wait >= 1, "{answer:?}");
}

#[test]
fn a_full_queue_refuses_every_write_and_serves_every_read() {
    // The queue is full for as long as one beat lingers in it; on a slow machine that may be over
    // too early.
    assert!((0..5).any(|_| is_seen_full()), "it was never caught full");
}

/// Tries everything on a full queue; `false` when it did not stay full, which says nothing.
fn is_seen_full() -> bool {
    let (_keep, dir) = data_dir();
    let server = Server::start(&dir, &[]);
    let info = server.register("app", &service("cam", Some(3600)));
    server.stop();
    // Room for one, a long linger, and no pulse that would end it.
    let server = Server::start(
        &dir,
        &[&["--set", "server.queue_max=1"], &LINGERING[..]].concat(),
    );
    let (own, liveness) = (self_of(&server, &info), liveness_of(&server, &info));
    let before = get(&liveness).json();
    let waiting = {
        let liveness = liveness.clone();
        std::thread::spawn(move || beat(&liveness).status)
    };
    while server.metric("mepulse_queue_depth") == 0 && !waiting.is_finished() {}

    let body = service("door", Some(60)).to_string();
    let active = r#"{"state":"ACTIVE"}"#;
    let writes = [
        ("POST", format!("{}/services", server.app("app")), &*body),
        ("POST", format!("{}/services", server.app("new")), &*body),
        ("PUT", own.clone(), &*body),
        ("PATCH", liveness.clone(), active),
        ("PATCH", format!("{}/liveness", server.app("app")), active),
        ("DELETE", own.clone(), ""),
    ];
    let answers = writes
        .each_ref()
        .map(|(method, uri, body)| send(method, uri, &[], body.as_bytes()));
    // What is wrong anyway is told so, and reads do not queue.
    let wrong = (
        send("PATCH", &liveness, &[], b"{}"),
        send("DELETE", &format!("{own}x"), &[], b""),
    );
    let all = format!("{}/services", server.root());
    let reads = [&all, &own, &liveness].map(|uri| get(uri));
    let refused = server.metric("mepulse_refused_total");
    // A write that found room would have lingered longer than the beat before it.
    if waiting.is_finished() {
        return false;
    }
    answers.iter().for_each(check_refused);
    assert_eq!(refused, answers.len() as u64);
    wrong.0.problem(400);
    wrong.1.problem(404);
    let expected = [json!([info]), info.clone(), before];
    assert_eq!(reads.each_ref().map(Answer::json), expected);

    assert_eq!(waiting.join().unwrap(), 204);
    server.stop();
    let found = stored(&dir);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(
        (&found[0]["serName"], &found[0]["beats"]),
        (&json!("cam"), &json!(1))
    );
    let status = mepulse()
        .args(["admin", "status", "--json", "--data-dir"])
        .arg(&dir)
        .output()
        .unwrap();
    let status: Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(status["counts"]["apps"], 1, "refused, it is not known");
    true
}

#[test]
fn of_many_beats_at_once_exactly_the_acknowledged_are_on_record() {
    let (_keep, dir) = data_dir();
    let server = Server::start(&dir, &["--set", "server.queue_max=1"]);
    let services: Vec<Value> = (0..8)
        .map(|number| server.register(&format!("app-{number}"), &service("cam", Some(3600))))
        .collect();
    let (accepted, refused) = (AtomicU64::new(0), AtomicU64::new(0));
    let acknowledged: BTreeMap<String, u64> = std::thread::scope(|scope| {
        let clients: Vec<_> = services
            .iter()
            .map(|info| {
                let (server, accepted, refused) = (&server, &accepted, &refused);
                scope.spawn(move || {
                    let uri = liveness_of(server, info);
                    let mut mine = 0;
                    let goes_on = || {
                        let accepted = accepted.load(Ordering::Relaxed);
                        let enough = accepted >= 100 && refused.load(Ordering::Relaxed) >= 20;
                        // A server that refuses nothing fails the test, and does not hang it.
                        !enough && accepted < 20_000
                    };
                    while goes_on() {
                        let answer = beat(&uri);
                        if answer.status == 204 {
                            mine += 1;
                            accepted.fetch_add(1, Ordering::Relaxed);
                        } else {
                            check_refused(&answer);
                            refused.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                    (info["serInstanceId"].as_str().unwrap().to_owned(), mine)
                })
            })
            .collect();
        clients
            .into_iter()
            .map(|client| client.join().unwrap())
            .collect()
    });
    let refused = refused.into_inner();
    assert!(refused >= 20, "there was to be no room for eight at once");
    assert_eq!(server.metric("mepulse_refused_total"), refused);
    let recorded = || -> BTreeMap<String, u64> {
        stored(&dir)
            .iter()
            .map(|report| {
                let id = report["serInstanceId"].as_str().unwrap().to_owned();
                (id, report["beats"].as_u64().unwrap())
            })
            .collect()
    };
    assert_eq!(recorded(), acknowledged);
    server.kill();
    assert_eq!(recorded(), acknowledged);
}
