//! Callbacks that fail, hang and die; subscriptions that end.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use super::sink::{Do, Sink};
use super::told::{Figures, Told};
use super::{Producer, history, introduce, is_told, start, subscribe};
use crate::support::clients::wait_until;
use crate::support::random::Random;
use crate::support::{data_dir, get, send};

/// Commits cost little: what is tested here is not what a power cut leaves.
const QUICK: [&str; 2] = ["store.commit_linger_ms=0", "store.durability=process-crash"];

fn with<'a>(settings: &[&'a str]) -> Vec<&'a str> {
    [&QUICK, settings].concat()
}

#[test]
fn nothing_is_lost_whatever_the_sink_does() {
    let mut random = Random::from_env("nothing_is_lost_whatever_the_sink_does");
    let (_keep, dir) = data_dir();
    let server = start(
        &dir,
        &with(&["notify.timeout_ms=300", "notify.batch_max=3"]),
    );
    let elsewhere = Sink::new();
    introduce(&server, "app");
    let sinks: Vec<Sink> = (0..8)
        .map(|_| {
            let sink = Sink::new();
            subscribe(&server, "app", &sink.uri("/cb"));
            let (mut random, away) = (random.fork(), elsewhere.uri("/"));
            let mut in_a_row = 0;
            sink.does(move |_| {
                // After more failures in a row the pause is longer than this test waits.
                let drawn = if in_a_row < 5 { random.below(16) } else { 15 };
                in_a_row = if drawn < 6 { in_a_row + 1 } else { 0 };
                match drawn {
                    0 => Do::Refuse,
                    1 => Do::RetryAfter(0),
                    2 => Do::Hang,
                    3 => Do::HangUp,
                    4 => Do::HangUpHalfway,
                    5 => Do::Redirect(away.clone()),
                    6 => Do::TakeHuge,
                    7..=9 => Do::TakeWithBody,
                    _ => Do::Take,
                }
            });
            sink
        })
        .collect();
    let mut producer = Producer::register(&server, "app", 0);
    for step in 0..48 {
        producer.step(&server);
        if step % 16 == 0 {
            sinks[random.below(8)].slams(2);
        }
    }
    let happened = history(&[producer]);
    let mut figures = Figures::default();
    for sink in &sinks {
        figures += is_told(sink, "/cb", &happened);
    }
    eprintln!("  {figures}");
    assert!(figures.duplicates > 0, "nothing went wrong");
    assert_eq!(elsewhere.accepted(), 0, "redirects are not followed");
}

#[test]
fn nothing_is_lost_when_the_sink_dies_between_receiving_and_answering() {
    let (_keep, dir) = data_dir();
    let server = start(&dir, &with(&[]));
    let mut sink = Sink::new();
    introduce(&server, "app");
    subscribe(&server, "app", &sink.uri("/cb"));
    let mut producers = vec![Producer::register(&server, "app", 0)];
    for _ in 0..2 {
        is_told(&sink, "/cb", &history(&producers));
        sink.does(|_| Do::HangUp);
        let before = sink.count();
        producers[0].step(&server);
        wait_until("it has received", || sink.count() > before);
        sink.die();
        producers[0].step(&server);
        let failed = || server.metric("mepulse_notifications_failed_total");
        let before = failed();
        wait_until("it is refused a connection", || failed() > before);
        sink.does(|_| Do::Take);
        sink.rise();
    }
    let figures = is_told(&sink, "/cb", &history(&producers));
    assert!(figures.duplicates >= 2, "{figures}");
}

#[test]
fn one_that_hangs_delays_nobody_else() {
    let (_keep, dir) = data_dir();
    // Longer than anybody waits here.
    let server = start(&dir, &with(&["notify.timeout_ms=600000"]));
    let (hung, sink) = (Sink::new(), Sink::new());
    hung.does(|_| Do::Hang);
    introduce(&server, "app");
    for number in 0..20 {
        subscribe(&server, "app", &hung.uri(&format!("/{number}")));
    }
    subscribe(&server, "app", &sink.uri("/cb"));
    let mut producer = Producer::register(&server, "app", 0);
    // One host has a sixteenth of the places; the others of it wait.
    wait_until("all others hang", || hung.count() == 16);
    for _ in 0..50 {
        producer.step(&server);
    }
    let figures = is_told(&sink, "/cb", &history(&[producer]));
    assert_eq!((figures.duplicates, hung.count()), (0, 16));
}

#[test]
fn a_stop_does_not_wait_for_callbacks_and_nothing_is_lost() {
    let (_keep, dir) = data_dir();
    let patient = with(&["notify.timeout_ms=600000", "notify.batch_max=5"]);
    let server = start(&dir, &patient);
    let (sink, hung, mut dead) = (Sink::new(), Sink::new(), Sink::dead());
    introduce(&server, "app");
    for sink in [&sink, &hung, &dead] {
        subscribe(&server, "app", &sink.uri("/cb"));
    }
    let mut producers = vec![Producer::register(&server, "app", 0)];
    // It hangs from some point on: a notification is under way when the server stops.
    let taken = AtomicUsize::new(0);
    hung.does(move |_| match taken.fetch_add(1, Ordering::SeqCst) {
        0..3 => Do::Take,
        _ => Do::Hang,
    });
    for _ in 0..60 {
        producers[0].step(&server);
    }
    wait_until("one hangs", || {
        hung.arrivals().last().is_some_and(|a| !a.confirmed)
    });
    let begun = Instant::now();
    server.stop();
    eprintln!("  stopped after {:?}", begun.elapsed());

    hung.does(|_| Do::Take);
    dead.rise();
    let server = start(&dir, &patient);
    producers[0].step(&server);
    for sink in [&sink, &hung, &dead] {
        is_told(sink, "/cb", &history(&producers));
    }
}

