"""The sliding minute of one scope: a record of float64 cells per worker, written by one, read by all.

A record keeps a total that grows for ever and, for each of the last 64 seconds, what the total was when that second
began. What was used in the window is then one subtraction, `total - mark[now - 59 s]`, whoever asks; nothing has to be
swept, and a reader that comes between two stores of the writer is off by that one charge.

What a second was charged is never negative, whatever clocks do; the waits are found by bisection and rely on it.
"""

from __future__ import annotations

import array
from collections.abc import Iterable
from hashlib import blake2b
from math import inf
from typing import TYPE_CHECKING, NamedTuple

from gateway.slots import CELL
from gateway.types import Scope

if TYPE_CHECKING:
    from gateway.allowances import Allowance
    from gateway.purse import Purse

WINDOW = 60
"""Seconds of the window: the current one and the 59 before it."""

HEADER = 4096 // CELL
"""Cells at the beginning of a file, one for each worker: how often it has begun to use this file."""

RECORD = 136
"""Cells of one record, 1,088 bytes."""

_OWNER = 0  # which scope the record is about; 0: nobody's yet
_RUN = 1  # which run of its worker counts `RUNNING`
SECOND = 2  # Unix second of the latest mark
RUNNING = 3  # requests at the same time
_REQUESTS = 4  # total of requests
_TOKENS = 5  # total of tokens
REQUEST_MARKS = 8
TOKEN_MARKS = 72

_RING = 64
RING_MASK = _RING - 1
_SLACK = _RING - WINDOW  # seconds that clocks may differ before the ring has overwritten what is asked for


_LINES = (
    b"x-ratelimit-limit-requests: %d\r\nx-ratelimit-remaining-requests: %%d\r\nx-ratelimit-reset-requests: %%bs\r\n"
    b"x-ratelimit-limit-tokens: %d\r\nx-ratelimit-remaining-tokens: %%d\r\nx-ratelimit-reset-tokens: %%bs\r\n"
)
"""What `limits.Hold.lines` fills in, where both are limited."""


def owner_of(id: str) -> float:
    """What stands in a record for whose it is: 48 bits, and never 0."""
    return float(int.from_bytes(blake2b(id.encode(), digest_size=6).digest()) + 1)


def blank() -> memoryview[float]:
    """A record of this process' own."""
    return memoryview(array.array("d", bytes(RECORD * 8)))


class Column(NamedTuple):
    """Another worker's record of the same scope; `run` is the cell that tells its present run."""

    cells: memoryview[float]
    run: memoryview[float]


