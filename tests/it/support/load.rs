//! Clients that keep the books: what was acknowledged must be there, what was removed must be gone.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;

use serde_json::Value;

use super::{Server, data_dir, get, long_service, mepulse, try_send};

/// What a client knows for certain about one service.
#[derive(Debug, Clone, Default)]
pub(crate) struct Known {
    liveness: String,
    own: String,
    app: String,
    /// Acknowledged beats; one more may have been under way.
    beats: u64,
    beat_under_way: bool,
    removed: bool,
    remove_under_way: bool,
}

/// By service id.
pub(crate) type Books = BTreeMap<String, Known>;

/// Registers, beats and removes until the server is gone or says that it is going.
fn work(server: &Server, app: &str, books: &Mutex<Books>) {
    let mut mine: Vec<String> = Vec::new();
    let mut turn = 0_usize;
    loop {
        turn += 1;
        if mine.len() < 20 || turn.is_multiple_of(7) {
            let body = long_service("cam", Some(3600), turn * 97 % 6000 + 1).to_string();
            let uri = format!("{}/services", server.app(app));
            let Ok(answer) = try_send("POST", &uri, &[], body.as_bytes()) else {
                return;
            };
            if answer.status == 503 {
                return;
            }
            assert_eq!(answer.status, 201, "{answer:?}");
            let info = answer.json();
            let id = info["serInstanceId"].as_str().unwrap().to_owned();
            let path = |link: &str| info["_links"][link]["href"].as_str().unwrap().to_owned();
            let service = Known {
                liveness: path("liveness"),
                own: path("self"),
                app: app.to_owned(),
                ..Known::default()
            };
            books.lock().unwrap().insert(id.clone(), service);
            mine.push(id);
            continue;
        }
        let id = mine[turn * 13 % mine.len()].clone();
        let remove = turn.is_multiple_of(31);
        let paths = {
            let mut books = books.lock().unwrap();
            let service = books.get_mut(&id).unwrap();
            service.beat_under_way = !remove;
            service.remove_under_way = remove;
            (service.liveness.clone(), service.own.clone())
        };
        let answer = if remove {
            try_send("DELETE", &format!("{}{}", server.url, paths.1), &[], b"")
        } else {
            let uri = format!("{}{}", server.url, paths.0);
            try_send("PATCH", &uri, &[], br#"{"state":"ACTIVE"}"#)
        };
        let Ok(answer) = answer else { return };
        if answer.status == 503 {
            return;
        }
        assert_eq!(answer.status, 204, "{answer:?}");
        let mut books = books.lock().unwrap();
        let service = books.get_mut(&id).unwrap();
        if remove {
            service.removed = true;
            service.remove_under_way = false;
            mine.retain(|other| *other != id);
        } else {
            service.beats += 1;
            service.beat_under_way = false;
        }
    }
}

/// Eight clients work, and after so many more acknowledged beats the server gets the signal in the
/// middle of it. `round` keeps the applications of several calls apart.
pub(crate) fn until_signal(
    server: &Server,
    signal: &str,
    beats: u64,
    round: usize,
    books: &Mutex<Books>,
) {
    let acknowledged = || books.lock().unwrap().values().map(|k| k.beats).sum::<u64>();
    let enough = acknowledged() + beats;
    std::thread::scope(|scope| {
        let clients = [0, 1, 2, 3, 4, 5, 6, 7].map(|client| {
            scope.spawn(move || work(server, &format!("app-{}", client + 8 * round), books))
        });
        while acknowledged() < enough {
            let working = clients.iter().any(|client| !client.is_finished());
            assert!(working, "every client gave up before the signal");
            std::thread::yield_now();
        }
        server.signal(signal);
    });
}

/// All services as the running server tells them, or as the store has them when it is down.
pub(crate) fn stored(data_dir: &Path) -> Vec<Value> {
    let output = mepulse()
        .args(["admin", "services", "--json", "--data-dir"])
        .arg(data_dir)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Compares what is stored with what the clients know.
pub(crate) fn check(data_dir: &Path, books: &Books) {
    let found = stored(data_dir);
    let found: BTreeMap<_, _> = found
        .iter()
        .map(|report| (report["serInstanceId"].as_str().unwrap(), report))
        .collect();
    for (id, service) in books {
        let Some(report) = found.get(id.as_str()) else {
            assert!(
                service.removed || service.remove_under_way,
                "{id} is lost: {service:?}"
            );
            continue;
        };
        assert!(
            !service.removed,
            "{id} was removed, acknowledged, and is back"
        );
        assert_eq!(report["appInstanceId"], service.app);
        assert_eq!(report["state"], "ACTIVE");
        let beats = report["beats"].as_u64().unwrap();
        let most = service.beats + u64::from(service.beat_under_way);
        assert!(
            (service.beats..=most).contains(&beats),
            "{id} has {beats} beats, acknowledged {service:?}"
        );
    }
}

/// What was in doubt is settled by what is found now.
fn settle(dir: &Path, args: &[&str], books: &mut Books) {
    let server = Server::start(dir, args);
    for service in books.values_mut() {
        if service.remove_under_way {
            service.removed = get(&format!("{}{}", server.url, service.own)).status == 404;
            service.remove_under_way = false;
        }
    }
    server.kill();
    // Beats in doubt: take over what is there.
    for report in stored(dir) {
        // A registration whose answer was lost is not known to its client.
        if let Some(service) = books.get_mut(report["serInstanceId"].as_str().unwrap()) {
            service.beats = report["beats"].as_u64().unwrap();
            service.beat_under_way = false;
        }
    }
}

/// Kills the server under load again and again, on the same data.
pub(crate) fn survives_kill_nine(args: &[&str], rounds: usize) {
    let (_keep, dir) = data_dir();
    let books = Mutex::new(Books::new());
    for round in 0..rounds {
        let server = Server::start(&dir, args);
        until_signal(
            &server,
            "KILL",
            200 + 150 * (round as u64 % 4),
            round,
            &books,
        );
        let log = server.log();
        drop(server);
        assert!(
            !log.contains("are not those that were committed"),
            "a plain kill is no damage: {log}"
        );
        let mut books = books.lock().unwrap();
        check(&dir, &books);
        settle(&dir, args, &mut books);
    }
    assert!(books.into_inner().unwrap().len() > 100);
}
