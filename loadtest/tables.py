"""What a comparison shows a person: one table per scenario, one of the gates."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

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
    latency = ["added p50 µs", "added p99 µs"]
    if streaming:
        latency += ["added TTFT p50", "added TTFT p99", "KB a stream"]
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
            *([_figure(scenario.median(side, "stream_bytes") / 1024)] if streaming else []),
        )
    return table


def process_table(resident: Mapping[str, float], started: Mapping[str, float]) -> Table:
    """What each side's process takes before there is traffic."""
    table = Table(title="Processes before traffic: the worker alone", title_justify="left")
    for heading in ("process", "resident MB", "start to accepting, s"):
        table.add_column(heading, justify="left" if heading == "process" else "right")
    for name, size in resident.items():
        took = started.get(name.partition(" ")[0], math.nan)
        table.add_row(name.replace(" bare", ""), _figure(size / 2**20), _figure(took, 2))
    return table


def _rounds(scenario: Scenario) -> int:
    return max(map(len, scenario.slices.values()), default=0)


def gate_table(verdicts: Sequence[Verdict]) -> Table:
    """The gates: what was promised and what was measured."""
    table = Table(
        title="Gates: × nginx in the same round, of the worker's CPU or of the latency added to direct",
        title_justify="left",
    )
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
