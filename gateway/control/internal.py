"""`/internal/escalations`: where workers bring requests that wait for a person.

It is answered on the Unix socket only, which nobody else may open, and is not relayed from the public port.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import msgspec
import orjson
from aiohttp import web

from gateway.control.store.errors import StoreError
from gateway.control.store.store import Store
from gateway.errors import GatewayError
from gateway.oversight import PATH, Referral

log = logging.getLogger(__name__)


def add_routes(app: web.Application, store: Callable[[], Store]) -> None:
    """Answer the path in `app`. `store` raises StoreError while it cannot be used."""

    async def refer(request: web.Request) -> web.Response:
        try:
            told = msgspec.json.decode(await request.read(), type=Referral)
            answer = await store().escalations.refer(told)
        except (msgspec.DecodeError, StoreError, GatewayError) as error:
            log.warning("an escalated request could not be queued", extra={"reason": str(error)})
            return web.Response(status=503)
        return web.Response(body=orjson.dumps(msgspec.to_builtins(answer)), content_type="application/json")

    app.router.add_post(PATH, refer)
