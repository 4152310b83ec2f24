"""What the cases cannot say of `secret-detector`: every rule compiles and finds, and no input makes it slow or loud."""

from __future__ import annotations

import pytest
import re2

from gateway.types import FailMode, Subject, TextPart, Verdict
from policy.compile import compile_chain
from policy.dlp_filter import NamedPattern
from policy.secret_detector import SecretDetectorSettings
from policy.secret_rules import CONTEXTS, TOKENS, entropy, is_jwt, looks_random

SUBJECT = Subject("req_1", None, None, None, "test", "m", "chat")
TOKEN = "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"


def screen(text: str, **settings: object):  # type: ignore[no-untyped-def]
    pipeline = compile_chain(
        ["secret-detector"],
        {"secret-detector": SecretDetectorSettings(**settings)},  # type: ignore[arg-type]
        fail_mode=FailMode.BLOCK,
        configuration_id="test",
    )
    return pipeline.screen(SUBJECT, [TextPart(text, "user", "message", "messages[0].content")])


def test_every_rule_is_linear() -> None:
    """RE2 takes them all; that the scan's engine takes their filters is seen by every other test here."""
    for rule in (*TOKENS, *CONTEXTS):
        re2.compile(rule.pattern.regex)
        re2.compile(rule.pattern.placed)


def test_nothing_to_look_for_is_a_fault() -> None:
    with pytest.raises(ValueError, match="nothing to look for"):
        screen("x", packs=())


def test_a_pattern_that_backtracks_is_a_fault() -> None:
    with pytest.raises(ValueError, match=r"patterns\[0\].regex"):
        screen("x", patterns=(NamedPattern("a", "(?=x)"),))


@pytest.mark.parametrize(
    "filler", ["a", "1", "token", "key=", "password: ", "sk-", "-----BEGIN ", "eyJ", "a:b@", "=", '"', "ghp_a ", "\x00"]
)
def test_a_megabyte_of_one_thing_is_judged_and_what_follows_is_found(filler: str) -> None:
    screening = screen(filler * (1_000_000 // len(filler)) + f"\n\n{TOKEN}")
    assert screening.verdict is Verdict.REDACT
    assert TOKEN not in dict(screening.replacements)[0]


def test_a_record_of_it_holds_no_value() -> None:
    screening = screen(f"{TOKEN} password='hunter2hunter2'", action="block")
    said = repr(screening.decisions) + screening.message
    assert "wWPw" not in said
    assert "hunter" not in said


def test_randomness() -> None:
    assert entropy("aaaa") == 0
    assert entropy("abcd") == 2
    assert looks_random("q8W2e4R6t8Y0u2I4")
    assert not looks_random("not_random_at_all")


def test_a_token_whose_head_is_no_json_is_no_jwt() -> None:
    assert is_jwt("eyJhbGciOiJIUzI1NiJ9.e30.x")
    assert not is_jwt("eyJhbasdGciOiJIUaddas.e30.x")
