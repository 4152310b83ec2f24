"""Terms against an oracle: Python's own expressions on ASCII, where both mean the same by a word."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.types import TextPart
from policy import scan
from policy import terms as terms_module
from policy.terms import term_patterns

TERMS = st.text(alphabet="abA1_+. ", min_size=1, max_size=6).filter(str.strip)
TEXTS = st.text(alphabet="abAB1_+. \n", max_size=24)
ENGINES = (scan.re2_filter,) if scan.hyperscan is None else (scan.hyperscan_filter, scan.re2_filter)


def occurs(term: str, text: str, whole_word: bool) -> bool:
    words = term.split()
    before = r"(?<!\w)" if whole_word and re.match(r"\w", words[0]) else ""
    after = r"(?!\w)" if whole_word and re.search(r"\w$", words[-1]) else ""
    body = r"\s+".join(map(re.escape, words))
    return re.search(f"{before}{body}{after}", text, re.IGNORECASE) is not None


@settings(deadline=None)
@given(st.lists(TERMS, min_size=1, max_size=4), TEXTS, st.booleans())
def test_terms_occur_where_python_says(terms: list[str], text: str, whole_word: bool) -> None:
    expected = {number for number, term in enumerate(terms) if occurs(term, text, whole_word)}
    patterns = term_patterns(terms, whole_word=whole_word, once=True)
    for engine in ENGINES:
        found = scan.scanner(patterns, engine).find([TextPart(text)])
        assert {match.pattern for match in found} == expected


def test_a_term_of_several_words_is_looked_for_whole() -> None:
    assert term_patterns(["a big falcon"], whole_word=True, once=True)[0].regex == r"(?i)a[\s\p{Z}]+big[\s\p{Z}]+falcon"
    assert term_patterns(["falcon"], whole_word=True, once=True)[0].regex == "(?i)falcon"


@pytest.fixture
def long_list(monkeypatch: pytest.MonkeyPatch) -> None:
    """There are too many terms to look for each whole."""
    monkeypatch.setattr(terms_module, "MAX_PHRASES", 0)


@pytest.mark.usefixtures("long_list")
def test_a_word_that_many_terms_share_stands_for_none_of_them() -> None:
    patterns = term_patterns(["project falcon", "project crane", "Project owl"], whole_word=True, once=True)
    assert [pattern.regex for pattern in patterns] == ["(?i)falcon", "(?i)crane", r"(?i)\bowl\b"]


@pytest.mark.usefixtures("long_list")
def test_alone_the_longest_word_stands_for_its_term() -> None:
    assert term_patterns(["a big falcon"], whole_word=False, once=True)[0].regex == "(?i)falcon"
