"""The client's side of a WebSocket handshake (RFC 6455, section 4.2): a request head in, an answer out.

It promises to take exactly what the RFC describes, and to take a credential out of wherever a browser had to put it
before anyone else sees the head: it is never forwarded, echoed or logged. It refuses to know who may connect and what
is said then: the application authenticates, a conversation decides.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl

from wsproto.handshake import server_extensions_handshake
from wsproto.utilities import generate_accept_token

from gateway.deflate import Deflate
from gateway.errors import GatewayError, InvalidRequest, UpgradeRequired
from gateway.http1 import connection_options
from gateway.types import KEY_PREFIX
from gateway.websocket import Socket, Sockets

if TYPE_CHECKING:
    from gateway.downstream.head import RequestHead
    from gateway.downstream.http import DownstreamConnection
    from gateway.snapshot import Binding
    from gateway.socket_ports import Conversation, SocketKind, SocketListener

VERSION: Final = b"13"
KEY_SUBPROTOCOL: Final = "openai-insecure-api-key."
"""How a browser, which cannot set header fields on a WebSocket, brings a key:
https://platform.openai.com/docs/guides/realtime-websocket."""
_CREDENTIAL_SUBPROTOCOLS: Final = (KEY_SUBPROTOCOL, "openai-organization.", "openai-project.")
_HANDSHAKE_FIELDS: Final = (
    b"sec-websocket-key:",
    b"sec-websocket-version:",
    b"sec-websocket-protocol:",
    b"sec-websocket-extensions:",
)
_PREFIX: Final = KEY_PREFIX.decode()
_MODEL_PARAMETERS: Final = ("model", "deployment")
_TOKEN: Final = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_UPGRADE_FIELDS: Final = ((b"upgrade", b"websocket"), (b"sec-websocket-version", VERSION))


def wants_websocket(head: RequestHead) -> bool:
    """Whether a request asks for a WebSocket; whether it does so rightly is another question."""
    return b"websocket" in connection_options(head.own.get(b"upgrade", b""))


def upgrade_required() -> UpgradeRequired:
    """For a path that is served only over a WebSocket."""
    return UpgradeRequired("This path is served over a WebSocket: send `Upgrade: websocket`.", headers=_UPGRADE_FIELDS)


class Handshake:
    """A client's handshake, checked. Raises InvalidRequest or UpgradeRequired.

    What it takes out of the head is gone from there: its own fields, and a key among the subprotocols, which becomes
    what it would have been as a header field. `default` is the subprotocol to choose where nobody else does.
    """

    __slots__ = ("_accept", "_offers", "default", "subprotocols")

    def __init__(self, head: RequestHead) -> None:
        _check(head)
        self._accept: bytes = generate_accept_token(_nonce(head))
        self._offers = _listed(head, b"sec-websocket-extensions")
        offered = _listed(head, b"sec-websocket-protocol")
        if len(set(offered)) != len(offered) or not all(name and _TOKEN.issuperset(name) for name in offered):
            raise InvalidRequest("Sec-WebSocket-Protocol is no list of different tokens (RFC 6455, section 4.1).")
        self.subprotocols = tuple(
            name for name in offered if not name.startswith(_CREDENTIAL_SUBPROTOCOLS) and _PREFIX not in name
        )
        brings_key = _take_key(head, offered)
        # A browser that offers subprotocols closes a socket for which none was chosen.
        self.default = self.subprotocols[0] if brings_key and self.subprotocols else None
        # A key that stands, by a client's mistake, where it is not taken from goes no further either.
        head.lines[:] = [
            line for line in head.lines if not line.startswith(_HANDSHAKE_FIELDS) and KEY_PREFIX not in line
        ]
        head.block = b"".join(head.lines)

    def deflate(self) -> tuple[Deflate, bytes | None]:
        """permessage-deflate as it is agreed on, with the value of the answer's field; None: it is not."""
        deflate = Deflate()
        return deflate, server_extensions_handshake(self._offers, [deflate])

    def answer(self, subprotocol: str | None, fields: bytes, extensions: bytes | None) -> bytes:
        """The answer that opens the socket."""
        lines = [
            b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
            b"sec-websocket-accept: %b\r\n" % self._accept
        ]
        if subprotocol is not None:
            lines.append(b"sec-websocket-protocol: %b\r\n" % subprotocol.encode())
        if extensions is not None:
            lines.append(b"sec-websocket-extensions: %b\r\n" % extensions)
        return b"".join([*lines, fields, b"\r\n"])


def _check(head: RequestHead) -> None:
    if not head.upgrade or head.http10 or head.length != 0:
        raise InvalidRequest(
            "A WebSocket begins with `Connection: Upgrade` and `Upgrade: websocket`, in a GET of HTTP/1.1 with no body."
        )
    if head.all_forwarded(b"sec-websocket-version") != [VERSION]:
        raise UpgradeRequired("Only version 13 of WebSocket is spoken (RFC 6455).", headers=_UPGRADE_FIELDS)


