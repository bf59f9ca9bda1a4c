//! Configuration: one default per key, precedence, errors that name the key.

use mepulse::config::{Config, Sources};

use crate::support::{data_dir, mepulse};

fn load(file: Option<&str>, env: &[(&str, &str)], set: &[&str]) -> Result<Config, String> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("mepulse.toml");
    std::fs::write(&path, file.unwrap_or_default()).unwrap();
    let own = |text: &&str| (*text).to_owned();
    Config::load(&Sources {
        file: Some(path),
        set: set.iter().map(own).collect(),
        env: env
            .iter()
            .map(|(name, value)| (own(name), own(value)))
            .collect(),
    })
    .map_err(|error| error.to_string())
}

#[test]
fn the_documented_file_is_the_built_in_defaults_and_names_every_key() {
    let text = include_str!("../../config.toml");
    assert_eq!(load(Some(text), &[], &[]).unwrap(), Config::default());
    let documented: toml::Table = toml::from_str(text).unwrap();
    assert_eq!(
        documented,
        toml::Table::try_from(Config::default()).unwrap()
    );
}

#[test]
fn flags_win_over_the_environment_over_the_file_over_the_defaults() {
    let file = "[liveness]\ndefault_interval_s = 11\nmin_interval_s = 6\ngrace_percent = 30\n";
    let env = [
        ("MEPULSE_LIVENESS__DEFAULT_INTERVAL_S", "12"),
        ("MEPULSE_LIVENESS__MIN_INTERVAL_S", "7"),
    ];
    let config = load(Some(file), &env, &["liveness.default_interval_s=13"]).unwrap();
    let liveness = config.liveness;
    assert_eq!(
        (
            liveness.default_interval_s,
            liveness.min_interval_s,
            liveness.grace_percent,
            liveness.max_interval_s
        ),
        (13, 7, 30, 86_400)
    );
}

#[test]
fn names_that_container_platforms_inject_are_not_ours() {
    let env = [
        ("MEPULSE_SERVICE_HOST", "10.0.0.1"),
        ("MEPULSE_PORT", "tcp://10.0.0.1:8088"),
    ];
    assert_eq!(load(None, &env, &[]).unwrap(), Config::default());
}

#[test]
fn every_mistake_is_named_with_its_key_and_place() {
    for (file, env, set, parts) in [
        (
            "[liveness]\ngrace_percnt = 1",
            None,
            None,
            &[
                "`liveness.grace_percnt`",
                "did you mean `liveness.grace_percent`",
                "mepulse.toml",
            ][..],
        ),
        (
            "[lifeness]\ngrace_percent = 1",
            None,
            None,
            &[
                "`lifeness.grace_percent`",
                "did you mean `liveness.grace_percent`",
            ],
        ),
        ("listen = \"x\"", None, None, &["`listen`"]),
        (
            "[server]\nlisten = 5",
            None,
            None,
            &["`server.listen`", "expected string, found integer"],
        ),
        (
            "[server]\nlisten = \"nowhere\"",
            None,
            None,
            &["`server.listen`", "mepulse.toml"],
        ),
        (
            "[server]\nqueue_max = -1",
            None,
            None,
            &["`server.queue_max`"],
        ),
        (
            "[server]\nqueue_max = 0",
            None,
            None,
            &["`server.queue_max` (0) must be between 1 and"],
        ),
        (
            "[store]\ndurability = \"maybe\"",
            None,
            None,
            &["`store.durability`", "power-loss"],
        ),
        ("nonsense", None, None, &["not valid TOML"]),
        (
            "",
            Some(("MEPULSE_STORE__CACHE_MB", "much")),
            None,
            &[
                "`store.cache_mb`",
                "MEPULSE_STORE__CACHE_MB",
                "whole number",
            ],
        ),
        (
            "",
            Some(("MEPULSE_STORE__CASH_MB", "1")),
            None,
            &["`store.cash_mb`", "did you mean `store.cache_mb`"],
        ),
        (
            "",
            None,
            Some("apps.auto_accept=ja"),
            &["`apps.auto_accept`", "true or false"],
        ),
        ("", None, Some("auto_accept"), &["section.key=value"]),
        (
            "",
            None,
            Some("liveness.min_interval_s=40"),
            &["`liveness.min_interval_s` (40)"],
        ),
        (
            "",
            None,
            Some("liveness.grace_min_ms=1199"),
            &["`liveness.grace_min_ms` (1199)", "1200"],
        ),
        (
            "",
            None,
            Some("server.public_url=https://mep.example/"),
            &["`server.public_url`"],
        ),
    ] {
        let error = load(Some(file), env.as_slice(), set.as_slice()).unwrap_err();
        for part in parts {
            assert!(
                error.contains(part),
                "{file:?} {env:?} {set:?}: {error:?} lacks {part:?}"
            );
        }
    }
    assert!(load(None, &[], &["liveness.grace_min_ms=1200"]).is_ok());
}

#[test]
fn wrong_usage_and_configuration_exit_with_two() {
    for args in [
        &["serve", "--set", "liveness.nonsense=1"][..],
        &["serve", "--config", "/nonexistent/mepulse.toml"],
        &["serve", "--nonsense"],
        &["nonsense"],
        &["admin", "show", "no-uuid"],
    ] {
        let (_keep, dir) = data_dir();
        std::fs::create_dir(&dir).unwrap();
        let mut command = mepulse();
        if args.first() == Some(&"admin") {
            crate::support::Server::start(&dir, &[]).stop();
            command.args(args).arg("--data-dir").arg(&dir);
        } else {
            command.args(args);
        }
        let output = command.output().unwrap();
        assert_eq!(
            output.status.code(),
            Some(2),
            "{args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(
            output.stdout.is_empty() && !output.stderr.is_empty(),
            "{args:?}"
        );
    }
}

#[test]
fn a_configuration_in_the_working_directory_is_read() {
    let (keep, dir) = data_dir();
    std::fs::write(keep.path().join("config.toml"), "[apps]\nnonsense = 1\n").unwrap();
    let output = mepulse()
        .current_dir(keep.path())
        .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(&dir)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("`apps.nonsense` in config.toml"));
}
