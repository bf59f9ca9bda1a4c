"""HTTP/1.1 and RESP, as little of them as the jobs need, on asyncio."""

import asyncio

HOST = "127.0.0.1"


class Bad(Exception):
    """An answer that is none."""


FAILURES = (OSError, EOFError, asyncio.TimeoutError, Bad)


class Link:
    """A connection that is kept; after a failure the next request opens another one."""

    def __init__(self, port):
        self.port = port
        self.reader = self.writer = None

    async def open(self):
        if self.writer is None:
            self.reader, self.writer = await asyncio.open_connection(HOST, self.port)

    def close(self):
        if self.writer is not None:
            self.writer.transport.abort()
        self.reader = self.writer = None


class Http(Link):
    async def send(self, method, path, body, headers=""):
        await self.open()
        head = f"{method} {path} HTTP/1.1\r\nHost: {HOST}:{self.port}\r\n{headers}"
        if body:
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        self.writer.write(head.encode() + b"\r\n" + body)
        await self.writer.drain()
        status = (await self.reader.readuntil(b"\r\n")).split()
        if len(status) < 2 or not status[1].isdigit():
            raise Bad("not HTTP")
        answer = {}
        while (line := await self.reader.readuntil(b"\r\n")) != b"\r\n":
            name, _, value = line.decode("latin-1").partition(":")
            answer[name.lower()] = value.strip()
        return int(status[1]), answer

    async def chunks(self):
        while size := int(await self.reader.readuntil(b"\r\n"), 16):
            yield (await self.reader.readexactly(size + 2))[:-2]
        await self.reader.readuntil(b"\r\n")

    async def ask(self, method, path, body=b""):
        """The answer's status and body."""
        try:
            status, headers = await self.send(method, path, body)
            if "chunked" in headers.get("transfer-encoding", ""):
                return status, b"".join([chunk async for chunk in self.chunks()])
            return status, await self.reader.readexactly(int(headers.get("content-length", 0)))
        except BaseException:
            self.close()
            raise

    async def follow(self, method, path, body, headers, take):
        """Gives every line of an answer without end to `take`."""
        try:
            status, _ = await self.send(method, path, body, headers)
            if status != 200:
                raise Bad(f"{path}: status {status}")
            rest = b""
            async for chunk in self.chunks():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    take(line)
            raise EOFError
        finally:
            self.close()


class Resp(Link):
    @staticmethod
    def command(*words):
        words = [str(word).encode() for word in words]
        parts = b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)
        return b"*%d\r\n%s" % (len(words), parts)

    async def reply(self):
        line = (await self.reader.readuntil(b"\r\n"))[:-2]
        kind, rest = line[:1], line[1:]
        if kind == b"-":
            raise Bad(rest.decode())
        if kind == b":":
            return int(rest)
        if kind == b"$":
            return None if rest == b"-1" else (await self.reader.readexactly(int(rest) + 2))[:-2]
        if kind == b"*":
            return [await self.reply() for _ in range(int(rest))]
        return rest

    async def ask(self, *words):
        return (await self.ask_all([words]))[0]

    async def ask_all(self, commands):
        """Many commands in one go."""
        try:
            await self.open()
            self.writer.write(b"".join(self.command(*words) for words in commands))
            await self.writer.drain()
            return [await self.reply() for _ in commands]
        except BaseException:
            self.close()
            raise
