"""What a glance at a body finds clean is clean when its texts are taken out of it."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.types import FailMode, Subject, Verdict
from policy import scan
from policy.base import Pipeline
from policy.compile import compile_chain
from policy.dlp_filter import DlpFilterSettings, NamedPattern
from policy.text import bared
from translators import openai_chat

PATTERNS = (r"^top$", r'"quoted"', r"\Bx\B", r"a\nb", r"\bid:\S{1,40}", r"tab\tstop", r"é$")
SETTINGS = DlpFilterSettings(
    terms=("project falcon", "c++", "größe"),
    patterns=tuple(NamedPattern(f"p{number}", regex) for number, regex in enumerate(PATTERNS)),
)
PIECES = (
    "top", "project", " ", "falcon", "\n", '"quoted"', "x", "-x-", "a\nb", "id:", "tab\tstop", "\\", "\\n", "/", "é",
    "größe", "\u2028", "\r", "\x00", "🎈", "{", "c++", "\\u0041",
)  # fmt: skip


@pytest.fixture(scope="module", params=["hyperscan", "re2"])
def pipeline(request: pytest.FixtureRequest) -> Pipeline:
    if request.param == "hyperscan":
        pytest.importorskip("hyperscan")
    engine = scan.re2_filter if request.param == "re2" else scan.hyperscan_filter
    return compile_chain(
        ["dlp-filter"], {"dlp-filter": SETTINGS}, fail_mode=FailMode.BLOCK, configuration_id="test", engine=engine
    )


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    texts=st.lists(st.lists(st.sampled_from(PIECES), max_size=4).map("".join), min_size=1, max_size=3),
    ascii_only=st.booleans(),
)
def test_a_clean_glance_is_a_clean_screening(pipeline: Pipeline, texts: list[str], ascii_only: bool) -> None:
    messages = [{"role": "user", "content": text} for text in texts]
    body = json.dumps({"model": "m", "messages": messages}, ensure_ascii=ascii_only).encode()
    screening = pipeline.screen(Subject("r"), openai_chat.view(body).texts())
    glance = pipeline.glance(body)
    assert glance is None or glance is screening
    if screening.verdict is not Verdict.ALLOW:
        assert glance is None


def test_most_bodies_need_no_more_than_a_glance(pipeline: Pipeline) -> None:
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": 'He said "no"\n\tand left.'}]}).encode()
    glance = pipeline.glance(body)
    assert glance is not None
    assert glance.decisions == pipeline.clean


def test_the_word_that_stands_for_a_term_in_the_scan_is_not_the_term(pipeline: Pipeline) -> None:
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "a project, a falcon"}]}).encode()
    assert pipeline.glance(body) is not None


@pytest.mark.parametrize("text", ['a"b', "a\nb", "a\tb", 'say "x"\n"y"', "\r\n", "plain", "größe"])
def test_common_escapes_are_undone(text: str) -> None:
    body = json.dumps([text], ensure_ascii=False).encode()
    assert bared(body) == b"[\n" + text.encode() + b"\n]"


@pytest.mark.parametrize("text", ["a\\b", "a\\nb", '\\"', "\x00", "\x0b", "\\\\", "é"])
def test_other_escapes_take_a_closer_look(text: str) -> None:
    assert bared(json.dumps([text]).encode()) is None


def test_a_policy_that_reads_texts_itself_always_gets_them(build: Callable[..., Pipeline]) -> None:
    pipeline = build({"language-validator": {"deny": ["de"]}, "dlp-filter": {"terms": ["falcon"]}})
    assert pipeline.glance(b'{"messages":[]}') is None
