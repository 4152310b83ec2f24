"""The feed of keys: what the store has, told to the workers through the keys log.

`KeyLog` writes the file and knows no database; `Feed` watches the store and knows no file. Whatever happens to the
store (locked, gone, replaced, full), the log stays as it was and so do the workers' keys; the feed says so once and
tries again.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from gateway.control.store.errors import StoreError
from gateway.control.store.glance import glance
from gateway.control.store.records import Changes
from gateway.key_log import Delete, Header, Line, Mark, Put, decode_line, encode_lines, read_header
from gateway.types import GatewayKey

if TYPE_CHECKING:
    from gateway.control.store.store import Store

POLL_SECONDS: Final = 0.1
"""One look costs 35 µs on SQLite. Twice this and a worker's own 0.1 s leave most of the promised second."""

BUSY_SECONDS: Final = 1.0
"""How long a look waits for another process's lock before it counts as a failure."""

COMPACT_BYTES: Final = 1 << 20
"""A log is compacted when its changes take more than this and more than its snapshot."""

log = logging.getLogger(__name__)


class KeyLog:
    """The writer of the keys log; the only one there is at a time.

    `store_id` and `revision` say what the log has told; `store_id` is None while it must be begun anew.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None
        self._generation = 0
        self._snapshot_bytes = 0
        self._change_bytes = 0
        self.store_id: str | None = None
        self.revision = -1
        old = read_header(path)
        if old is not None:
            self._generation = old.generation

    def __repr__(self) -> str:
        return (
            f"<KeyLog: generation {self._generation}, revision {self.revision}, {self._change_bytes} bytes of changes>"
        )

    def begin(self, store_id: str, revision: int, keys: Iterable[GatewayKey]) -> None:
        """Make a new generation that says everything. Raises OSError, and then the old one stays."""
        lines: list[Line] = [Put(key) for key in keys]
        self._replace(store_id, revision, encode_lines([*lines, Mark(revision)]), continues=None)

    def append(self, revision: int, keys: Sequence[GatewayKey], deleted: Sequence[str]) -> None:
        """Say what has changed, in one write. Raises OSError, and then the log must be begun anew."""
        assert self._descriptor is not None
        data = encode_lines([*map(Put, keys), *map(Delete, deleted), Mark(revision)])
        store_id, self.store_id = self.store_id, None
        written = os.write(self._descriptor, data)
        if written < len(data):
            # The last line is cut off. Readers do not take it, and all that is before it is true.
            raise OSError("the keys log was written in part only; no space is left on its disk")
        self.store_id, self.revision = store_id, revision
        self._change_bytes += written

    def compact_if_long(self) -> bool:
        """Make a new generation from the old one's own lines when they have become too many.

        Raises OSError, and then the old one goes on, or DecodeError, and then the log must be begun anew.
        """
        if self.store_id is None or self._change_bytes <= max(COMPACT_BYTES, self._snapshot_bytes):
            return False
        try:
            kept = b"".join(self._latest_lines())
        except msgspec.DecodeError:
            self.store_id = None  # somebody has spoilt the file
            raise
        mark = encode_lines([Mark(self.revision)])
        self._replace(self.store_id, self.revision, kept + mark, continues=self._generation)
        return True

    def close(self) -> None:
        """No more writing; idempotent."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _latest_lines(self) -> Iterable[bytes]:
        """The line of each key that there still is, as it stands in the file."""
        latest: dict[str, bytes] = {}
        with self._path.open("rb") as file:
            file.readline()
            for text in file:
                match decode_line(text):
                    case Put(key=key):
                        latest[key.id] = text
                    case Delete(id=id):
                        latest.pop(id, None)
        return latest.values()

    def _replace(self, store_id: str, revision: int, snapshot: bytes, *, continues: int | None) -> None:
        header = Header(self._generation + 1, revision, store_id, len(snapshot), continues)
        beside = self._path.with_name(f"{self._path.name}.new")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
        descriptor = os.open(beside, flags, 0o600)
        try:
            _write_all(descriptor, encode_lines([header]))
            _write_all(descriptor, snapshot)
            beside.rename(self._path)
        except BaseException:
            os.close(descriptor)
            beside.unlink(missing_ok=True)
            raise
        self.close()
        self._descriptor = descriptor
        self._generation = header.generation
        self._snapshot_bytes, self._change_bytes = len(snapshot), 0
        self.store_id, self.revision = store_id, revision


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


class Feed:
    """Watches one store and tells the log. `on_keys` hears of every key that was told."""

    def __init__(self, store_url: str, log: KeyLog, on_keys: Callable[[Sequence[GatewayKey]], None]) -> None:
        self._url = store_url
        self._log = log
        self._on_keys = on_keys
        self._store: Store | None = None
        self._seen: object = None
        self._fault = ""

    @property
    def store(self) -> Store | None:
        """The store while it can be used."""
        return self._store

    @property
    def revision(self) -> int:
        """The revision that the log has told."""
        return self._log.revision

    @property
    def fault(self) -> str:
        """Why nothing new is told at the moment; empty when all is well."""
        return self._fault

    def begin(self) -> None:
        """Tell what the store holds, if that can be had at once; the next step does what is left to do."""
        changes = glance(self._url)
        if changes is not None:
            try:
                self._tell_everything(changes)
            except OSError as error:
                self._report(str(error))

    async def run(self) -> None:
        """Tell changes until cancelled."""
        while True:
            await self.step()
            await asyncio.sleep(POLL_SECONDS)

    async def step(self, *, create: bool = False) -> None:
        """Look once; tell what is new. Never raises for what may be wrong with store or disk. `create`: make a store
        if there is none, which is right at first and never later, when an operator may be putting it back."""
        try:
            await self._look(create)
        except (StoreError, OSError, msgspec.DecodeError) as error:
            self._report(str(error))
            self._seen = None
            if isinstance(error, StoreError):
                await self.close()
        else:
            self._report("")

    async def close(self) -> None:
        """Close the store; idempotent."""
        store, self._store, self._seen = self._store, None, None
        if store is not None:
            await store.close()

    async def _look(self, create: bool) -> None:
        if self._store is None:
            from gateway.control.store.store import Store  # SQLAlchemy; the first keys have been told by now

            self._store = await Store.open(self._url, create=create, busy_seconds=BUSY_SECONDS)
        seen = await self._store.stamp()
        if seen == self._seen:
            return
        known = self._log.store_id == self._store.id
        changes = await self._store.changes_since(self._log.revision if known else 0)
        if known and changes.store_id == self._log.store_id and changes.revision >= self._log.revision:
            self._tell(changes)
        else:
            self._tell_everything(changes if not known else await self._store.changes_since(0))
        self._seen = seen

    def _tell(self, changes: Changes) -> None:
        if changes.revision == self._log.revision:
            return
        self._log.append(changes.revision, changes.keys, changes.deleted)
        self._on_keys(changes.keys)
        self._log.compact_if_long()

    def _tell_everything(self, changes: Changes) -> None:
        self._log.begin(changes.store_id, changes.revision, changes.keys)
        self._on_keys(changes.keys)
        log.info("keys told", extra={"keys": len(changes.keys), "revision": changes.revision})

    def _report(self, fault: str) -> None:
        """Say once that nothing new can be told, and once that it can be again."""
        if fault != self._fault:
            self._fault = fault
            if fault:
                log.error("keys cannot be told; those that are known stay in force", extra={"reason": fault})
            else:
                log.info("keys can be told again")
