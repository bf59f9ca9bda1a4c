"""How late the silent are declared dead while so many others are quiet."""

import asyncio
import json
import math

from peers import own
from peers.mepulse import Mepulse

TTL_S = 5
# What comes later than this after it was due has not come.
PATIENCE_S = 25
QUIET_WITHIN_S = 120
# Probes are set one after the other, so that they meet all phases of a server's own periods.
APART_S = 0.02


def quantile(lags, share):
    return sorted(lags)[max(0, math.ceil(share * len(lags)) - 1)]


def cell(lags):
    """What did not come is late without bound, not left out."""

    def show(lag):
        return f"> {PATIENCE_S} s" if lag > PATIENCE_S else f"{lag * 1000:,.0f} ms".replace(",", " ")

    told = sum(lag <= PATIENCE_S for lag in lags)
    times = " / ".join(show(quantile(lags, share)) for share in (0.5, 0.99, 1))
    return f"{times}; {told} of {len(lags)}"


async def of_peer(peer, quiet, probes):
    """The lags, and how many were quiet."""
    began = own.now()
    reached = await peer.quiet(quiet, QUIET_WITHIN_S)
    own.say(f"   {reached} quiet after {own.now() - began:.1f} s")
    heard = {}
    opened = asyncio.Event()

    def told(client):
        heard.setdefault(client, own.now())

    following = asyncio.create_task(peer.follow(told, opened))
    link = peer.link()
    try:
        await asyncio.wait_for(opened.wait(), 10)
        due = {}
        for number in range(probes):
            due[number] = await peer.probe(link, number, TTL_S)
            await asyncio.sleep(APART_S)
        end = max(due.values()) + PATIENCE_S
        while own.now() < end and len(heard) < probes:
            if following.done():
                raise own.Trouble(f"nobody tells any more: {following.exception()!r}")
            await asyncio.sleep(0.05)
    finally:
        link.close()
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
    return [heard.get(number, math.inf) - due[number] for number in due], reached


def of_mepulse(tools, work, quiet, probes):
    """Its own measurement, on a server that it starts. Percentiles are given, not single lags."""
    command = [tools["mepulse"], "bench", "expire", "--json", "--data-dir", work, "--services", quiet]
    _, out, errors = own.run([*command, "--probes", probes], work, 300)
    try:
        report = json.loads(out)
        lag = report["result"]["lag"]
    except (ValueError, KeyError):
        raise own.Trouble(f"mepulse bench expire: {errors or out}") from None
    if lag is None:
        return f"0 of {probes}", report
    times = " / ".join(f"{lag[key] / 1000:,.0f} ms" for key in ("p50_us", "p99_us", "max_us"))
    note = "" if lag["count"] == probes else " (times: of those that came)"
    came = f"{lag['count']} of {probes}" if lag["max_us"] <= PATIENCE_S * 1e6 else "not all"
    failures = report["failures"]["by_kind"]
    if failures:
        note += f" {', '.join(failures)}"
    return f"{times}; {came}{note}", report


async def measure(bench):
    plan = bench.plan
    for quiet in plan.quiet:
        quiet_text = f"{quiet:,}".replace(",", " ")
        title = f"expiry lag, {quiet_text} quiet: p50 / p99 / max; told within {PATIENCE_S} s"
        for kind in bench.kinds:
            own.say(f"== expiry lag, {kind.name}, {quiet_text} quiet")
            if kind is Mepulse:

                async def own_job(work):
                    text, report = of_mepulse(bench.tools, work, quiet, plan.probes)
                    bench.cell(title, kind, text)
                    bench.raw.append(f"{title}, mepulse: `{json.dumps(report['result']['lag'])}`")

                await bench.attempt_in_directory(title, kind, own_job)
                continue

            async def job(peer):
                lags, reached = await of_peer(peer, quiet, plan.probes)
                note = "" if reached == quiet else f" (not reached in {QUIET_WITHIN_S} s: {reached} quiet)"
                bench.cell(title, kind, cell(lags) + note)
                came = sorted(lag for lag in lags if lag <= PATIENCE_S)
                each = " ".join(f"{lag * 1000:.0f}" for lag in came)
                bench.raw.append(f"{title}, {kind.name}, ms of those that came: {each or 'none'}")

            await bench.attempt(title, kind, job)
