"""References to secrets, and a value that cannot be printed.

A secret is read once, when a configuration is compiled, and lives in a `Secret` from then on: `repr`, `str`,
formatting, JSON and pickling give its mask or fail. Only `reveal()` gives the value, so a search for that word finds
every use.
"""

from __future__ import annotations

from typing import NoReturn, final

MASK = "[secret]"


@final
class Secret:
    """A value that no log, error, page or dump can show."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The value itself. Call this only where it goes onto the wire."""
        return self._value

    def __repr__(self) -> str:
        return MASK

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return MASK

    def __eq__(self, other: object) -> bool:
        import hmac

        return isinstance(other, Secret) and hmac.compare_digest(self._value.encode(), other._value.encode())

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret cannot be pickled")

    def __bool__(self) -> bool:
        return bool(self._value)
