"""Support of a statement by passages: what raises and what lowers the score."""

from __future__ import annotations

import pytest

from policy.grounding import FEATURES, WEIGHTS, features, join, read_passage, support

PASSAGE = read_passage(
    "The bridge was opened in 1932 by Mayor Hallam. It carries two lanes of traffic and a railway over the estuary. "
    "Tolls were abolished in 1971 after a long campaign."
)


@pytest.mark.parametrize(
    ("supported", "unsupported"),
    [
        ("The bridge was opened in 1932 by Mayor Hallam.", "The bridge was opened in 1947 by Mayor Hallam."),
        ("The bridge was opened in 1932 by Mayor Hallam.", "The bridge was opened in 1932 by Mayor Osgood."),
        ("It carries two lanes of traffic and a railway.", "It has four lanes and a tramway for commuters."),
        ("Tolls were abolished in 1971.", "A ferry replaced the service when storms damaged the pier."),
    ],
)
def test_what_the_passage_says_scores_higher(supported: str, unsupported: str) -> None:
    assert support(supported, PASSAGE) > support(unsupported, PASSAGE)


def test_the_passages_words_are_supported_and_others_are_not() -> None:
    assert support("Tolls were abolished in 1971 after a long campaign.", PASSAGE) > 0.8
    assert support("Penguins breed on the southern ice during winter.", PASSAGE) < 0.3


def test_sources_cited_together_support_together() -> None:
    first, second = read_passage("Hallam opened the bridge."), read_passage("The year was 1932.")
    statement = "Hallam opened the bridge in 1932."
    assert support(statement, join([first, second])) > max(support(statement, first), support(statement, second))
    assert join([first]) is first


def test_numbers_are_compared_without_their_commas() -> None:
    found = features("It cost 1,200,000 pounds.", read_passage("The cost was 1200000."))
    assert found is not None
    assert found["numbers"] == 0


@pytest.mark.parametrize(("statement", "passage"), [("", "text"), ("text", ""), ("...", "?")])
def test_nothing_supports_nothing(statement: str, passage: str) -> None:
    assert support(statement, read_passage(passage)) == 0


def test_every_feature_has_its_weight() -> None:
    found = features("The bridge was opened.", PASSAGE, "When?")
    assert found is not None
    assert tuple(found) == FEATURES == tuple(WEIGHTS)


def test_a_hostile_passage_takes_no_time() -> None:
    for piece in ("a. ", "A,", "1,", "\n", "(A"):
        support(piece * 300, read_passage(piece * 100_000))
