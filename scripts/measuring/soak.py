"""Whether anything grows under a steady load; see soak.sh."""

import argparse
import json
import pathlib
import signal
import statistics
import sys
import threading
import time

import disk
import load
from server import TROUBLE, Server, bench, finish, say

CONNECTIONS = 64
SAMPLE_S = 10.0
# Not counted: what the registrations have left to be written, and caches that fill.
WARM_UP_S = 30.0
# Services that fall silent, all of them once in so many seconds. They are judged 7 s after their beat.
PROBES, PROBE_EVERY_S = 4, 10.0
GUESTS = 50
LOOP_GIB = 16
# Flash cards of 32 GB are commonly rated for some 300 full writes: about 10 TB.
CARD_BYTES = 10e12
WEEK_S = 7 * 86400
# An event with its index entry, as the log and its garbage hold it. Registrations, removals, verdicts and
# revivals each leave one for history.keep_days.
EVENT_BYTES = 512
# What is sampled: name, unit, what it is divided by, and by how much it may differ and still be called flat.
SERIES = {
    "rss_bytes": ("resident memory", "MB", 1e6, 8e6),
    "disk_bytes": ("data directory, apparent", "MB", 1e6, 16e6),
    "disk_taken_bytes": ("data directory, on the disk", "MB", 1e6, 16e6),
    "files": ("open files", "", 1, 8),
    "threads": ("threads", "", 1, 2),
    "written_bytes_per_s": ("written to the device per second", "kB", 1e3, 100e3),
    "lag_ms": ("verdict later than due, mean", "ms", 1, 20),
    "p99_ms": ("p99 of heartbeats", "ms", 1, 10),
}


class Company(threading.Thread):
    """Registrations and removals that come and go, and probes that fall silent, all at a slow pace."""

    def __init__(self, url, churn):
        super().__init__(daemon=True)
        self.url, self.churn = url, churn
        self.over = threading.Event()
        self.failures, self.guests, self.probes = {}, [], []
        self.registered = self.removed = self.beaten = 0

    def ask(self, method, path, body, good):
        try:
            status, answer = load.ask(self.url, method, path, body, timeout=load.TIMEOUT_S)
        except OSError as error:
            kind, answer = f"{method}: {type(error).__name__}", None
        else:
            if status in good:
                return answer
            kind = f"{method}: status {status}"
        self.failures[kind] = self.failures.get(kind, 0) + 1
        return None

    def register(self, app, interval_s):
        """Its path; None if it was refused, which is counted."""
        transport = {
            "id": "soak", "name": "REST", "type": "REST_HTTP", "protocol": "HTTP", "version": "1.1",
            "endpoint": {"uris": ["http://192.0.2.1/soak"]}, "security": {},
        }  # fmt: skip
        info = {
            "serName": "soak", "version": "1.0", "state": "ACTIVE", "serializer": "JSON",
            "livenessInterval": interval_s, "transportInfo": transport,
        }  # fmt: skip
        path = f"{load.ROOT}/{app}/services"
        answer = self.ask("POST", path, json.dumps(info).encode(), (201,))
        return answer and f"{path}/{json.loads(answer)['serInstanceId']}"

    def run(self):
        began = time.monotonic()
        self.probes = [path for path in (self.register("soak-probes", 5) for _ in range(PROBES)) if path]
        next_guest, next_silence = began, began
        while not self.over.wait(max(0.0, min(next_guest, next_silence) - time.monotonic())):
            now = time.monotonic()
            if now >= next_silence:
                next_silence += PROBE_EVERY_S
                for probe in self.probes:
                    if self.ask("PATCH", f"{probe}/liveness", load.BEAT, (200, 204)) is not None:
                        self.beaten += 1
            if now >= next_guest:
                next_guest += 1 / self.churn if self.churn else 1e9
                self.one_comes()

    def one_comes(self):
        """And as soon as there are enough, one goes."""
        if not self.churn:
            return
        guest = self.register("soak-guests", 3600)
        if guest:
            self.registered += 1
            self.guests.append(guest)
        if len(self.guests) > GUESTS:
            if self.ask("DELETE", self.guests.pop(0), None, (204,)) is not None:
                self.removed += 1