class Row:
    """This worker's record of one scope, mirrored in plain attributes, and the other workers' records of it."""

    __slots__ = (
        "cells", "grant", "lines", "max_running", "owner", "peers", "purse",
        "requests", "rpm", "running", "scope", "second", "tokens", "tpm",
    )  # fmt: skip

    def __init__(self, scope: Scope, run: float, cells: memoryview[float], peers: tuple[Column, ...]) -> None:
        """Go on with what the cells hold if it is about this key, else begin anew."""
        owner = owner_of(scope.id)
        self.owner = owner
        self.cells = cells
        self.peers = peers
        if cells[_OWNER] != owner:
            cells[_OWNER] = 0.0
            cells[_RUN:] = blank()[_RUN:]
            cells[_OWNER] = owner
        if cells[_RUN] != run:  # what ran in an earlier life of this worker died with it
            cells[RUNNING] = 0.0
            cells[_RUN] = run
        self.second = int(cells[SECOND])
        self.requests = cells[_REQUESTS]
        self.tokens = cells[_TOKENS]
        self.running = cells[RUNNING]
        self.grant: Allowance | None = None
        self.purse: Purse | None = None
        self.take_limits(scope)

    def __repr__(self) -> str:
        requests, tokens = self.used()
        used = f"{requests:.0f} requests, {tokens:.0f} tokens, {self.running_everywhere():.0f} running"
        return f"<Row of {self.scope.id} at {self.second}: {used}>"

    def take_limits(self, scope: Scope) -> None:
        """The limits as they are now. As floats: comparing a float with an int costs twice as much."""
        self.scope = scope
        self.rpm = inf if scope.requests_per_minute is None else float(scope.requests_per_minute)
        self.tpm = inf if scope.tokens_per_minute is None else float(scope.tokens_per_minute)
        self.max_running = inf if scope.max_concurrency is None else float(scope.max_concurrency)
        self.lines = None if inf in (self.rpm, self.tpm) else _LINES % (int(self.rpm), int(self.tpm))

    def advance(self, second: int) -> int:
        """Set the marks of the seconds that have begun, and give the second to count in.

        A clock that went back by little stands still until it has caught up. One that went back by much begins the
        ring anew, with all that was used in the window counted as used now: nobody gains, and nobody waits for longer
        than a window.
        """
        behind = self.second - second
        if 0 <= behind <= _SLACK:
            return self.second
        cells, requests, tokens = self.cells, self.requests, self.tokens
        first = max(self.second + 1, second - RING_MASK)
        if behind > 0:
            first = second - RING_MASK
            requests, tokens = self._marks(self.second)
        for mark in range(first, second + 1):
            cells[REQUEST_MARKS + (mark & RING_MASK)] = requests
            cells[TOKEN_MARKS + (mark & RING_MASK)] = tokens
        self.second = second
        cells[SECOND] = second
        return second

    def begin(self, tokens: int) -> None:
        """Charge one request and its tokens to the present second; it runs until `end`."""
        cells = self.cells
        self.requests = cells[_REQUESTS] = self.requests + 1.0
        self.tokens = cells[_TOKENS] = self.tokens + tokens
        self.running = cells[RUNNING] = self.running + 1.0

    def end(self) -> None:
        """One request less runs."""
        self.running = self.cells[RUNNING] = self.running - 1.0

    def add_tokens(self, tokens: int, second: int) -> None:
        """Charge tokens to `second`, the present one."""
        if second != self.second:
            self.advance(second)
        self.tokens = self.cells[_TOKENS] = self.tokens + tokens

    def give_back_request(self, second: int) -> None:
        """Take back a request that was charged to `second`, as if it had never been."""
        self.requests = self.cells[_REQUESTS] = self._without(REQUEST_MARKS, self.requests, second, 1.0)

    def give_back_tokens(self, second: int, tokens: float) -> None:
        """Take back tokens that were charged to `second`, as if they had never been."""
        cells, total = self.cells, self.tokens
        # Nearly every request ends in the second in which it began: `_without` by hand, 0.15 µs.
        if second == self.second and total - cells[TOKEN_MARKS + (second & RING_MASK)] > tokens:
            self.tokens = cells[_TOKENS] = total - tokens
        else:
            self.tokens = cells[_TOKENS] = self._without(TOKEN_MARKS, total, second, tokens)

    def _without(self, marks: int, total: float, second: int, amount: float) -> float:
        """The total less `amount` in `second`. Nothing changes once that second has left the window."""
        cells, latest = self.cells, self.second
        if second == latest:
            before = cells[marks + (second & RING_MASK)]
            return total - amount if total - before > amount else before
        if not second < latest < second + WINDOW:
            return total
        # After a clock's jump the ring may know less of that second than was charged.
        charged = cells[marks + (second + 1 & RING_MASK)] - cells[marks + (second & RING_MASK)]
        amount = min(amount, charged)
        for mark in range(second + 1, latest + 1):
            cells[marks + (mark & RING_MASK)] -= amount
        return total - amount

    def used(self) -> tuple[float, float]:
        """Requests and tokens in the window, by all workers."""
        cells, second = self.cells, self.second
        begin = second - WINDOW + 1
        mark = begin & RING_MASK
        requests = self.requests - cells[REQUEST_MARKS + mark]
        tokens = self.tokens - cells[TOKEN_MARKS + mark]
        for cells, _ in self.peers:
            if cells[_OWNER] != self.owner:
                continue
            latest, at = cells[SECOND], mark
            if not begin <= latest <= second + _SLACK:
                # A ring that is ahead belongs to a worker that has not yet seen the clock go back. Up to a window
                # ahead, its own last window counts; beyond, it is of a time that will not come, and is left out.
                if not second < latest <= second + WINDOW:
                    continue
                at = int(latest) - WINDOW + 1 & RING_MASK
            requests += cells[_REQUESTS] - cells[REQUEST_MARKS + at]
            tokens += cells[_TOKENS] - cells[TOKEN_MARKS + at]
        return requests, tokens

    def running_everywhere(self) -> float:
        """Requests that run at the same time, by all workers that live."""
        owner = self.owner
        return self.running + sum(
            [cells[RUNNING] for cells, run in self.peers if cells[_OWNER] == owner and cells[_RUN] == run[0]]
        )

    def request_wait(self, needed: float, now: float) -> float:
        """Seconds until `needed` of the requests in the window have left it."""
        return self._wait(_REQUESTS, REQUEST_MARKS, needed, now)

    def token_wait(self, needed: float, now: float) -> float:
        """Seconds until `needed` of the tokens in the window have left it."""
        return self._wait(_TOKENS, TOKEN_MARKS, needed, now)

    def detach(self) -> None:
        """The slot belongs to another key now, or the file is closed: what still runs counts into the void."""
        shared, self.cells = self.cells, memoryview(array.array("d", self.cells))
        peers, self.peers = self.peers, ()
        for view in (shared, *(view for column in peers for view in column)):
            view.release()

    def _marks(self, second: int) -> tuple[float, float]:
        begin = (second - WINDOW + 1) & RING_MASK
        return self.cells[REQUEST_MARKS + begin], self.cells[TOKEN_MARKS + begin]

    def _wait(self, total: int, marks: int, needed: float, now: float) -> float:
        if needed <= 0:
            return 0.0
        begin = self.second - WINDOW + 1
        columns = [self.cells, *(cells for cells, _ in self.peers if cells[_OWNER] == self.owner)]
        curves = [_Curve(cells, total, marks, begin) for cells in columns]
        low, high = 0, WINDOW - 1
        while low < high:
            middle = (low + high) // 2
            if sum([curve.until(begin + middle) for curve in curves]) < needed:
                low = middle + 1
            else:
                high = middle
        return max(self.second + 1 + low - now, 0.0)


