"""Several processes, any of which may be killed at any moment: who notices, and what is left behind."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.gateway_process import GatewayProcess, configuration, running_gateway
from tests.process.support import MOCK, Wire, alive, chat, children, control, kill, metrics, parse_head, target, until
from tests.provider import LAST_CHUNK, Gate, ScriptedProvider, chunk, head

EVENT_STREAM = head(200, ("content-type", "text/event-stream"), chunked=True)
RESTARTS = "keeptrusts_gateway_worker_restarts_total"
CLIENTS = 6
STREAMS = 6
ANSWERS = 400


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def provider(gate: Gate) -> Iterator[ScriptedProvider]:
    """Every answer is a stream that begins at once and ends when the gate opens."""
    steps = [EVENT_STREAM, chunk(b"data: begun\n\n"), gate, chunk(b"data: [DONE]\n\n"), LAST_CHUNK]
    with ScriptedProvider(steps).in_thread() as provider:
        yield provider


@pytest.fixture
def gateway(tmp_path: Path, provider: ScriptedProvider) -> Iterator[GatewayProcess]:
    text = configuration(MOCK, target(provider.url), gateway={"drain_seconds": 5})
    with running_gateway(tmp_path, text, arguments=["--workers", "2"]) as gateway:
        control(gateway, "/metrics")
        yield gateway


def writer(request_id: str) -> str:
    """What all request ids of one worker begin with."""
    return request_id[:-8]


def served(samples: dict[str, float]) -> float:
    """Requests that were answered with 200."""
    wanted = ("keeptrusts_gateway_requests_total{", 'status="200"}')
    return sum(value for name, value in samples.items() if name.startswith(wanted[0]) and name.endswith(wanted[1]))


def assert_not_backwards(before: dict[str, float], after: dict[str, float]) -> None:
    """Nothing that only grows has become less."""
    growing = [name for name in before if name.partition("{")[0].endswith(("_total", "_bucket", "_count", "_sum"))]
    assert growing
    less = [(name, before[name], after.get(name, 0.0)) for name in growing if after.get(name, 0.0) < before[name]]
    assert less == []


@dataclass
class Client:
    """Sends one request after the other on one connection, and opens another when it breaks."""

    port: int
    received: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    """The last request id on each connection that broke; empty where there was none yet."""

    def run(self, enough: threading.Event) -> None:
        while not enough.is_set():
            last = ""
            try:
                with Wire(self.port) as wire:
                    while not enough.is_set():
                        wire.send(chat("mock-gpt"))
                        status, fields, body = wire.answer()
                        assert status == 200
                        assert json.loads(body)["object"] == "chat.completion"
                        last = fields["x-request-id"]
                        self.received.append(last)
            except (OSError, AssertionError) as error:
                if isinstance(error, AssertionError) and "closed" not in str(error):
                    raise
                self.broken.append(last)


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
        with self.wire:
            return self.wire.read_to_end() if self.wire.received else self._rest()

    def _rest(self) -> bytes:
        """Up to the end of the body, or to the connection's end if that comes first."""
        try:
            return self.wire.read_until(b"\r\n0\r\n\r\n")
        except (AssertionError, ConnectionResetError):
            return self.wire.received


