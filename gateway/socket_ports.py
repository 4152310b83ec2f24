"""What a conversation needs of its two WebSockets, as protocols.

A *conversation* is what stands between a client's socket and, where it has one, a provider's: it decides which message
goes on, changed or as it was read. It imports neither `downstream` nor `upstream`, so that a test can play a whole
conversation without a socket. Both sides are the same `Socket`; once open, WebSocket knows no difference but masking.

How one comes about: a client asks for an upgrade, the application checks handshake, credentials and origin, and calls
the `ConversationFactory` with an `Upgrade`. The conversation answers it once, now or later: `accept` gives it the
client's socket, `refuse` an HTTP error. It opens a provider's socket with `SocketDialler.open`, before or after.

All calls and callbacks happen on the event loop. A callback may call anything, `close` and `pause_reading` included.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import msgspec

from gateway.errors import GatewayError
from gateway.types import Destination

if TYPE_CHECKING:
    from gateway.downstream.head import RequestHead
    from gateway.services import Services
    from gateway.snapshot import Binding


class SocketKind(enum.StrEnum):
    """Which protocol is spoken inside the messages; the path says it."""

    REALTIME = "realtime"
    RESPONSES = "responses"
    CHAT = "chat"


class Message(Protocol):
    """One whole message, whatever fragments and compression it came in. What is broken or too large never arrives."""

    @property
    def is_text(self) -> bool: ...

    @property
    def data(self) -> bytes:
        """The payload: joined, unmasked, inflated. Valid UTF-8 for text. Made at the first call and kept."""
        ...

    @property
    def text(self) -> str:
        """`data` as text; for text messages only."""
        ...

    @property
    def size(self) -> int:
        """Length of `data` in bytes; known without making it."""
        ...


class Socket(Protocol):
    """One side of a conversation, while it is open. Sending and closing are harmless once it is not."""

    @property
    def is_open(self) -> bool:
        """Neither side has said that it closes."""
        ...

    @property
    def subprotocol(self) -> str | None:
        """What the handshake agreed on."""
        ...

    @property
    def compressed(self) -> bool:
        """The handshake agreed on permessage-deflate."""
        ...

    def send_text(self, text: str | bytes) -> None:
        """Send one text message. Bytes must be valid UTF-8."""
        ...

    def send_binary(self, data: bytes) -> None:
        """Send one binary message."""
        ...

    def forward(self, message: Message) -> None:
        """Send a message that the other side has received; as the very bytes that were read, wherever that is right."""
        ...

    def close(self, code: int | None = 1000, reason: str = "") -> None:
        """Begin the closing handshake; what was sent before still goes out. `reason` is cut at 123 bytes of UTF-8.

        None, and the codes that cannot be sent (1005, 1006, 1015), close without a code, so that a code that was
        received can be handed on as it is. The listener hears `on_closed` and no further message.
        """
        ...

    def abort(self) -> None:
        """Drop the connection at once; the listener hears nothing more."""
        ...

    def pause_reading(self, reason: str) -> None:
        """Deliver no further message until every reason for a pause is gone; the sender slows down.

        That holds at once, also for messages that have been read already. `reason` is any short name.
        """
        ...

    def resume_reading(self, reason: str) -> None:
        """One reason is gone. Messages that waited come after this call has returned, never within it."""
        ...


class SocketListener(Protocol):
    """Hears of one socket."""

    def on_message(self, message: Message) -> None:
        """A message has arrived."""

    def on_closed(self, code: int, reason: str) -> None:
        """The last word, once: the other side's close code (1005: it gave none), or 1006 where it vanished without.

        Where this side closed first, by `close` or because the peer broke the rules (1002, 1007, 1009), was silent for
        too long (1001) or the gateway is draining (1001), it is that code, told when the close frame has been sent.
        """

    def on_paused(self) -> None:
        """The peer reads slower than it is sent to: stop sending soon, which is to say pause the other side."""

    def on_resumed(self) -> None:
        """The peer has caught up."""


class Upgrade(Protocol):
    """A client's wish for a WebSocket, checked but not answered.

    `model` is what the path names (Azure's deployment) or the query (`model`, `deployment`), if they do. `head` no
    longer holds handshake fields nor credentials among its `lines`. `subprotocols` are those that the client offers, in
    its order, without those that carry a credential. `compressible`: the client offers permessage-deflate in a form
    that is taken.
    """

    kind: SocketKind
    model: str | None
    head: RequestHead
    binding: Binding
    peer: str
    request_id: str
    subprotocols: tuple[str, ...]
    compressible: bool

    def accept(
        self, listener: SocketListener, *, subprotocol: str | None = None, fields: bytes = b"", compress: bool = True
    ) -> Socket:
        """Answer 101. `subprotocol` must be one of those offered. None: none is chosen, or the first where a browser
        brings its key among them, since it would close otherwise. `fields` are further header lines for the answer
        (`x-request-id`).

        `compress` False: permessage-deflate is not agreed on, though the client offers it (as when the provider would
        not: then nothing needs to be inflated on its way). Messages come after this call has returned.
        """
        ...

    def refuse(self, error: GatewayError) -> None:
        """Answer with an HTTP error in OpenAI's shape."""
        ...


class Conversation(Protocol):
    """What the factory returns."""

    def on_client_gone(self) -> None:
        """The client has left before its upgrade was answered. After `accept` its listener hears instead."""


ConversationFactory = Callable[["Services", Upgrade], Conversation]
"""Called once for each upgrade that may be served. May answer at once; may raise a GatewayError, which refuses it."""


class SocketRequest(msgspec.Struct, frozen=True):
    """How to ask a provider for a socket.

    `target` is the path with its query, as in `Lane.path`; `fields` are rendered header lines, host and the provider's
    credential among them (`Lane.fields`, `Lane.credential`), without any handshake field. ws or wss follows from
    `destination.origin`. `compress` offers permessage-deflate: worth it where the client offers it too. `passthrough`:
    the credential is the client's own, so its being refused is the client's to know.
    """

    destination: Destination
    target: bytes
    fields: bytes
    subprotocols: tuple[str, ...] = ()
    compress: bool = False
    passthrough: bool = False


class SocketOpener(Protocol):
    """Waits for a provider's socket. Exactly one of the two is called, once, never within `open`."""

    def on_socket_open(self, socket: Socket) -> SocketListener:
        """Here it is; whoever is returned hears of it from now on. Messages come after this call has returned."""

    def on_socket_failed(self, error: GatewayError) -> None:
        """There will be none: the pool's errors, UpstreamInvalid for an answer that is no handshake, or the
        provider's own refusal (UpstreamStatus, UpstreamAuthFailed)."""


class Opening(Protocol):
    """A provider's socket in the making."""

    def cancel(self) -> None:
        """Nobody wants it any more: the opener is not called."""
        ...


class SocketDialler(Protocol):
    """Opens sockets to providers (`upstream.websocket.UpstreamSockets`), through proxies and TLS as pools do.

    A worker has one, at `Services.sockets`.
    """

    def open(self, request: SocketRequest, opener: SocketOpener) -> Opening:
        """Begin; bounded by the destination's `connect_seconds`, and `first_byte_seconds` for the handshake."""
        ...


# Close codes (RFC 6455, section 7.4.1, and the IANA registry that it founds).
NORMAL = 1000
GOING_AWAY = 1001
PROTOCOL_ERROR = 1002
NO_CODE = 1005
VANISHED = 1006
INVALID_DATA = 1007
POLICY_VIOLATION = 1008
TOO_LARGE = 1009
INTERNAL_ERROR = 1011
TRY_AGAIN_LATER = 1013


def close_code(error: GatewayError) -> int:
    """The code that ends an open conversation for an error, where the error cannot be told in-band."""
    if error.code == "draining":
        return GOING_AWAY
    if error.status in (429, 503):
        return TRY_AGAIN_LATER
    if error.code == "request_too_large":
        return TOO_LARGE
    return POLICY_VIOLATION if 400 <= error.status < 500 else INTERNAL_ERROR
