"""A secret that moves forward: who has today's cannot compute yesterday's.

Checkpoint `n` is authenticated by HMAC-SHA256 (RFC 2104) with key `n`; key `n + 1` is a hash of key `n`, which is then
overwritten. The first key is kept elsewhere, by whoever verifies, and every later one follows from it. This module
knows nothing of checkpoints but their numbers.
"""

from __future__ import annotations

import hmac
import os
import re
import secrets
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

_STEP = b"keeptrusts audit secret 1\n"
_TEXT = re.compile(r"kt-audit-secret 1 (\d{16}) ([0-9a-f]{64})\n")

MOST_STEPS = 1 << 24
"""So far a key is moved at once (10 s): a number beyond that is no crash's work."""


class Ratchet(NamedTuple):
    """Key `number` of the sequence, 32 bytes."""

    number: int
    key: bytes

    @classmethod
    def fresh(cls, number: int) -> Ratchet:
        """The first key of a new sequence, for checkpoint `number`."""
        return cls(number, secrets.token_bytes(32))

    @classmethod
    def parse(cls, text: str) -> Ratchet:
        """From its line of text. Raises ValueError."""
        match = _TEXT.fullmatch(text)
        if match is None:
            raise ValueError("not a secret of the audit log")
        return cls(int(match[1]), bytes.fromhex(match[2]))

    def __str__(self) -> str:
        # Always of the same length: it is overwritten in its place.
        return f"kt-audit-secret 1 {self.number:016d} {self.key.hex()}\n"

    def at(self, number: int) -> Ratchet:
        """The key for a number from this one on. Raises ValueError for one before, or far away."""
        if not 0 <= number - self.number <= MOST_STEPS:
            raise ValueError(f"the audit log's secret stands at {self.number} and cannot be moved to {number}")
        key = self.key
        for _ in range(number - self.number):
            key = sha256(_STEP + key).digest()
        return Ratchet(number, key)

    def authenticate(self, statement: bytes) -> bytes:
        """The 32 bytes that only who has this key can compute."""
        return hmac.digest(self.key, statement, "sha256")


def secret_path(key_path: Path) -> Path:
    """Where the moving secret lies: beside the signing key."""
    return key_path.with_suffix(".secret")


def read_ratchet(path: Path) -> Ratchet | None:
    """The secret as it stands; None where none was begun. Raises OSError and ValueError."""
    try:
        return Ratchet.parse(path.read_text("ascii"))
    except FileNotFoundError:
        return None


def begin_ratchet(path: Path, ratchet: Ratchet) -> None:
    """Write a first key, mode 0600. Raises FileExistsError where there is one already."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    _write(fd, ratchet)


def advance_ratchet(path: Path, ratchet: Ratchet) -> None:
    """Put a later key in the earlier one's place: the same bytes of the same file, so that no copy stays behind."""
    _write(os.open(path, os.O_WRONLY | os.O_CLOEXEC), ratchet)


def _write(fd: int, ratchet: Ratchet) -> None:
    try:
        os.pwrite(fd, str(ratchet).encode("ascii"), 0)
        os.fdatasync(fd)
    finally:
        os.close(fd)
