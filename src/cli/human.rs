//! Durations and tables for people.

use comfy_table::{Table, presets};

/// A table without lines: easy to read, and to cut with `awk`. Ends with a newline.
pub(super) fn table<const N: usize>(header: Option<[&str; N]>, rows: Vec<[String; N]>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    if let Some(header) = header {
        table.set_header(header);
    }
    table.add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let lines = table.lines().map(|line| line.trim_end().to_owned() + "\n");
    lines.collect()
}

/// A length in its two largest units: `350 ms`, `12 s`, `3 min 5 s`, `2 h`, `4 d 1 h`.
pub(super) fn duration(ms: u64) -> String {
    let secs = ms / 1000;
    let two = |large: u64, large_unit: &str, small: u64, small_unit: &str| {
        if small == 0 {
            format!("{large} {large_unit}")
        } else {
            format!("{large} {large_unit} {small} {small_unit}")
        }
    };
    match secs {
        0 => format!("{ms} ms"),
        1..60 => format!("{secs} s"),
        60..3_600 => two(secs / 60, "min", secs % 60, "s"),
        3_600..86_400 => two(secs / 3_600, "h", secs % 3_600 / 60, "min"),
        _ => two(secs / 86_400, "d", secs % 86_400 / 3_600, "h"),
    }
}

/// An instant as seen from now, both in ms of one clock: `in 12 s`, `3 min ago`.
pub(super) fn relative(at_ms: u64, now_ms: u64) -> String {
    match at_ms.checked_sub(now_ms) {
        Some(left) => format!("in {}", duration(left)),
        None => format!("{} ago", duration(now_ms - at_ms)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_readable() {
        for (ms, text) in [
            (0, "0 ms"),
            (999, "999 ms"),
            (12_345, "12 s"),
            (60_000, "1 min"),
            (185_000, "3 min 5 s"),
            (7_200_000, "2 h"),
            (349_200_000, "4 d 1 h"),
        ] {
            assert_eq!(duration(ms), text);
        }
        assert_eq!(relative(15_000, 3_000), "in 12 s");
        assert_eq!(relative(0, 180_000), "3 min ago");
    }
}
