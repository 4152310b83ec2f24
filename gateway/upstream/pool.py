"""The pools: which connection serves which request, and who waits.

There is one pool for each destination. An idle connection is given at once, the most recently used first, without a
task or a future: that is the warm path. Otherwise the request gets a `Ticket`, and its waiter is called when a
connection is opened or comes back. Openings count against the limit from the moment they begin, waiters are served in
order, the queue is bounded, and everything that waits has a deadline, which `sweep` looks at.

An opening belongs to no request in particular: if its client leaves, it is closed at once unless another request waits
for it. The pools never retry and know nothing of what is sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import logging
from collections import deque
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Final, Protocol

from gateway.errors import GatewayError, InternalError, Overloaded, UpstreamTimeout
from gateway.types import Destination
from gateway.upstream.connection import UpstreamConnection
from gateway.upstream.dial import Dialler
from gateway.upstream.dns import Resolver
from gateway.upstream.egress import DIRECT, Egress
from gateway.upstream.mock import MOCK_HOST, MockConnection
from gateway.upstream.tls import Contexts

LINGER_SECONDS: Final = 1.0
"""For a response to end once nobody needs more of it: what is left is a few bytes that are on their way."""
WARM_RETRY_SECONDS: Final = 5.0
"""After a failed opening, warm connections are not opened ahead for so long; requests still try at once."""

_log = logging.getLogger(__name__)


class Waiter(Protocol):
    """Wants a connection. Exactly one of the two is called, once, unless its ticket was cancelled."""

    def on_connection(self, connection: UpstreamConnection) -> None:
        """The connection is leased to this waiter, which sends its request now."""

    def on_connect_failed(self, error: GatewayError) -> None:
        """There will be none: UpstreamUnreachable, UpstreamTimeout or Overloaded."""


class TicketState(enum.Enum):
    """How far a ticket has come."""

    WAITING = "waiting"
    REFUSED = "refused"
    SERVED = "served"
    FAILED = "failed"
    CANCELLED = "cancelled"

    steps: tuple[TicketState, ...]


TicketState.WAITING.steps = (TicketState.SERVED, TicketState.FAILED, TicketState.CANCELLED)
TicketState.REFUSED.steps = (TicketState.FAILED, TicketState.CANCELLED)
TicketState.SERVED.steps = TicketState.FAILED.steps = TicketState.CANCELLED.steps = ()


class Ticket:
    """A request's place in the queue of one pool."""

    __slots__ = ("_pool", "_waiter", "deadline", "state")

    def __init__(self, pool: Pool, waiter: Waiter, deadline: float) -> None:
        self._pool = pool
        self._waiter = waiter
        self.deadline = deadline
        self.state = TicketState.WAITING

    def __repr__(self) -> str:
        return f"<Ticket {self._pool.destination.name} {self.state.value}>"

    def _enter(self, state: TicketState) -> None:
        assert state in self.state.steps, f"{self!r} cannot become {state.value}"
        self.state = state

    def cancel(self) -> None:
        """The client has left: the waiter is never called, and an opening that only it wanted is closed."""
        if self.state in (TicketState.WAITING, TicketState.REFUSED):
            waited = self.state is TicketState.WAITING
            self._enter(TicketState.CANCELLED)
            if waited:
                self._pool.on_ticket_cancelled(self)

    def serve(self, connection: UpstreamConnection) -> None:
        """Hand the connection to the waiter."""
        self._enter(TicketState.SERVED)
        self._waiter.on_connection(connection)

    def fail(self, error: GatewayError) -> None:
        """Tell the waiter that there will be no connection."""
        if self.state is not TicketState.CANCELLED:
            self._enter(TicketState.FAILED)
            self._waiter.on_connect_failed(error)


class _Opening:
    """One connection in the making: a placeholder that counts, with a deadline and a task."""

    __slots__ = ("_pool", "connection", "deadline", "task")

    def __init__(self, pool: Pool, connection: UpstreamConnection, deadline: float) -> None:
        self._pool = pool
        self.connection = connection
        self.deadline = deadline
        name = f"open {pool.destination.name}"
        self.task = pool.loop.create_task(self._run(), name=name)

    async def _run(self) -> None:
        destination = self._pool.destination
        try:
            await self._pool.dialler.dial(destination, self.connection)
        except GatewayError as error:
            self._pool.on_opening_failed(self, error)
        except Exception:
            _log.exception("opening a connection for %r failed unexpectedly", self._pool)
            self._pool.on_opening_failed(self, InternalError())
        else:
            self._pool.on_opened(self)


