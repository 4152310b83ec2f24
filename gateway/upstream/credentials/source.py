"""What a credential is, where it may come from, and the little of the world that a source sees.

A `Source` is a value: two targets with equal sources share one credential, across configurations too. Nothing that a
source or a credential holds can be printed, and a `CredentialError` quotes no answer of a token endpoint, since that
may hold a secret.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar
from urllib.parse import urlsplit

import msgspec
import orjson

from gateway.errors import GatewayError
from gateway.ports import Pool
from gateway.types import Destination, Origin, PoolSettings, Timeouts
from gateway.upcall import Upcall
from translators.sigv4 import AwsCredentials

CALL_SECONDS: Final = 10.0
"""For one call to a token endpoint, connection included."""
METADATA_SECONDS: Final = 3.0
"""For one call to a machine's own metadata service: it is near, or it is not there at all."""

_POOL: Final = PoolSettings(max_connections=4, max_idle=1, keepalive_seconds=5.0)
_MAX_FILE_BYTES: Final = 256 * 1024
_MAX_WORD: Final = 80

Result = TypeVar("Result")


class CredentialError(Exception):
    """There is no credential, and why, in words for the operator."""


class Credential(msgspec.Struct, frozen=True):
    """A bearer token, or a key that signs. `expires_at` is in Unix seconds; None: not known to end, so looked at anew
    now and then."""

    value: str | AwsCredentials
    expires_at: float | None = None

    def __repr__(self) -> str:
        return f"<Credential until {self.expires_at}>"

    __str__ = __repr__


class Source(msgspec.Struct, frozen=True):
    """Where a credential comes from. Equal sources give the same credential."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    __str__ = __repr__

    @property
    def name(self) -> str:
        """For logs and metrics: a fixed word for each kind of source."""
        raise NotImplementedError

    async def fetch(self, machine: Machine) -> Credential:
        """A credential. Raises CredentialError, or GatewayError where the network failed."""
        raise NotImplementedError


class Answer(msgspec.Struct, frozen=True):
    """What a token endpoint answered."""

    status: int
    body: bytes

    def text(self, what: str) -> str:
        """The body of a good answer. Raises CredentialError."""
        if self.status // 100 != 2:
            raise CredentialError(f"{what} answered {self.status}{self._reason()}")
        return self.body.decode("utf-8", "replace").strip()

    def json(self, what: str) -> dict[str, Any]:
        """The same as a JSON object."""
        self.text(what)
        try:
            tree = orjson.loads(self.body)
        except orjson.JSONDecodeError:
            tree = None
        if not isinstance(tree, dict):
            raise CredentialError(f"{what} answered something that is not a JSON object")
        return tree

    def _reason(self) -> str:
        """An error's short name (`invalid_grant`, RFC 6749, section 5.2), which holds no secret."""
        try:
            reason = orjson.loads(self.body)["error"]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            return ""
        short = isinstance(reason, str) and len(reason) < _MAX_WORD and reason.replace("_", "").isalnum()
        return f" ({reason})" if short else ""


class Caller(Protocol):
    """Sends one request; `Machine.ask`."""

    async def __call__(
        self,
        method: str,
        url: str,
        *,
        headers: tuple[tuple[str, str], ...] = (),
        body: bytes = b"",
        seconds: float = CALL_SECONDS,
    ) -> Answer: ...


class Machine:
    """Calls over the gateway's own pools (so through `HTTPS_PROXY`, with its checks of certificates), files and slow
    work in a thread, and the time."""

    def __init__(self, loop: asyncio.AbstractEventLoop, pool: Pool, wall: Callable[[], float]) -> None:
        """`wall` gives Unix seconds."""
        self._loop = loop
        self._pool = pool
        self.wall = wall

    async def ask(
        self,
        method: str,
        url: str,
        *,
        headers: tuple[tuple[str, str], ...] = (),
        body: bytes = b"",
        seconds: float = CALL_SECONDS,
    ) -> Answer:
        """One request and its whole answer. Raises GatewayError; never retries."""
        destination, host, path = _address(url, seconds)
        fields = {"host": host, "accept": "application/json", "accept-encoding": "identity", **dict(headers)}
        lines = "".join([f"{name}: {value}\r\n" for name, value in fields.items()])
        answered: asyncio.Future[Answer] = self._loop.create_future()

        def then(status: int, body: bytes) -> None:
            if not answered.done():
                answered.set_result(Answer(status, body))

        def failed(error: GatewayError) -> None:
            if not answered.done():
                answered.set_exception(error)

        head = f"{method} {path} HTTP/1.1\r\n{lines}".encode("latin-1")
        call = Upcall(self._loop, self._pool, destination, head, body, seconds=seconds, then=then, failed=failed)
        try:
            return await answered
        finally:
            call.cancel()

    async def sleep(self, seconds: float) -> None:
        """Let time pass."""
        await asyncio.sleep(seconds)

    async def read(self, path: str) -> str:
        """A small text file, without white space around it. Raises CredentialError."""
        return await self.run(lambda: read_text(path))

    async def run(self, work: Callable[[], Result]) -> Result:
        """Do what may take long in a thread."""
        return await self._loop.run_in_executor(None, work)


def read_text(path: str) -> str:
    """A small text file, without white space around it. Blocks. Raises CredentialError."""
    try:
        with Path(path).expanduser().open("rb") as stream:
            return stream.read(_MAX_FILE_BYTES).decode().strip()
    except (OSError, UnicodeDecodeError, RuntimeError) as error:
        raise CredentialError(
            f"the file {path} cannot be read: {getattr(error, 'strerror', None) or 'not UTF-8'}"
        ) from None


def check_url(url: str, what: str, *, clear_hosts: tuple[str, ...] = ("127.0.0.1", "localhost", "::1")) -> str:
    """The URL itself, if a secret may be sent there: by https, or without leaving the machine.

    Raises CredentialError.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise CredentialError(f"{what} is not a URL") from None
    odd = not url.isascii() or not url.isprintable() or " " in url
    if odd or not host or not (parts.scheme == "https" or (parts.scheme == "http" and host in clear_hosts)):
        raise CredentialError(f"{what} must be an https URL")
    return url


def token_of(tree: dict[str, Any], what: str, now: float) -> Credential:
    """The token of an answer as OAuth gives it (RFC 6749, section 5.1); Azure writes its numbers as text."""
    token, seconds = tree.get("access_token"), tree.get("expires_in")
    try:
        lifetime = float(seconds)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        lifetime = 0.0
    if not isinstance(token, str) or not token or not (token.isascii() and token.isprintable()):
        raise CredentialError(f"{what} answered without a token")
    if lifetime <= 0:
        raise CredentialError(f"{what} answered with a token that has no time to live")
    return Credential(token, now + lifetime)


def _address(url: str, seconds: float) -> tuple[Destination, str, str]:
    parts = urlsplit(url)
    tls = parts.scheme == "https"
    usual = 443 if tls else 80
    name, port = parts.hostname or "", parts.port or usual
    shown = f"[{name}]" if ":" in name else name
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    destination = Destination(
        f"credentials {name}",
        Origin(name, port, tls=tls),
        _POOL,
        Timeouts(connect_seconds=seconds, first_byte_seconds=seconds),
    )
    return destination, shown if port == usual else f"{shown}:{port}", path
