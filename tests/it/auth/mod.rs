//! Who may do what: the ownership matrix, tokens that are no good, tokens of our own, what ends, and
//! servers that do not start open.

mod ends;
mod matrix;
mod oauth2;
mod open;
mod tokens;

use std::path::Path;

use serde_json::Value;

use crate::support::jwt::Idp;
use crate::support::{Server, mepulse};

const JWT: [&str; 2] = ["--set", "auth.mode=jwt"];

/// `mepulse admin app …` on a data directory; what it prints.
fn admin(dir: &Path, args: &[&str]) -> String {
    let output = mepulse()
        .args(["admin", "app"])
        .args(args)
        .args(["--json", "--data-dir"])
        .arg(dir)
        .output()
        .unwrap();
    assert!(output.status.success(), "{args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Gives an application a secret.
fn secret(dir: &Path, command: &str, app: &str) -> String {
    let printed: Value = serde_json::from_str(&admin(dir, &[command, app])).unwrap();
    assert_eq!(printed["clientId"], app);
    printed["clientSecret"].as_str().unwrap().to_owned()
}

/// A server that takes the tokens of this identity server.
fn start(dir: &Path, idp: &Idp, more: &[&str]) -> Server {
    let settings = idp.settings();
    let mut args: Vec<&str> = settings.iter().map(String::as_str).collect();
    args.extend(more);
    Server::start(dir, &args)
}
