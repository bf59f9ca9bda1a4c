//! Silence through the real binary: what SUSPENDED looks like, and what each request makes of it.
//!
//! Source: GS MEC 011 V2.2.1, 8.1.6.6 and 8.2.10; the table of state transitions.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{
    Server, beat, data_dir, get, id_of, liveness_of, patch, put, self_of, send, service,
};

const APP: &str = "app";

/// A server on which silence is short until [`Lapse::ease`].
struct Lapse {
    server: Server,
    dir: PathBuf,
    config: PathBuf,
    _keep: tempfile::TempDir,
}

impl Lapse {
    fn start() -> Self {
        let (keep, dir) = data_dir();
        let config = keep.path().join("mepulse.toml");
        write_config(&config, 1300);
        let server = Server::start(&dir, &["--config", config.to_str().unwrap()]);
        Self {
            server,
            dir,
            config,
            _keep: keep,
        }
    }

    /// So many services that were registered and are SUSPENDED now.
    fn silent<const N: usize>(&self) -> [Value; N] {
        let infos = [(); N].map(|()| self.server.register(APP, &service("cam", Some(1))));
        for info in &infos {
            self.until_suspended(info);
        }
        self.ease();
        infos
    }

    fn until_suspended(&self, info: &Value) {
        while get(&self.own(info)).json()["state"] != "SUSPENDED" {
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// From now on the grace is so long that nobody lapses any more.
    fn ease(&self) {
        write_config(&self.config, 3_600_000);
        self.server.signal("HUP");
        while !self.server.log().contains("changed: liveness.grace_min_ms") {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn own(&self, info: &Value) -> String {
        self_of(&self.server, info)
    }

    fn liveness(&self, info: &Value) -> String {
        liveness_of(&self.server, info)
    }

    /// The service's state, the same in every place that shows it.
    fn state(&self, info: &Value) -> String {
        let own = get(&self.own(info)).json();
        let by_id = format!("{}/services/{}", self.server.root(), id_of(info));
        assert_eq!(get(&by_id).json(), own);
        assert_eq!(get(&self.liveness(info)).json()["state"], own["state"]);
        let list = get(&format!("{}/services", self.server.app(APP))).json();
        assert!(list.as_array().unwrap().contains(&own), "{own} in {list}");
        own["state"].as_str().unwrap().to_owned()
    }

    /// Whether the list of all applications' services has it.
    fn is_discoverable(&self, info: &Value) -> bool {
        ids(&get(&format!("{}/services", self.server.root())).json()).contains(&id_of(info).into())
    }

    fn time_stamp(&self, info: &Value) -> (u64, u64) {
        let at = &get(&self.liveness(info)).json()["timeStamp"];
        let part = |name: &str| at[name].as_u64().unwrap();
        (part("seconds"), part("nanoSeconds"))
    }

    fn put(&self, info: &Value, name: &str, state: &str) -> (u16, Value) {
        let mut body = service(name, None);
        body["state"] = json!(state);
        let answer = put(&self.own(info), &body);
        (answer.status, answer.json())
    }
}

fn write_config(path: &Path, grace_min_ms: u32) {
    let text = format!("[liveness]\nmin_interval_s = 1\ngrace_min_ms = {grace_min_ms}\n");
    std::fs::write(path, text).unwrap();
}

fn ids(list: &Value) -> Vec<String> {
    let mut ids: Vec<_> = list
        .as_array()
        .unwrap()
        .iter()
        .map(|info| id_of(info).to_owned())
        .collect();
    ids.sort();
    ids
}

/// The info with some members set.
fn with(info: &Value, members: &Value) -> Value {
    let mut info = info.clone();
    for (name, value) in members.as_object().unwrap() {
        info[name] = value.clone();
    }
    info
}

#[test]
fn only_the_silent_lapse_and_the_global_list_leaves_them_out() {
    let lapse = Lapse::start();
    let server = &lapse.server;
    let mut off = service("off", Some(1));
    off["state"] = json!("INACTIVE");
    let others = [
        server.register(APP, &service("plain", None)),
        server.register(APP, &off),
        server.register(APP, &service("patient", Some(3600))),
        server.register("other", &service("door", Some(3600))),
    ];
    let silent = server.register(APP, &service("cam", Some(1)));
    let told = send(
        "PATCH",
        &lapse.liveness(&silent),
        &[("Prefer", "return=representation")],
        br#"{"state":"ACTIVE"}"#,
    )
    .json();
    lapse.until_suspended(&silent);

    assert_eq!(
        get(&lapse.own(&silent)).json(),
        with(&silent, &json!({"state": "SUSPENDED"})),
        "nothing else has changed"
    );
    assert_eq!(
        get(&lapse.liveness(&silent)).json(),
        with(&told, &json!({"state": "SUSPENDED"})),
        "the last heartbeat stays known"
    );
    assert_eq!(lapse.state(&silent), "SUSPENDED");
    for info in &others {
        assert_eq!(get(&lapse.own(info)).json(), *info);
    }
    let all = format!("{}/services", server.root());
    assert_eq!(ids(&get(&all).json()), ids(&json!(others)));
    let head = send("HEAD", &all, &[], b"");
    assert_eq!((head.status, head.body.len()), (200, 0));

    // Still so after a restart, and the operator may have them shown.
    lapse.server.stop();
    let server = Server::start(&lapse.dir, &["--set", "liveness.hide_suspended=false"]);
    let all = get(&format!("{}/services", server.root())).json();
    let [plain, off, patient, door] = others;
    let suspended = with(&silent, &json!({"state": "SUSPENDED"}));
    assert!(all.as_array().unwrap().contains(&suspended), "{all}");
    assert_eq!(ids(&all), ids(&json!([plain, off, patient, door, silent])));
}

#[test]
fn a_heartbeat_revives_the_suspended() {
    let lapse = Lapse::start();
    let [bare, wrapped, batched, also_batched, refused] = lapse.silent();
    let before = lapse.time_stamp(&bare);
    let answer = beat(&lapse.liveness(&bare));
    assert_eq!((answer.status, answer.body.len()), (204, 0), "{answer:?}");
    assert_eq!(lapse.state(&bare), "ACTIVE");
    assert!(lapse.time_stamp(&bare) > before);
    assert!(lapse.is_discoverable(&bare));
    assert_eq!(beat(&lapse.liveness(&bare)).status, 204);

    let update = json!({"ServiceLivenessUpdate": {"state": "ACTIVE"}});
    let answer = patch(&lapse.liveness(&wrapped), &update);
    assert_eq!(answer.status, 200);
    assert_eq!(
        (&answer.json()["state"], &answer.json()["interval"]),
        (&json!("ACTIVE"), &json!(1))
    );
    assert_eq!(lapse.state(&wrapped), "ACTIVE");

    let batch = format!("{}/liveness", lapse.server.app(APP));
    let named = [id_of(&batched), id_of(&also_batched)];
    let answer = patch(&batch, &json!({"state": "ACTIVE", "serviceIds": named}));
    let result = |id: &str| json!({"serInstanceId": id, "status": 204});
    assert_eq!(
        (answer.status, answer.json()),
        (200, json!(named.map(result)))
    );
    for info in [&batched, &also_batched] {
        assert_eq!(lapse.state(info), "ACTIVE");
        assert!(lapse.is_discoverable(info));
    }

    // What is no heartbeat revives nobody; then everyone at once does.
    let before = get(&lapse.liveness(&refused)).json();
    for body in [
        json!({"state": "INACTIVE"}),
        json!({"state": "SUSPENDED"}),
        json!({}),
        json!({"state": "ACTIVE", "retryInterval": 2}),
    ] {
        patch(&lapse.liveness(&refused), &body).problem(400);
    }
    assert_eq!(get(&lapse.liveness(&refused)).json(), before);
    assert!(!lapse.is_discoverable(&refused));
    let answer = beat(&batch).json();
    assert!(
        answer
            .as_array()
            .unwrap()
            .contains(&result(id_of(&refused)))
    );
    assert_eq!(lapse.state(&refused), "ACTIVE");
    assert_eq!(lapse.server.metric("mepulse_revivals_total"), 5);
    assert_eq!(lapse.server.metric("mepulse_verdicts_total"), 5);
}

#[test]
fn a_put_says_what_becomes_of_the_suspended() {
    let lapse = Lapse::start();
    let [on, off, kept, renewed, removed] = lapse.silent();

    let before = lapse.time_stamp(&on);
    assert_eq!(lapse.put(&on, "cam", "ACTIVE"), (200, on.clone()));
    assert_eq!(lapse.state(&on), "ACTIVE");
    assert!(lapse.time_stamp(&on) > before, "the time of re-activation");
    assert!(lapse.is_discoverable(&on));

    let before = lapse.time_stamp(&off);
    let inactive = with(&off, &json!({"state": "INACTIVE"}));
    assert_eq!(lapse.put(&off, "cam", "INACTIVE"), (200, inactive));
    assert_eq!(lapse.state(&off), "INACTIVE");
    assert_eq!(lapse.time_stamp(&off), before);
    beat(&lapse.liveness(&off)).problem(409);
    assert!(lapse.is_discoverable(&off), "only SUSPENDED is left out");

    let before = lapse.time_stamp(&kept);
    let renamed = with(&kept, &json!({"state": "SUSPENDED", "serName": "door"}));
    assert_eq!(lapse.put(&kept, "door", "SUSPENDED"), (200, renamed));
    assert_eq!(lapse.state(&kept), "SUSPENDED");
    assert_eq!(lapse.time_stamp(&kept), before);
    assert!(!lapse.is_discoverable(&kept));
    assert_eq!(beat(&lapse.liveness(&kept)).status, 204);
    assert_eq!(lapse.state(&kept), "ACTIVE");

    // A new interval while SUSPENDED is told by the beat that revives.
    let mut body = service("cam", Some(90));
    body["state"] = json!("SUSPENDED");
    assert_eq!(put(&lapse.own(&renewed), &body).status, 200);
    let answer = beat(&lapse.liveness(&renewed));
    assert_eq!(
        (answer.status, &answer.json()["interval"]),
        (200, &json!(90))
    );
    assert_eq!(lapse.state(&renewed), "ACTIVE");

    // Whoever is not SUSPENDED cannot become it by a PUT.
    for (info, state) in [(&on, "ACTIVE"), (&off, "INACTIVE")] {
        let (status, problem) = lapse.put(info, "cam", "SUSPENDED");
        assert_eq!(status, 400, "{problem}");
        assert_eq!(lapse.state(info), state);
    }

    assert_eq!(send("DELETE", &lapse.own(&removed), &[], b"").status, 204);
    get(&lapse.own(&removed)).problem(404);
    beat(&lapse.liveness(&removed)).problem(404);
    lapse.put(&off, "cam", "ACTIVE");
    assert_eq!(lapse.state(&off), "ACTIVE");
}
