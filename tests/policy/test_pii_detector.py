"""What the cases cannot say of `pii-detector`: its table is closed, and no input makes it slow or loud."""

from __future__ import annotations

from typing import get_args

import pytest

from gateway.types import FailMode, Subject, TextPart, Verdict
from policy.compile import compile_chain
from policy.pii_detector import EntityName, PiiDetectorSettings
from policy.pii_rules import DEFAULT, ENTITIES

SUBJECT = Subject("req_1", None, None, None, "test", "m", "chat")


def screen(text: str, **settings: object):  # type: ignore[no-untyped-def]
    pipeline = compile_chain(
        ["pii-detector"],
        {"pii-detector": PiiDetectorSettings(**settings)},  # type: ignore[arg-type]
        fail_mode=FailMode.BLOCK,
        configuration_id="test",
    )
    return pipeline.screen(SUBJECT, [TextPart(text, "user", "message", "messages[0].content")])


def test_settings_and_table_name_the_same_entities() -> None:
    assert get_args(EntityName) == tuple(ENTITIES)
    assert set(DEFAULT) <= set(ENTITIES)


def test_a_hash_needs_a_key() -> None:
    with pytest.raises(ValueError, match="hash_key"):
        screen("x", style="hash")


@pytest.mark.parametrize("filler", ["1", "1 ", "12-", "a@", "@a.", "(1) ", "+1", ":", "a:", "DE00 ", "1.", "٣", "\x00"])
def test_a_megabyte_of_one_thing_is_judged_and_what_follows_is_found(filler: str) -> None:
    text = filler * (1_000_000 // len(filler)) + " \n\nann@corp.test"
    screening = screen(text, entities=tuple(ENTITIES))
    assert screening.verdict is Verdict.REDACT
    assert "<EMAIL_" in dict(screening.replacements)[0][-20:]


def test_half_a_character_does_no_harm() -> None:
    screening = screen("\ud800 ann@corp.test \udfff")
    assert dict(screening.replacements)[0] == "? <EMAIL_1> ?"


def test_a_record_of_it_holds_no_value() -> None:
    screening = screen("ann@corp.test 4539148803436467", action="block")
    said = repr(screening.decisions) + screening.message
    assert "ann" not in said
    assert "4539" not in said


def test_values_that_are_to_come_back_are_numbered_by_the_chain() -> None:
    screening = screen("<EMAIL_1> ann@corp.test bob@corp.test ann@corp.test", restore=True)
    assert dict(screening.replacements)[0] == "<EMAIL_1> <EMAIL_2> <EMAIL_3> <EMAIL_2>"


def test_only_placeholders_can_be_restored() -> None:
    with pytest.raises(ValueError, match="restore"):
        screen("x", restore=True, style="mask")
