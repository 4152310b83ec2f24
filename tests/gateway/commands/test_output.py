"""Tables for people, JSON for programs."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from gateway.commands.output import fail, show, show_json, warn

ROWS = [
    {
        "id": "k1",
        "name": "a [red]name[/red]",
        "expires_at": datetime(2027, 1, 2, 3, 4, tzinfo=UTC),
        "models": ("m", "n"),
    },
    {"id": "k2", "name": "", "live": True, "rpm": 60, "models": []},
]


def test_a_table_has_a_heading_and_a_line_for_every_row(capsys: pytest.CaptureFixture[str]) -> None:
    show(ROWS, ["id", "name", "expires_at", "live", "rpm", "models"], as_json=False)
    lines = [line.split("  ") for line in capsys.readouterr().out.splitlines()]
    assert [[cell.strip() for cell in line if cell.strip()] for line in lines] == [
        ["ID", "NAME", "EXPIRES AT", "LIVE", "RPM", "MODELS"],
        ["k1", "a [red]name[/red]", "2027-01-02 03:04:00+00:00", "-", "-", "m, n"],
        ["k2", "-", "-", "yes", "60", "-"],
    ]


def test_a_piped_line_is_never_folded(capsys: pytest.CaptureFixture[str]) -> None:
    show([{"a": "x" * 500, "b": "y" * 500}], ["a", "b"], as_json=False)
    assert "x" * 500 + "  " + "y" * 500 in capsys.readouterr().out


def test_no_rows_leave_the_heading(capsys: pytest.CaptureFixture[str]) -> None:
    show([], ["id", "name"], as_json=False)
    assert capsys.readouterr().out.split() == ["ID", "NAME"]


def test_json_has_every_field(capsys: pytest.CaptureFixture[str]) -> None:
    show(ROWS, ["id"], as_json=True)
    first, second = json.loads(capsys.readouterr().out)
    assert first["expires_at"] == "2027-01-02T03:04:00+00:00"
    assert second == {"id": "k2", "name": "", "live": True, "rpm": 60, "models": []}


def test_json_of_one_value(capsys: pytest.CaptureFixture[str]) -> None:
    show_json({"a": {1}})
    assert json.loads(capsys.readouterr().out) == {"a": "{1}"}


def test_warnings_and_failures_go_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    warn("odd")
    with pytest.raises(SystemExit) as left:
        fail("no", code=2)
    assert left.value.code == 2
    assert capsys.readouterr() == ("", "warning: odd\nerror: no\n")
