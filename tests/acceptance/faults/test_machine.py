"""What the machine does to a gateway: no descriptors, no disk, ten thousand idle clients, a signal at the worst moment.

Limits are set on the running worker with prlimit(2), so that all tests share one gateway.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.gateway_process import HOST, PATIENCE, GatewayProcess, configuration, running_gateway
from tests.process.support import MOCK, Wire, chat, children, metrics, rss, target, until
from tests.provider import LAST_CHUNK, Gate, Request, ScriptedProvider, Step, chunk, head

EVENT_STREAM = head(200, ("content-type", "text/event-stream"), chunked=True)
IDLE = 10_000
STREAMS = 200
LEAVING = 500
LEAVING_SECONDS = 0.1


@pytest.fixture(scope="module", autouse=True)
def many_files() -> Iterator[None]:
    """Ten thousand clients are as many sockets here."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Provider:
    """Every stream begins at once; it goes on when the present gate opens."""

    def __init__(self) -> None:
        self.gate = Gate()

    def __call__(self, request: Request) -> list[Step]:
        return [EVENT_STREAM, chunk(b"data: begun\n\n"), self.gate, chunk(b"data: [DONE]\n\n"), LAST_CHUNK]


@pytest.fixture(scope="module")
def provider() -> Provider:
    return Provider()


@pytest.fixture(scope="module")
def text(provider: Provider) -> Iterator[str]:
    with ScriptedProvider(provider).in_thread() as server:
        pool = {"max_connections": 2000, "max_queue": 2000}
        yield configuration(
            MOCK,
            target(server.url),
            gateway={
                "connection_pool": pool,
                "timeouts": {"connect_seconds": 60.0},
                "limits": {"head_seconds": 600.0, "keepalive_seconds": 600.0},
            },
        )


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, text: str) -> Iterator[GatewayProcess]:
    with running_gateway(tmp_path_factory.mktemp("machine"), text) as gateway:
        yield gateway
        assert "Traceback" not in gateway.log


@pytest.fixture
def worker(gateway: GatewayProcess) -> int:
    return until(lambda: children(gateway).get("worker-0"), "the worker is there")


