"""The API as commands call it: by HTTP on a gateway elsewhere, or in this process on the store of this machine.

Both ways lead through the one table of routes (`control/rest/table.py`), so that a command does the same and answers
the same wherever it is run. Which way is decided by `--api` or `$KT_API_URL`; by HTTP it wants an access key, in
`$KT_ACCESS_KEY`, which never stands on a command line, where others could see it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlencode, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

import click
import msgspec
import orjson

from gateway.commands.actor import user
from gateway.commands.output import EXIT_USAGE, fail
from gateway.folders import run_folder, state_folder, store_url

SECONDS: Final = 30.0
MAX_ANSWER_BYTES: Final = 64 << 20
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")

Command = TypeVar("Command", bound=Callable[..., Any])


class Calls(Protocol):
    """What a command calls. `name` is a route's; what goes wrong ends the process with its message."""

    def __call__(
        self,
        name: str,
        parts: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, Any] | None = None,
    ) -> Any:
        """The answer, as JSON values."""


def options(command: Command) -> Command:
    """What every command takes that calls the API."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print JSON."),
        click.option(
            "--api",
            metavar="URL",
            envvar="KT_API_URL",
            help="A gateway elsewhere; its access key is in $KT_ACCESS_KEY.  [default: $KT_API_URL, else this machine]",
        ),
        click.option("--store", metavar="URL", help="This machine's store.  [default: $KT_STORE_URL, else a file]"),
    ):
        command = option(command)
    return command


def chosen(api: str | None, store: str | None) -> Calls:
    """The way that the options name. Leaves the process where they contradict each other or a key is missing."""
    if api is None:
        return Here(store or store_url(state_folder()))
    if store is not None:
        fail("--api and --store name two places; leave one out (KT_API_URL counts as --api)", code=EXIT_USAGE)
    key = os.environ.get("KT_ACCESS_KEY", "")
    if not key:
        fail("set KT_ACCESS_KEY to an access key of that gateway (console, Your account)", code=EXIT_USAGE)
    return Elsewhere(api, key)


class _NoRedirect(HTTPRedirectHandler):
    """An access key goes where it was meant to go, and nowhere else."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


class Elsewhere:
    """The API of a gateway at `url`."""

    def __init__(self, url: str, key: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("https", "http") or not parts.hostname:
            fail(f"{url!r} is no URL of a gateway; write https://host", code=EXIT_USAGE)
        if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
            fail("an access key is not sent in clear text; use https", code=EXIT_USAGE)
        self._base = url.rstrip("/").removesuffix("/api/v1") + "/api/v1"
        self._key = key
        self._opener = build_opener(_NoRedirect)

    def __call__(
        self,
        name: str,
        parts: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, Any] | None = None,
    ) -> Any:
        """The answer, as JSON values."""
        from gateway.control.rest.table import ROUTES

        route = next(route for route in ROUTES if route.name == name)
        path = route.path.format_map({part: quote(value, safe="") for part, value in (parts or {}).items()})
        given = {field: _text(value) for field, value in (query or {}).items() if value is not None}
        request = Request(  # noqa: S310 (the scheme was looked at)
            f"{self._base}{path}{'?' if given else ''}{urlencode(given)}",
            method=route.method,
            data=None if body is None else orjson.dumps(body),
            headers={"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"},
        )
        try:
            with self._opener.open(request, timeout=SECONDS) as answer:
                content = answer.read(MAX_ANSWER_BYTES)
                return orjson.loads(content) if content else None
        except HTTPError as error:
            fail(_message(error))
        except (URLError, TimeoutError, OSError, orjson.JSONDecodeError) as error:
            fail(f"{self._base} cannot be reached: {getattr(error, 'reason', error)}")


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _message(error: HTTPError) -> str:
    """What the gateway says, or the status where it is no gateway that answers."""
    try:
        told = orjson.loads(error.read(MAX_ANSWER_BYTES))["error"]
        return _with_param(told["message"], told.get("param"))
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return f"{error.url} answers {error.code}; is that a gateway?"


def _with_param(message: str, param: str | None) -> str:
    return f"{message} ({param})" if param else message


class Here:
    """The API in this process, on a store. Whoever runs the command may do what an owner may: the store is theirs."""

    def __init__(self, url: str) -> None:
        self._url = url

    def __call__(
        self,
        name: str,
        parts: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, Any] | None = None,
    ) -> Any:
        """The answer, as JSON values."""
        from gateway.control.store.errors import StoreError
        from gateway.errors import GatewayError

        try:
            return asyncio.run(self._answer(name, parts or {}, body or {}, query or {}))
        except StoreError as error:
            fail(str(error))
        except GatewayError as error:
            fail(_with_param(error.message, error.param))
        except msgspec.ValidationError as error:
            fail(str(error), code=EXIT_USAGE)

    async def _answer(
        self, name: str, parts: Mapping[str, str], body: Mapping[str, Any], query: Mapping[str, Any]
    ) -> Any:
        from gateway.control.api import plane_of
        from gateway.control.identity.principal import Principal, Via
        from gateway.control.identity.roles import Role
        from gateway.control.rest.call import Call
        from gateway.control.rest.table import ROUTES
        from gateway.control.store.store import Store

        route = next(route for route in ROUTES if route.name == name)
        store = await Store.open(self._url, create=True)
        plane = plane_of(_Source(_some_run_folder(), store))
        try:
            me = Principal(via=Via.COMMAND_LINE, role=Role.OWNER, machine_user=user() or "unknown")
            call = Call(plane, me, parts, None)
            given = {field: value for field, value in query.items() if value is not None}
            call.query = msgspec.convert(given, route.query) if route.query is not None else None
            call.body = msgspec.convert(body, route.body) if route.body is not None else None
            return msgspec.to_builtins(await route.handler(call))
        finally:
            plane.passwords.close()
            await store.close()


def new_setup_link(store: str | None) -> str | None:
    """A new set-up link for a store of this machine, or None where there are users. Leaves the process when the store
    refuses."""
    from gateway.control.settings import InForce
    from gateway.control.setup_link import new_link
    from gateway.control.store.errors import StoreError
    from gateway.control.store.store import Store

    async def make() -> str | None:
        opened = await Store.open(store or store_url(state_folder()), create=True)
        try:
            return await new_link(opened, InForce(_some_run_folder()).settings.base_url)
        finally:
            await opened.close()

    try:
        return asyncio.run(make())
    except StoreError as error:
        fail(str(error))


class _Source:
    """A control process that is none: there is only its store."""

    def __init__(self, run_folder: Path, store: Any) -> None:
        self.run_folder = run_folder
        self._store = store

    def status(self, now: float) -> dict[str, Any]:
        """Nothing is known of workers at this time."""
        return {"at": now}

    def store(self) -> Any:
        """The store."""
        return self._store


def _some_run_folder() -> Path:
    """The run folder of the gateway that was started last, for what its configuration says of links."""
    state = state_folder()
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = sorted(state.glob("run-*/configuration.json"), key=lambda path: path.stat().st_mtime)
    return found[-1].parent if found else run_folder(state, 41002)
