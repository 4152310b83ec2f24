"""The README's own commands, in its own order, against a real gateway that `examples/policy-config.yaml` configures.

Only what names this machine is replaced: the path of `kt`, the port, and the key that the README cannot know. The two
commands that set a machine up (`console` blocks) are what CI itself begins with.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.gateway_process import KT, running_gateway

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(bash|python)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_every_block_of_code_is_of_a_kind_that_is_run() -> None:
    kinds = re.findall(r"^```(\w+)$", README, re.MULTILINE)
    assert set(kinds) == {"bash", "python", "console"}
    assert [command for command in re.findall(r"^\$ (.*)", README, re.MULTILINE) if "apt-get" not in command] == [
        "make setup",
        "make run",
    ]


def test_the_readme_works_as_it_is_written(tmp_path: Path) -> None:
    example = (ROOT / "examples/policy-config.yaml").read_text()
    with running_gateway(tmp_path, example) as gateway:
        key = ""
        for kind, code in BLOCKS:
            code = code.replace("http://localhost:41002", gateway.url).replace("kt_gk_…", key)
            code = code.replace(".venv/bin/kt", KT)
            command = ["bash", "-euo", "pipefail", "-c", code] if kind == "bash" else [sys.executable, "-c", code]
            done = subprocess.run(
                command, cwd=tmp_path, env=gateway.environment, capture_output=True, text=True, timeout=60, check=False
            )
            assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"
            if "gateway-key create" in code:
                key = re.search(r"kt_gk_\w+", done.stdout)[0]  # type: ignore[index]
            elif "curl" in code or kind == "python":
                assert "Mock answer to: Hello" in done.stdout
        assert key


def test_links_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
            if "://" not in link:
                assert (page.parent / link).exists(), f"{page.relative_to(ROOT)} links to {link}"
