"""A short run of libFuzzer on each side, the same each time; longer ones are for people (docs/http-framing.md)."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
RUNS = 2_500


@pytest.mark.skipif(
    (platform.machine(), sys.platform) != ("x86_64", "linux"), reason="atheris is made for x86-64 Linux only"
)
@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", ["requests", "answers"])
def test_libfuzzer_finds_nothing(kind: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.acceptance.wire.fuzz", kind, f"-runs={RUNS}", "-seed=7", "-max_len=4096"]
    done = subprocess.run(
        [*command, f"-artifact_prefix={tmp_path}/"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert f"Done {RUNS} runs" in done.stderr
