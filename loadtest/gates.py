"""Slices put together: scenarios in rounds, ratios to nginx within a round, and the gates they are held against.

Sides take turns, and each ratio is taken between slices of the same round, so a machine that slows down for a while
slows both and the ratio stands. This module starts and prints nothing.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from loadtest.slices import Side, Slice

YARDSTICK: Final = "nginx"
BASELINE: Final = "direct"
RATE: Final = "1 KB at 1000/s"
"""The scenario of a fixed rate, at the rate that the gates are about."""


@dataclass
class Scenario:
    """One kind of load, and which sides it is put on."""

    name: str
    unit: str
    sides: Sequence[Side]
    measure: Callable[[Side], Slice]
    slices: dict[str, list[Slice]] = field(default_factory=dict)

    def round(self, number: int) -> None:
        """One slice of each side; the order turns from round to round."""
        turn = number % len(self.sides)
        for side in (*self.sides[turn:], *self.sides[:turn]):
            self.slices.setdefault(side.name, []).append(self.measure(side))

    def values(self, side: str, what: str) -> list[float]:
        """One figure of a side, round by round."""
        return [getattr(piece, what) for piece in self.slices.get(side, [])]

    def median(self, side: str, what: str) -> float:
        """The median over the rounds."""
        values = self.values(side, what)
        return statistics.median(values) if values else math.nan

    def ratios(self, side: str, what: str) -> list[float]:
        """A figure as a multiple of nginx's in the same round."""
        pairs = zip(self.values(side, what), self.values(YARDSTICK, what), strict=False)
        return [own / other for own, other in pairs if other]

    def added_ratios(self, side: str, what: str) -> list[float]:
        """What a side adds to direct as a multiple of what nginx adds, in the same round."""
        rows = zip(self.values(side, what), self.values(YARDSTICK, what), self.values(BASELINE, what), strict=False)
        return [(own - base) / (other - base) for own, other, base in rows if other > base]

    def added(self, side: str, what: str) -> float:
        """The median of what a side adds to direct, round by round."""
        pairs = zip(self.values(side, what), self.values(BASELINE, what), strict=False)
        differences = [own - other for own, other in pairs]
        return statistics.median(differences) if differences else math.nan


@dataclass(frozen=True)
class Gate:
    """A promise: what a side may cost or add at most, as a multiple of nginx's, or in microseconds.

    `what` names the figure: `cpu`, or a latency, of which what is added to direct counts.
    """

    name: str
    scenario: str
    side: str
    gate: float
    aim: float
    absolute: bool = False
    what: str = "cpu"


GATES: Final = (
    Gate("1 KB, key, limits, audit", "1 KB", "gateway default", 1.8, 1.5),
    Gate("1 KB, with scan", "1 KB", "gateway scan", 2.0, 1.75),
    Gate("SSE chunk passed through", "stream", "gateway default", 1.35, 1.15),
    Gate("SSE, every event decoded", "stream", "gateway decode", 1.8, 1.4),
    Gate("32 KB", "32 KB", "gateway default", 2.2, 1.7),
    Gate("32 KB, with scan", "32 KB", "gateway scan", 4.2, 3.5),
    Gate("256 KB (µs)", "256 KB", "gateway default", 150.0, 120.0, absolute=True),
    Gate("added latency, p50", RATE, "gateway default", 1.5, 1.25, what="p50"),
    Gate("added latency, p99", RATE, "gateway default", 2.5, 2.0, what="p99"),
    Gate("added TTFT, p50", "stream", "gateway default", 1.5, 1.25, what="first_p50"),
    Gate("added TTFT, p99", "stream", "gateway default", 2.5, 2.0, what="first_p99"),
    Gate("added gap, p50", "stream", "gateway default", 1.5, 1.25, what="p50"),
    Gate("added gap, p99", "stream", "gateway default", 2.5, 2.0, what="p99"),
    Gate("added TTFT, six policies and guard, p50", "stream", "gateway six", 3.0, 2.5, what="first_p50"),
    Gate("added TTFT, six policies and guard, p99", "stream", "gateway six", 5.0, 4.0, what="first_p99"),
    Gate("added gap, six policies and guard, p50", "stream", "gateway six", 3.0, 2.5, what="p50"),
    Gate("added gap, six policies and guard, p99", "stream", "gateway six", 5.0, 4.0, what="p99"),
)


@dataclass(frozen=True)
class Verdict:
    """A gate beside what was measured."""

    gate: Gate
    measured: float
    low: float
    high: float

    @property
    def word(self) -> str:
        """`aim`, `gate`, `missed`, or `not measured`."""
        if math.isnan(self.measured):
            return "not measured"
        if self.measured <= self.gate.aim:
            return "aim"
        return "gate" if self.measured <= self.gate.gate else "missed"


def judge(gate: Gate, scenarios: Mapping[str, Scenario]) -> Verdict:
    """Compare one gate with its scenario's slices."""
    scenario = scenarios.get(gate.scenario)
    values: list[float] = []
    if scenario is not None and gate.what != "cpu":
        values = scenario.added_ratios(gate.side, gate.what)
    elif scenario is not None:
        values = scenario.values(gate.side, "cpu") if gate.absolute else scenario.ratios(gate.side, "cpu")
    values = [value for value in values if not math.isnan(value)]
    if not values:
        return Verdict(gate, math.nan, math.nan, math.nan)
    return Verdict(gate, statistics.median(values), min(values), max(values))
