//! Entity tags and `If-Match` through the real binary.
//!
//! Source: RFC 9110, 8.8.3 and 13.1.1; which methods have a 412: GS MEC 011 V2.2.1, 8.2.

use serde_json::{Value, json};

use crate::support::clients::wait_until;
use crate::support::{
    Answer, BRIEF, Server, data_dir, get, id_of, liveness_of, post, put, self_of, send, service,
};

const APP: &str = "app";
const WRONG: &str = "\"00000000000000000000000000000000\"";
const ACTIVE: &[u8] = br#"{"state":"ACTIVE"}"#;

fn tag(answer: &Answer) -> String {
    let tag = answer
        .header("etag")
        .unwrap_or_else(|| panic!("no tag: {answer:?}"));
    assert!(
        tag.starts_with('"') && tag.ends_with('"') && tag.len() > 2,
        "{tag}"
    );
    tag.to_owned()
}

fn condition<'a>(values: &[&'a str]) -> Vec<(&'static str, &'a str)> {
    values.iter().map(|value| ("If-Match", *value)).collect()
}

fn put_if(uri: &str, body: &Value, tags: &[&str]) -> Answer {
    send("PUT", uri, &condition(tags), body.to_string().as_bytes())
}

fn beat_if(uri: &str, tags: &[&str]) -> Answer {
    send("PATCH", uri, &condition(tags), ACTIVE)
}

fn named(name: &str) -> Value {
    service(name, Some(3600))
}

fn inactive(name: &str) -> Value {
    let mut body = named(name);
    body["state"] = "INACTIVE".into();
    body
}

/// A server with one service: its representation and its URIs, its own, by id, its liveness.
struct Target {
    server: Server,
    info: Value,
    own: String,
    by_id: String,
    liveness: String,
    _keep: tempfile::TempDir,
}

impl Target {
    fn start(args: &[&str], body: &Value) -> Self {
        let (keep, dir) = data_dir();
        let server = Server::start(&dir, args);
        let info = server.register(APP, body);
        Self {
            own: self_of(&server, &info),
            by_id: format!("{}/services/{}", server.root(), id_of(&info)),
            liveness: liveness_of(&server, &info),
            server,
            info,
            _keep: keep,
        }
    }

    /// The tag, under both paths.
    fn tag(&self) -> String {
        let own = tag(&get(&self.own));
        assert_eq!(tag(&get(&self.by_id)), own, "it is one representation");
        assert_eq!(tag(&send("HEAD", &self.own, &[], b"")), own);
        own
    }
}

#[test]
fn a_tag_changes_exactly_when_the_body_does() {
    let target = Target::start(&[], &named("cam"));
    let collection = format!("{}/services", target.server.app(APP));
    let created = post(&collection, &named("cam"));
    let other = self_of(&target.server, &created.json());
    assert_eq!(tag(&created), tag(&get(&other)), "POST shows what GET does");
    assert_ne!(tag(&created), target.tag(), "another service, another tag");

    let before = target.tag();
    let same = put(&target.own, &named("cam"));
    assert_eq!((tag(&same), target.tag()), (before.clone(), before.clone()));
    assert_eq!(beat_if(&target.liveness, &[]).status, 204);
    assert_eq!(target.tag(), before, "a beat shows in the liveness only");

    let mut seen = vec![before.clone()];
    let mut shorter = named("cam");
    shorter["livenessInterval"] = 60.into();
    let mut elsewhere = named("cam");
    elsewhere["transportInfo"]["endpoint"]["uris"] = json!(["http://10.0.0.2/"]);
    for body in [named("door"), inactive("door"), shorter, elsewhere] {
        let answer = put(&target.own, &body);
        assert_eq!(answer.status, 200, "{answer:?}");
        let now = tag(&answer);
        assert_eq!(target.tag(), now);
        assert!(!seen.contains(&now), "{body}");
        seen.push(now);
    }
    put(&target.own, &named("cam"));
    assert_eq!(
        target.tag(),
        before,
        "the same body again, the same tag again"
    );
}

#[test]
fn the_tag_of_the_liveness_changes_with_every_beat() {
    let target = Target::start(&[], &named("cam"));
    let first = tag(&get(&target.liveness));
    assert_eq!(tag(&get(&target.liveness)), first);
    assert_eq!(tag(&send("HEAD", &target.liveness, &[], b"")), first);
    let told = send(
        "PATCH",
        &target.liveness,
        &[("Prefer", "return=representation")],
        ACTIVE,
    );
    assert_eq!(told.status, 200);
    assert_ne!(tag(&told), first);
    assert_eq!(tag(&told), tag(&get(&target.liveness)));
    let beaten = beat_if(&target.liveness, &[]);
    assert_eq!((beaten.status, beaten.header("etag")), (204, None));
    assert_ne!(tag(&get(&target.liveness)), tag(&told));
}

