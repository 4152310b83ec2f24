"""The configuration as the supervisor hands it to its workers: files in the run folder, each replaced whole.

The supervisor alone reads the operator's files. What is in force stands in `configuration.json`, text and all, so that
every worker compiles the very same, also one that is started later. A reload has two steps, so that it takes effect in
all workers or in none: the candidate stands in `candidate.json` until each worker has said in `prepared-<n>.json` that
it has compiled it, or why it cannot; then the candidate becomes what is in force. This module only names the files and
what is in them; a signal says when to look.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, Literal

import msgspec

from gateway.config.schema import TLS, AuthMode
from gateway.types import FailMode

NAME: Final = "configuration.json"
CANDIDATE: Final = "candidate.json"


class ConfigurationText(msgspec.Struct, frozen=True):
    """One configuration file: its name, for messages, and its text."""

    file: str
    text: str


class RunFile(msgspec.Struct, frozen=True):
    """A configuration of all workers.

    `version` is a digest of all texts. `generation` counts the loads, since one with the same texts may find other
    secrets. `error` says why a newer one is not in force.
    """

    version: str
    configurations: tuple[ConfigurationText, ...]
    generation: int = 0
    auth: AuthMode = AuthMode.REQUIRED
    log_level: str = "info"
    log_format: Literal["json", "text"] = "json"
    error: str | None = None


class Preparation(msgspec.Struct, frozen=True):
    """What a worker says of a candidate: compiled, or why not."""

    generation: int
    error: str | None = None


class WorkerOptions(msgspec.Struct, frozen=True):
    """What the supervisor tells a worker, as JSON in its only argument.

    `supervisor` is its process id, `listeners` are the descriptors of sockets that are bound already.
    """

    worker: int
    workers: int
    supervisor: int
    host: str
    port: int
    run_folder: str
    audit_folder: str
    fail_mode: FailMode | None = None
    tls: TLS | None = None
    listeners: tuple[int, ...] = ()


def write_run_file(folder: Path, run_file: RunFile) -> None:
    """Put a configuration in force. Readers see the old one or the new one."""
    _replace(folder / NAME, run_file)


def read_run_file(folder: Path) -> RunFile:
    """What is in force. Raises OSError or msgspec.DecodeError."""
    return msgspec.json.decode((folder / NAME).read_bytes(), type=RunFile)


def write_candidate(folder: Path, candidate: RunFile) -> None:
    """Propose a configuration."""
    _replace(folder / CANDIDATE, candidate)


def read_candidate(folder: Path) -> RunFile | None:
    """What is proposed, if anything. Raises OSError or msgspec.DecodeError."""
    try:
        return msgspec.json.decode((folder / CANDIDATE).read_bytes(), type=RunFile)
    except FileNotFoundError:
        return None


def withdraw_candidate(folder: Path) -> None:
    """Nothing is proposed any more."""
    (folder / CANDIDATE).unlink(missing_ok=True)


def write_preparation(folder: Path, worker: int, preparation: Preparation) -> None:
    """Say how far a worker is."""
    _replace(folder / f"prepared-{worker}.json", preparation)


def read_preparation(folder: Path, worker: int) -> Preparation | None:
    """What a worker said last, if anything."""
    try:
        return msgspec.json.decode((folder / f"prepared-{worker}.json").read_bytes(), type=Preparation)
    except FileNotFoundError:
        return None


def discard(folder: Path) -> None:
    """Remove what an earlier run left. For the supervisor, before it starts anybody."""
    withdraw_candidate(folder)
    for path in folder.glob("prepared-*.json"):
        path.unlink(missing_ok=True)


def _replace(path: Path, content: msgspec.Struct) -> None:
    temporary = path.with_suffix(".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.encode(content))
    temporary.replace(path)
