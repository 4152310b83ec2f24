"""A worker's half of a reload: compile what is proposed, adopt what is in force.

`look` is called at any signal, any number of times, in one thread of its own, and does what the run folder's files ask
for; a signal that comes too often, too late or twice does no harm. A configuration that cannot be compiled is told in
the run folder and changes nothing. How a compiled configuration comes into use is the worker's.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from gateway.config.schema import Configuration
from gateway.run_file import Preparation, RunFile, read_candidate, read_run_file, write_preparation
from gateway.snapshot import Snapshot

log = logging.getLogger("gateway.worker")


class Compiled(NamedTuple):
    """A configuration of the gateway, ready for use. `settings` are those of the first one, which count for all."""

    run_file: RunFile
    snapshot: Snapshot
    settings: Configuration


class Reloader:
    """What one worker has compiled."""

    def __init__(self, folder: Path, worker: int, compile: Callable[[RunFile], Compiled]) -> None:
        self._folder = folder
        self._worker = worker
        self._compile = compile
        self._candidate: Compiled | None = None
        self._current: Compiled

    def begin(self) -> Compiled:
        """The configuration to start with. Raises whatever hinders its compilation, after telling it."""
        run_file = read_run_file(self._folder)
        try:
            self._current = self._compile(run_file)
        except Exception as error:
            self._tell(run_file, error)
            raise
        return self._current

    def look(self) -> Compiled:
        """What is in force now: a new snapshot, or the one that was returned last with a new `run_file`."""
        in_force = read_run_file(self._folder)
        if in_force.generation == self._current.run_file.generation:
            self._current = self._current._replace(run_file=in_force)
            self._prepare()
        else:
            candidate, self._candidate = self._candidate, None
            if candidate is not None and candidate.run_file.generation == in_force.generation:
                self._current = candidate._replace(run_file=in_force)
            else:
                self._current = self._compile(in_force)
        return self._current

    def _prepare(self) -> None:
        proposed = read_candidate(self._folder)
        if proposed is None:
            self._candidate = None
            return
        if self._candidate is not None and self._candidate.run_file.generation == proposed.generation:
            return
        try:
            self._candidate = self._compile(proposed)
        except Exception as error:
            log.exception("the configuration cannot be compiled")
            self._tell(proposed, error)
        else:
            self._tell(proposed, None)

    def _tell(self, run_file: RunFile, error: Exception | None) -> None:
        said = None if error is None else f"{type(error).__name__}: {error}"
        write_preparation(self._folder, self._worker, Preparation(run_file.generation, said))
