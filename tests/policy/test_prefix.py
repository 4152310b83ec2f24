"""`live(E)` matches every beginning of a match of E, and nothing that cannot become one."""

from __future__ import annotations

import pytest
import re2

from policy.prefix import CHAIN, announcement, live, spelled_out


def begins(expression: str, text: str, *, placed: bool = False) -> bool:
    found = live(expression, placed=placed)
    return re2.fullmatch(f"(?m){found.before}(?:{found.begun})", text) is not None


SAMPLES = [
    (r"(?i)foo\b", "foO"),
    (r"\bAKIA[0-9A-Z]{16}\b", "AKIA0123456789ABCDEF"),
    (r"(?:ab|cde)+f?g", "abcdeabfg"),
    (r"(?:ab|cde){2,3}", "abcdeab"),
    (r"[a-z0-9._%+-]+@[a-z0-9.-]+\.[a-z]{2,}", "john.doe@example.com"),
    (r"pass(?:word)?\s*[:=]\s*\S{3,}", "password = hunter2"),
    (r"\Qa.b\E(?s:.)x", "a.b\nx"),
    (r"(?i)a(?-i)B|c(?:d(?i)e)f", "aB"),
    (r"c(?:d(?i)e)f", "cdEf"),
    (r"[]a]x[^]b]\]", "]x!]"),
    (r"[[:alpha:]]\pL\p{Greek}\x41\x{1F388}\101", "aéαA🎈A"),
    (r"a??b*?c+?", "abbc"),
    (r"(?P<name>x)(y)", "xy"),
    (r"a{2}(?:b{0})c", "aac"),
    (r"^a$\nb", "a\nb"),
]


@pytest.mark.parametrize(("expression", "text"), SAMPLES)
def test_every_beginning_is_alive(expression: str, text: str) -> None:
    assert re2.fullmatch(f"(?m){expression}", text)
    for size in range(1, len(text) + 1):
        assert begins(expression, text[:size]), text[:size]


@pytest.mark.parametrize(
    ("expression", "dead"),
    [
        (r"foo", ["fof", "x", "fooo"]),
        (r"\d{2,3}", ["1234", "12a"]),
        (r"(?i)a(?-i)B", ["ab", "B"]),
        (r"(?:ab|cde)+", ["abd", "cdeb"]),
    ],
)
def test_nothing_else_is(expression: str, dead: list[str]) -> None:
    assert not [text for text in dead if begins(expression, text)]


def test_long_literals() -> None:
    text = "".join(chr(97 + number % 26) for number in range(CHAIN * 8))
    for size in (1, CHAIN, CHAIN + 1, len(text)):
        assert begins(text, text[:size])
    assert not begins(text, text[: CHAIN * 3] + "!")


def test_one_character_around_a_group_is_none_of_it() -> None:
    found = live(r"(?:^|\W)(foo)(?:$|\W)", placed=True)
    assert found.before == r"(?:^|\W)"
    assert not re2.fullmatch(found.begun, " ")
    assert not re2.fullmatch(found.begun, "foo ")
    assert re2.fullmatch(found.begun, "foo")
    assert re2.fullmatch(found.first, "f")
    assert not re2.fullmatch(found.first, "o")


def test_longer_surroundings_are_waited_for() -> None:
    assert live(r"key=(\w+)", placed=True).before == ""
    assert begins(r"key=(\w+)", "ke", placed=True)


@pytest.mark.parametrize(
    ("expression", "written"),
    [
        (r"(?i)\wa", "(?i)[0-9A-Za-z_]a"),
        (r"[\w.-]+@\w", "[0-9A-Za-z_.-]+@[0-9A-Za-z_]"),
        (r"\\w[\\w]\Q\w\E", r"\\w[\\w]\Q\w\E"),
        (r"\W(?:a|[^\]\w])", r"\W(?:a|[^\]0-9A-Za-z_])"),
    ],
)
def test_word_characters_are_spelled_out(expression: str, written: str) -> None:
    assert spelled_out(expression) == written


@pytest.mark.parametrize(
    ("expression", "announced"),
    [
        (r"[\w.]+@[\w.]+\.[a-z]+", r"[\w.]@(?:[\w.]){1,1}"),
        (r"(?i)\b[\w.]+@\w{2,9}b", r"(?i:[\w.])(?i:@)(?:(?i:\w)){2,9}(?i:b)"),
        (r"\b[a-z]{1,3}@[a-z]+", r"\b(?:[a-z]){1,3}@(?:[a-z]){1,1}"),
        (r"\b[a-z]*@[a-z]{8}", r"\b[a-z]*@[a-z]{8}"),
        (r"\bkey=\s*\S{8,99}", r"\bkey="),
        (r"abc\d{2,99}", r"abc\d{2,99}"),
        (r"a@b|c@d+", r"a@b|c@d+"),
    ],
)
def test_what_announces_an_expression(expression: str, announced: str) -> None:
    assert announcement(expression) == announced
