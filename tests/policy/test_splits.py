"""Secrets and card numbers that something was put into: POLICIES may not lose them to a line break."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gateway.types import Subject, TextPart, Verdict
from policy.base import Pipeline
from policy.splits import joined

TOKEN = "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"
CARD = "4539148803436467"

Split = Callable[[str], str]

SPLITS: dict[str, Split] = {
    "line break": lambda value: f"{value[:9]}\n{value[9:]}",
    "line break and indent": lambda value: f"{value[:9]}\r\n    {value[9:]}",
    "line break in JSON": lambda value: f"{value[:9]}\\n{value[9:]}",
    "JSON escape": lambda value: f"{value[:9]}\\u{ord(value[9]):04x}{value[10:]}",
    "URL encoding": lambda value: f"{value[:9]}%{ord(value[9]):02X}{value[10:]}",
    "Markdown bold": lambda value: f"{value[:9]}**{value[9:12]}**{value[12:]}",
}


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize(
    ("kind", "value", "placeholder"),
    [("secret-detector", TOKEN, "[SECRET:github]"), ("pii-detector", CARD, "<CARD_1>")],
)
def test_a_value_that_is_split(
    kind: str, value: str, placeholder: str, split: str, build: Callable[..., Pipeline], subject: Subject
) -> None:
    settings: dict[str, Any] = {kind: {"entities": ["credit-card"]} if kind == "pii-detector" else {}}
    screening = build(settings).screen(subject, [TextPart(f"It is {SPLITS[split](value)}, is it not?")])
    assert screening.verdict is Verdict.REDACT
    assert screening.replacements[0] == f"It is {placeholder}, is it not?"


@pytest.mark.parametrize(
    "text",
    [
        "4539148803436468\n4539148803436468",
        "2023-01-15\n2023-01-16",
        "4539148\n803436468",
        "totals:\n4539\n1488\n0343\n6467",
        "ghp_\nhttps://example.test/a%20b",
        "prefixes such as ghp_, npm_ and hf_*\nare in use",
        "AKIA*\n",
    ],
)
def test_what_is_no_value_when_it_is_joined(text: str, build: Callable[..., Pipeline], subject: Subject) -> None:
    pipeline = build({"secret-detector": {}, "pii-detector": {"entities": ["credit-card"]}})
    assert pipeline.screen(subject, [TextPart(text)]).verdict is Verdict.ALLOW


def test_every_byte_that_is_left_knows_its_end() -> None:
    whole, ends = joined(b"a\nb%63**d\\u0065")
    assert whole == b"abcde"
    assert ends == [1, 3, 6, 9, 15]