def used_by(columns: Iterable[Column], owner: float, second: int) -> tuple[float, float, float]:
    """Requests and tokens of a scope in the window that ends with `second`, and requests that run, by these workers."""
    begin = second - WINDOW + 1
    requests = tokens = running = 0.0
    for cells, run in columns:
        if cells[_OWNER] != owner:
            continue
        if cells[_RUN] == run[0]:
            running += cells[RUNNING]
        latest = cells[SECOND]
        if begin <= latest <= second + WINDOW:
            at = (begin if latest <= second + _SLACK else int(latest) - WINDOW + 1) & RING_MASK
            requests += cells[_REQUESTS] - cells[REQUEST_MARKS + at]
            tokens += cells[_TOKENS] - cells[TOKEN_MARKS + at]
    return requests, tokens, running


class _Curve:
    """What one record has charged since the window's beginning, as a function of the second."""

    __slots__ = ("_base", "_cells", "_latest", "_marks", "_total")

    def __init__(self, cells: memoryview[float], total: int, marks: int, begin: int) -> None:
        self._cells = cells
        self._marks = marks
        self._latest = int(cells[SECOND])
        self._total = cells[total]
        known = begin <= self._latest < begin + _RING
        self._base = cells[marks + (begin & RING_MASK)] if known else self._total

    def until(self, second: int) -> float:
        """The charge up to and including `second`; all of it for a ring that knows nothing of this window."""
        if second >= self._latest or self._base == self._total:
            return self._total - self._base
        return self._cells[self._marks + (second + 1 & RING_MASK)] - self._base
