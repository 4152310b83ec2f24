"""What a policy is: the seam between the gateway and a check.

A policy is one file, named as in the configuration (`dlp-filter` is `dlp_filter.py`). It is an ordinary class that *is*
the hooks it defines: `on_request` sees all texts that go to the model, `on_completion` all texts that came back. A chain
is compiled once into a `Pipeline`; a request only walks its tuples. Policies are pure: no socket, no clock, no
environment, and of the gateway they know only its nouns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Protocol

import msgspec

from gateway.types import Delivery, Phase, Screening, Subject, TextPart, Verdict


class Pipeline(Protocol):
    """A chain, compiled: immutable, shared by all keys that are bound to the configuration, safe in any thread."""

    version: str
    delivery: Delivery
    reads_input: bool
    """Some policy reads what goes to the model. If False, `screen` need not be called, nor texts be extracted."""
    reads_output: bool
    audits: bool
    """`audit-logger` is in the chain."""

    def screen(self, subject: Subject, texts: Sequence[TextPart]) -> Screening:
        """The input phase. Never raises: an error inside a policy becomes what the fail mode says."""
        ...

    def review(self, subject: Subject, texts: Sequence[TextPart], *, delivered: bool = False) -> Screening:
        """The output phase, on the complete answer. Never raises.

        `delivered` says that the client has the texts already (a stream under `hold_done`): then it is too late to
        redact, and a redaction becomes a block.
        """
        ...

    def scan_cost_bytes(self, texts: Sequence[TextPart]) -> int:
        """How much there is to scan, at most. Above `INLINE_BYTES`, call `screen` and `review` in a thread."""
        ...


INLINE_BYTES = 256 * 1024
"""What one scan may cost on the event loop: 256 KB take about half a millisecond (measured in `scan.py`)."""


class Redaction(msgspec.Struct, frozen=True, gc=False):
    """Put `replacement` in the place of bytes `start` to `end` of the UTF-8 form of text part `part`."""

    part: int
    start: int
    end: int
    replacement: str


class Ruling(msgspec.Struct, frozen=True):
    """What one hook says. `reason`, `detail` and `message` are as in `Decision` and `Screening`."""

    verdict: Verdict = Verdict.ALLOW
    reason: str = ""
    detail: str = ""
    message: str = ""
    redactions: tuple[Redaction, ...] = ()


class Problem(msgspec.Struct, frozen=True):
    """One fault in a policy's settings. `path` is relative to them: `patterns[0].regex`."""

    path: str
    message: str


class PolicyConfigError(ValueError):
    """A chain cannot be compiled. The paths of `problems` count from the root of the configuration file."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("; ".join(f"{problem.path}: {problem.message}" for problem in problems))
        self.problems = tuple(problems)


class Pattern(msgspec.Struct, frozen=True):
    """One regular expression that a policy wants found, in the syntax that `scan.py` describes."""

    regex: str
    whole_word: bool = False
    """Only where no word goes on beyond the match, in any script."""


class Match(msgspec.Struct, frozen=True, gc=False):
    """A match of the policy's own pattern number `pattern` at bytes `start` to `end` of text part `part` (UTF-8)."""

    part: int
    start: int
    end: int
    pattern: int


class View(msgspec.Struct, frozen=True):
    """What a hook sees: the texts of one phase, and the matches of its own patterns, in order of place."""

    texts: Sequence[TextPart]
    matches: tuple[Match, ...] = ()


Hook = Callable[[Subject, View], Ruling]


class Policy(Protocol):
    """One policy of a compiled chain.

    Made once from its settings. `patterns` are put into the one database of the chain; a policy that has patterns is
    asked only when one of them matched, a policy that has none is asked for every exchange.
    """

    kind: ClassVar[str]
    Settings: ClassVar[type[msgspec.Struct]]

    @classmethod
    def check(cls, settings: msgspec.Struct) -> list[Problem]:
        """Faults in `settings` that its types cannot express."""
        ...

    @property
    def patterns(self) -> tuple[Pattern, ...]:
        """What to look for."""
        ...

    @property
    def hooks(self) -> Mapping[Phase, Hook]:
        """What to call in which phase; empty for a policy that does not judge."""
        ...
