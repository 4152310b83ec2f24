"""How much a text reads like an attack on a model's instructions: a linear model over hashed n-grams.

A text is folded (lower case, digits alike), cut into overlapping windows, and each window scored by a table of 65,536
weights of one byte: for each run of four and of six bytes, each word, each two and three words in a row. The score of
the text is that of its worst window, so that an attack hidden in a long text is not thinned out by what surrounds it.
What the score means, and which score is too much, is `prompt_injection.py`'s.

numpy does it: 4 KB take 0.1 ms, and several in a loop of Python (figures in docs/policies/prompt-injection.md). It is
imported with this module, and this module only when a chain contains the policy. The table is made by
`tests/policy/training`, from open data and texts written for the purpose.
"""

from __future__ import annotations

import functools
import lzma
import struct
from importlib import resources
from typing import Final

import numpy as np
from numpy.typing import NDArray

BITS: Final = 16
WINDOW = 192
"""Bytes of text that are scored together: one or two sentences."""
STRIDE = 96
SEGMENT = 24
"""Bytes that what stands between two marks must have to be scored by itself."""
CHUNK = 16_384
"""Bytes that are scored in one go; bounds the memory that a long text takes."""

_MIX = np.uint64(0x9E3779B97F4A7C15)
_SECOND = np.uint64(0xC2B2AE3D27D4EB4F)
_THIRD = np.uint64(0x165667B19E3779F9)
_SHIFT = np.uint64(64 - BITS)
_SIX = np.uint64(0xFFFFFFFFFFFF)
_SHORT_MIX = np.uint32(0x9E3779B1)
_SHORT_SHIFT = np.uint32(32 - BITS)
_BASE = 0x100000001B3


def _letters(keep: bool) -> bytes:
    """The fold of single bytes: to lower case, digits to `0`, control characters to spaces (a newline to 1); without
    `keep`, signs to spaces too."""
    table = bytearray(range(256))
    for byte in range(128):
        char = chr(byte)
        if char.isdigit():
            table[byte] = ord("0")
        elif char.isalpha():
            table[byte] = ord(char.lower())
        elif char == "\n" and keep:
            table[byte] = 1
        elif byte <= 32 or byte == 127 or not (keep or char == "'"):
            table[byte] = 32
    return bytes(table)


_FOLD = _letters(keep=True)
_WORDS = _letters(keep=False)
_MARKED = np.isin(np.arange(256), [ord(mark) for mark in '"<>`\x01'])


def _powers(base: int) -> NDArray[np.uint64]:
    powers = np.empty(CHUNK + 64, dtype=np.uint64)
    value = 1
    for number in range(len(powers)):
        powers[number] = value
        value = value * base & 0xFFFFFFFFFFFFFFFF
    return powers


_POWERS = _powers(_BASE)
_INVERSE = _powers(pow(_BASE, -1, 1 << 64))


class Features:
    """The n-grams of one chunk as indices into the table, and where they stand."""

    __slots__ = ("four", "length", "marks", "pairs", "six", "starts", "triples", "words")

    def __init__(self, data: bytes) -> None:
        """`data`: at most CHUNK bytes of UTF-8, in lower case but for ASCII."""
        folded = b" " + data.translate(_FOLD) + b"        "
        self.length = length = len(data) + 1
        self.four = (np.ndarray((length,), "<u4", folded, 0, (1,)) * _SHORT_MIX) >> _SHORT_SHIFT
        self.six = ((np.ndarray((length,), "<u8", folded, 0, (1,)) & _SIX) * _MIX) >> _SHIFT
        self.marks = _MARKED[np.frombuffer(folded, np.uint8)].nonzero()[0]
        plain = np.frombuffer(b" " + data.translate(_WORDS) + b" ", np.uint8)
        edges = np.flatnonzero((plain[1:] == 32) != (plain[:-1] == 32)) + 1
        starts, ends = edges[::2], edges[1::2]
        sums = np.cumsum(plain * _POWERS[: len(plain)])
        words = (sums[ends - 1] - sums[starts - 1]) * _INVERSE[starts]
        self.starts = starts
        self.words = (words * _MIX) >> _SHIFT
        pairs = words[:-1] * _SECOND + words[1:]
        self.pairs = (pairs * _MIX) >> _SHIFT
        triples = pairs[:-1] * _THIRD + words[2:]
        self.triples = (triples * _MIX) >> _SHIFT


