//! The whole registry among hundreds of fake applications, on clocks that move by hand and a store
//! that stalls, fails and is cut: every verdict is checked against the truth.
//!
//! `model`: the truth · `producer`: the applications · `world`: time, and what is sent to the registry ·
//! `answer`: what its answers make true · `trouble`: everything that can befall it · `check`: what must
//! hold · `found`: single cases

mod answer;
mod check;
mod found;
mod model;
mod producer;
mod trouble;
mod world;

use self::world::Sim;
use crate::support::random::Random;

/// Of the registry under test.
const STALL_MS: u64 = 1_000;

/// Commands and troubles in a run, unless `MEPULSE_SIMULATION_STEPS` says otherwise.
const STEPS: u64 = 40_000;

#[tokio::test]
async fn no_living_service_is_suspended_and_no_dead_one_is_late() {
    run("simulation", 150, steps()).await;
}

/// Among a few, what one service needs is not kept for the sake of another.
#[tokio::test]
async fn nor_when_there_are_only_a_few() {
    run("simulation of a few", 3, steps() / 10).await;
}

fn steps() -> u64 {
    let steps = std::env::var("MEPULSE_SIMULATION_STEPS").map(|steps| steps.parse().unwrap());
    steps.unwrap_or(STEPS)
}

/// An ordinary run is always the same; a longer one looks for something new.
async fn run(name: &str, producers: usize, steps: u64) {
    let random = if steps > STEPS {
        Random::from_env(name)
    } else {
        Random::from_env_or(name, 1)
    };
    let mut sim = Sim::new(random, producers);
    sim.run(steps).await;
    eprintln!("{name}: {}", sim.summary());
}

/// Both ends can be drawn.
fn between(random: &mut Random, from: u64, to: u64) -> u64 {
    from + random.next() % (to - from + 1)
}

/// Every order of magnitude is as likely.
fn spread(random: &mut Random, from: u64, to: u64) -> u64 {
    let doublings = (to / from).ilog2() as usize;
    let low = from << random.below(doublings + 1);
    between(random, low, (low * 2).min(to))
}