@contextlib.contextmanager
def limited(pid: int, what: int, soft: int) -> Iterator[None]:
    """The process has this limit meanwhile."""
    before = resource.prlimit(pid, what)
    resource.prlimit(pid, what, (soft, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, what, before)


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def ids(gateway: GatewayProcess) -> set[str]:
    """Of the exchanges in the log."""
    lines = gateway.kt("audit", "export", check=False).stdout.splitlines()
    return {json.loads(line)["id"] for line in lines}


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


# Descriptors


def test_a_worker_takes_all_descriptors_that_it_may(worker: int) -> None:
    soft, hard = resource.prlimit(worker, resource.RLIMIT_NOFILE)
    assert soft == hard


def test_without_descriptors_who_is_connected_is_served_and_others_come_later(
    gateway: GatewayProcess, worker: int
) -> None:
    with Wire(gateway.port) as early, contextlib.ExitStack() as stack:
        early.send(chat("mock-gpt"))
        assert early.answer()[0] == 200
        with limited(worker, resource.RLIMIT_NOFILE, descriptors(worker) + 10):
            crowd = [stack.enter_context(socket.create_connection((HOST, gateway.port))) for _ in range(100)]
            until(
                lambda: descriptors(worker) >= resource.prlimit(worker, resource.RLIMIT_NOFILE)[0] - 1, "none is left"
            )
            busy = cpu_seconds(worker)
            for _ in range(20):
                early.send(chat("mock-gpt"))
                assert early.answer()[0] == 200
                time.sleep(0.05)  # a second in which it must not spin
            assert cpu_seconds(worker) - busy < 0.7
            for client in crowd:
                client.close()
        with Wire(gateway.port) as late:
            late.send(chat("mock-gpt"))
            assert late.answer()[0] == 200


# The disk


def test_a_full_disk_keeps_no_record_from_the_log(gateway: GatewayProcess, worker: int) -> None:
    """What cannot be written waits in the journal; a metric says so, and the log has all when there is room again."""
    with Wire(gateway.port) as wire:
        wire.send(chat("mock-gpt"))
        first = wire.answer()[1]["x-request-id"]
        until(lambda: first in ids(gateway), "the log has begun")
        before, said = len(gateway.audit_records()), len(gateway.log)
        with limited(worker, resource.RLIMIT_FSIZE, 1):
            for _ in range(50):
                wire.send(chat("mock-gpt"))
                assert wire.answer()[0] == 200
            # The worker's own log is a file, too, and cannot grow either.
            until(lambda: metrics(gateway)["keeptrusts_gateway_audit_backlog_bytes"] > 0, "records wait")
        until(lambda: "the audit log can be written again" in gateway.log[said:], "it goes on")
    until(lambda: len(gateway.audit_records()) == before + 50, "all records are there")
    assert gateway.kt("audit", "verify").returncode == 0


# Idle clients


def test_ten_thousand_idle_connections(
    gateway: GatewayProcess, worker: int, record_property: Callable[[str, object], None]
) -> None:
    with Wire(gateway.port) as wire:
        wire.send(chat("mock-gpt"))
        wire.answer()
    memory = rss(worker)
    with contextlib.ExitStack() as stack:
        for _ in range(IDLE):
            stack.enter_context(socket.create_connection((HOST, gateway.port)))
        until(lambda: descriptors(worker) > IDLE, "all are accepted")
        each = (rss(worker) - memory) / IDLE
        busy = cpu_seconds(worker)
        began = time.monotonic()
        taken = []
        with Wire(gateway.port) as wire:
            while time.monotonic() < began + 2:
                start = time.monotonic()
                wire.send(chat("mock-gpt"))
                assert wire.answer()[0] == 200
                taken.append(time.monotonic() - start)
                time.sleep(0.02)
        idle_share = (cpu_seconds(worker) - busy) / (time.monotonic() - began)
        record_property("bytes of memory each", round(each))
        record_property("milliseconds for a request, median", round(sorted(taken)[len(taken) // 2] * 1000, 2))
        record_property("share of a core, with 40 requests a second", round(idle_share, 3))
        assert each < 10_000
    until(lambda: descriptors(worker) < 1000, "all are gone")


# Signals


def test_sigterm_with_two_hundred_open_streams(tmp_path: Path, text: str, provider: Provider) -> None:
    provider.gate = Gate()
    with running_gateway(tmp_path, text, arguments=["--workers", "2"]) as gateway, contextlib.ExitStack() as stack:
        wires = [stack.enter_context(Wire(gateway.port)) for _ in range(STREAMS)]
        for wire in wires:
            wire.send(chat(stream=True))
        for wire in wires:
            wire.read_until(b"data: begun\n\n\r\n")
        gateway.process.send_signal(signal.SIGTERM)
        until(lambda: "draining" in gateway.log, "it drains")
        provider.gate.open()
        for wire in wires:
            assert wire.read_to_end().endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
        assert gateway.process.wait(PATIENCE) == 0
        rows = gateway.audit_records()
        assert [row["outcome"] for row in rows] == ["completed"] * STREAMS


# Clients that leave


async def test_a_client_that_leaves_is_gone_at_the_provider_within_100_ms(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Five hundred streams that send events all the time, and end one after the other."""
    left: dict[bytes, float] = {}
    taken: list[float] = []

    async def stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        start = await reader.readuntil(b"\r\n\r\n")
        name = start.partition(b"x-name: ")[2].partition(b"\r\n")[0]
        writer.write(EVENT_STREAM + chunk(b"data: begun\n\n"))
        pulse = asyncio.create_task(beat(writer))
        with contextlib.suppress(ConnectionError):
            while await reader.read(65536):
                pass
        taken.append(time.monotonic() - left[name])
        pulse.cancel()
        writer.close()

    async def beat(writer: asyncio.StreamWriter) -> None:
        while True:
            await asyncio.sleep(0.5)
            writer.write(chunk(b"data: more\n\n"))

    server = await asyncio.start_server(stream, HOST, 0, backlog=LEAVING)
    url = f"http://{HOST}:{server.sockets[0].getsockname()[1]}"
    pool = {"max_connections": LEAVING + 10, "max_queue": LEAVING}
    text = configuration(target(url), gateway={"connection_pool": pool, "timeouts": {"connect_seconds": 60.0}})
    loop = asyncio.get_running_loop()
    opening = contextlib.ExitStack()
    gateway = await loop.run_in_executor(None, opening.enter_context, running_gateway(tmp_path, text))
    clients = []
    for number in range(LEAVING):
        reader, writer = await asyncio.open_connection(HOST, gateway.port)
        writer.write(chat(stream=True, x_name=f"client-{number}"))
        await asyncio.wait_for(reader.readuntil(b"data: begun\n\n\r\n"), PATIENCE)
        clients.append((f"client-{number}".encode(), writer))
    for name, writer in clients:
        left[name] = time.monotonic()
        writer.close()
        await asyncio.sleep(0.004)
    async with asyncio.timeout(PATIENCE):
        while len(taken) < LEAVING:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await loop.run_in_executor(None, opening.close)
    server.close()
    taken.sort()
    record_property("milliseconds, median", round(taken[LEAVING // 2] * 1000, 2))
    record_property("milliseconds, p99", round(taken[LEAVING * 99 // 100] * 1000, 2))
    assert [row["status"] for row in gateway.audit_records()] == [499] * LEAVING
    assert taken[LEAVING * 99 // 100] < LEAVING_SECONDS
