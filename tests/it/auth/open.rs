//! A server that others can reach is open only when that is wanted.

use std::process::Stdio;

use crate::support::{Server, data_dir, get, mepulse};

#[test]
fn without_authentication_it_serves_loopback_alone() {
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
        let (_keep, dir) = data_dir();
        let output = mepulse()
            .args(["serve", "--listen", address, "--data-dir"])
            .arg(&dir)
            .stdout(Stdio::piped())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(output.stdout.is_empty(), "{output:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        for word in [address, "auth.mode", "auth.i_know_this_is_open"] {
            assert!(said.contains(word), "{word}: {said}");
        }
        assert!(!dir.exists(), "nothing is made before");
    }
    let second = [
        "--set",
        "edgegallery.enabled=true",
        "--set",
        "edgegallery.plain_listen=0.0.0.0:0",
    ];
    let (_keep, dir) = data_dir();
    let output = mepulse()
        .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(&dir)
        .args(second)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

#[test]
fn open_to_all_if_the_operator_says_so() {
    let (_keep, dir) = data_dir();
    let open = [
        "--listen",
        "0.0.0.0:0",
        "--set",
        "auth.i_know_this_is_open=true",
    ];
    let server = Server::start(&dir, &open);
    assert_eq!(get(&format!("{}/services", server.root())).status, 200);
    server.stop();
    let asking = ["--listen", "0.0.0.0:0", "--set", "auth.mode=jwt"];
    let server = Server::start(&dir, &asking);
    assert_eq!(get(&format!("{}/healthz", server.url)).status, 200);
    get(&format!("{}/services", server.root())).problem(401);
}
