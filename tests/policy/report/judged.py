"""One policy at work on the report's texts, by way of the pipeline that the gateway uses; and how long that takes."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec

from gateway.types import FailMode, Screening, Subject, TextPart
from policy.base import Pipeline
from policy.compile import compile_chain
from tests.policy.report.data import Data
from tests.policy.report.rows import Row, microseconds

SIZES = (1024, 4096, 32768)
_SUBJECT = Subject("report", configuration_id="report", model="m", operation="chat")


def pipeline(**settings: msgspec.Struct) -> Pipeline:
    """A chain of the kinds named, `_` for `-`, with these settings."""
    chosen = {kind.replace("_", "-"): value for kind, value in settings.items()}
    return compile_chain(tuple(chosen), chosen, fail_mode=FailMode.BLOCK, configuration_id="report")


def screened(chain: Pipeline, text: str) -> Screening:
    """What the chain says of one text that a user sent."""
    return chain.screen(_SUBJECT, [TextPart(text, "user", "message", "messages[0].content")])


def benign(data: Data) -> Sequence[str]:
    """Prompts without an attack, of all kinds."""
    return [record.text for record in data.records("injection") if not record.label]


def times(chain: Pipeline, data: Data, goals: dict[int, float]) -> Iterator[Row]:
    """The median time of ordinary texts, by size in bytes."""
    prose = " ".join(text for text in benign(data) if text.isascii())
    for size in SIZES:
        texts = list(itertools.islice(pieces(prose, size), 60))
        if texts:
            yield microseconds(f"median time, {size // 1024} KB", _median(chain, texts), goals.get(size))


def pieces(text: str, size: int) -> Iterator[str]:
    """A text in pieces of one size; what is left over is dropped."""
    return (text[at : at + size] for at in range(0, len(text) - size + 1, size))


def _median(chain: Pipeline, texts: Iterable[str]) -> float:
    """Each time the text ends in another letter: what a policy remembers of a text must not help it."""
    return statistics.median(
        min(_timed(lambda text=text[:-1] + letter: screened(chain, text)) for letter in "etaoins")  # type: ignore[misc]
        for text in texts
    )


def _timed(call: Callable[[], object]) -> float:
    began = time.perf_counter_ns()
    call()
    return (time.perf_counter_ns() - began) / 1000
