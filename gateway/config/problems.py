"""What can be wrong with a configuration, and how it is said: file, line, column, path, message, nearest spelling.

A reader of a file collects all its problems before it gives up, so that a person mends them in one go. This module
knows neither YAML nor the settings.
"""

from __future__ import annotations

import difflib
import enum
from collections.abc import Iterable, Sequence

from msgspec import Struct


class Severity(enum.StrEnum):
    """Whether the file cannot be used, or can be used but likely does not do what its author thinks."""

    ERROR = "error"
    WARNING = "warning"


class Problem(Struct, frozen=True):
    """One thing that is wrong. `line` and `column` count from 1 and are 0 where the whole file is meant.

    `path` is the setting (`policies.chain[0]`), empty for the file itself. `hint` says what would be right, if known.
    """

    file: str
    line: int
    column: int
    path: str
    message: str
    hint: str = ""
    severity: Severity = Severity.ERROR

    @property
    def place(self) -> str:
        """`file:line:column`, as editors and terminals make it a link."""
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file

    def __str__(self) -> str:
        path = f"{self.path}: " if self.path else ""
        hint = f" ({self.hint})" if self.hint else ""
        return f"{self.place}: {self.severity}: {path}{self.message}{hint}"


class ConfigurationInvalid(Exception):
    """A configuration cannot be used. `problems` has at least one error, and the warnings found on the way."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(problems)
        self.problems = tuple(problems)

    def __str__(self) -> str:
        return "\n".join(map(str, self.problems))


def in_order(problems: Iterable[Problem]) -> list[Problem]:
    """By file, then by place in it."""
    return sorted(problems, key=lambda problem: (problem.file, problem.line, problem.column))


def nearest(word: str, known: Iterable[str]) -> str:
    """The known word that `word` was probably meant to be, or an empty string. Case, `-` and `_` do not count."""
    by_shape = {_shape(candidate): candidate for candidate in known}
    # A pasted page instead of a word has no near spelling, and comparing it would cost time.
    matches = difflib.get_close_matches(_shape(word), by_shape, n=1, cutoff=0.6) if len(word) <= 128 else []
    return by_shape[matches[0]] if matches else ""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint for an unknown word: its nearest spelling, else all known words while they are few."""
    known = sorted(known)
    if match := nearest(word, known):
        return f"did you mean `{match}`?"
    return f"known: {', '.join(known)}" if 0 < len(known) <= 20 else ""


def _shape(word: str) -> str:
    return word.lower().replace("_", "-")
