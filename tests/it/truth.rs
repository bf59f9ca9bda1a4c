//! Who is alive, through the real binary: living applications are never declared dead, dead ones not
//! later than can be proven, and nothing acknowledged is lost, whatever happens to the server.
//!
//! Prints a table; `MEPULSE_TRUTH_FULL` makes everything longer and larger:
//! `cargo test --locked --test it truth -- --nocapture | grep '^|'`

use std::sync::{Mutex, Once};
use std::time::Duration;

use crate::support::mount::skip;
use crate::support::random::Random;
use crate::support::truth::{Place, Row, Stage};

/// What a run takes.
#[derive(Clone, Copy)]
struct Scale {
    /// Applications that live, and that die.
    apps: (usize, usize),
    /// Before anything happens.
    calm: Duration,
    /// Longer than the longest interval and its grace.
    long: Duration,
    rounds: u32,
}

impl Scale {
    fn from_env() -> Self {
        let secs = Duration::from_secs_f64;
        match std::env::var_os("MEPULSE_TRUTH_FULL") {
            None => Self {
                apps: (100, 50),
                calm: secs(4.0),
                long: secs(6.5),
                rounds: 4,
            },
            Some(_) => Self {
                apps: (200, 100),
                calm: secs(8.0),
                long: secs(16.0),
                // Until credit ends for those with the short interval.
                rounds: 14,
            },
        }
    }
}

struct Scenario {
    /// `{long}` in it stands for how long that is.
    name: &'static str,
    place: Place,
    settings: &'static [&'static str],
    act: fn(&mut Stage, Scale),
    /// Whether the row shows that something happened.
    bites: fn(&Row) -> bool,
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            name: "",
            place: Place::Plain,
            settings: &[],
            act: |_, _| {},
            bites: |row| row.beats > 0,
        }
    }
}

impl Scenario {
    /// The row; the reason if it cannot be had here.
    fn run(&self, scale: Scale, random: &mut Random) -> Result<Row, String> {
        let act = scale.calm + scale.long;
        let random = random.fork();
        let mut stage = Stage::new(&self.place, self.settings, scale.apps, act, random)?;
        (self.act)(&mut stage, scale);
        let long = format!("{:?}", scale.long);
        Ok(stage.verdict(&self.name.replace("{long}", &long)))
    }
}

/// Runs scenarios side by side and prints their rows.
fn check(test: &str, scenarios: &[Scenario]) {
    static HEAD: Once = Once::new();
    let scale = Scale::from_env();
    let random = Mutex::new(Random::from_env(test));
    let run = |scenario: &Scenario| {
        let mut random = random.lock().unwrap().fork();
        let row = scenario.run(scale, &mut random);
        row.map_err(|reason| skip(scenario.name, &reason)).ok()
    };
    let run = &run;
    let mut rows: Vec<_> = std::thread::scope(|scope| {
        let running: Vec<_> = scenarios
            .iter()
            .map(|scenario| scope.spawn(move || (scenario, run(scenario))))
            .collect();
        running.into_iter().map(|row| row.join().unwrap()).collect()
    });
    // Where they were too much for the machine together, each has it for itself.
    for (scenario, row) in &mut rows {
        for _ in 0..2 {
            if row.as_ref().is_some_and(Row::is_void) {
                *row = run(scenario);
            }
        }
    }
    HEAD.call_once(|| println!("\n{}", Row::HEAD));
    let rows: Vec<_> = rows
        .into_iter()
        .filter_map(|(scenario, row)| Some((scenario, row?)))
        .collect();
    rows.iter().for_each(|(_, row)| println!("{row}"));
    for (scenario, row) in rows {
        let complaints = row.complaints.join("\n");
        assert!(complaints.is_empty(), "{row}\n{complaints}");
        assert!(!row.is_void(), "the test itself was too slow: {row}");
        assert!((scenario.bites)(&row), "nothing happened: {row:?}");
    }
}

const HOUR_S: i64 = 3600;

#[test]
fn no_outage_makes_the_living_dead_or_the_dead_alive() {
    check(
        "outages",
        &[
            Scenario {
                name: "kill -9, an outage of {long}",
                act: |stage, scale| {
                    stage.pause(scale.calm);
                    stage.kill_for(scale.long);
                },
                ..Scenario::default()
            },
            Scenario {
                name: "kill -9, an outage of 0.5 s",
                act: |stage, scale| {
                    stage.pause(scale.calm);
                    stage.kill_for(Duration::from_millis(500));
                },
                ..Scenario::default()
            },
            Scenario {
                name: "planned restart, an outage of {long}",
                act: |stage, scale| {
                    stage.pause(scale.calm);
                    stage.stop_for(scale.long);
                },
                ..Scenario::default()
            },
            Scenario {
                name: "crash loop, kill -9 every 3 s",
                act: |stage, scale| {
                    for _ in 0..scale.rounds {
                        stage.pause(Duration::from_secs(3));
                        stage.kill_for(Duration::ZERO);
                    }
                },
                ..Scenario::default()
            },
        ],
    );
}

#[test]
fn no_stall_makes_the_living_dead_or_the_dead_alive() {
    check(
        "stalls",
        &[
            Scenario {
                name: "SIGSTOP for {long}",
                act: |stage, scale| {
                    stage.pause(scale.calm);
                    stage.freeze_for(scale.long);
                },
                ..Scenario::default()
            },
            Scenario {
                name: "disk stalled for {long}",
                place: Place::SlowDisk,
                act: |stage, scale| {
                    stage.pause(scale.calm);
                    stage.stall_disk_for(scale.long);
                },
                bites: |row| row.unanswered > 0,
                ..Scenario::default()
            },
            Scenario {
                name: "queue full for {long}",
                settings: &[
                    "server.queue_max=16",
                    "store.commit_linger_ms=100",
                    "store.commit_linger_beats=64",
                ],
                act: |stage, scale| {
                    stage.pause(scale.calm);
                    stage.flood_for(scale.long);
                },
                bites: |row| row.refused > 0,
                ..Scenario::default()
            },
            Scenario {
                name: "connections over the limit for {long}",
                settings: &["server.connections_max=150"],
                act: |stage, scale| {
                    stage.pause(scale.calm);
                    stage.hog_for(scale.long);
                },
                bites: |row| row.refused > 0,
                ..Scenario::default()
            },
        ],
    );
}

#[test]
fn no_clock_makes_the_living_dead_or_the_dead_alive() {
    check(
        "clocks",
        &[
            Scenario {
                name: "steady",
                act: |stage, scale| stage.pause(scale.calm + scale.long),
                ..Scenario::default()
            },
            Scenario {
                name: "wall clock + 1 h, then - 1 h, while running",
                place: Place::FalseClock,
                act: |stage, scale| {
                    stage.pause(scale.calm);
                    stage.set_wall(HOUR_S);
                    stage.pause(scale.long);
                    stage.set_wall(-HOUR_S);
                },
                bites: |row| row.clock_was_wrong,
                ..Scenario::default()
            },
            Scenario {
                name: "wall clock + 1 h, then - 1 h, across restarts",
                place: Place::FalseClock,
                act: |stage, scale| {
                    stage.pause(scale.calm);
                    stage.kill_and_set_wall(HOUR_S, scale.long);
                    stage.pause(Duration::from_secs(2));
                    stage.kill_and_set_wall(-HOUR_S, Duration::ZERO);
                },
                bites: |row| row.clock_was_wrong,
                ..Scenario::default()
            },
        ],
    );
}
