"""What the control process answers over HTTP, on a Unix socket in the run folder that workers relay to.

`/metrics`, the API `/api/v1` (`rest/`), the console (`console/`), and what workers ask (`internal.py`); with
`gateway.admin_listen`, all but the last on an address of its own as well. Errors have the shape that the rest of the
gateway's errors have.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from aiohttp import web

from gateway import exposition
from gateway.config.schema import TLS, TLSVersion
from gateway.control import internal
from gateway.control.api_token import api_token
from gateway.control.configuration_keeper import ConfigurationKeeper
from gateway.control.console import Console
from gateway.control.events.catalogue import events_of
from gateway.control.identity.gatekeeper import Gatekeeper, peer_of
from gateway.control.identity.oidc import OIDCClient
from gateway.control.identity.passwords import Passwords
from gateway.control.identity.throttle import Throttle
from gateway.control.rest.call import Handling, Plane, Source
from gateway.control.rest.operations import Explainer
from gateway.control.rest.server import API, errors_middleware
from gateway.control.settings import InForce, Settings

MAX_BODY_BYTES = 1 << 20

log = logging.getLogger("gateway.control")


def no_reload() -> None:
    """There is no supervisor to read the files again."""


def plane_of(
    source: Source,
    *,
    passwords: Passwords | None = None,
    clock: Callable[[], float] = time.time,
    reload: Callable[[], None] = no_reload,
) -> Plane:
    """What the calls of one control process share. `reload` asks the supervisor to read the files now."""
    in_force = InForce(source.run_folder)
    token = api_token(source.run_folder.parent)
    return Plane(
        source=source,
        in_force=in_force,
        gatekeeper=Gatekeeper(token, lambda: in_force.settings),
        passwords=passwords or Passwords(),
        throttle=Throttle(time.monotonic),
        oidc=OIDCClient(clock, time.monotonic),
        keeper=ConfigurationKeeper(source.run_folder, source.store, in_force, reload),
        explainer=Explainer(in_force),
        events=events_of(source.run_folder),
        clock=clock,
    )


@contextlib.asynccontextmanager
async def serving(plane: Plane) -> AsyncIterator[Path]:
    """Answer on `<run>/control.sock` while inside. Raises OSError when there can be no such socket."""
    path = plane.source.run_folder / "control.sock"
    runner = web.AppRunner(application(plane), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        path.unlink(missing_ok=True)  # an earlier process that was killed
        await web.UnixSite(runner, str(path)).start()
        path.chmod(0o600)  # the umask has kept others out in between
        await _listen(runner, plane.settings)
        yield path
    finally:
        await runner.cleanup()
        path.unlink(missing_ok=True)
        plane.passwords.close()
        await plane.oidc.close()


async def _listen(runner: web.AppRunner, settings: Settings) -> None:
    """Answer on `admin_listen` too, if there is one. What hinders it is logged: keys go on, whatever it is.

    The port is shared with a control process that is about to leave, as workers share theirs.
    """
    if settings.admin_listen is None:
        return
    host, _, port = settings.admin_listen.rpartition(":")
    try:
        context = None if settings.tls is None else _server_context(settings.tls)
        await web.TCPSite(runner, host.strip("[]"), int(port), ssl_context=context, reuse_port=True).start()
    except OSError as error:  # of the port, or of the certificate's files
        reason = {"address": settings.admin_listen, "reason": str(error)}
        log.error("cannot listen on gateway.admin_listen", extra=reason)


def _server_context(tls: TLS) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_3 if tls.min_version is TLSVersion.V1_3 else ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(tls.cert_file, tls.key_file)
    return context


def application(plane: Plane) -> web.Application:
    """The routes."""
    app = web.Application(middlewares=[errors_middleware, _nothing_internal], client_max_size=MAX_BODY_BYTES)
    app.on_response_prepare.append(_without_server)
    app.router.add_get("/metrics", _Metrics(plane.source.run_folder).answer)
    API(plane).add_to(app)
    Console().add_to(app)
    internal.add_routes(app, plane.store)
    return app


async def _without_server(_: web.Request, response: web.StreamResponse) -> None:
    """What it is made with is nobody's business. (aiohttp adds the field before it calls this.)"""
    response.headers.popall("Server", None)


@web.middleware
async def _nothing_internal(request: web.Request, handler: Handling) -> web.StreamResponse:
    """Whoever does not come by the Unix socket finds nothing of what workers ask."""
    if request.path.startswith("/internal/") and peer_of(request) is not None:
        raise web.HTTPNotFound
    return await handler(request)


class _Metrics:
    """Prometheus' page; made in a thread, since reading a thousand series takes longer than keys may wait."""

    def __init__(self, run_folder: Path) -> None:
        self._run_folder = run_folder

    async def answer(self, request: web.Request) -> web.Response:
        """The page, in the format that the scraper prefers."""
        accept = request.headers.get("Accept", "")
        body, content_type = await asyncio.to_thread(exposition.negotiate, self._run_folder, accept)
        return web.Response(body=body, headers={"Content-Type": content_type})
