"""Policies that judge an answer as it flows: rulings, errors, monitoring, and what is recorded of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import msgspec
import pytest

from gateway.types import FailMode, Screening, Subject, TextPart, Verdict
from policy import scan
from policy.base import Pattern, Pipeline, Policy, Redaction, Ruling, View
from policy.compile import KINDS, compile_chain
from policy.guard import Guard, RefusedError
from policy.stream import MAX_HELD


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All settings that work by their names alone."""

    mode: Literal["enforce", "monitor"] = "enforce"
    on_error: Literal["", "block", "allow"] = ""
    streaming: Literal["hold_done", "guard", "buffer"] = "guard"


GuardOf = Callable[..., Guard]


@pytest.fixture
def pipeline_of(engine: scan.Engine, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Pipeline]:
    """A chain of one policy that looks for `x` and numbers with an end, and says what a test wants."""

    def pipeline_of(say: Callable[[View], Ruling], errors: list[Exception] | None = None, **settings: Any) -> Pipeline:
        members = {"on_completion": staticmethod(lambda subject, view: say(view))}
        kind = type(
            "Scripted",
            (Policy,),
            {
                "kind": "scripted",
                "Settings": Settings,
                "patterns": (Pattern("x"), Pattern(r"<[^>]*>")),
                "guards": True,
                **members,
            },
        )
        monkeypatch.setitem(KINDS, "scripted", kind)
        return compile_chain(
            ["scripted"],
            {"scripted": Settings(**settings)},
            fail_mode=FailMode.BLOCK,
            configuration_id="test",
            engine=engine,
            on_error=lambda kind, error: errors.append(error) if errors is not None else None,
        )

    return pipeline_of


@pytest.fixture
def guard_of(pipeline_of: Callable[..., Pipeline]) -> GuardOf:
    def guard_of(say: Callable[[View], Ruling], **options: Any) -> Guard:
        guard = pipeline_of(say, **options).guard(Subject("r"))
        assert guard is not None
        return guard

    return guard_of


def failing(view: View) -> Ruling:
    raise ValueError("a bug")


def redacting(view: View) -> Ruling:
    made = tuple(Redaction(0, one.start, one.end, '"') for one in view.matches)
    return Ruling(Verdict.REDACT, "scripted.found", redactions=made)


def test_a_refusal_is_raised_and_recorded(guard_of: GuardOf) -> None:
    guard = guard_of(lambda view: Ruling(Verdict.BLOCK, "scripted.no", "label", "Not this."))
    assert guard.feed(1, "message", "content", "ab") == "ab"
    with pytest.raises(RefusedError, match=r"Not this\.") as refused:
        guard.feed(1, "message", "content", "x.")
    assert refused.value.policy == "scripted"
    decision = guard.decisions["scripted"]
    assert (decision.verdict, decision.reason, decision.detail) == (Verdict.BLOCK, "scripted.no", "label")


def test_an_error_is_what_the_fail_mode_says(guard_of: GuardOf) -> None:
    errors: list[Exception] = []
    guard = guard_of(failing, errors=errors)
    with pytest.raises(RefusedError, match="could not be evaluated"):
        guard.feed(1, "message", "content", "x.")
    assert guard.decisions["scripted"].reason == "scripted.error"
    assert [str(error) for error in errors] == ["a bug"]


def test_a_policy_may_fail_in_a_way_of_its_own(guard_of: GuardOf) -> None:
    guard = guard_of(failing, on_error="allow")
    assert guard.feed(1, "message", "content", "x.") == "x."
    assert guard.decisions["scripted"].reason == "scripted.error"
    assert guard.decisions["scripted"].verdict is Verdict.ALLOW


def test_monitoring_changes_nothing(guard_of: GuardOf) -> None:
    guard = guard_of(redacting, mode="monitor")
    assert guard.feed(1, "message", "content", "x.") == "x."
    decision = guard.decisions["scripted"]
    assert (decision.verdict, decision.reason) == (Verdict.ALLOW, "scripted.found")


@pytest.mark.parametrize(("on_error", "refused"), [("block", True), ("allow", False)])
def test_a_match_that_never_ends(guard_of: GuardOf, on_error: str, refused: bool) -> None:
    guard = guard_of(redacting, on_error=on_error)
    assert guard.feed(1, "message", "content", "<") == ""
    if refused:
        with pytest.raises(RefusedError):
            guard.feed(1, "message", "content", "a" * MAX_HELD)
    else:
        assert guard.feed(1, "message", "content", "a" * MAX_HELD) == "<" + "a" * MAX_HELD
    assert guard.decisions["scripted"].reason == "scripted.error"


