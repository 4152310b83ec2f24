"""external-moderation: its questions and what it makes of answers. The call itself is tested with the gateway."""

from __future__ import annotations

from typing import Any

import msgspec
import orjson
import pytest

from gateway.types import Delivery, Phase, Subject, TextPart, Verdict
from policy.external_moderation import ExternalModeration, ExternalModerationSettings

TEXTS = [
    TextPart("You are kind.", "system"),
    TextPart("Hello \ud800", "user", path="messages[1].content"),
    TextPart(" "),
]


def policy(**settings: Any) -> ExternalModeration:
    typed = msgspec.convert({"url": "https://moderation.test/check", **settings}, ExternalModerationSettings)
    assert not ExternalModeration.check(typed)
    return ExternalModeration(typed)


def read(answer: object, **settings: Any) -> tuple[Verdict, str, str, str, dict[int, str]]:
    ruling, replacements = policy(**settings).read(orjson.dumps(answer), TEXTS, [0, 1])
    return ruling.verdict, ruling.reason, ruling.detail, ruling.message, replacements


def test_the_question_in_openais_shape(subject: Subject) -> None:
    moderation = policy(shape="openai")
    chosen = moderation.chosen(Phase.INPUT, TEXTS)
    assert chosen == [0, 1]
    assert orjson.loads(moderation.question(subject, Phase.INPUT, TEXTS, chosen)) == {
        "model": "omni-moderation-latest",
        "input": ["You are kind.", "Hello ?"],
    }


def test_the_question_to_a_webhook(subject: Subject) -> None:
    moderation = policy(roles=["user"])
    chosen = moderation.chosen(Phase.INPUT, TEXTS)
    asked = orjson.loads(moderation.question(subject, Phase.INPUT, TEXTS, chosen))
    assert asked["texts"] == [
        {"index": 1, "role": "user", "kind": "message", "path": "messages[1].content", "text": "Hello ?"}
    ]
    assert (asked["phase"], asked["request_id"], asked["model"]) == ("input", subject.request_id, subject.model)


def test_roles_are_those_of_a_request() -> None:
    assert policy(roles=["user"]).chosen(Phase.OUTPUT, [TextPart("Hi", "assistant")]) == [0]


@pytest.mark.parametrize(
    ("answer", "settings", "said"),
    [
        ({"flagged": False, "categories": {"hate": False}}, {}, (Verdict.ALLOW, "", "")),
        (
            {"flagged": True, "categories": {"hate": True, "violence": False, "self-harm/intent": True}},
            {},
            (Verdict.BLOCK, "external-moderation.flagged", "hate, self-harm/intent"),
        ),
        ({"flagged": True, "categories": {}}, {}, (Verdict.BLOCK, "external-moderation.flagged", "flagged")),
        (
            {"flagged": True, "categories": {"hate": True}, "category_scores": {"hate": 0.9}},
            {"thresholds": {"violence": 0.5}},
            (Verdict.ALLOW, "", ""),
        ),
        (
            {"flagged": False, "category_scores": {"violence": 0.5}},
            {"thresholds": {"violence": 0.5}, "action": "escalate"},
            (Verdict.ESCALATE, "external-moderation.flagged", "violence"),
        ),
        (
            {"flagged": True, "categories": {"hate": True}},
            {"action": "warn"},
            (Verdict.ALLOW, "external-moderation.flagged", "hate"),
        ),
        (
            {"flagged": True, "categories": {"hate": True}},
            {"mode": "monitor"},
            (Verdict.ALLOW, "external-moderation.flagged", "hate"),
        ),
        (
            {"flagged": True, "categories": {"A secret\n": True}},
            {},
            (Verdict.BLOCK, "external-moderation.flagged", "flagged"),
        ),
    ],
)
def test_answers_in_openais_shape(answer: object, settings: dict[str, Any], said: tuple[object, ...]) -> None:
    assert read({"results": [answer]}, shape="openai", **settings)[:3] == said


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"verdict": "allow"}, (Verdict.ALLOW, "", "", "", {})),
        ({"verdict": "allow", "reason": "odd"}, (Verdict.ALLOW, "external-moderation.verdict", "odd", "", {})),
        (
            {"verdict": "block", "reason": "a.b", "message": "No."},
            (Verdict.BLOCK, "external-moderation.verdict", "a.b", "No.", {}),
        ),
        (
            {"verdict": "block", "reason": "A piece of the text"},
            (Verdict.BLOCK, "external-moderation.verdict", "", "Refused by policy external-moderation.", {}),
        ),
        (
            {"verdict": "escalate", "message": "Ask."},
            (Verdict.ESCALATE, "external-moderation.verdict", "", "Ask.", {}),
        ),
    ],
)
def test_answers_of_a_webhook(answer: object, said: tuple[object, ...]) -> None:
    assert read(answer) == said


