//! What this machine is, as Linux tells it. What cannot be read is left empty.

use std::fs;

use serde::Serialize;

/// The machine that the load runs on, and a server of our own.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    /// Kernel and its release.
    pub kernel: String,
    /// The processor's name.
    pub cpu_model: String,
    /// Cores that this process may use.
    pub cores: usize,
    /// Memory in bytes.
    pub ram_bytes: u64,
    /// Processes that wanted to run in the minute before, in the mean: work of others that the
    /// measurement shares the machine with.
    pub load_average_1_min: f64,
}

impl Machine {
    /// Reads `/proc`: before a measurement, whose own load is not to be in it.
    pub(super) fn read() -> Self {
        let text = |path| fs::read_to_string(path).unwrap_or_default();
        let cpu = text("/proc/cpuinfo");
        let memory = text("/proc/meminfo");
        Self {
            kernel: format!("Linux {}", text("/proc/sys/kernel/osrelease").trim()),
            cpu_model: value_of(&cpu, "model name").unwrap_or_default().to_owned(),
            cores: std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
            load_average_1_min: text("/proc/loadavg")
                .split(' ')
                .next()
                .and_then(|load| load.parse().ok())
                .unwrap_or(0.0),
            ram_bytes: value_of(&memory, "MemTotal")
                .and_then(kilobytes)
                .unwrap_or(0),
        }
    }
}

/// The value of the first line `name : value`.
pub(super) fn value_of<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        (found.trim() == name).then(|| value.trim())
    })
}

/// `123 kB` in bytes.
pub(super) fn kilobytes(value: &str) -> Option<u64> {
    let number: u64 = value.strip_suffix("kB")?.trim().parse().ok()?;
    number.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_is_read_by_name() {
        let text = "processor\t: 0\nmodel name\t: Some CPU: fast\nMemTotal:   2048 kB\n";
        assert_eq!(value_of(text, "model name"), Some("Some CPU: fast"));
        assert_eq!(
            value_of(text, "MemTotal").and_then(kilobytes),
            Some(2_097_152)
        );
        assert_eq!(value_of(text, "model"), None);
        assert_eq!(kilobytes("12 pages"), None);
        let machine = Machine::read();
        assert!(machine.cores > 0 && machine.ram_bytes > 0);
    }
}
