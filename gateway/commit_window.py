"""The beginning of a stream, held back so that a provider that dies in it can be replaced unseen.

Without it the first event commits the gateway to its provider: what breaks afterwards breaks for the client. With
`providers.fallback.commit_window` the first events wait until there are `events` of them, or until `seconds` have
passed since the first; an answer that ends sooner goes on at its end. What is held is bounded by `MAX_HELD`. It knows
frames, but no socket and no clock: the exchange has the timer.
"""

from __future__ import annotations

from typing import Final

from gateway.config.schema import CommitWindow as Settings
from gateway.sse import FrameSplitter, data_of
from translators.stream_errors import error_of

MAX_HELD: Final = 256 * 1024
"""Bytes of one stream that are held at most; more of them commit, however few events they are."""


class CommitWindow:
    """What one stream has said so far, in the client's format."""

    __slots__ = ("_events", "_held", "_settings", "_size", "_splitter")

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._splitter = FrameSplitter()
        self._held: list[bytes] = []
        self._events = 0
        self._size = 0

    @property
    def begun(self) -> bool:
        """Something is held, so that time counts."""
        return self._size > 0

    @property
    def seconds(self) -> float:
        """How long the first event waits at most."""
        return self._settings.seconds

    def take(self, payload: bytes) -> bool:
        """Hold some more of the stream; True when it has to go on now.

        Raises UpstreamStatus for an error event: as long as nothing has gone out, it is the answer's status.
        """
        if not payload:
            return False
        self._held.append(payload)
        self._size += len(payload)
        for frame in self._splitter.feed(payload):
            data = data_of(frame)
            if data is None:
                continue  # a comment, which says only that the provider is alive
            if (error := error_of(data)) is not None:
                raise error
            self._events += 1
        return self._events >= self._settings.events or self._size > MAX_HELD

    def release(self) -> bytes:
        """Everything that was held."""
        return b"".join(self._held)
