"""`citation-verifier` and `quality-scorer`: what is judged of answers, on labelled texts and on made cases.

Support is measured as the chance that a supported claim scores higher than an unsupported one (AUC). Fabrications are
made here: references beyond the last source, and quotations of the data's own passages with one word changed.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from gateway.types import TextPart
from policy.citation_verifier import CitationVerifier, CitationVerifierSettings
from policy.citations import Source, Sources, finder, normal, parse, quote_share
from policy.defects import repetition
from policy.grounding import read_passage, support
from policy.quality_scorer import QualityScorer, QualityScorerSettings
from policy.refusal import refusal_score
from tests.policy.report.counts import Counts
from tests.policy.report.data import Data, Record
from tests.policy.report.fit import claim, claims, refusals
from tests.policy.report.rows import Row, at_least, at_most, microseconds

MADE_QUOTES = 400


def measure_citations(data: Data) -> Iterator[Row]:
    """Support by collection, fabrications, and the time of a whole answer."""
    records = claims(data)
    if not records:
        return
    scored = [(record, _support(record)) for record in records]
    yield at_least("support, all claims: AUC", _auc(scored), 0.85)
    if data.own:
        yield at_least("support, unseen half: AUC", _auc([pair for pair in scored if pair[0].unseen]), 0.85)
    for kind in sorted({record.kind for record in records}):
        yield Row(f"support, {kind}: AUC", f"{_auc([pair for pair in scored if pair[0].kind == kind]):.3f}")
    least = CitationVerifierSettings().min_support
    for label, name in ((0, "unsupported"), (1, "supported")):
        own = [score for record, score in scored if record.label == label]
        yield Row(f"{name} claims flagged", f"{sum(score < least for score in own) / max(1, len(own)):.1%}")
    passages = [text for record in records for text in record.evidence]
    yield from _quotes(passages)
    yield from _references()
    yield microseconds("median time, answer of 4 KB with five citations", _time(passages), 1500.0)


def measure_quality(data: Data) -> Iterator[Row]:
    """Refusals by source, and answers that only repeat."""
    records = refusals(data)
    if not records:
        return
    for source in sorted({record.source for record in records}):
        yield from _refusals(
            source, [record for record in records if record.source == source], goals="xstest" in source
        )
    yield from _refusals("all", records, goals=False)
    if data.own:
        yield from _refusals("unseen half", [record for record in records if record.unseen], goals=True)
    degenerate = [record for record in data.records("quality") if record.kind == "degenerate_weak"]
    if degenerate:
        counts = _counted(degenerate, lambda text: bool(repetition(text)))
        yield Row("repetition: recall", f"{counts.recall:.3f}")
        yield Row("repetition: false positives", f"{counts.false_positive_rate:.2%}")


def _support(record: Record) -> float:
    return support(claim(record), read_passage("\n".join(record.evidence)), record.question or "")


def _auc(scored: Sequence[tuple[Record, float]]) -> float:
    """The share of pairs of a supported and an unsupported claim that are in order; half for equal scores."""
    good = [score for record, score in scored if record.label]
    bad = [score for record, score in scored if not record.label]
    right = sum((one > other) + 0.5 * (one == other) for one in good for other in bad)
    return right / max(1, len(good) * len(bad))


def _quotes(passages: Sequence[str]) -> Iterator[Row]:
    """Quotations of 5 to 20 words as they stand, and with one word changed, left out or put in."""
    rng = random.Random(7)
    found = missed = flagged = 0
    for passage in passages:
        words = normal(passage).split()
        if len(words) < 40 or found + missed >= MADE_QUOTES:
            continue
        occurs = finder([passage])
        start, length = rng.randrange(len(words) - 20), rng.randrange(5, 21)
        quote = words[start : start + length]
        flagged += quote_share(" ".join(quote), occurs) < 1
        at = rng.randrange(1, length - 1)
        for made in (
            [*quote[:at], "zebra", *quote[at + 1 :]],
            quote[:at] + quote[at + 1 :],
            [*quote[:at], "not", *quote[at:]],
        ):
            if f" {' '.join(made)} " in f" {' '.join(words)} ":
                continue
            if quote_share(" ".join(made), occurs) < 1:
                found += 1
            else:
                missed += 1
    yield Row("fabricated quotations missed", f"{missed} of {found + missed}", "0", missed == 0)
    yield Row("true quotations flagged", str(flagged), "0", flagged == 0)


def _references() -> Iterator[Row]:
    """Numbers up to and beyond the last source, in four notations."""
    rng = random.Random(7)
    missed = flagged = made = 0
    for _ in range(500):
        count = rng.randint(1, 9)
        sources = Sources([Source("\n".join(f"[{n}] Fact number {n}." for n in range(1, count + 1)))])
        number = rng.randint(1, 15)
        answer = f"So it is {rng.choice(('[{}]', '[^{}]', '[doc{}]', '【{}†source】')).format(number)}."
        unresolved = any(sources.passages(key) is None for citation in parse(answer) for key in citation.keys)
        made += number > count
        missed += number > count and not unresolved
        flagged += number <= count and unresolved
    yield Row("fabricated references missed", f"{missed} of {made}", "0", missed == 0)
    yield Row("true references flagged", str(flagged), "0", flagged == 0)


def _refusals(name: str, records: Sequence[Record], *, goals: bool) -> Iterator[Row]:
    counts = _counted(records, lambda text: refusal_score(text) > 0)
    if goals:
        yield at_least(f"refusals, {name}: F1", counts.f1, 0.90)
        yield at_most(f"refusals, {name}: false positives", counts.false_positive_rate, 0.06)
    else:
        yield Row(f"refusals, {name}: F1", f"{counts.f1:.3f}")
        yield Row(f"refusals, {name}: false positives", f"{counts.false_positive_rate:.2%}")


def _counted(records: Iterable[Record], says: Callable[[str], bool]) -> Counts:
    counts = Counts()
    for record in records:
        said = says(record.text)
        if record.label:
            counts.found += said
            counts.missed += not said
        else:
            counts.wrong += said
            counts.clean += not said
    return counts


def _time(passages: Sequence[str]) -> float:
    """Both policies on an answer of 4 KB that cites five passages of about 1 KB, in microseconds."""
    prose = " ".join(passages)
    verifier = CitationVerifier(CitationVerifierSettings())
    scorer = QualityScorer(QualityScorerSettings())
    taken: list[float] = []
    for number in range(20):
        request = [
            TextPart(prose[at : at + 1000], "tool", "tool_result")
            for at in range(number * 5000, number * 5000 + 5000, 1000)
        ]
        body = prose[number * 4000 : number * 4000 + 4050]
        sentences = [part for part in body.split(". ") if part]
        for index in range(5):
            place = index * len(sentences) // 5
            sentences[place] += f" [{index + 1}]"
        answer = ". ".join(sentences)
        taken.append(min(_timed(lambda: _judge(verifier, scorer, answer, request)) for _ in range(5)))  # noqa: B023
    return statistics.median(taken)


def _judge(verifier: CitationVerifier, scorer: QualityScorer, answer: str, request: Sequence[TextPart]) -> None:
    list(verifier.findings(answer, request, "What does the text say?"))
    scorer.defects(answer, "What does the text say?")


def _timed(call: Callable[[], object]) -> float:
    began = time.perf_counter_ns()
    call()
    return (time.perf_counter_ns() - began) / 1000
