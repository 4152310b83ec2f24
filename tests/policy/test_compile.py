"""A chain becomes a pipeline: what it says of itself, what it refuses to compile, and what an error inside it means."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from gateway.types import ALLOWED, Decision, Delivery, FailMode, Phase, Screening, Subject, TextPart, Verdict
from policy import scan
from policy.audit_logger import AuditLoggerSettings
from policy.base import (
    INLINE_BYTES,
    MAX_INLINE_MATCHES,
    CrowdedError,
    Pattern,
    Pipeline,
    Policy,
    PolicyConfigError,
    Redaction,
    Ruling,
    View,
)
from policy.compile import KINDS, check_settings, compile_chain
from policy.dlp_filter import DlpFilterSettings, NamedPattern

Build = Callable[..., Pipeline]
FALCON = [TextPart("a falcon")]


class NoSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A scripted policy takes none."""


def scripted(
    kind: str,
    request: Callable[[View], Ruling] | None = None,
    completion: Callable[[View], Ruling] | None = None,
    patterns: tuple[Pattern, ...] = (),
) -> type[Policy[NoSettings]]:
    """A policy kind that says what a test wants it to say."""
    hooks = {"on_request": request, "on_completion": completion}
    members: dict[str, Any] = {
        name: staticmethod(lambda subject, view, say=say: say(view)) for name, say in hooks.items() if say is not None
    }
    return type("Scripted", (Policy,), {"kind": kind, "Settings": NoSettings, "patterns": patterns, **members})


@pytest.fixture
def chain_of(engine: scan.Engine, monkeypatch: pytest.MonkeyPatch) -> Build:
    """A pipeline of scripted policies."""

    def chain_of(*policies: type[Policy[NoSettings]], **options: Any) -> Pipeline:
        for policy in policies:
            monkeypatch.setitem(KINDS, policy.kind, policy)
        options = {"fail_mode": FailMode.BLOCK, "configuration_id": "test", "engine": engine, **options}
        return compile_chain([policy.kind for policy in policies], {}, **options)

    return chain_of


def raising(error: Exception) -> Callable[[View], Ruling]:
    def say(view: View) -> Ruling:
        raise error

    return say


def saying(verdict: Verdict, **what: Any) -> Callable[[View], Ruling]:
    return lambda view: Ruling(verdict, **what)


# What a pipeline says of itself


def test_a_chain_that_judges_nothing(build: Build, subject: Subject) -> None:
    pipeline = build({"audit-logger": {}})
    assert (pipeline.reads_input, pipeline.reads_output, pipeline.delivery) == (False, False, Delivery.PASS)
    assert pipeline.screen(subject, FALCON) is ALLOWED
    assert pipeline.review(subject, FALCON) is ALLOWED


def test_an_empty_chain(build: Build, subject: Subject) -> None:
    pipeline = build({})
    assert (pipeline.audits, pipeline.audit, pipeline.delivery) == (False, None, Delivery.PASS)
    assert pipeline.screen(subject, FALCON) is ALLOWED


def test_audit_settings_travel_with_the_pipeline(build: Build) -> None:
    pipeline = build({"audit-logger": {"retention_days": 30}})
    assert pipeline.audits
    assert pipeline.audit == AuditLoggerSettings(retention_days=30)


@pytest.mark.parametrize(
    ("phases", "reads", "delivery"),
    [
        (["input"], (True, False), Delivery.PASS),
        (["output"], (False, True), Delivery.HOLD_DONE),
        (["input", "output"], (True, True), Delivery.HOLD_DONE),
    ],
)
def test_phases_decide_what_is_read_and_how_answers_are_delivered(
    build: Build, phases: list[str], reads: tuple[bool, bool], delivery: Delivery
) -> None:
    pipeline = build({"dlp-filter": {"terms": ["falcon"], "phase": phases}})
    assert (pipeline.reads_input, pipeline.reads_output) == reads
    assert pipeline.delivery is delivery


def test_it_shows_what_it_does(build: Build) -> None:
    pipeline = build({"audit-logger": {}, "dlp-filter": {"terms": ["falcon"], "phase": ["input", "output"]}})
    assert repr(pipeline) == (
        f"<pipeline test {pipeline.version}: input dlp-filter, output dlp-filter, audits, hold_done>"
    )


def test_a_pipeline_cannot_be_changed(build: Build) -> None:
    with pytest.raises(AttributeError):
        build({}).audits = True  # type: ignore[misc]


