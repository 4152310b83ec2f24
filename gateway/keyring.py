"""The gateway keys as one worker holds them, and what each worker tells of itself.

The keys are a dictionary in memory, kept up to date from the keys log.

A request costs one look-up. A timer calls `poll` every 100 ms, which does a bounded piece of work: it reads at most
`max_lines` new lines and applies them. A new generation is read aside, piece by piece, and swapped in whole, so that a
request never sees half of one. If the log stops growing, or goes away, the keys stay as they are: traffic goes on.

What a worker tells (who it is, which keys and which configuration it has in force) stands in shared memory, so that
whoever changed a key can see when the change is in force everywhere. Nothing here knows of stores, requests or streams.
"""

from __future__ import annotations

import enum
import heapq
import logging
import os
from pathlib import Path
from typing import Final, NamedTuple, final

import msgspec

from gateway.key_log import Delete, Header, Line, Mark, Put, decode_header, decode_line
from gateway.slots import SlotFile
from gateway.types import GatewayKey

MAX_LINES = 200
"""Lines of one poll: 0.7 ms at 3.5 µs a line. Now and then a dictionary that grows adds to it: 9 ms at 87,000 keys."""

MAX_WORKERS: Final = 512
HEARTBEAT_SECONDS: Final = 5.0
"""A worker that said nothing for longer is taken for dead; it speaks every 100 ms."""

_READ = 1 << 16
_ROW = 8
_PID, _STATE, _KEYS, _CONFIGURATION, _HEARTBEAT = range(5)
_VERSION_DIGITS = 12  # 48 bits: what fits into a float64

log = logging.getLogger(__name__)


@final
class Keyring:
    """The keys of one worker. `path` need not exist yet."""

    __slots__ = ("_aside", "_fault", "_keys", "_max_lines", "_path", "_reader", "behind", "revision")

    def __init__(self, path: Path, *, max_lines: int = MAX_LINES) -> None:
        self._path = path
        self._max_lines = max_lines
        self._keys = _Keys()
        self._reader: _Reader | None = None
        self._aside: _Aside | None = None
        self._fault = ""
        self.revision = -1
        """The store's revision that is in force here; -1 before the first."""
        self.behind = False
        """More lines are waiting: poll again in the event loop's next turn rather than with the next timer."""

    def __repr__(self) -> str:
        generation = self._reader.header.generation if self._reader else 0
        aside = f", reading generation {self._aside.reader.header.generation}" if self._aside else ""
        return f"<Keyring: {len(self)} keys, revision {self.revision}, generation {generation}{aside}>"

    def __len__(self) -> int:
        return len(self._keys.by_hash)

    @property
    def ready(self) -> bool:
        """A complete set of keys has been read once."""
        return self.revision >= 0

    def get(self, digest: bytes) -> GatewayKey | None:
        """The key with this hash, good or not: expiry and revocation are the caller's to compare. 0.07 µs."""
        return self._keys.by_hash.get(digest)

    def poll(self, now: float) -> list[GatewayKey]:
        """Read on, and return the keys known before that have changed, as they are now (`now` in Unix seconds).

        A key that was deleted is among them, as one that is revoked. Never raises.
        """
        self.behind = False
        changed: list[GatewayKey] = []
        try:
            self._poll(changed, now)
        except (OSError, msgspec.DecodeError) as error:
            self._report(str(error))
        else:
            self._report("")
        return changed

    def expired(self, now: float) -> list[GatewayKey]:
        """The keys whose time came since the last call, each told once; at most `max_lines`, the rest next time."""
        found: list[GatewayKey] = []
        expiring, by_id = self._keys.expiring, self._keys.by_id
        for _ in range(self._max_lines):
            if not expiring or expiring[0][0] > now:
                break
            at, id = heapq.heappop(expiring)
            key = by_id.get(id)
            if key is not None and key.expires_at == at and key.revoked_at is None:
                found.append(key)
        return found

    def load(self, now: float) -> bool:
        """Read everything there is, without a bound on the time it takes: for a worker that does not serve yet."""
        self.poll(now)
        while self.behind:
            self.poll(now)
        return self.ready

    def close(self) -> None:
        """Close the log; the keys stay. Idempotent."""
        self._drop_aside()
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _poll(self, changed: list[GatewayKey], now: float) -> None:
        # In this order: once another file has the name, nobody writes to the old one any more, so its end is its end.
        newest = self._newest_file()
        if self._aside is not None:
            if self._aside.reader.file == newest:
                self._read_aside(self._aside, changed, now)
                return
            self._drop_aside()
        reader = self._reader
        replaced = newest is not None and (reader is None or reader.file != newest)
        at_end = reader is None or (reader.damage is not None and replaced) or self._follow(reader, changed, now)
        if at_end and replaced:
            self._turn_over()

    def _newest_file(self) -> tuple[int, int] | None:
        try:
            found = os.stat(self._path)
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino

    def _follow(self, reader: _Reader, changed: list[GatewayKey], now: float) -> bool:
        """Apply what the current generation has new; True when its end was reached."""
        lines, at_end = reader.lines(self._max_lines)
        for line in lines:
            match reader.decode(line):
                case Put(key=key):
                    if self._keys.put(key, now, self._keys):
                        changed.append(key)
                case Delete(id=id):
                    gone = self._keys.delete(id, now)
                    if gone is not None:
                        changed.append(gone)
                case Mark(revision=revision):
                    self.revision = revision
        self.behind = not at_end
        return at_end

    def _turn_over(self) -> None:
        """The log has a new generation: go on in it, or begin to read it aside."""
        reader = _Reader(self._path)
        current = self._reader
        self.behind = True
        if current is not None and self._continues(current.header, reader.header):
            reader.skip(reader.header.snapshot_bytes)
            current.close()
            self._reader = reader
        else:
            self._aside = _Aside(reader, self._keys)

    def _continues(self, old: Header, new: Header) -> bool:
        return (new.store, new.continues, new.revision) == (old.store, old.generation, self.revision)

    def _read_aside(self, aside: _Aside, changed: list[GatewayKey], now: float) -> None:
        lines, at_end = aside.reader.lines(self._max_lines)
        self.behind = not at_end
        for index, line in enumerate(lines):
            parsed = aside.reader.decode(line)
            if isinstance(parsed, Mark):
                aside.reader.give_back(lines[index + 1 :])
                self.behind = True
                self._swap(aside, parsed.revision, changed, now)
                return
            aside.take(parsed, now)

    def _swap(self, aside: _Aside, revision: int, changed: list[GatewayKey], now: float) -> None:
        changed += aside.changed
        changed += [_as_revoked(key, now) for key in aside.unmet.values()]
        if self._reader is not None:
            self._reader.close()
        self._reader, self._keys, self._aside, self.revision = aside.reader, aside.keys, None, revision

    def _drop_aside(self) -> None:
        if self._aside is not None:
            self._aside.reader.close()
            self._aside = None

    def _report(self, fault: str) -> None:
        """Say once that the log cannot be read, and once that it can be again."""
        if fault != self._fault:
            self._fault = fault
            if fault:
                log.error("keys log cannot be read; keys stay as they are", extra={"reason": fault})
            else:
                log.info("keys log can be read again")


