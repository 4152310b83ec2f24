"""`secret-detector` on published test fixtures of secrets, their near misses, lock files, code and ordinary prompts.

A text counts as found when anything in it is redacted. `values left` is the share of marked values that still stand
in the redacted text as a whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from policy.base import Pipeline
from policy.secret_detector import SecretDetectorSettings
from tests.policy.report.counts import Counts
from tests.policy.report.data import Data, Record
from tests.policy.report.judged import benign, pipeline, screened, times
from tests.policy.report.rows import Row, at_least, at_most


@dataclass
class _Tally:
    counts: Counts = field(default_factory=Counts)
    values: int = 0
    left: int = 0


def measure(data: Data) -> Iterator[Row]:
    """Goals on all texts, and again on the half that was set aside; then by source."""
    records = data.records("secrets")
    if not records:
        return
    chain = pipeline(secret_detector=SecretDetectorSettings())
    yield from _goals("all texts", _judged(chain, records))
    if data.own:
        yield from _goals("half set aside", _judged(chain, (record for record in records if record.unseen)))
    for source in sorted({record.source for record in records}):
        counts = _judged(chain, (record for record in records if record.source == source)).counts
        yield Row(
            f"{source}: F1 (found, wrong, missed, clean)",
            f"{counts.f1:.3f}",
            f"{counts.found}, {counts.wrong}, {counts.missed}, {counts.clean}",
        )
    if prompts := benign(data):
        touched = sum(bool(screened(chain, text).replacements) for text in prompts)
        yield at_most("benign prompts touched", touched / len(prompts), 0.001)
    yield from times(chain, data, {4096: 40.0})


def _goals(name: str, tally: _Tally) -> Iterator[Row]:
    yield at_least(f"{name}: F1", tally.counts.f1, 0.93)
    yield Row(f"{name}: precision", f"{tally.counts.precision:.3f}")
    yield Row(f"{name}: recall", f"{tally.counts.recall:.3f}")
    yield at_most(f"{name}: near misses flagged", tally.counts.false_positive_rate, 0.08)
    yield at_most(f"{name}: values left in the text", tally.left / max(1, tally.values), 0.08)


def _judged(chain: Pipeline, records: Iterable[Record]) -> _Tally:
    tally = _Tally()
    for record in records:
        replaced = screened(chain, record.text).replacements
        tally.counts.found += bool(record.label and replaced)
        tally.counts.missed += bool(record.label and not replaced)
        tally.counts.wrong += bool(not record.label and replaced)
        tally.counts.clean += bool(not record.label and not replaced)
        text = replaced.get(0, record.text)
        tally.values += len(record.spans)
        tally.left += sum(record.text[span.start : span.end] in text for span in record.spans)
    return tally
