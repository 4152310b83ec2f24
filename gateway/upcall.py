"""One request of the gateway's own to somebody who is not a provider: a moderation service, the control process.

It uses the same pools as providers' requests, so that TLS, proxies (`HTTPS_PROXY`), name resolution and kept
connections are the same. The answer is collected whole, up to a bound, within one deadline for everything. It is never
retried: who asks knows whether that is safe. Not for the warm path: it makes a timer for each call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from gateway.errors import GatewayError, UpstreamInvalid, UpstreamTimeout
from gateway.ports import Connection, Pool, Ticket
from gateway.types import Destination, ResponseHead

MAX_ANSWER_BYTES: Final = 1024 * 1024

Then = Callable[[int, bytes], None]
"""Told the status and the body of the answer."""

Failed = Callable[[GatewayError], None]
"""Told why there is none."""


class Upcall:
    """A call under way. Exactly one of `then` and `failed` is called, once, unless it was cancelled."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        pool: Pool,
        destination: Destination,
        head: bytes,
        body: bytes,
        *,
        seconds: float,
        then: Then,
        failed: Failed,
    ) -> None:
        """`head` is the request line and all fields but `content-length`, each with its line end. A GET has no body."""
        length = b"" if head.startswith(b"GET ") else b"content-length: %d\r\n" % len(body)
        self._head = b"%b%b\r\n" % (head, length)
        self._body = body
        self._then = then
        self._failed = failed
        self._ticket: Ticket | None = None
        self._connection: Connection | None = None
        self._status = 0
        self._chunked = False
        self._encoded = False
        self._parts: list[bytes] = []
        self._size = 0
        self._over = False
        self._timer = loop.call_later(seconds, self._too_late)
        connection = pool.take(destination)
        if connection is None:
            self._ticket = pool.wait(destination, self)
        else:
            self.on_connection(connection)

    def cancel(self) -> None:
        """Nobody needs the answer any more."""
        if self._over:
            return
        self._over = True
        self._timer.cancel()
        ticket, self._ticket = self._ticket, None
        connection, self._connection = self._connection, None
        if ticket is not None:
            ticket.cancel()
        if connection is not None:
            connection.abort()

    def on_connection(self, connection: Connection) -> None:
        """The pool has a connection."""
        self._ticket = None
        self._connection = connection
        connection.send(self._head, self._body, self)

    def on_connect_failed(self, error: GatewayError) -> None:
        """There is none."""
        self._ticket = None
        self._fail(error)

    def on_response_head(self, head: ResponseHead, data: bytes, end: bool) -> None:
        """The answer begins."""
        self._status = head.status
        self._chunked = head.chunked
        self._encoded = head.coding not in (b"", b"identity")
        self.on_response_data(data, end)

    def on_response_data(self, data: bytes, end: bool) -> None:
        """More of it."""
        if self._over:
            return
        walker = self._connection.walker if self._chunked and self._connection is not None else None
        payload = data if walker is None else walker.payload(data)
        self._parts.append(payload)
        self._size += len(payload)
        if end:
            self._connection = None  # it is the pool's again
        if self._encoded:
            self._fail(UpstreamInvalid("The answer is encoded, which was not asked for."))
        elif self._size > MAX_ANSWER_BYTES:
            self._fail(UpstreamInvalid("The answer is too long."))
        elif end:
            self._over = True
            self._timer.cancel()
            self._then(self._status, b"".join(self._parts))

    def on_response_failed(self, error: GatewayError) -> None:
        """It broke off."""
        self._connection = None
        self._fail(error)

    def _too_late(self) -> None:
        self._fail(UpstreamTimeout("The answer did not come in time."))

    def _fail(self, error: GatewayError) -> None:
        if not self._over:
            self.cancel()
            self._failed(error)
