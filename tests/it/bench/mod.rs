//! `mepulse bench`: reports say what they promise, hide nothing, and nothing stays behind.

mod failures;
mod traces;

use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};

use crate::support::mepulse;

/// A short load with few services; long enough for an answer on a slow disk.
const BRIEF: [&str; 10] = [
    "--services",
    "20",
    "--connections",
    "4",
    "--warm-up",
    "50ms",
    "--duration",
    "1s",
    "--timeout",
    "30s",
];

fn bench(dir: &Path, args: &[&str]) -> Output {
    let mut command = mepulse();
    command.arg("bench").args(args).arg("--json");
    command.arg("--data-dir").arg(dir).output().unwrap()
}

/// The report of a run; it must be whole whatever came of the run.
fn report(output: &Output) -> Value {
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!("{error}: {}", String::from_utf8_lossy(&output.stderr));
    });
    assert_eq!(report["mepulse_version"], env!("CARGO_PKG_VERSION"));
    assert!(["debug", "release"].contains(&report["build"].as_str().unwrap()));
    for (part, names) in [
        ("machine", &["kernel", "cpu_model"][..]),
        ("disk", &["directory", "filesystem"]),
        ("server", &["url", "version", "durability"]),
    ] {
        for name in names {
            assert!(report[part][name].is_string(), "{part}.{name}: {report}");
        }
    }
    for (part, name) in [
        ("machine", "cores"),
        ("machine", "ram_bytes"),
        ("disk", "fsyncs"),
        ("disk", "fsync_p50_us"),
        ("disk", "fsync_p99_us"),
    ] {
        assert!(report[part][name].as_u64().unwrap() > 0, "{part}.{name}");
    }
    assert!(report["machine"]["load_average_1_min"].is_number());
    report
}

/// A run without any failure on a server of its own, of which nothing is left.
fn fine(args: &[&str]) -> Value {
    let directory = tempfile::tempdir().unwrap();
    let output = bench(directory.path(), args);
    let report = report(&output);
    assert_eq!(output.status.code(), Some(0), "{report}");
    assert_eq!(report["failures"]["total"], 0, "{report}");
    assert_eq!(report["server"]["own"], true);
    assert_eq!(report["server"]["durability"], "power-loss");
    let left = std::fs::read_dir(directory.path()).unwrap().count();
    assert_eq!(left, 0, "{report}");
    report["result"].clone()
}

fn positive(result: &Value, names: &[&str]) {
    for name in names {
        assert!(result[name].as_f64().unwrap() > 0.0, "{name}: {result}");
    }
}

fn latency(latency: &Value) {
    let at = |name: &str| latency[name].as_u64().unwrap();
    positive(latency, &["count", "mean_us"]);
    let order = ["p50_us", "p90_us", "p99_us", "p99_9_us", "max_us"].map(at);
    assert!(order.is_sorted(), "{latency}");
}

#[test]
fn every_load_reports_what_it_promises() {
    for (kind, more) in [
        ("beats", &[][..]),
        ("beats", &["--rate", "200", "--threads", "2"]),
        ("batch", &["--per-request", "7", "--apps", "2"]),
        ("mixed", &["--seed", "7"]),
    ] {
        let result = fine(&[&[kind][..], &BRIEF, more].concat());
        positive(&result, &["answers", "answers_per_s", "entries_per_s"]);
        latency(&result["latency"]);
        let open = more.contains(&"--rate");
        assert_eq!(result["loop"], if open { "open" } else { "closed" });
        assert_eq!(result["services"], 20);
        let used = &result["resources"];
        positive(used, &["rss_bytes", "store_bytes"]);
        assert!(used["cpu_per_answer_us"].is_number() && used["written_bytes"].is_number());
        if open {
            assert_eq!(
                (&result["asked_per_s"], &result["answers"]),
                (&json!(200), &json!(200))
            );
        }
        if kind == "batch" {
            assert_eq!(
                (&result["per_request"], &result["applications"]),
                (&json!(7), &json!(2))
            );
        }
        if kind == "mixed" {
            assert_eq!(result["seed"], 7);
            assert!(
                result["answers_by_kind"].as_object().unwrap().len() > 1,
                "{result}"
            );
        }
    }
    let result = fine(&[
        "register",
        "--warm-up",
        "0",
        "--duration",
        "1s",
        "--connections",
        "4",
    ]);
    positive(&result, &["answers_per_s"]);
    assert!(result["answers_by_kind"]["register"].as_u64().unwrap() > 0);
}

#[test]
fn verdicts_restarts_ratios_and_sizes_are_reported() {
    let result = fine(&[
        "expire",
        "--services",
        "10",
        "--probes",
        "5",
        "--at-once",
        "10",
        "--interval",
        "3",
        "--grace-percent",
        "0",
        "--grace-min-ms",
        "300",
        "--server-set",
        "liveness.min_interval_s=1",
        "--server-set",
        "truth.tick_ms=20",
        "--server-set",
        "truth.stall_ms=200",
    ]);
    assert_eq!(result["due_from"], "server-timestamp");
    assert_eq!(result["lag"]["count"], 5);
    assert_eq!(result["at_once_lag"]["count"], 10);
    latency(&result["lag"]);

    let result = fine(&[
        "recover",
        "--services",
        "20",
        "--rounds",
        "2",
        "--duration",
        "500ms",
    ]);
    assert_eq!(result["first_beat_ms"].as_array().unwrap().len(), 2);
    positive(
        &result,
        &[
            "beats",
            "first_beat_median_ms",
            "first_beat_max_ms",
            "store_bytes",
        ],
    );

    let result = fine(&[
        "ratio",
        "--services",
        "20",
        "--rounds",
        "2",
        "--connections",
        "2,4",
        "--warm-up",
        "0",
        "--duration",
        "500ms",
    ]);
    let rows = result["rows"].as_array().unwrap();
    assert_eq!((rows.len(), &rows[1]["connections"]), (2, &json!(4)));
    for row in rows {
        assert_eq!(row["mepulse_per_s"].as_array().unwrap().len(), 2);
        positive(
            row,
            &["mepulse_median_per_s", "baseline_median_per_s", "ratio"],
        );
    }

    let result = fine(&[
        "size",
        "--services",
        "100000",
        "--interval",
        "60",
        "--measure",
        "20,40",
        "--duration",
        "500ms",
    ]);
    positive(
        &result["measured"][1],
        &[
            "beats_per_s",
            "batch_beats_per_s",
            "rss_bytes",
            "start_ms",
            "steady_per_s",
        ],
    );
    positive(
        &result["extrapolated"],
        &[
            "beats_per_s",
            "share",
            "batch_share",
            "rss_bytes",
            "start_ms",
        ],
    );
}
