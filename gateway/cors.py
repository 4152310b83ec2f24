"""Calls from web pages of other origins: what a browser wants to read before it lets a page see an answer.

https://fetch.spec.whatwg.org/#http-cors-protocol. A request without an Origin field pays nothing for it. Only the
OpenAI-compatible endpoint can be called so: the API and the console of the operator never. No cookie is involved, since
a page sends its gateway key itself, so credentials are not allowed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from gateway.errors import GatewayError, Wire

if TYPE_CHECKING:
    from gateway.downstream.head import RequestHead
    from gateway.downstream.http import Handler
    from gateway.ports import Client

_METHODS: Final = b"GET, HEAD, POST"
_EXPOSED: Final = (
    b"access-control-expose-headers: x-request-id, retry-after, retry-after-ms, x-should-retry, server-timing,"
    b" x-kt-translation-notes, x-ratelimit-limit-requests, x-ratelimit-limit-tokens, x-ratelimit-remaining-requests,"
    b" x-ratelimit-remaining-tokens, x-ratelimit-reset-requests, x-ratelimit-reset-tokens\r\n"
)
"""What a page may read of an answer besides its content type."""
_WISHES: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z, \t-]{1,2048}")
"""Names of fields (RFC 9110, section 5.6.2), separated by commas."""


class Origins:
    """Whose pages may call. `*` among them: everybody's."""

    __slots__ = ("_allowed", "_everyone", "_max_age")

    def __init__(self, allowed: Iterable[str], max_age_seconds: int) -> None:
        self._allowed = frozenset(origin.encode() for origin in allowed)
        self._everyone = b"*" in self._allowed
        self._max_age = max_age_seconds

    def lines(self, origin: bytes) -> bytes:
        """The fields that let a page of this origin read an answer, or what says that the answer depends on it."""
        if self._everyone:
            return b"access-control-allow-origin: *\r\n" + _EXPOSED
        if origin.lower() in self._allowed:
            return b"access-control-allow-origin: %b\r\nvary: origin\r\n%b" % (origin, _EXPOSED)
        return b"vary: origin\r\n"

    def preflight(self, head: RequestHead) -> bytes | None:
        """The fields that answer a browser's question whether a page may send a request; None: this is no such
        question, or the answer is no."""
        origin = head.own.get(b"origin")
        if head.method != b"OPTIONS" or origin is None or head.forwarded(b"access-control-request-method") is None:
            return None
        if not (self._everyone or origin.lower() in self._allowed):
            return None
        wishes = head.forwarded(b"access-control-request-headers")
        granted = b""
        if wishes is not None and _WISHES.fullmatch(wishes):
            granted = b"access-control-allow-headers: %b\r\n" % wishes
        return b"%baccess-control-allow-methods: %b\r\n%baccess-control-max-age: %d\r\n" % (
            self.lines(origin),
            _METHODS,
            granted,
            self._max_age,
        )


def origins(allowed: Iterable[str], max_age_seconds: int) -> Origins | None:
    """The rules, or None where no page of another origin may call."""
    lowered = [origin.lower() for origin in allowed]
    return Origins(lowered, max_age_seconds) if lowered else None


class CrossOriginClient:
    """A client whose answers carry these fields; everything else is the connection's."""

    __slots__ = ("_client", "_lines", "peer")

    def __init__(self, client: Client, lines: bytes) -> None:
        self._client = client
        self._lines = lines
        self.peer = client.peer

    def __repr__(self) -> str:
        return f"<CrossOriginClient of {self._client!r}>"

    @property
    def takes_chunks(self) -> bool:
        """As the connection."""
        return self._client.takes_chunks

    @property
    def write(self) -> Callable[[bytes], None]:
        """As the connection: the head has gone out by then."""
        return self._client.write

    def begin(
        self, status: int, fields: bytes, *, length: int | None, data: bytes, end: bool, raw: bool, reason: bytes = b""
    ) -> None:
        """As the connection, with the fields."""
        self._client.begin(status, fields + self._lines, length=length, data=data, end=end, raw=raw, reason=reason)

    def send(self, data: bytes, *, end: bool, raw: bool) -> None:
        """As the connection."""
        self._client.send(data, end=end, raw=raw)

    def reply(self, status: int, fields: bytes, body: bytes) -> None:
        """As the connection, with the fields."""
        self._client.reply(status, fields + self._lines, body)

    def refuse(self, error: GatewayError, request_id: str = "", wire: Wire = Wire.OPENAI, fields: bytes = b"") -> None:
        """As the connection, with the fields: a page must be able to read why it was refused."""
        self._client.refuse(error, request_id, wire, fields + self._lines)

    def answer_whole(self, fields: bytes, body: bytes) -> None:
        """As the connection, with the fields."""
        self._client.answer_whole(fields + self._lines, body)  # type: ignore[attr-defined]

    def hand_over(self, handler: Handler, successor: Handler) -> None:
        """As the connection."""
        self._client.hand_over(handler, successor)  # type: ignore[attr-defined]

    def abort(self) -> None:
        """As the connection."""
        self._client.abort()