class Sampler:
    """A row every ten seconds, taken beside the load."""

    def __init__(self, server, data, device, began):
        self.server, self.data, self.device, self.began = server, data, device, began
        self.rows, self.thread = [], None
        self.failures = []
        self.before = self.look()

    def look(self):
        return time.monotonic(), self.device.written_bytes(), self.server.metrics()

    def take(self, tally):
        """Returns at once."""
        self.wait()
        self.thread = threading.Thread(target=self.sample, args=(tally,), daemon=True)
        self.thread.start()

    def wait(self):
        if self.thread:
            self.thread.join()

    def sample(self, tally):
        try:
            now, written, metrics = self.look()
            then, written_then, metrics_then = self.before
            sizes, status = disk.sizes(self.data), self.server.status()
        except (OSError, AttributeError) as error:
            self.failures.append(f"a sample: {error}")
            return
        since = lambda name: metrics[name] - metrics_then[name]
        judged, latency = since("expiry_lag_seconds_count"), tally.latency()
        self.before = (now, written, metrics)
        self.rows.append({
            "at_s": round(now - self.began, 1),
            "rss_bytes": status["rss_bytes"],
            "disk_bytes": sizes["apparent_bytes"],
            "disk_taken_bytes": sizes["taken_bytes"],
            "files": status["files"],
            "threads": status["threads"],
            "written_bytes_per_s": None if written is None else round((written - written_then) / (now - then)),
            "lag_ms": round(since("expiry_lag_seconds_sum") / judged * 1e3, 2) if judged else None,
            "p99_ms": latency and round(latency["p99_us"] / 1e3, 2),
            "beats": tally.answers,
        })  # fmt: skip
        if len(self.rows) % 6 == 0:
            row = self.rows[-1]
            say(f"{row['at_s'] / 60:.0f} min: {row['rss_bytes'] / 1e6:.1f} MB, p99 {row['p99_ms']} ms, {row['disk_taken_bytes'] / 1e6:.1f} MB on the disk")


