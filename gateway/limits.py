"""What keys, teams and configurations may use: requests and tokens a minute, requests at the same time, money a month.

Each of these is a `Scope`; a request is charged to all that are limited and that it belongs to. The most that it can
use is reserved before it is sent, and settled with what it did use when it has ended.

The window slides: a scope may make `requests_per_minute` requests in any 60 consecutive seconds of the clock, tokens
likewise. It is a ring of one-second marks and not the cheaper average of two fixed minutes, because that one guesses
how the last minute was spread: it lets through half as much again in the worst case, and cannot say truthfully how much
remains and when it comes back.

Each worker counts in its own column of a shared file and reads the columns of the others, so a limit holds for the
machine without a lock. One worker alone is exact. Of several, each may admit one request that it would have refused
had it seen the others' last one; no more. A worker that dies loses nothing but its running requests, which died too.
Between machines the control process shares what may be used (`gateway.allowances`); a request never waits for it.

This module reads no clock, and knows no HTTP but the names of headers. `gateway.window` keeps the numbers of a minute,
`gateway.purse` the money; docs/limits.md explains them to users.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from math import ceil, inf
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from gateway.allowances import (
    PLACES,
    WAKE_MONEY_SHARE,
    WAKE_SHARE,
    Allowance,
    Allowances,
    Caps,
    WhenAway,
)
from gateway.errors import BudgetExceeded, RateLimited
from gateway.prices import NANO
from gateway.purse import RECORD as MONEY_RECORD
from gateway.purse import MoneyFile, Peer, Purse
from gateway.slots import CELL, SlotFile
from gateway.types import GatewayKey, Scope
from gateway.window import HEADER, RECORD, REQUEST_MARKS, RING_MASK, TOKEN_MARKS, WINDOW, Column, Row, blank

if TYPE_CHECKING:
    from gateway.config.schema import Use
    from gateway.routes import Target

SLOTS_PER_FILE = 1 << 12
"""Scopes of one file: 4.4 MB a worker, sparse. The next file is made when the first scope beyond is used (60 µs)."""

_LAYOUT = 1  # part of the file's name; raise it when the meaning of a cell changes

Headers = tuple[tuple[bytes, bytes], ...]

log = logging.getLogger(__name__)


class Limits:
    """The limits of all scopes, as one worker of `workers` sees and counts them. `worker` counts from 0."""

    def __init__(self, run_folder: Path, worker: int, workers: int) -> None:
        """Raises OSError when a shared file cannot be made."""
        if not 0 <= worker < workers <= HEADER:
            raise ValueError(f"worker {worker} of {workers}")
        self._run_folder = run_folder
        self._worker = worker
        self._workers = workers
        self._files: dict[int, SlotFile] = {}
        self._rows: dict[int, Row] = {}
        self._money: list[MoneyFile] = []
        self._allowances = Allowances(run_folder)
        self._shared = self._allowances.header
        """Its first cell is 0 while each machine counts for itself."""
        self._file(0)

    def admit(
        self,
        scopes: Sequence[Scope],
        prompt_bytes: int,
        output_tokens: int,
        now: float,
        targets: Sequence[Target] = (),
    ) -> Hold | None:
        """Charge one request to its scopes, or refuse it. `now` is Unix time in seconds.

        What it will use at most is estimated by its size, by the tokens that it asks for at most (0: it does not say)
        and by the prices of the targets it may be sent to. None for a request without scopes. Raises RateLimited, and
        then nothing is charged. With one worker 0.8 µs for one scope, 1.5 with a budget; 0.4 more for each other one.
        """
        if len(scopes) != 1:
            return self._admit_to_all(scopes, prompt_bytes, output_tokens, now, targets) if scopes else None
        scope = scopes[0]
        estimate = (prompt_bytes >> 2) + output_tokens
        row = self._rows.get(scope.place)
        if row is None or row.scope is not scope:
            row = self._adopt(scope, now)
        if self._shared[0]:
            return self._admit_to_all(scopes, prompt_bytes, output_tokens, now, targets)
        second = int(now)
        if second != row.second:
            second = row.advance(second)
        if row.peers:
            requests, tokens = row.used()
            running = row.running if row.max_running == inf else row.running_everywhere()
        else:  # Row.used by hand: the call and its tuple cost 0.1 µs
            cells = row.cells
            mark = second - WINDOW + 1 & RING_MASK
            requests = row.requests - cells[REQUEST_MARKS + mark]
            tokens = row.tokens - cells[TOKEN_MARKS + mark]
            running = row.running
        if requests >= row.rpm or tokens + (estimate or 1) > row.tpm or running >= row.max_running:
            raise _refusal(row, estimate or 1, requests, tokens, running, now)
        purse = row.purse
        if purse is None:
            row.begin(estimate)
            return Hold(row, second, estimate, requests, tokens, now)
        # `_afford` by hand, where nothing must be added up.
        left = purse.budget - purse.spent - purse.elsewhere - purse.held
        if purse.peers or second != purse.second or left <= 0.0:
            _afford(scope, purse, None, now)
        hold = Hold(row, second, estimate, requests, tokens, now)
        hold.ceiling = ceiling = ceiling_of(targets, prompt_bytes, output_tokens, now)
        row.begin(estimate)
        purse.hold(ceiling)
        return hold

    def _admit_to_all(
        self, scopes: Sequence[Scope], prompt_bytes: int, output_tokens: int, now: float, targets: Sequence[Target]
    ) -> Hold:
        """All of them must admit it before any of them is charged. 2 µs for each."""
        estimate = (prompt_bytes >> 2) + output_tokens
        checked: list[tuple[Row, float, float]] = []
        costs = False
        for scope in scopes:
            row = self._rows.get(scope.place)
            if row is None or row.scope is not scope:
                row = self._adopt(scope, now)
            costs = costs or row.purse is not None
            checked.append((row, *self._check(row, estimate, now)))
        ceiling = ceiling_of(targets, prompt_bytes, output_tokens, now) if costs else 0
        first, *others = [
            self._begin(row, estimate, ceiling, requests, tokens, now) for row, requests, tokens in checked
        ]
        first.others = tuple(others)
        return first

    def _check(self, row: Row, estimate: int, now: float) -> tuple[float, float]:
        """Requests and tokens in the window. Raises RateLimited where the scope admits no more."""
        second = int(now)
        if second != row.second:
            second = row.advance(second)
        if row.peers:
            requests, tokens = row.used()
            running = row.running if row.max_running == inf else row.running_everywhere()
        else:
            cells = row.cells
            mark = second - WINDOW + 1 & RING_MASK
            requests = row.requests - cells[REQUEST_MARKS + mark]
            tokens = row.tokens - cells[TOKEN_MARKS + mark]
            running = row.running
        needed = estimate or 1
        rpm, tpm, max_running = row.rpm, row.tpm, row.max_running
        caps: Caps | None = None
        if self._shared[0]:
            away = self._allowances.away(now)
            if away is None:
                caps = self._caps(row, tokens)
                rpm, tpm = min(rpm, caps.requests), min(tpm, caps.tokens)
                max_running = min(max_running, caps.running)
            elif away is WhenAway.ALLOW:
                rpm = tpm = max_running = inf
            elif away is WhenAway.REFUSE:
                raise _unshared(row.scope)
        if requests >= rpm or tokens + needed > tpm or running >= max_running:
            raise _refusal(row, needed, requests, tokens, running, now)
        purse = row.purse
        if purse is not None:
            left = purse.budget - purse.spent - purse.elsewhere - purse.held
            if purse.peers or caps is not None or second != purse.second or left <= 0.0:
                _afford(row.scope, purse, caps, now)
        return requests, tokens

    def _caps(self, row: Row, tokens: float) -> Caps:
        """What this machine may use. Before it has heard what others do: a small part of each limit, or one request."""
        if row.grant is None:
            try:
                row.grant = Allowance(self._allowances.record(row.scope.place), row.owner)
            except OSError as error:
                _warn(row.scope, error)
                row.grant = Allowance(_cells(MONEY_RECORD), row.owner)
        return row.grant.caps() or Caps(
            max(row.rpm / WAKE_SHARE, 1.0),
            row.tpm / WAKE_SHARE if tokens else row.tpm,
            max(row.max_running / WAKE_SHARE, 1.0),
            inf if row.purse is None else row.purse.budget / WAKE_MONEY_SHARE,
        )

    def _begin(self, row: Row, estimate: int, ceiling: int, requests: float, tokens: float, now: float) -> Hold:
        row.begin(estimate)
        hold = Hold(row, row.second, estimate, requests, tokens, now)
        if row.purse is not None:
            row.purse.hold(ceiling)
            hold.ceiling = ceiling
        return hold

    def close(self) -> None:
        """Unmap the files. Holds that still run count into the void."""
        for row in self._rows.values():
            _detach(row)
        self._rows.clear()
        for windows in self._files.values():
            windows.close()
        for money in self._money:
            money.close()
        self._files.clear()
        self._money.clear()
        self._allowances.close()

    def _adopt(self, scope: Scope, now: float) -> Row:
        """The row at the scope's place, with its limits as they are now; begun anew if it was another scope's."""
        row = self._rows.get(scope.place)
        if row is None or row.scope.id != scope.id:
            if row is not None:
                _detach(row)
            try:
                row = self._shared_row(scope)
            except OSError as error:
                _warn(scope, error)
                row = Row(scope, 1.0, blank(), ())
            self._rows[scope.place] = row
        row.take_limits(scope)
        if scope.budget is None:
            if row.purse is not None:
                row.purse.budget = inf  # requests that run still settle with it
        else:
            if row.purse is None:
                row.purse = self._purse(scope, row.owner, now)
            row.purse.budget = scope.budget
        return row

    def _shared_row(self, scope: Scope) -> Row:
        if not 0 <= scope.place < PLACES:
            raise OSError(f"place {scope.place} is beyond the table")
        file = self._file(scope.place // SLOTS_PER_FILE)
        places = [
            HEADER + (worker * SLOTS_PER_FILE + scope.place % SLOTS_PER_FILE) * RECORD for worker in self._order()
        ]
        file.reserve(places[0], RECORD)
        mine, *others = (file.cells[place : place + RECORD] for place in places)
        _, *runs = (file.cells[worker : worker + 1] for worker in self._order())
        peers = tuple(Column(cells, run) for cells, run in zip(others, runs, strict=True))
        return Row(scope, file.cells[self._worker], mine, peers)

    def _purse(self, scope: Scope, owner: float, now: float) -> Purse:
        try:
            if not self._money:
                self._money = [MoneyFile(self._run_folder, worker) for worker in self._order()]
                self._money[0].begin()
            mine, *others = self._money
            cells = mine.record(scope.place, reserve=True)
            peers = tuple(Peer(file.record(scope.place), file.run) for file in others)
            return Purse(owner, cells, mine.run[0], peers, Allowance(self._allowances.record(scope.place), owner), now)
        except OSError as error:
            _warn(scope, error)
            return Purse(owner, _cells(MONEY_RECORD), 1.0, (), Allowance(_cells(MONEY_RECORD), owner), now)

    def _order(self) -> list[int]:
        return [self._worker, *(worker for worker in range(self._workers) if worker != self._worker)]

    def _file(self, number: int) -> SlotFile:
        file = self._files.get(number)
        if file is None:
            path, cells = window_file(self._run_folder, self._workers, number)
            file = SlotFile(path, cells)
            file.reserve(0, HEADER)
            file.cells[self._worker] += 1.0
            self._files[number] = file
        return file


def scopes_of(key: GatewayKey | None, configuration: Scope | None) -> list[Scope]:
    """What limits a request: its key, its team, its configuration, as far as each of them is limited."""
    found = []
    if key is not None:
        budget = key.budget_usd_per_month
        own = Scope(
            "key",
            key.id,
            key.name,
            key.slot,
            key.requests_per_minute,
            key.tokens_per_minute,
            key.max_concurrency,
            None if budget is None else round(budget * NANO),
        )
        found = [own, *([key.team_scope] if key.team_scope is not None else [])]
    if configuration is not None:
        found.append(configuration)
    return [scope for scope in found if scope.limits_anything]


def configuration_scope(id: str, limits: Use, place_of: Callable[[str], int]) -> Scope | None:
    """What a configuration as a whole may use; None: nothing limits it."""
    budget = limits.budget_usd_per_month
    scope = Scope(
        "configuration",
        id,
        id,
        -1,
        limits.requests_per_minute,
        limits.tokens_per_minute,
        limits.max_concurrency,
        None if budget is None else round(budget * NANO),
    )
    return msgspec.structs.replace(scope, place=place_of(id)) if scope.limits_anything else None


def window_file(run_folder: Path, workers: int, number: int) -> tuple[Path, int]:
    """Where the windows of `SLOTS_PER_FILE` places are, and how many cells they have.

    The name says all that the size depends on: two processes can never want the same file differently.
    """
    return run_folder / f"limits-v{_LAYOUT}-w{workers}-{number}.slots", HEADER + workers * SLOTS_PER_FILE * RECORD


def window_record(worker: int, place: int) -> slice:
    """The cells of one worker's record of a place in its file."""
    first = HEADER + (worker * SLOTS_PER_FILE + place % SLOTS_PER_FILE) * RECORD
    return slice(first, first + RECORD)


