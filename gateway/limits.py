"""What a gateway key may use: requests and tokens per minute, and requests at the same time.

The window slides: a key may make `requests_per_minute` requests in any 60 consecutive seconds of the clock, tokens
likewise. It is a ring of one-second marks and not the cheaper average of two fixed minutes, because that one guesses
how the last minute was spread: it lets through half as much again in the worst case, and cannot say truthfully how much
remains and when it comes back.

Each worker counts in its own column of a shared file and reads the columns of the others, so a limit holds for the
machine without a lock. One worker alone is exact. Of several, each may admit one request that it would have refused
had it seen the others' last one; no more. A worker that dies loses nothing but its running requests, which died too.

This module reads no clock, and knows no HTTP but the names of headers. `gateway.window` keeps the numbers;
docs/limits.md explains them to users.
"""

from __future__ import annotations

import logging
from math import ceil, inf
from pathlib import Path

from gateway.errors import RateLimited
from gateway.slots import CELL, SlotFile
from gateway.types import GatewayKey
from gateway.window import RECORD, REQUEST_MARKS, RING_MASK, TOKEN_MARKS, WINDOW, Column, Row, blank

SLOTS_PER_FILE = 1 << 12
"""Keys of one file: 4.4 MB a worker, sparse. The next file is made when the first key beyond is used (60 µs)."""

MAX_SLOTS = 1 << 20
"""Keys beyond are limited by each worker alone."""

_HEADER = 4096 // CELL  # cells; one for each worker: how often it has begun to use this file
_LAYOUT = 1  # part of the file's name; raise it when the meaning of a cell changes

Headers = tuple[tuple[bytes, bytes], ...]

log = logging.getLogger(__name__)


