"""Runs of many cases, each made from its number: a failure names the number that makes it again."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable

from tests.wire.framing.answers import AnswerCase
from tests.wire.framing.check import check, check_uncut
from tests.wire.framing.check_answers import check_answer
from tests.wire.framing.grammar import Case
from tests.wire.framing.stand import Stand

UNCUT_EVERY = 8
"""Of so many cases one is played a second time, in one read."""


def play_answers(stand: Stand, numbers: Iterable[int], tally: Counter[str]) -> None:
    """The same of a provider's answers."""
    for number in numbers:
        case = AnswerCase(random.Random(number))
        try:
            check_answer(case, stand.is_answered(case.reads, case.end, streams=case.streams), tally)
        except Exception as error:
            raise AssertionError(f"answer {number}: {error}\n{case.data!r}") from error


def play_requests(stand: Stand, numbers: Iterable[int], tally: Counter[str]) -> None:
    """Play these cases. Raises AssertionError with the number of the first that fails."""
    for number in numbers:
        case = Case(random.Random(number))
        try:
            heard = stand.hears(case.reads)
            check(case.data, heard, tally)
            if number % UNCUT_EVERY == 0 and case.data:
                check_uncut(heard, stand.hears([case.data]))
        except Exception as error:
            raise AssertionError(f"case {number}: {error}\n{case.data!r}") from error