class _Keys:
    """One complete set of keys, and which of them is the next to expire."""

    __slots__ = ("by_hash", "by_id", "expiring")

    def __init__(self) -> None:
        self.by_hash: dict[bytes, GatewayKey] = {}
        self.by_id: dict[str, GatewayKey] = {}
        self.expiring: list[tuple[float, str]] = []

    def put(self, key: GatewayKey, now: float, known: _Keys) -> bool:
        """Add or replace a key; whether `known` (this set or the one before it) had it otherwise."""
        old = known.by_id.get(key.id)
        if old == key:
            key = old  # the limits know a key by its identity: one that is the same stays the same object
        self.by_hash[key.hash] = self.by_id[key.id] = key
        # One that has expired before we ever met it has nothing open that must end.
        if key.expires_at is not None and (old is not None or key.expires_at > now):
            heapq.heappush(self.expiring, (key.expires_at, key.id))
        return old is not None and old is not key

    def delete(self, id: str, now: float) -> GatewayKey | None:
        """Remove a key; what to tell of it, or None if it was not there."""
        key = self.by_id.pop(id, None)
        if key is None:
            return None
        del self.by_hash[key.hash]
        return _as_revoked(key, now)


def _as_revoked(key: GatewayKey, now: float) -> GatewayKey:
    return key if key.revoked_at is not None else msgspec.structs.replace(key, revoked_at=now)


class _Aside:
    """A generation that is being read, and what will have changed once it is complete.

    `unmet` are the keys in force that it has not mentioned. Crossing them off one by one spares a comparison of two
    sets at the end: 25 ms for 100,000 keys, where copying the dictionary takes one.
    """

    __slots__ = ("_known", "changed", "keys", "reader", "unmet")

    def __init__(self, reader: _Reader, known: _Keys) -> None:
        self.reader = reader
        self.keys = _Keys()
        self.changed: list[GatewayKey] = []
        self.unmet = known.by_id.copy()
        self._known = known

    def take(self, line: Line, now: float) -> None:
        """One line of the snapshot."""
        if isinstance(line, Put):
            self.unmet.pop(line.key.id, None)
            if self.keys.put(line.key, now, self._known):
                self.changed.append(line.key)