def test_texts_do_not_meet(guard_of: GuardOf) -> None:
    guard = guard_of(redacting)
    assert guard.feed(1, "message", "a", "<b") == ""
    assert guard.feed(2, "message", "b", "c>") == "c>"
    assert repr(guard) == "<Guard of scripted: 2 texts, 2 characters held>"
    assert (guard.held(1), guard.held(2), guard.held(3)) == ("<b", "", "")
    assert (guard.close(1), guard.close(2), guard.close(3)) == ("<b", "", "")


def test_what_is_put_into_arguments_is_escaped(guard_of: GuardOf) -> None:
    guard = guard_of(redacting)
    assert guard.feed(1, "tool_arguments", "a", '{"q":"x"') == '{"q":"\\""'
    assert guard.feed(2, "message", "b", "x.") == '".'


def test_the_end_of_an_answer_repeats_what_the_guard_decided(pipeline_of: Callable[..., Pipeline]) -> None:
    pipeline = pipeline_of(redacting)
    guard = pipeline.guard(Subject("r"))
    assert guard is not None
    guard.feed(1, "message", "content", "x.")
    screening = pipeline.review(Subject("r"), [TextPart("x.")], delivered=True, guard=guard)
    assert screening.verdict is Verdict.ALLOW
    assert [decision.verdict for decision in screening.decisions] == [Verdict.REDACT]


@pytest.mark.parametrize("streaming", ["hold_done", "buffer"])
def test_only_a_chain_that_guards_has_a_guard(pipeline_of: Callable[..., Pipeline], streaming: str) -> None:
    pipeline = pipeline_of(redacting, streaming=streaming)
    assert pipeline.delivery == streaming
    assert pipeline.guard(Subject("r")) is None


class TestOtherReadings:
    """`decode` under `guard`: what flows is looked at as it stands, the whole in other readings too."""

    SECRET = "falcon"
    HIDDEN = "ZmFsY29uIGZsaWVzIGF0IG5vb24sIGNvbWUgYWxvbmU="  # the same in base64, and more

    @pytest.fixture
    def ended(self, build: Callable[..., Pipeline]) -> Callable[..., tuple[str, Screening]]:
        def ended(text: str, **settings: Any) -> tuple[str, Screening]:
            settings = {"terms": [self.SECRET], "phase": ["output"], "streaming": "guard", "decode": True, **settings}
            pipeline = build({"dlp-filter": settings})
            guard = pipeline.guard(Subject("r"))
            assert guard is not None
            sent = guard.feed(1, "message", "content", text) + guard.close(1)
            return sent, pipeline.review(Subject("r"), [TextPart(text)], delivered=True, guard=guard)

        return ended

    @pytest.mark.parametrize("action", ["block", "redact"])
    def test_what_is_hidden_is_refused_at_the_end(self, ended: Callable[..., Any], action: str) -> None:
        sent, screening = ended(f"Look: {self.HIDDEN}.", action=action)
        assert sent == f"Look: {self.HIDDEN}."
        assert screening.verdict is Verdict.BLOCK
        assert screening.decisions[0].reason == "dlp-filter.term"

    def test_what_was_redacted_on_its_way_is_not_refused_for_its_other_readings(
        self, ended: Callable[..., Any]
    ) -> None:
        sent, screening = ended(f"The {self.SECRET} f\u200blies.", action="redact")
        assert self.SECRET not in sent
        assert screening.verdict is Verdict.ALLOW
        assert [one.verdict for one in screening.decisions] == [Verdict.REDACT]

    def test_plain_and_hidden(self, ended: Callable[..., Any]) -> None:
        sent, screening = ended(f"The {self.SECRET}: {self.HIDDEN}.", action="redact")
        assert self.SECRET not in sent
        assert screening.verdict is Verdict.BLOCK

    def test_only_where_it_is_asked_for(self, ended: Callable[..., Any]) -> None:
        _, screening = ended(f"Look: {self.HIDDEN}.", decode=False)
        assert screening.verdict is Verdict.ALLOW

    def test_under_monitor(self, ended: Callable[..., Any]) -> None:
        _, screening = ended(f"Look: {self.HIDDEN}.", mode="monitor")
        assert (screening.verdict, screening.decisions[0].reason) == (Verdict.ALLOW, "dlp-filter.term")
