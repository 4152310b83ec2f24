"""What the policy tests share: both engines, and a way to play the cases that stand in YAML."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import pytest

from gateway.types import FailMode, Phase, Screening, Subject, TextPart, Verdict
from policy import scan
from policy.base import Call, Context, Pipeline, Tool
from policy.compile import KINDS, compile_chain

SUBJECT = Subject("req-1", configuration_id="test", model="gpt-4o", operation="chat")

Play = Callable[[str, Mapping[str, Any]], None]


@pytest.fixture(params=["hyperscan", "re2"])
def engine(request: pytest.FixtureRequest) -> scan.Engine:
    """Every test that asks for an engine runs on both."""
    if request.param == "re2":
        return scan.re2_filter
    pytest.importorskip("hyperscan")
    return scan.hyperscan_filter


@pytest.fixture
def subject() -> Subject:
    return SUBJECT


@pytest.fixture
def build(engine: scan.Engine) -> Callable[..., Pipeline]:
    """A chain from settings as they stand in YAML: `build({"dlp-filter": {...}})`."""

    def build(settings: Mapping[str, Any], **options: Any) -> Pipeline:
        typed = {kind: msgspec.convert(value, KINDS[kind].Settings) for kind, value in settings.items()}
        options = {"fail_mode": FailMode.BLOCK, "configuration_id": "test", "engine": engine, **options}
        return compile_chain(tuple(settings), typed, **options)

    return build


@pytest.fixture
def play(build: Callable[..., Pipeline]) -> Play:
    """Run one case of a kind; its keys are explained in docs/adding-a-policy.md."""

    def play(kind: str, case: Mapping[str, Any]) -> None:
        pipeline = build({kind: case.get("settings", {})})
        texts = [_part(text) for text in case["texts"]]
        subject = msgspec.structs.replace(SUBJECT, **case.get("subject", {}))
        if case.get("phase", "input") == Phase.INPUT:
            screening = pipeline.screen(subject, texts)
        else:
            delivered = case.get("delivered", False)
            screening = pipeline.review(subject, texts, delivered=delivered, context=_context(case))
        _compare(screening, texts, case["expect"])

    return play


def _context(case: Mapping[str, Any]) -> Context:
    """What the answer of a case replies to."""
    tools = [Tool(tool["name"], _json(tool.get("parameters"))) for tool in case.get("tools", ())]
    return Context(
        [_part(text) for text in case.get("request", ())],
        tools,
        [msgspec.convert(call, Call) for call in case.get("calls", ())],
        finish_reason=case.get("finish_reason", ""),
    )


def _json(value: object) -> bytes | None:
    return None if value is None else msgspec.json.encode(value)


def _part(text: str | Mapping[str, str]) -> TextPart:
    return TextPart(text) if isinstance(text, str) else msgspec.convert(text, TextPart)


def _compare(screening: Screening, texts: list[TextPart], expected: str | Mapping[str, Any]) -> None:
    expected = {"verdict": expected} if isinstance(expected, str) else expected
    decision = screening.decisions[-1] if screening.decisions else None
    actual = {
        "verdict": str(screening.verdict),
        "reason": decision.reason if decision else "",
        "detail": decision.detail if decision else "",
        "message": screening.message,
        "texts": [screening.replacements.get(index, part.text) for index, part in enumerate(texts)],
    }
    assert {name: actual[name] for name in expected} == expected
    assert bool(screening.replacements) == (screening.verdict is Verdict.REDACT)
    assert bool(screening.message) == (screening.verdict in (Verdict.BLOCK, Verdict.ESCALATE))
