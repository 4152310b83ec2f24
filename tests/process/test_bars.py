"""The bars that users would feel, on a real gateway: first token, many streams, slow readers, clients that leave.

Provider and clients are plain asyncio streams in the test's own loop; the gateway runs in processes of its own. What
was measured is in the test report (`record_property`). The 100 ms in which a client that left must be gone at the
provider, and the memory bounds, are promises to users, so here they are asserted; nothing else about time is.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.gateway_process import HOST, GatewayProcess, configuration, running_gateway
from tests.process.support import children

Reader, Writer = asyncio.StreamReader, asyncio.StreamWriter
Behaviour = Callable[[Reader, Writer], Awaitable[None]]

STREAMS = 1000
SSE = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
DONE = b"data: [DONE]\n\n"
LEAVING_SECONDS = 0.1


def event(text: str) -> bytes:
    return b'data: {"id":"c","choices":[{"index":0,"delta":{"content":%b}}]}\n\n' % json.dumps(text).encode()


def chunk(payload: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(payload), payload)


class Provider:
    """A provider whose behaviour a test sets; it reads a request, then behaves."""

    def __init__(self) -> None:
        self.requests = 0
        self.behaviour: Behaviour
        self.left: asyncio.Queue[float] = asyncio.Queue()
        self._tasks: set[asyncio.Task[Any]] = set()

    async def __call__(self, reader: Reader, writer: Writer) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
                await reader.readexactly(length)
                self.requests += 1
                await self.behaviour(reader, writer)
        writer.close()

    async def until_closed(self, reader: Reader) -> None:
        """Wait until the gateway closes, and note when."""
        with contextlib.suppress(ConnectionError):
            await reader.read()
        self.left.put_nowait(time.monotonic())


@pytest.fixture
async def provider() -> AsyncIterator[tuple[Provider, int]]:
    behaves = Provider()
    server = await asyncio.start_server(behaves, HOST, 0, backlog=STREAMS)
    yield behaves, server.sockets[0].getsockname()[1]
    server.close()


@pytest.fixture(autouse=True)
def many_files() -> Iterator[None]:
    """A thousand streams are two thousand sockets here and as many in the gateway."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 16384), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def start(folder: Path, port: int, **gateway: Any) -> contextlib.AbstractContextManager[GatewayProcess]:
    """A gateway with one target at `port`."""
    target = {"id": "one", "provider": "openai-compatible", "model": "m", "base_url": f"http://{HOST}:{port}"}
    return running_gateway(folder, configuration(target, gateway=gateway))


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


async def ask(gateway: GatewayProcess, *, stream: bool = True, model: str = "m") -> tuple[Reader, Writer]:
    body = json.dumps({"model": model, "stream": stream, "messages": [{"role": "user", "content": "Hi"}]}).encode()
    reader, writer = await asyncio.open_connection(HOST, gateway.port, limit=1 << 20)
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        b"content-length: %d\r\n\r\n%b" % (len(body), body)
    )
    return reader, writer


