"""One call of the API as its handler sees it, what handlers share, and what a route is."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec
from aiohttp import web

from gateway.control.configuration_keeper import ConfigurationKeeper
from gateway.control.events.service import Events
from gateway.control.identity.gatekeeper import Gatekeeper, origin_of
from gateway.control.identity.oidc import OIDCClient
from gateway.control.identity.passwords import Passwords
from gateway.control.identity.principal import Principal
from gateway.control.identity.roles import Permission
from gateway.control.identity.throttle import Throttle
from gateway.control.settings import InForce, Settings
from gateway.control.store.errors import StoreUnavailable
from gateway.control.store.store import Store
from gateway.control.store.trail import Actor
from gateway.errors import InvalidRequest, NotSignedIn, PermissionDenied

if TYPE_CHECKING:
    from gateway.control.rest.operations import Explainer


class Source(Protocol):
    """The control process, as far as the API needs it."""

    run_folder: Path

    def status(self, now: float) -> dict[str, Any]:
        """The state of the gateway at `now`, Unix seconds."""

    def store(self) -> Store | None:
        """The store; None while it cannot be used."""


@dataclass(slots=True)
class Plane:
    """What all calls share."""

    source: Source
    in_force: InForce
    gatekeeper: Gatekeeper
    passwords: Passwords
    throttle: Throttle
    oidc: OIDCClient
    keeper: ConfigurationKeeper
    explainer: Explainer
    events: Events
    clock: Callable[[], float]

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self.in_force.settings

    def store(self) -> Store:
        """The store. Raises StoreUnavailable while it cannot be used."""
        store = self.source.store()
        if store is None:
            raise StoreUnavailable("the store cannot be used right now")
        return store


MAX_PART: Final = 254
PART_PATTERN: Final = r"^[^\x00-\x1f\x7f]+$"
_PART: Final = re.compile(PART_PATTERN)
"""No control character: the rest is looked for, and found or not."""

PLANE: Final = web.AppKey("plane", Plane)


@dataclass(slots=True)
class Call:
    """One call. `body` and `query` are of the types that the route names; `parts` are those of the path.

    `http` is the request that it came with. The command line calls without one, in its own process; it does not sign
    in, watch, or change configurations, which are what a request is needed for.
    """

    plane: Plane
    principal: Principal | None
    parts: Mapping[str, str]
    address: str | None
    request_id: str | None = None
    http: web.Request | None = None
    body: Any = None
    query: Any = None

    @classmethod
    def of(cls, plane: Plane, request: web.Request, principal: Principal | None) -> Call:
        """The call that a request makes."""
        address = origin_of(request, plane.settings).address
        request_id = request.headers.get("x-request-id")
        return cls(plane, principal, request.match_info, address, request_id, request)

    @property
    def request(self) -> web.Request:
        """The request that it came with."""
        assert self.http is not None
        return self.http

    @property
    def client(self) -> str:
        """The client's address, for counting attempts and for the list of sessions."""
        return self.address or "local"

    @property
    def store(self) -> Store:
        """The store. Raises StoreUnavailable."""
        return self.plane.store()

    @property
    def me(self) -> Principal:
        """Who asks. Raises NotSignedIn where nobody does."""
        if self.principal is None:
            raise NotSignedIn
        return self.principal

    @property
    def my_id(self) -> str:
        """The id of the user who asks. Raises PermissionDenied for the machine's own user, who has no account."""
        if self.me.id is None:
            raise PermissionDenied("The API token belongs to no user; sign in, or use an access key.")
        return self.me.id

    @property
    def actor(self) -> Actor:
        """Who asks, for the trail of changes."""
        return self.acting(self.me.name, self.me.via.value, self.me.id)

    def acting(self, name: str, via: str, id: str | None = None) -> Actor:
        """Somebody who acts by this call."""
        return Actor(name, via, id, self.address, self.request_id)

    def may(self, permission: Permission) -> bool:
        """Whether who asks may do this."""
        return self.principal is not None and self.principal.may(permission)

    def require(self, permission: Permission, message: str = "") -> None:
        """Raises PermissionDenied."""
        if not self.may(permission):
            raise PermissionDenied(message or f"Your role does not allow it: it needs {permission}.")

    def part(self, name: str) -> str:
        """A part of the path. Raises InvalidRequest for what no database could look for."""
        text = self.parts[name]
        if len(text) > MAX_PART or not _PART.fullmatch(text):
            raise InvalidRequest(f"`{name}` in the path is no id and no name.", param=name)
        return text

    def number(self, name: str) -> int:
        """A part of the path that is a number. Raises InvalidRequest."""
        text = self.part(name)
        if not (text.isascii() and text.isdecimal() and len(text) <= 9):
            raise InvalidRequest(f"`{name}` is a number.", param=name)
        return int(text)

    def now(self) -> float:
        """Unix time in seconds."""
        return self.plane.clock()


Handling = Callable[[web.Request], Awaitable[web.StreamResponse]]
"""What aiohttp hands a middleware to go on with."""

Handler = Callable[[Call], Awaitable[object]]
"""Returns what the route's `answer` says, or a response that is ready."""


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """One route of the API.

    `needs`: one of these permissions; empty: nobody needs to sign in. `body`, `query` and `answer` are the types of
    what goes in and out. `max_bytes` bounds the body; where it is optional, its defaults are taken. `errors` are the
    statuses of errors beyond those that every route can answer. `endless`: the answer goes on for as long as the client
    listens, and has a bound of its own on how many listen.
    """

    name: str
    method: str
    path: str
    summary: str
    handler: Handler
    needs: frozenset[Permission] = frozenset()
    body: Any = None
    query: Any = None
    answer: Any = None
    status: int = 200
    tag: str = ""
    description: str = ""
    max_bytes: int = 65_536
    body_optional: bool = False
    endless: bool = False
    errors: tuple[int, ...] = ()
