"""mepulse, as anybody sees it through its API."""

import json

from peers import own, wire
from peers.peer import Peer, share

ROOT = "/mec_service_mgmt/v1"
BEAT = b'{"state":"ACTIVE"}'
PROMISE_S = 2
PROMISING_BEAT = b'{"state":"ACTIVE","retryInterval":%d}' % PROMISE_S


class Mepulse(Peer):
    name = "mepulse"
    flags = "serve, default settings"
    durability = "power-loss: fdatasync before every answer (group commit)"
    renewal = "the heartbeat again: durable"

    def __init__(self, work, tools):
        super().__init__(work, tools)
        self.services = []
        self.seen = None

    @staticmethod
    def version(tools):
        return own.version_of([tools["mepulse"], "--version"])

    def command(self):
        where = ["--listen", f"127.0.0.1:{self.port}", "--data-dir", self.dir / "data"]
        return [self.tools["mepulse"], "serve", *where]

    async def ask_something(self):
        link = self.link()
        status, _ = await link.ask("GET", f"{ROOT}/applications/peers/services")
        link.close()
        # 404: nobody is registered yet.
        return status in (200, 404)

    async def register(self, count, ttl_s):
        self.services = [None] * count
        links = [self.link() for _ in range(min(64, count))]

        async def one(number):
            link = links.pop()
            body = {
                "serName": f"client-{number}",
                "version": "1.0",
                "state": "ACTIVE",
                "serializer": "JSON",
                "livenessInterval": ttl_s,
                "transportInfo": {
                    "id": "t",
                    "name": "REST",
                    "type": "REST_HTTP",
                    "protocol": "HTTP",
                    "version": "2.0",
                    "endpoint": {"uris": ["http://10.0.0.1/cam"]},
                    "security": {},
                },
            }
            path = f"{ROOT}/applications/peers/services"
            status, answer = await link.ask("POST", path, json.dumps(body).encode())
            if status != 201:
                raise own.Trouble(f"registration: status {status}")
            info = json.loads(answer)
            if info["livenessInterval"] != ttl_s:
                raise own.Trouble(f"asked for {ttl_s} s, got {info['livenessInterval']} s")
            self.services[number] = info["_links"]["liveness"]["href"]
            links.append(link)

        await share(count, len(links), one)
        for link in links:
            link.close()

    def link(self):
        return wire.Http(self.port)

    @staticmethod
    def promises(client):
        """Every other client promises to try again soon: retryInterval is an extension."""
        return client % 2 == 0

    async def beat(self, link, client):
        body = PROMISING_BEAT if self.promises(client) else BEAT
        status, _ = await link.ask("PATCH", self.services[client], body)
        return status in (200, 204)

    async def follow(self, told, opened):
        def take(line):
            # Something comes at once: then nothing is missed any more.
            opened.set()
            field, _, value = line.decode().partition(": ")
            if field == "id":
                self.seen = value
            elif field == "event" and value == "gap":
                raise own.Trouble("the stream of events has a gap")
            elif field == "data":
                for one in json.loads(value).get("serviceReferences", []):
                    if one["state"] != "ACTIVE":
                        told(int(one["serName"].rpartition("-")[2]))

        resume = f"Last-Event-ID: {self.seen}\r\n" if self.seen else ""
        await self.link().follow("GET", f"{ROOT}/services/events", b"", resume, take)

    async def gone(self, count):
        link = self.link()
        _, answer = await link.ask("GET", f"{ROOT}/applications/peers/services")
        link.close()
        services = json.loads(answer)
        alive = {one["serName"] for one in services if one["state"] == "ACTIVE"}
        return {number for number in range(count) if f"client-{number}" not in alive}

    def write_requests(self, count):
        """For wrk: method, path, body."""
        return [("PATCH", self.services[number], BEAT.decode()) for number in range(count)]
