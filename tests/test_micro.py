"""CI's gate on the cost of a request: the micro benchmark, in a process of its own, as the workers run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def measure() -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-O", "-m", "loadtest.micro", "--rounds", "20", "--check"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def test_no_case_costs_more_than_its_gate() -> None:
    # Once more before it counts: on a machine that others use, one run may be slow all through.
    if (first := measure()).returncode and (second := measure()).returncode:
        pytest.fail(f"twice in a row:\n{first.stdout}{first.stderr}\n{second.stdout}{second.stderr}")
