"""A text cut anywhere has the matches and the redactions that it has as a whole; and waits no longer than it must."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.types import Subject, TextPart, Verdict
from policy import scan
from policy.base import Match, Pattern, Pipeline, Redaction
from policy.stream import MAX_HELD, Flow, HeldTooLongError, Watch
from policy.terms import term_patterns
from policy.text import redact

PATTERNS = (
    Pattern(r"\d{3,5}", check=lambda value: value[:1] != b"9"),
    Pattern(r"(?i)secret\b"),
    Pattern(r"a+b?c"),
    Pattern(r"\bid:\s*x"),
    Pattern(r"(?i)key\s*[=:]\s*\w{3,8}", placed=r"(?i)key\s*[=:]\s*(\w{3,8})"),
    Pattern(r"once\w?", once=True),
    Pattern(r"^top$"),
    Pattern(r"[a-z]+@[a-z]+\.com"),
    *term_patterns(["foo bar", "bar", "größe", "c++"], whole_word=True, once=False),
    *term_patterns(["oba"], whole_word=False, once=False),
)
WORDS = (
    "foo", "bar", " ", "12", "345", "9", "secret", "s", "aaa", "b", "c", "é", "GRÖ", "ße", "c++", "x", "a@b", ".com",
    "\n", "  ", "x@y", "key", "=", ": ", "id:", "once", "top", "🎈", "\u2028", "\x0b",
)  # fmt: skip

AFTER = tuple(3 if pattern.regex == r"a+b?c" else 0 for pattern in PATTERNS)


@pytest.fixture(scope="module", params=["hyperscan", "re2"])
def watch(request: pytest.FixtureRequest) -> Watch:
    if request.param == "re2":
        return Watch(PATTERNS, AFTER, scan.re2_filter)
    pytest.importorskip("hyperscan")
    return Watch(PATTERNS, AFTER, scan.hyperscan_filter)


def replaced(matches: Sequence[Match]) -> list[Redaction]:
    return [Redaction(0, match.start, match.end, f"<{match.pattern}>") for match in matches]


def as_a_whole(text: str) -> str:
    texts = [TextPart(text)]
    return redact(texts, replaced(scan.scanner(PATTERNS).find(texts))).get(0, text)


def flow(watch: Watch) -> Flow:
    return Flow(watch, TextPart(""), lambda part, matches: replaced(matches))


def in_pieces(watch: Watch, pieces: Sequence[str]) -> str:
    flowing = flow(watch)
    return "".join([flowing.feed(piece) for piece in pieces] + [flowing.close()])


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(words=st.lists(st.sampled_from(WORDS), max_size=14), sizes=st.lists(st.integers(1, 6), min_size=1, max_size=8))
def test_any_cut_gives_the_text_of_the_whole(watch: Watch, words: list[str], sizes: list[int]) -> None:
    text = "".join(words)
    pieces, place, number = [], 0, 0
    while place < len(text):
        size = sizes[number % len(sizes)]
        pieces.append(text[place : place + size])
        place, number = place + size, number + 1
    assert in_pieces(watch, pieces) == as_a_whole(text)


@pytest.mark.parametrize("text", ["key = hunter2, foo\nbar x", "aaac top\ntop 1234567 once", "größe GRÖßE c++ oba"])
def test_every_single_cut(watch: Watch, text: str) -> None:
    for place in range(len(text) + 1):
        assert in_pieces(watch, [text[:place], text[place:]]) == as_a_whole(text)


@pytest.mark.parametrize(
    ("text", "held"),
    [
        ("plain", "plain"),  # may go on as `plain@x.com`
        ("Plain words, ", ""),
        ("x 12", "12"),
        ("x 1", "1"),
        ("foo", "foo"),
        ("FOO ", "FOO "),
        ("x. ", ""),
        ("9 (", ""),
        ("key =", "key ="),
    ],
)
def test_what_waits(watch: Watch, text: str, held: str) -> None:
    flowing = flow(watch)
    gone = flowing.feed(text)
    assert flowing.held == held
    assert flowing.close() == held or "<" in flowing.close() + gone


def test_a_match_waits_for_what_its_policy_needs_after_it(watch: Watch) -> None:
    flowing = flow(watch)
    assert flowing.feed("aac(") == ""
    assert flowing.feed("()") == "<2>(()"


def test_a_match_that_never_ends_is_not_waited_for() -> None:
    flowing = flow(Watch((Pattern(r"BEGIN(?s:.)*END"),), (0,), scan.DEFAULT_ENGINE))
    flowing.feed("BEGIN")
    flowing.feed("x" * (MAX_HELD - 5))
    with pytest.raises(HeldTooLongError):
        flowing.feed("x")
    assert flowing.release() == "BEGIN" + "x" * (MAX_HELD - 4)
    assert flowing.feed("after") == "after"


def test_half_a_character_is_no_reason_to_fail(watch: Watch) -> None:
    assert in_pieces(watch, ["(\ud83d", "\ude00) 123"]) == "(\ud83d\ude00) <0>"


def test_a_judge_that_raises_ends_the_flow(watch: Watch) -> None:
    def refuse(part: TextPart, matches: Sequence[Match]) -> Sequence[Redaction]:
        raise PermissionError(part.text[matches[0].start : matches[0].end])

    flowing = Flow(watch, TextPart(""), refuse)
    assert flowing.feed("ok (secr") == "ok ("
    with pytest.raises(PermissionError, match="secret"):
        flowing.feed("et. ")


def test_a_redaction_beyond_its_matches_is_an_error(watch: Watch) -> None:
    flowing = Flow(watch, TextPart(""), lambda part, matches: [Redaction(0, 0, 100, "x")])
    with pytest.raises(IndexError):
        flowing.feed("secret. ")


KINDS = {
    "pii-detector": {"phase": ["output"], "streaming": "guard"},
    "secret-detector": {"phase": ["output"], "streaming": "guard"},
    "dlp-filter": {"phase": ["output"], "streaming": "guard", "terms": ["project falcon"], "action": "redact"},
}
ANSWERS = (
    "Mail jane.doe@example.com or joe@example.org, not jane.doe@example.com. Card 4111 1111 1111 1111, ok?",
    "Her IBAN is DE89 3704 0044 0532 0130 00; call +49 30 901820 or (212) 555-0123 about Project\nFalcon.",
    "export AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI/K7MDENG/bPxRfiCYzzKQWERTY1 # ghp_0123456789abcdefghijABCDEFGHIJ012345",
)


@pytest.mark.parametrize("text", ANSWERS)
def test_real_policies_say_of_pieces_what_they_say_of_the_whole(build: Callable[..., Pipeline], text: str) -> None:
    pipeline = build(KINDS)
    subject = Subject("r")
    whole = pipeline.review(subject, [TextPart(text, "assistant")])
    assert whole.verdict is Verdict.REDACT
    for size in (1, 2, 3, 7, 16, 50):
        guard = pipeline.guard(subject)
        assert guard is not None
        pieces = [guard.feed(0, "message", "", text[place : place + size]) for place in range(0, len(text), size)]
        assert "".join([*pieces, guard.close(0)]) == whole.replacements[0]
        verdicts = {decision.policy: decision.verdict for decision in whole.decisions}
        assert {kind: decision.verdict for kind, decision in guard.decisions.items()} == verdicts
