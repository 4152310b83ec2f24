"""The examples of the documentation, run as they stand: quick start, operations, and the pages for those who move here.

Only what names this machine is replaced: `kt`, the port, the key. A `diff` is a program before and after; the program
after is run, and the one before must at least be one. `console` blocks set a machine up or do not return, and are not
run.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.config.load import load_text
from tests.acceptance.operate.tools import ROOT
from tests.gateway_process import HOST, KT, GatewayProcess, configuration, free_port, running_gateway
from tests.process.support import MOCK

DOCS = ROOT / "docs"
NODE = ROOT / "tests" / "sdk" / "node"
MODELS = ("mock-gpt", "gpt-4o")
BLOCK = re.compile(r"^```(\w+)(?: title=\"([\w.-]+)\")?\n(.*?)^```", re.MULTILINE | re.DOTALL)
PAGES = [
    "quick-start.md",
    "operations.md",
    "migrating/from-direct-calls.md",
    "migrating/from-litellm.md",
    "migrating/from-portkey.md",
]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    targets = [{"id": f"mock-{model}", "provider": "mock", "model": model} for model in MODELS]
    with running_gateway(tmp_path_factory.mktemp("gateway"), configuration(*targets)) as running:
        yield running


def after(diff: str) -> str:
    """The program that a diff makes."""
    return "".join(line[1:] or "\n" for line in diff.splitlines(keepends=True) if not line.startswith("-"))


def before(diff: str) -> str:
    """The program that it is made of."""
    return "".join(line[1:] or "\n" for line in diff.splitlines(keepends=True) if not line.startswith("+"))


class Machine:
    """Where a page's blocks are run, one after another, with what they leave behind."""

    def __init__(self, folder: Path, gateway: GatewayProcess, key: str) -> None:
        self._folder = folder
        self._gateway = gateway
        self._key = key
        path = os.pathsep.join((str(Path(KT).parent), gateway.environment["PATH"]))
        self._environment = {**gateway.environment, "PATH": path}

    def run(self, kind: str, title: str, code: str) -> str:
        """Run one block; what it printed."""
        code = code.replace("http://localhost:41002", self._gateway.url).replace("kt_gk_…", self._key)
        folder = self._folder
        if kind == "bash" or title.endswith(".sh"):
            command = ["bash", "-euo", "pipefail", "-c", code]
        elif title.endswith(".mjs"):
            command, folder = ["node", "--input-type=module", "--eval", code], NODE
        else:
            command = [sys.executable, "-c", code]
        done = subprocess.run(
            command, cwd=folder, env=self._environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"
        return done.stdout


@pytest.mark.parametrize("page", PAGES)
def test_the_page_works_as_it_is_written(page: str, gateway: GatewayProcess, tmp_path: Path) -> None:
    machine = Machine(tmp_path, gateway, gateway.create_key(page.replace("/", "-")))
    if page == "operations.md":  # it takes for granted that there is one
        listen = {"listen": f"{HOST}:{free_port()}"}
        (tmp_path / "policy-config.yaml").write_text(configuration(MOCK, gateway=listen))
    ran = 0
    for kind, title, code in BLOCK.findall((DOCS / page).read_text()):
        if kind in ("yaml", "json") and title:
            (tmp_path / title).write_text(code)
        elif kind == "diff":
            if title.endswith(".py"):
                ast.parse(before(code))
            if title.endswith(".mjs") and _node_is_missing():
                continue
            assert "Mock answer to: Hello" in machine.run("", title, after(code))
            ran += 1
        elif kind in ("bash", "python"):
            said = machine.run(kind, title, code)
            ran += 1
            if "chat.completions" in code or "chat/completions" in code:
                assert "Mock answer to: Hello" in said
    assert ran


def _node_is_missing() -> bool:
    missing = shutil.which("node") is None or not (NODE / "node_modules").exists()
    assert not (missing and os.environ.get("CI")), "Node.js' SDK is missing: make test installs it"
    return missing


def test_what_the_migration_pages_make_is_what_they_say(tmp_path: Path) -> None:
    page = (DOCS / "migrating" / "from-litellm.md").read_text()
    (text,) = [code for kind, title, code in BLOCK.findall(page) if title == "config.yaml"]
    (tmp_path / "config.yaml").write_text(text)
    done = subprocess.run(
        [KT, "migrate", "litellm", str(tmp_path / "config.yaml")], capture_output=True, text=True, check=True
    )
    targets = load_text(done.stdout, "policy-config.yaml").configuration.providers.targets
    assert [(target.model, target.provider, target.weight) for target in targets] == [
        ("gpt-4o", "azure-openai", 2),
        ("gpt-4o", "openai", 1),
        ("claude-sonnet", "anthropic", 1),
    ]
    assert {line.split(":")[1].strip() for line in done.stderr.splitlines()} >= {
        "litellm_settings.cache",
        "general_settings.master_key",
    }
