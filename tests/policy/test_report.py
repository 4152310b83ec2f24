"""The report's own arithmetic, and that it fails where a goal is missed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.policy.report.__main__ import main
from tests.policy.report.counts import Counts
from tests.policy.report.data import Data

MAIL = {
    "id": "1",
    "source": "made",
    "text": "é ann@corp.test",
    "spans": [{"start": 2, "end": 15, "type": "EMAIL_ADDRESS"}],
}
CLEAN = {"id": "2", "source": "made", "text": "nothing", "spans": [], "scope": "structured"}


def written(folder: Path, *records: object) -> list[str]:
    """The arguments to measure these records of personal data."""
    (folder / "pii.jsonl").write_text("\n".join(map(json.dumps, records)))
    return ["--data", str(folder), "--task", "pii"]


def test_counts() -> None:
    counts = Counts(found=3, wrong=1, missed=2, clean=3)
    assert counts.precision == 0.75
    assert counts.recall == 0.6
    assert counts.f1 == pytest.approx(2 / 3)
    assert counts.false_positive_rate == 0.25


def test_all_goals_held(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(written(tmp_path, MAIL, CLEAN)) == 0
    said = capsys.readouterr().out
    assert "found with exact ends                            1.000" in said
    assert "all goals held" in said


def test_a_missed_goal_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(written(tmp_path, MAIL, {**CLEAN, "text": "bob@corp.test"})) == 1
    assert "MISSED" in capsys.readouterr().out


def test_incomplete_labels_are_no_error(tmp_path: Path) -> None:
    assert main(written(tmp_path, MAIL, {**CLEAN, "text": "bob@corp.test", "scope": "partial"})) == 0


def test_no_data_is_an_error_of_its_own(tmp_path: Path) -> None:
    assert main(["--data", str(tmp_path), "--task", "pii"]) == 2


@pytest.mark.parametrize("task", ["injection", "pii", "secrets", "grounding", "quality"])
def test_the_fixtures_are_there(task: str) -> None:
    assert len(Data().records(task)) > 1000  # type: ignore[arg-type]
