"""One slice: a short load on one way to the provider, and what that way's processes used for it.

"CPU" is scheduler time of the server's worker process, all its threads (so an audit writer thread is in), user and
kernel, divided by the answers or events of the slice. The main thread alone and all processes of the server together
are kept beside it. Nothing here knows what is a gateway and what is not.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from loadtest import client, cpu, stack


@dataclass(frozen=True)
class Side:
    """One way to the provider. `pid` None: direct, nothing to measure but latency."""

    name: str
    port: int
    pid: int | None = None
    key: str = ""
    worker: int | None = None
    """The process among the server's own that carries the load; found by `find_worker`."""
    fields: str = ""
    """Header lines that its requests carry besides the usual ones."""

    @property
    def address(self) -> client.Address:
        """Where it listens."""
        return (stack.HOST, self.port)

    def request(self, body: bytes) -> bytes:
        """The bytes that ask it for a completion."""
        return client.request(body, host=f"{stack.HOST}:{self.port}", key=self.key, fields=self.fields)


@dataclass(frozen=True)
class Slice:
    """What one slice of one side showed. CPU in microseconds per answer or event; latencies in microseconds."""

    units: int
    per_second: float
    cpu_main: float = math.nan
    cpu: float = math.nan
    cpu_all: float = math.nan
    busy: float = math.nan
    p50: float = math.nan
    p99: float = math.nan
    first_p50: float = math.nan
    first_p99: float = math.nan
    stream_bytes: float = math.nan


@dataclass(frozen=True)
class Meter:
    """Reads what a side's processes have used, before and after."""

    side: Side
    processes: tuple[int, ...]

    def read(self) -> dict[int, cpu.Usage]:
        """Usage of every process of the side."""
        return {pid: cpu.usage(pid) for pid in self.processes}

    def fields(self, before: Mapping[int, cpu.Usage], units: int, seconds: float) -> dict[str, float]:
        """The CPU fields of a slice of so many answers or events."""
        if self.side.worker is None or not units:
            return {}
        used = {pid: usage - before[pid] for pid, usage in self.read().items()}
        worker = used[self.side.worker]
        return {
            "cpu_main": worker.main / units / 1000,
            "cpu": worker.threads / units / 1000,
            "cpu_all": sum(usage.threads for usage in used.values()) / units / 1000,
            "busy": worker.threads / seconds / 1e9,
        }


def meter(side: Side) -> Meter:
    """A meter for a side's processes as they are now."""
    return Meter(side, tuple(cpu.family(side.pid)) if side.pid is not None else ())


def find_worker(side: Side, body: bytes) -> int | None:
    """The process that a burst of requests makes work most."""
    if side.pid is None:
        return None
    # The port may accept before the worker is there (nginx listens, then forks): an answer is proof that it is.
    client.closed_loop(side.address, side.request(body), connections=1, seconds=0)
    processes = meter(side)
    before = processes.read()
    client.closed_loop(side.address, side.request(body), connections=8, seconds=0.2)
    after = processes.read()
    return max(after, key=lambda pid: after[pid].threads - before[pid].threads)


def closed_slice(side: Side, body: bytes, connections: int, seconds: float) -> Slice:
    """As many requests as go: the throughput, and CPU per request."""
    processes = meter(side)
    before = processes.read()
    samples = client.closed_loop(side.address, side.request(body), connections=connections, seconds=seconds)
    return _whole_slice(samples, processes.fields(before, samples.requests, samples.seconds))


def open_slice(side: Side, body: bytes, rate: float, seconds: float) -> Slice:
    """A fixed rate: latencies as a client would see them, and CPU per request when there is room."""
    processes = meter(side)
    before = processes.read()
    samples = client.open_loop(side.address, side.request(body), connections=256, rate=rate, seconds=seconds)
    return _whole_slice(samples, processes.fields(before, samples.requests, samples.seconds))


def _whole_slice(samples: client.Samples, fields: Mapping[str, float]) -> Slice:
    return Slice(
        units=samples.requests,
        per_second=samples.requests / samples.seconds,
        p50=client.percentile(samples.latency, 0.5),
        p99=client.percentile(samples.latency, 0.99),
        **fields,
    )


def stream_slice(side: Side, body: bytes, count: int, rate: float) -> Slice:
    """Streams side by side. CPU per event is taken while all of them flow and nothing else happens.

    `p50` and `p99` are of the time from the provider's write of an event to its arrival, `first_*` of the time to the
    first event, counted from when the request was due. `stream_bytes`: what the worker's memory grew by for each.
    """
    processes = meter(side)
    window: dict[str, Any] = {}
    resident = cpu.resident_bytes(side.worker) if side.worker is not None else 0

    def opened(samples: client.Samples) -> None:
        if side.worker is not None:
            window["fields"] = {"stream_bytes": (cpu.resident_bytes(side.worker) - resident) / count}
        window.update(before=processes.read(), events=samples.events, since=time.monotonic_ns())

    def closing(samples: client.Samples) -> None:
        seconds = (time.monotonic_ns() - window["since"]) / 1e9
        events = samples.events - window["events"]
        window.setdefault("fields", {}).update(processes.fields(window["before"], events, seconds))
        window.update(events=events, seconds=seconds)

    samples = client.streams(
        side.address, side.request(body), count=count, rate=rate, on_all_flowing=opened, on_first_done=closing
    )
    if not window.get("events") or "seconds" not in window:
        raise client.LoadError("the first stream ended as the last had hardly begun: make streams fewer, or longer")
    return Slice(
        units=window["events"],
        per_second=window["events"] / window["seconds"],
        p50=client.percentile(samples.transit, 0.5),
        p99=client.percentile(samples.transit, 0.99),
        first_p50=client.percentile(samples.first_event, 0.5),
        first_p99=client.percentile(samples.first_event, 0.99),
        **window["fields"],
    )
