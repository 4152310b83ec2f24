"""What several commands take: a span of time, and a name that people give."""

from __future__ import annotations

from typing import Any, Final

import click

from gateway.control.keys import parse_duration

MAX_NAME: Final = 200


class Duration(click.ParamType[float]):
    """`90d` as seconds; where `zero` is allowed, also `0`."""

    name = "duration"

    def __init__(self, *, zero: bool = False) -> None:
        self._zero = zero

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if not isinstance(value, str):
            return float(value)
        if self._zero and value == "0":
            return 0.0
        try:
            return float(parse_duration(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Label(click.ParamType[str]):
    """A name that people give: one line, not empty."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value).strip()
        if not text or len(text) > MAX_NAME or not text.isprintable():
            self.fail(f"it must have 1 to {MAX_NAME} printable characters.", param, ctx)
        return text
