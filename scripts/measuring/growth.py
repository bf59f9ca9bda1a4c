"""What mepulse costs as it grows; see growth.sh."""

import argparse
import json
import os
import pathlib
import random
import shutil
import signal
import statistics
import subprocess
import sys
import time

import disk
import load
from server import TROUBLE, Server, bench, finish, say

PER_APP = 1000
CONNECTIONS = 64
OPEN_PER_S = 5000
# So many beat while the others are quiet.
BEATING = 1000
PACED_PER_S = 1000
WARM_UP_S = 2.0
WINDOW_S = 5.0
DEVICE_WINDOW_S = 20.0
PROBES = 200
LOOP_GIB = 16
METHOD = {
    "services": "all registered with `mepulse bench beats --keep`: interval 86400 s, 1000 in each application",
    "beats_per_s": "closed loop of `mepulse bench beats`, 64 connections, all services in turn, application by application; "
    "counted by the server's /metrics in windows of 5 s",
    "cpu": "user and system time of the server process over heartbeats that it counted as accepted, same windows; "
    "open: 5000 beats/s due at fixed instants, services drawn at random from all; "
    "quiet: the same, drawn from 1000 of them, the others are silent",
    "memory": "VmRSS and VmHWM; registered: before any beat but the first few (beats_by_then); "
    "restarted: 2 s after a start from a clean stop",
    "store": "what the data directory takes on its disk, registered: as memory; loaded: after all measurements but the device's",
    "kill_to_first_beat": "from kill -9 under a closed loop of a script's beats, 64 connections, to the first accepted beat of the next process; "
    "the worst round: the first has the registrations and all load before it to replay, the others two seconds of beats",
    "clean_start": "from the start of the process to its start-up line, after a stop in good order; the worst round",
    "expire": "`mepulse bench expire`, all services quiet in the way, nothing else under way",
    "device": "bytes written to the block device while 1000 beats/s are due, less an idle window of the same length, "
    "over accepted beats; gross: nothing taken off, because on a device of its own (only_ours) idle writes are the server's; null where others write as much as we do; latencies in the same windows, from when a beat was due",
    "rounds": "figures with rounds are medians of them, but for those that say worst",
}


