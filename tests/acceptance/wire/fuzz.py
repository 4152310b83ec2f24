"""libFuzzer on the framing of both sides.

    python -m tests.acceptance.wire.fuzz requests|answers [options of libFuzzer, or a file to play again]

atheris instruments our parsers, so that libFuzzer keeps whatever reaches a branch that nothing has reached before. It
begins with cases of the grammar, in a folder of its own, and looks for a fault, a 500, or anything that goes to the
provider or to the client and should not (`check`, `check_answers`). That a refusal has a reason is not asked here: the
grammar is for that. A failing input is left as a file in the current folder.
"""

from __future__ import annotations

import random
import sys
import tempfile
from collections import Counter
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["gateway.downstream", "gateway.upstream", "gateway.http1", "gateway.relay"]):
    from tests.wire.framing.answers import AnswerCase
    from tests.wire.framing.check import check
    from tests.wire.framing.check_answers import check_answer
    from tests.wire.framing.grammar import Case
    from tests.wire.framing.stand import Stand

SEEDS = 300
_ENDS = ("open", "closed", "reset")


class GivenAnswer(AnswerCase):
    """An answer of which the first byte says how it is cut, how its connection ends and what was asked."""

    def __init__(self, data: bytes) -> None:
        how = data[0] if data else 0
        self.data = data[1:]
        self.streams = bool(how & 1)
        self.end = _ENDS[(how >> 1) % len(_ENDS)]
        size = (len(self.data), 1, 7, 50)[(how >> 3) % 4] or 1
        self.reads = [self.data[at : at + size] for at in range(0, len(self.data), size)]


def play_request(stand: Stand, data: bytes) -> None:
    """One input of the first kind: its first byte says how it is cut."""
    how, data = (data[0] if data else 0), data[1:]
    size = (len(data), 1, 7, 50)[how % 4] or 1
    check(data, stand.hears([data[at : at + size] for at in range(0, len(data), size)]), reasons=False)


def play_answer(stand: Stand, data: bytes) -> None:
    """One input of the second kind."""
    case = GivenAnswer(data)
    relayed = stand.is_answered(case.reads, case.end, streams=case.streams)
    check_answer(case, relayed, Counter(), reasons=False)


def main() -> None:
    """Hand over to libFuzzer, which ends the process."""
    kind = sys.argv.pop(1)
    play, make = {"requests": (play_request, Case), "answers": (play_answer, AnswerCase)}[kind]
    stand = Stand(Path(tempfile.mkdtemp(prefix="fuzz-")))
    arguments = list(sys.argv)
    if not any(Path(argument).is_file() for argument in arguments[1:]):
        arguments.append(str(_seeds(make)))
    atheris.Setup(arguments, lambda data: play(stand, data))
    atheris.Fuzz()


def _seeds(make: type[Case] | type[AnswerCase]) -> Path:
    """A corpus to begin with."""
    folder = Path(tempfile.mkdtemp(prefix="corpus-"))
    for number in range(SEEDS):
        (folder / str(number)).write_bytes(bytes([number % 256]) + make(random.Random(number)).data)
    return folder


if __name__ == "__main__":
    main()
