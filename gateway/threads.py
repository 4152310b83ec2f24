"""The threads in which a worker does long work beside its event loop.

There are few of them, since they share the interpreter with the loop, and none before there is work. A thread whose
work does not come back (a policy that hangs) is given up: another takes its place, so that such work costs its own
requests their time and no others. So many may be given up; after that the worker has only what threads are left. They
do not keep the process from ending.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Final, TypeVar

SCAN_THREADS: Final = 2
"""Large texts are scanned beside the event loop; both engines release the interpreter lock."""
HANGS_SECONDS: Final = 30.0
"""Work that takes longer will never end: the largest body is judged in a fraction of it."""
MAX_GIVEN_UP: Final = 16

Result = TypeVar("Result")
HandOver = Callable[[Callable[[Any], None], Any], object]
Queue = SimpleQueue["tuple[Callable[[], Any], Callable[[Any], None]] | None"]


class _Thread(threading.Thread):
    """One of them. `began` is since when it has been at its work; None: it waits for some."""

    def __init__(self, queue: Queue, hand_over: HandOver, clock: Callable[[], float]) -> None:
        super().__init__(name="scan", daemon=True)
        self._queue = queue
        self._hand_over = hand_over
        self._clock = clock
        self.began: float | None = None
        self.given_up = False

    def run(self) -> None:
        while not self.given_up and (item := self._queue.get()) is not None:
            work, then = item
            self.began = self._clock()
            try:
                result = work()
            except BaseException as error:  # whatever it is, it is the work's own
                result = error
            self.began = None
            try:
                self._hand_over(then, result)
            except RuntimeError:
                return  # the loop is closed
            del item, work, then, result


class Threads:
    """The queue of work and its threads. To be used by the loop alone."""

    def __init__(self, hand_over: HandOver, clock: Callable[[], float], count: int = SCAN_THREADS) -> None:
        """`hand_over` calls a function with an argument on the loop, as `call_soon_threadsafe` does."""
        self._hand_over = hand_over
        self._clock = clock
        self._count = count
        self._queue: Queue = SimpleQueue()
        self._threads: list[_Thread] = []
        self.given_up = 0

    def run(self, work: Callable[[], Result], then: Callable[[Result | BaseException], None]) -> None:
        """`then` is called on the loop with the work's result or its exception."""
        self._queue.put((work, then))
        if len(self._threads) < self._count:
            self._start()

    def _start(self) -> None:
        self._threads.append(_Thread(self._queue, self._hand_over, self._clock))
        self._threads[-1].start()

    def look(self) -> int:
        """Give up the threads that hang, and start others. How many there were."""
        long_ago = self._clock() - HANGS_SECONDS
        hanging = [one for one in self._threads if one.began is not None and one.began < long_ago]
        hanging = hanging[: MAX_GIVEN_UP - self.given_up]
        for thread in hanging:
            thread.given_up = True
            self._threads.remove(thread)
            self._start()
        self.given_up += len(hanging)
        return len(hanging)

    def close(self) -> None:
        """No more work."""
        for _ in self._threads:
            self._queue.put(None)