class Growth:
    """All measurements of one number of services, on one store."""

    def __init__(self, options, services):
        self.options = options
        self.services = services
        self.data = options.work / "data"
        self.server = None
        self.ids = []
        self.failures = {}
        self.report = None

    def run(self):
        began = time.monotonic()
        row = {"services": self.services}
        try:
            for step in (self.register_and_load, self.open_loop, self.kills, self.clean_starts, self.expire, self.device):
                say(f"{self.services} services: {step.__name__.replace('_', ' ')}")
                row.update(step())
            self.server.stop()
        finally:
            if self.server:
                self.server.end()
        shutil.rmtree(self.data)
        row["failures"] = {"total": sum(self.failures.values()), "by_kind": self.failures}
        row["took_s"] = round(time.monotonic() - began, 1)
        return row

    def start(self, data=None):
        self.server = Server(self.options.binary, data or self.data, self.options.work)
        return self.server

    def failed(self, kinds):
        for kind, count in kinds.items():
            self.failures[kind] = self.failures.get(kind, 0) + count

    def counted(self):
        """Where the server is: time, CPU, accepted beats."""
        metrics = self.server.metrics()
        return time.monotonic(), self.server.cpu_s(), metrics["heartbeats_total"]

    def register_and_load(self):
        rounds = self.options.rounds
        server = self.start()
        empty = server.status()
        look_s = 2.0
        length = look_s + WARM_UP_S + rounds * (WINDOW_S + 0.2) + 2.0
        began = time.monotonic()
        # Its own latencies and rate are not used: it is stopped for a while.
        loading = bench(
            self.options.binary, self.options.work, "beats", "--url", server.url, "--keep",
            "--services", self.services, "--connections", CONNECTIONS, "--data-dir", self.options.dir,
            "--warm-up", "0ms", "--duration", f"{length * 1000:.0f}ms",
        )  # fmt: skip
        try:
            bound = began + 60 + self.services / 500
            while server.metrics()["registrations_total"] < self.services:
                if loading.poll() is not None or time.monotonic() > bound:
                    raise RuntimeError("the services were not registered in time")
                time.sleep(0.05)
            # Nobody beats while memory and disk are looked at.
            loading.send_signal(signal.SIGSTOP)
            took = time.monotonic() - began
            time.sleep(look_s)
            registered, sizes = server.status(), disk.sizes(self.data)
            by_then = server.metrics()["heartbeats_total"]
            loading.send_signal(signal.SIGCONT)
            time.sleep(WARM_UP_S)
            windows = []
            for _ in range(rounds):
                before = self.counted()
                time.sleep(WINDOW_S)
                windows.append((before, self.counted()))
            if loading.poll() is not None:
                raise RuntimeError("the load was over before it was measured")
            self.report = finish(loading, self.options.work, 120)
        finally:
            if loading.poll() is None:
                loading.kill()
                loading.communicate()
        failures = self.report["failures"]["by_kind"]
        self.failed({kind: failed["count"] for kind, failed in failures.items()})
        self.ids = load.service_ids(server.url, self.report["result"]["kept"])
        if len(self.ids) != self.services:
            raise RuntimeError(f"{len(self.ids)} services are in the store, not {self.services}")
        return {
            "registering_s": round(took, 2),
            "beats_by_then": int(by_then),
            "rss_empty_bytes": empty["rss_bytes"],
            "rss_registered_bytes": registered["rss_bytes"],
            "hwm_registered_bytes": registered["hwm_bytes"],
            "store_registered_bytes": sizes["taken_bytes"],
            "beats_per_s": figure([per_s(*window) for window in windows]),
            "cpu_per_beat_capacity_us": figure([cpu_us(*window) for window in windows]),
            "load_cpu_per_beat_capacity_us": round(self.report["result"]["load_cpu_per_answer_us"], 1),
        }

    def open_loop(self):
        spread = self.open_windows(self.ids)
        few = random.Random(self.services).sample(self.ids, min(BEATING, len(self.ids)))
        return {
            **spread,
            "cpu_per_beat_quiet_us": self.open_windows(few)["cpu_per_beat_open_us"],
        }

    def open_windows(self, ids):
        beats = load.Beats(self.server.url, ids, CONNECTIONS)
        windows, latencies = [], []
        try:
            self.failed(beats.run(WARM_UP_S, OPEN_PER_S).failures)
            for _ in range(self.options.rounds):
                before = self.counted()
                tally = beats.run(WINDOW_S, OPEN_PER_S)
                windows.append((before, self.counted()))
                latencies.append(tally.latency())
                self.failed(tally.failures)
            self.failed(beats.settle().failures)
        finally:
            beats.close()
        return {
            "open_beats_per_s": figure([per_s(*window) for window in windows]),
            "cpu_per_beat_open_us": figure([cpu_us(*window) for window in windows]),
            "open_latency_p50_us": figure([one and one["p50_us"] for one in latencies]),
            "open_latency_p99_us": figure([one and one["p99_us"] for one in latencies]),
        }

    def kills(self):
        whole, own = [], []
        for number in range(self.options.rounds):
            beats = load.Beats(self.server.url, self.ids, CONNECTIONS, seed=number)
            try:
                self.failed(beats.run(WARM_UP_S).failures)
                killed = time.monotonic()
                self.server.kill()
            finally:
                beats.close()
            self.first_beat(self.start())
            now = time.monotonic()
            whole.append(now - killed)
            own.append(now - self.server.started)
        return {"kill_to_first_beat_s": worst(whole), "start_to_first_beat_s": worst(own)}

    def first_beat(self, server):
        status, body = load.ask(server.url, "PATCH", f"{load.ROOT}/{self.ids[0].decode()}/liveness", load.BEAT)
        if status not in (200, 204):
            raise RuntimeError(f"the first beat after a restart: status {status} {body[:200]}")

    def clean_starts(self):
        starts, memory, highest = [], [], []
        for _ in range(self.options.rounds):
            self.server.stop()
            starts.append(self.start().listening_s)
            time.sleep(2.0)
            status = self.server.status()
            memory.append(status["rss_bytes"])
            highest.append(status["hwm_bytes"])
        return {
            "clean_start_s": worst(starts),
            "rss_restarted_bytes": figure(memory),
            "hwm_restarted_bytes": figure(highest),
        }

    def expire(self):
        found = []
        for _ in range(self.options.rounds):
            running = bench(
                self.options.binary, self.options.work, "expire", "--url", self.server.url,
                "--services", 0, "--probes", PROBES, "--data-dir", self.options.dir,
            )  # fmt: skip
            report = finish(running, self.options.work, 300)
            failures = report["failures"]["by_kind"]
            self.failed({kind: failed["count"] for kind, failed in failures.items()})
            found.append(report["result"]["lag"] or {})
        return {
            "store_loaded_bytes": disk.sizes(self.data)["taken_bytes"],
            "lag_probes": PROBES,
            "lag_p50_us": figure([one.get("p50_us") for one in found]),
            "lag_p99_us": figure([one.get("p99_us") for one in found]),
            "lag_max_us": max((one["max_us"] for one in found if one), default=None),
        }

    def device(self):
        """On a disk of our own if there can be one, because only then the writes are only ours."""
        own = disk.LoopDisk(self.options.work, LOOP_GIB)
        why = "not wanted" if self.options.no_loop else own.attach()
        if why:
            say(f"no loop device ({why}): what others write to the device is counted, too")
            return {"device": {**self.paced(disk.Device(self.data)), "no_loop": why}}
        try:
            self.server.stop()
            data = own.path / "data"
            subprocess.run(["cp", "-a", str(self.data), str(data)], check=True, timeout=600)
            subprocess.run(["sync", "-f", str(own.path)], check=True, timeout=300)
            self.start(data)
            found = self.paced(disk.Device(data, own=True))
            self.server.stop()
        finally:
            self.server.end()
            own.detach()
        self.start()
        return {"device": {**found, "no_loop": None}}

    def paced(self, device):
        beats = load.Beats(self.server.url, self.ids, CONNECTIONS)
        try:
            quiet = device.settle()
            idle = device.written_bytes()
            time.sleep(DEVICE_WINDOW_S)
            idle = device.known and device.written_bytes() - idle
            self.failed(beats.run(WARM_UP_S, PACED_PER_S).failures)
            written, gross, latencies = [], [], []
            for _ in range(self.options.rounds):
                before, start = device.written_bytes(), self.counted()
                tally = beats.run(DEVICE_WINDOW_S, PACED_PER_S)
                after, end = device.written_bytes(), self.counted()
                self.failed(tally.failures)
                latencies.append(tally.latency() or {})
                if device.known:
                    gross.append((after - before) / max(1, end[2] - start[2]))
                # Where others write more than we do, the difference says nothing.
                if device.known and (device.own or idle < (after - before) / 2):
                    written.append((after - before - idle) / max(1, end[2] - start[2]))
            self.failed(beats.settle().failures)
        finally:
            beats.close()
        return {
            **device.about(),
            "rate_per_s": PACED_PER_S,
            "window_s": DEVICE_WINDOW_S,
            "idle_bytes": idle if device.known else None,
            "quiet_before": quiet,
            "bytes_per_beat": figure(written),
            "gross_bytes_per_beat": figure(gross),
            **{f"latency_{name}": figure([one.get(name) for one in latencies]) for name in ("mean_us", "p50_us", "p99_us")},
        }


