//! `mepulse agent run`: beats while a command lives.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::{QUICK, services, state};
use crate::support::agent::{ended, shell_code, signal, until_true};
use crate::support::{Server, data_dir, mepulse};

/// Killed when dropped.
struct Run(Child);

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn command(server: &Server, dir: &Path, more: &[&str], script: &str) -> Command {
    let mut command = mepulse();
    command
        .args(["agent", "run", "--server", &server.url, "--app", "app"])
        .args(["--service", "cam", "--interval", "2"])
        .args(more)
        .args(["--", "sh", "-c", script])
        .current_dir(dir)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

fn start(server: &Server, dir: &Path, more: &[&str], script: &str) -> Run {
    Run(command(server, dir, more, script).spawn().unwrap())
}

fn code(mut run: Run) -> i32 {
    shell_code(ended(&mut run.0))
}

#[test]
fn the_exit_code_is_the_commands_and_the_service_is_gone() {
    let (keep, dir) = data_dir();
    let server = Server::start(&dir, &QUICK);
    let over = keep.path().join("over");
    for (script, expected) in [
        ("exit 0", 0),
        ("exit 7", 7),
        ("kill -9 $$", 137),
        ("kill -TERM $$", 143),
    ] {
        let script = format!("while [ ! -e over ]; do sleep 0.05; done; {script}");
        let run = start(&server, keep.path(), &[], &script);
        until_true("it is registered", || state(&server, "cam") == "ACTIVE");
        std::fs::write(&over, "").unwrap();
        assert_eq!(code(run), expected, "{script}");
        assert_eq!(services(&server).len(), 0);
        std::fs::remove_file(&over).unwrap();
    }
}

#[test]
fn signals_are_passed_on_and_beats_go_on_until_the_command_ends() {
    let (keep, dir) = data_dir();
    let server = Server::start(&dir, &QUICK);
    let script = "for s in HUP INT USR1 USR2; do trap \"touch $s\" $s; done; \
                  trap 'touch TERM' TERM; touch ready; while [ ! -e over ]; do sleep 0.05; done; exit 5";
    let run = start(&server, keep.path(), &[], script);
    let pid = run.0.id();
    until_true("it is registered", || state(&server, "cam") == "ACTIVE");
    until_true("it is ready", || keep.path().join("ready").exists());
    for name in ["HUP", "INT", "USR1", "USR2", "TERM"] {
        signal(pid, name);
        until_true(name, || keep.path().join(name).exists());
    }
    assert_eq!(state(&server, "cam"), "ACTIVE");
    std::fs::write(keep.path().join("over"), "").unwrap();
    assert_eq!(code(run), 5);
    assert_eq!(services(&server).len(), 0);
}

#[test]
fn a_service_that_is_left_is_taken_over_by_the_next_run() {
    let (keep, dir) = data_dir();
    let server = Server::start(&dir, &QUICK);
    let flags = ["--on-stop", "leave", "--endpoint", "http://10.0.0.9/"];
    let script = "while [ ! -e over ]; do sleep 0.05; done";
    let mut ids = Vec::new();
    for _ in 0..2 {
        let _ = std::fs::remove_file(keep.path().join("over"));
        let run = start(&server, keep.path(), &flags, script);
        until_true("it is registered", || state(&server, "cam") == "ACTIVE");
        std::fs::write(keep.path().join("over"), "").unwrap();
        assert_eq!(code(run), 0);
        let found = services(&server);
        assert_eq!(found.len(), 1);
        assert_eq!(
            found[0]["transportInfo"]["endpoint"]["uris"][0],
            "http://10.0.0.9/"
        );
        ids.push(found[0]["serInstanceId"].clone());
    }
    assert_eq!(ids[0], ids[1]);
}

#[test]
fn a_command_that_cannot_start_registers_nothing() {
    let (keep, dir) = data_dir();
    let server = Server::start(&dir, &QUICK);
    for (program, expected) in [("/nowhere/at/all", 127), ("/", 126)] {
        let mut command = mepulse();
        let output = command
            .args(["agent", "run", "--server", &server.url, "--app", "app"])
            .args(["--service", "cam", "--", program])
            .current_dir(keep.path())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(expected));
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.contains("could not be started"), "{text}");
        assert_eq!(services(&server).len(), 0);
    }
}

#[test]
fn a_server_that_is_away_neither_stops_the_command_nor_its_end() {
    let (keep, dir) = data_dir();
    let server = Server::start(&dir, &QUICK);
    server.signal("STOP");
    let run = start(&server, keep.path(), &[], "touch ran; exit 4");
    assert_eq!(code(run), 4);
    assert!(keep.path().join("ran").exists());
    server.signal("CONT");
}

#[test]
fn a_conflict_that_must_stop_ends_the_command_too() {
    let (keep, dir) = data_dir();
    let server = Server::start(&dir, &QUICK);
    let script = "trap 'touch ended; exit 0' TERM; touch ready; while :; do sleep 0.05; done";
    let flags = ["--on-conflict", "stop"];
    let run = start(&server, keep.path(), &flags, script);
    until_true("it is registered", || state(&server, "cam") == "ACTIVE");
    until_true("it is ready", || keep.path().join("ready").exists());
    super::deactivate(&server);
    assert_eq!(code(run), 1);
    assert!(keep.path().join("ended").exists());
}

#[test]
fn a_mistake_is_seen_before_the_command_starts() {
    let (keep, dir) = data_dir();
    let server = Server::start(&dir, &QUICK);
    let bad = keep.path().join("bad");
    std::fs::write(&bad, "no pem").unwrap();
    for (flags, expected) in [
        (["--ca-file", "bad"], 2),
        (["--token-file", "nowhere"], 2),
        (["--client-secret-file", "nowhere"], 2),
        (["--client-id", "me"], 2),
        (["--status-listen", "nowhere"], 2),
        (["--state-file", "nowhere/state"], 2),
    ] {
        let run = start(&server, keep.path(), &flags, "touch started");
        assert_eq!(code(run), expected, "{flags:?}");
        assert!(!keep.path().join("started").exists());
    }
    assert_eq!(services(&server).len(), 0);
}
