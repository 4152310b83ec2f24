"""A bounded load on a gateway: whole answers, then streams, from as many connections as asked for.

Closed loop: each connection sends its next request when its answer is complete. So it says how much a gateway does, and
how long answers take at that load; for a fixed rate use the load tests of the repository. One process on one core makes
the load, and says how busy that core was: figures from a client that was at its limit are the client's.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from gateway.probe.client import Client, Place, ProbeError, Reply, chat, percentile

BUSY: Final = 0.9
"""A client busier than this measures itself."""


@dataclass
class Tally:
    """What came back. Times in microseconds."""

    seconds: float = 0.0
    busy: float = 0.0
    """Share of one core that the client used."""
    total: list[float] = field(default_factory=list)
    first_event: list[float] = field(default_factory=list)
    gap: list[float] = field(default_factory=list)
    events: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    """How often each error answer came, by what it says."""

    @property
    def answers(self) -> int:
        """Complete good answers."""
        return len(self.total)

    def note(self, reply: Reply) -> None:
        """Count one answer."""
        if reply.status != 200:
            what = reply.refusal()
            self.refused[what] = self.refused.get(what, 0) + 1
            return
        self.total.append(reply.total_us)
        if reply.streams and reply.arrivals:
            self.events += len(reply.arrivals)
            self.first_event.append(reply.first_event_us)
            self.gap += reply.gaps_us

    def figures(self) -> dict[str, float]:
        """The figures by their names; times in milliseconds."""
        told: dict[str, float] = {
            "answers": self.answers,
            "refused": sum(self.refused.values()),
            "answers_per_second": self.answers / self.seconds if self.seconds else 0.0,
            "client_busy": self.busy,
        }
        samples = {"latency": self.total, "ttft": self.first_event, "gap": self.gap}
        for name, values in samples.items():
            if values:
                told |= {
                    f"{name}_p{round(100 * share)}_ms": percentile(values, share) / 1000 for share in (0.5, 0.95, 0.99)
                }
        if self.events:
            told["events_per_second"] = self.events / self.seconds
        return told


async def run(
    place: Place,
    document: dict[str, Any],
    *,
    key: str = "",
    connections: int,
    seconds: float,
    requests: int | None = None,
    on_answer: Callable[[Tally], object] = lambda tally: None,
) -> Tally:
    """Keep `connections` busy for `seconds`, or until `requests` were sent. Raises ProbeError when one is lost."""
    tally = Tally()
    message = chat(place, document, key)
    left = requests
    begin, used = time.perf_counter(), time.process_time()
    deadline = begin + seconds

    async def work() -> None:
        nonlocal left
        client: Client | None = None
        try:
            while time.perf_counter() < deadline and (left is None or left > 0):
                if left is not None:
                    left -= 1
                if client is None or not client.usable:
                    client = await Client.open(place)
                tally.note(await client.ask(message))
                on_answer(tally)
        finally:
            if client is not None:
                client.close()

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(connections):
                group.create_task(work())
    except BaseExceptionGroup as failed:
        if isinstance(failed.exceptions[0], ProbeError):
            raise failed.exceptions[0] from None
        raise
    tally.seconds = time.perf_counter() - begin
    tally.busy = (time.process_time() - used) / tally.seconds
    return tally
