"""Whether a stream's events come one by one or in heaps: how a proxy that buffers between client and gateway shows.

The mock provider is asked for a stream with a fixed gap between events. What arrives with that gap came through; what
arrives together was held somewhere. The judgement is a function of arrival times alone.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from itertools import pairwise
from typing import Final, NamedTuple

from gateway.probe.client import Client, Place, ProbeError, Reply, chat, percentile

GAP_MS: Final = 60
WORDS: Final = 24
_TOGETHER: Final = 0.25
"""Events nearer to each other than this part of the gap count as one heap: more than a network's jitter brings near."""
_HEAP: Final = 4
"""So many in one heap are not chance: three would be 120 ms late."""
_SIGNS: Final = (
    "via",
    "server",
    "x-cache",
    "cf-ray",
    "x-served-by",
    "content-encoding",
    "x-amz-cf-id",
    "x-envoy-upstream-service-time",
)
"""Header fields by which proxies give themselves away."""


class Spread(NamedTuple):
    """What became of a paced stream. `heap` is the largest number of events that came together."""

    events: int
    gap_ms: float
    median_gap_ms: float
    heap: int
    first_ms: float
    signs: tuple[str, ...] = ()

    @property
    def bunched(self) -> bool:
        """Whether something on the way holds events back."""
        return self.heap >= _HEAP or self.median_gap_ms < self.gap_ms * _TOGETHER


def judge(arrivals_ms: Sequence[float], gap_ms: float, signs: tuple[str, ...] = ()) -> Spread:
    """What arrival times, counted from the request, say of a stream with this gap. Raises ProbeError for too few."""
    if len(arrivals_ms) < 2 * _HEAP:
        raise ProbeError(f"The stream had {len(arrivals_ms)} events; at least {2 * _HEAP} are needed to judge it.")
    gaps = [later - earlier for earlier, later in pairwise(arrivals_ms)]
    heap = largest = 1
    for gap in gaps:
        heap = heap + 1 if gap < gap_ms * _TOGETHER else 1
        largest = max(largest, heap)
    return Spread(len(arrivals_ms), gap_ms, percentile(gaps, 0.5), largest, arrivals_ms[0], signs)


async def watch(place: Place, model: str, key: str = "", context: ssl.SSLContext | None = None) -> Spread:
    """Ask the mock provider behind `place` for a paced stream, and judge how it comes. Raises ProbeError."""
    client = await Client.open(place, context)
    words = " ".join(f"word-{number}" for number in range(WORDS))
    document = {
        "model": model,
        "stream": True,
        "messages": [{"role": "user", "content": words}],
        "metadata": {"mock_gap_ms": str(GAP_MS)},
    }
    try:
        reply = await client.ask(chat(place, document, key))
    finally:
        client.close()
    if reply.status != 200:
        raise ProbeError(f"The stream was answered {reply.refusal()}")
    if not reply.streams:
        raise ProbeError(f"{place} did not answer with a stream of events.")
    return judge([(arrival - reply.sent) / 1e6 for arrival in reply.arrivals], GAP_MS, _signs(reply))


def _signs(reply: Reply) -> tuple[str, ...]:
    return tuple(f"{name}: {reply.headers[name]}" for name in _SIGNS if name in reply.headers)
