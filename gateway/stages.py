"""Where the time of an exchange goes: each moment belongs to one stage, so that the stages sum to the whole.

An exchange's clock is set at each step: what has passed since the last one is the stage's that has just ended. What the
provider and the client take (`UPSTREAM`, `STREAM`, `REQUEST`) is thus told apart from what the gateway adds (all else).
Shown to clients as `Server-Timing` (https://www.w3.org/TR/server-timing/), summed up, as far as it is known when an
answer begins; in the finish record of the audit log; and as a histogram for each stage. A step costs 0.15 µs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

REQUEST: Final = 0
"""Waiting for the client's body, and decompressing it."""
ADMISSION: Final = 1
"""Key, configuration, body, limits."""
INPUT_POLICIES: Final = 2
TRANSLATION: Final = 3
"""Choosing the target and making its request."""
QUEUE: Final = 4
"""Waiting for a connection that others used."""
CONNECT: Final = 5
"""Waiting for a new connection."""
UPSTREAM: Final = 6
"""Waiting for the provider to begin its answer; of all attempts."""
FIRST_BYTE: Final = 7
"""From the answer's first read to the first byte for the client."""
STREAM: Final = 8
"""Waiting for more of the answer. A stream that passes untouched is not looked at more closely than that."""
RELAY: Final = 9
"""Work on what came of the answer: translation, guard, framing."""
OUTPUT_POLICIES: Final = 10
PAUSE: Final = 11
"""Between attempts."""

NAMES: Final = (
    "request",
    "admission",
    "input_policies",
    "translation",
    "queue",
    "connect",
    "upstream",
    "first_byte",
    "stream",
    "relay",
    "output_policies",
    "pause",
)
"""The stages by number, as metrics and records name them."""

NONE: Final = (0.0,) * len(NAMES)


def microseconds(seconds: Sequence[float]) -> dict[str, int]:
    """The stages that took any time, for a record."""
    return {name: round(value * 1e6) for name, value in zip(NAMES, seconds, strict=True) if value}


def server_timing(seconds: Sequence[float]) -> bytes:
    """What is known when an answer begins, as a header line, in milliseconds: the gateway itself, its policies, the
    wait for a connection, where there was one, and the provider. 1.2 µs."""
    waited = seconds[QUEUE] + seconds[CONNECT]
    return TIMING % (
        (seconds[ADMISSION] + seconds[TRANSLATION] + seconds[FIRST_BYTE] + seconds[RELAY]) * 1e3,
        (seconds[INPUT_POLICIES] + seconds[OUTPUT_POLICIES]) * 1e3,
        b"connection;dur=%.3f, " % (waited * 1e3) if waited else b"",
        seconds[UPSTREAM] * 1e3,
    )


TIMING: Final = b"server-timing: gateway;dur=%.3f, policies;dur=%.3f, %bupstream;dur=%.3f\r\n"
