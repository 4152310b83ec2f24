"""What the worker's server does with a request head: find its endpoint, authenticate, open an exchange or answer.

Requests that need no provider are answered here: health, readiness, the list of models. What belongs to the control
process is relayed to it as to any other upstream.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, cast

import orjson
from msgspec import UNSET

from gateway import metrics, warm_path
from gateway.audit.record import Outcome, finish_record, start_record
from gateway.authenticate import authenticate, is_local
from gateway.config.schema import AuthMode
from gateway.control_relay import ControlRelay
from gateway.cors import CrossOriginClient, Origins
from gateway.errors import (
    AddressNotAllowed,
    Draining,
    ForbiddenOrigin,
    GatewayError,
    InternalError,
    InvalidAPIKey,
    ModelNotFound,
    NotFound,
    Overloaded,
    Wire,
)
from gateway.exchange import Exchange
from gateway.refusals import Refusals
from gateway.surface import Endpoint, Place, find
from gateway.types import Destination

if TYPE_CHECKING:
    from gateway.downstream.head import RequestHead
    from gateway.downstream.http import DownstreamConnection, Handler
    from gateway.ports import Client
    from gateway.services import Services
    from gateway.snapshot import Binding
    from gateway.upgrades import Upgrades

_JSON = b"content-type: application/json\r\n"
_PROVIDER: Final = Place.PROVIDER
_RETRY = ((b"retry-after", b"1"),)
_CALLED_ACROSS: Final = (Place.PROVIDER, Place.MODELS)
"""What a web page of another origin may call, where the operator allows its origin."""


class GatewayApplication:
    """Opens exchanges for one worker."""

    def __init__(
        self,
        services: Services,
        counters: metrics.Metrics,
        *,
        mode: AuthMode,
        control: Destination,
        status: Callable[[], dict[str, Any]],
    ) -> None:
        """`control` is where the control process listens; `status` says what `/readyz` shows, `ready` among it."""
        self._services = services
        self.mode = mode
        self.serves_operators = True
        """Whether `/metrics`, `/api/` and `/console/` are here; False: on `gateway.admin_listen` only."""
        self.origins: Origins | None = None
        """Whose pages may call; None: no page of another origin."""
        self.upgrades: Upgrades | None = None
        """Who takes WebSockets; None: nobody."""
        self._control = control
        self._status = status
        self._rejections = counters.counters(metrics.KEY_REJECTIONS)
        self._refusals = Refusals(services.clock())
        self._unrecorded = counters.counter(metrics.REFUSALS_UNRECORDED)

    def open(self, head: RequestHead, client: Client) -> Handler | None:
        """A head has arrived: its handler, or None when it has been answered already."""
        services = self._services
        wire = Wire.OPENAI
        try:
            endpoint = head.endpoint
            if endpoint is None:
                if self.origins is not None and self._answers_preflight(head, client, self.origins):
                    return None
                if head.method == b"GET" and self.upgrades is not None:
                    upgrade = self._upgrade(head, client, self.upgrades)
                    if upgrade is not None:
                        return upgrade
                endpoint = head.endpoint = find(head.method, head.path)
            wire = endpoint.wire
            if self.origins is not None:
                client = self._across(endpoint, head, client, self.origins)
            if endpoint.place is _PROVIDER:
                binding = self._authenticate(head)
                course = head.course
                if course is not None and not course.tried:
                    course.tried = True
                    head.warm = warm_path.prepared(services, endpoint, head, client)
                return Exchange(services, endpoint, binding, head, client)
            return self._serve(endpoint, head, client)
        except GatewayError as error:
            self._refuse(error, head, client, wire)
        except Exception as bug:
            services.report_bug(repr(head.path), bug)
            self._refuse(InternalError("The gateway failed; see its log."), head, client, wire)
        return None

    def _upgrade(self, head: RequestHead, client: Client, upgrades: Upgrades) -> Handler | None:
        def refuse(error: GatewayError) -> None:
            self._refuse(error, head, client, Wire.OPENAI)

        connection = cast("DownstreamConnection", client)
        return upgrades.open(head, connection, authenticate=self._authenticate, refuse=refuse)

    def _answers_preflight(self, head: RequestHead, client: Client, origins: Origins) -> bool:
        """Answer a browser's question whether a page may send a request; False: it is none, or the answer is no."""
        fields = origins.preflight(head)
        if fields is None:
            return False
        asked = head.forwarded(b"access-control-request-method")
        if find(asked or b"", head.path).place not in _CALLED_ACROSS:
            return False
        client.reply(204, fields + b"x-request-id: %b\r\n" % self._shown_id(head), b"")
        return True

    def _across(self, endpoint: Endpoint, head: RequestHead, client: Client, origins: Origins) -> Client:
        """The client of a web page, where the endpoint may be called by one."""
        origin = head.own.get(b"origin")
        if origin is None or endpoint.place not in _CALLED_ACROSS:
            return client
        return CrossOriginClient(client, origins.lines(origin))

    def _authenticate(self, head: RequestHead) -> Binding:
        services = self._services
        if services.draining:
            raise Draining(headers=_RETRY)
        if not services.keys_known:
            raise Overloaded("The gateway does not know its keys yet; try again in a moment.", headers=_RETRY)
        return authenticate(head, services.snapshot, self.mode, services.wall())

    def refuse(self, error: GatewayError, head: RequestHead | None, client: Client) -> None:
        """A request that its connection cannot take (too large, malformed, late): answered in its own wire's shape."""
        wire = Wire.OPENAI
        if head is not None:
            with contextlib.suppress(GatewayError):
                endpoint = find(head.method, head.path)
                wire = endpoint.wire
                if self.origins is not None:
                    client = self._across(endpoint, head, client, self.origins)
        self._refuse(error, head, client, wire)

    def _refuse(self, error: GatewayError, head: RequestHead | None, client: Client, wire: Wire) -> None:
        if isinstance(error, InvalidAPIKey):
            self._rejections[error.reason].inc()
        if isinstance(error, InvalidAPIKey | ForbiddenOrigin | AddressNotAllowed) and head is not None:
            self._record_refusal(error, head, client)
        self._services.count_refusal(error)
        request_id = self._shown_id(head)
        fields = b"x-request-id: %b\r\n" % request_id
        client.refuse(error, request_id.decode("latin-1"), wire, fields)

    def _record_refusal(self, error: GatewayError, head: RequestHead, client: Client) -> None:
        """With `log_all_access` the log has those that were not let in, too: under the default configuration, since
        without a key there is no other. A flood of them it has only as a number."""
        if not self._services.snapshot.default.audits_everything:
            return
        if not self._refusals.admit(self._services.clock()):
            self._unrecorded.inc()
            return
        own = head.own.get(b"x-request-id")
        attributes = {"client_request_id": own.decode("latin-1")} if own else {}
        operation = head.endpoint.operation if head.endpoint is not None else None
        self._conclude_refusal(error, operation or "", client.peer, attributes)

    def _conclude_refusal(self, error: GatewayError, operation: str, peer: str, attributes: dict[str, str]) -> None:
        services = self._services
        configuration = services.snapshot.default
        id, at = services.next_id(), int(services.wall() * 1_000_000)
        left_out = self._refusals.take()
        if left_out:
            attributes["refusals_left_out"] = str(left_out)
        version = configuration.pipeline.version
        services.conclude(
            start_record(
                id, at, None, None, configuration.id, version, operation, "", peer, attributes=attributes or UNSET
            )
        )
        services.conclude(finish_record(id, at, Outcome.REFUSED, status=error.status, code=error.code))

    def sweep(self) -> None:
        """Called about every 100 ms: when a flood is over, a last record says how many were left out."""
        if self._refusals.due(self._services.clock()):
            self._conclude_refusal(InvalidAPIKey(), "", "", {})

    def _shown_id(self, head: RequestHead | None) -> bytes:
        """The client's own request id, where it sent a sound one."""
        own = head.own.get(b"x-request-id") if head is not None else None
        return own or self._services.next_id().encode()

    def _serve(self, endpoint: Endpoint, head: RequestHead, client: Client) -> Handler | None:
        if endpoint.place is Place.CONTROL:
            if not self.serves_operators:
                raise NotFound("This is served on `gateway.admin_listen`.")
            # Who may see what is for the control process to say, which knows people, sessions and access keys.
            local = is_local(head, client.peer)
            return ControlRelay(self._services, self._control, head, client, self._shown_id(head), local=local)
        if endpoint.place is Place.HEALTH:
            self._reply(head, client, 200, {"status": "ok"})
        elif endpoint.place is Place.READY:
            status = self._status()
            self._reply(head, client, 200 if status["ready"] else 503, status)
        else:
            binding = self._authenticate(head)
            self._reply(head, client, 200, _models(binding, endpoint.model))
        return None

    def _reply(self, head: RequestHead, client: Client, status: int, body: dict[str, Any]) -> None:
        fields = b"x-request-id: %b\r\n%b" % (self._shown_id(head), _JSON)
        client.reply(status, fields, orjson.dumps(body))


def _models(binding: Binding, wanted: str | None) -> dict[str, Any]:
    """https://platform.openai.com/docs/api-reference/models, for the models that the key allows."""
    configuration, key = binding.configuration, binding.key
    owners = {target.model: target.provider for target in reversed(configuration.targets)}
    shown = [name for name in configuration.models if key is None or key.models is None or name in key.models]
    if wanted is None:
        return {"object": "list", "data": [_model(name, owners[name]) for name in shown]}
    if wanted not in shown:
        raise ModelNotFound(f"No target of configuration {configuration.id} offers the model {wanted[:200]!r}.")
    return _model(wanted, owners[wanted])


def _model(name: str, owner: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": owner}