def test_the_version_is_that_of_chain_and_settings(build: Build) -> None:
    def version(terms: list[str], **options: Any) -> str:
        return build({"dlp-filter": {"terms": terms}}, **options).version

    assert version(["a"]) == version(["a"], configuration_id="other")
    assert version(["a"]) == build({"dlp-filter": {"terms": ["a"], "action": "block"}}).version
    assert len({version(["a"]), version(["b"]), version(["a"], fail_mode=FailMode.ALLOW), build({}).version}) == 4


def test_the_slowest_policy_says_how_much_the_event_loop_may_do(build: Build) -> None:
    words = {"dlp-filter": {"terms": ["falcon"], "phase": ["input", "output"]}}
    assert (build(words).screens_inline, build(words).reviews_inline) == (INLINE_BYTES, INLINE_BYTES)
    slow = build({**words, "prompt-injection": {}, "citation-verifier": {}})
    assert 0 < slow.screens_inline < INLINE_BYTES
    assert slow.reviews_inline == 0
    decoding = build({"dlp-filter": {"terms": ["falcon"], "decode": True}})
    assert 0 < decoding.screens_inline < slow.screens_inline


def test_a_policy_that_does_not_say_is_asked_in_a_thread_only(chain_of: Build) -> None:
    assert chain_of(scripted("one", saying(Verdict.ALLOW))).screens_inline == 0


MANY = " ".join(["falcon"] * (MAX_INLINE_MATCHES + 1))


@pytest.mark.parametrize("texts", [[TextPart(MANY)], [TextPart("falcon")] * 65, [TextPart("hello")] * 65])
def test_much_to_judge_is_left_to_a_thread(texts: list[TextPart], build: Build, subject: Subject) -> None:
    pipeline = build({"dlp-filter": {"terms": ["falcon"], "action": "redact", "phase": ["input", "output"]}})
    for ask in (pipeline.screen, pipeline.review):
        with pytest.raises(CrowdedError):
            ask(subject, texts, inline=True)
        assert ask(subject, texts) == ask(subject, texts)
    assert pipeline.screen(subject, [TextPart("a falcon")], inline=True).verdict is Verdict.REDACT


def test_what_other_readings_have_counts_too(build: Build, subject: Subject) -> None:
    pipeline = build({"dlp-filter": {"terms": ["falcon"], "action": "redact", "decode": True}})
    hidden = [TextPart(base64.b64encode(MANY.encode()).decode())]
    assert pipeline.screen(subject, hidden).verdict is Verdict.REDACT
    with pytest.raises(CrowdedError):
        pipeline.screen(subject, hidden, inline=True)


def test_many_patterns_that_occur_for_the_first_time(build: Build, subject: Subject) -> None:
    """Each is compiled then, which takes longer than to find it."""
    pipeline = build({"dlp-filter": {"terms": [f"term{number:04}" for number in range(1000)]}})
    rare = [TextPart(" ".join(f"term{number:04}" for number in range(900, 910)))]
    with pytest.raises(CrowdedError):
        pipeline.screen(subject, rare, inline=True)
    pipeline.screen(subject, rare)
    assert pipeline.screen(subject, rare, inline=True).verdict is Verdict.BLOCK


def test_equal_patterns_are_compiled_once(build: Build) -> None:
    scan.scanner.cache_clear()
    build({"dlp-filter": {"terms": ["falcon"], "phase": ["input", "output"]}})
    build({"dlp-filter": {"terms": ["falcon"]}}, configuration_id="other")
    assert scan.scanner.cache_info().misses == 1


# Verdicts of a chain


def test_a_clean_text_is_allowed_by_each_policy(build: Build, subject: Subject) -> None:
    screening = build({"audit-logger": {}, "dlp-filter": {"terms": ["falcon"]}}).screen(subject, [TextPart("heron")])
    assert screening == Screening(Verdict.ALLOW, (Decision("dlp-filter", Phase.INPUT, Verdict.ALLOW),))


def test_a_block_stops_the_chain(chain_of: Build, subject: Subject) -> None:
    pipeline = chain_of(
        scripted("first", saying(Verdict.ALLOW, reason="first.seen")),
        scripted("second", saying(Verdict.BLOCK, reason="second.no")),
        scripted("third", raising(AssertionError("asked after a block"))),
    )
    screening = pipeline.screen(subject, FALCON)
    assert [(decision.policy, decision.verdict) for decision in screening.decisions] == [
        ("first", Verdict.ALLOW),
        ("second", Verdict.BLOCK),
    ]
    assert screening.refusing == screening.decisions[1]
    assert screening.message == "Refused by policy second (second.no)."