def ceiling_of(targets: Sequence[Target], prompt_bytes: int, output_tokens: int, now: float) -> int:
    """The most that a request may cost at any of these targets, in nano-USD: no text has more tokens than bytes."""
    ceiling = 0
    for target in targets:
        price = target.price
        if price is not None:
            ceiling = max(ceiling, price.ceiling(prompt_bytes, output_tokens or None, now))
    return ceiling


class Hold:
    """One admitted request's share of its scopes' limits, to be settled and released.

    `release` ends its concurrency and must be called once the exchange is over. `settle` (what was really used) or
    `refund` (nothing was) ends its charge; without either the estimate stands, and nothing was spent. Each acts once,
    in any order; later calls do nothing, so whoever ends an exchange need not know what others did.
    """

    __slots__ = (
        "_charged", "_now", "_requests", "_row", "_running", "_second", "_tokens", "ceiling", "estimate", "others",
    )  # fmt: skip

    def __init__(self, row: Row, second: int, estimate: int, requests: float, tokens: float, now: float) -> None:
        self._row = row
        self._second = second
        self.estimate = estimate
        self._requests = requests
        self._tokens = tokens
        self._now = now
        self._charged = True
        self._running = True
        self.ceiling = 0
        """Money set aside, in nano-USD."""
        self.others: tuple[Hold, ...] = ()
        """What other scopes hold for the same request."""

    def __repr__(self) -> str:
        state = f"{'charged' if self._charged else 'settled'}, {'running' if self._running else 'released'}"
        return f"<Hold of {self._row.scope.id}: {self.estimate} tokens, {state}>"

    def settle(self, actual_tokens: int, now: float, cost: int | None = None) -> None:
        """Book what was really used, and spent (nano-USD; None: nobody knows). 0.3 µs.

        Tokens that were reserved in vain are given back to the second in which they were charged; tokens that nobody
        had reserved count from now on.
        """
        if not self._charged:
            return
        self._charged = False
        excess = actual_tokens - self.estimate
        if excess > 0:
            self._row.add_tokens(excess, int(now))
        elif excess < 0:
            self._row.give_back_tokens(self._second, -excess)
        if self._row.purse is not None:
            self._row.purse.settle(self.ceiling, cost or 0, now)
            self.ceiling = 0
        for other in self.others:
            other.settle(actual_tokens, now, cost)

    def spend(self, cost: int | None, now: float) -> None:
        """Book what was spent, where the tokens that were used are not known: their estimate stands."""
        self.settle(self.estimate, now, cost)

    def refund(self) -> None:
        """Take the whole charge back, the request included: it never reached a provider."""
        if self._charged:
            self._charged = False
            self._row.give_back_request(self._second)
            self._row.give_back_tokens(self._second, self.estimate)
            self._free_money()
            for other in self.others:
                other.refund()

    def release(self) -> None:
        """The request does not run any more."""
        if self._running:
            self._running = False
            self._row.end()
            self._free_money()
            for other in self.others:
                other.release()

    def _free_money(self) -> None:
        if self.ceiling and self._row.purse is not None:
            self._row.purse.settle(self.ceiling, 0, self._now)
            self.ceiling = 0

    @property
    def lines(self) -> bytes:
        """OpenAI's `x-ratelimit-*` fields as they stood when the request was admitted, this request included, each with
        its line end; of several scopes, those of which the least is left. 0.9 µs."""
        if self.others:
            return self._tightest_lines()
        row = self._row
        reset = self._second + WINDOW - self._now
        if row.lines is not None and self.estimate:
            # The ordinary key has both limits; what does not change is in the row's format: 0.6 µs instead of 1.1.
            requests, tokens = row.rpm - self._requests - 1.0, row.tpm - self._tokens - self.estimate
            shown = b"%.3f" % reset
            return row.lines % (
                int(requests) if requests > 0.0 else 0, shown, int(tokens) if tokens > 0.0 else 0, shown
            )  # fmt: skip
        return self._request_line(reset) + self._token_line(reset)

    def _tightest_lines(self) -> bytes:
        by_requests = by_tokens = self
        for hold in self.others:
            if hold._row.rpm - hold._requests < by_requests._row.rpm - by_requests._requests:
                by_requests = hold
            if hold._row.tpm - hold._tokens < by_tokens._row.tpm - by_tokens._tokens:
                by_tokens = hold
        reset = self._second + WINDOW - self._now
        return by_requests._request_line(reset) + by_tokens._token_line(reset)

    def _request_line(self, reset: float) -> bytes:
        return _line(_REQUEST_LINES, self._row.rpm, self._requests + 1, reset)

    def _token_line(self, reset: float) -> bytes:
        row = self._row
        # Only a request that takes no tokens may find that the last ones were taken earlier.
        if not self.estimate and row.tpm < inf:
            reset = row.token_wait(self._tokens, self._now)
        return _line(_TOKEN_LINES, row.tpm, self._tokens + self.estimate, reset)

    @property
    def headers(self) -> Headers:
        """The same as pairs."""
        return _pairs(self.lines)


