"""How many writes a second, how many renewed leases: closed loops of 64 connections, by turns."""

import csv
import io
import json
import statistics
from dataclasses import dataclass

from peers import own
from peers.redis import Redis

CONNECTIONS = 64
# Longer than any run.
TTL_S = 3600
WARM_UP_S = 1
# redis-benchmark takes a number of requests, not a time: the warm-up says how many.
REDIS_WARM_UP = 20_000

# Requests are made once; asking for the next one is cheap. Statuses of 400 and more are errors.
WRK = """
local requests, at = {}, 0
function init(arguments)
    for line in io.lines(arguments[1]) do
        local method, path, body = line:match("^(.-)\\t(.-)\\t(.*)$")
        requests[#requests + 1] = wrk.format(method, path, {["Content-Type"] = "application/json"}, body)
    end
end
function request()
    at = at % #requests + 1
    return requests[at]
end
function done(summary, latency)
    local failed = 0
    for _, count in pairs(summary.errors) do failed = failed + count end
    io.write(string.format('\\n{"requests":%d,"us":%d,"failed":%d,"p50_us":%d,"p99_us":%d}\\n',
        summary.requests, summary.duration, failed, latency:percentile(50), latency:percentile(99)))
end
"""


@dataclass
class Rate:
    per_s: float
    p50_ms: float
    p99_ms: float
    failed: int


def wrk(peer, requests, seconds):
    listing, script = peer.dir / "requests", peer.dir / "wrk.lua"
    listing.write_text("".join("\t".join(one) + "\n" for one in requests))
    script.write_text(WRK)
    url = f"http://127.0.0.1:{peer.port}"
    command = [peer.tools["wrk"], "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--timeout", "10s"]
    code, out, errors = own.run([*command, "-s", script, url, "--", listing], peer.dir, seconds + 30)
    if code != 0:
        raise own.Trouble(f"wrk: {errors or out}")
    told = json.loads(out.splitlines()[-1])
    good = told["requests"] - told["failed"]
    p50_ms, p99_ms = told["p50_us"] / 1e3, told["p99_us"] / 1e3
    return Rate(good / told["us"] * 1e6, p50_ms, p99_ms, told["failed"])


def redis_benchmark(peer, names, words, requests, within_s):
    command = [peer.tools["redis-benchmark"], "-h", "127.0.0.1", "-p", peer.port, "-c", CONNECTIONS]
    command += ["-n", requests, "-r", names, "--csv", *words]
    code, out, errors = own.run(command, peer.dir, within_s)
    if code != 0 or '"rps"' not in out:
        raise own.Trouble(f"redis-benchmark: {errors or out}")
    row = list(csv.DictReader(io.StringIO(out[out.index('"test"') :])))[-1]
    p50_ms, p99_ms = float(row["p50_latency_ms"]), float(row["p99_latency_ms"])
    return Rate(float(row["rps"]), p50_ms, p99_ms, 0)


# A ZADD that changes nothing is not written to the log: scores must differ, not only members.
ZADD = ["ZADD", "beats", "__rand_int____rand_int__", "client-__rand_int__"]
SET_EX = ["SET", "lease-__rand_int__", "up", "EX", "10"]


async def redis_rate(peer, names, words, seconds):
    first = redis_benchmark(peer, names, words, REDIS_WARM_UP, 60)
    requests = max(CONNECTIONS, int(first.per_s * seconds))
    before = await peer.failed_calls()
    rate = redis_benchmark(peer, names, words, requests, 10 * seconds + 60)
    rate.failed = await peer.failed_calls() - before
    return rate


async def http_rate(peer, requests, seconds):
    wrk(peer, requests, WARM_UP_S)
    return wrk(peer, requests, seconds)


async def turn(peer, plan):
    """One peer's jobs on a fresh server."""
    if isinstance(peer, Redis):
        write = await redis_rate(peer, plan.names, ZADD, plan.seconds)
        return {"write": write, "renew": await redis_rate(peer, plan.names, SET_EX, plan.seconds)}
    await peer.register(plan.names, TTL_S)
    write = await http_rate(peer, peer.write_requests(plan.names), plan.seconds)
    if not hasattr(peer, "renew_requests"):
        return {"write": write, "renew": write}
    return {"write": write, "renew": await http_rate(peer, peer.renew_requests(plan.names), plan.seconds)}


async def measure(bench):
    plan = bench.plan
    rates = {}
    for number in range(plan.rounds):
        for kind in bench.kinds:
            own.say(f"== writes and leases, {kind.name}, round {number + 1} of {plan.rounds}")

            async def job(peer):
                for what, rate in (await turn(peer, plan)).items():
                    rates.setdefault((what, kind.name), []).append(rate)

            await bench.attempt(f"rates, round {number + 1}", kind, job)
    for what, title in (
        ("write", f"durable writes/s, {CONNECTIONS} connections"),
        ("renew", f"renewed leases/s, {CONNECTIONS} connections"),
    ):
        report(bench, rates, what, title)


def report(bench, rates, what, title):
    def median(name, of):
        runs = rates.get((what, name))
        return statistics.median(of(run) for run in runs) if runs else None

    def thousands(value):
        return f"{value:,.0f}".replace(",", " ")

    base = median("mepulse", lambda run: run.per_s)
    for kind in bench.kinds:
        runs = rates.get((what, kind.name))
        if not runs:
            continue
        per_s = median(kind.name, lambda run: run.per_s)
        failed = sum(run.failed for run in runs)
        note = f" ({thousands(failed)} failed)" if failed else ""
        bench.cell(title, kind, thousands(per_s) + note)
        if base:
            bench.cell(f"… ÷ mepulse ({what})", kind, f"{per_s / base:.2f}")
        p50, p99 = median(kind.name, lambda run: run.p50_ms), median(kind.name, lambda run: run.p99_ms)
        bench.cell(f"… latency p50 / p99, ms ({what})", kind, f"{p50:.1f} / {p99:.1f}")
        each = ", ".join(f"{thousands(run.per_s)} ({run.p99_ms:.1f})" for run in runs)
        bench.raw.append(f"{title}, {kind.name}, each round (p99 in ms): {each}")
