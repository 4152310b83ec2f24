"""What has been said in a conversation since its last response: what the next one replies to, and is recorded with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from gateway.turn import Asked, Turn
from policy.steps import STRICTNESS

if TYPE_CHECKING:
    from gateway.types import Decision, TextPart
    from translators.realtime import ClientEvent
    from translators.tools import Declared

MAX_REMEMBERED: Final = 1024 * 1024
"""Bytes that are kept for policies which compare an answer with its request."""


class Said:
    """The client's messages since the last response. Of each policy's decisions the strictest is kept."""

    def __init__(self) -> None:
        self._texts: list[TextPart] = []
        self._tools: Sequence[Declared] = ()
        self._size = 0
        self._decisions: dict[str, Decision] = {}

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """What policies said of it, one for each policy."""
        return tuple(self._decisions.values())

    def note(self, event: ClientEvent, *, texts: bool) -> None:
        """A message goes to the provider; `texts`: policies of answers will want to know what it says."""
        self._size += len(event.message)
        if texts:
            if (tools := event.tools) is not None:
                self._tools = tools
            if self._size < MAX_REMEMBERED:
                self._texts += event.texts()

    def note_decisions(self, decisions: Sequence[Decision]) -> None:
        """What policies said of it."""
        for decision in decisions:
            known = self._decisions.get(decision.policy)
            if known is None or STRICTNESS[decision.verdict] > STRICTNESS[known.verdict]:
                self._decisions[decision.policy] = decision

    def give(self, turn: Turn) -> None:
        """It is this turn that replies to it. Tools are declared for the whole session."""
        turn.input_decisions = self.decisions
        turn.asked = Asked(tuple(self._texts), self._tools, self._size)
        self._texts = []
        self._size = 0
        self._decisions = {}