# https://platform.openai.com/docs/guides/rate-limits: the limit, what remains, and when all of it is free again, in
# Go's notation for durations; always in seconds, so that one format does.
_REQUEST_LINES: Final = (
    b"x-ratelimit-limit-requests: %d\r\nx-ratelimit-remaining-requests: %d\r\nx-ratelimit-reset-requests: %.3fs\r\n"
)
_TOKEN_LINES: Final = _REQUEST_LINES.replace(b"requests", b"tokens")


def _line(form: bytes, limit: float, used: float, reset: float) -> bytes:
    return form % (int(limit), int(max(limit - used, 0.0)), reset) if limit < inf else b""


def _pairs(lines: bytes) -> Headers:
    pairs = (line.split(b": ") for line in lines.splitlines())
    return tuple((name, value) for name, value in pairs)


def _cells(count: int) -> memoryview[float]:
    """Cells of this process' own."""
    return memoryview(bytearray(count * CELL)).cast("d")


def _detach(row: Row) -> None:
    row.detach()
    if row.purse is not None:
        row.purse.detach()
    if row.grant is not None:
        row.grant.release()
        row.grant = None


def _warn(scope: Scope, error: OSError) -> None:
    fields = {"kind": scope.kind, "id": scope.id, "reason": str(error)}
    log.warning("limits are kept by this worker alone", extra=fields)