def judge(rows, events):
    """What the first and the last quarter of the samples say; `events` is how many the history keeps of it."""
    found = {}
    quarter = max(1, len(rows) // 4)
    for key, (_, _, _, floor) in SERIES.items():
        points = [(row["at_s"] / 3600, row[key]) for row in rows if row[key] is not None]
        first = [row[key] for row in rows[:quarter] if row[key] is not None]
        last = [row[key] for row in rows[-quarter:] if row[key] is not None]
        if not first or not last or len(points) < 2:
            found[key] = None
            continue
        before, after = statistics.median(first), statistics.median(last)
        allowed = max(0.05 * before, floor)
        if key.startswith("disk"):
            # Between the middles of the two quarters lie three quarters of them.
            allowed += 0.75 * events * EVENT_BYTES
        found[key] = {
            "first": before,
            "last": after,
            "slope_per_h": statistics.linear_regression(*zip(*points)).slope,
            "allowed": allowed,
            "noticed_per_h": allowed / (0.75 * rows[-1]["at_s"] / 3600),
            "grows": after - before > allowed,
        }
    return found


def wear(rows, device):
    """What a week of it writes, and how long a card of the stated endurance lasts; None if nobody counts."""
    counted = [row["written_bytes_per_s"] for row in rows if row["written_bytes_per_s"] is not None]
    if not counted:
        return None
    mean = statistics.fmean(counted)
    return {
        **device.about(),
        "bytes_per_s": round(mean),
        "bytes_per_beat": round(mean * SAMPLE_S * len(counted) / max(1, sum(row["beats"] for row in rows))),
        "week_bytes": round(mean * WEEK_S),
        "card_endurance_bytes": CARD_BYTES,
        "card_weeks": round(CARD_BYTES / (mean * WEEK_S), 1) if mean else None,
    }


def verdict(one, unit, scale):
    if one is None:
        return "not measured"
    if not one["grows"]:
        return "flat"
    return f"**grows by {one['slope_per_h'] / scale:.3g} {unit} per hour**"


def table(report):
    options, about = report["load"], report["about"]
    out = [
        f"{options['rate_per_s']} beats/s to {options['services']} services, {options['churn_per_s']:g} registrations/s and as "
        f"many removals asked for ({report['registered']} and {report['removed']} done), {options['minutes']:g} minutes, {len(report['samples'])} samples.",
        "",
        "| | first quarter | last quarter | slope per hour | noticed from, per hour | verdict |",
        "|---|---:|---:|---:|---:|---|",
    ]
    for key, (name, unit, scale, _) in SERIES.items():
        one = report["series"][key]
        cells = ["–"] * 4
        if one:
            cells = [f"{one[part] / scale:.4g} {unit}".strip() for part in ("first", "last")]
            cells.append(f"{one['slope_per_h'] / scale:+.3g} {unit}".strip())
            cells.append(f"{one['noticed_per_h'] / scale:.3g} {unit}".strip())
        out.append(f"| {name} | {' | '.join(cells)} | {verdict(one, unit, scale)} |")
    out += ["", f"Rule: {report['rule']}", ""]
    worn = report["wear"]
    if worn:
        whose = "a device of its own" if worn["only_ours"] else f"{worn['name']}, whoever writes to it"
        out.append(
            f"Written to the device ({whose}): {worn['bytes_per_beat']} bytes per beat, {worn['week_bytes'] / 1e9:.3g} GB in a week. "
            f"A 32 GB card that endures {CARD_BYTES / 1e12:g} TB written (an assumption; the controller's own amplification is not "
            f"in it) lasts {worn['card_weeks']} weeks."
        )
    else:
        out.append("Written to the device: not measured, the filesystem has no block device.")
    failed = ", ".join(f"{count} × {kind}" for kind, count in report["failures"].items())
    out.append(f"{report['beats']} beats; failures: {failed or 'none'}. Verdicts: {report['verdicts']} of "
               f"{report['verdicts_due']} due; blind for {report['blind_s']:g} s.")  # fmt: skip
    out.append("")
    out.append(f"mepulse {about['mepulse_version']} ({about['build']}), {about['server']['durability']}; {about['machine']['cores']} × "
               f"{about['machine']['cpu_model']}; {about['disk']['filesystem']}, fsync p50 {about['disk']['fsync_p50_us']} µs.")  # fmt: skip
    return "\n".join(out)


RULE = (
    "it grows if the median of the last quarter is above that of the first by more than 5 % of it and more than a floor "
    "(8 MB of memory, 16 MB of disk, 8 files, 2 threads, 100 kB/s, 20 ms of lag, 10 ms of p99); the disk may also take 512 bytes for "
    "each registration, removal, verdict and revival in between, which the history keeps for history.keep_days."
)


def soak(options, data, device):
    server = Server(options.binary, data, options.work)
    beats = company = None
    try:
        running = bench(
            options.binary, options.work, "beats", "--url", server.url, "--keep", "--services", options.services,
            "--rate", 1, "--warm-up", "0ms", "--duration", "100ms", "--data-dir", data.parent,
        )  # fmt: skip
        about = finish(running, options.work, 60 + options.services / 500)
        say("registered")
        beats = load.Beats(server.url, load.service_ids(server.url, about["result"]["kept"]), CONNECTIONS)
        company = Company(server.url, options.churn)
        company.start()
        failures = dict(beats.run(WARM_UP_S, options.rate).failures)
        began = time.monotonic()
        sampler = Sampler(server, data, device, began)
        start = sampler.before[2]
        number, answers = max(2, round(options.minutes * 60 / SAMPLE_S)), 0
        for sample in range(number):
            tally = beats.run(began + (sample + 1) * SAMPLE_S - time.monotonic(), options.rate)
            answers += tally.answers
            add(failures, tally.failures)
            sampler.take(tally)
            if server.process.poll() is not None:
                raise RuntimeError(f"the server ended: {server.log.read_text()[-600:]}")
        sampler.wait()
        tally = beats.settle()
        answers += tally.answers
        add(failures, tally.failures)
        company.over.set()
        company.join(30)
        # The last probes are judged 7 s after their beat; seen from outside a bit later.
        time.sleep(9)
        end = server.metrics()
        add(failures, company.failures)
        add(failures, {why: 1 for why in sampler.failures})
        server.stop()
    finally:
        if company:
            company.over.set()
        if beats:
            beats.close()
        server.end()
    missing = company.beaten - int(end["verdicts_total"])
    blind_s = end["blind_seconds_total"] - start["blind_seconds_total"]
    # After a blind spot the verdict is later than the next beat, and that is right.
    if missing and not blind_s:
        add(failures, {"a verdict that did not come, or came twice": abs(missing)})
    names = ("registrations_total", "deregistrations_total", "verdicts_total", "revivals_total")
    events = sum(end[name] - start[name] for name in names)
    series = judge(sampler.rows, events)
    return {
        "bench": "soak",
        "about": {name: about[name] for name in ("mepulse_version", "build", "machine", "disk")}
        | {"server": {name: about["server"][name] for name in ("version", "durability")}},
        "load": {
            "minutes": options.minutes,
            "rate_per_s": options.rate,
            "services": options.services,
            "churn_per_s": options.churn,
            "connections": CONNECTIONS,
            "probes": PROBES,
            "probe_every_s": PROBE_EVERY_S,
        },
        "rule": RULE,
        "series": series,
        "grows": [key for key, one in series.items() if one and one["grows"]],
        "wear": wear(sampler.rows, device),
        "beats": answers,
        "verdicts": int(end["verdicts_total"]),
        "verdicts_due": company.beaten,
        "blind_s": round(blind_s, 3),
        "registered": company.registered,
        "removed": company.removed,
        "failures": failures,
        "samples": sampler.rows,
    }


def add(failures, more):
    for kind, count in more.items():
        failures[kind] = failures.get(kind, 0) + count


def measure(options):
    own = disk.LoopDisk(options.work, LOOP_GIB)
    why = "not wanted" if options.no_loop else own.attach()
    if why:
        say(f"no loop device ({why}): what others write to the device is counted, too")
        data = options.work / "data"
        data.mkdir(mode=0o700)
        return soak(options, data, disk.Device(data))
    try:
        data = own.path / "data"
        data.mkdir(mode=0o700)
        return soak(options, data, disk.Device(data, own=True))
    finally:
        own.detach()


def main():
    parser = argparse.ArgumentParser()
    for name in ("binary", "work", "dir"):
        parser.add_argument(f"--{name}", type=pathlib.Path, required=True)
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--churn", type=float, required=True)
    for name in ("rate", "services"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--no-loop", action="store_true")
    options = parser.parse_args()
    # An end in good order: whatever is running is ended on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        report = measure(options)
    except TROUBLE as error:
        say(str(error))
        sys.exit(1)
    print(table(report), flush=True)
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    sys.exit(1 if report["grows"] or report["failures"] else 0)


if __name__ == "__main__":
    main()
