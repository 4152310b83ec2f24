"""`/metrics`, `/api/` and `/console/` on the public port: relayed to the control process as to any other upstream.

If the control process is away, these answer 503 and traffic goes on. One that hangs is given up: after
`first_byte_seconds` without an answer, and after `idle_seconds` of silence in the middle of one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from gateway.errors import GatewayError, Overloaded
from gateway.http1 import HOP_BY_HOP, header_lines
from gateway.types import Destination, ResponseHead

if TYPE_CHECKING:
    from gateway.downstream.head import RequestHead
    from gateway.ports import Client, Connection, Ticket
    from gateway.services import Services

_KEPT: Final = (b"host", b"authorization", b"cookie", b"origin", b"referer", b"x-forwarded-proto")
"""Fields that the data plane keeps to itself and that the control process must see."""
_OURS: Final = HOP_BY_HOP | {b"content-length", b"x-request-id"}


class ControlRelay:
    """One request on its way to the control process."""

    def __init__(
        self,
        services: Services,
        destination: Destination,
        request: RequestHead,
        client: Client,
        request_id: bytes,
        *,
        local: bool,
    ) -> None:
        """`request_id` is shown to both sides; `local` says that it is this machine's own user who asks."""
        self._local = local
        self._request_id = request_id
        self._services = services
        self._destination = destination
        self._request = request
        self._client = client
        self._body = b""
        self._ticket: Ticket | None = None
        self._connection: Connection | None = None
        self._begun = False
        self._chunked = False
        self._deadline = 0.0
        self._paused = False
        self._timer: Any = None

    def on_body(self, body: bytes) -> None:
        """The request is whole."""
        self._body = body
        pool = self._services.pool
        connection = pool.take(self._destination)
        if connection is None:
            self._ticket = pool.wait(self._destination, self)
        else:
            self.on_connection(connection)

    def on_body_failed(self, error: GatewayError) -> None:
        """The rest of the request did not come."""
        self._refuse(error)

    def _refuse(self, error: GatewayError) -> None:
        shown = self._request_id.decode("latin-1")
        self._client.refuse(error, shown, fields=b"x-request-id: %b\r\n" % self._request_id)

    def on_connection(self, connection: Connection) -> None:
        """The pool has a connection."""
        self._ticket = None
        self._connection = connection
        request = self._request
        path = request.path + (b"?" + request.query if request.query else b"")
        kept = header_lines((name, request.own[name]) for name in _KEPT if name in request.own)
        head = (b"%b %b HTTP/1.1\r\n%b%b%bx-request-id: %b\r\nx-forwarded-for: %b\r\ncontent-length: %d\r\n\r\n") % (
            request.method,
            path,
            kept,
            b"".join(line for line in request.lines if not line.startswith(b"x-kt-local:")),
            b"x-kt-local: 1\r\n" if self._local else b"",
            self._request_id,
            self._client.peer.encode(),
            len(self._body),
        )
        connection.send(head, self._body, self)
        self._wait(self._destination.timeouts.first_byte_seconds)

    def _wait(self, seconds: float) -> None:
        """Something more must come in so many seconds. One timer, that looks again where the deadline has moved."""
        self._deadline = self._services.clock() + seconds
        if self._timer is None:
            self._timer = self._services.call_later(seconds, self._look)

    def _look(self) -> None:
        self._timer = None
        left = self._deadline - self._services.clock()
        if self._paused:
            self._wait(self._destination.timeouts.idle_seconds)  # it is the client that is slow
        elif left > 0:
            self._timer = self._services.call_later(left, self._look)
        elif self._connection is not None:
            self._connection.abort()
            self._give_up()

    def _give_up(self) -> None:
        """No more will come."""
        self._end()
        if self._begun:
            self._client.abort()
        else:
            self.on_connect_failed(Overloaded())

    def _end(self) -> None:
        self._connection = None
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def on_connect_failed(self, error: GatewayError) -> None:
        """The control process is away."""
        self._ticket = None
        self._refuse(Overloaded("The control process is not available; try again in a moment."))

    def on_response_head(self, head: ResponseHead, data: bytes, end: bool) -> None:
        """The control process answers."""
        self._begun = True
        self._chunked = head.chunked
        fields = header_lines(field for field in head.headers if field[0] not in _OURS)
        fields += b"x-request-id: %b\r\n" % self._request_id
        payload = self._payload(data)
        length = len(payload) if end and head.content_length is None else head.content_length
        self._expect_more(end)
        self._client.begin(head.status, fields, length=length, data=payload, end=end, raw=False)

    def on_response_data(self, data: bytes, end: bool) -> None:
        """More of its answer."""
        payload = self._payload(data)
        self._expect_more(end)
        self._client.send(payload, end=end, raw=False)

    def on_response_failed(self, error: GatewayError) -> None:
        """It broke off."""
        self._give_up()

    def _expect_more(self, end: bool) -> None:
        if end:
            self._end()
        else:
            self._wait(self._destination.timeouts.idle_seconds)

    def _payload(self, data: bytes) -> bytes:
        walker = self._connection.walker if self._chunked and self._connection is not None else None
        return data if walker is None else walker.payload(data)

    def on_client_gone(self) -> None:
        """The client has left."""
        if self._ticket is not None:
            self._ticket.cancel()
        if self._connection is not None:
            self._connection.abort()
        self._end()

    def on_client_paused(self) -> None:
        """The client is slow."""
        self._paused = True
        if self._connection is not None:
            self._connection.pause_reading()

    def on_client_resumed(self) -> None:
        """The client has caught up."""
        self._paused = False
        self._deadline = self._services.clock() + self._destination.timeouts.idle_seconds
        if self._connection is not None:
            self._connection.resume_reading()
