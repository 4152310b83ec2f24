"""Citations: what is read as one, what it points at, and that nothing made up is missed."""

from __future__ import annotations

import random

import pytest

from policy.citations import (
    Source,
    Sources,
    finder,
    normal,
    parse,
    quote_share,
    quotes,
    statements,
    wording,
)


@pytest.mark.parametrize(
    ("answer", "keys"),
    [
        ("Water boils [1].", ["#1"]),
        ("Water boils[1][2].", ["#1", "#2"]),
        ("Water boils [1, 3; 5].", ["#1", "#3", "#5"]),
        ("Water boils [2-4].", ["#2", "#3", "#4"]),
        ("Water boils [2–3].", ["#2", "#3"]),
        ("Water boils.[^7]", ["#7"]),
        ("Water boils [doc2].", ["#2"]),
        ("Water boils【4:0†notes.txt】.", ["#4"]),
        ("Water boils (Smith, 2021).", ["Smith 2021"]),
        ("Water boils (Smith et al., 2021; Jones and Lee 1999).", ["Smith 2021", "Jones 1999"]),
        ("See https://example.com/a?b=1.", ["https://example.com/a?b=1"]),
        ("See [the page](https://example.com/a).", ["https://example.com/a"]),
        ("[3] says so.", ["#3"]),
        ("Between 1914 and 1918 (see above), in (2021) and [sic].", []),
        ("`row[1]` is code.", []),
        ("```\nrow[1]\n```", []),
        ("From [1990-1995] on.", []),
        ("", []),
    ],
)
def test_what_is_a_citation(answer: str, keys: list[str]) -> None:
    assert [key for citation in parse(answer) for key in citation.keys] == keys


def test_offsets_hold_the_citation() -> None:
    answer = "Ä [1] and (Smith, 2021) and https://example.com/x."
    assert [answer[c.start : c.end] for c in parse(answer)] == ["[1]", "(Smith, 2021)", "https://example.com/x"]


def test_citations_belong_to_the_sentence_before_them() -> None:
    answer = "First. [1] Second [2]. Third is bare.\n\nReferences\n[1] https://example.com/a\n[2] Title"
    told = [(wording(answer, s).strip(), [c.keys for c in s.citations]) for s in statements(answer, parse(answer))]
    assert told == [
        ("First.", [("#1",)]),
        ("Second  .", [("#2",)]),
        ("Third is bare.", []),
        ("References", []),
    ]


def test_numbers_are_those_that_the_sources_carry() -> None:
    sources = Sources([Source("[1] Water boils.\n[3] Ice melts.")])
    assert sources.passages("#1") == [" Water boils.\n"]
    assert sources.passages("#3") == [" Ice melts."]
    assert sources.passages("#2") is None


@pytest.mark.parametrize(
    "text",
    [
        "Source 2: Ice melts.",
        '<document index="2">Ice melts.</document>',
        "[doc2] Ice melts.",
        "Document 2) Ice melts.",
    ],
)
def test_ways_to_number_a_source(text: str) -> None:
    assert Sources([Source(text)]).passages("#2") is not None
    assert Sources([Source(text)]).passages("#3") is None


def test_without_numbers_documents_are_counted() -> None:
    sources = Sources([Source("question", document=False), Source("Water boils."), Source("Ice melts.")])
    assert sources.passages("#2") == ["Ice melts."]
    assert sources.passages("#3") is None


def test_links_are_known_from_the_request_or_by_host() -> None:
    sources = Sources([Source("See http://www.example.com/a/ there.")], known_hosts=["docs.example.org"])
    assert sources.passages("https://example.com/a#part") == ["See http://www.example.com/a/ there."]
    assert sources.passages("https://example.com/b") is None
    assert sources.passages("https://docs.example.org/x") == []
    assert sources.passages("https://notdocs.example.org/x") is None
    assert sources.passages("https://[broken") is None


def test_a_number_of_the_answers_own_list() -> None:
    answer = "Water boils [1][2].\n\n[1] https://example.com/a\n[2] Made up of nothing"
    sources = Sources([Source("found at https://example.com/a", document=False)], answer)
    assert sources.passages("#1") == ["found at https://example.com/a"]
    assert sources.passages("#2") is None


def test_an_author_stands_near_the_year() -> None:
    sources = Sources([Source("Smith, J. (2021). On water." + " x" * 400 + " Lee 1999")])
    assert sources.passages("Smith 2021")
    assert sources.passages("Smith 1999") is None
    assert sources.passages("Jones 2021") is None


def test_quotes_count_words() -> None:
    answer = 'He said "one two three four five" and "too few words". «un deux trois quatre cinq» “a b c d e f”'
    assert [quote.text for quote in quotes(answer, 5)] == [
        "one two three four five",
        "un deux trois quatre cinq",
        "a b c d e f",
    ]


WORDS = normal(
    "The river rises in the northern hills and runs for two hundred miles through farm land before it meets the sea "
    "near an old harbour town whose market has been held each Saturday since the charter of the year twelve hundred"
).split()


def test_a_true_quote_is_found_and_any_changed_word_is_not() -> None:
    """Generated: every start, several lengths, every place of the change. None may be missed."""
    occurs = finder([" ".join(WORDS)])
    rng = random.Random(4)
    for start in range(len(WORDS) - 5):
        for length in (5, 8, 13, 21):
            quote = WORDS[start : start + length]
            if len(quote) < 5:
                continue
            assert quote_share(" ".join(quote).capitalize() + ".", occurs) == 1
            for place in range(len(quote)):
                changed = [*quote[:place], rng.choice(["seven", "lake", "never"]), *quote[place + 1 :]]
                assert quote_share(" ".join(changed), occurs) < 1
            assert quote_share(" ".join(quote[:2] + quote[3:]), occurs) < 1


def test_a_quote_may_leave_out_and_differ_in_form() -> None:
    occurs = finder(["It’s a long road — and, as they say, it never ends."])
    assert quote_share("It's a long road ... it never ends", occurs) == 1
    assert quote_share("[…] A LONG ROAD and as they say", occurs) == 1
    assert quote_share("a long road and as we say it never ends", occurs) < 1


def test_every_generated_reference_that_points_at_nothing_is_found() -> None:
    rng = random.Random(4)
    for _ in range(300):
        count = rng.randint(1, 9)
        sources = Sources([Source("\n".join(f"[{n}] Fact number {n}." for n in range(1, count + 1)))])
        cited = [rng.randint(1, 15) for _ in range(5)]
        form = rng.choice(["[{}]", "[^{}]", "[doc{}]", "【{}†x】"])
        answer = " ".join(f"Something is so {form.format(number)}." for number in cited)
        unresolved = [key for c in parse(answer) for key in c.keys if sources.passages(key) is None]
        assert unresolved == [f"#{number}" for number in cited if number > count]


def test_a_hostile_answer_takes_no_time() -> None:
    for piece in ("[1", "[1-", "(A", '"', "[1] [", "https://", "【1", "(Smith, "):
        answer = piece * 20_000
        citations = parse(answer)
        assert len(citations) <= 200
        assert len(list(statements(answer, citations))) <= 2
