"""Who sends a request: the session of its cookie, the access key or the API token of its `Authorization`.

A request with `Authorization` stands or falls by it; its cookies are not looked at. One that a cookie vouches for and
that changes something must show the session's CSRF token, and must not come from a page of another origin: a browser
sends the cookie whoever made it send the request.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from aiohttp import web

from gateway.control.identity.credentials import csrf_ok, csrf_token, is_access_key
from gateway.control.identity.principal import Principal, Via
from gateway.control.identity.roles import Role
from gateway.control.settings import Settings
from gateway.control.store.store import Store
from gateway.errors import CSRFRefused, NotSignedIn

CSRF_HEADER: Final = "x-csrf-token"
LOCAL_HEADER: Final = "x-kt-local"
"""By which a worker says that a request is this machine's own user's; it takes the field from nobody else."""

SAFE_METHODS: Final = ("GET", "HEAD", "OPTIONS")
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")


class Origin(NamedTuple):
    """Where a request comes from: the client's address, whether it reaches the outermost of us by TLS, and whether it
    is this machine's own user's, sent by no page of another origin and through no proxy."""

    address: str
    secure: bool
    local: bool


def origin_of(request: web.Request, settings: Settings) -> Origin:
    """Where a request comes from.

    Workers, who come by the Unix socket, say whom they relay for, after `trusted_proxies` was applied, and whether it
    is local; what others say of themselves does not count. `x-forwarded-proto` decides only how this client's own
    cookies are marked.
    """
    headers, peer = request.headers, peer_of(request)
    if peer is None:
        address = headers.get("x-forwarded-for", "local")
        local = address == "local" or headers.get(LOCAL_HEADER) == "1"
    else:
        address, local = peer, _is_local(peer, request)
    proto = headers.get("x-forwarded-proto", "").partition(",")[0].strip().lower()
    return Origin(address, settings.secure or (settings.behind_proxy and proto == "https"), local)


def peer_of(request: web.Request) -> str | None:
    """The other end of a TCP connection; None on the Unix socket."""
    name = None if request.transport is None else request.transport.get_extra_info("peername")
    return name[0] if isinstance(name, tuple) else None


def _is_local(peer: str, request: web.Request) -> bool:
    """The same rule as `gateway.authenticate.require_local`, for who comes by `admin_listen`."""
    headers = request.headers
    if not (peer.startswith("127.") or peer == "::1") or "x-forwarded-for" in headers or "forwarded" in headers:
        return False
    origin = headers.get("Origin")
    if origin is not None and urlsplit(origin).hostname not in _LOOPBACK:
        return False
    return urlsplit(f"//{headers.get('Host', '')}").hostname in _LOOPBACK


class Gatekeeper:
    """Tells who asks."""

    def __init__(self, token: str, settings: Callable[[], Settings]) -> None:
        """`token` is the API token of the state folder."""
        self._token = token.encode()
        self._settings = settings

    async def identify(self, request: web.Request, store: Callable[[], Store]) -> Principal | None:
        """Who asks, or None where nobody is named. Raises NotSignedIn for a credential that is not good.

        `store` is asked for only when it is needed; what it raises goes through.
        """
        authorization = request.headers.get("Authorization")
        if authorization is not None:
            return await self._by_header(authorization, request, store)
        secret = request.cookies.get(self.cookie_name(request))
        if secret is None:
            return None
        idle = self._settings().identity.session_idle_minutes * 60
        found = await store().access.session_of(secret, idle)
        if found is None:
            return None  # it has ended: as if there were no cookie
        session, user = found
        csrf = csrf_token(secret)
        return Principal(via=Via.SESSION, role=user.role, user=user, credential_id=session.id, csrf=csrf)

    async def _by_header(self, authorization: str, request: web.Request, store: Callable[[], Store]) -> Principal:
        scheme, _, given = authorization.partition(" ")
        given = given.strip()
        if scheme.lower() == "bearer" and given:
            if is_access_key(given):
                found = await store().access.access_key_of(given)
                if found is not None:
                    key, user = found
                    return Principal(via=Via.ACCESS_KEY, role=user.role, user=user, credential_id=key.id)
            elif origin_of(request, self._settings()).local and self._is_token(given):
                return Principal(via=Via.API_TOKEN, role=Role.OWNER)
        raise NotSignedIn("The access key is not good: wrong, expired, or its user is not active.")

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), self._token)

    def cookie_name(self, request: web.Request) -> str:
        """The session's cookie. With TLS its name has a prefix by which browsers keep other hosts from setting it."""
        return "__Host-kt_session" if origin_of(request, self._settings()).secure else "kt_session"

    def require_csrf(self, request: web.Request, principal: Principal | None) -> None:
        """Raises CSRFRefused for a request that changes something and that a foreign page may have made."""
        if request.method in SAFE_METHODS:
            return
        self.require_own_page(request)
        if principal is None or principal.via is not Via.SESSION:
            return
        secret = request.cookies.get(self.cookie_name(request), "")
        if not csrf_ok(secret, request.headers.get(CSRF_HEADER, "")):
            raise CSRFRefused(f"Send the session's CSRF token as `{CSRF_HEADER}`; `GET /api/v1/me` shows it.")

    def require_own_page(self, request: web.Request) -> None:
        """Raises CSRFRefused for a request of another origin's page."""
        if request.headers.get("Sec-Fetch-Site", "").lower() in ("cross-site", "same-site"):
            raise CSRFRefused("A page of another origin may not do this.")
        origin = request.headers.get("Origin")
        if origin is None:
            return
        own = {request.headers.get("Host", "").lower(), self._settings().public_host}
        if urlsplit(origin).netloc.lower() not in own - {""}:
            raise CSRFRefused("A page of another origin may not do this.")
