"""A provider that follows a script, so that a test reads as a transcript: what it is asked, what it does, when.

    go = Gate()
    async with ScriptedProvider([head(chunked=True), chunk(b"data: 1\n\n"), go, RESET]) as provider:
        ...                                      # point the code under test at provider.url
        request = await provider.requests.at(0)  # it has been asked
        assert request.target == "/v1/chat/completions"
        go.open()                                # only now does it go on
        await provider.connections[0].closed     # it has reset the connection, or the other side has left

Each argument is the answer to one request, in the order of arrival over all connections; the last is given to all
further ones. An answer is bytes, a list of steps, or a function of the request that returns one of these. A step is

- bytes: written at once, in one write;
- a `Gate`: wait until the test opens it;
- RESET: close with RST; CLOSE: close with FIN after what was written; DROP: close the socket without TLS's closing
  alert; EOF: send FIN and keep reading; STALL: do nothing more on this connection.

`greeting` are steps taken as soon as a client connects (`[RESET]`, `[STALL]`, unasked bytes). `tls` is a server context
(see `Authority`). Requests must carry a Content-Length or no body. Everything received is kept: `requests`,
`connections` (their number tells whether connections are reused), `connections[0].received`, `connections[0].closed`.

For a gateway in another process, the same as a thread of its own; `Gate.open` may be called from any thread:

    with ScriptedProvider(respond(b"{}")).in_thread() as provider:
        request = provider.requests.wait_for(0)
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar, cast

import trustme

PATIENCE = 20.0
"""Seconds after which a wait of a test gives up: a deadline against hanging, never something that a test relies on."""


class Action(enum.Enum):
    """What a provider may do besides writing."""

    RESET = "reset"
    CLOSE = "close"
    DROP = "drop"
    EOF = "eof"
    STALL = "stall"


RESET, CLOSE, DROP, EOF, STALL = Action.RESET, Action.CLOSE, Action.DROP, Action.EOF, Action.STALL


class Gate:
    """Something that happens once; `await gate` waits for it. May be opened and awaited from any thread or loop."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []

    def __repr__(self) -> str:
        return f"<Gate {'open' if self.is_open else 'shut'}>"

    @property
    def is_open(self) -> bool:
        return self._event.is_set()

    def open(self) -> None:
        """Let everyone through, now and later."""
        with self._lock:
            self._event.set()
            waiting, self._waiting = self._waiting, []
        for loop, future in waiting:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(_resolve, future)

    def __await__(self):  # type: ignore[no-untyped-def]
        return self._pass().__await__()

    async def _pass(self) -> None:
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        with self._lock:
            if self.is_open:
                return
            self._waiting.append((loop, future))
        async with asyncio.timeout(PATIENCE):
            await future

    def wait_for(self, seconds: float = PATIENCE) -> None:
        """The same for code without an event loop."""
        if not self._event.wait(seconds):
            raise TimeoutError(f"{self!r} after {seconds} s")


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


T = TypeVar("T")


class Log(Generic[T]):
    """A list that grows while a test looks at it."""

    def __init__(self) -> None:
        self._items: list[T] = []
        self._gates: dict[int, Gate] = {}
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<Log {self._items!r}>"

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> T:
        return self._items[index]

    def __iter__(self) -> Iterator[T]:
        return iter(list(self._items))

    def append(self, item: T) -> None:
        """Add an item and wake those who wait for it."""
        with self._lock:
            self._items.append(item)
            gate = self._gates.pop(len(self._items) - 1, None)
        if gate is not None:
            gate.open()

    def _gate(self, index: int) -> Gate:
        with self._lock:
            gate = self._gates.setdefault(index, Gate())
            if index < len(self._items):
                del self._gates[index]
                gate.open()
            return gate

    async def at(self, index: int) -> T:
        """The item, once it is there."""
        await self._gate(index)
        return self._items[index]

    def wait_for(self, index: int, seconds: float = PATIENCE) -> T:
        """The same for code without an event loop."""
        self._gate(index).wait_for(seconds)
        return self._items[index]


@dataclass(frozen=True)
class Request:
    """One request, as it came. Names of `headers` are lower-case; `fields` keeps them all, in order."""

    raw: bytes
    connection: int
    method: str
    target: str
    fields: tuple[tuple[str, str], ...]
    body: bytes

    @property
    def headers(self) -> dict[str, str]:
        return {name.lower(): value for name, value in self.fields}


@dataclass
class Connection:
    """One connection that was accepted. `spoke` opens with its first byte; `closed` when either side has closed it."""

    index: int
    received: bytes = b""
    spoke: Gate = field(default_factory=Gate)
    closed: Gate = field(default_factory=Gate)


Step = bytes | Gate | Action
Answer = bytes | Sequence[Step] | Callable[[Request], bytes | Sequence[Step]]


