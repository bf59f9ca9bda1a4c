//! Whatever happens to the log of a killed server: it is refused untouched, or nothing that was
//! acknowledged is missing. Never a registry with holes in it.

use std::fs;
use std::path::Path;

use crate::support::random::Random;
use crate::support::{
    Server, beat, contents, copy, data_dir, get, liveness_of, long_service, start_on,
};

const SERVICES: usize = 120;

/// A killed server's data directory.
fn killed(dir: &Path) {
    let server = Server::start(dir, &[]);
    for number in 0..SERVICES {
        let name = format!("service-{number}");
        let info = server.register("app", &long_service(&name, Some(3600), 2500));
        for _ in 0..3 {
            assert_eq!(beat(&liveness_of(&server, &info)).status, 204);
        }
    }
    server.kill();
}

/// One kind of damage, somewhere.
pub(crate) fn damage(log: &mut Vec<u8>, random: &mut Random) -> String {
    let length = log.len();
    let at = random.below(length);
    let some = |random: &mut Random, max: usize| random.below(max.min(length - at)) + 1;
    match random.below(6) {
        0 => {
            log[at] ^= 1 << random.below(8);
            format!("one bit flipped at {at} of {length}")
        }
        1 => {
            let count = some(random, 100_000);
            log[at..at + count - 1].fill(0);
            format!("{count} bytes zeroed at {at} of {length}")
        }
        2 => {
            let page = at / 4096 * 4096;
            let end = (page + 4096).min(length);
            log[page..end].fill(0);
            format!("the page at {page} of {length} zeroed")
        }
        3 => {
            log.truncate(at);
            format!("cut at {at} of {length}")
        }
        4 => {
            log[at..].fill(0);
            format!("zeroed from {at} of {length} on")
        }
        _ => {
            let count = some(random, 50_000);
            log[at..at + count - 1].fill_with(|| random.next().to_le_bytes()[0]);
            format!("{count} bytes garbled at {at} of {length}")
        }
    }
}

#[test]
fn a_damaged_log_is_refused_untouched_or_has_lost_nothing() {
    let (_keep, original) = data_dir();
    killed(&original);
    let mut random = Random::from_env("damage");
    let rounds = std::env::var("MEPULSE_DAMAGE_ROUNDS").map_or(24, |n| n.parse().unwrap());
    for _ in 0..rounds {
        let (_keep, dir) = data_dir();
        copy(&original, &dir);
        let log = dir.join("sled/db");
        let mut bytes = fs::read(&log).unwrap();
        let what = damage(&mut bytes, &mut random);
        fs::write(&log, bytes).unwrap();
        let before = contents(&dir);
        let (mut child, line) = start_on(&dir);
        let found = line
            .trim()
            .strip_prefix("mepulse listening on ")
            .map(|url| {
                let list = format!("{url}/mec_service_mgmt/v1/applications/app/services");
                get(&list).json().as_array().map_or(0, Vec::len)
            });
        if found.is_some() {
            child.kill().unwrap();
        }
        let output = child.wait_with_output().unwrap();
        let message = String::from_utf8_lossy(&output.stderr);
        match found {
            Some(found) => {
                assert_eq!(found, SERVICES, "{what}: {message}");
                assert!(
                    !message.contains("are not those that were committed"),
                    "{what}: {message}"
                );
            }
            None => {
                assert_eq!(output.status.code(), Some(1), "{what}: {message}");
                assert!(contents(&dir) == before, "{what}: something was written");
            }
        }
    }
}