def test_a_webhook_may_redact() -> None:
    verdict, reason, _, _, replacements = read({"verdict": "redact", "replacements": [{"index": 1, "text": "Hi"}]})
    assert (verdict, reason, replacements) == (Verdict.REDACT, "external-moderation.verdict", {1: "Hi"})


def test_monitor_redacts_nothing() -> None:
    answer = {"verdict": "redact", "replacements": [{"index": 1, "text": "Hi"}]}
    assert read(answer, mode="monitor")[0] is Verdict.ALLOW
    assert read(answer, mode="monitor")[4] == {}


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"no",
        b"[]",
        b"null",
        b"{}",
        b'{"verdict": "maybe"}',
        b'{"verdict": "redact"}',
        b'{"verdict": "redact", "replacements": [{"index": 2, "text": "x"}]}',
        b'{"verdict": "redact", "replacements": [{"index": "one", "text": "x"}]}',
    ],
)
def test_what_cannot_be_read(answer: bytes) -> None:
    with pytest.raises(ValueError):
        policy().read(answer, TEXTS, [0, 1])


@pytest.mark.parametrize(
    "answer", [b'{"results": []}', b'{"results": [{}]}', b'{"results": null}', b'{"results": [1]}']
)
def test_what_cannot_be_read_in_openais_shape(answer: bytes) -> None:
    with pytest.raises(ValueError):
        policy(shape="openai").read(answer, TEXTS, [0, 1])


def test_no_answer_means_what_the_fail_mode_says() -> None:
    blocked, let = policy().unavailable("timeout"), policy(fail_mode="allow").unavailable("timeout")
    assert (blocked.verdict, blocked.reason, blocked.detail) == (
        Verdict.BLOCK,
        "external-moderation.unavailable",
        "timeout",
    )
    assert (let.verdict, let.reason) == (Verdict.ALLOW, "external-moderation.unavailable")


@pytest.mark.parametrize(
    ("settings", "path"),
    [
        ({"url": ""}, "url"),
        ({"secret_key_ref": {}}, "secret_key_ref"),
        ({"secret_key_ref": {"env": "A", "file": "b"}}, "secret_key_ref"),
        ({"thresholds": {"hate": 0.5}}, "thresholds"),
    ],
)
def test_wrong_settings(settings: dict[str, Any], path: str) -> None:
    typed = msgspec.convert({"url": "https://moderation.test", **settings}, ExternalModerationSettings)
    assert [problem.path for problem in ExternalModeration.check(typed)] == [path]


@pytest.mark.parametrize("url", ["ftp://x", "https://user@host/", "https://host/a#b", "host", "https://ho st"])
def test_wrong_urls(url: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"url": url}, ExternalModerationSettings)


def test_the_pipeline_knows_whom_to_ask(build: Any) -> None:
    url = "https://moderation.test"
    pipeline = build({"external-moderation": {"url": url, "phase": ["output"]}, "human-oversight": {}})
    assert pipeline.moderation.url == url
    assert pipeline.oversight.valid_hours == 24
    assert (pipeline.reads_input, pipeline.reads_output, pipeline.delivery) == (False, True, Delivery.HOLD_DONE)
    assert build({"external-moderation": {"url": url}}).reads_input
