"""Answers that a provider compressed, though it was asked for `identity`, where somebody has to read them.

One decoder serves the whole answer, and each read gives at once all that it unfolds to, so a stream of events stays a
stream. Where nobody reads an answer it passes as it is, its Content-Encoding with it.
"""

from __future__ import annotations

import re
from typing import Final

from gateway.content_coding import FAULTS, Unfolding
from gateway.errors import UpstreamInvalid
from gateway.relay import Framing
from gateway.types import ResponseHead

MAX_UNFOLDED: Final = 4 * 1024 * 1024
"""Bytes that one read may unfold to; a read is 64 KB or so, and no answer of a model is that uniform."""

_FIELD: Final = re.compile(rb"\ncontent-encoding[ \t]*:[^\n]*(?=\n)", re.IGNORECASE)


class CodedFraming(Framing):
    """The framing of a body with a content coding: its payload is what the coding unfolds to."""

    __slots__ = ("_coding",)

    def __init__(self, framing: Framing, coding: Unfolding) -> None:
        super().__init__(framing.walker, False)
        self.passable = False
        self._coding = coding

    def payload(self, data: bytes) -> bytes:
        """The decoded payload of one read. Raises UpstreamInvalid."""
        pieces = []
        size = 0
        try:
            for piece in self._coding.feed(super().payload(data)):
                size += len(piece)
                if size > MAX_UNFOLDED:
                    raise UpstreamInvalid("The provider's compressed answer unfolds to more than can be read.")
                pieces.append(piece)
        except FAULTS:
            raise UpstreamInvalid("The provider's answer is not what its Content-Encoding says.") from None
        return b"".join(pieces)


def without_coding(head: ResponseHead) -> ResponseHead:
    """The head of the same answer once it is decoded: neither its coding nor its length."""
    raw = _FIELD.sub(b"", b"\n" + head.raw)[1:]
    return ResponseHead(head.status, head.reason, raw, head.media, head.chunked)
