"""What the control process answers over HTTP, on a Unix socket in the run folder that workers relay to.

`/metrics`, `/api/v1/status`, what waits for a person (`escalation_api.py`) and what would become of a request
(`explain_api.py`). Errors have the shape that the rest of the gateway's errors have.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol

import orjson
from aiohttp import web

from gateway import exposition
from gateway.control.escalation_api import add_routes, api_token
from gateway.control.escalations import Escalations
from gateway.control.explain_api import Explain
from gateway.errors import GatewayError, MethodNotAllowed, NotFound, envelope

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Source(Protocol):
    """What the answers are made of."""

    run_folder: Path

    def status(self, now: float) -> dict[str, Any]:
        """The state of the gateway at `now`, Unix seconds."""

    def escalations(self) -> Escalations | None:
        """The requests that wait for a person; None while the store cannot be used."""


@contextlib.asynccontextmanager
async def serving(source: Source) -> AsyncIterator[Path]:
    """Answer on `<run>/control.sock` while inside. Raises OSError when there can be no such socket."""
    path = source.run_folder / "control.sock"
    runner = web.AppRunner(application(source), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        path.unlink(missing_ok=True)  # an earlier process that was killed
        await web.UnixSite(runner, str(path)).start()
        path.chmod(0o600)  # the umask has kept others out in between
        yield path
    finally:
        await runner.cleanup()
        path.unlink(missing_ok=True)


def application(source: Source) -> web.Application:
    """The routes."""
    app = web.Application(middlewares=[_errors])
    app.router.add_get("/metrics", _Metrics(source.run_folder))
    app.router.add_get("/api/v1/status", _Status(source))
    token = api_token(source.run_folder.parent)
    add_routes(app, source.escalations, token)
    app.router.add_post("/api/v1/explain", Explain(source.run_folder, token).answer)
    return app


class _Metrics:
    """Prometheus' page; made in a thread, since reading a thousand series takes longer than keys may wait."""

    def __init__(self, run_folder: Path) -> None:
        self._run_folder = run_folder

    async def __call__(self, request: web.Request) -> web.Response:
        accept = request.headers.get("Accept", "")
        body, content_type = await asyncio.to_thread(exposition.negotiate, self._run_folder, accept)
        return web.Response(body=body, headers={"Content-Type": content_type})


class _Status:
    def __init__(self, source: Source) -> None:
        self._source = source

    async def __call__(self, request: web.Request) -> web.Response:
        return _json(200, orjson.dumps(self._source.status(time.time())))


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPMethodNotAllowed as refused:
        return _error(request, MethodNotAllowed(f"Use {refused.headers['Allow']}."), Allow=refused.headers["Allow"])
    except web.HTTPNotFound:
        return _error(request, NotFound(f"There is nothing at {request.path}."))


def _error(request: web.Request, error: GatewayError, **headers: str) -> web.Response:
    return _json(error.status, envelope(error, request.headers.get("x-request-id", "")), headers)


def _json(status: int, body: bytes, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(status=status, body=body, headers={"Content-Type": "application/json", **(headers or {})})
