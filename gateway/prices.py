"""What tokens cost: the price table, and the cost of one exchange.

The table is data (`prices.json`): published list prices in USD per million tokens, by provider and model, each from a
date on, with the page it was read from. An operator's own price of a target wins. Money is counted in whole nano-USD
(10⁻⁹ USD): the cheapest token there is costs some five of them, and nine million dollars fit exactly into a float64
cell. A model that the table does not know has no price: its cost is unknown, which is not zero.

This module reads no clock: times are Unix seconds and handed in.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, date, datetime
from functools import cache
from math import ceil, inf
from pathlib import Path
from typing import Final

import msgspec

from gateway.types import Usage

NANO: Final = 1_000_000_000
"""Nano-USD of one USD."""

MAX_OUTPUT_TOKENS: Final = 16_384
"""What a request that names no limit may at most be answered with, where the table does not say more exactly."""

_PER_TOKEN: Final = NANO // 1_000_000  # of a price in USD per million tokens

TABLE: Final = Path(__file__).with_name("prices.json")


class Rates(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """USD per million tokens. None: `cached` and `written` cost as much as `input`, `reasoning` as much as `output`."""

    input: float
    output: float = 0.0
    cached: float | None = None
    written: float | None = None
    reasoning: float | None = None


class Row(Rates, frozen=True, rename={"since": "from"}, kw_only=True):
    """A model's price. `then` holds for the whole of a request whose prompt has over `over_prompt_tokens` tokens."""

    model: str
    since: date | None = None
    max_output_tokens: int | None = None
    over_prompt_tokens: int | None = None
    then: Rates | None = None


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The prices on one page of one provider; `checked` is when they were read."""

    providers: tuple[str, ...]
    source: str
    checked: date
    models: tuple[Row, ...]


class _File(msgspec.Struct, frozen=True):
    tables: tuple[Table, ...]


class Price:
    """What one target's tokens cost from now on, in nano-USD; `max_output_tokens` bounds an answer."""

    __slots__ = ("_cached", "_dearest_input", "_dearest_output", "_input", "_next", "_output", "_reasoning", "_then",
                 "_threshold", "_until", "_written", "max_output_tokens")  # fmt: skip

    def __init__(self, row: Row | Rates, following: Price | None = None, since: float = inf) -> None:
        """`following` takes over at `since`."""
        self._input, self._output = row.input * _PER_TOKEN, row.output * _PER_TOKEN
        self._cached = (row.input if row.cached is None else row.cached) * _PER_TOKEN - self._input
        self._written = (row.input if row.written is None else row.written) * _PER_TOKEN - self._input
        self._reasoning = (row.output if row.reasoning is None else row.reasoning) * _PER_TOKEN - self._output
        self._dearest_input = self._input + max(self._written, 0.0)
        self._dearest_output = self._output + max(self._reasoning, 0.0)
        self._next = following
        self._until = since
        self._then: Price | None = None
        self._threshold = inf
        self.max_output_tokens = MAX_OUTPUT_TOKENS
        if isinstance(row, Row):
            self.max_output_tokens = row.max_output_tokens or MAX_OUTPUT_TOKENS
            if row.then is not None and row.over_prompt_tokens is not None:
                self._then, self._threshold = Price(row.then), row.over_prompt_tokens

    def __repr__(self) -> str:
        return f"<Price {self._input / _PER_TOKEN:g} in, {self._output / _PER_TOKEN:g} out>"

    def cost(self, usage: Usage, now: float) -> int:
        """What an exchange that ends at `now` cost. 0.4 µs."""
        if now >= self._until:
            assert self._next is not None
            return self._next.cost(usage, now)
        prompt = usage.prompt
        if prompt > self._threshold:
            assert self._then is not None
            return self._then.cost(usage, now)
        cost = prompt * self._input + usage.completion * self._output
        if usage.cached or usage.written:
            cost += usage.cached * self._cached + usage.written * self._written
        if usage.reasoning and self._reasoning:
            cost += usage.reasoning * self._reasoning
        return round(cost)

    def ceiling(self, prompt: int, output: int | None, now: float) -> int:
        """The most that a request of `prompt` tokens and at most `output` (None: what the model can) may cost."""
        if now >= self._until:
            assert self._next is not None
            return self._next.ceiling(prompt, output, now)
        completion = self.max_output_tokens if output is None else output
        if prompt > self._threshold:
            assert self._then is not None
            return self._then.ceiling(prompt, completion, now)
        return ceil(prompt * self._dearest_input + completion * self._dearest_output)


def price_of(provider: str, model: str, now: float) -> Price | None:
    """The list price of what a provider is asked for, from `now` on; None where it is not known."""
    known = _known()
    for name in _names(model):
        if rows := known.get((provider, name)):
            return _chain(rows, now)
    return None


@cache
def tables() -> tuple[Table, ...]:
    """The price table. 0.4 ms at the first call."""
    return msgspec.json.decode(TABLE.read_bytes(), type=_File).tables


@cache
def _known() -> dict[tuple[str, str], tuple[Row, ...]]:
    found: dict[tuple[str, str], tuple[Row, ...]] = {}
    for table in tables():
        for provider in table.providers:
            for row in table.models:
                place = provider, row.model
                found[place] = tuple(sorted((*found.get(place, ()), row), key=_since))
    return found


def _since(row: Row) -> float:
    return (
        0.0 if row.since is None else datetime(row.since.year, row.since.month, row.since.day, tzinfo=UTC).timestamp()
    )


def _chain(rows: Sequence[Row], now: float) -> Price:
    """The price in force now, and those that are to follow. Before the first one, the first one."""
    first = max((index for index, row in enumerate(rows) if _since(row) <= now), default=0)
    price: Price | None = None
    since = inf
    for row in reversed(rows[first:]):
        price, since = Price(row, price, since), _since(row)
    assert price is not None
    return price


# A cloud's own way to write a model: `us.anthropic.claude-sonnet-4-20250514-v1:0`, `claude-sonnet-4@20250514`.
_CLOUD: Final = re.compile(r"^(?:[a-z]+\.)?(?:anthropic\.)?(claude-.*?)(?:-v\d+(?::\d+)?)?$")
_DATED: Final = re.compile(r"[-@](?:\d{4}-\d{2}-\d{2}|\d{8}|\d{4}|\d{2}-\d{4}|\d{3}|latest|preview|default)$")


def _names(model: str) -> list[str]:
    """How the table may call a model: as it is called, then without what only tells its version."""
    name = model.lower().rpartition("/")[2]
    names = [name]
    if cloud := _CLOUD.match(name):
        name = cloud[1]
        names.append(name)
    while shorter := _DATED.sub("", name):
        if shorter == name:
            break
        name = shorter
        names.append(name)
    if re.search(r"-\d-0$", name):  # `claude-opus-4-0`
        names.append(name[:-2])
    return names
