//! A disk that fails, is full or is slow: nobody is told "done" who is not, the process ends where
//! it cannot go on, and nothing acknowledged is lost when it is started again.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::clients::{Clients, wait_until};
use crate::support::disk::{Disk, Survivors};
use crate::support::mount::{OnDisk, Small, has_command, skip};
use crate::support::random::Random;
use crate::support::{
    Server, beat, data_dir, get, liveness_of, mepulse, mepulse_under, service, try_send,
};

const DISK_MIB: u64 = 256;

/// Once somebody was refused, `/readyz` says no for as long as it answers at all.
fn watch_readiness_until_the_end(server: &Server, clients: &Clients) {
    wait_until("the end of the server", || {
        let failed = clients.refused() > 0;
        let Ok(answer) = try_send("GET", &format!("{}/readyz", server.url), &[], b"") else {
            return true;
        };
        assert!(!failed || answer.status == 503, "{answer:?}");
        false
    });
}

#[test]
fn a_disk_whose_syncs_fail_ends_the_process_and_costs_nothing_acknowledged() {
    let test = "failing sync";
    for survivors in [Survivors::Synced, Survivors::HalfOfTheRest] {
        let disk = Disk::new(DISK_MIB);
        let attached = match OnDisk::attach(&disk, true) {
            Ok(attached) => attached,
            Err(reason) => return skip(test, &reason),
        };
        let mut random = Random::from_env(test);
        let clients = Clients::default();
        let server = Server::start_with_log(&attached.data_dir(), &attached.log(), &[]);
        clients.load(&server, &mut random, || {
            wait_until("load", || clients.acknowledged() >= 300);
            disk.fail_syncs();
            disk.wait_for_trouble();
            watch_readiness_until_the_end(&server, &clients);
        });
        assert!(clients.refused() > 0, "those under way are told");
        assert_eq!(server.wait(), Some(1));
        let log = std::fs::read_to_string(attached.log()).unwrap();
        assert!(log.contains("nothing more is accepted"), "{log}");
        disk.cut();
        drop(attached);

        let disk = disk.after_the_cut(survivors, &mut random);
        let attached = OnDisk::attach(&disk, false).unwrap();
        let server = Server::start_with_log(&attached.data_dir(), &attached.log(), &[]);
        clients.check(&server);
        server.stop();
    }
}

#[test]
fn a_single_failed_sync_is_not_tried_again() {
    let test = "single failed sync";
    if !has_command("strace") {
        return skip(test, "there is no strace command");
    }
    let (keep, dir) = data_dir();
    let mut random = Random::from_env(test);
    let clients = Clients::default();
    let log = keep.path().join("log");
    // With so few services the writer alone calls fdatasync; strace counts for each thread. With -D the server is our
    // child, and strace ends with it.
    let mut strace = Command::new("strace");
    strace
        .args(["-D", "-qq", "-f", "-e", "trace=fdatasync"])
        .args(["-e", "inject=fdatasync:error=EIO:when=50", "-o"])
        .arg(keep.path().join("strace"));
    let server = match Server::try_start(mepulse_under(strace), &dir, &log, &[]) {
        Ok(server) => server,
        Err(code) => {
            let message = std::fs::read_to_string(&log).unwrap();
            assert!(message.contains("strace: "), "{code:?}: {message}");
            return skip(test, message.trim());
        }
    };
    clients.load(&server, &mut random, || {
        watch_readiness_until_the_end(&server, &clients)
    });
    assert!(clients.acknowledged() > 0);
    assert!(clients.refused() > 0, "those under way are told");
    assert_eq!(server.wait(), Some(1));
    let traced = std::fs::read_to_string(keep.path().join("strace")).unwrap();
    let last = traced.lines().rfind(|line| line.contains("fdatasync("));
    assert!(last.unwrap().contains("(INJECTED)"), "{traced}");

    let server = Server::start(&dir, &[]);
    clients.check(&server);
}

#[test]
fn a_full_disk_ends_the_process_and_costs_nothing_acknowledged() {
    let test = "full disk";
    let small = match Small::new(28) {
        Ok(small) => small,
        Err(reason) => return skip(test, &reason),
    };
    let mut random = Random::from_env(test);
    let clients = Clients::hoarding(usize::MAX);
    let terms = [
        "apps.services_max_per_app=1000000",
        "store.commit_linger_ms=0",
    ];
    let args: Vec<&str> = terms.iter().flat_map(|term| ["--set", *term]).collect();
    let (dir, log) = (small.data_dir(), small.log());
    let server = Server::start_with_log(&dir, &log, &args);
    clients.load(&server, &mut random, || {
        watch_readiness_until_the_end(&server, &clients);
    });
    assert!(clients.refused() > 0, "those under way are told");
    assert_eq!(server.wait(), Some(1));
    // Somebody tries again before there is room: it may or may not start, but does no harm.
    start_in_vain(&dir, &log);
    small.enlarge(116);
    let server = Server::start_with_log(&dir, &log, &args);
    clients.check(&server);
    server.stop();
}

fn start_in_vain(data_dir: &Path, log: &Path) {
    match Server::try_start(mepulse(), data_dir, log, &[]) {
        Ok(server) => server.kill(),
        Err(code) => assert_eq!(code, Some(1)),
    }
}

#[test]
fn a_slow_disk_makes_acknowledgements_late_and_nobody_dead() {
    const SERVICES: usize = 8;
    /// Acknowledged beats of each while the disk is slow.
    const BEATS: usize = 2;
    let disk = Disk::new(DISK_MIB);
    let attached = match OnDisk::attach(&disk, true) {
        Ok(attached) => attached,
        Err(reason) => return skip("slow disk", &reason),
    };
    // Silent for 2.2 s is dead; a commit on the slow disk, of two syncs or more, can take longer.
    let terms = ["liveness.min_interval_s=1", "liveness.grace_min_ms=1200"];
    let args: Vec<&str> = terms.iter().flat_map(|term| ["--set", *term]).collect();
    let server = Server::start_with_log(&attached.data_dir(), &attached.log(), &args);
    let finished = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for number in 0..SERVICES {
            let (server, disk, finished) = (&server, &disk, &finished);
            scope.spawn(move || {
                let info = server.register("app", &service(&format!("s{number}"), Some(1)));
                let uri = liveness_of(server, &info);
                assert_eq!(beat(&uri).status, 204);
                disk.delay_syncs(Duration::from_millis(1200));
                for _ in 0..BEATS {
                    assert_eq!(beat(&uri).status, 204);
                }
                // Nobody falls silent before all are through.
                finished.fetch_add(1, Ordering::SeqCst);
                while finished.load(Ordering::SeqCst) < SERVICES {
                    assert_eq!(beat(&uri).status, 204);
                }
                disk.delay_syncs(Duration::ZERO);
            });
        }
    });
    let log = server.log();
    assert!(!log.contains("suspended for silence"), "{log}");
    let metrics = get(&format!("{}/metrics", server.url)).text();
    assert!(metrics.contains("mepulse_verdicts_total 0"), "{metrics}");
    server.stop();
}
