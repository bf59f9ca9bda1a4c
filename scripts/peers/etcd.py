"""etcd through its HTTP gateway: a key for each client, bound to a lease."""

import base64
import json

from peers import own, wire
from peers.peer import Peer, share

# Quiet leases have their ids above those of clients and probes.
QUIET_FROM = 1_000_000
QUIET_TTL_S = 36_000
# Operations in one transaction: etcd's own limit is 128.
TXN_OPS = 100
EVERYTHING = base64.b64encode(b"\0").decode()


def text(value):
    return base64.b64encode(value.encode()).decode()


def body(**members):
    return json.dumps(members).encode()


class Etcd(Peer):
    name = "etcd"
    flags = "one member, HTTP gateway (/v3), default settings, log-level error"
    durability = "put: WAL, fdatasync before every answer (group commit)"
    renewal = "keepalive: **in memory only**, not durable"

    def __init__(self, work, tools):
        super().__init__(work, tools)
        self.revision = 0
        self.ttl_s = None

    @staticmethod
    def version(tools):
        return own.version_of([tools["etcd"], "--version"])

    def command(self):
        client = f"http://127.0.0.1:{self.port}"
        among_members = f"http://127.0.0.1:{self.second_port}"
        return [
            *(self.tools["etcd"], "--name", "peer", "--data-dir", self.dir / "data"),
            *("--listen-client-urls", client, "--advertise-client-urls", client),
            *("--listen-peer-urls", among_members, "--initial-advertise-peer-urls", among_members),
            *("--initial-cluster", f"peer={among_members}", "--logger", "zap", "--log-level", "error"),
        ]

    def link(self):
        return wire.Http(self.port)

    @staticmethod
    async def call(link, what, **members):
        status, answer = await link.ask("POST", f"/v3/{what}", body(**members))
        if status != 200:
            raise wire.Bad(f"{what}: status {status}, {answer[:200]!r}")
        return json.loads(answer)

    async def ask_something(self):
        link = self.link()
        await self.call(link, "kv/range", key=text("client-0"))
        link.close()
        return True

    async def up(self, link, number, ttl_s):
        """Grants a lease and binds a key to it; when the grant was answered."""
        granted = await self.call(link, "lease/grant", TTL=ttl_s, ID=number + 1)
        at = own.now()
        if int(granted["TTL"]) != ttl_s:
            raise own.Trouble(f"asked for {ttl_s} s, got {granted['TTL']} s")
        key = text(f"client-{number}")
        await self.call(link, "kv/put", key=key, value=text("up"), lease=number + 1)
        return at

    async def register(self, count, ttl_s):
        self.ttl_s = ttl_s
        links = [self.link() for _ in range(min(16, count))]

        async def one(number):
            link = links.pop()
            await self.up(link, number, ttl_s)
            links.append(link)

        await share(count, len(links), one)
        for link in links:
            link.close()

    async def beat(self, link, client):
        answer = await self.call(link, "lease/keepalive", ID=client + 1)
        if "TTL" not in answer["result"]:
            # The lease is gone: a client that lives takes another one.
            await self.up(link, client, self.ttl_s)
        return True

    async def follow(self, told, opened):
        def take(line):
            if not line:
                return
            told_us = json.loads(line)
            if "result" not in told_us or told_us["result"].get("canceled"):
                raise wire.Bad(line.decode())
            opened.set()
            result = told_us["result"]
            self.revision = max(self.revision, int(result["header"]["revision"]))
            for event in result.get("events", []):
                kind, _, number = base64.b64decode(event["kv"]["key"]).decode().partition("-")
                if event.get("type") == "DELETE" and kind == "client":
                    told(int(number))

        # Nothing that happened meanwhile is missed.
        since = {"start_revision": self.revision + 1} if self.revision else {}
        create = {"key": EVERYTHING, "range_end": EVERYTHING, "filters": ["NOPUT"], **since}
        await self.link().follow("POST", "/v3/watch", body(create_request=create), "", take)

    async def gone(self, count):
        link = self.link()
        range_ = {"key": text("client-"), "range_end": text("client."), "keys_only": True}
        answer = await self.call(link, "kv/range", **range_)
        link.close()
        names = {base64.b64decode(one["key"]).decode() for one in answer.get("kvs", [])}
        return {number for number in range(count) if f"client-{number}" not in names}

    async def quiet(self, count, within_s):
        """So many leases, a key on each, that do not end; how many there are in time."""
        reached = 0
        end = own.now() + within_s
        links = [self.link() for _ in range(16)]

        async def some(block):
            nonlocal reached
            link = links.pop()
            numbers = range(block * TXN_OPS, min(count, (block + 1) * TXN_OPS))
            puts = []
            for number in numbers:
                if own.now() > end:
                    break
                lease = QUIET_FROM + number
                await self.call(link, "lease/grant", TTL=QUIET_TTL_S, ID=lease)
                put = {"key": text(f"quiet-{number}"), "value": text("up"), "lease": lease}
                puts.append({"requestPut": put})
            if puts:
                await self.call(link, "kv/txn", success=puts)
            reached += len(puts)
            links.append(link)

        await share(-(-count // TXN_OPS), len(links), some)
        for link in links:
            link.close()
        return reached

    async def probe(self, link, number, ttl_s):
        """Something that falls silent at once; the instant that it is due at, at the earliest."""
        return await self.up(link, number, ttl_s) + ttl_s

    def write_requests(self, count):
        put = [{"key": text(f"client-{number}"), "value": text("ACTIVE")} for number in range(count)]
        return [("POST", "/v3/kv/put", json.dumps(one)) for one in put]

    def renew_requests(self, count):
        return [("POST", "/v3/lease/keepalive", json.dumps({"ID": n + 1})) for n in range(count)]
