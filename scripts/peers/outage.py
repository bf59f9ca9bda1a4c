"""Who is declared dead although it lives, and when those are who are: after kill -9, after SIGSTOP."""

import asyncio
import random
from collections import Counter

from peers import own, wire
from peers.mepulse import PROMISE_S, Mepulse

RETRY_S = 1
# From one try to the next, at the most, if the first one hangs: the promise is kept.
TRY_WITHIN_S = 1
AGAIN_S = 0.01
WATCH_S = 60


class Client:
    """Beats every `beat_s` while it is heard, and tries every second while it is not."""

    def __init__(self, peer, number, beat_s):
        self.peer, self.number, self.beat_s = peer, number, beat_s
        self.dies_at = None
        self.heard_at = None

    async def live(self, phase_s):
        link = self.peer.link()
        due = own.now() + phase_s
        try:
            while True:
                await asyncio.sleep(max(0, due - own.now()))
                began = own.now()
                if self.dies_at is not None and began >= self.dies_at:
                    return
                try:
                    beaten = self.peer.beat(link, self.number)
                    heard = await asyncio.wait_for(beaten, TRY_WITHIN_S)
                except wire.FAILURES:
                    heard = False
                if heard:
                    self.heard_at = began
                due = began + (self.beat_s if heard else RETRY_S)
        finally:
            link.close()


class Watcher:
    """Follows what is announced, comes back after every interruption, and then asks who is gone."""

    def __init__(self, peer, count):
        self.peer, self.count = peer, count
        self.told = {}
        self.back_at = None
        self.trouble = None

    def forget(self):
        self.told, self.back_at = {}, None

    def note(self, client):
        self.told.setdefault(client, own.now())

    async def once(self):
        if not await self.peer.answers():
            return
        back_at = own.now()
        opened = asyncio.Event()
        following = asyncio.create_task(self.peer.follow(self.note, opened))
        opening = asyncio.create_task(opened.wait())
        try:
            await asyncio.wait([following, opening], timeout=10, return_when=asyncio.FIRST_COMPLETED)
            for client in await asyncio.wait_for(self.peer.gone(self.count), 10):
                self.note(client)
            self.back_at = back_at
            await following
        finally:
            opening.cancel()
            following.cancel()
            await asyncio.gather(following, opening, return_exceptions=True)

    async def watch(self):
        while True:
            try:
                await self.once()
            except wire.FAILURES:
                pass
            except own.Trouble as trouble:
                self.trouble = trouble
            await asyncio.sleep(AGAIN_S)


def span(times):
    first, last = f"{min(times):.1f}", f"{max(times):.1f}"
    return f"{first} s" if first == last else f"{first}–{last} s"