async def eventually(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait for a condition; the deadline is against hanging only."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        await asyncio.sleep(0.005)


async def test_the_first_token_arrives_before_the_second_is_sent(
    provider: tuple[Provider, int], tmp_path: Path
) -> None:
    behaves, port = provider
    arrived = asyncio.Event()

    async def behaviour(reader: Reader, writer: Writer) -> None:
        writer.write(SSE + chunk(event("first")))
        await arrived.wait()
        writer.write(chunk(event("second")) + chunk(DONE) + b"0\r\n\r\n")

    behaves.behaviour = behaviour
    with start(tmp_path, port) as gateway:
        reader, writer = await ask(gateway)
        await asyncio.wait_for(reader.readuntil(b"first"), 10)
        arrived.set()
        await asyncio.wait_for(reader.readuntil(b"0\r\n\r\n"), 10)
        writer.close()


async def test_a_thousand_slow_streams(
    provider: tuple[Provider, int], tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    behaves, port = provider
    go_on = asyncio.Event()

    async def behaviour(reader: Reader, writer: Writer) -> None:
        writer.write(SSE + chunk(event("one")))
        await go_on.wait()
        for text in ("two", "three"):
            writer.write(chunk(event(text)))
            await writer.drain()
        writer.write(chunk(DONE) + b"0\r\n\r\n")

    async def follow() -> bytes:
        reader, writer = await ask(gateway)
        begun = await reader.readuntil(b'"one"')
        opened.append(1)
        rest = await reader.readuntil(b"0\r\n\r\n")
        writer.close()
        return begun + rest

    behaves.behaviour = behaviour
    pool = {"max_connections": STREAMS + 100, "max_queue": STREAMS, "queue_seconds": 60.0}
    with start(tmp_path, port, connection_pool=pool, timeouts={"connect_seconds": 60.0}) as gateway:
        opened: list[int] = []
        go_on.set()
        await asyncio.gather(*[follow() for _ in range(50)])  # code and tables that are loaded once
        go_on.clear()
        opened.clear()
        worker = children(gateway)["worker-0"]
        before = resident_bytes(worker)
        tasks = [asyncio.create_task(follow()) for _ in range(STREAMS)]
        await eventually(lambda: len(opened) == STREAMS, 45)
        each = (resident_bytes(worker) - before) / STREAMS
        go_on.set()
        answers = await asyncio.wait_for(asyncio.gather(*tasks), 45)
    record_property("RSS bytes per open stream", round(each))
    print(f"{each / 1024:.1f} KB of RSS per open stream")
    assert all(answer.count(b"data: ") == 4 and DONE in answer for answer in answers)
    assert each < 40 * 1024


@pytest.mark.parametrize("kind", ["application/json", "text/event-stream"])
@pytest.mark.parametrize("sized", [True, False], ids=["sized", "chunked"])
async def test_a_huge_answer_to_a_slow_reader_stays_at_the_provider(
    provider: tuple[Provider, int],
    tmp_path: Path,
    kind: str,
    sized: bool,
    record_property: Callable[[str, object], None],
) -> None:
    behaves, port = provider
    size = 500_000_000
    taken = 0

    async def behaviour(reader: Reader, writer: Writer) -> None:
        nonlocal taken
        framing = f"content-length: {size}" if sized else "transfer-encoding: chunked"
        writer.write(f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\n{framing}\r\n\r\n".encode())
        piece = event("x" * 65_000)
        piece = piece if sized else chunk(piece)
        with contextlib.suppress(ConnectionError):
            while taken < size:
                writer.write(piece)
                await writer.drain()
                taken += len(piece)

    behaves.behaviour = behaviour
    with start(tmp_path, port) as gateway:
        worker = children(gateway)["worker-0"]
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 * 1024)
        client.connect((HOST, gateway.port))
        client.setblocking(False)
        streams = kind == "text/event-stream"
        body = json.dumps({"model": "m", "stream": streams, "messages": []}).encode()
        loop = asyncio.get_running_loop()
        before = resident_bytes(worker)
        head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n" % len(body)
        await loop.sock_sendall(client, head + body)
        read, growth = 0, 0
        for _ in range(30):  # 10 KB every 100 ms, which is 100 KB/s, for three seconds
            read += len(await loop.sock_recv(client, 10_000))
            growth = max(growth, resident_bytes(worker) - before)
            await asyncio.sleep(0.1)
        client.close()
    record_property("RSS growth in bytes", growth)
    print(f"RSS grew by {growth / 1e6:.1f} MB; the provider got rid of {taken / 1e6:.1f} MB, the client read {read}")
    assert growth < 10_000_000
    assert taken < 40_000_000, "the provider was not slowed"


class TestAClientThatLeaves:
    """From the client's close to the provider's: in every phase within 100 ms."""

    async def leave(self, behaves: Provider, writer: Writer) -> float:
        began = time.monotonic()
        writer.close()
        return await asyncio.wait_for(behaves.left.get(), 10) - began

    def judge(self, taken: list[float], record_property: Callable[[str, object], None]) -> None:
        record_property("milliseconds until the provider saw it", [round(one * 1000, 1) for one in sorted(taken)])
        # Nine of ten: the test shares its two cores with the gateway and with other tests.
        assert sorted(taken)[len(taken) * 9 // 10 - 1] < LEAVING_SECONDS

    @pytest.mark.parametrize("begun", [False, True], ids=["waiting", "streaming"])
    async def test_with_a_request_in_flight(
        self,
        provider: tuple[Provider, int],
        tmp_path: Path,
        begun: bool,
        record_property: Callable[[str, object], None],
    ) -> None:
        behaves, port = provider

        async def behaviour(reader: Reader, writer: Writer) -> None:
            if begun:
                writer.write(SSE + chunk(event("first")))
            await behaves.until_closed(reader)

        behaves.behaviour = behaviour
        taken = []
        with start(tmp_path, port) as gateway:
            for number in range(20):
                reader, writer = await ask(gateway)
                if begun:
                    await reader.readuntil(b"first")
                else:
                    await eventually(lambda number=number: behaves.requests > number)  # type: ignore[misc]
                taken.append(await self.leave(behaves, writer))
        self.judge(taken, record_property)
        recorded = [(one["outcome"], one["status"]) for one in gateway.audit_records()]
        assert recorded == [("cancelled", 499)] * 20

    async def test_in_the_queue(self, provider: tuple[Provider, int], tmp_path: Path) -> None:
        behaves, port = provider
        answer = asyncio.Event()

        async def behaviour(reader: Reader, writer: Writer) -> None:
            await answer.wait()
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}")

        behaves.behaviour = behaviour
        with start(tmp_path, port, connection_pool={"max_connections": 1, "queue_seconds": 60.0}) as gateway:
            first_reader, first = await ask(gateway, stream=False)
            await eventually(lambda: behaves.requests == 1)
            _, second = await ask(gateway, stream=False)
            await eventually(lambda: b'open_exchanges{worker="0"} 2' in gateway.get("/metrics")[1])
            second.close()
            await eventually(lambda: b'open_exchanges{worker="0"} 1' in gateway.get("/metrics")[1])
            answer.set()
            await asyncio.wait_for(first_reader.readuntil(b"{}"), 10)
            first.close()
        assert behaves.requests == 1, "a request whose client had left was sent"

    async def test_while_connecting(self, tmp_path: Path) -> None:
        """The provider's host takes no connection: its listener's backlog is full."""
        with contextlib.ExitStack() as stack:
            listener = stack.enter_context(socket.socket())
            listener.bind((HOST, 0))
            listener.listen(0)
            port = listener.getsockname()[1]
            for _ in range(2):
                filler = stack.enter_context(socket.socket())
                filler.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    filler.connect((HOST, port))
            fillers = connecting(port)
            gateway = stack.enter_context(start(tmp_path, port, timeouts={"connect_seconds": 60.0}))
            _, writer = await ask(gateway)
            await eventually(lambda: connecting(port) == fillers + 1)
            began = time.monotonic()
            writer.close()
            await eventually(lambda: connecting(port) == fillers)
            assert time.monotonic() - began < LEAVING_SECONDS * 3  # three looks at /proc/net/tcp among it

    async def test_between_two_attempts(self, provider: tuple[Provider, int], tmp_path: Path) -> None:
        behaves, port = provider

        async def behaviour(reader: Reader, writer: Writer) -> None:
            writer.write(b"HTTP/1.1 500 Oops\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}")

        behaves.behaviour = behaviour
        common = {"provider": "openai-compatible", "model": "m", "base_url": f"http://{HOST}:{port}"}
        text = configuration(
            {"id": "one", **common},
            {"id": "two", **common},
            fallback={"triggers": ["server_error"], "max_attempts": 20},
        )
        with running_gateway(tmp_path, text) as gateway:
            _, writer = await ask(gateway)
            await eventually(lambda: behaves.requests >= 2)
            writer.close()
            await eventually(lambda: b'open_exchanges{worker="0"} 0' in gateway.get("/metrics")[1])
            sent = behaves.requests
        assert behaves.requests == sent
        assert [one["outcome"] for one in gateway.audit_records()] == ["cancelled"]


def connecting(port: int) -> int:
    """Sockets of this machine that have sent a SYN to `port` and heard nothing (state 02 of proc(5), net/tcp)."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return sum(fields[2].endswith(f":{port:04X}") and fields[3] == "02" for fields in map(str.split, lines))