def _afford(scope: Scope, purse: Purse, caps: Caps | None, now: float) -> None:
    """Raises BudgetExceeded when nothing is left after all that runs has cost the most it can."""
    spent, held = purse.used(now)
    if spent + held >= purse.budget or (caps is not None and sum(purse.used_here(now)) >= caps.money):
        raise _too_dear(scope, spent, held, now, purse.end if spent >= purse.budget else now + 1.0)


def _too_dear(scope: Scope, spent: float, held: float, now: float, until: float) -> BudgetExceeded:
    assert scope.budget is not None
    used = f"${spent / NANO:.4f} of ${scope.budget / NANO:.2f} are spent"
    if held:
        used += f" and ${held / NANO:.4f} set aside for requests that run"
    seconds = max(ceil(until - now), 1)
    headers: Headers = ((b"retry-after", b"%d" % seconds),)
    if spent >= scope.budget:
        # Official SDKs would retry any 429, whatever the time.
        headers = (*headers, (b"x-should-retry", b"false"))
        used += "; the next month begins"
        return BudgetExceeded(f"Monthly budget of {scope} reached: {used} in {_days(seconds)}.", headers=headers)
    return BudgetExceeded(f"Monthly budget of {scope} reached: {used}. Try again in {seconds} s.", headers=headers)


