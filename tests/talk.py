"""A whole conversation over WebSockets without a socket, so that a test reads as a transcript.

    talk = talks(configuration(...))                    # a fixture; settings are those of `Play`
    talk.join("/v1/realtime?model=gpt-test")            # a client's handshake; the provider takes it
    talk.says({"type": "response.create"})              # the client says something
    assert talk.told() == [...]                         # what has reached the provider
    talk.socket.says({"type": "response.created"})      # the provider says something
    assert talk.hears() == [...]                        # what has reached the client

The conversation, its turns, the compiled configuration, limits, metrics and records are the real ones. Only sockets,
clocks and threads are played.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from gateway import surface
from gateway.authenticate import authenticate
from gateway.config.schema import AuthMode
from gateway.conversation import converse
from gateway.downstream.head import HeadLimits, RequestHead, parse_head
from gateway.errors import GatewayError
from gateway.frames import Message
from gateway.snapshot import Binding
from gateway.socket_ports import Message as AnyMessage
from gateway.socket_ports import SocketKind, SocketListener, SocketOpener, SocketRequest
from tests.playbook import KEY, Play


class Socket:
    """One side's socket, as the conversation sees it. `heard` is what has been sent to that side."""

    compressed = False

    def __init__(self, subprotocol: str | None = None) -> None:
        self.subprotocol = subprotocol
        self.is_open = True
        self.listener: SocketListener
        self.sent: list[bytes] = []
        self.forwarded: list[AnyMessage] = []
        self.closed: tuple[int | None, str] | None = None
        self.pauses: set[str] = set()

    @property
    def heard(self) -> list[Any]:
        """The messages that were sent to this side, from their JSON where they are JSON."""
        return [_read(message) for message in self.sent]

    def take(self) -> list[Any]:
        """The same since the last call."""
        heard = self.heard
        self.sent.clear()
        return heard

    def says(self, *messages: Any) -> None:
        """This side says something: objects, or the text of a message."""
        for one in messages:
            assert not self.pauses, f"not read: {self.pauses}"
            text = one if isinstance(one, bytes) else orjson.dumps(one)
            self.listener.on_message(Message(True, text, None, None, False))

    def leaves(self, code: int = 1000, reason: str = "") -> None:
        """This side closes."""
        self.is_open = False
        self.listener.on_closed(code, reason)

    # What the conversation calls

    def send_text(self, text: str | bytes) -> None:
        self._send(text.encode() if isinstance(text, str) else text)

    def send_binary(self, data: bytes) -> None:
        self._send(data)

    def forward(self, message: AnyMessage) -> None:
        self.forwarded.append(message)
        self._send(message.data)

    def _send(self, data: bytes) -> None:
        if self.is_open:
            self.sent.append(data)

    def close(self, code: int | None = 1000, reason: str = "") -> None:
        if self.is_open:
            self.is_open = False
            self.closed = code, reason
            self.listener.on_closed(1005 if code is None else code, reason)

    def abort(self) -> None:
        self.is_open = False

    def pause_reading(self, reason: str) -> None:
        self.pauses.add(reason)

    def resume_reading(self, reason: str) -> None:
        self.pauses.discard(reason)


def _read(message: bytes) -> Any:
    try:
        return orjson.loads(message)
    except orjson.JSONDecodeError:
        return message


class Provider(Socket):
    """A provider's socket, or the wish for one. `asked` is how."""

    def __init__(self, request: SocketRequest, opener: SocketOpener) -> None:
        super().__init__()
        self.asked = request
        self._opener = opener
        self.cancelled = False
        self.opened = False

    def accepts(self, subprotocol: str | None = None) -> Provider:
        """The handshake succeeds."""
        self.subprotocol = subprotocol
        self.opened = True
        self.listener = self._opener.on_socket_open(self)
        return self

    def refuses(self, error: GatewayError) -> None:
        """It does not."""
        self._opener.on_socket_failed(error)

    def cancel(self) -> None:
        """The conversation has lost its interest."""
        self.cancelled = True


class Dialler:
    """Asks for providers' sockets, and lets the test decide."""

    def __init__(self, providers: list[Provider]) -> None:
        self._providers = providers

    def open(self, request: SocketRequest, opener: SocketOpener) -> Provider:
        self._providers.append(Provider(request, opener))
        return self._providers[-1]


