"""Upgrades to WebSocket: which requests ask for one, whether they may, and who converses then.

It stands between the application, which authenticates, and the conversations; the handshake itself is
`downstream.websocket`. Origin needs no rule of its own here: what a browser would send along by itself, without the
page knowing it, is only its being on this machine, and a request without a key must not come from a foreign page
(`authenticate`). Every other page needs a key that it was given.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from gateway.downstream.websocket import ClientUpgrade, Handshake, upgrade_required, wants_websocket
from gateway.errors import GatewayError, InternalError, NotFound, Overloaded
from gateway.socket_ports import SocketKind
from gateway.surface import Endpoint, Place, find_socket
from gateway.types import Operation

if TYPE_CHECKING:
    from gateway.downstream.head import RequestHead
    from gateway.downstream.http import DownstreamConnection
    from gateway.services import Services
    from gateway.snapshot import Binding
    from gateway.socket_ports import ConversationFactory
    from gateway.websocket import Sockets

MAX_SOCKETS: Final = 10_000
"""Sockets that one worker keeps open, both sides counted. Idle ones cost little; beyond this, one turn in which all of
them say something would take longer than anyone should wait."""
_GET: Final = (b"GET",)
_ENDPOINTS: Final = {
    SocketKind.REALTIME: Endpoint(Place.SOCKET, _GET),
    SocketKind.RESPONSES: Endpoint(Place.SOCKET, _GET, Operation.RESPONSES),
    SocketKind.CHAT: Endpoint(Place.SOCKET, _GET, Operation.CHAT),
}


class Upgrades:
    """Takes upgrades for one worker."""

    def __init__(self, services: Services, sockets: Sockets, converse: ConversationFactory, *, enabled: bool) -> None:
        self._services = services
        self._sockets = sockets
        self._converse = converse
        self.enabled = enabled

    def open(
        self,
        head: RequestHead,
        client: DownstreamConnection,
        *,
        authenticate: Callable[[RequestHead], Binding],
        refuse: Callable[[GatewayError], None],
    ) -> ClientUpgrade | None:
        """The handler of a GET that asks for a WebSocket; None: it asks for something else.

        Raises GatewayError: NotFound where WebSockets are turned off, UpgradeRequired, InvalidRequest, Overloaded, and
        what `authenticate` raises. `refuse` answers with an error later on.
        """
        found = find_socket(head.path)
        if found is None:
            return None
        kind, model = found
        if not wants_websocket(head):
            if kind is SocketKind.REALTIME and self.enabled:
                raise upgrade_required()
            return None
        head.endpoint = _ENDPOINTS[kind]
        if not self.enabled:
            raise NotFound("WebSockets are turned off here (gateway.websocket.enabled).")
        handshake = Handshake(head)
        binding = authenticate(head)
        if len(self._sockets.open) >= MAX_SOCKETS:
            raise Overloaded(
                "The gateway has too many WebSockets open; try again soon.", headers=((b"retry-after", b"1"),)
            )
        own_id = head.own.get(b"x-request-id")
        return ClientUpgrade(
            kind,
            model,
            handshake,
            head,
            binding,
            client,
            request_id=own_id.decode("latin-1") if own_id else self._services.next_id(),
            sockets=self._sockets,
            converse=partial(self._converse, self._services),
            refuse=partial(self._refuse, refuse, kind),
        )

    def _refuse(self, refuse: Callable[[GatewayError], None], kind: SocketKind, error: Exception) -> None:
        if not isinstance(error, GatewayError):
            self._services.report_bug(f"a conversation of {kind.value}", error)
            error = InternalError("The gateway failed; see its log.")
        refuse(error)
