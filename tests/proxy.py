"""A proxy of our own before a server: it can delay, hold and swallow requests and answers, cut connections, and refuse
new ones."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from enum import Enum
from urllib.parse import parse_qs, quote, urlsplit

_CHUNK = 256 * 1024


class Side(Enum):
    """What a trap holds back: the request with its pattern, or whatever the server answers after it.

    LATE is a request whose connection breaks, to its sender, as it is sent: `release` has it arrive all the same.
    """

    REQUEST = "request"
    ANSWER = "answer"
    LATE = "late"


class Trap:
    """Springs at the first request that holds `pattern`; that connection then waits until `release` or a cut.

    Where `after` is given, only on a connection on which an earlier request held that.
    """

    def __init__(self, pattern: bytes, side: Side, after: bytes) -> None:
        self.pattern = pattern
        self.side = side
        self.after = after
        self.armed_on: set[object] = set()
        self.sprung = asyncio.Event()
        self.answered = asyncio.Event()
        """The server has sent something that is held back; after a LATE request over HTTP/2: the end of its answer."""
        self._released = asyncio.Event()

    def release(self) -> None:
        """Let pass what is held back, and all that follows."""
        self._released.set()

    async def wait(self) -> None:
        await self._released.wait()


class _Link:
    """One connection of a client, and ours to the server for it."""

    def __init__(self, client: _Streams, server: _Streams) -> None:
        self.client = client
        self.server = server
        self.answers_held: Trap | None = None
        self.late: Trap | None = None
        self.late_stream = 0
        self.tail = b""
        self.cut = asyncio.Event()

    def abort(self) -> None:
        for _, writer in (self.client, self.server):
            writer.transport.abort()


_Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Proxy:
    """Listens on a loopback port of its own and passes everything on to one server, until told otherwise."""

    def __init__(self, connect: Callable[[], Awaitable[_Streams]], *, remembers: bool = True) -> None:
        self._connect = connect
        self._remembers = remembers
        self._listener: asyncio.Server | None = None
        self._port = 0
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._traps: list[Trap] = []
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._requests = bytearray()
        self._keeps_open = False
        self.delay_seconds = 0.0
        """How long each piece is on its way, in either direction."""
        self.ended = asyncio.Event()
        """The server has closed a connection; everything that it said before was passed on."""

    @classmethod
    def before_tcp(cls, endpoint: str, *, remembers: bool = True) -> Proxy:
        """Before a server at host:port; one that does not remember what clients sent (`seen`) can run for long."""
        host, _, port = endpoint.rpartition(":")
        return cls(lambda: asyncio.open_connection(host, int(port)), remembers=remembers)

    @classmethod
    def before_postgres(cls, url: str, *, remembers: bool = True) -> Proxy:
        """Before the PostgreSQL of a URL, whether that names a host or the folder of a unix socket."""
        parts = urlsplit(url)
        folder = parse_qs(parts.query).get("host", [""])[0]
        if folder:
            socket = f"{folder}/.s.PGSQL.{parts.port or 5432}"
            return cls(lambda: asyncio.open_unix_connection(socket), remembers=remembers)
        return cls(lambda: asyncio.open_connection(parts.hostname, parts.port or 5432), remembers=remembers)

    @property
    def endpoint(self) -> str:
        """host:port of the proxy."""
        return f"127.0.0.1:{self._port}"

    def url(self, of: str) -> str:
        """The same database as the URL `of` names, by way of the proxy."""
        parts = urlsplit(of)
        login = quote(parts.username or "postgres") + (f":{quote(parts.password)}" if parts.password else "")
        return f"postgresql://{login}@{self.endpoint}{parts.path}?sslmode=disable"

    async def accept(self) -> None:
        """Listen, on the same port as before where there was one."""
        self._listener = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        self._port = self._listener.sockets[0].getsockname()[1]

    async def refuse(self) -> None:
        """Listen no more, and cut what there is."""
        if self._listener is not None:
            listener, self._listener = self._listener, None
            # Connections that were accepted get their transports first: asyncio leaves those without an owner that it
            # finds the server closed for (an assertion in Server._attach, whose error it keeps to itself).
            for socket in listener.sockets:
                asyncio.get_running_loop().remove_reader(socket.fileno())
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            listener.close()
        await self.cut()

    async def cut(self) -> None:
        """Reset every connection, without passing on what is held back."""
        for link in self._links:
            link.cut.set()
        if self._tasks:
            await asyncio.wait(set(self._tasks))

    def freeze(self) -> None:
        """Pass nothing on, and say nothing: a network that swallows everything."""
        self._flowing.clear()

    def thaw(self) -> None:
        self._flowing.set()

    def keep_open(self) -> None:
        """What the server closes stays open to the client until it is cut."""
        self._keeps_open = True

    def trap(self, pattern: bytes, side: Side = Side.ANSWER, *, after: bytes = b"") -> Trap:
        """Hold back what `side` says of the first request from now on that holds `pattern`."""
        for link in self._links:
            link.tail = b""
        trap = Trap(pattern, side, after)
        self._traps.append(trap)
        return trap

    def disarm(self, trap: Trap) -> None:
        """It springs no more; what it holds goes on."""
        if trap in self._traps:
            self._traps.remove(trap)
        trap.release()

    def seen(self, pattern: bytes) -> int:
        """How often clients have sent `pattern`."""
        return self._requests.count(pattern)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._pass_on((reader, writer))
        finally:
            writer.transport.abort()
            self._tasks.discard(task)

    async def _pass_on(self, client: _Streams) -> None:
        try:
            link = _Link(client, await self._connect())
        except OSError:
            return
        if self._listener is None:  # accepted before it was closed, and nobody would cut it
            link.abort()
            return
        self._links.add(link)
        ways = (self._requests_of(link), self._answers_to(link), link.cut.wait())
        tasks = [asyncio.create_task(way) for way in ways]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        self._links.discard(link)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        link.abort()

    async def _requests_of(self, link: _Link) -> None:
        with suppress(ConnectionError):
            while data := await link.client[0].read(_CHUNK):
                if self._remembers:
                    self._requests += data
                await self._on_its_way()
                trap = self._sprung(link, data)
                if trap is not None and trap.side is Side.REQUEST:
                    trap.sprung.set()
                    more = await _hold(trap, link.client[0])
                    if more is None:
                        return
                    data += more
                elif trap is not None and trap.side is Side.LATE:
                    link.late, link.late_stream = trap, _stream_of(trap.pattern, data)
                    link.client[1].transport.abort()
                    trap.sprung.set()
                    await trap.wait()
                elif trap is not None:
                    link.answers_held = trap
                link.server[1].write(data)
                await link.server[1].drain()
                if trap is not None:
                    trap.sprung.set()
                if link.late is not None:
                    await asyncio.Event().wait()  # for the answer, until the proxy is cut
        await self._end()

    async def _answers_to(self, link: _Link) -> None:
        with suppress(ConnectionError):
            while data := await link.server[0].read(_CHUNK):
                await self._on_its_way()
                if link.late is not None:
                    if _ends(link.late_stream, data):
                        link.late.answered.set()
                    continue
                if link.answers_held is not None:
                    link.answers_held.answered.set()
                    await link.answers_held.wait()
                link.client[1].write(data)
                await link.client[1].drain()
            self.ended.set()
        await self._end()

    async def _on_its_way(self) -> None:
        if self.delay_seconds:
            await asyncio.sleep(self.delay_seconds)
        await self._flowing.wait()

    async def _end(self) -> None:
        if self._keeps_open:
            await asyncio.Event().wait()

    def _sprung(self, link: _Link, data: bytes) -> Trap | None:
        """A pattern may lie across two reads."""
        seen = link.tail + data
        link.tail = seen[-64:]
        found = next((trap for trap in self._traps if self._is_armed(trap, link, seen) and trap.pattern in seen), None)
        if found is not None:
            self._traps.remove(found)
        return found

    def _is_armed(self, trap: Trap, link: _Link, seen: bytes) -> bool:
        armed = not trap.after or link in trap.armed_on
        if trap.after in seen:
            trap.armed_on.add(link)
        return armed


async def _hold(trap: Trap, client: asyncio.StreamReader) -> bytes | None:
    """What the client says until the trap is released; None where it goes away before."""
    said = b""
    released = asyncio.create_task(trap.wait())
    try:
        while not released.done():
            reading = asyncio.create_task(client.read(_CHUNK))
            await asyncio.wait({released, reading}, return_when=asyncio.FIRST_COMPLETED)
            if not reading.done():
                reading.cancel()
                await asyncio.wait({reading})
            elif not reading.result():
                return None
            else:
                said += reading.result()
    finally:
        released.cancel()
    return said


def _frames(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Kind, flags, stream and payload of the HTTP/2 frames that begin with `data`."""
    while len(data) >= 9:
        length, kind, flags, stream = (
            int.from_bytes(data[:3], "big"),
            data[3],
            data[4],
            int.from_bytes(data[5:9], "big"),
        )
        yield kind, flags, stream, data[9 : 9 + length]
        data = data[9 + length :]


def _stream_of(pattern: bytes, data: bytes) -> int:
    return next((stream for _, _, stream, payload in _frames(data) if pattern in payload), 0)


def _ends(stream: int, data: bytes) -> bool:
    """Whether HEADERS with END_STREAM, which are the trailers of gRPC, are there for that stream."""
    return any(kind == 1 and flags & 1 and of == stream for kind, flags, of, _ in _frames(data))