def per_s(before, after):
    return (after[2] - before[2]) / (after[0] - before[0])


def cpu_us(before, after):
    return (after[1] - before[1]) * 1e6 / max(1.0, after[2] - before[2])


def figure(rounds):
    """A number and the rounds that it is the median of; null where nothing could be measured."""
    rounds = [round(one, 4) for one in rounds if one is not None]
    return {"median": round(statistics.median(rounds), 4) if rounds else None, "rounds": rounds}


def worst(rounds):
    """The same where the rounds are not alike, and the worst one is what counts."""
    told = figure(rounds)
    return {"worst": max(told["rounds"], default=None), **told}


def write(path, found):
    """As a whole or not at all."""
    fresh = path.with_name(path.name + ".new")
    fresh.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    os.replace(fresh, path)


def main():
    parser = argparse.ArgumentParser()
    for name in ("binary", "work", "dir", "out"):
        parser.add_argument(f"--{name}", type=pathlib.Path, required=True)
    parser.add_argument("--sizes", type=lambda text: sorted({int(one) for one in text.split(",")}), required=True)
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--no-loop", action="store_true")
    options = parser.parse_args()
    # An end in good order: whatever is running is ended on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    found = {}
    for services in options.sizes:
        growth = Growth(options, services)
        try:
            row = growth.run()
        except TROUBLE as error:
            say(f"{services} services: {error}")
            sys.exit(1)
        report = growth.report
        if not found:
            found = {"bench": "growth", "complete": False}
            found.update({name: report[name] for name in ("mepulse_version", "build", "machine", "disk")})
            # Whose disk it was says nothing to others.
            del found["disk"]["directory"]
            found["server"] = {name: report["server"][name] for name in ("version", "durability")}
            found["method"] = {**METHOD, "rounds_each": options.rounds}
            found["sizes"] = []
        found["sizes"].append(row)
        found["complete"] = services == options.sizes[-1]
        write(options.out, found)
    bad = sum(row["failures"]["total"] for row in found["sizes"])
    if bad:
        say(f"{bad} requests failed: see failures in {options.out}")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
