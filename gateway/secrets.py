"""References to secrets, and a value that cannot be printed.

A secret is read once, when a configuration is compiled, and lives in a `Secret` from then on: `repr`, `str`,
formatting, JSON and pickling give its mask or fail. Only `reveal()` gives the value, so a search for that word finds
every use.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn, Protocol, final

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
        return isinstance(other, Secret) and hmac.compare_digest(self._value.encode(), other._value.encode())

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret cannot be pickled")

    def __bool__(self) -> bool:
        return bool(self._value)


class Reference(Protocol):
    """Where a secret is found; exactly one of the three is set (`config.schema.SecretRef`)."""

    @property
    def env(self) -> str | None: ...

    @property
    def file(self) -> str | Path | None: ...

    @property
    def store(self) -> str | None: ...


def read_secret(reference: Reference, environment: Mapping[str, str]) -> tuple[Secret, str]:
    """What a reference leads to, and why it cannot be had or used: one of the two is empty."""
    if reference.env is not None:
        place, value = f"the environment variable `{reference.env}`", environment.get(reference.env)
        if value is None:
            return Secret(""), f"{place} is not set"
    elif reference.file is not None:
        place = f"the file `{reference.file}`"
        try:
            value = Path(reference.file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            return Secret(""), f"{place} cannot be read: {getattr(error, 'strerror', '') or 'not UTF-8'}"
    else:
        return Secret(""), f"the store has no secret `{reference.store}`"
    value = _one_line(value.strip())
    if not value:
        return Secret(""), f"{place} is empty"
    if not (value.isascii() and value.isprintable()):
        # It goes into a header field: a line break in it would be a header of somebody else's making.
        return Secret(""), f"{place} holds more than one line of plain ASCII"
    return Secret(value), ""


def _one_line(value: str) -> str:
    """A JSON object, such as a service account's file, on one line of ASCII; anything else as it is."""
    if not value.startswith("{"):
        return value
    try:
        return json.dumps(json.loads(value), separators=(",", ":"))
    except (ValueError, RecursionError):
        return value
