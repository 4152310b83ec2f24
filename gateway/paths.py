"""Where the gateway keeps its state: one folder per user or per service, named by the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


def state_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """`$KT_STATE_DIR`, else `$XDG_STATE_HOME/keeptrusts`, else `~/.local/state/keeptrusts`. It need not exist yet."""
    if named := environ.get("KT_STATE_DIR"):
        return Path(named).expanduser()
    # XDG Base Directory Specification: a relative path is to be ignored.
    base = environ.get("XDG_STATE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path("~/.local/state").expanduser()) / "keeptrusts"


def audit_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """The audit log's folder."""
    return state_folder(environ) / "audit"
