"""The events index in a running control process: who keeps it up to date, who is asked, and who hears of new events.

One thread follows the log and writes; questions are asked in other threads, each with a connection of its own; the
event loop waits for neither. While there is much to catch up with, the writer rests as long as it works, so that the
process has time for keys. If the index cannot be used, that is logged once, and it is tried again; traffic knows
nothing of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import queue
import sqlite3
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

from gateway.control.events import detail
from gateway.control.events.ingest import Catalogue, Indexer, Locked
from gateway.control.events.query import Query
from gateway.control.events.retention import retire
from gateway.control.events.schema import nothing, open_for_reading

LOOK_SECONDS: Final = 0.2
"""Between two looks at the log; its writer looks every 50 ms."""
NICENESS: Final = 10
RETRY_SECONDS: Final = 2.0
RETIRE_SECONDS: Final = 300.0
MAX_WAITING: Final = 500
"""New events that a slow listener may have waiting; it misses what comes beyond, and is told how many."""
MAX_LISTENERS: Final = 200
_SOON: Final = 4
"""After so many steps in a row that did not come to the log's end, the index says that it is behind."""
_PER_STEP: Final = 200
"""New events of one step that listeners are told; nobody reads thousands a second."""

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")


class Unavailable(Exception):
    """The index cannot be asked right now."""


class Listener:
    """Somebody who watches. `missed` counts events that did not fit."""

    def __init__(self) -> None:
        self.waiting: asyncio.Queue[dict[str, Any]] = asyncio.Queue(MAX_WAITING)
        self.missed = 0

    def tell(self, event: dict[str, Any]) -> None:
        """One event; never waits."""
        try:
            self.waiting.put_nowait(event)
        except asyncio.QueueFull:
            self.missed += 1


class Events:
    """The index of one state folder."""

    def __init__(
        self,
        audit_folder: Path,
        path: Path,
        catalogue: Callable[[], Catalogue],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`path` is the index's file. `catalogue` is asked in the writer's thread, before each step."""
        self.audit_folder = audit_folder
        self._path = path
        self._catalogue = catalogue
        self._clock = clock
        self._readers: queue.SimpleQueue[Query] = queue.SimpleQueue()
        self._listeners: set[Listener] = set()
        self._stopping = threading.Event()
        self._rebuild = threading.Event()
        self._fault = ""
        self.behind = True

    async def run(self) -> None:
        """Follow the log until cancelled."""
        loop = asyncio.get_running_loop()
        thread = threading.Thread(target=self._follow, args=(loop,), name="events", daemon=True)
        thread.start()
        try:
            await asyncio.Event().wait()
        finally:
            self._stopping.set()
            await asyncio.to_thread(thread.join)
            self._close_readers()

    @property
    def fault(self) -> str:
        """Why the index is not kept up to date at the moment; empty when all is well."""
        return self._fault

    def rebuild(self) -> None:
        """Make the index anew from the log, soon."""
        self._rebuild.set()

    async def ask(self, question: Callable[[Query], Answer]) -> Answer:
        """Ask in a thread. Raises Unavailable."""
        return await asyncio.to_thread(self._ask, question)

    def _ask(self, question: Callable[[Query], Answer]) -> Answer:
        try:
            with self._reader() as reader:
                return question(reader)
        except sqlite3.Error as error:
            raise Unavailable(str(error)) from error

    async def show(self, id: str) -> dict[str, Any] | None:
        """One event in full, by its number or a request's id; None where there is none. Raises Unavailable."""
        return await self.ask(lambda query: detail.show(query, self.audit_folder, id))

    @contextlib.contextmanager
    def listening(self) -> Iterator[Listener | None]:
        """Hear of new events while inside; None when too many listen already."""
        if len(self._listeners) >= MAX_LISTENERS:
            yield None
            return
        listener = Listener()
        self._listeners.add(listener)
        try:
            yield listener
        finally:
            self._listeners.discard(listener)

    @contextlib.contextmanager
    def _reader(self) -> Iterator[Query]:
        if not self._path.exists():
            with contextlib.closing(Query(nothing())) as reader:
                yield reader
            return
        try:
            reader = self._readers.get_nowait()
        except queue.Empty:
            reader = Query(open_for_reading(self._path))
        try:
            yield reader
        except BaseException:
            reader.close()
            raise
        self._readers.put(reader)

    def _close_readers(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                self._readers.get_nowait().close()

    def _follow(self, loop: asyncio.AbstractEventLoop) -> None:
        """The thread's whole life."""
        _yield_to_others()
        while not self._stopping.is_set():
            try:
                with contextlib.closing(Indexer(self.audit_folder, self._path)) as indexer:
                    self._report("")
                    self._keep_up(indexer, loop)
            except Locked:
                self.behind = False  # another gateway of this state folder keeps the index up to date
            except (sqlite3.Error, OSError, Unavailable) as error:
                self._report(str(error))
            self._stopping.wait(RETRY_SECONDS)

    def _keep_up(self, indexer: Indexer, loop: asyncio.AbstractEventLoop) -> None:
        retire_at = time.monotonic()
        in_a_row = 0
        while not self._stopping.is_set():
            if self._rebuild.is_set():
                self._rebuild.clear()
                self._close_readers()
                indexer.rebuild()
            begun = time.monotonic()
            numbers, more = indexer.step(self._catalogue(), self._clock())
            if not more and begun >= retire_at:
                more = retire(indexer.connection, self.audit_folder, self._clock())
                retire_at = begun if more else begun + RETIRE_SECONDS
            in_a_row = in_a_row + 1 if more else 0
            self.behind = in_a_row > _SOON or (self.behind and more)
            if numbers and self._listeners:
                told = self._ask(lambda query, numbers=numbers: query.events(numbers[-_PER_STEP:]))  # type: ignore[misc]
                loop.call_soon_threadsafe(self._tell, told)
            self._stopping.wait(time.monotonic() - begun if more else LOOK_SECONDS)

    def _tell(self, events: list[dict[str, Any]]) -> None:
        for listener in self._listeners:
            for event in events:
                listener.tell(event)

    def _report(self, fault: str) -> None:
        if fault != self._fault:
            self._fault = fault
            if fault:
                log.error("the events index cannot be kept up to date", extra={"reason": fault})
            else:
                log.info("the events index is kept up to date again")


async def follow(listener: Listener, pause_seconds: float) -> AsyncIterator[dict[str, Any] | None]:
    """The events as they come; None after each `pause_seconds` without one."""
    while True:
        try:
            async with asyncio.timeout(pause_seconds):
                event = await listener.waiting.get()
        except TimeoutError:
            yield None
        else:
            yield event


def _yield_to_others() -> None:
    """Let this thread have what processor time is left over: an event costs it as much as the worker takes to serve a
    request, and figures may come later than answers. On Linux a priority is a thread's own (setpriority(2))."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
