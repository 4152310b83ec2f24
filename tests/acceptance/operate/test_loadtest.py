"""`make soak` and `make loadtest`, for a few seconds each: they start, measure, judge and report."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.operate.tools import ROOT

SCENARIOS = {"short chat", "32 KB prompt", "long stream (head)", "refused by policy", "over limit"}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=170, check=False)


@pytest.mark.timeout(180)
def test_a_short_soak_holds_and_shows_how_it_goes(tmp_path: Path) -> None:
    report = tmp_path / "soak.json"
    done = run("loadtest.soak", "--seconds", "6", "--users", "8", "--every", "1", "--report", str(report))
    told = json.loads(report.read_text())
    broken = [verdict["what"] for verdict in told["verdicts"] if not verdict["held"]]
    # How late a loop is on a machine that does other things, too, is no fault of the gateway.
    assert [what for what in broken if what != "loop lag, p99"] == [], done.stdout
    assert done.returncode == (1 if broken else 0)
    assert told["counts"]["events"] > 0
    assert {process["role"] for process in told["samples"][0]["processes"]} == {"supervisor", "control", "worker"}
    assert done.stdout.count(" answered ") >= 6


@pytest.mark.timeout(180)
def test_every_scenario_runs_and_a_report_with_plots_is_written(tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    done = run(
        *("loadtest.run", "--seconds", "8", "--users", "28", "--report", str(report)),
        *("--ttft-ms", "20", "--gap-ms", "5", "--chunks", "20"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    text = report.read_text()
    for name in (*SCENARIOS, "TTFT", "gap"):
        assert name in text, name
    assert re.search(r"^WS +TTFT ", done.stdout + done.stderr, re.MULTILINE)
    assert "echarts" in text, "Locust's plots"
