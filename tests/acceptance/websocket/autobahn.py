"""Autobahn|Testsuite's fuzzing client: some 500 ways to use and to abuse a WebSocket server, each with a judgement.

    results = await fuzz(folder, "ws://127.0.0.1:41002/v1/realtime?model=m", ["1.*", "2.*"])
    assert faults(results) == {}

It is written for Python 2.7, which few systems still package, and takes a quarter of an hour in all: `make autobahn`
runs it. It gets a folder of its own, `.tools/autobahn`, from hashed requirements.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
REQUIREMENTS = Path(__file__).with_name("autobahn-requirements.txt")
TOOLS = ROOT / ".tools" / "autobahn"
AGENT = "gateway"
PASSED = ("OK", "NON-STRICT", "INFORMATIONAL")
_RUN = "import site, sys; site.addsitedir(sys.argv.pop(1)); from autobahntestsuite.wstest import run; run()"


def python2() -> str | None:
    """A Python 2.7, from PATH or from pyenv, whose shim may be there without one."""
    candidates = [shutil.which("python2.7"), *sorted(Path.home().glob(".pyenv/versions/2.7*/bin/python2.7"))]
    for candidate in filter(None, candidates):
        if subprocess.run([candidate, "-c", "import ssl"], capture_output=True, check=False).returncode == 0:
            return str(candidate)
    return None


def installed() -> tuple[str, Path]:
    """The Python to run it with, and where it is installed; that happens once for each version of the requirements."""
    python = python2()
    if python is None:
        pytest.fail("Autobahn|Testsuite needs Python 2.7. Next step: pyenv install 2.7.18")
    folder = TOOLS / hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()[:16]
    if not folder.exists():
        made = folder.with_suffix(f".{os.getpid()}")
        options = ["--quiet", "--disable-pip-version-check", "--no-input", "--require-hashes", "--no-deps"]
        subprocess.run(
            [python, "-m", "pip", "install", *options, "--target", str(made), "--requirement", str(REQUIREMENTS)],
            check=True,
        )
        made.rename(folder)
    return python, folder


async def fuzz(folder: Path, url: str, cases: Sequence[str]) -> dict[str, Any]:
    """Run these cases, patterns among them, against a server that echoes; what came of each, by its name."""
    python, tools = installed()
    reports = folder / "reports"
    specification = {
        "outdir": str(reports),
        "servers": [{"agent": AGENT, "url": url}],
        "cases": list(cases),
        "exclude-cases": [],
        "exclude-agent-cases": {},
    }
    (folder / "fuzzing.json").write_text(json.dumps(specification))
    with (folder / "fuzzing.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(python, "-c", _RUN, str(tools), "-m", "fuzzingclient", "-s", "fuzzing.json"),
            cwd=folder,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        try:
            status = await process.wait()
        except BaseException:
            process.kill()
            raise
    if status:
        raise AssertionError(f"wstest ended with {status}\n{(folder / 'fuzzing.log').read_text()[-4000:]}")
    results: dict[str, Any] = json.loads((reports / "index.json").read_text())[AGENT]
    return results


def faults(results: dict[str, Any]) -> dict[str, str]:
    """Each case that was not passed, with what is wrong."""
    return {
        name: f"{result['behavior']}, closing {result['behaviorClose']} (code {result['remoteCloseCode']})"
        for name, result in results.items()
        if result["behavior"] not in PASSED or result["behaviorClose"] not in PASSED
    }
