//! What listens on this machine is not called for a stranger.

use std::net::TcpListener;

use serde_json::json;

use super::sink::{Do, Sink};
use super::{Producer, introduce, subscribe};
use crate::support::clients::wait_until;
use crate::support::{Server, data_dir, get, post};

/// Every way to write this machine, its neighbours and its credentials.
const HOSTS: [&str; 40] = [
    "localhost",
    "LOCALHOST",
    "localhost.",
    "any.localhost",
    "127.0.0.1",
    "127.0.0.1.",
    "127.1",
    "127.255.255.254",
    "2130706433",
    "0x7f000001",
    "0x7f.1",
    "0177.0.0.1",
    "017700000001",
    "%31%32%37.0.0.1",
    "１２７.0.0.1",
    "127。0。0。1",
    "ⓛocalhost",
    "0",
    "0.0.0.0",
    "0.1.2.3",
    "[::]",
    "[::1]",
    "[0:0:0:0:0:0:0:1]",
    "[::127.0.0.1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::ffff:0:127.0.0.1]",
    "[64:ff9b::127.0.0.1]",
    "[2002:7f00:1::]",
    "169.254.169.254",
    "169.254.0.1",
    "[::ffff:169.254.169.254]",
    "[fe80::1]",
    "[fd00:ec2::254]",
    "100.100.100.200",
    "168.63.129.16",
    "224.0.0.1",
    "[ff02::1]",
    "240.0.0.1",
    "255.255.255.255",
];

#[test]
fn a_callback_to_this_machine_is_refused_in_words() {
    let (_keep, dir) = data_dir();
    let server = Server::start(&dir, &[]);
    introduce(&server, "app");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let subscriptions = format!("{}/subscriptions", server.app("app"));
    for host in HOSTS {
        for scheme in ["http", "https"] {
            let answer = post(
                &subscriptions,
                &json!({
                    "subscriptionType": "SerAvailabilityNotificationSubscription",
                    "callbackReference": format!("{scheme}://{host}:{port}/"),
                }),
            );
            let detail = answer.problem(400);
            assert!(detail.starts_with("callbackReference"), "{host}: {detail}");
        }
    }
    let list = get(&subscriptions).json();
    assert_eq!(list["_links"]["subscriptions"], json!([]));
    let _producer = Producer::register(&server, "app", 0);
    server.stop();
    let error = listener.accept().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn a_redirect_to_this_machine_is_not_followed() {
    let (_keep, dir) = data_dir();
    let (sink, inner) = (Sink::new(), Sink::new());
    // The one address that may be called; the other differs in its port and is another host, too.
    let allow = format!("notify.allow={}", sink.address().ip());
    let server = Server::start(&dir, &["--set", &allow]);
    let local = TcpListener::bind("127.0.0.1:0").unwrap();
    local.set_nonblocking(true).unwrap();
    let targets = [
        format!("http://{}/", local.local_addr().unwrap()),
        inner.uri("/"),
    ];
    let mut turn = 0;
    sink.does(move |_| {
        turn += 1;
        Do::Redirect(targets[turn % 2].clone())
    });
    introduce(&server, "app");
    subscribe(&server, "app", &sink.uri("/cb"));
    let _producer = Producer::register(&server, "app", 0);
    wait_until("it was redirected to both", || sink.count() >= 3);
    assert_eq!(inner.accepted(), 0);
    let error = local.accept().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn what_was_allowed_once_is_not_called_without_it() {
    let (_keep, dir) = data_dir();
    let sink = Sink::new();
    let server = super::start(&dir, &[]);
    introduce(&server, "app");
    subscribe(&server, "app", &sink.uri("/cb"));
    server.stop();
    let server = Server::start(&dir, &[]);
    let _producer = Producer::register(&server, "app", 0);
    let failed = || server.metric("mepulse_notifications_failed_total");
    wait_until("it was tried", || failed() >= 2);
    assert_eq!(sink.accepted(), 0);
}