def test_a_killed_worker_takes_only_its_own_requests_along(gateway: GatewayProcess, gate: Gate) -> None:
    streams = [Stream.begin(gateway.port) for _ in range(STREAMS)]
    while len({writer(stream.id) for stream in streams}) < 2:  # the kernel chooses the worker
        streams.append(Stream.begin(gateway.port))
    clients, enough = [Client(gateway.port) for _ in range(CLIENTS)], threading.Event()
    threads = [threading.Thread(target=client.run, args=(enough,)) for client in clients]
    for thread in threads:
        thread.start()
    try:
        until(lambda: sum(len(client.received) for client in clients) > ANSWERS // 2, "traffic")
        before = metrics(gateway)
        victim = children(gateway)["worker-1"]
        kill(victim)
        while_dead = metrics(gateway)
        until(lambda: children(gateway).get("worker-1", victim) != victim, "it is started again")
        until(lambda: sum(len(client.received) for client in clients) > ANSWERS, "traffic goes on")
        known = {writer(id) for client in clients for id in client.received}
        newcomer = until(lambda: one_answer(gateway, other_than=known), "the new worker serves, too")
    finally:
        enough.set()
        for thread in threads:
            thread.join()
    gate.open()
    rests = {stream.id: stream.rest() for stream in streams}

    # Whatever broke, broke on one worker, and nothing of that worker came through.
    lost = {id for id, rest in rests.items() if b"[DONE]" not in rest}
    broken = {id for client in clients for id in client.broken if id}
    [dead] = {writer(id) for id in lost | broken}
    assert {id for id in rests if writer(id) == dead} == lost
    assert all(b"[DONE]" in rest for id, rest in rests.items() if id not in lost)

    # What was counted is still counted.
    received = [newcomer, *(id for client in clients for id in client.received)]
    assert_not_backwards(before, while_dead)
    assert_not_backwards(while_dead, after := metrics(gateway))
    assert served(after) >= len(received) + len(rests) - len(lost)
    assert after[RESTARTS] == 1

    # Every answer that a client has is in the log with its end; what was cut is there as interrupted.
    assert len(set(received)) == len(received)
    ends = until(lambda: ends_of(gateway, {*received, *rests}), "all records are in the log")
    assert {ends[id] for id in received} == {"completed"}
    assert {ends[id] for id in rests.keys() - lost} == {"completed"}
    assert {ends[id] for id in lost} == {"interrupted"}
    assert gateway.kt("audit", "verify").returncode == 0


def one_answer(gateway: GatewayProcess, *, other_than: set[str]) -> str | None:
    """The id of a request on a connection of its own, if none of these workers answered it."""
    with Wire(gateway.port) as wire:
        wire.send(chat("mock-gpt"))
        id = wire.answer()[1]["x-request-id"]
    return None if writer(id) in other_than else id


def ends_of(gateway: GatewayProcess, wanted: set[str]) -> dict[str, str] | None:
    """How exchanges ended, by request id, once all that are wanted have; each stands once in the log."""
    rows = [row for row in gateway.audit_records() if row["kind"] == "exchange"]
    ends = {row["id"]: row["outcome"] for row in rows}
    assert len(ends) == len(rows)
    assert all(row["started_at"] for row in rows)
    return ends if all(ends.get(id) for id in wanted) else None


def test_traffic_goes_on_without_the_control_process(gateway: GatewayProcess) -> None:
    before = metrics(gateway)
    first = children(gateway)["control"]
    with Wire(gateway.port) as client:
        kill(first)
        for _ in range(20):
            client.send(chat("mock-gpt"))
            assert client.answer()[0] == 200
    until(lambda: children(gateway).get("control", first) != first, "it is started again")
    after = metrics(gateway)
    assert_not_backwards(before, after)
    assert served(after) == served(before) + 20
    assert after[RESTARTS] == 0


def test_the_control_process_that_is_away_is_said_to_be(gateway: GatewayProcess) -> None:
    pid = children(gateway)["control"]
    os.kill(pid, signal.SIGSTOP)
    try:
        # As in any gap between two of them: nobody listens, or nobody answers.
        assert gateway.get("/readyz")[0] == 200
        assert gateway.get("/v1/models")[0] == 200
    finally:
        os.kill(pid, signal.SIGKILL)
    status, body = until(lambda: gateway.get("/metrics"), "an answer, be it 503")
    assert status == 200 or json.loads(body)["error"]["code"] == "overloaded"


def test_children_end_by_themselves_without_their_supervisor(gateway: GatewayProcess, gate: Gate) -> None:
    stream = Stream.begin(gateway.port)
    left = children(gateway)
    assert set(left) == {"control", "worker-0", "worker-1"}
    kill(gateway.process.pid)
    gateway.process.wait()
    until(lambda: "draining" in gateway.log, "a worker has noticed")
    gate.open()
    assert b"[DONE]" in stream.rest()
    for name, pid in left.items():
        until(lambda pid=pid: not alive(pid), f"{name} has ended")  # type: ignore[misc]
    assert gateway.kt("audit", "verify").returncode == 0
    ends = ends_of(gateway, {stream.id})
    assert ends is not None
    assert ends[stream.id] == "completed"


def test_one_that_keeps_dying_is_started_ever_more_slowly(gateway: GatewayProcess) -> None:
    for _ in range(4):
        kill(until(lambda: children(gateway).get("worker-0"), "the worker is there"))
    until(lambda: metrics(gateway)[RESTARTS] == 4, "all are counted")
    lines = [json.loads(line) for line in gateway.log.splitlines() if "a process has ended" in line]
    assert [(line["child"], line["exit_code"], line["again_in_seconds"]) for line in lines] == [
        ("worker-0", -9, 0.05),
        ("worker-0", -9, 0.1),
        ("worker-0", -9, 0.2),
        ("worker-0", -9, 0.4),
    ]
    until(lambda: metrics(gateway)["keeptrusts_gateway_workers"] == 2, "both live again")
