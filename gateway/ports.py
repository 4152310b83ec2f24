"""What an exchange needs of the two sides of the gateway, as protocols.

`exchange` is given its client, its pool and its connections; it imports neither `downstream` nor `upstream`, so that a
test can play a whole exchange without a socket.
"""

from __future__ import annotations

from collections.abc import Callable
from re import Match
from typing import TYPE_CHECKING, Protocol

from gateway.errors import GatewayError, Wire
from gateway.types import Destination, ResponseHead

if TYPE_CHECKING:
    from gateway.http1 import ChunkWalker


class Waiter(Protocol):
    """Who waits for a connection."""

    def on_connection(self, connection: Connection) -> None:
        """Here it is; it is the waiter's until the answer is complete or it is aborted."""

    def on_connect_failed(self, error: GatewayError) -> None:
        """There is none: UpstreamUnreachable, UpstreamTimeout or Overloaded."""


class Listener(Protocol):
    """Who reads one answer."""

    def on_response_head(self, head: ResponseHead, data: bytes, end: bool) -> None:
        """The head, with what came of the body in the same read. `end`: the answer is complete."""

    def on_response_data(self, data: bytes, end: bool) -> None:
        """More of the body: the very object that was read, chunk framing included where `head.chunked`."""

    def on_response_failed(self, error: GatewayError) -> None:
        """The answer broke off or is not HTTP. Never after `end`."""


class Client(Protocol):
    """The client's connection, as far as an exchange uses it (`downstream.http.DownstreamConnection`)."""

    peer: str

    @property
    def takes_chunks(self) -> bool: ...

    def begin(
        self, status: int, fields: bytes, *, length: int | None, data: bytes, end: bool, raw: bool, reason: bytes = b""
    ) -> None: ...

    @property
    def write(self) -> Callable[[bytes], None]:
        """Where bytes go that carry their framing already: nothing is looked at."""
        ...

    def send(self, data: bytes, *, end: bool, raw: bool) -> None: ...

    def reply(self, status: int, fields: bytes, body: bytes) -> None: ...

    def refuse(
        self, error: GatewayError, request_id: str = "", wire: Wire = Wire.OPENAI, fields: bytes = b""
    ) -> None: ...

    def abort(self) -> None: ...


class Connection(Protocol):
    """A provider's connection (`upstream.connection.UpstreamConnection`)."""

    lane: Callable[[bytes], bool] | None
    request_sent: bool
    served: int
    """Answers that it has read before."""

    @property
    def walker(self) -> ChunkWalker | None:
        """Of the response that is being read, when it is chunked."""
        ...

    def send(self, head: bytes, body: bytes, listener: Listener) -> None:
        """Write one request; `listener` hears of its response."""
        ...

    def abort(self) -> None:
        """Close at once; the listener hears nothing more."""
        ...

    def linger(self) -> None:
        """Read the rest of the response, which nobody needs, so that the connection can serve again."""
        ...

    def pause_reading(self) -> None:
        """Take no more of the response for now."""
        ...

    def resume_reading(self) -> None:
        """Go on."""
        ...


class WarmClient(Client, Protocol):
    """What `WarmPath` needs besides."""

    def answer_whole(self, fields: bytes, body: bytes) -> None:
        """Send a good JSON answer."""

    def hand_over(self, handler: object, successor: object) -> None:
        """If `handler` is served by this connection, its successor is from now on."""


class WarmConnection(Connection, Protocol):
    """What `WarmPath` needs besides."""

    def send_whole(self, request: bytes, listener: Listener, lane: Callable[[bytes], bool]) -> None:
        """Write one request; `lane` is asked about every read of its answer before `listener` hears of it."""

    def give_back(self) -> None:
        """Nothing is sent after all: the connection is free again."""

    def whole(self, data: bytes) -> tuple[Template, Match[bytes]] | None:
        """If `data` is all of an ordinary answer with a known head: that head, and the connection is free again."""

    def hand_over(self, listener: Listener, successor: Listener) -> None:
        """If it is `listener` that hears of the answer, its successor does from now on."""


class Template(Protocol):
    """A known shape of an answer's head (`upstream.template.Template`)."""

    def passed(self, found: Match[bytes], *, limited: bool) -> bytes:
        """The lines of this head that go to the client."""
        ...


class WarmPool(Protocol):
    """The connections of one destination."""

    def take(self) -> WarmConnection | None:
        """An idle connection, on which the caller sends now."""


class Ticket(Protocol):
    """A place in a pool's queue."""

    def cancel(self) -> None:
        """Wait no longer."""
        ...


class Pool(Protocol):
    """Connections to providers (`upstream.pool.Pools`)."""

    def take(self, destination: Destination) -> Connection | None:
        """An idle connection, on which the caller sends now; None: the caller may `wait`."""
        ...

    def of(self, destination: Destination) -> WarmPool | None:
        """The connections of one destination, for as long as a configuration uses it; None: it has none."""
        ...

    def wait(self, destination: Destination, waiter: Waiter) -> Ticket:
        """A place in the queue; the waiter is called later."""
        ...
