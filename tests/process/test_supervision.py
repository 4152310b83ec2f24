"""Any process may be killed at any moment: who notices, what is counted, and what ends by itself."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.gateway_process import GatewayProcess, configuration, running_gateway
from tests.process.support import MOCK, Wire, alive, chat, children, control, kill, metrics, parse_head, target, until
from tests.provider import LAST_CHUNK, Gate, Request, ScriptedProvider, Step, chunk, head

EVENT_STREAM = head(200, ("content-type", "text/event-stream"), chunked=True)
RESTARTS = "keeptrusts_gateway_worker_restarts_total"
GROWING = ("_total", "_bucket", "_count", "_sum")


class Provider:
    """Every answer is a stream that begins at once and ends when the present gate opens."""

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
        yield configuration(MOCK, target(server.url), gateway={"drain_seconds": 10})


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, text: str) -> Iterator[GatewayProcess]:
    with running_gateway(tmp_path_factory.mktemp("killed"), text, arguments=["--workers", "2"]) as gateway:
        yield gateway


@pytest.fixture
def gateway(shared: GatewayProcess, provider: Provider) -> GatewayProcess:
    """All its processes are alive and serve."""
    provider.gate = Gate()
    until(lambda: len(children(shared)) == 3, "all processes are there")
    until(lambda: len(workers_seen(shared)) == 2, "both workers serve")
    control(shared, "/metrics")
    return shared


def writer(request_id: str) -> str:
    """What all request ids of one worker begin with."""
    return request_id[:-8]


def workers_seen(gateway: GatewayProcess) -> set[str]:
    """Who answered sixteen requests, on connections of their own."""
    seen = set()
    for _ in range(16):
        with Wire(gateway.port) as wire:
            wire.send(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n")
            seen.add(writer(wire.answer()[1]["x-request-id"]))
    return seen


@dataclass
class Stream:
    """An answer that has begun and not ended."""

    wire: Wire
    id: str

    @staticmethod
    def begin(port: int) -> Stream:
        wire = Wire(port)
        wire.send(chat(stream=True))
        _, fields = parse_head(wire.read_until(b"\r\n\r\n"))
        wire.read_until(b"data: begun\n\n\r\n")
        return Stream(wire, fields["x-request-id"])

    def rest(self) -> bytes:
        """Up to the end of the body, or to the connection's end if that comes first."""
        with self.wire:
            try:
                return self.wire.read_until(b"\r\n0\r\n\r\n")
            except (AssertionError, ConnectionResetError):
                return self.wire.received


def less(before: dict[str, float], after: dict[str, float]) -> list[tuple[str, float, float]]:
    """What only grows, and has become less all the same."""
    growing = {name: value for name, value in before.items() if name.partition("{")[0].endswith(GROWING)}
    assert growing
    return [(name, value, after.get(name, 0.0)) for name, value in growing.items() if after.get(name, 0.0) < value]


def outcomes(gateway: GatewayProcess, wanted: set[str]) -> dict[str, str] | None:
    """How these exchanges ended, once all have; each stands in the log once."""
    rows = [row for row in gateway.audit_records() if row.get("id") in wanted]
    assert len({row["id"] for row in rows}) == len(rows)
    ends = {row["id"]: row["outcome"] for row in rows if row["outcome"]}
    return ends if len(ends) == len(wanted) else None


def test_streams_of_other_workers_end_as_if_nothing_had_happened(gateway: GatewayProcess, provider: Provider) -> None:
    before = metrics(gateway)
    streams = [Stream.begin(gateway.port) for _ in range(6)]
    while len({writer(stream.id) for stream in streams}) < 2:  # the kernel chooses
        streams.append(Stream.begin(gateway.port))
    begun = metrics(gateway)
    victim = children(gateway)["worker-1"]
    kill(victim)
    dead = metrics(gateway)
    until(lambda: children(gateway).get("worker-1", victim) != victim, "it is started again")
    until(lambda: len(workers_seen(gateway)) == 2, "both serve")
    provider.gate.open()
    rests = {stream.id: stream.rest() for stream in streams}
    after = until(lambda: found if (found := metrics(gateway))[RESTARTS] > before[RESTARTS] else None, "counted")

    lost = {id for id, rest in rests.items() if b"[DONE]" not in rest}
    [of_victim] = {writer(id) for id in lost}
    assert lost == {id for id in rests if writer(id) == of_victim}
    assert [less(before, begun), less(begun, dead), less(dead, after)] == [[], [], []]
    ends = until(lambda: outcomes(gateway, set(rests)), "all have ended in the log")
    assert {id for id, outcome in ends.items() if outcome == "interrupted"} == lost
    assert {outcome for id, outcome in ends.items() if id not in lost} == {"completed"}
    assert gateway.kt("audit", "verify").returncode == 0


def test_a_control_process_that_hangs_stops_no_traffic(gateway: GatewayProcess) -> None:
    before, pid = metrics(gateway), children(gateway)["control"]
    os.kill(pid, signal.SIGSTOP)
    try:
        with Wire(gateway.port) as wire:
            for _ in range(20):
                wire.send(chat("mock-gpt"))
                assert wire.answer()[0] == 200
        assert gateway.get("/readyz")[0] == 200
    finally:
        kill(pid)
    until(lambda: children(gateway).get("control", pid) != pid, "another one is started")
    assert less(before, metrics(gateway)) == []


def test_one_that_keeps_dying_is_started_ever_more_slowly(gateway: GatewayProcess) -> None:
    before = metrics(gateway)[RESTARTS]
    for _ in range(4):
        kill(until(lambda: children(gateway).get("worker-0"), "the worker is there"))
    until(lambda: metrics(gateway)[RESTARTS] == before + 4, "all are counted")
    lines = [json.loads(line) for line in gateway.log.splitlines() if "a process has ended" in line]
    pauses = [line["again_in_seconds"] for line in lines if line["child"] == "worker-0"]
    assert pauses == [0.05, 0.1, 0.2, 0.4]
    until(lambda: metrics(gateway)["keeptrusts_gateway_workers"] == 2, "both live")


def test_all_end_by_themselves_without_their_supervisor(tmp_path: Path, text: str, provider: Provider) -> None:
    """They finish what is under way, and leave everything as a new gateway wants to find it."""
    provider.gate = Gate()
    with running_gateway(tmp_path, text) as gateway:
        stream, left = Stream.begin(gateway.port), children(gateway)
        assert set(left) == {"control", "worker-0"}
        kill(gateway.process.pid)
        gateway.process.wait()
        until(lambda: "draining" in gateway.log, "the worker has noticed")
        provider.gate.open()
        assert b"[DONE]" in stream.rest()
        for name, pid in left.items():
            until(lambda pid=pid: not alive(pid), f"{name} has ended")  # type: ignore[misc]
        assert outcomes(gateway, {stream.id}) == {stream.id: "completed"}
        assert gateway.kt("audit", "verify").returncode == 0
