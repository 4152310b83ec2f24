"""Values that something was put into: a line break, Markdown's asterisks, an encoded character.

`GAP` and `ENCODED` are expressions for the chain's one scan; `joined` takes both out of a value and says where each
byte that is left came from. What the value is then, the policies know.
"""

from __future__ import annotations

import re
from typing import Final

GAP: Final = r"[ \t]?\r?\n[ \t]{0,8}|\*{1,3}|\\n"
"""A line break with an indent, one that is written as in JSON, or emphasis."""
ENCODED: Final = r"%[0-9A-Fa-f]{2}|\\u00[0-9A-Fa-f]{2}"
"""A character as URLs (RFC 3986, section 2.1) and JSON (RFC 8259, section 7) may have it."""

_SPLIT: Final = re.compile(rf"({GAP})|(?:%|\\u00)([0-9A-Fa-f]{{2}})".encode())


def joined(value: bytes) -> tuple[bytes, list[int]]:
    """The value without gaps and encodings, and for each of its bytes the end of what it stands for."""
    pieces = bytearray()
    ends: list[int] = []
    at = 0
    for split in _SPLIT.finditer(value):
        pieces += value[at : split.start()]
        ends += range(at + 1, split.start() + 1)
        if split[2]:
            pieces.append(int(split[2], 16))
            ends.append(split.end())
        at = split.end()
    pieces += value[at:]
    ends += range(at + 1, len(value) + 1)
    return bytes(pieces), ends
