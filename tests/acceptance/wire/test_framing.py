"""A hundred thousand requests and thirty thousand answers, generated and damaged: docs/http-framing.md says what holds.

In one process without sockets, 0.3 to 1 ms each. Each difference from h11 that is told must be met: a reason that no
request has is no reason.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.wire.framing.check import check, check_uncut
from tests.wire.framing.differences import ANSWERS_REFUSED, REFUSED
from tests.wire.framing.grammar import Case
from tests.wire.framing.run import play_answers, play_requests
from tests.wire.framing.stand import Stand

pytestmark = pytest.mark.timeout(600)

REQUESTS = 100_000
ANSWERS = 30_000
FIRST = int(os.environ.get("FRAMING_FIRST", "1000000"))
"""The number of the first case; another one makes others (`FRAMING_FIRST=7000000 make acceptance`)."""
BATCH = 2_000


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[Stand]:
    stand = Stand(tmp_path)
    yield stand
    stand.close()


def test_a_hundred_thousand_requests(stand: Stand, record_property: Callable[[str, object], None]) -> None:
    tally: Counter[str] = Counter()
    first = FIRST
    while tally["requests"] < REQUESTS:
        play_requests(stand, range(first, first + BATCH), tally)
        first += BATCH
    for name, count in sorted(tally.items()):
        record_property(name, count)
    assert tally["forwarded"] > REQUESTS // 5
    assert {name for name in REFUSED if not tally[f"refused though h11 takes it: {name}"]} <= _RARE


_RARE = {"more than its limits"}
"""Met by tests of their own (tests/wire/requests.py): a grammar that made such heads would be slow."""


@settings(
    max_examples=1_000,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(chance=st.randoms(use_true_random=False))
def test_hypothesis_chooses(stand: Stand, chance: random.Random) -> None:
    """The same grammar, with every choice made by hypothesis, which makes a failing request as small as it can."""
    case = Case(chance)
    heard = stand.hears(case.reads)
    check(case.data, heard)
    if case.data:
        check_uncut(heard, stand.hears([case.data]))


def test_thirty_thousand_answers(stand: Stand, record_property: Callable[[str, object], None]) -> None:
    tally: Counter[str] = Counter()
    play_answers(stand, range(FIRST, FIRST + ANSWERS), tally)
    for name, count in sorted(tally.items()):
        record_property(name, count)
    assert not [name for name in ANSWERS_REFUSED if not tally[f"refused though h11 takes it: {name}"]]
