"""What serves the routes: who asks, may they, what do they say, and the answer; errors in the one shape.

The same steps for every route, in this order: at most so many calls at once, who asks, the CSRF rule, permission, body
and query, the handler. A route that the table does not have is not there.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Final

import msgspec
import orjson
from aiohttp import web

from gateway.control.escalations import EscalationDecided, EscalationNotFound
from gateway.control.rest.call import PLANE, Call, Handling, Plane, Route
from gateway.control.rest.configurations import RefusedWithProblems
from gateway.control.rest.openapi import describe
from gateway.control.rest.table import PREFIX, ROUTES
from gateway.control.store import errors as store_errors
from gateway.control.store.errors import StoreError
from gateway.errors import (
    Conflict,
    GatewayError,
    InternalError,
    InvalidJSON,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    NotSignedIn,
    Overloaded,
    PermissionDenied,
    RequestTooLarge,
    UnsupportedEncoding,
    VersionMismatch,
    envelope,
)

MAX_CALLS: Final = 64
"""At the same time, in one control process. A call takes a few milliseconds; what waits for a rollout, a second."""

_SOON: Final = ((b"retry-after", b"1"),)
_NOT_THERE: Final = (
    store_errors.UserNotFound,
    store_errors.TeamNotFound,
    store_errors.KeyNotFound,
    store_errors.AccessKeyNotFound,
    store_errors.SessionNotFound,
    store_errors.VersionNotFound,
    EscalationNotFound,
)
_CONFLICTS: Final = (
    store_errors.NameTaken,
    store_errors.LastOwner,
    store_errors.StillInUse,
    store_errors.KeyAmbiguous,
    store_errors.KeyNotActive,
    EscalationDecided,
)

log = logging.getLogger("gateway.control.rest")


class API:
    """The routes of a table, for one plane."""

    def __init__(self, plane: Plane, routes: Sequence[Route] = ROUTES) -> None:
        self._plane = plane
        self._routes = routes
        self._under_way = 0
        self._described: bytes | None = None

    def add_to(self, app: web.Application) -> None:
        """Answer the routes in `app`. Fixed paths win over those with a part to fill in."""
        app[PLANE] = self._plane
        app.router.add_get(f"{PREFIX}/openapi.json", self._describe)
        for route in sorted(self._routes, key=lambda route: route.path.count("{")):
            app.router.add_route(route.method, PREFIX + route.path, self._handler(route))

    async def _describe(self, request: web.Request) -> web.Response:
        """The OpenAPI description; it says nothing that differs between gateways, so nobody needs to sign in for it."""
        if self._described is None:
            self._described = orjson.dumps(describe(self._routes), option=orjson.OPT_INDENT_2)
        return _json(200, self._described)

    def _handler(self, route: Route) -> Handling:
        async def handle(request: web.Request) -> web.StreamResponse:
            return await self._serve(route, request)

        return handle

    async def _serve(self, route: Route, request: web.Request) -> web.StreamResponse:
        if route.endless:
            return await self._answer(route, request)
        if self._under_way >= MAX_CALLS:
            return answer_error(request, Overloaded("Too many calls at once; try again in a second.", headers=_SOON))
        self._under_way += 1
        try:
            return await self._answer(route, request)
        finally:
            self._under_way -= 1

    async def _answer(self, route: Route, request: web.Request) -> web.StreamResponse:
        plane = self._plane
        principal = await plane.gatekeeper.identify(request, plane.store)
        plane.gatekeeper.require_csrf(request, principal)
        if route.needs:
            if principal is None:
                raise NotSignedIn("Sign in, or send an access key as `Authorization: Bearer kt_ak_…`.")
            if not any(map(principal.may, route.needs)):
                raise PermissionDenied(f"Your role, {principal.role}, does not allow it.")
        call = Call.of(plane, request, principal)
        call.query = _query(route, request)
        call.body = await _body(route, request)
        told = await route.handler(call)
        if isinstance(told, web.StreamResponse):
            return told
        if told is None:
            return web.Response(status=204)
        return _json(route.status, msgspec.json.encode(told))


def _query(route: Route, request: web.Request) -> Any:
    if len(set(request.query)) != len(request.query):
        raise InvalidRequest("A parameter stands in the query more than once.")
    if route.query is None:
        if request.query:
            raise InvalidRequest(f"There is no parameter {next(iter(request.query))[:100]!r} here.")
        return None
    if any("\0" in value for value in request.query.values()):
        raise InvalidRequest("A parameter has a NUL character.")
    try:
        told = msgspec.convert(dict(request.query), route.query, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"The query is not right: {error}", param=_param(error)) from None
    for name in request.query:
        if getattr(told, name) is None:  # msgspec takes `null` for a number or a choice that may be left out
            raise InvalidRequest("A parameter is there or not; it is never null.", param=name)
    return told


async def _body(route: Route, request: web.Request) -> Any:
    if "Content-Encoding" in request.headers:
        raise UnsupportedEncoding
    length = request.content_length
    if length is not None and length > route.max_bytes:
        raise RequestTooLarge(f"The body is larger than {route.max_bytes} bytes.")
    body = await request.read()
    if len(body) > route.max_bytes:
        raise RequestTooLarge(f"The body is larger than {route.max_bytes} bytes.")
    if route.body is None:
        if body:
            raise InvalidRequest("This takes no body.")
        return None
    if not body and route.body_optional:
        return route.body()
    if request.content_type != "application/json":
        # Also what keeps a foreign page from posting a form: JSON needs a preflight, which nobody answers.
        raise InvalidRequest("Send JSON, with `Content-Type: application/json`.")
    try:
        told = msgspec.json.decode(body, type=route.body)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"The body is not right: {error}", param=_param(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidJSON(f"The body is not JSON: {error}") from None
    return told


def _param(error: msgspec.ValidationError) -> str | None:
    """The field that a validation error is about: msgspec names it at the message's end, as `$.name`."""
    _, separator, path = str(error).rpartition(" - at `$.")
    return path.rstrip("`") if separator else None


