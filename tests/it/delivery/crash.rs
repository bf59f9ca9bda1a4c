//! `kill -9` of the server, at any moment.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::sink::{Do, Sink};
use super::{Producer, history, introduce, is_told, start, subscribe};
use crate::support::clients::wait_until;
use crate::support::data_dir;
use crate::support::random::Random;

#[test]
fn a_thousand_undelivered_notices_survive_kill_nine() {
    let (_keep, dir) = data_dir();
    // Fewer events are kept of a service than it has.
    let settings = ["store.commit_linger_ms=0", "history.keep_per_service=10"];
    let server = start(&dir, &settings);
    let mut sink = Sink::dead();
    introduce(&server, "app");
    subscribe(&server, "app", &sink.uri("/cb"));
    let mut producer = Producer::register(&server, "app", 0);
    for _ in 0..1000 {
        producer.step(&server);
    }
    let failed = || server.metric("mepulse_notifications_failed_total");
    wait_until("it was tried", || failed() > 0);
    server.kill();

    sink.rise();
    let server = start(&dir, &settings);
    let figures = is_told(&sink, "/cb", &history(&[producer.clone()]));
    eprintln!("  {figures}, in {} notifications", sink.count());
    producer.step(&server);
    is_told(&sink, "/cb", &history(&[producer]));
}

/// Five rounds here; `MEPULSE_CRASH_ROUNDS` makes it a soak.
#[test]
fn nothing_is_lost_by_kill_nine_at_any_moment() {
    let rounds = std::env::var("MEPULSE_CRASH_ROUNDS").map_or(5, |rounds| rounds.parse().unwrap());
    let mut random = Random::from_env("nothing_is_lost_by_kill_nine_at_any_moment");
    let (_keep, dir) = data_dir();
    let settings = [
        "store.commit_linger_ms=1",
        "notify.timeout_ms=300",
        "notify.batch_max=7",
        "history.keep_per_service=2",
    ];
    let sinks: Vec<Sink> = (0..4).map(|_| Sink::new()).collect();
    let mut server = start(&dir, &settings);
    introduce(&server, "app");
    for sink in &sinks {
        subscribe(&server, "app", &sink.uri("/cb"));
    }
    let mut producers: Vec<Producer> = (0..4)
        .map(|number| Producer::register(&server, "app", number))
        .collect();
    for _ in 0..rounds {
        for (number, sink) in sinks.iter().enumerate() {
            let mut random = random.fork();
            sink.does(move |_| match random.below(40) {
                _ if number == 0 => Do::Take,
                0 => Do::Refuse,
                1 => Do::HangUp,
                2 => Do::HangUpHalfway,
                3 => Do::Hang,
                4 => Do::TakeHuge,
                _ => Do::Take,
            });
        }
        let done = AtomicUsize::new(0);
        let enough = 20 + random.below(300);
        std::thread::scope(|scope| {
            for producer in &mut producers {
                let (server, done) = (&server, &done);
                scope.spawn(move || {
                    while producer.try_step(server) {
                        done.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
            wait_until("enough has happened", || {
                done.load(Ordering::SeqCst) >= enough
            });
            server.signal("KILL");
        });
        drop(server);
        server = start(&dir, &settings);
        for producer in &mut producers {
            producer.settle(&server);
        }
    }
    for sink in &sinks {
        sink.does(|_| Do::Take);
    }
    let happened = history(&producers);
    for sink in &sinks {
        eprintln!("  {}", is_told(sink, "/cb", &happened));
    }
}
