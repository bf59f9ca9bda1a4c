"""A server process of our own, and what Linux counts of it."""

import collections
import json
import os
import pathlib
import re
import selectors
import signal
import subprocess
import sys
import time

import load

START_S_MAX = 300
STOP_S_MAX = 60
ANNOUNCED = "mepulse listening on "
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


# What keeps a measurement from being made, in words for people.
TROUBLE = (RuntimeError, OSError, subprocess.SubprocessError)


def say(text):
    print(text, file=sys.stderr, flush=True)


def environment():
    """Nothing of the caller's own environment configures the server."""
    return {name: value for name, value in os.environ.items() if name != "RUST_LOG" and not name.startswith("MEPULSE_")}


class Server:
    """`mepulse serve` on a store. Whoever starts it ends it; its id is in `work/pids` for the caller's trap."""

    def __init__(self, binary, data, work):
        arguments = [binary, "serve", "--config", os.devnull, "--listen", "127.0.0.1:0", "--data-dir", str(data)]
        self.log = pathlib.Path(work) / "server.log"
        with open(self.log, "ab") as log:
            self.started = time.monotonic()
            self.process = subprocess.Popen(
                arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, env=environment()
            )
        self.pid = self.process.pid
        with open(pathlib.Path(work) / "pids", "a", encoding="ascii") as pids:
            pids.write(f"{self.pid}\n")
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            line = b""
            if selector.select(START_S_MAX):
                line = self.process.stdout.readline()
        self.listening_s = time.monotonic() - self.started
        if not line.decode().startswith(ANNOUNCED):
            self.kill()
            raise RuntimeError(f"the server does not start: {self.log.read_text()[-600:]}")
        self.url = line.decode().strip().removeprefix(ANNOUNCED)

    def kill(self):
        """kill -9, and waits until it is gone."""
        self.process.kill()
        self.process.wait(STOP_S_MAX)
        self.process.stdout.close()

    def stop(self):
        """In good order; an error if that is not what comes of it."""
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(STOP_S_MAX)
        finally:
            self.end()
        if code:
            raise RuntimeError(f"the server ended with {code}: {self.log.read_text()[-600:]}")

    def end(self):
        """However it is; nothing is left."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(STOP_S_MAX)
        self.process.stdout.close()

    def cpu_s(self):
        """User and system time of all its threads. Fields 14 and 15 of proc_pid_stat(5)."""
        text = pathlib.Path(f"/proc/{self.pid}/stat").read_text()
        fields = text.rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS_PER_S

    def status(self):
        """Memory now and at its highest, threads, open files."""
        text = pathlib.Path(f"/proc/{self.pid}/status").read_text()
        number = lambda name: int(re.search(rf"^{name}:\s+(\d+)", text, re.MULTILINE).group(1))
        return {
            "rss_bytes": number("VmRSS") * 1024,
            "hwm_bytes": number("VmHWM") * 1024,
            "threads": number("Threads"),
            "files": len(os.listdir(f"/proc/{self.pid}/fd")),
        }

    def metrics(self):
        """Every sample by its name without `mepulse_`; those that differ in their labels as a sum."""
        _, body = load.ask(self.url, "GET", "/metrics")
        found = collections.Counter()
        for name, value in re.findall(r"^mepulse_(\w+)(?:\{.*\})? (\S+)$", body.decode(), re.MULTILINE):
            found[name] += float(value)
        return found


def bench(binary, work, *arguments):
    """`mepulse bench … --json`, running."""
    with open(pathlib.Path(work) / "bench.log", "ab") as log:
        process = subprocess.Popen(
            [binary, "bench", *map(str, arguments), "--json"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment(),
        )
    with open(pathlib.Path(work) / "pids", "a", encoding="ascii") as pids:
        pids.write(f"{process.pid}\n")
    return process


def finish(process, work, timeout):
    """The report of a running bench; its failures are in it, whatever its exit code is."""
    try:
        out, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    if not out:
        said = (pathlib.Path(work) / "bench.log").read_text()[-600:]
        raise RuntimeError(f"mepulse bench ended with {process.returncode}: {said}")
    return json.loads(out)
