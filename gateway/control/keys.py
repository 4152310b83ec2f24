"""What a gateway key looks like, how it is made, and what is kept of it.

    kt_gk_ 7Yb2…32 random base62 characters… 0aB3xZ
    prefix random part                       checksum

The checksum is the CRC-32 of all characters before it, in base62 (digits, upper case, lower case, in this order), six
digits with leading zeros. It lets a scanner of source code or logs tell a leaked key from any other text without
asking anybody. It is no protection: whoever makes keys up can compute it. docs/gateway-keys.md shows how to check it.

Of a key only its hash and its first twelve characters are kept. The hash is plain SHA-256, fast and without salt, on
purpose: slow hashes protect secrets that people choose; 32 random characters have 190 bits of entropy, which no speed
of guessing reaches, and a slow hash in front of every request would be a gift to an attacker.
"""

from __future__ import annotations

import enum
import hashlib
import re
import secrets
from typing import Final
from zlib import crc32

from gateway.secrets import Secret
from gateway.types import GatewayKey

PREFIX: Final = "kt_gk_"
RANDOM_LENGTH: Final = 32
CHECKSUM_LENGTH: Final = 6
KEY_LENGTH: Final = len(PREFIX) + RANDOM_LENGTH + CHECKSUM_LENGTH
SHOWN_LENGTH: Final = len(PREFIX) + 6
"""Characters by which people recognise a key; they leave 26 unknown ones, 154 bits."""

ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

_PREFIX_BYTES = PREFIX.encode()
_BODY_LENGTH = len(PREFIX) + RANDOM_LENGTH
# Two digits at a time: 0.5 µs a checksum, half of what digit by digit takes.
_PAIRS = [(high + low).encode() for high in ALPHABET for low in ALPHABET]
_IN_TEXT = re.compile(r"(?<![0-9A-Za-z_])kt_gk_[0-9A-Za-z]{38}(?![0-9A-Za-z])")
_DURATION = re.compile(r"([1-9][0-9]{0,9})(s|m|h|d|w|y)")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400, "y": 365 * 86_400}
_LONGEST = 100 * _UNITS["y"]


class KeyState(enum.StrEnum):
    """What a key is good for at some moment."""

    ACTIVE = "active"
    EXPIRED = "expired"
    REVOKED = "revoked"


def generate() -> Secret:
    """A new key. To be shown once; whoever keeps it keeps `hash_key` and `shown_prefix` of it."""
    body = PREFIX + "".join(secrets.choice(ALPHABET) for _ in range(RANDOM_LENGTH))
    return Secret(body + checksum(body.encode()).decode())


def checksum_ok(key: bytes | str) -> bool:
    """Whether this is a gateway key that was copied whole: length, alphabet and checksum. Says nothing of its worth.

    1.3 µs; a request does without it, since the look-up of its hash says more.
    """
    if isinstance(key, str):
        if not key.isascii():
            return False
        key = key.encode()
    return (
        len(key) == KEY_LENGTH
        and key.startswith(_PREFIX_BYTES)
        and key[len(PREFIX) :].isalnum()
        and key[_BODY_LENGTH:] == checksum(key[:_BODY_LENGTH])
    )


def found_in(text: str, limit: int = 100) -> list[str]:
    """The whole gateway keys that stand in a text, each once, in order; `limit` at the most."""
    return [one for one in dict.fromkeys(_IN_TEXT.findall(text)) if checksum_ok(one)][:limit]


def hash_key(key: bytes) -> bytes:
    """What is kept and looked up in place of the key: 32 bytes."""
    return hashlib.sha256(key).digest()


def shown_prefix(key: str) -> str:
    """The beginning of a key, by which people recognise it. Any other text is given back as it is."""
    return key[:SHOWN_LENGTH] if key.startswith(PREFIX) else key


def state_of(key: GatewayKey, now: float) -> KeyState:
    """The state of a key at `now` (Unix seconds). Revoked wins over expired: someone meant it."""
    if key.revoked_at is not None and key.revoked_at <= now:
        return KeyState.REVOKED
    if key.expires_at is not None and key.expires_at <= now:
        return KeyState.EXPIRED
    return KeyState.ACTIVE


def parse_duration(text: str) -> int:
    """Seconds of `30s`, `15m`, `12h`, `90d`, `2w` or `1y` (365 days). Raises ValueError with what is understood."""
    match = _DURATION.fullmatch(text.strip().lower())
    if match is None:
        raise ValueError(f"{text!r} is not a duration; write a number and its unit, as in 30s, 15m, 12h, 90d, 2w or 1y")
    seconds = int(match[1]) * _UNITS[match[2]]
    if seconds > _LONGEST:
        raise ValueError(f"{text!r} is too long; the most is 100y")
    return seconds


def checksum(body: bytes) -> bytes:
    """The last six characters of a key that begins with `body`."""
    rest, low = divmod(crc32(body), 3844)
    high, middle = divmod(rest, 3844)
    return _PAIRS[high] + _PAIRS[middle] + _PAIRS[low]
