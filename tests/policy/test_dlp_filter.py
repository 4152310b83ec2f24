"""Properties of dlp-filter; its cases stand in `cases/dlp-filter.yaml`."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.types import FailMode, Subject, TextPart, Verdict
from policy import scan
from policy.base import Pipeline
from policy.compile import compile_chain
from policy.dlp_filter import DlpFilterSettings

ENGINES = (scan.re2_filter,) if scan.hyperscan is None else (scan.hyperscan_filter, scan.re2_filter)
TERMS = st.lists(st.text(alphabet="abя ", min_size=1, max_size=4).filter(str.strip), min_size=1, max_size=4)
TEXTS = st.lists(st.text(alphabet="aAbBяЯ .\n\ud800", max_size=20), max_size=4)


def compiled(engine: scan.Engine, **settings: object) -> Pipeline:
    typed = msgspec.convert(settings, DlpFilterSettings)
    return compile_chain(
        ["dlp-filter"], {"dlp-filter": typed}, fail_mode=FailMode.BLOCK, configuration_id="test", engine=engine
    )


@pytest.mark.parametrize("engine", ENGINES)
@settings(deadline=None)
@given(terms=TERMS, texts=TEXTS, match=st.sampled_from(["word", "substring"]))
def test_redaction_leaves_no_term(engine: scan.Engine, terms: list[str], texts: list[str], match: str) -> None:
    pipeline = compiled(engine, terms=terms, match=match, action="redact", replacement="#")
    subject = Subject("req-1")
    screening = pipeline.screen(subject, [TextPart(text) for text in texts])
    redacted = [TextPart(screening.replacements.get(index, text)) for index, text in enumerate(texts)]
    assert pipeline.screen(subject, redacted).verdict is Verdict.ALLOW


@settings(deadline=None)
@given(terms=TERMS, texts=TEXTS, match=st.sampled_from(["word", "substring"]))
def test_block_and_redact_see_the_same(terms: list[str], texts: list[str], match: str) -> None:
    parts = [TextPart(text) for text in texts]
    blocking, redacting = (
        compiled(ENGINES[0], terms=terms, match=match, action=action).screen(Subject("req-1"), parts).decisions[0]
        for action in ("block", "redact")
    )
    assert (blocking.verdict is Verdict.BLOCK) == (redacting.verdict is Verdict.REDACT)
    assert (blocking.reason, blocking.detail) == (redacting.reason, redacting.detail)


def test_decisions_and_messages_hold_no_text(build: Callable[..., Pipeline], subject: Subject) -> None:
    settings = {"terms": ["falcon"], "patterns": [{"name": "employee-id", "regex": r"EMP-\d{6}"}]}
    screening = build({"dlp-filter": settings}).screen(subject, [TextPart("falcon EMP-123456")])
    said = repr(screening.decisions) + screening.message
    assert "falcon" not in said
    assert "123456" not in said


def test_one_pipeline_serves_many_threads(build: Callable[..., Pipeline], subject: Subject) -> None:
    pipeline = build({"dlp-filter": {"terms": ["project falcon"], "action": "redact", "replacement": "#"}})
    texts = [[TextPart("x " * 50_000 + f"{number} Project Falcon")] for number in range(20)]
    with ThreadPoolExecutor(4) as pool:
        screenings = list(pool.map(lambda text: pipeline.screen(subject, text), texts * 3))
    assert [screening.replacements[0][100_000:] for screening in screenings] == [f"{n} #" for n in range(20)] * 3


def test_ten_megabytes_of_one_character(build: Callable[..., Pipeline], subject: Subject) -> None:
    settings = {"terms": ["аа аа"], "patterns": [{"name": "runs", "regex": r"(\w+\s?)+!"}], "action": "redact"}
    pipeline = build({"dlp-filter": settings})
    assert pipeline.screen(subject, [TextPart("a" * 10_000_000)]).verdict is Verdict.ALLOW
    assert pipeline.screen(subject, [TextPart("а" * 5_000_000)]).verdict is Verdict.ALLOW