def fold(text: str) -> bytes:
    """The bytes that are scored."""
    return (text if text.isascii() else text.casefold()).encode("utf-8", "replace")


def chunks(data: bytes) -> list[bytes]:
    """A text in pieces that overlap by a window."""
    if len(data) <= CHUNK:
        return [data]
    return [data[start : start + CHUNK] for start in range(0, len(data) - WINDOW, CHUNK - WINDOW)]


def spans(features: Features) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where the windows of a chunk begin, and where they end: at equal distances, and what stands between two marks,
    such as a comment, a value of JSON or a line."""
    starts = np.arange(0, max(1, features.length - STRIDE), STRIDE)
    ends = np.minimum(starts + WINDOW, features.length)
    marks = features.marks
    if len(marks) < 2:
        return starts, ends
    lengths = marks[1:] - marks[:-1]
    fit = (lengths >= SEGMENT) & (lengths <= WINDOW)
    return np.concatenate((starts, marks[:-1][fit])), np.concatenate((ends, marks[1:][fit]))


def size(length: int) -> float:
    """What the sum of a window is divided by: not its length, or a short attack would weigh as much as a long one."""
    return float((length + 40.0) ** 0.5)


_HEAD: Final = struct.Struct("<5d")


class Model:
    """The table, and the scores from which on a text counts as an attack. Immutable."""

    def __init__(
        self, table: NDArray[np.int8], scale: float, bias: float, thresholds: tuple[float, float, float]
    ) -> None:
        self.table = table
        self.scale = scale
        self.bias = bias
        self.thresholds = thresholds
        """For low, medium and high sensitivity."""

    def score(self, text: str) -> float:
        """The log odds of the worst window; below zero for most texts."""
        return max(self._worst(data) for data in chunks(fold(text)))

    def _worst(self, data: bytes) -> float:
        features, take = Features(data), self.table.take
        letters = np.zeros(features.length + 1, np.int32)
        np.cumsum(np.add(take(features.four), take(features.six), dtype=np.int16), out=letters[1:])
        each = take(features.words).astype(np.int16)
        each[:-1] += take(features.pairs)
        each[:-2] += take(features.triples)
        words = np.zeros(len(each) + 1, np.int32)
        np.cumsum(each, out=words[1:])
        starts, ends = spans(features)
        first, last = features.starts.searchsorted(starts), features.starts.searchsorted(ends)
        sums = letters[ends] - letters[starts] + words[last] - words[first]
        return float((sums / np.sqrt(ends - starts + 40.0)).max()) * self.scale + self.bias

    def dumped(self) -> bytes:
        """As it stands in the package."""
        head = _HEAD.pack(self.scale, self.bias, *self.thresholds)
        return lzma.compress(head + self.table.tobytes(), preset=9 | lzma.PRESET_EXTREME)


def read(data: bytes) -> Model:
    """What `dumped` wrote."""
    plain = lzma.decompress(data)
    scale, bias, low, medium, high = _HEAD.unpack_from(plain)
    table = np.frombuffer(plain, np.int8, offset=_HEAD.size)
    if len(table) != 1 << BITS:
        raise ValueError(f"the table has {len(table)} weights, not {1 << BITS}")
    return Model(table, scale, bias, (low, medium, high))


@functools.cache
def load() -> Model:
    """The model that ships with the package."""
    return read(resources.files("policy").joinpath("data/prompt_injection.xz").read_bytes())
