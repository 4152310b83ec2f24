"""Phase one of an exchange: who asks, and under which configuration.

A gateway key is taken from the header that the client's SDK uses, hashed, and looked up in memory. All bad keys are
refused alike; only a key that proved genuine hears that it has expired or was revoked.
"""

from __future__ import annotations

import hashlib
from typing import Final

from gateway.config.schema import AuthMode
from gateway.downstream.head import RequestHead
from gateway.errors import ForbiddenOrigin, InvalidAPIKey
from gateway.http1 import header_lines
from gateway.snapshot import Binding, Snapshot
from gateway.types import KEY_PREFIX

_HEADERS: Final = (b"authorization", b"api-key", b"x-api-key")
_LOOPBACK: Final = frozenset((b"localhost", b"127.0.0.1", b"[::1]"))


def authenticate(request: RequestHead, snapshot: Snapshot, mode: AuthMode, now: float) -> Binding:
    """The binding of a request. `now` is Unix time in seconds. Raises InvalidAPIKey or ForbiddenOrigin. 0.9 µs."""
    digest = request.credential
    if digest is None:
        found = _credential(request)
        if found is None:
            return _without_key(request, snapshot, mode)
        name, token = found
        if not token.startswith(KEY_PREFIX):
            if mode is AuthMode.PASSTHROUGH:
                return Binding(None, snapshot.default, credential=_passed_through(request, name))
            raise _invalid("unknown")
        # The head remembers its key's hash: the same head often serves the next request of its connection.
        digest = request.credential = hashlib.sha256(token).digest()
    binding = snapshot.bindings.get(digest) or snapshot.bind(digest)
    if binding is None:
        raise _invalid("unknown")
    key = binding.key
    assert key is not None
    if key.revoked_at is not None and key.revoked_at <= now:
        raise _invalid("revoked", "This gateway key was revoked; ask its owner for a new one.")
    if binding.expires_at <= now:
        raise _invalid("expired", "This gateway key has expired; create or rotate one with `kt gateway-key`.")
    return binding


def _credential(request: RequestHead) -> tuple[bytes, bytes] | None:
    """Header and token; a gateway key wins over any other credential beside it."""
    found = None
    for name in _HEADERS:
        value = request.own.get(name)
        if value is None:
            continue
        if name == b"authorization":
            scheme, _, value = value.partition(b" ")
            if scheme.lower() != b"bearer":
                continue
            value = value.strip(b" ")
        if value.startswith(KEY_PREFIX):
            return name, value
        found = found or (name, value)
    return found


def _passed_through(request: RequestHead, name: bytes) -> bytes:
    """The client's own credential for the provider, as header lines."""
    names = (name, b"openai-organization", b"openai-project")
    return header_lines((field, request.own[field]) for field in names if field in request.own)


def _without_key(request: RequestHead, snapshot: Snapshot, mode: AuthMode) -> Binding:
    """On a loopback address, and only from it, a request without a key is served under the default configuration.

    The Host and Origin rules keep out a web page that makes a browser on the same machine send requests (DNS
    rebinding and cross-site requests).
    """
    if mode is not AuthMode.AUTO:
        raise _invalid("missing", "No gateway key: send one as `Authorization: Bearer kt_gk_…`.")
    _check_origin(request)
    return snapshot.anonymous


def _check_origin(request: RequestHead) -> None:
    """Only what was sent on this machine, by no page of another origin, and was passed on by no proxy: whoever a proxy
    speaks for is not this machine's own user, wherever the proxy runs."""
    if b"x-forwarded-for" in request.own or b"forwarded" in request.own:
        raise ForbiddenOrigin
    if _host(request.own.get(b"host", b"")) not in _LOOPBACK:
        raise ForbiddenOrigin
    origin = request.own.get(b"origin")
    if origin is not None and _host(origin.partition(b"://")[2]) not in _LOOPBACK:
        raise ForbiddenOrigin


def is_local(request: RequestHead, peer: str) -> bool:
    """Whether a request is this machine's own user's: from a loopback address, by no other origin's page, no proxy."""
    if not (peer.startswith("127.") or peer == "::1"):
        return False
    try:
        _check_origin(request)
    except ForbiddenOrigin:
        return False
    return True


def _host(authority: bytes) -> bytes:
    """The host of an authority, without its port, in lower case."""
    if authority.startswith(b"["):
        return authority.partition(b"]")[0].lower() + b"]"
    return authority.partition(b":")[0].lower()


def _invalid(
    reason: str, message: str = "Invalid gateway key. Create one with `kt gateway-key create`."
) -> InvalidAPIKey:
    error = InvalidAPIKey(message)
    error.reason = reason
    return error
