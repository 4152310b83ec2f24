"""How long an event loop is kept from its other work: measured on a real loop, with real threads.

The clock is the process's CPU time, which what else the machine does cannot stretch: while a thread keeps the loop from
running it runs itself.
"""

from __future__ import annotations

import asyncio
import gc
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
    """Threads give way to each other as often as in a worker, and the collector knows what will stay."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
    sys.setswitchinterval(before)


def with_threads(play: Play) -> Play:
    """The play on the running loop, with the worker's own threads instead of work that waits for the test."""
    play.services.loop = asyncio.get_running_loop()
    del play.services.run_in_thread
    return play


async def until(over: Callable[[], bool], seconds: float = 60) -> None:
    """Wait for what threads do: it has no event to wait for."""
    async with asyncio.timeout(seconds):
        while not over():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


def slowness() -> float:
    """How many times as long as on an idle core a piece of work takes now; never less than one."""
    found = []
    for _ in range(20):
        began = time.process_time()
        sum(range(20_000))
        found.append(time.process_time() - began)
    return max(1.0, min(found) / _IDLE_SECONDS)


_IDLE_SECONDS = 0.00035


async def longest_block(act: Callable[[], object], over: Callable[[], bool]) -> float:
    """CPU seconds for which the loop did nothing else, at most, from `act` until it is `over`."""
    worst, last = 0.0, time.process_time()
    act()
    while not over():
        now = time.process_time()
        worst, last = max(worst, now - last), now
        await asyncio.sleep(LOOK_SECONDS)
    return max(worst, time.process_time() - last)


async def least_block(act: Callable[[], object], over: Callable[[], bool], *, times: int = 12) -> float:
    """The least of several: what else the machine does only adds."""
    return min([await longest_block(act, over) for _ in range(times)])