#[test]
fn silence_changes_both_tags_and_a_restart_neither() {
    let (_keep, dir) = data_dir();
    let mut server = Server::start(&dir, &BRIEF);
    let info = server.register(APP, &service("cam", Some(1)));
    let tags = |server: &Server| {
        (
            tag(&get(&self_of(server, &info))),
            tag(&get(&liveness_of(server, &info))),
        )
    };
    let before = tags(&server);
    wait_until("silence", || {
        get(&self_of(&server, &info)).json()["state"] == "SUSPENDED"
    });
    let after = tags(&server);
    assert_ne!(before.0, after.0);
    assert_ne!(before.1, after.1);
    put_if(&self_of(&server, &info), &named("late"), &[&before.0]).problem(412);
    for kill in [true, false] {
        if kill {
            server.kill()
        } else {
            server.stop()
        }
        server = Server::start(&dir, &BRIEF);
        assert_eq!(tags(&server), after);
    }
    let fine = put_if(&self_of(&server, &info), &named("back"), &[&after.0]);
    assert_eq!(fine.status, 200, "{fine:?}");
}

#[test]
fn a_condition_admits_its_tags_and_nothing_else() {
    let target = Target::start(&[], &named("cam"));
    let tags = |own: &str| {
        let weak = format!("W/{own}");
        let list = format!("{WRONG}, {own}");
        let dense = format!("{own},{WRONG}");
        let sparse = format!(", ,{own},,");
        let comma = format!("\"a, b\",\t{own}");
        let both = format!("{weak}, {own}");
        let fine: Vec<Vec<String>> = vec![
            vec![own.to_owned()],
            vec!["*".to_owned()],
            vec![" * ".to_owned()],
            vec![list],
            vec![dense],
            vec![sparse],
            vec![comma],
            vec![both],
            vec![WRONG.to_owned(), own.to_owned()],
            vec![WRONG.to_owned(), "*".to_owned()],
        ];
        let missed: Vec<Vec<String>> = vec![
            vec![WRONG.to_owned()],
            vec!["\"\"".to_owned()],
            vec![weak],
            vec![own.to_uppercase()],
            vec![format!("{WRONG}, W/{own}")],
            vec![format!("\"{}\"", own.trim_matches('"').split_at(8).0)],
            vec![WRONG.to_owned(), format!("\"x{}", &own[1..])],
        ];
        (fine, missed)
    };
    let (_, missed) = tags(&target.tag());
    let before = get(&target.own).json();
    for tags in &missed {
        let tags: Vec<_> = tags.iter().map(String::as_str).collect();
        let detail = put_if(&target.own, &named("door"), &tags).problem(412);
        assert!(detail.contains("If-Match"), "{tags:?}: {detail}");
    }
    assert_eq!(get(&target.own).json(), before, "nothing changed");
    for round in 0..10 {
        let (fine, _) = tags(&target.tag());
        let tags: Vec<_> = fine[round].iter().map(String::as_str).collect();
        let name = format!("door-{round}");
        let answer = put_if(&target.own, &named(&name), &tags);
        assert_eq!(answer.status, 200, "{tags:?}: {answer:?}");
        assert_eq!(answer.json()["serName"], name.as_str());
    }
    for round in 0..10 {
        let now = get(&target.liveness);
        let (fine, missed) = tags(&tag(&now));
        for tags in &missed {
            let tags: Vec<_> = tags.iter().map(String::as_str).collect();
            beat_if(&target.liveness, &tags).problem(412);
        }
        assert_eq!(get(&target.liveness).json(), now.json(), "nothing changed");
        let tags: Vec<_> = fine[round].iter().map(String::as_str).collect();
        let answer = beat_if(&target.liveness, &tags);
        assert_eq!(answer.status, 204, "{tags:?}: {answer:?}");
        assert_ne!(get(&target.liveness).json(), now.json());
    }
    // The tag of one representation is none of the other's.
    beat_if(&target.liveness, &[&target.tag()]).problem(412);
    put_if(&target.own, &named("x"), &[&tag(&get(&target.liveness))]).problem(412);
}

#[test]
fn what_is_no_condition_is_400() {
    let target = Target::start(&[], &named("cam"));
    let own = target.tag();
    let bare = own.trim_matches('"').to_owned();
    for tags in [
        vec![bare.as_str()],
        vec![""],
        vec![","],
        vec!["\""],
        vec!["\"a"],
        vec!["a\""],
        vec!["\"a\" \"b\""],
        vec!["\"a\", b"],
        vec!["\"a\", *"],
        vec!["*, \"a\""],
        vec!["**"],
        vec!["w/\"a\""],
        vec!["W/"],
        vec!["W/ \"a\""],
        vec![own.as_str(), "a"],
        vec!["*", "a"],
        vec!["'a'"],
    ] {
        for answer in [
            put_if(&target.own, &named("door"), &tags),
            beat_if(&target.liveness, &tags),
        ] {
            let detail = answer.problem(400);
            assert!(detail.contains("If-Match"), "{tags:?}: {detail}");
        }
    }
    assert_eq!(get(&target.own).json(), target.info);
}

