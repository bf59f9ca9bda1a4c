//! A wall clock that can be stepped for one process: a library in front of the C library's.

use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

/// Rust's standard library asks the C library for the time; the steady clocks are left alone.
const SOURCE: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = (int)syscall(SYS_clock_gettime, clock, now);
    const char *path = getenv("WALL_STEP");
    if (failed || clock != CLOCK_REALTIME || !path)
        return failed;
    char text[24] = "";
    int file = open(path, O_RDONLY);
    if (file >= 0 && read(file, text, sizeof text - 1) > 0)
        now->tv_sec += atol(text);
    if (file >= 0)
        close(file);
    return 0;
}
"#;

/// The library, and the file that says by how much the clock is wrong.
pub(super) struct Wall {
    directory: TempDir,
}

impl Wall {
    /// Compiles it: where Rust links, there is a C compiler.
    pub(super) fn new() -> Result<Self, String> {
        let directory = tempfile::tempdir().unwrap();
        let wall = Self { directory };
        std::fs::write(wall.file("wall.c"), SOURCE).unwrap();
        wall.step(0);
        let mut compiler = Command::new("cc");
        compiler
            .args(["-shared", "-fPIC", "-o"])
            .args([wall.file("wall.so"), wall.file("wall.c")]);
        match compiler.output() {
            Ok(output) if output.status.success() => Ok(wall),
            Ok(output) => Err(format!("cc: {}", String::from_utf8_lossy(&output.stderr))),
            Err(error) => Err(format!("cc: {error}")),
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Puts the library in front of a command's.
    pub(super) fn deceive(&self, command: &mut Command) {
        command
            .env("LD_PRELOAD", self.file("wall.so"))
            .env("WALL_STEP", self.file("step"));
    }

    /// From now on the clock is so many seconds ahead.
    pub(super) fn step(&self, seconds: i64) {
        // At once: nobody may read half a number.
        let new = self.file("new");
        std::fs::write(&new, seconds.to_string()).unwrap();
        std::fs::rename(new, self.file("step")).unwrap();
    }
}
