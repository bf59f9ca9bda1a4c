//! The same answers whether the server runs or not.

use serde_json::{Value, json};

use crate::support::{
    Server, beat, data_dir, get, liveness_of, long_service, mepulse, patch, self_of, send, service,
};

fn admin(dir: &std::path::Path, args: &[&str]) -> (Option<i32>, String, String) {
    let output = mepulse()
        .arg("admin")
        .args(args)
        .arg("--data-dir")
        .arg(dir)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

fn admin_json(dir: &std::path::Path, args: &[&str]) -> Value {
    let (code, stdout, stderr) = admin(dir, &[args, &["--json"]].concat());
    assert_eq!(code, Some(0), "{stderr}");
    serde_json::from_str(&stdout).unwrap()
}

#[test]
fn services_and_show_say_the_same_online_and_offline() {
    let (_keep, dir) = data_dir();
    let server = Server::start(&dir, &[]);
    let beating = server.register("app%20one", &service("cam", Some(60)));
    server.register("app-two", &service("plain", None));
    beat(&liveness_of(&server, &beating));
    let id = beating["serInstanceId"].as_str().unwrap();
    let online = (
        admin_json(&dir, &["services"]),
        admin_json(&dir, &["show", id]),
    );
    let status = admin_json(&dir, &["status"]);
    assert_eq!(status["server"], "running");
    assert_eq!(status["process"]["address"], server.url);
    server.stop();
    let offline = (
        admin_json(&dir, &["services"]),
        admin_json(&dir, &["show", id]),
    );
    assert_eq!(online, offline);
    assert_eq!(online.0[0]["beats"], 1);
    let status = admin_json(&dir, &["status"]);
    assert_eq!(
        (&status["server"], &status["cleanStop"]),
        (&"stopped".into(), &true.into())
    );
    assert_eq!(status["counts"]["active"], 2);

    let (_, table, _) = admin(&dir, &["services"]);
    let line = table.lines().find(|line| line.contains(id)).unwrap();
    assert!(
        line.contains("ACTIVE")
            && line.contains("60 s")
            && line.contains(" ago")
            && line.contains("in "),
        "{table}"
    );
    let (_, shown, _) = admin(&dir, &["show", &id.replace('-', "")]);
    assert!(
        shown.contains("tries again within") && shown.contains("\"serName\": \"cam\""),
        "{shown}"
    );
}

#[test]
fn the_same_is_said_after_a_kill() {
    let (_keep, dir) = data_dir();
    // Killed and started once before, so that there is a blind spot that moves deadlines.
    let server = Server::start(&dir, &[]);
    let early = server.register("app-one", &service("early", Some(60)));
    beat(&liveness_of(&server, &early));
    server.kill();
    let server = Server::start(
        &dir,
        &[
            "--set",
            "liveness.min_interval_s=1",
            "--set",
            "liveness.grace_min_ms=1300",
        ],
    );
    let beating = server.register("app%20one", &service("cam", Some(60)));
    let promise = json!({"state": "ACTIVE", "retryInterval": 2});
    patch(&liveness_of(&server, &beating), &promise);
    server.register("app-two", &service("plain", None));
    let mut off = long_service("off", Some(60), 5000);
    off["state"] = json!("INACTIVE");
    server.register("app-two", &off);
    let silent = server.register("app-two", &service("silent", Some(1)));
    let gone = server.register("app-two", &service("gone", Some(60)));
    assert_eq!(
        send("DELETE", &self_of(&server, &gone), &[], b"").status,
        204
    );
    while get(&self_of(&server, &silent)).json()["state"] != "SUSPENDED" {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }

    let say = || {
        let services = admin_json(&dir, &["services"]);
        let shown: Vec<_> = services
            .as_array()
            .unwrap()
            .iter()
            .map(|report| admin_json(&dir, &["show", report["serInstanceId"].as_str().unwrap()]))
            .collect();
        (services, shown)
    };
    let online = say();
    assert_eq!(admin_json(&dir, &["status"])["server"], "running");
    server.kill();
    let offline = say();
    assert_eq!(online.0.as_array().unwrap().len(), 5);
    assert_eq!(online, offline);
    let status = admin_json(&dir, &["status"]);
    assert_eq!(
        (&status["server"], &status["cleanStop"]),
        (&"stopped".into(), &false.into())
    );
}

#[test]
fn an_offline_look_writes_no_mark_and_leaves_the_store_openable() {
    let (_keep, dir) = data_dir();
    let server = Server::start(&dir, &[]);
    server.register("app", &service("cam", Some(60)));
    server.kill();
    let first = admin_json(&dir, &["status"]);
    assert_eq!(first["cleanStop"], false);
    let second = admin_json(&dir, &["status"]);
    assert_eq!(first["lastWatched"], second["lastWatched"]);
    let server = Server::start(&dir, &[]);
    assert!(
        server.log().contains("cause down"),
        "the look was no watch: {}",
        server.log()
    );
    assert_eq!(admin_json(&dir, &["status"])["counts"]["active"], 1);
}

#[test]
fn long_paths_and_stale_sockets_are_no_obstacle() {
    let keep = tempfile::tempdir().unwrap();
    let dir = keep.path().join("d".repeat(120)).join("e".repeat(120));
    std::fs::create_dir_all(dir.parent().unwrap()).unwrap();
    Server::start(&dir, &[]).kill();
    assert!(
        dir.join("admin.sock").exists(),
        "killed: the socket is stale now"
    );
    assert_eq!(admin_json(&dir, &["status"])["server"], "stopped");
    let server = Server::start(&dir, &[]);
    assert_eq!(admin_json(&dir, &["status"])["server"], "running");
    server.stop();
    assert!(!dir.join("admin.sock").exists());
}

#[test]
fn what_is_not_there_is_said() {
    let (_keep, dir) = data_dir();
    let (code, stdout, stderr) = admin(&dir, &["services"]);
    assert_eq!((code, stdout.as_str()), (Some(1), ""));
    assert!(
        stderr.contains("there is no mepulse data directory at"),
        "{stderr}"
    );
    assert!(!dir.exists(), "a look makes nothing");

    let server = Server::start(&dir, &[]);
    let unknown = "00000000-0000-4000-8000-000000000000";
    let (code, _, stderr) = admin(&dir, &["show", unknown]);
    assert!(
        code == Some(1) && stderr.contains("there is no service"),
        "{stderr}"
    );
    server.stop();
    let (code, _, stderr) = admin(&dir, &["show", unknown]);
    assert!(
        code == Some(1) && stderr.contains("there is no service"),
        "{stderr}"
    );
}
