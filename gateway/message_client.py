"""A client of an exchange that is a WebSocket: the answer's events, or the answer whole, become messages.

One of these stands for one answer. Of a stream each event is a message, its end mark `[DONE]` too; an answer that is no
stream is one message; an error is `{"type": "error", "status": …, "error": {…}}`, whoever made it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import orjson

from gateway.errors import GatewayError, UpstreamReset, Wire, envelope
from gateway.sse import FrameSplitter, data_of

_EVENT_STREAM: Final = b"content-type: text/event-stream"


class MessageClient:
    """The client's side of one exchange (`ports.Client`)."""

    takes_chunks = False

    def __init__(self, peer: str, send: Callable[[bytes], None], done: Callable[[], None]) -> None:
        """`send` takes one message; `done` is called once, when there will be no more."""
        self.peer = peer
        self._send = send
        self._done = done
        self._splitter: FrameSplitter | None = None
        self._status = 200
        self._pieces: list[bytes] = []
        self._over = False
        self._told = False

    def begin(
        self, status: int, fields: bytes, *, length: int | None, data: bytes, end: bool, raw: bool, reason: bytes = b""
    ) -> None:
        """The answer begins."""
        self._status = status
        if _EVENT_STREAM in fields.lower():  # a provider's own spelling of the name may have been passed on
            self._splitter = FrameSplitter()
        self.send(data, end=end, raw=raw)

    def send(self, data: bytes, *, end: bool, raw: bool) -> None:
        """More of the answer."""
        if self._splitter is None:
            self._pieces.append(data)
            if end:
                body = b"".join(self._pieces)
                self._say(body if self._status < 400 else as_error(body, self._status))
        else:
            for frame in self._splitter.feed(data):
                event = data_of(frame)
                if event is not None:
                    self._say(as_error(event, None) if event.startswith(b'{"error"') else event)
        if end:
            self._end()

    @property
    def write(self) -> Callable[[bytes], None]:
        """Never used, since this client takes no chunks."""
        return lambda data: self.send(data, end=False, raw=False)

    def reply(self, status: int, fields: bytes, body: bytes) -> None:
        """A whole answer."""
        self.begin(status, fields, length=len(body), data=body, end=True, raw=False)

    def refuse(self, error: GatewayError, request_id: str = "", wire: Wire = Wire.OPENAI, fields: bytes = b"") -> None:
        """The whole answer is an error."""
        self._say(as_error(envelope(error, request_id), error.status))
        self._end()

    def abort(self) -> None:
        """The answer cannot be completed. Over HTTP the closed connection tells that, here an error does."""
        if not self._told:
            error = UpstreamReset("The answer broke off.")
            self._say(as_error(envelope(error, ""), error.status))
        self._end()

    def _say(self, message: bytes) -> None:
        self._told = self._told or message.startswith(b'{"type":"error"')
        self._send(message)

    def _end(self) -> None:
        if not self._over:
            self._over = True
            self._done()


def as_error(body: bytes, status: int | None) -> bytes:
    """An error's JSON as a message, whatever shape the provider gave it."""
    try:
        tree: Any = orjson.loads(body)
    except orjson.JSONDecodeError:
        tree = None
    fault = tree.get("error") if isinstance(tree, dict) else None
    if not isinstance(fault, dict):
        message = fault if isinstance(fault, str) else body.decode("utf-8", "replace")[:1024]
        fault = {"message": message, "type": "api_error", "param": None, "code": None}
    named = {} if status is None else {"status": status}
    return orjson.dumps({"type": "error", **named, "error": fault})
