"""Commitments: client addresses that the log proves and does not hold, so that a person can be erased from it.

Where a configuration asks for it, a start record has `~` and 32 hexadecimal digits in the place of the client's
address: HMAC-SHA-256 of the address under a random salt, cut to 128 bits. Address and salt stand apart from the log,
in the salts folder; whoever has both can open the commitment and check it. To erase a person is to forget their salts.
What is left in the log then is a number that nobody can tell from any other, and the chain still verifies, since no
record was touched. Each process has salts of its own, and new ones every day.

It is the writer thread that commits, just before records are chained: the event loop knows nothing of it. A salt is on
the disk before the first record that needs it. This module knows the form of a start record, and nothing of chains.
"""

from __future__ import annotations

import fcntl
import hmac
import os
import re
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from gateway.audit.layout import SECONDS_PER_DAY, date_of

SALT_BYTES: Final = 32
MAX_KNOWN: Final = 100_000
"""Addresses whose salt is kept in memory, 20 MB; whoever comes after so many gets a new one."""

_START: Final = b'{"kind":"start",'
# In JSON a quote within a text is escaped, so that nothing in a model's name can look like a field.
_FIELDS: Final = re.compile(rb'"configuration":("(?:[^"\\]|\\.)*").*?,"client":"([^"\\~]+)"')
_COMMITTED: Final = re.compile(rb'"client":"(~[0-9a-f]{32})"')
_NAME: Final = re.compile(r"(\d{4}-\d\d-\d\d)\.[0-9a-f]{16}\.jsonl")
_LOCK, _ERASED, _ASKING = "lock", "erased", "configurations"


class Salt(msgspec.Struct, frozen=True):
    """One person's salt, in hexadecimal digits."""

    person: str
    salt: str

    @property
    def commitment(self) -> str:
        """What stands in the log."""
        digest = hmac.digest(bytes.fromhex(self.salt), self.person.encode(), "sha256")
        return f"~{digest[:16].hex()}"


_decode = msgspec.json.Decoder(Salt).decode
_decode_ids = msgspec.json.Decoder(frozenset[str]).decode
_encode = msgspec.json.Encoder().encode


class Commitments:
    """One process's commitments. `configurations` are the ids of those that ask for it; any thread may set them.

    None: those that the workers have asked for, of whom one may have left records that it could not write any more.
    """

    def __init__(self, folder: Path, configurations: Iterable[str] | None = None) -> None:
        self.folder = folder
        self.configurations = None if configurations is None else frozenset(configurations)
        self._told: frozenset[str] = frozenset()
        self._id = secrets.token_hex(8)
        self._day = ""
        self._known: dict[bytes, bytes] = {}
        self._erased = 0

    def apply(self, records: Sequence[bytes], now: float) -> Sequence[bytes]:
        """The records with commitments in the place of addresses. Raises OSError where salts cannot be kept."""
        wanted = {_encode(one) for one in self._asking()}
        if not wanted:
            return records
        found = [
            match
            if record.startswith(_START) and (match := _FIELDS.search(record)) is not None and match[1] in wanted
            else None
            for record in records
        ]
        self._learn({match[2] for match in found if match is not None}, now)
        return [
            record if match is None else record[: match.start(2)] + self._known[match[2]] + record[match.end(2) :]
            for record, match in zip(records, found, strict=True)
        ]

    def _asking(self) -> frozenset[str]:
        configurations = self.configurations
        if configurations is None:
            try:
                return _decode_ids((self.folder / _ASKING).read_bytes())
            except FileNotFoundError:
                return self._told
        if configurations != self._told:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _replace(self.folder / _ASKING, _encode(sorted(configurations)))
            self._told = configurations
        return configurations

    def _learn(self, persons: set[bytes], now: float) -> None:
        """See to it that each of these has a salt."""
        day, erased = date_of(now), _erasures(self.folder)
        if day != self._day or erased != self._erased or len(self._known) > MAX_KNOWN:
            self._known.clear()
            self._day, self._erased = day, erased
        fresh = [Salt(one.decode(), secrets.token_hex(SALT_BYTES)) for one in persons if one not in self._known]
        if not fresh:
            return
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _locked(self.folder):
            _append(self.folder / f"{day}.{self._id}.jsonl", fresh)
        self._known.update({one.person.encode(): one.commitment.encode() for one in fresh})


def committed(record: bytes) -> str | None:
    """The commitment in a record, if it has one."""
    found = _COMMITTED.search(record) if record.startswith(_START) else None
    return None if found is None else found[1].decode()


def openings(folder: Path) -> dict[str, str]:
    """The address behind each commitment that can still be opened. Raises FileNotFoundError without a salts folder."""
    return {salt.commitment: salt.person for path in _files(folder) for salt in _read(path)}


class Opener:
    """Opens commitments one by one; the salts are read when the first one comes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[str, str] | None = None

    def open(self, commitment: str) -> str:
        """The address, or the commitment itself where it cannot be opened."""
        if self._known is None:
            self._known = openings(self._folder) if self._folder.is_dir() else {}
        return self._known.get(commitment, commitment)


def forget(folder: Path, person: str) -> int:
    """Forget all salts of a person. Returns how many there were. Raises OSError."""
    count = 0
    with _locked(folder):
        for path in _files(folder):
            salts = list(_read(path))
            kept = [one for one in salts if one.person != person]
            if len(kept) < len(salts):
                count += len(salts) - len(kept)
                _replace(path, b"".join(_encode(one) + b"\n" for one in kept))
        # Writers look here: what they hold in memory is forgotten too.
        _replace(folder / _ERASED, b"%d" % (_erasures(folder) + 1))
    return count


def retire_salts(folder: Path, retention_days: int, now: float) -> None:
    """Forget the salts of days that are over for so long: nobody's address is kept longer than the log."""
    last = date_of(now - retention_days * SECONDS_PER_DAY)
    if not folder.is_dir():
        return
    with _locked(folder):
        for path in _files(folder):
            if path.name < last:
                path.unlink()


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name))


def _read(path: Path) -> Iterator[Salt]:
    """A last line that a crash has cut is none."""
    for line in path.read_bytes().split(b"\n")[:-1]:
        yield _decode(line)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    fd = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _append(path: Path, salts: Iterable[Salt]) -> None:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        lines = b"".join(_encode(one) + b"\n" for one in salts)
        size = os.fstat(fd).st_size
        if os.write(fd, lines) != len(lines):
            os.ftruncate(fd, size)
            raise OSError(f"no room for salts in {path.parent}")
        os.fsync(fd)
    finally:
        os.close(fd)


def _replace(path: Path, data: bytes) -> None:
    beside = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, data)
        os.fsync(fd)
    finally:
        os.close(fd)
    beside.replace(path)


def _erasures(folder: Path) -> int:
    """How often somebody has been erased."""
    try:
        return int((folder / _ERASED).read_bytes() or b"0")
    except FileNotFoundError:
        return 0
