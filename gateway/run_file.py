"""The configuration as the supervisor hands it to its workers: one file in the run folder, replaced whole.

The supervisor alone reads the operator's files. What it has found good it writes here, text and all, so that every
worker compiles the very same, also one that is started later. A file that turned out broken is told by `error`; the
configurations beside it are then still those that are in force.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, Literal

import msgspec

NAME: Final = "configuration.json"


class ConfigurationText(msgspec.Struct, frozen=True):
    """One configuration file: its name, for messages, and its text."""

    file: str
    text: str


class RunFile(msgspec.Struct, frozen=True):
    """What is in force. `version` is a digest of all texts; `error` says why a newer version is not in force."""

    version: str
    configurations: tuple[ConfigurationText, ...]
    log_level: str = "info"
    log_format: Literal["json", "text"] = "json"
    error: str | None = None


def write_run_file(folder: Path, run_file: RunFile) -> None:
    """Replace the file; readers see the old one or the new one."""
    temporary = folder / f"{NAME}.new"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.encode(run_file))
    temporary.replace(folder / NAME)


def read_run_file(folder: Path) -> RunFile:
    """What is in force. Raises OSError or msgspec.DecodeError."""
    return msgspec.json.decode((folder / NAME).read_bytes(), type=RunFile)
