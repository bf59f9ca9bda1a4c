use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use super::*;
use crate::auth::hashing::Hashing;
use crate::auth::testing::at;
use crate::domain::AppInstanceId;

fn app(id: &str) -> AppInstanceId {
    AppInstanceId::parse(id).unwrap()
}

struct Fixture {
    _keep: tempfile::TempDir,
    credentials: Credentials,
    paths: Paths,
}

fn fixture() -> Fixture {
    let keep = tempfile::tempdir().unwrap();
    let data_dir = keep.path().join("data");
    let edgegallery = EdgeGallery::default();
    Fixture {
        credentials: Credentials::new(&data_dir, &edgegallery),
        paths: Paths::new(&data_dir, &edgegallery),
        _keep: keep,
    }
}

fn json_of(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn an_application_gets_a_secret_that_stands_nowhere() {
    let f = fixture();
    let one = app("app one");
    let secret = f
        .credentials
        .add(&one, true, at(1000).wall)
        .unwrap()
        .unwrap();
    assert_eq!(mode(&f.paths.directory), 0o700);
    assert_eq!(mode(&f.paths.clients), 0o600);
    assert!(!f.paths.cipher_key.exists());
    let text = fs::read_to_string(&f.paths.clients).unwrap();
    assert!(!text.contains(secret.as_str()), "{text}");
    let clients = Clients::load(&f.paths.clients).unwrap();
    let client = &clients.known[&one];
    assert_eq!(client.created, "1970-01-01T00:16:40Z");
    let hashing = Hashing::default();
    assert_eq!(
        hashing.verify(None, &secret, client.secret.as_deref()),
        Ok(true)
    );
    let exists = f.credentials.add(&one, true, at(1000).wall);
    assert!(matches!(exists, Err(AuthError::Exists(_))));

    let before = f.credentials.credential_of(&one).unwrap();
    let other = f.credentials.rotate(&one, at(2000).wall).unwrap();
    assert_ne!(*other, *secret);
    assert_ne!(f.credentials.credential_of(&one).unwrap(), before);
    let clients = Clients::load(&f.paths.clients).unwrap();
    let hash = clients.known[&one].secret.as_deref();
    assert_eq!(hashing.verify(None, &secret, hash), Ok(false));
    assert_eq!(hashing.verify(None, &other, hash), Ok(true));
    let unknown = f.credentials.rotate(&app("two"), at(2000).wall);
    assert!(matches!(unknown, Err(AuthError::Unknown(_))));
}

#[test]
fn a_removed_application_is_remembered_until_the_server_has_seen_to_it() {
    let f = fixture();
    let (one, two) = (app("one"), app("two"));
    for app in [&one, &two] {
        assert_eq!(f.credentials.add(app, false, at(0).wall).unwrap(), None);
        f.credentials.new_access_key(app).unwrap();
    }
    f.credentials.remove(&one).unwrap();
    let clients = Clients::load(&f.paths.clients).unwrap();
    assert_eq!(clients.removed.iter().collect::<Vec<_>>(), [&one]);
    assert!(!clients.known.contains_key(&one) && clients.known.contains_key(&two));
    let keys = AccessKeysOf::count(&f.paths);
    assert_eq!(keys, 1);
    assert!(matches!(
        f.credentials.remove(&one),
        Err(AuthError::Unknown(_))
    ));
    f.credentials.forget_removed(&one).unwrap();
    assert!(Clients::load(&f.paths.clients).unwrap().removed.is_empty());

    f.credentials.remove(&two).unwrap();
    f.credentials.add(&two, false, at(0).wall).unwrap();
    // Added again before the server has seen to it: its services of before are still to be removed.
    let clients = Clients::load(&f.paths.clients).unwrap();
    assert!(clients.removed.contains(&two) && clients.known.contains_key(&two));
    f.credentials.forget_removed(&two).unwrap();
    let clients = Clients::load(&f.paths.clients).unwrap();
    assert!(clients.removed.is_empty() && clients.known.contains_key(&two));
    assert_eq!(AccessKeysOf::count(&f.paths), 0);
}

/// What the list of access keys says.
struct AccessKeysOf;

impl AccessKeysOf {
    fn count(paths: &Paths) -> usize {
        json_of(&paths.access_keys)["keys"]
            .as_object()
            .unwrap()
            .len()
    }
}

#[test]
fn access_keys_are_encrypted_and_bound_to_their_application() {
    let f = fixture();
    let (one, two) = (app("one"), app("two"));
    f.credentials.add(&one, false, at(0).wall).unwrap();
    f.credentials.add(&two, true, at(0).wall).unwrap();
    f.credentials
        .add_access_key(&one, "AK", "the secret key")
        .unwrap();
    let made = f.credentials.new_access_key(&two).unwrap();
    assert_eq!((made.access_key.len(), made.secret_key.len()), (20, 64));
    assert!(!format!("{made:?}").contains(made.secret_key.as_str()));
    for path in [&f.paths.access_keys, &f.paths.cipher_key] {
        assert_eq!(mode(path), 0o600);
        let text = fs::read_to_string(path).unwrap();
        assert!(!text.contains("the secret key") && !text.contains(made.secret_key.as_str()));
    }
    let opened = OpenedKeys::load(&f.paths, true).unwrap();
    let key = opened.get("AK").unwrap();
    assert_eq!(
        (&key.app, key.secret.as_slice()),
        (&one, b"the secret key".as_slice())
    );
    assert!(opened.stands(&one, &key.credential) && !opened.stands(&two, &key.credential));
    assert!(!format!("{key:?}").contains("secret"));
    // Without use they stand, but nobody knows their secrets.
    let closed = OpenedKeys::load(&f.paths, false).unwrap();
    assert!(closed.get("AK").is_none() && closed.stands(&one, &key.credential));

    let taken = f.credentials.add_access_key(&two, "AK", "x");
    assert!(matches!(taken, Err(AuthError::AccessKeyTaken { .. })));
    f.credentials.add_access_key(&one, "AK", "another").unwrap();
    let again = OpenedKeys::load(&f.paths, true).unwrap();
    assert_eq!(again.get("AK").unwrap().secret.as_slice(), b"another");
    assert!(!again.stands(&one, &key.credential));
    let unknown = f.credentials.add_access_key(&app("three"), "AK3", "x");
    assert!(matches!(unknown, Err(AuthError::Unknown(_))));
    for (access_key, secret_key) in [("", "x"), ("a,b", "x"), ("a b", "x"), ("é", "x"), ("a", "")]
    {
        let unfit = f.credentials.add_access_key(&one, access_key, secret_key);
        assert!(matches!(unfit, Err(AuthError::Unfit(_))), "{access_key:?}");
    }

    // A secret key that is given to another application does not decrypt.
    let mut stored = json_of(&f.paths.access_keys);
    stored["keys"]["AK"]["application"] = "two".into();
    fs::write(&f.paths.access_keys, stored.to_string()).unwrap();
    let refused = OpenedKeys::load(&f.paths, true).unwrap_err();
    assert!(
        matches!(refused, AuthError::WrongCipherKey { .. }),
        "{refused}"
    );
}

#[test]
fn a_key_file_that_is_not_the_right_one_is_named() {
    let f = fixture();
    let one = app("one");
    f.credentials.add(&one, false, at(0).wall).unwrap();
    f.credentials.new_access_key(&one).unwrap();
    let key = &f.paths.cipher_key;
    let right = fs::read_to_string(key).unwrap();
    let refused = || {
        let server = OpenedKeys::load(&f.paths, true).unwrap_err().to_string();
        let admin = f.credentials.new_access_key(&one).unwrap_err().to_string();
        assert_eq!(server, admin);
        assert!(server.contains("access-keys.key"), "{server}");
        server
    };
    use base64::Engine;
    let other = base64::engine::general_purpose::STANDARD.encode([5; 32]);
    fs::write(key, &other).unwrap();
    assert!(refused().contains("decrypted"));
    for bad in ["", "*", &right[4..]] {
        fs::write(key, bad).unwrap();
        assert!(refused().contains("32 bytes"));
    }
    fs::write(key, &right).unwrap();
    fs::set_permissions(key, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(refused().contains("chmod 600"));
    fs::remove_file(key).unwrap();
    assert!(refused().contains("put it back"));
    assert!(!key.exists());
    assert!(OpenedKeys::load(&f.paths, false).is_ok());
    // What the message says can be done: all of them removed, there may be another key.
    let had = f.credentials.list().unwrap().remove(0).access_keys;
    for access_key in had {
        f.credentials.remove_access_key(&one, &access_key).unwrap();
    }
    f.credentials.new_access_key(&one).unwrap();
    assert!(OpenedKeys::load(&f.paths, true).is_ok());
}

#[test]
fn one_access_key_is_removed_and_nothing_else() {
    let f = fixture();
    let (one, two) = (app("one"), app("two"));
    for (app, access_key) in [(&one, "AK1"), (&two, "AK2")] {
        f.credentials.add(app, true, at(0).wall).unwrap();
        f.credentials.add_access_key(app, access_key, "x").unwrap();
    }
    f.credentials.add_access_key(&one, "AK3", "x").unwrap();
    let before = fs::read(&f.paths.clients).unwrap();
    let opened = OpenedKeys::load(&f.paths, true).unwrap();
    let credential = opened.get("AK1").unwrap().credential;
    f.credentials.remove_access_key(&one, "AK1").unwrap();
    for access_key in ["AK1", "AK2", ""] {
        let refused = f.credentials.remove_access_key(&one, access_key);
        assert!(matches!(refused, Err(AuthError::NoAccessKey { .. })));
    }
    let opened = OpenedKeys::load(&f.paths, true).unwrap();
    assert!(!opened.stands(&one, &credential) && opened.get("AK1").is_none());
    assert!(opened.get("AK2").is_some() && opened.get("AK3").is_some());
    assert_eq!(fs::read(&f.paths.clients).unwrap(), before);
}

#[test]
fn the_key_may_be_kept_elsewhere() {
    let keep = tempfile::tempdir().unwrap();
    let edgegallery = EdgeGallery {
        key_file: keep.path().join("elsewhere.key"),
        ..EdgeGallery::default()
    };
    let credentials = Credentials::new(&keep.path().join("data"), &edgegallery);
    credentials.add(&app("one"), false, at(0).wall).unwrap();
    credentials.new_access_key(&app("one")).unwrap();
    assert_eq!(mode(&edgegallery.key_file), 0o600);
    assert!(!credentials.directory().join("access-keys.key").exists());
}

#[test]
fn what_cannot_be_understood_is_refused_and_left_alone() {
    let f = fixture();
    f.credentials.add(&app("one"), true, at(0).wall).unwrap();
    f.credentials.new_access_key(&app("one")).unwrap();
    for path in [&f.paths.clients, &f.paths.access_keys] {
        let fine = json_of(path);
        let with = |member: &str, value: Value| {
            let mut changed = fine.clone();
            changed[member] = value;
            changed.to_string()
        };
        for (bad, named) in [
            (String::new(), "EOF"),
            ("{}".to_owned(), "version"),
            (with("version", json!(0)), "version 0"),
            (with("version", json!(2)), "newer"),
            (with("version", json!("1")), "invalid type"),
            (
                with(
                    "clients",
                    json!({"a/b": {"credential": uuid::Uuid::nil(), "secret": null, "created": ""}}),
                ),
                "",
            ),
            (
                with(
                    "clients",
                    json!({"a": {"credential": uuid::Uuid::nil(), "secret": "clear", "created": ""}}),
                ),
                "",
            ),
            (with("removed", json!(["a/b"])), ""),
            (
                with(
                    "keys",
                    json!({"a": {"application": "a", "credential": uuid::Uuid::nil(), "nonce": "", "secret": ""}}),
                ),
                "",
            ),
            (with("keys", json!({"a": {}})), ""),
            (with("more", json!(1)), "more"),
        ] {
            fs::write(path, &bad).unwrap();
            let refused = f.credentials.list().unwrap_err().to_string();
            let name = path.file_name().unwrap().to_str().unwrap();
            assert!(
                refused.contains(name) && refused.contains(named),
                "{bad}: {refused}"
            );
            assert!(f.credentials.remove(&app("one")).is_err());
            assert_eq!(fs::read_to_string(path).unwrap(), bad);
        }
        fs::write(path, fine.to_string()).unwrap();
    }
    let listed = f.credentials.list().unwrap();
    assert_eq!(listed.len(), 1);
    assert!(listed[0].has_secret && listed[0].access_keys.len() == 1);
}

#[test]
fn changes_at_once_are_all_there() {
    let f = fixture();
    std::thread::scope(|scope| {
        for at_once in 0..8 {
            let credentials = &f.credentials;
            scope.spawn(move || {
                let app = app(&format!("app {at_once}"));
                credentials.add(&app, false, at(0).wall).unwrap();
                credentials.new_access_key(&app).unwrap();
            });
        }
    });
    let listed = f.credentials.list().unwrap();
    assert_eq!(listed.len(), 8);
    assert!(listed.iter().all(|one| one.access_keys.len() == 1));
    assert!(OpenedKeys::load(&f.paths, true).is_ok());
}
