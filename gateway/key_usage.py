"""How often each key was used and when last: counted by workers in shared memory, summed up by the control process.

A worker counts in its own file, at the key's slot; the control process writes beside it how much of the count it has
brought into the store. Each cell has one writer, and the file outlives both, so nothing is lost when either is killed;
at worst a few seconds' requests are counted twice. These are figures for people, not for bills or limits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, NamedTuple, final

from gateway.slots import CELL, SlotFile
from gateway.types import GatewayKey

MAX_SLOTS: Final = 1 << 20
"""Keys beyond are not counted. 32 MB a worker, sparse: only pages in use take memory and disk."""

_ROW = 4
_REQUESTS, _LAST_USED, _TOLD = range(3)
_BLOCK = 4096 // CELL // _ROW


@final
class KeyUsage:
    """One worker's counts."""

    __slots__ = ("_cells", "_file", "_reserved")

    def __init__(self, run_folder: Path, worker: int) -> None:
        """Raises OSError when the file cannot be made."""
        self._file = SlotFile(run_folder / f"usage-{worker}.slots", MAX_SLOTS * _ROW)
        self._cells = self._file.cells
        self._reserved: set[int] = set()

    def count(self, key: GatewayKey, now: float) -> None:
        """One request with this key, at `now` (Unix seconds). Never raises: nothing depends on it. 0.2 µs."""
        slot = key.slot
        if slot // _BLOCK not in self._reserved and not self._reserve(slot):
            return
        row = slot * _ROW
        self._cells[row] += 1.0
        self._cells[row + _LAST_USED] = now

    def close(self) -> None:
        """Unmap; the counts stay. Idempotent."""
        self._file.close()

    def _reserve(self, slot: int) -> bool:
        if not 0 <= slot < MAX_SLOTS:
            return False
        block = slot // _BLOCK
        try:
            self._file.reserve(block * _BLOCK * _ROW, _BLOCK * _ROW)
        except OSError:
            return False
        self._reserved.add(block)
        return True


class KeyUse(NamedTuple):
    """Requests that a key has made since the last time this was told, and when the last one was (Unix seconds)."""

    requests: int
    last_used_at: float


class UsageReader:
    """The counts of all workers of a run folder, and how much of them was told before."""

    def __init__(self, run_folder: Path) -> None:
        self._run_folder = run_folder
        self._files: dict[Path, SlotFile] = {}
        self._untold: list[tuple[SlotFile, int, float]] = []

    def collect(self, owners: Mapping[int, GatewayKey]) -> dict[str, KeyUse]:
        """By key id, what is new since the last `confirm`. `owners` says whose each slot is. 30 ms for 100,000."""
        self._untold.clear()
        found: dict[str, KeyUse] = {}
        for file in self._open_files():
            for slot, requests, last_used in self._new(file, owners):
                key = owners[slot]
                if last_used < key.created_at:
                    continue  # by the key that had the slot before, and which nobody can name any more
                before = found.get(key.id, KeyUse(0, 0.0))
                found[key.id] = KeyUse(before.requests + requests, max(before.last_used_at, last_used))
        return found

    def confirm(self) -> None:
        """What `collect` returned last is in the store."""
        for file, cell, requests in self._untold:
            file.cells[cell] = requests
        self._untold.clear()

    def close(self) -> None:
        """Unmap everything."""
        for file in self._files.values():
            file.close()
        self._files.clear()

    def _new(self, file: SlotFile, slots: Iterable[int]) -> Iterable[tuple[int, int, float]]:
        cells = file.cells
        for slot in slots:
            row = slot * _ROW
            requests = cells[row]
            if requests != cells[row + _TOLD]:
                self._untold.append((file, row + _TOLD, requests))
                yield slot, int(requests - cells[row + _TOLD]), cells[row + _LAST_USED]

    def _open_files(self) -> list[SlotFile]:
        for path in self._run_folder.glob("usage-*.slots"):
            if path not in self._files:
                self._files[path] = SlotFile(path, MAX_SLOTS * _ROW)
        return list(self._files.values())