class Pool:
    """The connections of one destination, and the requests that wait for one."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, destination: Destination, dialler: Dialler, clock: Callable[[], float]
    ) -> None:
        self.loop = loop
        self.destination = destination
        self.dialler = dialler
        self._settings = destination.pool
        self._clock = clock
        self._generation = 0
        self._retired = False
        self._warm_at = 0.0
        self._connections: set[UpstreamConnection] = set()
        self._idle: deque[UpstreamConnection] = deque()
        self._lingering: dict[UpstreamConnection, float] = {}
        self._openings: list[_Opening] = []
        self._tickets: deque[Ticket] = deque()

    def __repr__(self) -> str:
        busy = len(self._connections) - len(self._idle)
        return (
            f"<Pool {self.destination.name}: {len(self._idle)} idle, {busy} busy,"
            f" {len(self._openings)} opening, {len(self._tickets)} waiting{', retired' if self._retired else ''}>"
        )

    @property
    def counts(self) -> tuple[int, int, int]:
        """Connections that are idle, that serve a request, and that are being opened."""
        idle = len(self._idle)
        return idle, len(self._connections) - idle, len(self._openings)

    @property
    def done(self) -> bool:
        """No configuration uses the pool and nothing is under way."""
        return self._retired and not (self._connections or self._openings or self._tickets)

    def take(self) -> UpstreamConnection | None:
        """An idle connection, unless others have waited longer for one."""
        return None if self._tickets else self._take()

    def _take(self) -> UpstreamConnection | None:
        """Lease the most recently used idle connection; older ones then age out when there is less to do."""
        idle = self._idle
        while idle:
            connection = idle.pop()
            if connection.lease(self._clock()):
                return connection
        return None

    def wait(self, waiter: Waiter) -> Ticket:
        """A place in the queue, and a connection that is being opened if there is room."""
        ticket = Ticket(self, waiter, self._clock() + self._settings.queue_seconds)
        queued = len(self._tickets) - len(self._openings)
        if queued >= self._settings.max_queue and not self._has_room():
            ticket.state = TicketState.REFUSED
            self.loop.call_soon(ticket.fail, self._overloaded("the queue is full"))
            return ticket
        self._tickets.append(ticket)
        self._grow()
        return ticket

    def _overloaded(self, why: str) -> Overloaded:
        return Overloaded(
            f"All {self._settings.max_connections} connections to the provider are busy and {why}. Try again soon,"
            " or raise gateway.connection_pool.max_connections.",
            headers=((b"retry-after", b"1"),),
        )

    # Openings

    def _has_room(self) -> bool:
        return len(self._connections) + len(self._openings) < self._settings.max_connections

    def _grow(self) -> None:
        """Open as many connections as there are requests that wait for one."""
        while len(self._openings) < len(self._tickets) and self._has_room():
            self._open()

    def _open(self) -> None:
        connection = UpstreamConnection(self, self.destination.origin, self._generation)
        deadline = self._clock() + self.destination.timeouts.connect_seconds
        self._openings.append(_Opening(self, connection, deadline))

    def on_opened(self, opening: _Opening) -> None:
        """A connection is ready."""
        if opening not in self._openings:
            opening.connection.close()
            return
        self._openings.remove(opening)
        self._connections.add(opening.connection)
        self.on_connection_idle(opening.connection)

    def on_opening_failed(self, opening: _Opening, error: GatewayError) -> None:
        """An opening came to nothing: the request that has waited longest is told, the others get another one."""
        if opening not in self._openings:
            return
        self._openings.remove(opening)
        self._warm_at = self._clock() + WARM_RETRY_SECONDS
        ticket = self._tickets.popleft() if self._tickets else None
        self._grow()
        if ticket is not None:
            ticket.fail(error)
        else:
            _log.warning("%r: %s", self, error.message)

    def on_ticket_cancelled(self, ticket: Ticket) -> None:
        """Forget a request, and the youngest opening if no other request waits for it."""
        self._tickets.remove(ticket)
        missing = max(0, self._settings.warm - len(self._connections))
        while len(self._openings) > len(self._tickets) + missing:
            self._openings.pop().task.cancel()

    # Connections

    def on_connection_idle(self, connection: UpstreamConnection) -> None:
        """A connection can take another request."""
        if self._lingering:
            self._lingering.pop(connection, None)
        if self._retired or connection.generation != self._generation:
            connection.close()
            return
        connection.idle_since = self._clock()
        idle = self._idle
        idle.append(connection)
        if self._tickets:
            # Not now: the listener of the response that has just ended comes first.
            self.loop.call_soon(self._dispatch)
        elif len(idle) > self._settings.max_idle:
            idle[0].close()

    def on_connection_lingering(self, connection: UpstreamConnection) -> None:
        """A response has said all but that it is over."""
        self._lingering[connection] = self._clock() + LINGER_SECONDS

    def on_connection_closed(self, connection: UpstreamConnection) -> None:
        """A connection is gone; there may be room for another."""
        self._connections.discard(connection)
        self._lingering.pop(connection, None)
        with contextlib.suppress(ValueError):
            self._idle.remove(connection)
        self._grow()

    def _dispatch(self) -> None:
        """Give idle connections to those who wait."""
        while self._tickets and (connection := self._take()) is not None:
            self._tickets.popleft().serve(connection)

    # Upkeep

    def sweep(self, now: float) -> None:
        """Look at every deadline and keep the number of idle connections between `warm` and `max_idle`."""
        if self._openings or self._tickets:
            self._expire_waits(now)
        for connection in [connection for connection, deadline in self._lingering.items() if deadline < now]:
            connection.abort()
        warm = 0 if self._retired else self._settings.warm
        idle = self._idle
        while idle and len(self._connections) > warm and idle[0].idle_since + self._settings.keepalive_seconds < now:
            idle[0].close()
        if warm and now >= self._warm_at:
            for _ in range(warm - len(self._connections) - len(self._openings)):
                if self._has_room():
                    self._open()

    def _expire_waits(self, now: float) -> None:
        for opening in [opening for opening in self._openings if opening.deadline < now]:
            opening.task.cancel()
            seconds = self.destination.timeouts.connect_seconds
            self.on_opening_failed(
                opening, UpstreamTimeout(f"{self.destination.origin} took more than {seconds:g} s to connect.")
            )
        # Those for whom a connection is being opened are bound by its deadline instead.
        queued = islice(self._tickets, len(self._openings), None)
        for ticket in [ticket for ticket in queued if ticket.deadline < now]:
            self._tickets.remove(ticket)
            ticket.fail(self._overloaded(f"none came free within {self._settings.queue_seconds:g} s"))

    def expire(self) -> None:
        """Use no present connection for another request: idle ones close now, busy ones after their response."""
        self._generation += 1
        for connection in list(self._idle):
            connection.close()

    def retire(self) -> None:
        """No configuration uses the destination any more; what is under way still finishes."""
        self._retired = True
        self.expire()

    def revive(self) -> None:
        """A configuration uses the destination again."""
        self._retired = False

    def abort(self) -> None:
        """Drop everything at once."""
        self._retired = True
        for ticket in self._tickets:
            ticket.state = TicketState.CANCELLED
        self._tickets.clear()
        for opening in self._openings:
            opening.task.cancel()
        self._openings.clear()
        for connection in list(self._connections):
            connection.abort()
            connection.close()


class Pools:
    """All pools of a worker. A destination whose host is `mock` has none: it is answered here, without a socket."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        clock: Callable[[], float],
        egress: Egress = DIRECT,
        resolver: Resolver | None = None,
        contexts: Contexts | None = None,
    ) -> None:
        self._loop = loop
        self._clock = clock
        self._dialler = Dialler(resolver or Resolver(clock), egress, contexts or Contexts())
        self._pools: dict[Destination, Pool] = {}

    def __repr__(self) -> str:
        return f"<Pools {list(self._pools.values())}>"

    @property
    def dialler(self) -> Dialler:
        """For what is not pooled: sockets are dialled alike."""
        return self._dialler

    def take(self, destination: Destination) -> UpstreamConnection | MockConnection | None:
        """An idle connection, on which the caller sends now; None: there is none and the caller may `wait`."""
        # The look-up by value costs 0.2 µs, and a destination that was compiled anew finds its old connections.
        pool = self._pools.get(destination)
        if pool is not None:
            return pool.take()
        if destination.origin.host == MOCK_HOST:
            return MockConnection(self._loop)
        return None

    def of(self, destination: Destination) -> Pool | None:
        """The pool of a destination, for as long as a configuration uses it; None: it has none."""
        return self._pools.get(destination)

    def wait(self, destination: Destination, waiter: Waiter) -> Ticket:
        """A place in the queue; the waiter is called later, never from within this call."""
        pool = self._pools.get(destination)
        return (pool or self._add(destination)).wait(waiter)

    def keep(self, destinations: Iterable[Destination]) -> None:
        """A configuration is in force that uses these: open their warm connections. Others finish and go."""
        wanted = {destination for destination in destinations if destination.origin.host != MOCK_HOST}
        for destination, pool in self._pools.items():
            if destination not in wanted:
                pool.retire()
        for destination in wanted:
            self._dialler.prepare(destination)
            (self._pools.get(destination) or self._add(destination)).revive()
        self.sweep(self._clock())

    def _add(self, destination: Destination) -> Pool:
        pool = self._pools[destination] = Pool(self._loop, destination, self._dialler, self._clock)
        return pool

    def sweep(self, now: float) -> None:
        """Called about every 100 ms: deadlines, idle connections that are too old, warm ones that are missing."""
        for pool in list(self._pools.values()):
            pool.sweep(now)
            if pool.done:
                del self._pools[pool.destination]

    def counts(self) -> list[tuple[Destination, tuple[int, int, int]]]:
        """For each destination: connections that are idle, that serve a request, and that are being opened."""
        return [(destination, pool.counts) for destination, pool in self._pools.items()]

    def expire(self) -> None:
        """Use no present connection for another request; for when certificates or routes have changed."""
        for pool in self._pools.values():
            pool.expire()

    def close(self) -> None:
        """Drop everything at once; no waiter and no listener is called any more."""
        for pool in self._pools.values():
            pool.abort()
        self._dialler.close()
