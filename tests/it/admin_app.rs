//! Credentials of applications, handed out without a server.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::support::{Server, contents, data_dir, mepulse};

/// What the command gave back: exit code, standard output, standard error.
type Said = (Option<i32>, String, String);

fn admin(dir: &Path, args: &[&str]) -> Said {
    admin_with(dir, args, "")
}

fn admin_with(dir: &Path, args: &[&str], stdin: &str) -> Said {
    let mut child = mepulse()
        .arg("admin")
        .args(args)
        .arg("--data-dir")
        .arg(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // One that does not read it has ended, perhaps.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

fn admin_json(dir: &Path, args: &[&str]) -> Value {
    let (code, stdout, stderr) = admin(dir, &[args, &["--json"]].concat());
    assert_eq!(code, Some(0), "{stderr}");
    serde_json::from_str(&stdout).unwrap()
}

fn refused(said: &Said, code: i32, named: &str) {
    assert_eq!(said.0, Some(code), "{said:?}");
    assert!(said.2.contains(named), "{named}: {said:?}");
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// Whether any file of the data directory has this text in it.
fn stands_somewhere(dir: &Path, text: &str) -> bool {
    let needle = text.as_bytes();
    contents(dir)
        .values()
        .any(|bytes| bytes.windows(needle.len()).any(|part| part == needle))
}

fn claims(token: &str) -> Value {
    let part = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

#[test]
fn an_application_is_added_listed_rotated_and_removed() {
    let (_keep, dir) = data_dir();
    let added = admin_json(&dir, &["app", "add", "app one", "--new-access-key"]);
    assert_eq!(added["clientId"], "app one");
    let secret = |value: &Value, name: &str| value[name].as_str().unwrap().to_owned();
    let client_secret = secret(&added, "clientSecret");
    let secret_key = secret(&added, "secretKey");
    let access_key = secret(&added, "accessKey");
    assert_eq!(
        (client_secret.len(), access_key.len(), secret_key.len()),
        (43, 20, 64)
    );
    let auth = dir.join("auth");
    assert_eq!((mode(&dir), mode(&auth)), (0o700, 0o700));
    let mut files: Vec<_> = fs::read_dir(&auth)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    let names: Vec<_> = files
        .iter()
        .map(|path| path.file_name().unwrap().to_str().unwrap())
        .collect();
    let expected = [
        "access-keys.json",
        "access-keys.key",
        "clients.json",
        "lock",
    ];
    assert_eq!(names, expected);
    for path in &files {
        assert_eq!(mode(path), 0o600, "{}", path.display());
    }
    assert!(!stands_somewhere(&dir, &client_secret));
    assert!(!stands_somewhere(&dir, &secret_key));

    let plain = admin_json(&dir, &["app", "add", "plain", "--no-secret"]);
    assert_eq!(plain, json!({"clientId": "plain"}));
    let listed = admin_json(&dir, &["app", "list"]);
    assert_eq!(listed[0]["appInstanceId"], "app one");
    assert_eq!(listed[0]["secret"], true);
    assert_eq!(listed[0]["accessKeys"], json!([access_key]));
    assert!(listed[0]["created"].as_str().unwrap().ends_with('Z'));
    assert_eq!(
        (&listed[1]["secret"], &listed[1]["accessKeys"]),
        (&json!(false), &json!([]))
    );
    let (code, table, _) = admin(&dir, &["app", "list"]);
    assert_eq!(code, Some(0));
    assert!(
        table.contains("ACCESS KEYS") && table.contains(&access_key),
        "{table}"
    );

    let (code, shown, note) = admin(&dir, &["app", "rotate", "app one"]);
    assert_eq!(code, Some(0), "{note}");
    assert!(
        shown.contains("client secret") && !shown.contains(&client_secret),
        "{shown}"
    );
    assert!(note.contains("not shown again"), "{note}");

    let (code, shown, note) = admin(&dir, &["app", "remove", "app one"]);
    assert_eq!((code, shown.as_str()), (Some(0), ""), "{note}");
    let listed = admin_json(&dir, &["app", "list"]);
    assert_eq!(listed.as_array().unwrap().len(), 1);
    assert!(!stands_somewhere(&dir, &access_key));
    // Until the server has removed its services.
    let stored = fs::read(auth.join("clients.json")).unwrap();
    let stored: Value = serde_json::from_slice(&stored).unwrap();
    assert_eq!(stored["removed"], json!(["app one"]));
}

#[test]
fn one_access_key_is_taken_away_and_the_rest_stays() {
    let (_keep, dir) = data_dir();
    let first = admin_json(&dir, &["app", "add", "one", "--new-access-key"]);
    let access_key = first["accessKey"].as_str().unwrap();
    let second = admin_json(&dir, &["app", "add", "one", "--new-access-key"]);
    let remove = ["app", "remove", "one", "--access-key", access_key];
    let said = admin(&dir, &remove);
    assert_eq!(said, (Some(0), String::new(), String::new()));
    let listed = admin_json(&dir, &["app", "list"]);
    assert_eq!(listed[0]["secret"], true);
    assert_eq!(listed[0]["accessKeys"], json!([second["accessKey"]]));
    refused(&admin(&dir, &remove), 1, "has no access key");
    let (_, help, _) = admin(&dir, &["app", "rotate", "--help"]);
    assert!(help.contains("stay good"), "{help}");
}

#[test]
fn a_data_directory_that_was_not_there_is_remarked_on() {
    let (_keep, dir) = data_dir();
    for (name, args) in [
        ("one", &["app", "add", "one"][..]),
        ("two", &["token", "--operator"]),
    ] {
        let dir = dir.join(name);
        let (code, _, note) = admin(&dir, args);
        assert_eq!(code, Some(0), "{note}");
        assert!(
            note.contains("was not there") && note.contains("--data-dir"),
            "{note}"
        );
    }
    let (_, _, note) = admin(&dir.join("two"), &["app", "add", "one"]);
    assert!(!note.contains("was not there"), "{note}");
}

#[test]
fn an_access_key_is_taken_over_and_the_secret_stays() {
    let (keep, dir) = data_dir();
    let file = keep.path().join("secret-key");
    fs::write(&file, "the secret key of old\n").unwrap();
    admin_json(&dir, &["app", "add", "one"]);
    let clients = || fs::read_to_string(dir.join("auth/clients.json")).unwrap();
    let before = clients();
    let file = file.to_str().unwrap();
    let take = |app, access_key, file| {
        let flags = ["--access-key", access_key, "--secret-key-file", file];
        [&["app", "add", app][..], &flags].concat()
    };
    let taken = admin_json(&dir, &take("one", "AK1", file));
    assert_eq!(taken, json!({"clientId": "one", "accessKey": "AK1"}));
    let said = admin_with(&dir, &take("one", "AK2", "-"), "another\n");
    assert_eq!(said.0, Some(0), "{said:?}");
    assert!(!said.2.contains("not shown again"), "{said:?}");
    assert_eq!(clients(), before);
    let listed = admin_json(&dir, &["app", "list"]);
    assert_eq!(listed[0]["accessKeys"], json!(["AK1", "AK2"]));
    assert!(!stands_somewhere(&dir, "the secret key of old"));

    refused(
        &admin(&dir, &take("one", "A K", file)),
        2,
        "access key must be",
    );
    refused(
        &admin(&dir, &take("one", "AK3", "/no/such/file")),
        1,
        "/no/such/file",
    );
    refused(
        &admin_with(&dir, &take("one", "AK3", "-"), "\n"),
        1,
        "empty",
    );
    // Somebody else's; but the secret that was made is shown.
    let other = admin(&dir, &take("two", "AK1", file));
    refused(&other, 1, "belongs to one");
    assert!(other.1.contains("client secret"), "{other:?}");
}

#[test]
fn tokens_are_printed_alone() {
    let (_keep, dir) = data_dir();
    fs::create_dir(&dir).unwrap();
    let (code, token, note) = admin(&dir, &["token", "--operator", "alice", "--ttl-s", "60"]);
    assert_eq!((code, note.as_str()), (Some(0), ""));
    assert_eq!(mode(&dir.join("auth/signing-key.pem")), 0o600);
    let said = claims(token.trim_end());
    assert_eq!(
        (&said["sub"], &said["scope"]),
        (&json!("alice"), &json!("mepulse.operator"))
    );
    let life = said["exp"].as_u64().unwrap() - said["iat"].as_u64().unwrap();
    assert_eq!(life, 60);

    refused(&admin(&dir, &["token", "--app", "one"]), 1, "add it first");
    admin_json(&dir, &["app", "add", "one"]);
    let issued = admin_json(&dir, &["token", "--app", "one"]);
    assert_eq!(issued["expiresInS"], 900);
    let said = claims(issued["token"].as_str().unwrap());
    assert_eq!(said["sub"], "one");
    assert!(said["credential"].is_string() && said.get("exp_steady_ms").is_none());
}

#[test]
fn what_is_wrong_is_said_with_its_exit_code() {
    let (_keep, dir) = data_dir();
    refused(&admin(&dir, &["app", "rotate", "one"]), 1, "add it first");
    refused(&admin(&dir, &["app", "remove", "one"]), 1, "add it first");
    for command in ["add", "rotate", "remove"] {
        refused(
            &admin(&dir, &["app", command, "a/b"]),
            2,
            "appInstanceId must be",
        );
    }
    refused(
        &admin(&dir, &["token", "--app", "a/b"]),
        2,
        "appInstanceId must be",
    );
    refused(&admin(&dir, &["token"]), 2, "--operator");
    admin_json(&dir, &["app", "add", "one"]);
    refused(&admin(&dir, &["app", "add", "one"]), 1, "rotate it");

    admin_json(&dir, &["app", "add", "one", "--new-access-key"]);
    let key = dir.join("auth/access-keys.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let more = ["app", "add", "one", "--new-access-key"];
    refused(&admin(&dir, &more), 1, "chmod 600");
    fs::remove_file(&key).unwrap();
    refused(&admin(&dir, &more), 1, "access-keys.key");
    fs::write(dir.join("auth/clients.json"), r#"{"version":2}"#).unwrap();
    refused(&admin(&dir, &["app", "list"]), 1, "version 2");
}

#[test]
fn credentials_may_be_there_before_the_store() {
    let (_keep, dir) = data_dir();
    admin_json(&dir, &["app", "add", "one"]);
    refused(&admin(&dir, &["services"]), 1, "");
    let server = Server::start(&dir, &[]);
    server.stop();
    assert_eq!(
        admin_json(&dir, &["app", "list"])[0]["appInstanceId"],
        "one"
    );
    assert_eq!(admin(&dir, &["services"]).0, Some(0));
}
