"""`/api/v1/escalations` for people and their tools, and `/internal/escalations` for the workers.

    GET  /api/v1/escalations?state=pending     the newest, of one state or of all
    GET  /api/v1/escalations/{id}              one
    POST /api/v1/escalations/{id}/approve      {"note": "…", "by": "…"}, both optional
    POST /api/v1/escalations/{id}/refuse       the same

Whoever may approve must be somebody: these paths want the API token as `Authorization: Bearer`, which the control
process makes in the state folder at its first start, readable by the gateway's own user only. The internal path has no
token: it is answered on the Unix socket only, which nobody else may open, and is not relayed from the public port.
"""

from __future__ import annotations

import hmac
import logging
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec
import orjson
from aiohttp import web

from gateway.control.escalations import Escalation, EscalationDecided, EscalationNotFound, Escalations, State
from gateway.control.store.errors import StoreError
from gateway.errors import GatewayError, InvalidAPIKey, InvalidRequest, NotFound, Overloaded, envelope
from gateway.oversight import PATH, Referral

log = logging.getLogger(__name__)

TOKEN_FILE: Final = "api-token"  # noqa: S105 (a file's name)
MAX_LABEL: Final = 200

Queue = Callable[[], Escalations | None]
"""The queue, or None while the store cannot be used."""


def api_token(state_folder: Path) -> str:
    """The token of this state folder; made if there is none. Raises OSError."""
    path = state_folder / TOKEN_FILE
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_text(encoding="ascii").strip()
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        token = f"kt_api_{secrets.token_urlsafe(32)}"
        file.write(token + "\n")
    return token


def add_routes(app: web.Application, queue: Queue, token: str) -> None:
    """Answer these paths in `app`."""
    api = _API(queue, token)
    app.router.add_post(PATH, api.refer)
    app.router.add_get("/api/v1/escalations", api.search)
    app.router.add_get("/api/v1/escalations/{id}", api.show)
    app.router.add_post("/api/v1/escalations/{id}/{decision:approve|refuse}", api.decide)


def row(escalation: Escalation) -> dict[str, Any]:
    """An escalation as programs see it. Times are Unix seconds."""
    told: dict[str, Any] = msgspec.to_builtins(escalation)
    return told


class _API:
    def __init__(self, queue: Queue, token: str) -> None:
        self._queue = queue
        self._token = token.encode()

    async def refer(self, request: web.Request) -> web.Response:
        """A worker asks for an approval."""
        try:
            told = msgspec.json.decode(await request.read(), type=Referral)
            answer = await self._opened().refer(told)
        except (msgspec.DecodeError, StoreError, GatewayError) as error:
            log.warning("an escalated request could not be queued", extra={"reason": str(error)})
            return web.Response(status=503)
        return _json(msgspec.to_builtins(answer))

    async def search(self, request: web.Request) -> web.Response:
        """The newest escalations."""

        async def work(queue: Escalations) -> Any:
            wanted = request.query.get("state")
            if wanted is not None and wanted not in list(State):
                raise InvalidRequest(f"`state` is one of {', '.join(State)}.", param="state")
            found = await queue.search(State(wanted) if wanted else None)
            return {"data": [row(escalation) for escalation in found]}

        return await self._answer(request, work)

    async def show(self, request: web.Request) -> web.Response:
        """One escalation."""

        async def work(queue: Escalations) -> Any:
            return row(await queue.get(request.match_info["id"]))

        return await self._answer(request, work)

    async def decide(self, request: web.Request) -> web.Response:
        """Approve or refuse."""

        async def work(queue: Escalations) -> Any:
            told = await _labels(request)
            approve = request.match_info["decision"] == "approve"
            id = request.match_info["id"]
            return row(await queue.decide(id, approve=approve, by=told.get("by") or "api", note=told.get("note")))

        return await self._answer(request, work)

    def _opened(self) -> Escalations:
        queue = self._queue()
        if queue is None:
            raise Overloaded("The store cannot be used right now; try again in a moment.")
        return queue

    async def _answer(self, request: web.Request, work: Callable[[Escalations], Any]) -> web.Response:
        try:
            admit(request, self._token)
            return _json(await work(self._opened()))
        except EscalationNotFound as error:
            return _error(request, NotFound(str(error)))
        except EscalationDecided as error:
            return _error(request, InvalidRequest(str(error)))
        except StoreError:
            return _error(request, Overloaded("The store cannot be used right now; try again in a moment."))
        except GatewayError as error:
            return _error(request, error)


def admit(request: web.Request, token: bytes) -> None:
    """Let a request with the API token in. Raises InvalidAPIKey for every other."""
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), token):
        raise InvalidAPIKey(f"This path wants the API token, which is in `{TOKEN_FILE}` in the state folder.")


async def _labels(request: web.Request) -> dict[str, str]:
    """What a person says with a decision."""
    body = await request.read()
    try:
        told = orjson.loads(body) if body.strip() else {}
    except orjson.JSONDecodeError:
        raise InvalidRequest("The body is not JSON.") from None
    if not isinstance(told, dict) or not all(isinstance(value, str) for value in told.values()):
        raise InvalidRequest('The body is an object of texts: {"note": "…", "by": "…"}.')
    return {name: value[:MAX_LABEL] for name, value in told.items() if name in ("note", "by")}


def _json(value: object, status: int = 200) -> web.Response:
    return web.Response(status=status, body=orjson.dumps(value), headers={"Content-Type": "application/json"})


def _error(request: web.Request, error: GatewayError) -> web.Response:
    body = envelope(error, request.headers.get("x-request-id", ""))
    return web.Response(status=error.status, body=body, headers={"Content-Type": "application/json"})
