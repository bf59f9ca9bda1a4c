//! An acknowledgement means *on the disk*: whatever was acknowledged is there after the power was
//! cut in the middle of the load, and nothing comes back that was deleted.
//!
//! The data directory is on an ext4 on a disk that forgets what was not synced, or keeps a random
//! half of it. Without the writer's own `fdatasync` these tests fail.

use crate::support::Server;
use crate::support::clients::Clients;
use crate::support::disk::{Disk, Survivors};
use crate::support::mount::{OnDisk, skip};
use crate::support::random::Random;

/// Room for a soak; only what is written takes memory.
const DISK_MIB: u64 = 512;
/// The cut comes before so many writes of the disk, of one to five per commit.
const WRITES_MAX: usize = 1500;

#[test]
fn everything_acknowledged_survives_a_power_cut_that_takes_all_that_was_not_synced() {
    cut("power cut", Survivors::Synced);
}

#[test]
fn everything_acknowledged_survives_a_power_cut_that_takes_half_of_what_was_not_synced() {
    cut("power cut (half)", Survivors::HalfOfTheRest);
}

/// The fewer clients share a commit, the more commits there are to be cut.
const ARGS: [&str; 2] = ["--set", "store.commit_linger_ms=0"];

/// Five rounds here; `MEPULSE_CRASH_ROUNDS` makes it a soak.
fn cut(test: &str, survivors: Survivors) {
    let rounds = std::env::var("MEPULSE_CRASH_ROUNDS").map_or(5, |rounds| rounds.parse().unwrap());
    let mut disk = Disk::new(DISK_MIB);
    let mut attached = match OnDisk::attach(&disk, true) {
        Ok(attached) => attached,
        Err(reason) => return skip(test, &reason),
    };
    let mut random = Random::from_env(test);
    let clients = Clients::default();
    let mut synced = 0;
    for round in 0..=rounds {
        let server = Server::start_with_log(&attached.data_dir(), &attached.log(), &ARGS);
        clients.check(&server);
        check_log(&server.log());
        if round == rounds {
            assert!(clients.acknowledged() > 100);
            // Some cuts come before the first sync of their round, most do not.
            assert!(synced > rounds / 2, "the disk is hardly ever synced");
            return server.stop();
        }
        let syncs = disk.syncs();
        let writes = random.below(WRITES_MAX);
        clients.load(&server, &mut random, || {
            disk.cut_after(writes);
            disk.wait_for_trouble();
            server.signal("KILL");
        });
        server.kill();
        synced += usize::from(disk.syncs() > syncs);
        drop(attached);
        disk = disk.after_the_cut(survivors, &mut random);
        attached = OnDisk::attach(&disk, false).unwrap();
    }
}

/// A cut costs nothing: no row is missing, skipped or mended. (A torn tail may be rehearsed first.)
fn check_log(log: &str) {
    for complaint in [
        "are not those that were committed",
        "skipped ",
        "mending the expiry index",
    ] {
        assert!(!log.contains(complaint), "{log}");
    }
}
