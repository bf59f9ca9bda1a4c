//! Reports for people.

use crate::bench::report::{
    ExpireResult, Failures, Findings, Latency, LoadResult, RatioResult, RecoverResult, Report,
    SizeResult,
};
use crate::cli::human;

/// Rows of a name and what there is to say of it.
#[derive(Default)]
struct Rows(Vec<[String; 2]>);

impl Rows {
    fn add(&mut self, name: &str, value: impl Into<String>) {
        self.0.push([name.to_owned(), value.into()]);
    }
}

/// The whole report, a name and a value on each line.
pub(super) fn render(report: &Report) -> String {
    let mut rows = Rows::default();
    head(&mut rows, report);
    let mut text = match &report.result {
        Findings::Load(result) => load(&mut rows, result),
        Findings::Expire(result) => expire(&mut rows, result),
        Findings::Recover(result) => recover(&mut rows, result),
        Findings::Ratio(result) => ratio(result),
        Findings::Size(result) => size(&mut rows, result),
    };
    rows.add("failures", kinds(&report.failures));
    for (kind, failed) in &report.failures.by_kind {
        rows.add("", format!("{kind}: {}", failed.example));
    }
    text.insert_str(0, &human::table(None, rows.0));
    text
}

/// `3 x status 503, 1 x connection closed`, or `none`.
pub(super) fn kinds(failures: &Failures) -> String {
    if failures.total == 0 {
        return match failures.are_too_many() {
            true => "nothing was answered at all".to_owned(),
            false => "none".to_owned(),
        };
    }
    let kinds = failures.by_kind.iter();
    let kinds: Vec<_> = kinds
        .map(|(kind, failed)| format!("{} x {kind}", failed.count))
        .collect();
    kinds.join(", ")
}

fn head(rows: &mut Rows, report: &Report) {
    let (machine, disk, server) = (&report.machine, &report.disk, &report.server);
    rows.add(
        "bench",
        format!(
            "{}, mepulse {} ({} build{})",
            report.bench,
            report.mepulse_version,
            report.build,
            match report.build {
                "release" => "",
                _ => ": slow, its numbers say little",
            }
        ),
    );
    rows.add(
        "machine",
        format!(
            "{}, {} cores, {} of memory, {}, load {} before",
            machine.cpu_model,
            machine.cores,
            bytes(machine.ram_bytes),
            machine.kernel,
            machine.load_average_1_min
        ),
    );
    rows.add(
        "disk",
        format!(
            "{} at {}: fsync p50 {} µs, p99 {} µs",
            disk.filesystem,
            disk.directory.display(),
            disk.fsync_p50_us,
            disk.fsync_p99_us
        ),
    );
    let whose = match server.own {
        true => "started for this",
        false => server.url.as_str(),
    };
    let settings = match server.settings.is_empty() {
        true => String::new(),
        false => format!(", with {}", server.settings.join(" ")),
    };
    rows.add(
        "server",
        format!(
            "mepulse {}, {whose}, durability {}{settings}",
            server.version, server.durability
        ),
    );
}

fn load(rows: &mut Rows, result: &LoadResult) -> String {
    let pace = match result.asked_per_s {
        None => "closed loop".to_owned(),
        Some(rate) => format!("open loop, {rate}/s"),
    };
    rows.add(
        "load",
        format!(
            "{pace}, connections {}, services {}, applications {}, {} s after {} s of warm-up",
            result.connections,
            result.services,
            result.applications,
            result.duration_s,
            result.warm_up_s
        ),
    );
    if let Some(seed) = result.seed {
        rows.add("seed", seed.to_string());
    }
    rows.add("answers", format!("{:.0}/s", result.answers_per_s));
    if let Some(per_request) = result.per_request {
        rows.add(
            "heartbeats",
            format!("{:.0}/s, {per_request} per request", result.entries_per_s),
        );
    }
    if result.answers_by_kind.len() > 1 {
        let kinds = result.answers_by_kind.iter();
        let kinds: Vec<_> = kinds
            .map(|(kind, count)| format!("{count} x {kind}"))
            .collect();
        rows.add("", kinds.join(", "));
    }
    latency(rows, "latency", result.latency.as_ref());
    if let Some(used) = &result.resources {
        rows.add(
            "CPU per answer",
            format!(
                "{:.1} µs of the server, {:.1} µs of the load",
                used.cpu_per_answer_us, result.load_cpu_per_answer_us
            ),
        );
        rows.add("server's memory", bytes(used.rss_bytes));
        rows.add(
            "written",
            format!(
                "{}, {:.0} bytes per entry; the store has {}",
                bytes(used.written_bytes),
                used.written_per_entry_bytes,
                bytes(used.store_bytes)
            ),
        );
    }
    if !result.kept.is_empty() {
        rows.add("left there", result.kept.join(" "));
    }
    String::new()
}