def _days(seconds: int) -> str:
    return f"{seconds / 86_400:.1f} days" if seconds > 86_400 else f"{seconds / 3600:.1f} hours"


def _unshared(scope: Scope) -> RateLimited:
    return RateLimited(
        f"The limits of {scope} cannot be shared with other machines at the moment. Try again in 5 s.",
        headers=((b"retry-after", b"5"),),
    )


def _refusal(row: Row, needed: int, requests: float, tokens: float, running: float, now: float) -> RateLimited:
    """The error that says which limit is reached, by how much, and when to try again."""
    scope = row.scope
    rpm, tpm = scope.requests_per_minute, scope.tokens_per_minute
    headers = _pairs(
        _line(_REQUEST_LINES, row.rpm, requests, row.request_wait(requests, now))
        + _line(_TOKEN_LINES, row.tpm, tokens, row.token_wait(tokens, now))
    )
    if rpm == 0 or scope.max_concurrency == 0 or (tpm is not None and needed > tpm):
        return _hopeless(scope, needed, headers)
    waits: list[tuple[float, str]] = []
    if rpm is not None and requests >= rpm:
        waits.append(
            (row.request_wait(requests + 1 - rpm, now), f"{requests:.0f} of {rpm} requests per minute are used")
        )
    if tpm is not None and tokens + needed > tpm:
        what = f"{tokens:.0f} of {tpm} tokens per minute are used and this request needs {needed}"
        waits.append((row.token_wait(tokens + needed - tpm, now), what))
    if scope.max_concurrency is not None and running >= scope.max_concurrency:
        waits.append((1.0, f"{running:.0f} of {scope.max_concurrency} concurrent requests are running"))
    wait, what = max(waits, default=(1.0, "other machines use the rest of it"))
    seconds = max(ceil(wait), 1)
    return RateLimited(
        f"Rate limit of {scope} reached: {what}. Try again in {seconds} s.",
        headers=((b"retry-after", b"%d" % seconds), *headers),
    )


def _hopeless(scope: Scope, needed: int, headers: Headers) -> RateLimited:
    """Waiting cannot help, so official SDKs are told not to: they would retry any 429."""
    name = f"{str(scope)[0].upper()}{str(scope)[1:]}"
    if scope.requests_per_minute == 0 or scope.max_concurrency == 0:
        message = f"{name} allows no requests."
    else:
        message = (
            f"Request too large for {scope}: it needs {needed} tokens, and the {scope.kind} allows "
            f"{scope.tokens_per_minute} per minute. Shorten the prompt or lower max_tokens."
        )
    return RateLimited(message, headers=((b"x-should-retry", b"false"), *headers))