class Story:
    """One peer's outage and freeze."""

    def __init__(self, bench, kind, peer):
        self.bench, self.kind, self.peer, self.plan = bench, kind, peer, bench.plan
        self.living = range(self.plan.living)
        self.dying = range(self.plan.living, self.plan.living + self.plan.dying)
        count = self.plan.living + self.plan.dying
        self.clients = [Client(peer, number, self.plan.beat_s) for number in range(count)]
        self.watcher = Watcher(peer, count)

    async def run(self):
        # The same phases and deaths for every peer.
        dice = random.Random(11)
        await self.peer.register(len(self.clients), self.plan.ttl_s)
        phases = [dice.uniform(0, self.plan.beat_s) for _ in self.clients]
        lives = [one.live(phase) for one, phase in zip(self.clients, phases)]
        tasks = [asyncio.create_task(life) for life in [*lives, self.watcher.watch()]]
        try:
            await self.settle()
            await self.outage(dice)
            await self.settle()
            await self.freeze()
        finally:
            for task in tasks:
                task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
        # Somebody who gave up has heard of nobody's death since.
        broken = [end for end in ends if isinstance(end, Exception)]
        if broken:
            raise own.Trouble(f"a client or the watcher broke: {broken[0]!r}")

    async def settle(self):
        """All who live are heard, nobody is newly declared dead; else nothing can be measured."""
        await asyncio.sleep(self.plan.ttl_s)
        self.watcher.forget()
        await asyncio.sleep(2 * self.plan.beat_s)
        since = own.now() - self.plan.beat_s - TRY_WITHIN_S
        unheard = [n for n in self.living if (self.clients[n].heard_at or 0) < since]
        early = [n for n in self.living if n in self.watcher.told]
        if unheard or early or self.watcher.trouble:
            why = self.watcher.trouble or f"{len(unheard)} not heard, {len(early)} declared dead"
            raise own.Trouble(f"no calm before the disturbance: {why}")

    def false_verdicts(self, title):
        false = sum(number in self.watcher.told for number in self.living)
        unheard = sum(self.clients[n].heard_at < self.watcher.back_at for n in self.living)
        note = f"; {unheard} could not be heard again" if unheard else ""
        if self.watcher.trouble:
            note += f"; {self.watcher.trouble}"
        self.bench.cell(title, self.kind, f"{false} of {len(self.living)}{note}")

    async def until_back(self):
        end = own.now() + 30
        while self.watcher.back_at is None:
            if own.now() > end:
                raise own.Trouble("no answer within 30 s")
            await asyncio.sleep(AGAIN_S)

    async def outage(self, dice):
        plan = self.plan
        self.peer.kill()
        self.watcher.forget()
        killed = own.now()
        for number in self.dying:
            self.clients[number].dies_at = killed + dice.uniform(0, plan.away_s * 0.8)
        await asyncio.sleep(plan.away_s)
        self.peer.start()
        started = own.now()
        await self.until_back()
        back = self.watcher.back_at
        # The last of the living is judged an interval and its grace after the first answer.
        least = back + plan.ttl_s + 5
        while own.now() < back + WATCH_S:
            if own.now() >= least and all(number in self.watcher.told for number in self.dying):
                break
            await asyncio.sleep(0.1)
        self.false_verdicts(f"`kill -9`, {plan.away_s} s away: living declared dead")
        self.bench.cell("… from the start to the first answer", self.kind, f"{back - started:.2f} s")
        title = "… those who died meanwhile: declared dead, after the first answer"
        self.bench.cell(title, self.kind, self.dead_cell(back))
        times = sorted(self.watcher.told[n] - back for n in self.dying if n in self.watcher.told)
        counts = Counter(f"{time:.1f} s" for time in times)
        each = ", ".join(f"{count} × {time}" for time, count in counts.items())
        self.bench.raw.append(f"declared dead after the first answer, {self.kind.name}: {each or 'none'}")

    def dead_cell(self, back):
        def text(numbers):
            times = [self.watcher.told[n] - back for n in numbers if n in self.watcher.told]
            late = "" if len(times) == len(numbers) else f", the others not within {WATCH_S} s"
            return f"{len(times)} of {len(numbers)}{': ' + span(times) if times else ''}{late}"

        if self.kind is not Mepulse:
            return text(self.dying)
        promised = [n for n in self.dying if Mepulse.promises(n)]
        others = [n for n in self.dying if not Mepulse.promises(n)]
        return f"{text(others)}; with `retryInterval` {PROMISE_S}: {text(promised)}"

    async def freeze(self):
        plan = self.plan
        self.peer.freeze()
        self.watcher.forget()
        await asyncio.sleep(plan.away_s)
        self.peer.thaw()
        thawed = own.now()
        # The stream of announcements stayed open; whoever asks now is told this:
        gone = await asyncio.wait_for(self.peer.gone(len(self.living)), 30)
        for number in gone:
            self.watcher.note(number)
        self.watcher.back_at = own.now()
        await asyncio.sleep(max(0, thawed + plan.ttl_s + 5 - own.now()))
        self.false_verdicts(f"SIGSTOP for {plan.away_s} s: living declared dead")


async def measure(bench):
    for kind in bench.kinds:
        own.say(f"== outage and freeze, {kind.name}")

        async def job(peer):
            await Story(bench, kind, peer).run()

        await bench.attempt("outage and freeze", kind, job)
