"""What a task of the report returns: rows of a name, a figure, and the goal that it holds or misses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple


class Row(NamedTuple):
    """One line of the report. `held` is None where a figure has no goal."""

    name: str
    figure: str
    goal: str = ""
    held: bool | None = None


def at_least(name: str, figure: float, goal: float) -> Row:
    """A share that should be high."""
    return Row(name, f"{figure:.3f}", f">= {goal:.3f}", figure >= goal)


def at_most(name: str, figure: float, goal: float) -> Row:
    """A share that should be low."""
    return Row(name, f"{figure:.2%}", f"<= {goal:.2%}", figure <= goal)


def microseconds(name: str, figure: float, goal: float | None = None) -> Row:
    """A time; without a goal, for the reader."""
    if goal is None:
        return Row(name, f"{figure:.1f} us")
    return Row(name, f"{figure:.1f} us", f"<= {goal:.0f} us", figure <= goal)


def printed(task: str, rows: Iterable[Row]) -> Iterator[str]:
    """The rows as lines of text."""
    yield f"{task}"
    for row in rows:
        mark = {None: "", True: "held", False: "MISSED"}[row.held]
        yield f"  {row.name:<52} {row.figure:>12}  {row.goal:<12} {mark}".rstrip()
