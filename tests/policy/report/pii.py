"""`pii-detector` on structured personal data: mail, telephone, card, social security, bank account, network address.

A marked value is found when the policy redacts some of it; `exact` counts those of which it redacts just the marked
characters. What is redacted and not marked is wrong, unless the record's labels are incomplete (`scope: partial`).
Other types are marked too (names, places): a redaction inside one of those is counted as wrong.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from gateway.types import Subject, TextPart
from policy.base import Redaction, View
from policy.pii_detector import PiiDetector, PiiDetectorSettings
from policy.scan import scanner
from tests.policy.report.counts import Counts
from tests.policy.report.data import Data, Record
from tests.policy.report.judged import benign, pipeline, screened, times
from tests.policy.report.rows import Row, at_least, at_most

STRUCTURED = frozenset(("EMAIL_ADDRESS", "PHONE_NUMBER", "CREDIT_CARD", "US_SSN", "IBAN_CODE", "IP_ADDRESS"))
_SUBJECT = Subject("report", configuration_id="report", model="m", operation="chat")


@dataclass
class _Tally:
    counts: Counts = field(default_factory=Counts)
    exact: int = 0
    types: dict[str, Counts] = field(default_factory=dict)
    texts: int = 0
    touched: int = 0


def measure(data: Data) -> Iterator[Row]:
    """Goals on all texts, and again on the half that was set aside; then by source and by type."""
    records = data.records("pii")
    if not records:
        return
    yield from _goals("all texts", _judged(records))
    if data.own:
        yield from _goals("half set aside", _judged(record for record in records if record.unseen))
    for source in sorted({record.source for record in records}):
        counts = _judged(record for record in records if record.source == source).counts
        yield Row(
            f"{source}: F1 (found, wrong, missed)",
            f"{counts.f1:.3f}",
            f"{counts.found}, {counts.wrong}, {counts.missed}",
        )
    for name, counts in sorted(_judged(records).types.items()):
        yield Row(f"{name}: recall", f"{counts.recall:.3f}")
    chain = pipeline(pii_detector=PiiDetectorSettings())
    prompts = benign(data)
    touched = sum(bool(screened(chain, text).replacements) for text in prompts)
    if prompts:
        yield Row("benign prompts touched", f"{touched / len(prompts):.2%}")
    yield from times(chain, data, {4096: 40.0})


def _goals(name: str, tally: _Tally) -> Iterator[Row]:
    yield at_least(f"{name}: F1", tally.counts.f1, 0.95)
    yield at_least(f"{name}: precision", tally.counts.precision, 0.98)
    yield Row(f"{name}: recall", f"{tally.counts.recall:.3f}")
    yield Row(f"{name}: found with exact ends", f"{tally.exact / max(1, tally.counts.found):.3f}")
    yield at_most(f"{name}: clean texts touched", tally.touched / max(1, tally.texts), 0.005)


def _judged(records: Iterable[Record]) -> _Tally:
    policy = PiiDetector(PiiDetectorSettings())
    tally = _Tally()
    for record in records:
        _compare(tally, record, _redactions(policy, record.text))
    return tally


def _redactions(policy: PiiDetector, text: str) -> tuple[Redaction, ...]:
    parts = [TextPart(text, "user", "message", "messages[0].content")]
    return policy.on_request(_SUBJECT, View(parts, scanner(policy.patterns).find(parts))).redactions


def _compare(tally: _Tally, record: Record, redactions: tuple[Redaction, ...]) -> None:
    marked = [(*_bytes(record.text, span.start, span.end), span.type) for span in record.spans]
    wanted = [span for span in marked if span[2] in STRUCTURED]
    places = {(one.start, one.end) for one in redactions}
    right: set[tuple[int, int]] = set()
    for start, end, name in wanted:
        hits = {place for place in places if place[0] < end and start < place[1]}
        right |= hits
        tally.exact += (start, end) in places
        for counts in (tally.counts, tally.types.setdefault(name, Counts())):
            counts.found += bool(hits)
            counts.missed += not hits
    for place in places - right:
        tally.counts.wrong += record.scope != "partial" or any(
            place[0] < end and start < place[1] for start, end, _ in marked
        )
    if not wanted and record.scope != "partial":
        tally.texts += 1
        tally.touched += bool(places)


def _bytes(text: str, start: int, end: int) -> tuple[int, int]:
    return len(text[:start].encode()), len(text[:end].encode())