#[test]
fn a_deleted_subscription_hears_nothing_but_what_was_under_way() {
    let mut random = Random::from_env("a_deleted_subscription");
    let (_keep, dir) = data_dir();
    let server = start(&dir, &with(&[]));
    let sink = Sink::new();
    introduce(&server, "app");
    subscribe(&server, "app", &sink.uri("/witness"));
    let mut producer = Producer::register(&server, "app", 0);
    for round in 0..10 {
        let path = format!("/{round}");
        let subscription = subscribe(&server, "app", &sink.uri(&path));
        let uri = format!("{}{subscription}", server.url);
        let before = random.below(20);
        let (mut at, mut steps) = (0, 0);
        for step in 0..30 {
            producer.step(&server);
            if step == before {
                assert_eq!(send("DELETE", &uri, &[], b"").status, 204);
                (at, steps) = (sink.arrivals_at(&path).len(), producer.steps);
            }
        }
        // Everybody else is told, so it would have been.
        is_told(&sink, "/witness", &history(&[producer.clone()]));
        let arrivals = sink.arrivals_at(&path);
        assert!(
            arrivals.len() <= at + 1,
            "{} came later",
            arrivals.len() - at
        );
        let told = Told::new(&arrivals).wants_everything();
        let newest = told.confirmed().last().map(|told| told.name.clone());
        let later = (steps + 1..=producer.steps).any(|s| newest == Some(super::name(0, s).into()));
        assert!(!later, "{newest:?} happened after the end");
        assert_eq!(get(&uri).status, 404);
    }
}

#[test]
fn a_deleted_subscription_is_not_tried_again() {
    let (_keep, dir) = data_dir();
    let server = start(&dir, &with(&[]));
    let sink = Sink::new();
    sink.does(|_| Do::Refuse);
    introduce(&server, "app");
    subscribe(&server, "app", &sink.uri("/witness"));
    let subscription = subscribe(&server, "app", &sink.uri("/gone"));
    let _producer = Producer::register(&server, "app", 0);
    let tried = |path: &str| sink.arrivals_at(path).len();
    wait_until("both were tried", || {
        tried("/witness") > 0 && tried("/gone") > 0
    });
    let uri = format!("{}{subscription}", server.url);
    assert_eq!(send("DELETE", &uri, &[], b"").status, 204);
    let (witness, gone) = (tried("/witness"), tried("/gone"));
    wait_until("the other is tried again and again", || {
        tried("/witness") >= witness + 3
    });
    assert!(tried("/gone") <= gone + 1);
}

#[test]
fn what_is_given_up_is_counted_and_what_follows_is_told() {
    let (_keep, dir) = data_dir();
    let server = start(
        &dir,
        &with(&["notify.give_up_after_s=2", "notify.batch_max=4"]),
    );
    let sink = Sink::new();
    sink.does(|_| Do::Refuse);
    introduce(&server, "app");
    subscribe(&server, "app", &sink.uri("/cb"));
    let mut producer = Producer::register(&server, "app", 0);
    for _ in 0..10 {
        producer.step(&server);
    }
    let dead_letters = || server.metric("mepulse_dead_letters_total");
    wait_until("something is given up", || dead_letters() > 0);
    sink.does(|_| Do::Take);
    for _ in 0..10 {
        producer.step(&server);
    }
    let newest = super::name(0, producer.steps);
    let confirmed = || {
        let arrivals = sink.arrivals_at("/cb");
        let told = Told::new(&arrivals);
        told.confirmed().map(|told| told.name.to_string()).collect()
    };
    wait_until("the newest is told", || {
        let told: Vec<String> = confirmed();
        told.last() == Some(&newest)
    });
    let told: Vec<String> = confirmed();
    let given_up = usize::try_from(dead_letters()).unwrap();
    let events = producer.steps + 1;
    eprintln!(
        "  {events} happened, {} told, {given_up} given up",
        told.len()
    );
    let expected: Vec<String> = (given_up..events).map(|s| super::name(0, s)).collect();
    assert_eq!(told, expected, "the oldest were given up, and nothing else");
}

#[test]
fn nobody_is_called_before_retry_after_is_over() {
    let (_keep, dir) = data_dir();
    let server = start(&dir, &with(&[]));
    let sink = Sink::new();
    let asked = Arc::new(Mutex::new(false));
    sink.does(move |_| {
        let first = !std::mem::replace(&mut *asked.lock().unwrap(), true);
        if first { Do::RetryAfter(2) } else { Do::Take }
    });
    introduce(&server, "app");
    subscribe(&server, "app", &sink.uri("/cb"));
    let producer = Producer::register(&server, "app", 0);
    is_told(&sink, "/cb", &history(&[producer]));
    let arrivals = sink.arrivals();
    let waited = arrivals[1].at - arrivals[0].at;
    // The server's clock counts whole milliseconds.
    assert!(waited >= Duration::from_millis(1998), "{waited:?}");
}
