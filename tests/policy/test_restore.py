"""Values leave as placeholders and come back, whole or in pieces, and never to whoever invents a placeholder."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from gateway.types import TextPart
from policy.base import Redaction
from policy.restore import Placeholders, Restorer

ORIGINALS = {"<EMAIL_1>": "jane@example.com", "<EMAIL_12>": "<EMAIL_1>", "<CARD_1>": 'a "b" \\ \n'}


def test_the_same_value_has_the_same_placeholder() -> None:
    texts = [TextPart("ab ab cd"), TextPart("cd")]
    placeholders = Placeholders()
    placed = placeholders.place(
        texts,
        [
            Redaction(1, 0, 2, "", "X", True),
            Redaction(0, 0, 2, "", "X", True),
            Redaction(0, 3, 5, "", "X", True),
            Redaction(0, 6, 8, "y"),
        ],
    )
    assert [one.replacement for one in placed] == ["<X_1>", "<X_1>", "y", "<X_2>"]
    assert placeholders.originals == {"<X_1>": "ab", "<X_2>": "cd"}
    (again,) = placeholders.place([TextPart("cd")], [Redaction(0, 0, 2, "", "X")])
    assert again.replacement == "<X_2>"


def test_a_placeholder_that_a_text_contains_is_not_used_for_what_comes_back() -> None:
    texts = [TextPart("value"), TextPart("what is <X_1>, and <X_3>?")]
    redactions = [Redaction(0, 0, 1, "", "X", True), Redaction(0, 1, 2, "", "X", True)]
    assert [one.replacement for one in Placeholders().place(texts, redactions)] == ["<X_2>", "<X_4>"]
    for_good = Redaction(0, 0, 1, "", "X")
    assert [one.replacement for one in Placeholders().place(texts, [for_good])] == ["<X_1>"]


def test_a_value_is_not_searched_for_placeholders() -> None:
    assert Restorer(ORIGINALS).whole("<EMAIL_12> <EMAIL_2>") == "<EMAIL_1> <EMAIL_2>"


def test_arguments_of_tools_stay_json() -> None:
    for written in ('{"to":"<CARD_1>"}', '{"to":"\\u003cCARD_1\\u003e"}'):
        told = Restorer(ORIGINALS).whole(written, json=True)
        assert json.loads(told) == {"to": ORIGINALS["<CARD_1>"]}


@given(
    words=st.lists(st.sampled_from(["<EMAIL_1>", "<EMAIL_12>", "<", "EMAIL_1", ">", "<E", "a", "\\u003", "cCARD_1"])),
    size=st.integers(1, 7),
)
def test_any_cut_gives_the_text_of_the_whole(words: list[str], size: int) -> None:
    text = "".join(words)
    restorer = Restorer(ORIGINALS)
    pieces = [restorer.feed(1, text[place : place + size]) for place in range(0, len(text), size)]
    assert "".join(pieces) + restorer.close(1) == restorer.whole(text)


def test_only_the_beginning_of_a_placeholder_waits() -> None:
    restorer = Restorer(ORIGINALS)
    assert restorer.feed(1, "a < b <EM") == "a < b "
    assert restorer.feed(2, "another text") == "another text"
    assert restorer.feed(1, "B") == "<EMB"
