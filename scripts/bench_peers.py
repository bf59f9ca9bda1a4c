"""Measures mepulse beside etcd and Redis; bench-peers.sh installs what this needs and starts it."""

import argparse
import asyncio
import shutil
import signal
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from peers import lag, machine, outage, own, rates, table
from peers.etcd import Etcd
from peers.mepulse import Mepulse
from peers.redis import Redis

GIVE_UP_AFTER_S = 30 * 60
PEERS = {"mepulse": Mepulse, "etcd": Etcd, "redis": Redis}
JOBS = {"rates": rates, "lag": lag, "outage": outage}


@dataclass
class Plan:
    """How much of everything."""

    rounds: int = 3
    # Rates: how long each turn is, and among how many keys or services.
    seconds: int = 8
    names: int = 1000
    # Lag.
    quiet: tuple = (0, 10_000, 100_000)
    probes: int = 100
    # Outage and freeze.
    living: int = 200
    dying: int = 50
    ttl_s: int = 10
    beat_s: float = 3
    away_s: int = 25


QUICK = {
    "rounds": 1,
    "seconds": 1,
    "names": 100,
    "quiet": (0, 1000),
    "probes": 20,
    "living": 20,
    "dying": 6,
    "ttl_s": 5,
    "beat_s": 1.5,
    "away_s": 9,
}


class Bench:
    """Runs jobs on fresh servers and keeps what came out."""

    def __init__(self, plan, tools, directory, kinds):
        self.plan, self.tools, self.directory, self.kinds = plan, tools, directory, kinds
        self.rows, self.raw, self.failed = {}, [], []

    def cell(self, title, kind, text):
        self.rows.setdefault(title, {})[kind.name] = text

    async def attempt_in_directory(self, title, kind, job):
        """A job that fails is told in the report; the others go on."""
        with tempfile.TemporaryDirectory(dir=self.directory) as work:
            try:
                await job(work)
            except Exception as error:
                reason = " ".join(f"{type(error).__name__}: {error}".split())
                own.say(f"   failed: {reason}")
                self.failed.append(f"{title}, {kind.name}: {reason}")

    async def attempt(self, title, kind, job):
        async def on_a_server(work):
            peer = kind(work, self.tools)
            try:
                await job(await peer.started())
            finally:
                peer.stop()

        await self.attempt_in_directory(title, kind, on_a_server)


def arguments():
    here = Path(__file__).resolve().parent.parent
    parser = argparse.ArgumentParser(
        prog="bench-peers.sh",
        description="Measures mepulse beside Debian's etcd and Redis and prints one Markdown table.",
    )
    binary = here / "target/release/mepulse"
    parser.add_argument("--binary", default=binary, metavar="FILE", help="mepulse, built for release")
    parser.add_argument("--out", metavar="FILE", help="where the report goes (default: standard output)")
    on_disk = "where data directories are made, for a time: on the disk that is to be measured (here)"
    parser.add_argument("--dir", default=".", help=on_disk)
    parser.add_argument("--quick", action="store_true", help="small numbers, to see that it works")
    parser.add_argument("--rounds", type=int, help="turns of each peer in the measurement of rates (3)")
    parser.add_argument("--jobs", default=",".join(JOBS), help="some of: %(default)s")
    parser.add_argument("--peers", default=",".join(PEERS), help="some of: %(default)s")
    given = parser.parse_args()

    def some(known, asked):
        unknown = set(asked.split(",")) - set(known)
        if unknown:
            parser.error(f"unknown: {', '.join(sorted(unknown))}")
        return [value for name, value in known.items() if name in asked.split(",")]

    given.jobs, given.peers = some(JOBS, given.jobs), some(PEERS, given.peers)
    if given.rounds is not None and given.rounds < 1:
        parser.error("--rounds: at least 1")
    if not Path(given.dir).is_dir():
        parser.error(f"--dir {given.dir}: no directory")
    return given


def find(binary):
    tools = {name: shutil.which(name) for name in ("etcd", "redis-server", "redis-benchmark", "wrk")}
    path = Path(binary).resolve()
    tools["mepulse"] = str(path) if path.is_file() else None
    missing = [name for name, found in tools.items() if found is None]
    if missing:
        sys.exit(f"not found: {', '.join(missing)} (mepulse: cargo build --release --locked, or --binary)")
    return tools


def end(number, _):
    if number == signal.SIGALRM:
        own.say(f"gives up after {GIVE_UP_AFTER_S / 60:.0f} minutes")
    sys.exit(128 + number)


async def measure(bench, jobs):
    for job in jobs:
        await job.measure(bench)


def main():
    given = arguments()
    tools = find(given.binary)
    plan = Plan(**(QUICK if given.quick else {}))
    plan.rounds = given.rounds or plan.rounds
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
        signal.signal(number, end)
    signal.alarm(GIVE_UP_AFTER_S)
    # Opened before the long work: a name that cannot be written is told at once.
    out = open(given.out, "w", encoding="utf-8") if given.out else sys.stdout
    directory = Path(tempfile.mkdtemp(prefix="bench-peers-", dir=given.dir)).resolve()
    try:
        about = machine.about(directory, 1 if given.quick else 3)
        for line in about:
            own.say(line)
        bench = Bench(plan, tools, directory, given.peers)
        versions = {kind.name: kind.version(tools) for kind in given.peers}
        asyncio.run(measure(bench, given.jobs))
        report = table.render(bench, about, versions, lag.PATIENCE_S)
    finally:
        own.stop_all()
        shutil.rmtree(directory, ignore_errors=True)
    out.write(report)
    out.close()
    sys.exit(1 if bench.failed else 0)


if __name__ == "__main__":
    main()