fn latency(rows: &mut Rows, name: &str, latency: Option<&Latency>) {
    let text = latency.map(|it| {
        format!(
            "p50 {} µs, p90 {} µs, p99 {} µs, p99.9 {} µs, max {} µs",
            it.p50_us, it.p90_us, it.p99_us, it.p99_9_us, it.max_us
        )
    });
    rows.add(name, text.unwrap_or_else(|| "-".to_owned()));
}

fn expire(rows: &mut Rows, result: &ExpireResult) -> String {
    rows.add(
        "load",
        format!(
            "{} probes with interval {} s among {} services; grace {} %, at least {} ms",
            result.probes,
            result.interval_s,
            result.services,
            result.grace_percent,
            result.grace_min_ms
        ),
    );
    rows.add("counted from", result.due_from);
    latency(rows, "verdict's lag", result.lag.as_ref());
    if result.at_once > 0 {
        let name = format!("{} at once", result.at_once);
        latency(rows, &name, result.at_once_lag.as_ref());
    }
    String::new()
}

fn recover(rows: &mut Rows, result: &RecoverResult) -> String {
    rows.add(
        "load",
        format!(
            "{} services, {} connections, {} beats, killed {} times",
            result.services, result.connections, result.beats, result.rounds
        ),
    );
    rows.add(
        "first beat",
        format!(
            "median {:.0} ms, max {:.0} ms after the start",
            result.first_beat_median_ms, result.first_beat_max_ms
        ),
    );
    rows.add("store", bytes(result.store_bytes));
    String::new()
}

fn ratio(result: &RatioResult) -> String {
    let rates = |rates: &[f64]| {
        let rates: Vec<_> = rates.iter().map(|rate| format!("{rate:.0}")).collect();
        rates.join(" ")
    };
    let rows = result.rows.iter().map(|row| {
        [
            row.connections.to_string(),
            rates(&row.mepulse_per_s),
            format!("{:.0}", row.mepulse_median_per_s),
            rates(&row.baseline_per_s),
            format!("{:.0}", row.baseline_median_per_s),
            format!("{:.2}", row.ratio),
        ]
    });
    let header = [
        "connections",
        "mepulse/s",
        "median/s",
        "baseline/s",
        "median/s",
        "ratio",
    ];
    format!("\n{}", human::table(Some(header), rows.collect()))
}

fn size(rows: &mut Rows, result: &SizeResult) -> String {
    let need = &result.extrapolated;
    for measured in &result.measured {
        rows.add(
            "measured",
            format!(
                "{} services: {:.0} beats/s one by one, {:.0}/s in batches, start in {:.0} ms",
                measured.services,
                measured.beats_per_s,
                measured.batch_beats_per_s,
                measured.start_ms
            ),
        );
        rows.add(
            "",
            format!(
                "  at {} beats/s: {} of memory, {:.0} bytes written per beat",
                measured.steady_per_s,
                bytes(measured.rss_bytes),
                measured.written_per_beat_bytes
            ),
        );
    }
    let share = |share: f64, fits: bool| {
        let verdict = match fits {
            true => "fits",
            false => "does NOT fit: half of the machine should stay free",
        };
        format!("{:.1} % of this machine; {verdict}", share * 100.0)
    };
    rows.add(
        "extrapolated",
        format!(
            "{} services, each every {} s: {:.0} beats/s",
            result.services, result.interval_s, need.beats_per_s
        ),
    );
    rows.add("  one by one", share(need.share, need.fits));
    rows.add("  in batches", share(need.batch_share, need.batch_fits));
    rows.add("  memory", bytes(need.rss_bytes));
    rows.add(
        "  disk",
        format!(
            "very roughly {} written per day, one by one; hold bench beats --rate for longer to know",
            bytes(need.written_bytes_per_day)
        ),
    );
    rows.add("  start", human::duration(need.start_ms));
    String::new()
}

/// `512 B`, `1.5 KiB`, `23.0 MiB`, …
fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    let (mut whole, mut tenths, mut unit) = (count, 0, "B");
    for next in UNITS {
        if whole < 1024 {
            break;
        }
        (whole, tenths, unit) = (whole / 1024, whole % 1024 * 10 / 1024, next);
    }
    match unit {
        "B" => format!("{whole} B"),
        unit => format!("{whole}.{tenths} {unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_readable() {
        for (count, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1536, "1.5 KiB"),
            (23 << 20, "23.0 MiB"),
            (u64::MAX, "16383.9 PiB"),
        ] {
            assert_eq!(bytes(count), text);
        }
    }
}
