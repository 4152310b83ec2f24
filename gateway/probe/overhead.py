"""What the gateway adds on this machine: to the first event, to every event, and to the end of a stream that is left.

Each figure compares a way through a gateway with the direct way to the same provider, in turns and in one process, so
that a machine that is busy or slow to wake is as slow for both. Times are in microseconds.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from gateway.probe.client import Client, Place, ProbeError, Reply, chat, percentile
from gateway.probe.provider import Pace, Provider

ROUNDS: Final = 40
CANCELS: Final = 20
PACE: Final = Pace(first_ms=1.0, gap_ms=2.0, events=20)
LONG: Final = Pace(first_ms=0.0, gap_ms=20.0, events=3000)
"""A stream that is still running when the client leaves."""
DEPARTURE_SECONDS: Final = 10.0


class Added(NamedTuple):
    """A time through the gateway and direct, at two percentiles, and their difference."""

    direct_p50: float
    via_p50: float
    direct_p99: float
    via_p99: float

    @property
    def p50(self) -> float:
        """Added in the middle."""
        return self.via_p50 - self.direct_p50

    @property
    def p99(self) -> float:
        """Added at the 99th percentile."""
        return self.via_p99 - self.direct_p99


class Overhead(NamedTuple):
    """What was measured. `cancel_*`: from the client's FIN until the provider's connection is closed."""

    first_event: Added
    event: Added
    cancel_p50: float
    cancel_p99: float
    streams: int
    events: int


def body(model: str, *, stream: bool = True, **more: Any) -> dict[str, Any]:
    """An ordinary request."""
    messages = [{"role": "user", "content": "Summarise how harbours are kept clear of ice in winter."}]
    return {"model": model, "stream": stream, "messages": messages, **more}


async def measure(provider: Provider, via: Place, model: str, advance: Callable[[], object] = lambda: None) -> Overhead:
    """Measure a gateway at `via` whose only target is `provider`. `advance` is called after each step of `steps()`.

    Raises ProbeError when a stream does not come as it should.
    """
    direct = Place("127.0.0.1", provider.port, tls=False, prefix="")
    provider.pace = PACE
    clients = [await Client.open(place) for place in (direct, via)]
    replies: list[list[Reply]] = [[], []]
    try:
        for round_ in range(ROUNDS + 2):
            for client, kept in zip(clients, replies, strict=True):
                reply = _checked(await client.ask(chat(client.place, body(model))))
                if round_ >= 2:  # the first ones open connections and fill caches
                    kept.append(reply)
            advance()
    finally:
        for client in clients:
            client.close()
    cancels = [await _cancel(provider, via, model, advance) for _ in range(CANCELS)]
    return Overhead(
        _added(replies, lambda reply: [reply.first_event_us]),
        _added(replies, lambda reply: [nanoseconds / 1000 for nanoseconds in reply.transits]),
        percentile(cancels, 0.5),
        percentile(cancels, 0.99),
        ROUNDS,
        sum(len(reply.transits) for reply in replies[1]),
    )


def steps() -> int:
    """How often `measure` calls `advance`."""
    return ROUNDS + 2 + CANCELS


def _checked(reply: Reply) -> Reply:
    if reply.status != 200:
        raise ProbeError(f"The test request was answered {reply.refusal()}")
    if not reply.arrivals:
        raise ProbeError("The test request was not answered with a stream of events.")
    return reply


def _added(replies: list[list[Reply]], times: Callable[[Reply], list[float]]) -> Added:
    direct, via = ([time for reply in one for time in times(reply)] for one in replies)
    return Added(percentile(direct, 0.5), percentile(via, 0.5), percentile(direct, 0.99), percentile(via, 0.99))


async def _cancel(provider: Provider, via: Place, model: str, advance: Callable[[], object]) -> float:
    """Begin a long stream, leave after its first event, and wait for the provider to see it."""
    provider.pace = LONG
    departure = provider.next_departure()
    client = await Client.open(via)
    client.begin(chat(via, body(model)))
    await client.first_event()
    left = time.perf_counter_ns()
    client.close()
    try:
        async with asyncio.timeout(DEPARTURE_SECONDS):
            await departure
    except TimeoutError:
        raise ProbeError(f"A stream that its client left still ran after {DEPARTURE_SECONDS:g} s.") from None
    advance()
    return (departure.result() - left) / 1000
