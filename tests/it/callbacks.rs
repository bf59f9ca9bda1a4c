//! Which callbacks a subscription may name, through the real binary.

use serde_json::json;

use crate::support::{Answer, Server, data_dir, get, post, service};

const APP: &str = "app";
/// Reserved for documentation: nobody is there.
const CALLBACK: &str = "http://192.0.2.1:9/cb";

/// A server that knows [`APP`], and the URI of its subscriptions.
fn start(args: &[&str]) -> (tempfile::TempDir, Server, String) {
    let (keep, dir) = data_dir();
    let server = Server::start(&dir, args);
    server.register(APP, &service("cam", None));
    let uri = format!("{}/subscriptions", server.app(APP));
    (keep, server, uri)
}

fn subscribe(uri: &str, callback: &str) -> Answer {
    let body = json!({
        "subscriptionType": "SerAvailabilityNotificationSubscription",
        "callbackReference": callback,
    });
    post(uri, &body)
}

/// How many there are.
fn count(uri: &str) -> usize {
    let list = get(uri).json();
    list["_links"]["subscriptions"]
        .as_array()
        .map_or(0, Vec::len)
}

#[test]
fn a_callback_is_an_http_uri_that_can_be_called() {
    let (_keep, _server, uri) = start(&[]);
    let long = |bytes: usize| format!("{CALLBACK}?{}", "x".repeat(bytes - CALLBACK.len() - 1));
    for bad in [
        "",
        "x",
        "/cb",
        "//192.0.2.1/cb",
        "?x",
        "http:",
        "http://",
        "http://:80/",
        "ftp://192.0.2.1/",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "unix:/run/x.sock",
        "ws://192.0.2.1/",
        "http://user@192.0.2.1/",
        "http://user:word@192.0.2.1/",
        "http://:word@192.0.2.1/",
        " http://192.0.2.1/",
        "http://192.0.2.1/ ",
        "http://192.0.2.1/a b",
        "http://192.0.2.1/\n",
        "http://192.0.2.1/\tx",
        "ht\ntp://192.0.2.1/",
        "http://192.0.2.1:65536/",
        "http://192.0.2.1:x/",
        "http://[::",
        "http://a b/",
        "http://a%00b/",
        "http://256.1.1.1/",
        &long(2049),
    ] {
        let detail = subscribe(&uri, bad).problem(400);
        assert!(detail.contains("callbackReference"), "{bad:?}: {detail}");
        assert!(!detail.contains("word"), "it tells no secrets: {detail}");
    }
    for good in [
        CALLBACK,
        "HTTP://Consumer.Example/CB",
        "https://consumer.example:8443/cb?x=%20&y#part",
        "http://10.1.2.3/",
        "http://[2001:db8::1]:9/",
        "http://consumer",
        "http://bücher.example/",
        &long(2048),
    ] {
        let answer = subscribe(&uri, good);
        assert_eq!(answer.status, 201, "{good}: {answer:?}");
        assert_eq!(answer.json()["callbackReference"], good, "as it was sent");
    }
}

/// This very machine, in all notations.
const LOOPBACK: [&str; 26] = [
    "127.0.0.1",
    "127.1",
    "127.0.1",
    "127.255.255.254",
    "2130706433",
    "0x7f000001",
    "0X7F.1",
    "0177.0.0.1",
    "017700000001",
    "0x7f.0.0.0x1",
    "127.0.0.1.",
    "%31%32%37.0.0.1",
    "①②⑦.0.0.1",
    "127。0。0。1",
    "[::1]",
    "[0:0:0:0:0:0:0:1]",
    "[0::0001]",
    "[::ffff:127.0.0.1]",
    "[::FFFF:7f00:1]",
    "[::127.0.0.1]",
    "[::ffff:0:127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "localhost",
    "LocalHost.",
    "a.b.localhost",
    "%6cocalhost",
];

/// Other places where no consumer is.
const SPECIAL: [&str; 20] = [
    "0",
    "0.0.0.0",
    "0.1.2.3",
    "[::]",
    "169.254.169.254",
    "0xa9fea9fe",
    "2852039166",
    "0251.0376.0251.0376",
    "[::ffff:169.254.169.254]",
    "[64:ff9b::a9fe:a9fe]",
    "169.254.1.1",
    "[fe80::1]",
    "100.100.100.200",
    "192.0.0.192",
    "168.63.129.16",
    "[fd00:ec2::254]",
    "224.0.0.1",
    "[ff02::1]",
    "255.255.255.255",
    "[2002:a9fe:a9fe::1]",
];

#[test]
fn a_callback_to_this_machine_or_a_metadata_service_is_refused_unless_allowed() {
    let (_keep, _server, uri) = start(&[]);
    for host in LOOPBACK.iter().chain(&SPECIAL) {
        for callback in [format!("http://{host}/cb"), format!("https://{host}:8443")] {
            let detail = subscribe(&uri, &callback).problem(400);
            assert!(
                detail.starts_with("callbackReference"),
                "{callback}: {detail}"
            );
            assert!(detail.contains("notify.allow"), "{callback}: {detail}");
        }
    }
    assert_eq!(count(&uri), 0);
    let (_keep, _server, uri) = start(&["--set", r#"notify.allow=["127.0.0.0/8","::1/128"]"#]);
    for host in LOOPBACK {
        let answer = subscribe(&uri, &format!("http://{host}:9/"));
        assert_eq!(answer.status, 201, "{host}: {answer:?}");
    }
    for host in SPECIAL {
        subscribe(&uri, &format!("http://{host}/")).problem(400);
    }
}