class _Reader:
    """Complete lines of one file, which somebody else appends to. A last line without its end waits for the rest.

    After a line that makes no sense no more are read, since what it said may have been a revocation: that waits for a
    new generation, which says everything. The file is kept open till then, so that no other gets its inode.
    """

    __slots__ = ("_descriptor", "_header_size", "_lines", "_offset", "_rest", "damage", "file", "header")

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        found = os.fstat(self._descriptor)
        self.file = found.st_dev, found.st_ino
        self._offset = 0
        self._rest = b""
        self._lines: list[bytes] = []
        self.damage: msgspec.DecodeError | None = None
        try:
            first = b"".join(self.lines(1)[0])
            self._header_size = len(first) + 1
            self.header = decode_header(first)
        except BaseException:
            self.close()
            raise

    def lines(self, most: int) -> tuple[list[bytes], bool]:
        """At most `most` lines, and whether these were the last ones for now. Raises DecodeError for a damaged file."""
        if self.damage is not None:
            raise self.damage
        at_end = False
        while len(self._lines) < most and not at_end:
            at_end = self._read()
        taken, self._lines = self._lines[:most], self._lines[most:]
        return taken, at_end and not self._lines

    def decode(self, line: bytes) -> Line:
        """What a line says."""
        try:
            return decode_line(line)
        except msgspec.DecodeError as damage:
            self.damage = damage
            raise

    def give_back(self, lines: list[bytes]) -> None:
        """Lines that were taken too many; the next call returns them."""
        self._lines[:0] = lines

    def skip(self, size: int) -> None:
        """Go on `size` bytes after the header."""
        self._lines.clear()
        self._rest = b""
        self._offset = self._header_size + size

    def close(self) -> None:
        """No more reading."""
        os.close(self._descriptor)

    def _read(self) -> bool:
        data = os.pread(self._descriptor, _READ, self._offset)
        self._offset += len(data)
        *complete, self._rest = (self._rest + data).split(b"\n")
        self._lines += complete
        return len(data) < _READ


class WorkerState(enum.IntEnum):
    """What a worker does."""

    NONE = 0
    STARTING = 1
    READY = 2
    DRAINING = 3
    STOPPED = 4

    @property
    def serves(self) -> bool:
        """It may have streams."""
        return self in (WorkerState.READY, WorkerState.DRAINING)


class WorkerStatus(NamedTuple):
    """What a worker last told. `configuration` is the beginning of its version; `heartbeat` in Unix seconds."""

    worker: int
    pid: int
    state: WorkerState
    keys_revision: int
    configuration: str
    heartbeat: float

    def is_live(self, now: float) -> bool:
        """Whether it still runs, as far as can be told."""
        return (
            abs(now - self.heartbeat) < HEARTBEAT_SECONDS and self.state is not WorkerState.STOPPED and _runs(self.pid)
        )


@final
class WorkerSlots:
    """One worker's row among those of its gateway."""

    __slots__ = ("_file", "_row")

    def __init__(self, run_folder: Path, worker: int) -> None:
        """Begin the row anew. Raises OSError when the file cannot be made."""
        if not 0 <= worker < MAX_WORKERS:
            raise ValueError(f"worker {worker}")
        self._file = SlotFile(_slots_path(run_folder), MAX_WORKERS * _ROW)
        self._file.reserve(0, MAX_WORKERS * _ROW)
        self._row = worker * _ROW
        cells = self._file.cells
        cells[self._row + _HEARTBEAT] = 0.0
        cells[self._row + _STATE] = WorkerState.STARTING
        cells[self._row + _KEYS] = -1.0
        cells[self._row + _CONFIGURATION] = -1.0
        cells[self._row + _PID] = os.getpid()

    def publish(
        self,
        *,
        state: WorkerState | None = None,
        keys_revision: int | None = None,
        configuration: str | None = None,
        heartbeat: float | None = None,
    ) -> None:
        """Tell what has changed. `configuration` is a version in hexadecimal; `heartbeat` is the time now."""
        cells, row = self._file.cells, self._row
        if keys_revision is not None:
            cells[row + _KEYS] = keys_revision
        if configuration is not None:
            cells[row + _CONFIGURATION] = int(configuration[:_VERSION_DIGITS], 16)
        if state is not None:
            cells[row + _STATE] = state
        if heartbeat is not None:
            cells[row + _HEARTBEAT] = heartbeat

    def close(self) -> None:
        """Unmap; what was told stays. Idempotent."""
        self._file.close()

    @staticmethod
    def read(run_folder: Path) -> list[WorkerStatus]:
        """What all workers of a run folder have told, dead or alive; empty when there never was one."""
        path = _slots_path(run_folder)
        if not path.exists():
            return []
        file = SlotFile(path, MAX_WORKERS * _ROW)
        try:
            cells = list(file.cells)
        finally:
            file.close()
        rows = (cells[first : first + _ROW] for first in range(0, len(cells), _ROW))
        return [_status(worker, row) for worker, row in enumerate(rows) if row[_PID]]


def _slots_path(run_folder: Path) -> Path:
    return run_folder / "workers.slots"


def _status(worker: int, row: list[float]) -> WorkerStatus:
    version = "" if row[_CONFIGURATION] < 0 else f"{int(row[_CONFIGURATION]):0{_VERSION_DIGITS}x}"
    return WorkerStatus(
        worker, int(row[_PID]), WorkerState(int(row[_STATE])), int(row[_KEYS]), version, row[_HEARTBEAT]
    )


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
