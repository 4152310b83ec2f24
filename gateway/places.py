"""Which place a configuration has in the tables that the workers of a machine share.

Keys and teams have theirs from the store; a configuration is known by its name only. So the names are numbered in a
file of the run folder, which whoever compiles a configuration extends under a lock, off the path of requests. A number
stays its name's for as long as the folder is kept.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import orjson

from gateway.allowances import FIRST_CONFIGURATION

_FILE = "configuration-places.json"


class ConfigurationPlaces:
    """Places by configuration id. Without a run folder they are this object's own."""

    def __init__(self, run_folder: Path | None = None) -> None:
        self._path = None if run_folder is None else run_folder / _FILE
        self._names: list[str] = []

    def __call__(self, id: str) -> int:
        """The place of a configuration. Raises OSError when the file cannot be written."""
        if id not in self._names:
            self._add(id)
        return FIRST_CONFIGURATION + self._names.index(id)

    def _add(self, id: str) -> None:
        if self._path is None:
            self._names.append(id)
            return
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            self._names = orjson.loads(file.read() or b"[]")
            if id not in self._names:
                self._names.append(id)
                file.seek(0)
                file.write(orjson.dumps(self._names))  # only ever longer


def read_places(run_folder: Path) -> dict[int, str]:
    """All configurations that have a place, by place."""
    try:
        names = orjson.loads((run_folder / _FILE).read_bytes())
    except (FileNotFoundError, orjson.JSONDecodeError):  # not yet, or just being written
        return {}
    return dict(enumerate(names, FIRST_CONFIGURATION))
