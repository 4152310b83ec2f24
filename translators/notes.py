"""Loss notes: what the target's format cannot express is told to the client, never dropped in silence.

A note is one line, `<JSON path of the client's request>: <why>`. The client finds them in `x-kt-translation-notes`.
"""

from __future__ import annotations


class Notes:
    """Collects the notes of one translation; a note that is there already is not repeated."""

    __slots__ = ("_notes",)

    def __init__(self) -> None:
        self._notes: dict[str, None] = {}

    def add(self, path: str, reason: str) -> None:
        """Note that the value at `path` did not go through as it was."""
        self._notes[f"{path}: {reason}"] = None

    def all(self) -> tuple[str, ...]:
        """The notes in the order in which they were made."""
        return tuple(self._notes)
