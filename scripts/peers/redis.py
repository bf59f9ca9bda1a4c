"""Redis: a key with a time to live for each client, and keyspace events for who wants to hear of it."""

from peers import own, wire
from peers.peer import Peer

QUIET_TTL_S = 36_000
# Commands in one go when many keys are made.
BLOCK = 1000


class Redis(Peer):
    name = "Redis"
    flags = "appendonly yes, appendfsync always, save '', notify-keyspace-events Ex, hz 10 (default)"
    durability = "AOF: fdatasync before every answer (once per turn of the event loop)"
    renewal = "`SET … EX 10`: durable, as above"

    def __init__(self, work, tools):
        super().__init__(work, tools)
        self.ttl_s = None

    @staticmethod
    def version(tools):
        words = own.version_of([tools["redis-server"], "--version"]).split()
        return " ".join(word for word in words if word.startswith("v=")).replace("v=", "Redis ")

    def command(self):
        return [
            *(self.tools["redis-server"], "--bind", "127.0.0.1", "--port", self.port, "--dir", self.dir),
            *("--appendonly", "yes", "--appendfsync", "always", "--save", ""),
            *("--notify-keyspace-events", "Ex"),
        ]

    def link(self):
        return wire.Resp(self.port)

    async def ask_something(self):
        link = self.link()
        # An error while it loads.
        await link.ask("EXISTS", "client-0")
        link.close()
        return True

    async def register(self, count, ttl_s):
        self.ttl_s = ttl_s
        link = self.link()
        await link.ask_all([("SET", f"client-{number}", "up", "EX", ttl_s) for number in range(count)])
        link.close()

    async def beat(self, link, client):
        return await link.ask("SET", f"client-{client}", "up", "EX", self.ttl_s) == b"OK"

    async def follow(self, told, opened):
        link = self.link()
        try:
            await link.ask("SUBSCRIBE", "__keyevent@0__:expired")
            opened.set()
            while True:
                _, _, key = await link.reply()
                kind, _, number = key.decode().partition("-")
                if kind == "client":
                    told(int(number))
        finally:
            link.close()

    async def gone(self, count):
        link = self.link()
        there = await link.ask_all([("EXISTS", f"client-{number}") for number in range(count)])
        link.close()
        return {number for number in range(count) if not there[number]}

    async def quiet(self, count, within_s):
        link = self.link()
        reached = 0
        end = own.now() + within_s
        while reached < count and own.now() < end:
            numbers = range(reached, min(count, reached + BLOCK))
            await link.ask_all([("SET", f"quiet-{n}", "up", "EX", QUIET_TTL_S) for n in numbers])
            reached += len(numbers)
        link.close()
        return reached

    async def probe(self, link, number, ttl_s):
        await link.ask("SET", f"client-{number}", "up", "PX", ttl_s * 1000)
        return own.now() + ttl_s

    async def failed_calls(self):
        """Commands that were answered by an error: redis-benchmark does not count them."""
        link = self.link()
        stats = (await link.ask("INFO", "commandstats")).decode().splitlines()
        link.close()
        fields = [field for line in stats for field in line.rpartition(":")[2].split(",")]
        counts = [int(field.split("=")[1]) for field in fields if field.startswith(("failed", "rejected"))]
        return sum(counts)