class ScriptedProvider:
    """The server; see the top of this file."""

    def __init__(
        self,
        *answers: Answer,
        greeting: Sequence[Step] = (),
        tls: ssl.SSLContext | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        unix_path: str | None = None,
    ) -> None:
        self._answers = answers or (respond(b"{}"),)
        self._greeting = greeting
        self._tls = tls
        self._unix_path = unix_path
        self._server: asyncio.Server | None = None
        self._live: set[_Wire] = set()
        self.host = host
        self.port = port
        self.connections: Log[Connection] = Log()
        self.requests: Log[Request] = Log()

    def __repr__(self) -> str:
        return f"<ScriptedProvider {self.url}: {len(self.connections)} connections, {len(self.requests)} requests>"

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self._tls else 'http'}://{host}:{self.port}"

    async def __aenter__(self) -> ScriptedProvider:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen on a free port of the running loop."""
        loop = asyncio.get_running_loop()
        if self._unix_path is not None:
            self._server = await loop.create_unix_server(lambda: _Wire(self), self._unix_path, ssl=self._tls)
            return
        self._server = await loop.create_server(lambda: _Wire(self), self.host, self.port, ssl=self._tls, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening and drop every connection."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for wire in list(self._live):
            wire.drop()
        await asyncio.sleep(0)

    @contextlib.contextmanager
    def in_thread(self) -> Iterator[ScriptedProvider]:
        """Run in a thread with a loop of its own, for code under test that has none or lives in another process."""
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, name="scripted-provider", daemon=True)
        thread.start()
        try:
            asyncio.run_coroutine_threadsafe(self.start(), loop).result(PATIENCE)
            yield self
        finally:
            asyncio.run_coroutine_threadsafe(self.stop(), loop).result(PATIENCE)
            loop.call_soon_threadsafe(loop.stop)
            thread.join(PATIENCE)
            loop.close()

    def steps_for(self, request: Request) -> Sequence[Step]:
        """What the script says to this request, which is recorded."""
        answer = self._answers[min(len(self.requests), len(self._answers) - 1)]
        self.requests.append(request)
        steps = answer(request) if callable(answer) else answer
        return [steps] if isinstance(steps, bytes) else steps


class _Wire(asyncio.Protocol):
    """One connection: collects requests, plays steps."""

    def __init__(self, provider: ScriptedProvider) -> None:
        self._provider = provider
        self._buffer = b""
        self._requests: asyncio.Queue[Request] = asyncio.Queue()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        provider = self._provider
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports do not derive from asyncio's
        self._connection = Connection(len(provider.connections))
        provider._live.add(self)
        provider.connections.append(self._connection)
        self._task = asyncio.get_running_loop().create_task(self._run())

    def data_received(self, data: bytes) -> None:
        self._connection.received += data
        self._connection.spoke.open()
        self._buffer += data
        while (request := self._take_request()) is not None:
            self._requests.put_nowait(request)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self._task.cancel()
        self._provider._live.discard(self)
        self._connection.closed.open()

    def drop(self) -> None:
        """Close now."""
        self._task.cancel()
        self._transport.abort()

    def _take_request(self) -> Request | None:
        head, separator, rest = self._buffer.partition(b"\r\n\r\n")
        if not separator:
            return None
        line, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = line.split(" ")
        fields = tuple((name, value.strip()) for name, _, value in (one.partition(":") for one in lines))
        length = next((int(value) for name, value in fields if name.lower() == "content-length"), 0)
        if len(rest) < length:
            return None
        raw, self._buffer = head + separator + rest[:length], rest[length:]
        return Request(raw, self._connection.index, method, target, fields, rest[:length])

    async def _run(self) -> None:
        await self._play(self._provider._greeting)
        while True:
            await self._play(self._provider.steps_for(await self._requests.get()))

    async def _play(self, steps: Sequence[Step]) -> None:
        for step in steps:
            if isinstance(step, bytes):
                self._transport.write(step)
                await asyncio.sleep(0)
            elif isinstance(step, Gate):
                await step
            elif step is STALL:
                await asyncio.get_running_loop().create_future()
            elif step is EOF:
                self._transport.write_eof()
            else:
                self._end(step)
                await asyncio.get_running_loop().create_future()

    def _end(self, how: Action) -> None:
        if how is RESET:
            sock = self._transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if how is CLOSE:
            self._transport.close()
        else:
            self._transport.abort()


def head(status: int = 200, *fields: tuple[str, str], length: int | None = None, chunked: bool = False) -> bytes:
    """A response head. Without `length` or `chunked` its body ends with the connection."""
    lines = [f"HTTP/1.1 {status} Scripted", *(f"{name}: {value}" for name, value in fields)]
    if length is not None:
        lines.append(f"content-length: {length}")
    if chunked:
        lines.append("transfer-encoding: chunked")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def respond(body: bytes, status: int = 200, *fields: tuple[str, str], content_type: str = "application/json") -> bytes:
    """A whole response with a sized body."""
    return head(status, ("content-type", content_type), *fields, length=len(body)) + body


def chunk(payload: bytes) -> bytes:
    """One chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(payload), payload)


LAST_CHUNK = b"0\r\n\r\n"


def stream(*frames: bytes, status: int = 200) -> list[Step]:
    """An SSE answer: its head, one chunk for each frame, written one by one, and its end."""
    return [head(status, ("content-type", "text/event-stream"), chunked=True), *map(chunk, frames), LAST_CHUNK]


def trickle(data: bytes, size: int = 1) -> list[Step]:
    """The same bytes in pieces, one write and one turn of the provider's loop for each."""
    return [data[start : start + size] for start in range(0, len(data), size)]


class Authority:
    """A certificate authority of the test's own, as a file that clients can be told to trust."""

    def __init__(self, folder: Path) -> None:
        self._authority = trustme.CA()
        self.ca_file = str(folder / "authority.pem")
        self._authority.cert_pem.write_to_path(self.ca_file)

    def server_context(self, *hosts: str, **options: object) -> ssl.SSLContext:
        """The context of a server that is one of these hosts; `options` as of `trustme.CA.issue_cert` (`not_after`)."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.set_alpn_protocols(["h2", "http/1.1"])
        self._authority.issue_cert(*hosts, **options).configure_cert(context)  # type: ignore[arg-type]
        return context


@contextlib.contextmanager
def deaf_port() -> Iterator[int]:
    """A loopback port that answers no SYN: its queue of connections is full. For connects that must not complete."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                filler.connect(listener.getsockname())
        yield listener.getsockname()[1]


def refusing_port() -> int:
    """A loopback port where nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port
