"""Programs that the tests of `deploy/` use, and what to do where one is missing.

Debian's come by `make setup-system`, helm and the Compose parser by `make deploy-tools`. Outside CI a test is skipped
for a program that is not there; in CI it fails, lest a check that never runs counts as one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
DEPLOY = ROOT / "deploy"


def program(name: str, how: str) -> str:
    """Where a program is."""
    path = shutil.which(name, path=os.pathsep.join((str(ROOT / ".tools" / "bin"), os.environ["PATH"], "/usr/sbin")))
    if path is not None:
        return path
    if os.environ.get("CI"):
        pytest.fail(f"{name} is missing: {how}")
    pytest.skip(f"{name} is missing: {how}")


def output(*command: str | Path, folder: Path | None = None, fails: bool = False) -> str:
    """What a command says, on both ways out. It must succeed, or with `fails` must not."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode != 0) == fails, done.stdout
    return done.stdout
