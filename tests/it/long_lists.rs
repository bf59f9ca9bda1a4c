//! Lists that are longer than what is rendered in one go, through the real binary.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::queries::{APP, each, lists, start};
use crate::support::{Server, get, post, put, self_of, send, service};

/// Services that are rendered in one go.
const PAGE: usize = 64;

/// Registers many services, on several connections.
fn register_all(server: &Server, app: &str, names: &[String]) {
    let uri = format!("{}/services", server.app(app));
    std::thread::scope(|scope| {
        for part in names.chunks(names.len().div_ceil(16).max(1)) {
            let uri = &uri;
            scope.spawn(move || {
                for name in part {
                    let answer = post(uri, &service(name, None));
                    assert_eq!(answer.status, 201, "{answer:?}");
                }
            });
        }
    });
}

#[test]
fn a_list_is_whole_at_every_boundary_of_a_page() {
    let (_keep, server) = start(&["--set", "store.durability=process-crash"]);
    for count in [0, 1, PAGE - 1, PAGE, PAGE + 1, 2 * PAGE, 2 * PAGE + 1] {
        let app = format!("app-{count}");
        let name = format!("n-{count}");
        register_all(&server, &app, &vec![name.clone(); count]);
        let all = lists(&server)[0].clone();
        let found = each("serInstanceId", &get(&format!("{all}?ser_name={name}")));
        assert_eq!(found.iter().collect::<BTreeSet<_>>().len(), count);
        assert_eq!(found.len(), count);
        if count > 0 {
            let own = each(
                "serInstanceId",
                &get(&format!("{}/services", server.app(&app))),
            );
            assert_eq!(own, found);
        }
    }
}

#[test]
fn thousands_of_one_name_are_all_found_while_others_come_and_go() {
    const STAY: usize = 5000;
    let args = [
        "--set",
        "apps.services_max_per_app=6000",
        "--set",
        "store.durability=process-crash",
    ];
    let (_keep, server) = start(&args);
    register_all(&server, APP, &vec!["same".to_owned(); STAY]);
    let [all, own] = lists(&server).map(|uri| format!("{uri}?ser_name=same"));
    let stay: BTreeSet<_> = each("serInstanceId", &get(&all)).into_iter().collect();
    assert_eq!(stay.len(), STAY);
    let roamers: Vec<_> = (0..4)
        .map(|_| server.register(APP, &service("same", None)))
        .map(|info| self_of(&server, &info))
        .collect();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for roamer in &roamers {
            let (server, stop) = (&server, &stop);
            scope.spawn(move || {
                let mut turn = 0;
                while !stop.load(Ordering::Relaxed) {
                    let name = ["elsewhere", "same"][turn % 2];
                    assert_eq!(put(roamer, &service(name, None)).status, 200);
                    let passing = server.register("passing", &service("same", None));
                    let own = self_of(server, &passing);
                    assert_eq!(send("DELETE", &own, &[], b"").status, 204);
                    turn += 1;
                }
            });
        }
        for uri in [&all, &own].into_iter().cycle().take(12) {
            let answer = get(uri);
            assert_eq!(
                answer.header("content-length"),
                None,
                "it is sent while it is made"
            );
            let ids = each("serInstanceId", &answer);
            let found: BTreeSet<_> = ids.iter().cloned().collect();
            assert_eq!(found.len(), ids.len(), "nothing twice");
            assert!(found.is_superset(&stay), "nothing is left out");
            assert!(each("serName", &answer).iter().all(|name| name == "same"));
        }
        stop.store(true, Ordering::Relaxed);
    });
}