#[test]
fn what_is_unknown_comes_before_what_is_malformed_before_the_condition_before_the_state() {
    let target = Target::start(&[], &named("cam"));
    let unknown = format!(
        "{}/services/00000000-0000-4000-8000-000000000000",
        target.server.app(APP)
    );
    let nobody = format!(
        "{}/services/{}",
        target.server.app("nobody"),
        id_of(&target.info)
    );
    let off = inactive("cam");
    assert_eq!(put(&target.own, &off).status, 200);
    let (own, live) = (target.tag(), tag(&get(&target.liveness)));
    let bad = condition(&[WRONG]);
    for uri in [&unknown, &nobody] {
        for tags in [WRONG, "*", "malformed"] {
            for body in [named("x").to_string(), "{".to_owned()] {
                let headers = condition(&[tags]);
                send("PUT", uri, &headers, body.as_bytes()).problem(404);
                let uri = format!("{uri}/liveness");
                send("PATCH", &uri, &headers, body.as_bytes()).problem(404);
            }
        }
    }
    // A malformed request before the condition.
    for body in ["{", "{\"state\":\"INACTIVE\"}", "{}"] {
        send("PATCH", &target.liveness, &bad, body.as_bytes()).problem(400);
    }
    let too_long = br#"{"state":"ACTIVE","retryInterval":3601}"#;
    send("PATCH", &target.liveness, &bad, too_long).problem(400);
    send("PUT", &target.own, &bad, b"{}").problem(400);
    let mut suspended = named("cam");
    suspended["state"] = "SUSPENDED".into();
    put_if(&target.own, &suspended, &[WRONG]).problem(400);
    // The condition before the state.
    beat_if(&target.liveness, &[WRONG]).problem(412);
    beat_if(&target.liveness, &[&live]).problem(409);
    beat_if(&target.liveness, &["*"]).problem(409);
    beat_if(&target.liveness, &[]).problem(409);
    assert_eq!((target.tag(), tag(&get(&target.liveness))), (own, live));
}

#[test]
fn methods_without_a_412_do_not_look_at_conditions() {
    let target = Target::start(&[], &named("cam"));
    let collection = format!("{}/services", target.server.app(APP));
    let batch = format!("{}/liveness", target.server.app(APP));
    for tags in [WRONG, "malformed", ""] {
        let headers = condition(&[tags]);
        let body = named("new").to_string();
        let new = send("POST", &collection, &headers, body.as_bytes());
        assert_eq!(new.status, 201, "{tags}");
        assert_eq!(
            send("PATCH", &batch, &headers, ACTIVE).status,
            200,
            "{tags}"
        );
        for uri in [&target.own, &target.by_id, &target.liveness, &collection] {
            assert_eq!(send("GET", uri, &headers, b"").status, 200, "{tags} {uri}");
        }
        let own = self_of(&target.server, &new.json());
        assert_eq!(send("DELETE", &own, &headers, b"").status, 204, "{tags}");
    }
}

#[test]
fn of_many_who_saw_the_same_exactly_one_wins() {
    const CLIENTS: usize = 16;
    // A linger, so that those who race stand in one batch.
    let args = [
        "--set",
        "store.commit_linger_ms=50",
        "--set",
        "store.commit_linger_beats=64",
    ];
    let target = Target::start(&args, &named("cam"));
    for round in 0..10 {
        let seen = target.tag();
        let names: Vec<_> = (0..CLIENTS).map(|n| format!("cam-{round}-{n}")).collect();
        let statuses: Vec<(u16, &String)> = std::thread::scope(|scope| {
            let racers: Vec<_> = names
                .iter()
                .map(|name| {
                    let (target, seen) = (&target, &seen);
                    scope.spawn(move || (put_if(&target.own, &named(name), &[seen]).status, name))
                })
                .collect();
            racers
                .into_iter()
                .map(|racer| racer.join().unwrap())
                .collect()
        });
        let winners: Vec<_> = statuses
            .iter()
            .filter(|(status, _)| *status == 200)
            .collect();
        assert_eq!(winners.len(), 1, "{statuses:?}");
        assert!(
            statuses
                .iter()
                .all(|(status, _)| matches!(status, 200 | 412)),
            "{statuses:?}"
        );
        assert_eq!(get(&target.own).json()["serName"], winners[0].1.as_str());
        assert_ne!(target.tag(), seen);
    }
}
