"""Where the gateway keeps its files.

The state folder holds what must last: the store and the audit log. In it, each gateway has a run folder, named after
its port, for what concerns one run: sockets, shared memory, the feed of keys.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

_RUN: Final = re.compile(r"run-(\d+)(-b)?")


def state_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """`$KT_STATE_DIR`, else `$XDG_STATE_HOME/keeptrusts`, else `~/.local/state/keeptrusts`."""
    named = environment.get("KT_STATE_DIR")
    if named:
        return Path(named).expanduser().absolute()
    # https://specifications.freedesktop.org/basedir-spec: a relative XDG_STATE_HOME is ignored.
    base = Path(environment.get("XDG_STATE_HOME", ""))
    if not base.is_absolute():
        base = Path.home() / ".local" / "state"
    return base / "keeptrusts"


def run_folder(state: Path, port: int) -> Path:
    """The run folder of the gateway on `port`."""
    return state / f"run-{port}"


def other_run_folder(folder: Path) -> Path:
    """The run folder of the gateway that takes a port over from the one with this folder: they have it in turns."""
    name = folder.name
    return folder.with_name(name.removesuffix("-b") if name.endswith("-b") else f"{name}-b")


def port_of(run_folder: Path) -> int | None:
    """The port that a run folder is named after; None for what is no run folder."""
    named = _RUN.fullmatch(run_folder.name)
    return int(named[1]) if named else None


def audit_folder(state: Path) -> Path:
    """The audit log."""
    return state / "audit"


def audit_key(state: Path) -> Path:
    """The key that signs the audit log's checkpoints. Beside the log, not in it: a copy of the log is no copy of it."""
    return state / "audit-key.pem"


def audit_salts(audit: Path) -> Path:
    """The salts of the commitments in an audit folder: beside the log, not in it."""
    return audit.parent / "audit-salts"


def store_url(state: Path, environment: Mapping[str, str] = os.environ) -> str:
    """`$KT_STORE_URL`, else a SQLite file in the state folder."""
    return environment.get("KT_STORE_URL") or f"sqlite:///{state / 'gateway.db'}"
