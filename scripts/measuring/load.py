"""Heartbeats from outside, as scripts can make them: at a fixed rate or as fast as the answers come.

An open loop's requests are due at fixed instants and latency counts from there, so that a stall shows in
every request that it was in the way of. This costs more CPU than `mepulse bench`, so capacity is not
measured with it.
"""

import collections
import http.client
import math
import random
import re
import select
import socket
import time
import urllib.parse

ROOT = "/mec_service_mgmt/v1/applications"
BEAT = b'{"state":"ACTIVE"}'
# For each answer. Who waits longer is counted as failed.
TIMEOUT_S = 10.0
# A server closes connections that are idle for long, and a request may cross that. Older ones are renewed.
IDLE_S_MAX = 30.0


def quantile(values, share):
    """The smallest value that a share of all does not exceed; None of nothing."""
    ordered = sorted(values)
    if not ordered:
        return None
    # Rounded: 0.99 of 300 is a trifle more than 297 to a computer.
    return ordered[max(0, math.ceil(round(share * len(ordered), 6)) - 1)]


def ask(url, method, path, body=None, timeout=30.0):
    """One exchange on a connection of its own: status and body."""
    address = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=timeout)
    try:
        connection.request(method, path, body)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def service_ids(url, apps):
    """`app/services/id` of every service of these applications."""
    found = []
    for app in apps:
        status, body = ask(url, "GET", f"{ROOT}/{app}/services", timeout=60.0)
        if status != 200:
            raise RuntimeError(f"listing {app}: status {status}")
        ids = re.findall(rb'"serInstanceId":"([0-9a-f-]{36})"', body)
        found.extend(b"%s/services/%s" % (app.encode(), one) for one in ids)
    return found


class Tally:
    """What came of a stretch of load."""

    def __init__(self):
        self.latencies_s = []
        self.failures = collections.Counter()

    @property
    def answers(self):
        return len(self.latencies_s)

    def latency(self):
        """Of good answers only (other than in the reports of `mepulse bench`); failures are counted beside them."""
        if not self.latencies_s:
            return None
        micros = [round(one * 1e6) for one in self.latencies_s]
        return {
            "count": len(micros),
            "mean_us": round(sum(micros) / len(micros)),
            "p50_us": quantile(micros, 0.5),
            "p99_us": quantile(micros, 0.99),
            "max_us": max(micros),
        }


class Line:
    """A connection with one request under way at the most."""

    def __init__(self, address):
        self.socket = socket.create_connection(address, timeout=TIMEOUT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.due = 0.0
        self.sent = time.monotonic()

    def fileno(self):
        return self.socket.fileno()


class Beats:
    """Heartbeats one by one, each to a service drawn at random from all that are named."""

    def __init__(self, url, services, connections=64, seed=1):
        address = urllib.parse.urlsplit(url)
        self.address = (address.hostname, address.port)
        self.services = services
        self.random = random.Random(seed)
        self.lines = [Line(self.address) for _ in range(connections)]
        self.idle = collections.deque(self.lines)
        self.busy = set()
        self.backlog = collections.deque()
        self.due = None
        self.looked = 0.0
        self.tail = b"/liveness HTTP/1.1\r\nhost: %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (
            address.netloc.encode(),
            len(BEAT),
            BEAT,
        )

    def run(self, seconds, rate=None):
        """Goes on for so long. What is under way at the end is counted by the next call."""
        tally, start = Tally(), time.monotonic()
        end = start + seconds
        if self.due is None:
            self.due = start
        while (now := time.monotonic()) < end:
            if rate:
                while self.due <= now:
                    self.backlog.append(self.due)
                    self.due += 1.0 / rate
                while self.backlog and self.idle:
                    self._send(self.idle.popleft(), self.backlog.popleft(), tally)
                # Nothing else is to be sent as long as all lines are busy.
                wait = (self.due if self.idle else end) - now
            else:
                while self.idle:
                    self._send(self.idle.popleft(), now, tally)
                wait = end - now
            # select, because epoll's pauses are whole milliseconds here.
            ready, _, _ = select.select(list(self.busy), [], [], max(0.0, min(wait, end - now, 1.0)))
            now = time.monotonic()
            for line in ready:
                self._take(line, now, tally)
            self._give_up(now, tally)
        return tally

    def settle(self, patience=TIMEOUT_S):
        """Waits for what is under way; what is due and was never sent has failed."""
        tally, end = Tally(), time.monotonic() + patience
        if self.backlog:
            tally.failures["not sent"] = len(self.backlog)
            self.backlog.clear()
        while self.busy and time.monotonic() < end:
            ready, _, _ = select.select(list(self.busy), [], [], 0.1)
            now = time.monotonic()
            for line in ready:
                self._take(line, now, tally)
        if self.busy:
            tally.failures["no answer"] += len(self.busy)
        self.due = None
        return tally

    def close(self):
        for line in self.lines:
            line.socket.close()
        self.lines, self.busy = [], set()
        self.idle.clear()

    def _send(self, line, due, tally):
        service = self.services[int(self.random.random() * len(self.services))]
        now = time.monotonic()
        if now - line.sent > IDLE_S_MAX:
            line = self._renewed(line, tally)
            if not line:
                return
        line.due, line.sent = due, now
        self.busy.add(line)
        try:
            line.socket.send(b"PATCH %s/%s%s" % (ROOT.encode(), service, self.tail))
        except OSError:
            self._again(line, "connection lost", tally)

    def _take(self, line, now, tally):
        try:
            answer = line.socket.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            answer = b""
        if not answer:
            self._again(line, "connection lost", tally)
            return
        status = answer[9:12]
        if status == b"204" and answer.endswith(b"\r\n\r\n"):
            tally.latencies_s.append(now - line.due)
            self.busy.discard(line)
            self.idle.append(line)
        else:
            # Whatever else came, the rest of it is not waited for.
            self._again(line, f"status {status.decode(errors='replace')}", tally)

    def _give_up(self, now, tally):
        if now - self.looked < 1.0:
            return
        self.looked = now
        late = [line for line in self.busy if now - line.sent > TIMEOUT_S]
        for line in late:
            self._again(line, "timeout", tally)

    def _again(self, line, failure, tally):
        """A failed request takes its connection with it."""
        tally.failures[failure] += 1
        self.busy.discard(line)
        fresh = self._renewed(line, tally)
        if fresh:
            self.idle.append(fresh)

    def _renewed(self, line, tally):
        """Another connection in its place; None if there is none, and an error if there is none any more."""
        self.lines.remove(line)
        line.socket.close()
        try:
            fresh = Line(self.address)
        except OSError:
            tally.failures["connection refused"] += 1
            if not self.lines:
                raise
            return None
        self.lines.append(fresh)
        return fresh
