"""The mock provider's connection: no socket, no wait, the same surface as a real one.

`translators.mock` says what is answered; this delivers it as a provider would, the head first and one frame for each
turn of the event loop, so that pauses and cancels meet the same ends as elsewhere. A stream whose client asked for a
pace has a timer between two frames: that is how `kt doctor` sees whether a proxy on the way holds events back.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from gateway import surface
from gateway.errors import GatewayError, envelope
from gateway.http1 import ChunkWalker, header_lines
from gateway.types import Operation, ResponseHead
from gateway.upstream.connection import Listener
from translators.mock import MockAnswer, respond

MOCK_HOST: Final = "mock"
"""The host of the origin that stands for the mock provider."""


class MockConnection:
    """One request to the mock provider, and its answer."""

    __slots__ = (
        "_frames",
        "_gap",
        "_handle",
        "_head",
        "_listener",
        "_loop",
        "_paused",
        "lane",
        "request_sent",
        "served",
        "walker",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._listener: Listener | None = None
        self._head: ResponseHead | None = None
        self._frames: deque[bytes] = deque()
        self._gap = 0.0
        self._handle: asyncio.Handle | None = None
        self._paused = False
        self.request_sent = False
        self.served = 0
        self.walker: ChunkWalker | None = None
        self.lane: Callable[[bytes], bool] | None = None

    def __repr__(self) -> str:
        paused = ", reading paused" if self._paused else ""
        return f"<MockConnection {len(self._frames)} frames left{paused}>"

    def send(self, head: bytes, body: bytes, listener: Listener) -> None:
        """Take one request; its answer begins in the next turn of the loop."""
        answer = _answer(head, body)
        length = len(answer.frames[0]) if len(answer.frames) == 1 else None
        self.request_sent = True
        self._listener = listener
        self._head = ResponseHead(
            answer.status,
            b"",
            header_lines(answer.headers),
            dict(answer.headers).get(b"content-type", b""),
            content_length=length,
        )
        self._frames = deque(answer.frames)
        self._gap = answer.gap_seconds
        self._handle = self._loop.call_soon(self._deliver)

    def abort(self) -> None:
        """Drop the request; the listener hears no more."""
        self._listener = None
        self._frames.clear()
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def linger(self) -> None:
        """There is no connection to keep."""
        self.abort()

    def pause_reading(self) -> None:
        """Deliver nothing until `resume_reading`."""
        self._paused = True

    def resume_reading(self) -> None:
        """Deliver on."""
        self._paused = False
        self._schedule()

    def _schedule(self) -> None:
        if self._handle is None and not self._paused and self._listener is not None:
            gap = self._gap
            self._handle = self._loop.call_later(gap, self._deliver) if gap else self._loop.call_soon(self._deliver)

    def _deliver(self) -> None:
        self._handle = None
        listener = self._listener
        if self._paused or listener is None:
            return
        frame = self._frames.popleft()
        end = not self._frames
        if end:
            self._listener = None
        head, self._head = self._head, None
        if head is not None:
            listener.on_response_head(head, frame, end)
        else:
            listener.on_response_data(frame, end)
        self._schedule()


def _answer(head: bytes, body: bytes) -> MockAnswer:
    try:
        return respond(_operation(head), body)
    except GatewayError as error:
        # What a provider would answer, in OpenAI's shape.
        return MockAnswer(error.status, ((b"content-type", b"application/json"),), (envelope(error, ""),))


def _operation(head: bytes) -> Operation:
    """What is asked for: the gateway's own surface has the same paths as the mock provider."""
    method, _, rest = head.partition(b" ")
    path = rest.partition(b" ")[0].partition(b"?")[0]
    operation = surface.find(method, path).operation
    assert operation is not None
    return operation
