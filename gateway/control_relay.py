"""`/metrics`, `/api/` and `/console/` on the public port: relayed to the control process as to any other upstream.

If the control process is away, these answer 503 and traffic goes on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.errors import GatewayError, Overloaded
from gateway.http1 import HOP_BY_HOP, header_lines
from gateway.types import Destination, ResponseHead

if TYPE_CHECKING:
    from gateway.downstream.head import RequestHead
    from gateway.ports import Client, Connection, Pool, Ticket

_KEPT: Final = (b"host", b"authorization", b"cookie", b"origin", b"referer")
"""Fields that the data plane keeps to itself and that the control process must see."""
_OURS: Final = HOP_BY_HOP | {b"content-length", b"x-request-id"}


class ControlRelay:
    """One request on its way to the control process."""

    def __init__(
        self, pool: Pool, destination: Destination, request: RequestHead, client: Client, request_id: bytes
    ) -> None:
        """`request_id` is shown to both sides."""
        self._request_id = request_id
        self._pool = pool
        self._destination = destination
        self._request = request
        self._client = client
        self._body = b""
        self._ticket: Ticket | None = None
        self._connection: Connection | None = None
        self._begun = False
        self._chunked = False

    def on_body(self, body: bytes) -> None:
        """The request is whole."""
        self._body = body
        connection = self._pool.take(self._destination)
        if connection is None:
            self._ticket = self._pool.wait(self._destination, self)
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
        head = b"%b %b HTTP/1.1\r\n%b%bx-request-id: %b\r\nx-forwarded-for: %b\r\ncontent-length: %d\r\n\r\n" % (
            request.method,
            path,
            kept,
            b"".join(request.lines),
            self._request_id,
            self._client.peer.encode(),
            len(self._body),
        )
        connection.send(head, self._body, self)

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
        self._client.begin(head.status, fields, length=length, data=payload, end=end, raw=False)

    def on_response_data(self, data: bytes, end: bool) -> None:
        """More of its answer."""
        self._client.send(self._payload(data), end=end, raw=False)

    def on_response_failed(self, error: GatewayError) -> None:
        """It broke off."""
        self._connection = None
        if self._begun:
            self._client.abort()
        else:
            self.on_connect_failed(error)

    def _payload(self, data: bytes) -> bytes:
        walker = self._connection.walker if self._chunked and self._connection is not None else None
        return data if walker is None else walker.payload(data)

    def on_client_gone(self) -> None:
        """The client has left."""
        if self._ticket is not None:
            self._ticket.cancel()
        if self._connection is not None:
            self._connection.abort()

    def on_client_paused(self) -> None:
        """The client is slow."""
        if self._connection is not None:
            self._connection.pause_reading()

    def on_client_resumed(self) -> None:
        """The client has caught up."""
        if self._connection is not None:
            self._connection.resume_reading()