class Limits:
    """The limits of all keys, as one worker of `workers` sees and counts them. `worker` counts from 0."""

    def __init__(self, run_folder: Path, worker: int, workers: int) -> None:
        """Raises OSError when the shared file cannot be made."""
        if not 0 <= worker < workers <= _HEADER:
            raise ValueError(f"worker {worker} of {workers}")
        self._run_folder = run_folder
        self._worker = worker
        self._workers = workers
        self._files: dict[int, SlotFile] = {}
        self._rows: dict[int, Row] = {}
        self._file(0)

    def admit(self, key: GatewayKey, estimated_tokens: int, now: float) -> Hold | None:
        """Charge one request and its tokens to the key, or refuse it. `now` is Unix time in seconds.

        `estimated_tokens` is what the request will use at most as far as can be told: prompt and `max_tokens`. None
        for a key without limits. Raises RateLimited, and then nothing is charged. 0.75 µs with one worker, 0.4
        more for each other one.
        """
        row = self._rows.get(key.slot)
        if row is None or row.key is not key:
            if key.requests_per_minute is None and key.tokens_per_minute is None and key.max_concurrency is None:
                return None
            row = self._adopt(key)
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
        if requests >= row.rpm or tokens + (estimated_tokens or 1) > row.tpm or running >= row.max_running:
            raise _refusal(row, estimated_tokens or 1, requests, tokens, running, now)
        row.begin(estimated_tokens)
        return Hold(row, second, estimated_tokens, requests, tokens, now)

    def close(self) -> None:
        """Unmap the files. Holds that still run count into the void."""
        for row in self._rows.values():
            row.detach()
        self._rows.clear()
        for file in self._files.values():
            file.close()
        self._files.clear()

    def _adopt(self, key: GatewayKey) -> Row:
        """The row at the key's slot, with the key's limits as they are now; begun anew if it was another key's."""
        row = self._rows.get(key.slot)
        if row is None or row.key.id != key.id:
            if row is not None:
                row.detach()
            try:
                row = self._shared_row(key)
            except OSError as error:
                fields = {"key": key.id, "reason": str(error)}
                log.warning("limits of a gateway key are kept by this worker alone", extra=fields)
                row = Row(key, 1.0, blank(), ())
            self._rows[key.slot] = row
        row.take_limits(key)
        return row

    def _shared_row(self, key: GatewayKey) -> Row:
        if not 0 <= key.slot < MAX_SLOTS:
            raise OSError(f"slot {key.slot} is beyond the table")
        file = self._file(key.slot // SLOTS_PER_FILE)
        places = [_HEADER + (worker * SLOTS_PER_FILE + key.slot % SLOTS_PER_FILE) * RECORD for worker in self._order()]
        file.reserve(places[0], RECORD)
        mine, *others = (file.cells[place : place + RECORD] for place in places)
        _, *runs = (file.cells[worker : worker + 1] for worker in self._order())
        peers = tuple(Column(cells, run) for cells, run in zip(others, runs, strict=True))
        return Row(key, file.cells[self._worker], mine, peers)

    def _order(self) -> list[int]:
        return [self._worker, *(worker for worker in range(self._workers) if worker != self._worker)]

    def _file(self, number: int) -> SlotFile:
        file = self._files.get(number)
        if file is None:
            # The name says all that the size depends on: two processes can never want the same file differently.
            path = self._run_folder / f"limits-v{_LAYOUT}-w{self._workers}-{number}.slots"
            file = SlotFile(path, _HEADER + self._workers * SLOTS_PER_FILE * RECORD)
            file.reserve(0, _HEADER)
            file.cells[self._worker] += 1.0
            self._files[number] = file
        return file


class Hold:
    """One admitted request's share of its key's limits, to be settled and released.

    `release` ends its concurrency and must be called once the exchange is over. `settle` (what was really used) or
    `refund` (nothing was) ends its charge; without either the estimate stands. Each acts once, in any order; later
    calls do nothing, so whoever ends an exchange need not know what others did.
    """

    __slots__ = ("_charged", "_now", "_requests", "_row", "_running", "_second", "_tokens", "estimate")

    def __init__(self, row: Row, second: int, estimate: int, requests: float, tokens: float, now: float) -> None:
        self._row = row
        self._second = second
        self.estimate = estimate
        self._requests = requests
        self._tokens = tokens
        self._now = now
        self._charged = True
        self._running = True

    def __repr__(self) -> str:
        state = f"{'charged' if self._charged else 'settled'}, {'running' if self._running else 'released'}"
        return f"<Hold of {self._row.key.id}: {self.estimate} tokens, {state}>"

    def settle(self, actual_tokens: int, now: float) -> None:
        """Book what was really used. 0.3 µs.

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

    def refund(self) -> None:
        """Take the whole charge back, the request included: it never reached a provider."""
        if self._charged:
            self._charged = False
            self._row.give_back_request(self._second)
            self._row.give_back_tokens(self._second, self.estimate)

    def release(self) -> None:
        """The request does not run any more."""
        if self._running:
            self._running = False
            self._row.end()

    @property
    def lines(self) -> bytes:
        """OpenAI's `x-ratelimit-*` fields as they stood when the request was admitted, this request included, each with
        its line end. 0.9 µs."""
        row = self._row
        reset = self._second + WINDOW - self._now
        if row.lines is not None and self.estimate:
            # The ordinary key has both limits; what does not change is in the row's format: 0.6 µs instead of 1.1.
            requests, tokens = row.rpm - self._requests - 1.0, row.tpm - self._tokens - self.estimate
            shown = b"%.3f" % reset
            return row.lines % (
                int(requests) if requests > 0.0 else 0, shown, int(tokens) if tokens > 0.0 else 0, shown
            )  # fmt: skip
        # Only a request that takes no tokens may find that the last ones were taken earlier.
        token_reset = reset if self.estimate else row.token_wait(self._tokens, self._now)
        return _lines(row, self._requests + 1, reset, self._tokens + self.estimate, token_reset)

    @property
    def headers(self) -> Headers:
        """The same as pairs."""
        return _pairs(self.lines)


# https://platform.openai.com/docs/guides/rate-limits: the limit, what remains, and when all of it is free again, in
# Go's notation for durations; always in seconds, so that one format does.
_REQUEST_LINES = (
    b"x-ratelimit-limit-requests: %d\r\nx-ratelimit-remaining-requests: %d\r\nx-ratelimit-reset-requests: %.3fs\r\n"
)
_TOKEN_LINES = _REQUEST_LINES.replace(b"requests", b"tokens")


def _lines(row: Row, requests: float, requests_reset: float, tokens: float, tokens_reset: float) -> bytes:
    rpm, tpm = row.rpm, row.tpm
    lines = b""
    if rpm < inf:
        lines = _REQUEST_LINES % (int(rpm), int(max(rpm - requests, 0.0)), requests_reset)
    if tpm < inf:
        lines += _TOKEN_LINES % (int(tpm), int(max(tpm - tokens, 0.0)), tokens_reset)
    return lines


def _pairs(lines: bytes) -> Headers:
    pairs = (line.split(b": ") for line in lines.splitlines())
    return tuple((name, value) for name, value in pairs)


def _refusal(row: Row, needed: int, requests: float, tokens: float, running: float, now: float) -> RateLimited:
    """The error that says which limit is reached, by how much, and when to try again."""
    key = row.key
    rpm, tpm = key.requests_per_minute, key.tokens_per_minute
    headers = _pairs(_lines(row, requests, row.request_wait(requests, now), tokens, row.token_wait(tokens, now)))
    if rpm == 0 or key.max_concurrency == 0 or (tpm is not None and needed > tpm):
        return _hopeless(key, needed, headers)
    waits: list[tuple[float, str]] = []
    if rpm is not None and requests >= rpm:
        waits.append(
            (row.request_wait(requests + 1 - rpm, now), f"{requests:.0f} of {rpm} requests per minute are used")
        )
    if tpm is not None and tokens + needed > tpm:
        what = f"{tokens:.0f} of {tpm} tokens per minute are used and this request needs {needed}"
        waits.append((row.token_wait(tokens + needed - tpm, now), what))
    if key.max_concurrency is not None and running >= key.max_concurrency:
        waits.append((1.0, f"{running:.0f} of {key.max_concurrency} concurrent requests are running"))
    wait, what = max(waits)
    seconds = max(ceil(wait), 1)
    return RateLimited(
        f"Rate limit of gateway key {key.name!r} reached: {what}. Try again in {seconds} s.",
        headers=((b"retry-after", b"%d" % seconds), *headers),
    )


def _hopeless(key: GatewayKey, needed: int, headers: Headers) -> RateLimited:
    """Waiting cannot help, so official SDKs are told not to: they would retry any 429."""
    if key.requests_per_minute == 0 or key.max_concurrency == 0:
        message = f"Gateway key {key.name!r} allows no requests."
    else:
        message = (
            f"Request too large for gateway key {key.name!r}: it needs {needed} tokens, and the key allows "
            f"{key.tokens_per_minute} per minute. Shorten the prompt or lower max_tokens."
        )
    return RateLimited(message, headers=((b"x-should-retry", b"false"), *headers))
