"""The texts of an answer, put together from the pieces of its stream. Bounded."""

from __future__ import annotations

from gateway.types import TextPart
from translators.dialect import Called

MAX_TEXT_CHARS = 8 * 1024 * 1024
"""How much text of one answer is kept for output policies; 40 times the longest answer that models give."""


class Collected:
    """Pieces by where they will stand in the complete answer: number of a choice, block or item, and a field of it."""

    __slots__ = ("_chars", "_names", "_texts", "truncated")

    def __init__(self) -> None:
        self._texts: dict[tuple[int, str, str], list[str]] = {}
        self._names: dict[tuple[int, str], str] = {}
        self._chars = 0
        self.truncated = False

    def add(self, number: int, kind: str, field: str, text: str) -> None:
        """More of the text of a field. `kind` is TextPart's."""
        self._chars += len(text)
        if self._chars > MAX_TEXT_CHARS:
            self.truncated = True
            return
        key = (number, kind, field)
        pieces = self._texts.get(key)
        if pieces is None:
            self._texts[key] = [text]
        else:
            pieces.append(text)

    def call(self, number: int, field: str, name: str) -> None:
        """The tool whose arguments stand, or will stand, in a field."""
        self._chars += len(name)
        if self._chars > MAX_TEXT_CHARS:
            self.truncated = True
            return
        self._names.setdefault((number, field), name)

    def calls(self, place: str) -> list[Called]:
        """The tools that are called so far, with their arguments; `place` as for `parts`."""
        return [
            Called(
                name,
                "".join(self._texts.get((number, "tool_arguments", field), ())),
                f"{place.format(number)}.{field}",
            )
            for (number, field), name in self._names.items()
        ]

    def parts(self, place: str) -> list[TextPart]:
        """All texts so far; `place` is the path of number `{}`, as `choices[{}].message`."""
        return [
            TextPart("".join(pieces), "assistant", kind, f"{place.format(number)}.{field}")
            for (number, kind, field), pieces in self._texts.items()
        ]
