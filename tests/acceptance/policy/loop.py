"""How long an event loop is kept from its other work: measured on a real loop, with real threads."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.playbook import Play

LOOK_SECONDS = 0.0002
SWITCH_SECONDS = 0.0005
"""As in `gateway/worker.py`."""


@contextmanager
def as_in_a_worker() -> Iterator[None]:
    """Threads give way to each other as often as in a worker."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_SECONDS)
    yield
    sys.setswitchinterval(before)


def with_threads(play: Play) -> Play:
    """The play on the running loop, with the worker's own threads instead of work that waits for the test."""
    play.services.loop = asyncio.get_running_loop()
    del play.services.run_in_thread
    return play


async def longest_block(act: Callable[[], object], over: Callable[[], bool]) -> float:
    """Seconds for which the loop did nothing else, at most, from `act` until it is `over`."""
    worst, last = 0.0, time.perf_counter()
    act()
    while not over():
        now = time.perf_counter()
        worst, last = max(worst, now - last), now
        await asyncio.sleep(LOOK_SECONDS)
    return max(worst, time.perf_counter() - last)


async def least_block(act: Callable[[], object], over: Callable[[], bool], *, times: int = 12) -> float:
    """The least of several: what else the machine does only adds."""
    return min([await longest_block(act, over) for _ in range(times)])