def test_a_block_outranks_an_escalation_which_keeps_redactions(chain_of: Build, subject: Subject) -> None:
    redaction = (Redaction(0, 0, 1, "X"),)
    policies = [
        scripted("red", saying(Verdict.REDACT, redactions=redaction)),
        scripted("esc", saying(Verdict.ESCALATE, message="ask")),
        scripted("end", saying(Verdict.BLOCK, message="no")),
    ]
    screening = chain_of(*policies[:2]).screen(subject, FALCON)
    assert (screening.verdict, screening.message, dict(screening.replacements)) == (
        Verdict.ESCALATE,
        "ask",
        {0: "X falcon"},
    )
    screening = chain_of(*policies).screen(subject, FALCON)
    assert (screening.verdict, screening.message, dict(screening.replacements)) == (Verdict.BLOCK, "no", {})


def test_redactions_of_two_policies_are_merged(chain_of: Build, subject: Subject) -> None:
    pipeline = chain_of(
        scripted("one", saying(Verdict.REDACT, redactions=(Redaction(0, 0, 3, "X"),))),
        scripted("two", saying(Verdict.REDACT, redactions=(Redaction(0, 2, 8, "Y"),))),
    )
    assert pipeline.screen(subject, FALCON).replacements == {0: "X"}


def test_redactions_of_a_policy_that_allows_are_not_made(chain_of: Build, subject: Subject) -> None:
    pipeline = chain_of(
        scripted("one", saying(Verdict.REDACT, redactions=(Redaction(0, 0, 1, "X"),))),
        scripted("two", saying(Verdict.ALLOW, redactions=(Redaction(0, 2, 8, "Y"),))),
    )
    assert pipeline.screen(subject, FALCON).replacements == {0: "X falcon"}


def test_policies_with_patterns_are_asked_for_their_own_matches_only(chain_of: Build, subject: Subject) -> None:
    seen: dict[str, list[tuple[int, int]]] = {}

    def noting(kind: str) -> Callable[[View], Ruling]:
        def say(view: View) -> Ruling:
            seen[kind] = [(match.pattern, match.start) for match in view.matches]
            return Ruling()

        return say

    pipeline = chain_of(
        scripted("one", noting("one"), patterns=(Pattern("x"), Pattern("f"))),
        scripted("two", noting("two"), patterns=(Pattern("zzz"),)),
        scripted("three", noting("three"), patterns=(Pattern("n"), Pattern("a"))),
        scripted("four", noting("four")),
    )
    decisions = pipeline.screen(subject, FALCON).decisions
    assert seen == {"one": [(1, 2)], "three": [(1, 0), (1, 3), (0, 7)], "four": []}
    assert [decision.policy for decision in decisions] == ["one", "two", "three", "four"]
    assert pipeline.screen(subject, []).verdict is Verdict.ALLOW


def test_time_is_that_of_the_policy(chain_of: Build, subject: Subject) -> None:
    ticks: Iterator[int] = iter([1_000, 8_999, 20_000, 21_000])
    pipeline = chain_of(
        scripted("slow", saying(Verdict.ALLOW)), scripted("quick", saying(Verdict.ALLOW)), clock=lambda: next(ticks)
    )
    assert [decision.microseconds for decision in pipeline.screen(subject, FALCON).decisions] == [7, 1]


# Errors


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize(("mode", "verdict"), [(FailMode.BLOCK, Verdict.BLOCK), (FailMode.ALLOW, Verdict.ALLOW)])
def test_an_error_inside_a_policy_is_what_the_fail_mode_says(
    chain_of: Build, subject: Subject, phase: Phase, mode: FailMode, verdict: Verdict
) -> None:
    error = RuntimeError("broken")
    told: list[tuple[str, Exception]] = []
    pipeline = chain_of(
        scripted("weak", raising(error), raising(error)),
        fail_mode=mode,
        on_error=lambda kind, exception: told.append((kind, exception)),
    )
    screening = (pipeline.screen if phase is Phase.INPUT else pipeline.review)(subject, FALCON)
    assert screening.verdict is verdict
    assert screening.decisions == (Decision("weak", phase, verdict, "weak.error"),)
    assert told == [("weak", error)]
    assert screening.message == ("The policy weak could not be evaluated." if verdict is Verdict.BLOCK else "")


