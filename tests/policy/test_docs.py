"""The policies' pages: examples run, every setting and every reason is explained, and nothing else."""

from __future__ import annotations

import re
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from policy.compile import KINDS

DOCS = Path(__file__).parents[2] / "docs"

Play = Callable[[str, dict[str, Any]], None]


def page(kind: str) -> str:
    return (DOCS / "policies" / f"{kind}.md").read_text()


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def test_every_kind_has_its_page() -> None:
    assert {path.stem for path in (DOCS / "policies").glob("*.md")} - {"README"} == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_the_example_runs(kind: str, play: Play) -> None:
    configuration, cases = map(yaml.safe_load, blocks(page(kind), "yaml"))
    assert configuration["policies"]["chain"] == [kind]
    for case in cases:
        play(kind, {"settings": configuration["policy"][kind], **case})


@pytest.mark.parametrize("kind", KINDS)
def test_every_setting_has_its_row(kind: str) -> None:
    assert re.findall(r"^\| `(\w+)` \|", page(kind), re.MULTILINE) == list(KINDS[kind].Settings.__struct_fields__)


@pytest.mark.parametrize("kind", KINDS)
def test_every_reason_has_its_heading(kind: str) -> None:
    reasons = page(kind).split("\n## Reasons\n")[1]
    assert re.findall(r"^### (.+)$", reasons, re.MULTILINE) == [*KINDS[kind].reasons, f"{kind}.error"]


def test_adding_a_policy_as_the_page_says(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (DOCS / "adding-a-policy.md").read_text()
    source, registration = blocks(text, "python")
    module = types.ModuleType("policy.text_limit")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(source, "policy/text_limit.py", "exec"), module.__dict__)
    monkeypatch.setitem(KINDS, "text-limit", None)  # so that the registration is undone after the test
    exec(registration, {"KINDS": KINDS, **module.__dict__})
    (cases,) = blocks(text, "yaml")
    for case in yaml.safe_load(cases):
        play("text-limit", case)