@web.middleware
async def errors_middleware(request: web.Request, handler: Handling) -> web.StreamResponse:
    """Whatever goes wrong becomes an answer here, and only here."""
    try:
        return await handler(request)
    except web.HTTPMethodNotAllowed as refused:
        allowed = refused.headers["Allow"]
        return answer_error(request, MethodNotAllowed(f"Use {allowed}.", headers=((b"allow", allowed.encode()),)))
    except web.HTTPNotFound:
        return answer_error(request, NotFound(f"There is nothing at {request.path[:200]}."))
    except web.HTTPRequestEntityTooLarge:
        return answer_error(request, RequestTooLarge("The body is larger than 1048576 bytes."))
    except web.HTTPException:
        raise
    except StoreError as error:
        return answer_error(request, from_store(error))
    except GatewayError as error:
        return answer_error(request, error)
    except Exception:
        log.exception("fault in the API", extra={"path": request.path[:200]})
        return answer_error(request, InternalError("The gateway failed; see its log."))


def from_store(error: StoreError) -> GatewayError:
    """What an error of the store is to a client."""
    if isinstance(error, _NOT_THERE):
        return NotFound(str(error))
    if isinstance(error, _CONFLICTS):
        return Conflict(str(error))
    if isinstance(error, store_errors.VersionChanged):
        return VersionMismatch(str(error))
    log.warning("the store cannot be used", extra={"reason": str(error)})
    return Overloaded("The store cannot be used right now; try again in a moment.", headers=_SOON)


def answer_error(request: web.Request, error: GatewayError) -> web.Response:
    """An error as an answer."""
    body = envelope(error, request.headers.get("x-request-id", ""))
    if isinstance(error, RefusedWithProblems):
        problems = msgspec.to_builtins(error.problems)
        body = orjson.dumps({**orjson.loads(body), "problems": problems})
    response = _json(error.status, body)
    for name, value in error.headers:
        response.headers[name.decode()] = value.decode()
    return response


def _json(status: int, body: bytes) -> web.Response:
    headers = {"Content-Type": "application/json", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    return web.Response(status=status, body=body, headers=headers)
