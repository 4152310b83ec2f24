"""The labelled data: records by task, from the fixtures or from any folder of the same form."""

from __future__ import annotations

import functools
import hashlib
import lzma
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

FIXTURES = Path(__file__).parents[2] / "fixtures" / "eval"

Task = Literal["injection", "pii", "secrets", "grounding", "quality"]


class Span(msgspec.Struct, frozen=True):
    """A value that is marked in a text, in characters, the end exclusive."""

    start: int
    end: int
    type: str


class Record(msgspec.Struct, frozen=True):
    """One text with its labels; `tests/fixtures/eval/README.md` explains the fields and which task has which."""

    id: str
    text: str
    source: str
    label: int = 0
    kind: str = ""
    spans: tuple[Span, ...] = ()
    scope: str = ""
    evidence: tuple[str, ...] = ()
    question: str | None = None
    prompt: str | None = None
    score: float | None = None

    @property
    def unseen(self) -> bool:
        """In the half that rules are not to be written on. Texts that are much alike may be on both sides."""
        return hashlib.sha256(self.id.encode()).digest()[0] >= 128


class Data:
    """A folder of records. `own` says that it is the project's, some of which rules were written on."""

    def __init__(self, folder: Path = FIXTURES) -> None:
        self._folder = folder
        self.own = folder == FIXTURES

    @functools.cache  # noqa: B019, there is one of it in a run
    def records(self, task: Task) -> Sequence[Record]:
        """All records of a task; none where the folder has no such file."""
        for name in (f"{task}.jsonl.xz", f"{task}.jsonl", f"{task}/{task}.jsonl", f"{task}/{task}.jsonl.xz"):
            path = self._folder / name
            if path.exists():
                text = lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes()
                return tuple(msgspec.json.decode(line, type=Record) for line in text.splitlines() if line)
        return ()
