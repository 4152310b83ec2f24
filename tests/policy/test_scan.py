"""The one pass: both engines find the same, in parts as in the whole, and nothing makes them slow."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.types import TextPart
from policy import scan
from policy.base import Match, Pattern

ENGINES = (scan.re2_filter,) if scan.hyperscan is None else (scan.hyperscan_filter, scan.re2_filter)


def find(engine: scan.Engine, patterns: Sequence[str | Pattern], *texts: str) -> list[tuple[int, int, int, int]]:
    made = tuple(Pattern(pattern) if isinstance(pattern, str) else pattern for pattern in patterns)
    matches = scan.scanner(made, engine).find([TextPart(text) for text in texts])
    return [(match.part, match.start, match.end, match.pattern) for match in matches]


# What is found


def test_matches_come_in_order_of_place(engine: scan.Engine) -> None:
    assert find(engine, ["b", "a"], "xba", "ab") == [(0, 1, 2, 0), (0, 2, 3, 1), (1, 0, 1, 1), (1, 1, 2, 0)]


def test_offsets_are_bytes(engine: scan.Engine) -> None:
    assert find(engine, ["é+"], "añ éé") == [(0, 4, 8, 0)]


def test_matches_are_the_leftmost_and_longest_and_do_not_overlap(engine: scan.Engine) -> None:
    assert find(engine, ["a|ab|abab"], "xababab") == [(0, 1, 5, 0), (0, 5, 7, 0)]


def test_once_is_once_in_each_part(engine: scan.Engine) -> None:
    assert find(engine, [Pattern("a", once=True)], "aa", "b", "aa") == [(0, 0, 1, 0), (2, 0, 1, 0)]


def test_a_placed_match_is_its_group(engine: scan.Engine) -> None:
    assert find(engine, [Pattern("a", placed="x(a)y")], "a xay xaz") == [(0, 3, 4, 0)]


def test_surroundings_are_shared_by_neighbours(engine: scan.Engine) -> None:
    assert find(engine, [Pattern("a", placed=" (a) ")], " a a ") == [(0, 1, 2, 0), (0, 3, 4, 0)]


def test_word_ends_and_line_ends_see_what_stands_before(engine: scan.Engine) -> None:
    assert find(engine, [r"\ba"], "a aa") == [(0, 0, 1, 0), (0, 2, 3, 0)]
    assert find(engine, ["^a"], "aa\na") == [(0, 0, 1, 0), (0, 3, 4, 0)]


@pytest.mark.parametrize("text", ["a\ud800b", "\udc00a\udfffb"])
def test_lone_surrogates_do_not_stop_a_scan(engine: scan.Engine, text: str) -> None:
    found = find(engine, ["b"], text)
    assert len(found) == 1
    assert text.encode("utf-8", "replace")[found[0][1] : found[0][2]] == b"b"


def test_nul_characters_are_text(engine: scan.Engine) -> None:
    assert find(engine, [r"a\x{0}b"], "xa\0b") == [(0, 1, 4, 0)]


def test_no_texts(engine: scan.Engine) -> None:
    assert find(engine, ["a"]) == []


def test_patterns_beyond_one_set_keep_their_numbers(engine: scan.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "_FILTER_MEMORY_BYTES", 64 * 1024)
    words = [f"word{number:04d}" for number in range(3000)]
    assert find(engine, words, "x word0000 y", "word1499 word1500", "word2999") == [
        (0, 2, 10, 0),
        (1, 0, 8, 1499),
        (1, 9, 17, 1500),
        (2, 0, 8, 2999),
    ]


# Properties

ATOMS = st.sampled_from(
    [
        "a",
        "b",
        "ab",
        "é",
        "я",
        ".",
        r"\w",
        r"\s",
        r"\S",
        r"\d",
        "[ab]",
        "[^a]",
        r"[^\s]",
        r"\p{Greek}",
        "K",
        "s",
        r"\x{20ac}",
    ]
)
EXPRESSIONS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map(lambda pair: f"(?:{pair[0]}|{pair[1]})"),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "{2}", "{1,3}", "{2,}", "*?"])).map(
            lambda pair: f"(?:{pair[0]}){pair[1]}"
        ),
        inner.map(lambda expression: f"(?i){expression}" if not expression.startswith("(?i)") else expression),
        inner.map(lambda expression: rf"\b(?:{expression})"),
        inner.map(lambda expression: rf"(?:{expression})\b"),
        inner.map(lambda expression: f"(?:^|b)(?:{expression})"),
        inner.map(lambda expression: f"(?:{expression})(?:$|b)"),
    ),
    max_leaves=6,
)
TEXTS = st.text(alphabet="aAbBéÉαяЯ k\u212asſ1_€.\n\t\v\0\ud800", max_size=12)


@settings(deadline=None, max_examples=60)
@given(st.lists(EXPRESSIONS, min_size=1, max_size=4), st.lists(TEXTS, max_size=4))
def test_engines_agree_and_parts_stand_alone(expressions: list[str], texts: list[str]) -> None:
    accepted = [expression for expression in expressions if scan.refusal(expression) is None]
    results = [find(engine, accepted, *texts) if accepted else [] for engine in ENGINES]
    assert all(result == results[0] for result in results)
    alone = [
        (part, start, end, pattern)
        for part, text in enumerate(texts)
        for _, start, end, pattern in (find(ENGINES[0], accepted, text) if accepted else [])
    ]
    assert results[0] == alone


@settings(deadline=None)
@given(st.lists(st.sampled_from(["ab", "a", "ba", "b a"]), min_size=1, max_size=3, unique=True), TEXTS)
def test_literals_are_found_where_python_finds_them(literals: list[str], text: str) -> None:
    expected = sorted(
        Match(
            0,
            len(text[: hit.start()].encode("utf-8", "replace")),
            len(text[: hit.end()].encode("utf-8", "replace")),
            number,
        )
        for number, literal in enumerate(literals)
        for hit in re.finditer(re.escape(literal), text)
    )
    for engine in ENGINES:
        assert find(engine, literals, text) == [(m.part, m.start, m.end, m.pattern) for m in expected]


# What is refused

REFUSED = {
    "a(?=b)": "look-around",
    "(?<!a)b": "look-around",
    r"(a)\1": "back-references",
    "(?P=name)": "RE2 syntax",
    "(?>a)": "RE2 syntax",
    "a++": "bad repetition operator",
    "(a": "missing )",
    "[a": "missing ]",
    "a{1001}": "invalid repetition size",
    "(?:a{1,500}){1,500}": "repetition",
    "*a": "no argument for repetition operator",
    "a\0": "NUL",
    "a\ud800": "surrogate",
    r"\Aa": "use `^`",
    r"a\z": "use `$`",
    r"\v": "use `\\s`",
    r"\C": "use `.`",
    "(?x)a b": "(?x)",
    "(?U)a+": "(?U)",
    "(?-m)^a": "(?-m)",
    "(?-m:^a)": "(?-m:",
    "(?s-m:^a)": "(?s-m:",
    "": "empty",
    "a*": "empty",
    "a|": "empty",
    r"\b": "empty",
    r"\B": "empty",
    "^": "empty",
    "$": "empty",
    r"x*\b": "empty",
}


@pytest.mark.parametrize("expression", REFUSED)
def test_an_expression_is_refused(expression: str) -> None:
    assert REFUSED[expression] in (scan.refusal(expression) or "accepted")


@pytest.mark.parametrize(
    "expression",
    ["a", "(?i)a", "(?s)a.b", "(?i:a)b", "(?im)a", "(?P<name>a)", r"\\Aa", r"[*+]x", "a{1,100}", r"\Qa.b\E", r"\p{Lu}"],
)
def test_an_expression_is_accepted(expression: str) -> None:
    assert scan.refusal(expression) is None


def test_an_engine_names_the_pattern_it_cannot_take(engine: scan.Engine) -> None:
    with pytest.raises(scan.PatternError) as caught:
        engine(("a", "b(", "c"))
    assert caught.value.number == 1


# Time

MEGABYTE = 1 << 20


@pytest.mark.parametrize("expression", ["(a+)+$b", "(a|a)*b", "(a|aa)+b", "(.*a){8}b", r"(\w+\s?)+!", "(a?){50}a{50}b"])
def test_a_megabyte_of_one_character_is_no_trouble(engine: scan.Engine, expression: str) -> None:
    if scan.refusal(expression) is None:
        assert find(engine, [expression], "a" * MEGABYTE) == []


def test_after_too_many_matches_the_rest_is_one(engine: scan.Engine) -> None:
    found = find(engine, ["a"], "a" * MEGABYTE)
    assert len(found) == scan.MAX_SPANS + 1
    assert found[-1] == (0, scan.MAX_SPANS, MEGABYTE, 0)


def test_after_too_much_searching_the_rest_is_one(engine: scan.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "SEARCH_BUDGET_BYTES", 10 * MEGABYTE)
    assert find(engine, ["(?:a.*z)|a"], "a" * MEGABYTE)[-2:] == [(0, 9, 10, 0), (0, 10, MEGABYTE, 0)]
    assert len(find(engine, ["a{1,3}b"], "aaab" * 100 + "x" * MEGABYTE)) == 100


# Engines and threads


def test_without_a_wheel_of_hyperscan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hyperscan", None)
    spec = importlib.util.find_spec("policy.scan")
    assert spec is not None
    assert spec.loader is not None
    bare = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bare)
    assert bare.DEFAULT_ENGINE is bare.re2_filter
    assert bare.refusal("a+") is None
    assert "look-around" in bare.refusal("(?=a)")


def test_threads_do_not_disturb_each_other(engine: scan.Engine) -> None:
    scanner = scan.scanner((Pattern(r"EMP-\d{6}"), Pattern("(?i)falcon")), engine)
    texts = [[TextPart("x" * 100_000 + f"EMP-{number:06d} " + "Falcon " * number)] for number in range(40)]
    alone = [scanner.find(text) for text in texts]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(scanner.find, texts * 3)) == alone * 3


def test_literals_are_found_as_they_stand() -> None:
    find = scan.literals([b"a.b+c\xc3\xa9", b"a.b", b"x\0y", b"\xff("])
    data = b"zz a.b+c\xc3\xa9 a.b axb x\0y \xff("
    assert [value for _, _, value in find(data)] == [b"a.b+c\xc3\xa9", b"a.b", b"x\0y", b"\xff("]
    assert all(data[start:end] == value for start, end, value in find(data))