class Upgrade:
    """A client's handshake."""

    peer = "192.0.2.7"
    compressible = False

    def __init__(
        self,
        kind: SocketKind,
        model: str | None,
        head: RequestHead,
        binding: Binding,
        subprotocols: Sequence[str],
        request_id: str,
    ) -> None:
        self.request_id = request_id
        self.kind = kind
        self.model = model
        self.head = head
        self.binding = binding
        self.subprotocols = tuple(subprotocols)
        self.client: Socket | None = None
        self.error: GatewayError | None = None

    def accept(
        self, listener: SocketListener, *, subprotocol: str | None = None, fields: bytes = b"", compress: bool = True
    ) -> Socket:
        assert self.client is None, "accepted twice"
        assert self.error is None, "accepted after a refusal"
        self.client = Socket(subprotocol)
        self.client.listener = listener
        return self.client

    def refuse(self, error: GatewayError) -> None:
        assert self.client is None, "refused after it was accepted"
        assert self.error is None, "refused twice"
        self.error = error


class Talk(Play):
    """A worker, and one client's conversation through it."""

    upgrade: Upgrade

    def __init__(self, folder: Path, text: str = "", **settings: Any) -> None:
        super().__init__(folder, text, **settings)
        self.providers: list[Provider] = []
        self.targets_at_first = list(self.services.snapshot.targets)
        self.services.sockets = Dialler(self.providers)

    def knock(self, path: str, *, headers: Sequence[str] = (), subprotocols: Sequence[str] = ()) -> Upgrade:
        """A handshake comes; the provider has not been heard of yet."""
        lines = [f"GET {path} HTTP/1.1", "Host: localhost:41002", f"Authorization: Bearer {KEY.decode()}"]
        head = parse_head("\r\n".join([*lines, *headers, "", ""]).encode(), HeadLimits())
        found = surface.find_socket(head.path)
        assert found is not None
        kind, model = found
        for part in head.query.decode().split("&"):
            name, _, value = part.partition("=")
            model = value if name in ("model", "deployment") else model
        binding = authenticate(head, self.services.snapshot, AuthMode.REQUIRED, self.wall())
        own_id = head.own.get(b"x-request-id")
        shown = own_id.decode() if own_id else self.services.next_id()
        self.upgrade = Upgrade(kind, model, head, binding, subprotocols, shown)
        try:
            self.conversation = converse(self.services, self.upgrade)
        except GatewayError as error:
            self.upgrade.refuse(error)
        return self.upgrade

    def join(self, path: str = "/v1/realtime?model=gpt-test", **options: Any) -> Socket:
        """A handshake comes, and every provider that is asked for a socket takes it."""
        self.knock(path, **options)
        for provider in self.providers:
            if not provider.opened:
                provider.accepts()
        return self.client_socket

    def leave(self) -> None:
        """The client closes, if it has come and is there."""
        client = self.upgrade.client if hasattr(self, "upgrade") else None
        if client is not None and client.is_open:
            client.leaves()

    @property
    def client_socket(self) -> Socket:
        assert self.upgrade.client is not None, self.upgrade.error
        return self.upgrade.client

    def says(self, *messages: Any) -> None:
        """The client says something."""
        self.client_socket.says(*messages)

    def hears(self) -> list[Any]:
        """What the client has been told since the last call."""
        return self.client_socket.take()

    @property
    def socket(self) -> Provider:
        """The provider's socket that was asked for last."""
        return self.providers[-1]

    def told(self) -> list[Any]:
        """What the provider has been told since the last call."""
        return self.socket.take()

    @property
    def turns(self) -> list[dict[str, Any]]:
        """Start and finish record of each response in one, in the order of their ends."""
        starts = {one["id"]: one for one in self.records if one["kind"] == "start"}
        ends = [one for one in self.records if one["kind"] == "finish"]
        merged = [{**end, "start": starts[end["id"]]} for end in ends]
        return [one for one in merged if not one["start"]["operation"].endswith(".connection")]

    def check(self) -> None:
        """What must be true whatever happened."""
        for fault in self.faults:
            raise fault
        started = [one["id"] for one in self.records if one["kind"] == "start"]
        finished = [one["id"] for one in self.records if one["kind"] == "finish"]
        assert len(finished) == len(set(finished))
        assert len(started) == len(set(started))
        if not self.services.active:
            assert sorted(started) == sorted(finished)
            assert not [one for one in self.targets_at_first if one.in_flight]
