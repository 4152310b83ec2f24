"""Every known case has a test that carries its code, or a reason why not; `docs/translation.md` counts them up."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
PAGE = (TESTS.parent / "docs" / "translation.md").read_text(encoding="utf-8")
KNOWN = PAGE.partition("\n## Known cases\n")[2]


def cases() -> set[str]:
    """The codes that the page counts up, as `A1` to `A30`."""
    ranges = re.findall(r"`([A-Z])1`\s+to\s+`\1(\d+)`", KNOWN)
    return {f"{group}{number}" for group, last in ranges for number in range(1, int(last) + 1)}


def excused() -> set[str]:
    """The codes in the page's table."""
    rows = re.findall(r"^\| ([A-Z0-9, ]+) \| (\S.{40,}) \|$", KNOWN, re.MULTILINE)
    return {code for codes, _ in rows for code in codes.split(", ")}


def carried() -> set[str]:
    """The codes in the names of tests."""
    names = [
        name
        for file in TESTS.rglob("test_*.py")
        if "node_modules" not in file.parts
        for name in re.findall(r"^\s*(?:async )?def (test_\w+)", file.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    return {code for name in names for code in name.split("_")[1:] if re.fullmatch(r"[A-FT][1-9]\d?", code)}


def test_the_page_counts_up_all_known_cases() -> None:
    assert len(cases()) == 128


def test_every_case_is_tested_or_excused() -> None:
    assert cases() - carried() - excused() == set()


def test_no_test_and_no_excuse_has_a_code_that_is_not_known() -> None:
    assert (carried() | excused()) - cases() == set()
