//! Many subscribers, and many events at once.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::sink::{Arrival, Do, Sink};
use super::told::{Figures, History, Kind, State, Told};
use super::{Producer, introduce, start, subscribe};
use crate::support::clients::wait_until;
use crate::support::{data_dir, id_of, service};

/// Requests at once while a test is being set up.
const HANDS: usize = 8;

/// Does something so many times, by several hands.
fn in_parallel<T: Send>(times: usize, act: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..HANDS {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::SeqCst);
                    if number >= times {
                        break;
                    }
                    let result = act(number);
                    done.lock().unwrap().push(result);
                }
            });
        }
    });
    done.into_inner().unwrap()
}

#[test]
fn of_a_thousand_subscribers_each_is_told_once() {
    let (_keep, dir) = data_dir();
    let server = start(&dir, &["notify.timeout_ms=600000"]);
    let sink = Sink::new();
    for app in 0..10 {
        introduce(&server, &format!("app-{app}"));
    }
    in_parallel(1000, |number| {
        let app = format!("app-{}", number % 10);
        subscribe(&server, &app, &sink.uri(&format!("/{number}")));
    });
    let mut producer = Producer::register(&server, "app-0", 0);
    wait_until("all are told", || sink.count() >= 1000);
    // Whoever is told of this one has been told of the first as often as it ever will be.
    producer.step(&server);
    wait_until("all are told of both", || sink.count() >= 2000);
    let mut told: HashMap<String, Vec<Arrival>> = HashMap::new();
    for arrival in sink.arrivals() {
        told.entry(arrival.path.clone()).or_default().push(arrival);
    }
    assert_eq!(told.len(), 1000);
    let happened = super::history(&[producer]);
    for arrivals in told.values() {
        let figures = Told::new(arrivals).wants_everything().is_all_of(&happened);
        assert_eq!((arrivals.len(), figures.duplicates), (2, 0));
    }
}

/// 3 000 services here; `MEPULSE_TRUTH_FULL` makes it 100 000.
#[test]
fn a_mass_expiry_is_told_to_everybody_while_one_hangs() {
    let is_full = std::env::var_os("MEPULSE_TRUTH_FULL").is_some();
    let services = if is_full { 100_000 } else { 3_000 };
    let (_keep, dir) = data_dir();
    let settings = |grace| {
        [
            "notify.timeout_ms=300",
            "liveness.min_interval_s=1",
            "apps.services_max_per_app=200000",
            grace,
        ]
    };
    let server = start(&dir, &settings("liveness.grace_min_ms=3600000"));
    let (sink, hung) = (Sink::new(), Sink::new());
    hung.does(|_| Do::Hang);
    introduce(&server, "app");
    let paths: Vec<String> = (0..9).map(|number| format!("/{number}")).collect();
    for path in &paths {
        subscribe(&server, "app", &sink.uri(path));
    }
    subscribe(&server, "app", &hung.uri("/hung"));
    let body = service("cam", Some(1));
    let ids: Vec<Uuid> = in_parallel(services, |_| {
        id_of(&server.register("app", &body)).parse().unwrap()
    });
    let all_confirmed = |sink: &Sink, paths: &[String], events| {
        wait_long_until("everybody is told", || {
            paths.iter().all(|path| sink.confirmed(path) >= events)
        });
    };
    all_confirmed(&sink, &paths, services);
    // With little grace after the restart, all are due at once.
    server.stop();
    let server = start(&dir, &settings("liveness.grace_min_ms=1300"));
    all_confirmed(&sink, &paths, 2 * services);
    let change = |state, kind| ("cam".into(), state, kind);
    let life = vec![
        change(State::Active, Kind::Added),
        change(State::Suspended, Kind::StateChanged),
    ];
    let happened: History = ids.into_iter().map(|id| (id, life.clone())).collect();
    let mut figures = Figures::default();
    let (mut first, mut last): (Option<Instant>, Option<Instant>) = (None, None);
    for path in &paths {
        let arrivals = sink.arrivals_at(path);
        figures += Told::new(&arrivals).wants_everything().is_all_of(&happened);
        let suspended = |a: &&Arrival| a.references.iter().any(|r| r.state == State::Suspended);
        let begun = arrivals.iter().find(suspended).map(|a| a.at);
        first = first.into_iter().chain(begun).min();
        last = last.max(arrivals.last().map(|a| a.at));
    }
    eprintln!(
        "  {services} services suspended at once, 10 subscribers, one of them hanging: \
         {} transitions; {figures} to the other nine, in {} notifications; {:?} from the first \
         SUSPENDED to the last arrival",
        2 * services,
        sink.count(),
        last.unwrap() - first.unwrap()
    );
    assert!(hung.arrivals().iter().all(|arrival| !arrival.confirmed));

    hung.does(|_| Do::Take);
    all_confirmed(&hung, &["/hung".to_owned()], 2 * services);
    let arrivals = hung.arrivals_at("/hung");
    let told = Told::new(&arrivals).wants_everything();
    eprintln!("  the tenth, later: {}", told.is_all_of(&happened));
    server.stop();
}

/// Waits, for half an hour at most.
fn wait_long_until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..36_000 {
        if is_so() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("waited too long: {what}");
}
