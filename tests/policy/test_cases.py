"""Every kind's cases, as they stand in `cases/<kind>.yaml`, on both engines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from policy.compile import KINDS

CASES = Path(__file__).parent / "cases"


def _cases() -> list[Any]:
    return [
        pytest.param(path.stem, case, id=f"{path.stem}: {case['name']}")
        for path in sorted(CASES.glob("*.yaml"))
        for case in yaml.safe_load(path.read_text())
    ]


@pytest.mark.parametrize(("kind", "case"), _cases())
def test_case(kind: str, case: dict[str, Any], play: Any) -> None:
    play(kind, case)


def test_every_kind_has_cases() -> None:
    assert {path.stem for path in CASES.glob("*.yaml")} == set(KINDS)
