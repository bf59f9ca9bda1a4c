"""What every peer can do, as far as it is the same for all of them."""

import asyncio
import signal
from pathlib import Path

from peers import own, wire

START_WITHIN_S = 30
# How soon a server that starts is asked again: the grain of all times "after the first answer".
AGAIN_S = 0.01


class Peer:
    """A server of our own, on a port and in a directory of its own.

    `name`, `version` and `flags` are for the report; `clients` are numbered from 0.
    """

    name = flags = ""
    # What an answer to the write and to the renewal of a lease survives.
    durability = renewal = ""

    def __init__(self, work, tools):
        self.tools = tools
        self.dir = Path(work)
        self.port, self.second_port = own.free_ports(2)
        self.process = None

    def command(self):
        raise NotImplementedError

    def start(self):
        with open(self.dir / "log", "ab") as log:
            self.process = own.Process(self.command(), self.dir, log, log)

    async def started(self):
        self.start()
        await self.first_answer()
        return self

    async def first_answer(self):
        """Waits for it; when it came."""
        end = own.now() + START_WITHIN_S
        while not await self.answers():
            if self.process.child.poll() is not None or own.now() > end:
                tail = (self.dir / "log").read_text(errors="replace")[-500:]
                raise own.Trouble(f"{self.name} does not start: {tail}")
            await asyncio.sleep(AGAIN_S)
        return own.now()

    async def answers(self):
        """Whether it answers a question about its data, on a new connection."""
        try:
            return await asyncio.wait_for(self.ask_something(), 1)
        except wire.FAILURES:
            return False

    async def ask_something(self):
        raise NotImplementedError

    def stop(self):
        if self.process is not None:
            self.process.stop()
            self.process = None

    def kill(self):
        self.process.kill()

    def freeze(self):
        self.process.signal(signal.SIGSTOP)

    def thaw(self):
        self.process.signal(signal.SIGCONT)

    async def register(self, count, ttl_s):
        """Makes the clients known."""
        raise NotImplementedError

    def link(self):
        """A client's connection."""
        raise NotImplementedError

    async def beat(self, link, client):
        """One sign of life; whether it was taken."""
        raise NotImplementedError

    async def follow(self, told, opened):
        """Calls `told(client)` for every death that is announced, until the connection ends."""
        raise NotImplementedError

    async def gone(self, count):
        """The clients that are not alive, for whoever asks now."""
        raise NotImplementedError


async def share(count, connections, work):
    """`work(number)` for all numbers, so many at once."""
    numbers = iter(range(count))

    async def one():
        for number in numbers:
            await work(number)

    await asyncio.gather(*(one() for _ in range(min(connections, count))))
