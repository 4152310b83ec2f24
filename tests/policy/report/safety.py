"""`safety-filter`: how often it fires on harmless texts, which it is made not to, and on harmful requests.

Its expressions were written with the open data at hand, so the second figure flatters.
"""

from __future__ import annotations

from collections.abc import Iterator

from gateway.types import Verdict
from policy.safety_filter import SafetyFilterSettings
from tests.policy.report.data import Data
from tests.policy.report.judged import pipeline, screened, times
from tests.policy.report.rows import Row, at_most


def measure(data: Data) -> Iterator[Row]:
    """By kind of harmless text; then the harmful requests, and the time of ordinary texts."""
    records = [record for record in data.records("injection") if not record.label]
    if not records:
        return
    chain = pipeline(safety_filter=SafetyFilterSettings())
    fired = {record.id: screened(chain, record.text).verdict is not Verdict.ALLOW for record in records}
    harmful = [record for record in records if record.kind == "harmful_not_injection"]
    harmless = [record for record in records if record.kind != "harmful_not_injection"]
    for source in sorted({record.source for record in harmless}):
        own = [record for record in harmless if record.source == source]
        yield at_most(f"harmless, {source}: fired", sum(fired[record.id] for record in own) / len(own), 0.01)
    if harmful:
        yield Row("harmful requests: fired", f"{sum(fired[record.id] for record in harmful) / len(harmful):.1%}")
    yield from times(chain, data, {})