def _nonce(head: RequestHead) -> bytes:
    """The client's key: 16 bytes in base64 (section 4.1)."""
    keys = head.all_forwarded(b"sec-websocket-key")
    try:
        if len(keys) == 1 and len(keys[0]) == 24 and len(base64.b64decode(keys[0], validate=True)) == 16:
            return keys[0]
    except binascii.Error:
        pass
    raise InvalidRequest("Sec-WebSocket-Key must stand in the request once, as 16 bytes in base64.")


def _listed(head: RequestHead, name: bytes) -> list[str]:
    """The elements of a field that is a list, over all its lines."""
    values = b",".join(head.all_forwarded(name))
    return [part.strip(" \t") for part in values.decode("latin-1").split(",") if part.strip(" \t")]


def _take_key(head: RequestHead, offered: list[str]) -> bool:
    """Put a key among the subprotocols where one in a header field would be; whether there is one."""
    keys = [name[len(KEY_SUBPROTOCOL) :].encode() for name in offered if name.startswith(KEY_SUBPROTOCOL)]
    if len(keys) > 1:
        raise InvalidRequest(f"There is more than one `{KEY_SUBPROTOCOL}…` among the subprotocols.")
    if keys and b"authorization" not in head.own:
        head.own[b"authorization"] = b"Bearer " + keys[0]
    elif keys:
        head.own.setdefault(b"api-key", keys[0])
    return bool(keys)


class ClientUpgrade:
    """See `socket_ports.Upgrade`. It is also the connection's handler, which tells it when the client leaves."""

    __slots__ = (
        "_client", "_conversation", "_converse", "_handshake", "_refuse", "_sockets", "binding", "compressible", "head",
        "kind", "model", "peer", "request_id", "subprotocols",
    )  # fmt: skip

    def __init__(
        self,
        kind: SocketKind,
        model: str | None,
        handshake: Handshake,
        head: RequestHead,
        binding: Binding,
        client: DownstreamConnection,
        *,
        request_id: str,
        sockets: Sockets,
        converse: Callable[[ClientUpgrade], Conversation],
        refuse: Callable[[Exception], None],
    ) -> None:
        """`converse` makes the conversation; `refuse` answers with an error."""
        self.kind = kind
        self.model = model or _model_in(head.query)
        self.head = head
        self.binding = binding
        self.peer = client.peer
        self.request_id = request_id
        self.subprotocols = handshake.subprotocols
        self.compressible = handshake.deflate()[1] is not None
        self._handshake = handshake
        self._client: DownstreamConnection | None = client
        self._sockets = sockets
        self._converse = converse
        self._refuse = refuse
        self._conversation: Conversation | None = None

    def __repr__(self) -> str:
        return f"<ClientUpgrade {self.kind.value} {self.peer}, {'answered' if self._client is None else 'waiting'}>"

    # What a conversation asks for

    def accept(
        self, listener: SocketListener, *, subprotocol: str | None = None, fields: bytes = b"", compress: bool = True
    ) -> Socket:
        """Answer 101."""
        client, self._client = self._client, None
        assert client is not None, f"{self!r} is answered twice"
        assert subprotocol is None or subprotocol in self.subprotocols, "a subprotocol that was not offered"
        subprotocol = subprotocol or self._handshake.default
        deflate, extensions = self._handshake.deflate() if compress else (None, None)
        socket = Socket(self._sockets, masks=False, subprotocol=subprotocol, deflate=deflate)
        transport, data = client.switch_protocols(self._handshake.answer(subprotocol, fields, extensions))
        socket.prepare(transport)
        socket.take_over(listener, data)
        return socket

    def refuse(self, error: GatewayError) -> None:
        """Answer with an HTTP error."""
        self._refuse_once(error)

    def _refuse_once(self, error: Exception) -> None:
        if self._client is not None:
            self._client = None
            self._refuse(error)

    # What the client's connection tells

    def on_body(self, body: bytes) -> None:
        """The request is whole."""
        try:
            self._conversation = self._converse(self)
        except Exception as error:
            self._refuse_once(error)

    def on_body_failed(self, error: GatewayError) -> None:
        """A handshake has no body: this is never called."""

    def on_client_gone(self) -> None:
        """The client has left before it was answered."""
        self._client = None
        if self._conversation is not None:
            self._conversation.on_client_gone()

    def on_client_paused(self) -> None:
        """Nothing is written before the answer."""

    def on_client_resumed(self) -> None:
        """Nothing is written before the answer."""


def _model_in(query: bytes) -> str | None:
    """The model that a query names: `model`, or Azure's `deployment`."""
    found = dict(parse_qsl(query.decode("latin-1"), errors="strict", max_num_fields=100)) if query else {}
    return next((found[name] for name in _MODEL_PARAMETERS if found.get(name)), None)