def test_after_an_allowed_error_the_chain_goes_on(chain_of: Build, subject: Subject) -> None:
    pipeline = chain_of(
        scripted("weak", raising(RuntimeError())), scripted("next", saying(Verdict.BLOCK)), fail_mode=FailMode.ALLOW
    )
    assert pipeline.screen(subject, FALCON).verdict is Verdict.BLOCK


@pytest.mark.parametrize("say", [lambda view: None, saying(Verdict.REDACT, redactions=(Redaction(1, 0, 1, "X"),))])
def test_a_policy_that_answers_nonsense_is_an_error(chain_of: Build, subject: Subject, say: Any) -> None:
    assert chain_of(scripted("odd", say)).screen(subject, FALCON).decisions[0].reason == "odd.error"


def test_a_reporter_that_fails_changes_nothing(chain_of: Build, subject: Subject) -> None:
    def on_error(kind: str, error: Exception) -> None:
        raise OSError("log is full")

    pipeline = chain_of(scripted("weak", raising(RuntimeError())), on_error=on_error)
    assert pipeline.screen(subject, FALCON).verdict is Verdict.BLOCK


@pytest.mark.parametrize(("mode", "verdict"), [(FailMode.BLOCK, Verdict.BLOCK), (FailMode.ALLOW, Verdict.ALLOW)])
def test_an_error_inside_the_scan_is_one_of_every_policy_that_needs_it(
    chain_of: Build, subject: Subject, mode: FailMode, verdict: Verdict
) -> None:
    def broken(expressions: tuple[str, ...]) -> scan.Filter:
        return lambda data: [][0]

    pipeline = chain_of(
        scripted("free", saying(Verdict.ALLOW, reason="free.asked")),
        scripted("bound", saying(Verdict.ALLOW), patterns=(Pattern("a"),)),
        fail_mode=mode,
        engine=broken,
    )
    screening = pipeline.screen(subject, FALCON)
    assert screening.verdict is verdict
    assert [decision.reason for decision in screening.decisions] == ["free.asked", "bound.error"]


# What is not compiled


def problems(chain: list[str], **settings: msgspec.Struct) -> list[tuple[str, str]]:
    named = {kind.replace("_", "-"): value for kind, value in settings.items()}
    with pytest.raises(PolicyConfigError) as caught:
        compile_chain(chain, named, fail_mode=FailMode.BLOCK, configuration_id="test")
    assert str(caught.value) == "; ".join(f"{problem.path}: {problem.message}" for problem in caught.value.problems)
    return [(problem.path, problem.message) for problem in caught.value.problems]


def test_unknown_and_repeated_kinds() -> None:
    assert problems(["audit-logger", "dlp-fliter", "audit-logger"]) == [
        ("policies.chain[1]", f"unknown policy kind `dlp-fliter`; known: {', '.join(sorted(KINDS))}"),
        ("policies.chain[2]", "`audit-logger` is in the chain already"),
    ]


def test_settings_of_another_kind() -> None:
    assert problems(["audit-logger"], audit_logger=DlpFilterSettings()) == [
        ("policy.audit-logger", "expects AuditLoggerSettings, not DlpFilterSettings")
    ]


def test_every_fault_has_its_path() -> None:
    settings = DlpFilterSettings(
        terms=("falcon", " \t"),
        patterns=(NamedPattern("one", "a"), NamedPattern("one", "(?=a)"), NamedPattern("two", r"(a)\1")),
    )
    assert [path for path, _ in problems(["dlp-filter"], dlp_filter=settings)] == [
        "policy.dlp-filter.terms[1]",
        "policy.dlp-filter.patterns[1].name",
        "policy.dlp-filter.patterns[1].regex",
        "policy.dlp-filter.patterns[2].regex",
    ]


def test_a_filter_without_anything_to_look_for() -> None:
    assert problems(["dlp-filter"]) == [
        ("policy.dlp-filter", "has nothing to look for: give `terms`, `patterns` or both")
    ]


def test_a_log_that_is_not_immutable() -> None:
    settings = AuditLoggerSettings(immutable=False)
    assert [problem.path for problem in check_settings("audit-logger", settings)] == ["policy.audit-logger.immutable"]
    assert [path for path, _ in problems(["audit-logger"], audit_logger=settings)] == ["policy.audit-logger.immutable"]


def test_patterns_that_the_engine_cannot_take_together(chain_of: Build) -> None:
    with pytest.raises(PolicyConfigError, match=r"policies\.chain: "):
        chain_of(scripted("bad", saying(Verdict.ALLOW), patterns=(Pattern("("),)))
