"""What a comparison shows a person: one table per scenario, one of the gates."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from rich.table import Table

from loadtest.gates import BASELINE, Scenario, Verdict


def _figure(value: float, digits: int = 1) -> str:
    return "–" if math.isnan(value) else f"{value:,.{digits}f}"


def scenario_table(scenario: Scenario) -> Table:
    """One scenario, one line per side."""
    streaming = scenario.unit == "event"
    table = Table(
        title=f"{scenario.name}: per {scenario.unit}, medians of {_rounds(scenario)} rounds", title_justify="left"
    )
    table.add_column("side")
    latency = ("added p50 µs", "added p99 µs") + (("added TTFT p50", "added TTFT p99") if streaming else ())
    for heading in ("CPU µs", "× nginx", "all processes µs", "core busy", f"{scenario.unit}s/s", *latency):
        table.add_column(heading, justify="right")
    for side in scenario.slices:
        ratios = scenario.ratios(side, "cpu")
        wanted = ("p50", "p99", "first_p50", "first_p99") if streaming else ("p50", "p99")
        table.add_row(
            side,
            _figure(scenario.median(side, "cpu")),
            _figure(statistics.median(ratios), 2) if ratios else "–",
            _figure(scenario.median(side, "cpu_all")),
            _figure(100 * scenario.median(side, "busy"), 0) + " %" if side != BASELINE else "–",
            _figure(scenario.median(side, "per_second"), 0),
            *(_figure(scenario.added(side, what), 0) if side != BASELINE else "–" for what in wanted),
        )
    return table


def _rounds(scenario: Scenario) -> int:
    return max(map(len, scenario.slices.values()), default=0)


def gate_table(verdicts: Sequence[Verdict]) -> Table:
    """The gates: what was promised and what was measured."""
    table = Table(title="Gates: CPU of the worker, × nginx in the same round", title_justify="left")
    table.add_column("gate")
    for heading in ("measured", "lowest", "highest", "gate", "aim"):
        table.add_column(heading, justify="right")
    table.add_column("")
    for verdict in verdicts:
        digits = 0 if verdict.gate.absolute else 2
        figures = (verdict.measured, verdict.low, verdict.high, verdict.gate.gate, verdict.gate.aim)
        colour = {"aim": "green", "gate": "yellow", "missed": "red"}.get(verdict.word, "dim")
        table.add_row(verdict.gate.name, *(_figure(figure, digits) for figure in figures), f"[{colour}]{verdict.word}")
    return table
