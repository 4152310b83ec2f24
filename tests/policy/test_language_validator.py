"""language-validator: settings that make no sense, and its bounds; its cases stand in YAML."""

from __future__ import annotations

import msgspec
import pytest

from gateway.types import Subject, TextPart, Verdict
from policy.base import View
from policy.language_validator import MAX_TEXTS, LanguageValidator, LanguageValidatorSettings

FRENCH = TextPart("Veuillez me dire comment je peux renouveler ma carte.")


def validator(**settings: object) -> LanguageValidator:
    return LanguageValidator(msgspec.convert(settings, LanguageValidatorSettings))


def test_languages_that_cannot_be_told_are_refused() -> None:
    settings = msgspec.convert({"allow": ["en", "xx"], "deny": ["yy"]}, LanguageValidatorSettings)
    assert [problem.path for problem in LanguageValidator.check(settings)] == ["allow[1]", "deny[0]"]
    assert [problem.path for problem in LanguageValidator.check(LanguageValidatorSettings())] == [""]


@pytest.mark.parametrize(("after", "verdict"), [(MAX_TEXTS - 1, Verdict.BLOCK), (MAX_TEXTS, Verdict.ALLOW)])
def test_the_last_texts_are_looked_at(after: int, verdict: Verdict, subject: Subject) -> None:
    view = View([FRENCH, *[TextPart("OK")] * after])
    assert validator(allow=["en"]).on_request(subject, view).verdict is verdict


def test_what_is_said_holds_no_text(subject: Subject) -> None:
    ruling = validator(allow=["en"]).on_request(subject, View([FRENCH]))
    assert "carte" not in repr(ruling)
