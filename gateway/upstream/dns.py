"""Names to addresses, without ever blocking the event loop.

The system's own resolver is asked in a few threads of its own, so that a hanging look-up delays nobody else. Answers
are kept; an old one is still given at once while a fresh one is fetched behind it, so a request waits for a look-up
only the first time a name is seen, and a resolver that is down does not take the providers with it.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, zip_longest
from typing import Final

TTL_SECONDS: Final = 30.0
"""After this an answer is fetched again. The system does not tell the record's own TTL; providers use 30 to 300."""
THREADS: Final = 4

Lookup = Callable[[str], Awaitable[Sequence[str]]]
"""The addresses of a name, in the system's order of preference (RFC 6724). Raises OSError."""

_log = logging.getLogger(__name__)


class Resolver:
    """A cache in front of a look-up, which tests replace."""

    def __init__(self, clock: Callable[[], float], lookup: Lookup | None = None, ttl: float = TTL_SECONDS) -> None:
        self._clock = clock
        self._lookup = lookup or self._ask_system
        self._ttl = ttl
        self._known: dict[str, _Answer] = {}
        self._asking: dict[str, asyncio.Task[Sequence[str]]] = {}
        self._threads: ThreadPoolExecutor | None = None

    def __repr__(self) -> str:
        return f"<Resolver {len(self._known)} names known, {len(self._asking)} being asked>"

    async def resolve(self, host: str) -> list[str]:
        """The addresses of a host in the order in which to try them: families in turn, and each call begins with
        the next address, so that connections spread. Raises OSError (socket.gaierror) if the name does not resolve.
        """
        if _is_address(host):
            return [host]
        answer = self._known.get(host)
        if answer is None:
            await asyncio.shield(self._ask(host))
            answer = self._known[host]
        elif self._clock() - answer.at > self._ttl:
            self._ask(host)
        return answer.next_order()

    def close(self) -> None:
        """Forget everything and let the threads go."""
        for task in self._asking.values():
            task.cancel()
        self._known.clear()
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    def _ask(self, host: str) -> asyncio.Task[Sequence[str]]:
        """Ask once, however many want to know."""
        task = self._asking.get(host)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._fetch(host), name=f"resolve {host}")
            self._asking[host] = task
            task.add_done_callback(self._log_failure)
        return task

    async def _fetch(self, host: str) -> Sequence[str]:
        try:
            addresses = await self._lookup(host)
            if not addresses:
                raise socket.gaierror(socket.EAI_NONAME, "the name has no address")
            self._known[host] = _Answer(addresses, self._clock())
            return addresses
        finally:
            self._asking.pop(host, None)

    def _log_failure(self, task: asyncio.Task[Sequence[str]]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.warning("%s: %s", task.get_name(), error)

    async def _ask_system(self, host: str) -> Sequence[str]:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="dns")
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._threads, _getaddrinfo, host)
        return list(dict.fromkeys(found))


class _Answer:
    """What is known of one name."""

    __slots__ = ("_addresses", "_turn", "at")

    def __init__(self, addresses: Sequence[str], at: float) -> None:
        self._addresses = addresses
        self._turn = 0
        self.at = at

    def next_order(self) -> list[str]:
        """Both families alternate, the preferred one first (RFC 8305, section 4); each is rotated by one per call."""
        turn, self._turn = self._turn, self._turn + 1
        first = ":" in self._addresses[0]
        families = [[one for one in self._addresses if (":" in one) is wanted] for wanted in (first, not first)]
        rotated = [family[turn % len(family) :] + family[: turn % len(family)] if family else [] for family in families]
        return [address for address in chain.from_iterable(zip_longest(*rotated)) if address is not None]


def _getaddrinfo(host: str) -> list[str]:
    return [str(entry[4][0]) for entry in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
