//! Subscribers are told of everything, in order, whatever happens to them or to the server.

mod crash;
mod crowd;
mod faults;
mod forbidden;
mod sink;
mod steps;
mod told;

use std::path::Path;

use serde_json::json;
use uuid::Uuid;

use self::sink::Sink;
use self::told::{Figures, History, Kind, State, Told};
use crate::support::clients::wait_until;
use crate::support::{Server, get, id_of, post, self_of, service, try_send};

/// Starts a server that may call back to this machine.
fn start(data_dir: &Path, settings: &[&str]) -> Server {
    let mut args = vec!["--set", "notify.allow=127.0.0.0/8"];
    for setting in settings {
        args.extend(["--set", setting]);
    }
    Server::start(data_dir, &args)
}

/// Subscribes to everything; the path of the subscription. Whoever subscribes must be known.
fn subscribe(server: &Server, app: &str, callback: &str) -> String {
    let answer = post(
        &format!("{}/subscriptions", server.app(app)),
        &json!({
            "subscriptionType": "SerAvailabilityNotificationSubscription",
            "callbackReference": callback,
        }),
    );
    assert_eq!(answer.status, 201, "{answer:?}");
    answer.header("location").unwrap().to_owned()
}

/// Makes an application known.
fn introduce(server: &Server, app: &str) {
    server.register(app, &service("door", None));
}

/// A service whose name tells how often it was renamed. So every event can be told from every other.
#[derive(Debug, Clone)]
struct Producer {
    number: usize,
    id: Uuid,
    own: String,
    /// Renamed so many times, for certain.
    steps: usize,
    /// Once more, perhaps.
    in_doubt: bool,
}

impl Producer {
    fn register(server: &Server, app: &str, number: usize) -> Self {
        let info = server.register(app, &service(&name(number, 0), None));
        let own = self_of(server, &info);
        Self {
            number,
            id: id_of(&info).parse().unwrap(),
            own: own.strip_prefix(&server.url).unwrap().to_owned(),
            steps: 0,
            in_doubt: false,
        }
    }

    /// Renames it; `false`: the server is gone, and perhaps it has done so.
    fn try_step(&mut self, server: &Server) -> bool {
        let body = service(&name(self.number, self.steps + 1), None).to_string();
        let uri = format!("{}{}", server.url, self.own);
        self.in_doubt = true;
        match try_send("PUT", &uri, &[], body.as_bytes()) {
            Ok(answer) if answer.status == 200 => {
                self.steps += 1;
                self.in_doubt = false;
                true
            }
            Ok(answer) => {
                assert_eq!(answer.status, 503, "{answer:?}");
                false
            }
            Err(_) => false,
        }
    }

    fn step(&mut self, server: &Server) {
        assert!(self.try_step(server));
    }

    /// Settles what was in doubt.
    fn settle(&mut self, server: &Server) {
        let found = get(&format!("{}{}", server.url, self.own)).json();
        if found["serName"] == *name(self.number, self.steps) {
            self.in_doubt = false;
            return;
        }
        assert!(self.in_doubt, "{} is lost: {found}", self.steps);
        self.steps += 1;
        assert_eq!(found["serName"], *name(self.number, self.steps));
        self.in_doubt = false;
    }

    /// What happened to it from its registration on.
    fn history(&self) -> Vec<(Box<str>, State, Kind)> {
        let change = |step| {
            let kind = match step {
                0 => Kind::Added,
                _ => Kind::AttributesChanged,
            };
            (name(self.number, step).into(), State::Active, kind)
        };
        (0..=self.steps).map(change).collect()
    }
}

fn name(number: usize, step: usize) -> String {
    format!("s{number}-{step}")
}

fn history(producers: &[Producer]) -> History {
    producers.iter().map(|p| (p.id, p.history())).collect()
}

/// Waits until a subscriber was told of all of this, and holds it against that.
fn is_told(sink: &Sink, path: &str, happened: &History) -> Figures {
    let events = happened.values().map(Vec::len).sum::<usize>();
    wait_until(&format!("{path} is told of {events} events"), || {
        sink.confirmed(path) >= events
    });
    let arrivals = sink.arrivals_at(path);
    Told::new(&arrivals).wants_everything().is_all_of(happened)
}
