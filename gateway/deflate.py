"""permessage-deflate (RFC 7692): what is agreed on in the handshake, and the two directions of it. No I/O.

Both directions are agreed on without context takeover, always: each message is compressed by itself. So an idle socket
holds no window (a compressor is 268 KB, and 1,000 idle sockets are to cost 30 KB each), a message that one side has
compressed can be forwarded to the other as it is, whatever came before it, and no text of one message can be guessed
from the length of another. It costs some compression where messages are small and alike.

Nothing is ever inflated beyond the bound that the caller gives.
"""

from __future__ import annotations

import re
import zlib
from typing import Final

from wsproto.extensions import Extension

FULL_WINDOW: Final = 15
"""Bits of zlib's largest window, and of what RFC 7692 takes when nothing is said."""
SMALLEST_WINDOW: Final = 9
"""RFC 7692 allows 8, which zlib cannot compress for without a header: such an offer is declined."""
_MAX_STREAMS: Final = 8
"""DEFLATE streams that one message may consist of. A sender may end one in the middle (section 7.2.3.4); beginning
anew costs up to 10 µs, so a message made of nothing else would hold up all others."""
_TAIL: Final = b"\x00\x00\xff\xff"
_PARAMETER: Final = re.compile(r'([a-z_]+)(?:[ \t]*=[ \t]*(?:"([0-9]+)"|([0-9]+)))?')
_TAKEN: Final = ("server_no_context_takeover", "client_no_context_takeover")


class Broken(ValueError):
    """What should be DEFLATE data is not."""


class TooLarge(ValueError):
    """The data would inflate beyond the bound."""


class Deflate(Extension):
    """One handshake's side of the negotiation, as wsproto asks for it. `agreed` says how it ended.

    `window_bits` bounds what the peer of a server can read back to; a server's own messages keep to it.
    """

    name = "permessage-deflate"

    def __init__(self) -> None:
        self.agreed = False
        self.window_bits = FULL_WINDOW

    def enabled(self) -> bool:
        return self.agreed

    def offer(self) -> str:
        """A client's offer. It leaves the server no choice but that of the whole, so any answer to it is alike."""
        return "; ".join(_TAKEN)

    def accept(self, offer: str) -> str | None:
        """A server's answer to one offer; None declines it. Of several that could be taken, the first is."""
        parameters = _parse(offer)
        if self.agreed or parameters is None:
            return None
        bits = parameters.get("server_max_window_bits", str(FULL_WINDOW))
        if not bits or int(bits) < SMALLEST_WINDOW:
            return None
        self.agreed = True
        self.window_bits = int(bits)
        answer = list(_TAKEN)
        if "server_max_window_bits" in parameters:
            answer.append(f"server_max_window_bits={bits}")
        return "; ".join(answer)

    def finalize(self, offer: str) -> None:
        """A server's answer to our offer. Raises ValueError where it is none."""
        parameters = _parse(offer)
        # A bound on the client's window was not offered, so it cannot be asked for; the server's own may be anything.
        if parameters is None or self.agreed or "client_max_window_bits" in parameters:
            raise ValueError("the server answers what was not offered")
        if "server_no_context_takeover" not in parameters:
            raise ValueError("the server ignores a parameter of the offer that it takes")
        if parameters.get("server_max_window_bits") == "":
            raise ValueError("the server gives a parameter without its value")
        self.agreed = True


def _parse(offer: str) -> dict[str, str] | None:
    """The parameters of an offer or an answer, "" for one without a value; None: they must be declined (section 7)."""
    found: dict[str, str] = {}
    for part in offer.split(";")[1:]:
        match = _PARAMETER.fullmatch(part.strip(" \t"))
        if match is None or match[1] in found:
            return None
        name, value = match[1], match[2] or match[3] or ""
        if name.endswith("_no_context_takeover"):
            known = name in _TAKEN and not value
        else:
            known = name in ("server_max_window_bits", "client_max_window_bits") and (
                not value or (not value.startswith("0") and len(value) <= 2 and 8 <= int(value) <= FULL_WINDOW)
            )
        if not known:
            return None
        found[name] = value
    return found


def compress(payload: bytes, window_bits: int = FULL_WINDOW) -> bytes:
    """A message's payload as the extension sends it (section 7.2.1). 57 µs for 4 KB of JSON, 344 for 64 KB.

    At zlib's lowest level: its usual one takes 1,882 µs for those 64 KB and makes 10 KB of them instead of 13.
    """
    compressor = zlib.compressobj(1, wbits=-window_bits)
    return (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH))[: -len(_TAIL)]


def inflate(payload: bytes, limit: int) -> bytes:
    """The payload of a compressed message (section 7.2.2). Raises Broken or TooLarge. 8 µs for 4 KB of JSON."""
    rest = payload + _TAIL
    inflated = b""
    for _ in range(_MAX_STREAMS):
        # A stream that begins within a message may refer to what came before it there.
        stream = zlib.decompressobj(-FULL_WINDOW, zdict=inflated[-32768:])
        try:
            piece = stream.decompress(rest, limit + 1 - len(inflated))
        except zlib.error as error:
            raise Broken(str(error)) from None
        inflated = inflated + piece if inflated else piece
        if len(inflated) > limit:
            raise TooLarge(f"more than {limit} bytes")
        if not stream.eof:
            return inflated
        rest = stream.unused_data
    raise Broken("too many streams in one message")
