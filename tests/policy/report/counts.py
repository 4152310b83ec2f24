"""Counts of right and wrong answers, and the shares that are made of them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Counts:
    """How often something was found rightly, found wrongly, and missed; and how often there was rightly nothing."""

    found: int = 0
    wrong: int = 0
    missed: int = 0
    clean: int = 0

    @property
    def precision(self) -> float:
        """Of what was found, how much was right."""
        return _share(self.found, self.wrong)

    @property
    def recall(self) -> float:
        """Of what there is, how much was found."""
        return _share(self.found, self.missed)

    @property
    def f1(self) -> float:
        """The harmonic mean of the two."""
        return _share(2 * self.found, self.wrong + self.missed)

    @property
    def false_positive_rate(self) -> float:
        """Of what is clean, how much was touched."""
        return 1 - _share(self.clean, self.wrong)


def _share(part: int, rest: int) -> float:
    return part / (part + rest) if part + rest else 1.0
