"""Each line of the threat model names tests, and each of them exists."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "threat-model.md").read_text()
STRIDE = (
    "Spoofing",
    "Tampering",
    "Repudiation",
    "Information disclosure",
    "Denial of service",
    "Elevation of privilege",
)


def rows(section: str) -> list[str]:
    """The lines of a section's table, without its heading."""
    text = TEXT.split(f"\n## {section}\n", 1)[1].split("\n## ", 1)[0]
    return [line for line in text.splitlines() if line.startswith("| ")][2:]


@cache
def names_in(path: str) -> frozenset[str]:
    """The names of the tests in a file, those in classes included."""
    tree = ast.parse((ROOT / path).read_text())
    kinds = ast.FunctionDef | ast.AsyncFunctionDef
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, kinds) and node.name.startswith("test_"))


@pytest.mark.parametrize("section", STRIDE)
def test_every_line_names_tests_that_exist(section: str) -> None:
    found = rows(section)
    assert len(found) >= 4
    for row in found:
        threat, answer, tests = (cell.strip() for cell in row.strip("|").split(" | "))
        assert threat
        assert answer
        names = re.findall(r"`(tests/[a-z0-9_/]+\.py)::(test_\w+)`", tests)
        assert names, row
        assert ", ".join(f"`{path}::{name}`" for path, name in names) == tests, row
        missing = [
            f"{path}::{name}" for path, name in names if not (ROOT / path).is_file() or name not in names_in(path)
        ]
        assert not missing, missing


def test_what_does_not_stand_against_it_is_told() -> None:
    assert len(re.findall(r"^- \*\*", TEXT.split("\n## What does not stand against it\n", 1)[1], re.MULTILINE)) >= 4
