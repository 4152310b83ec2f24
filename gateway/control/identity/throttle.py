"""Failed attempts to sign in, counted by account and address, by account, and by address, in bounded memory.

Wrong passwords are counted in a window; once there are too many, further attempts wait for its end, right or wrong, so
that guessing gets nowhere. Few are allowed for an account from one address, many for an account from all of them: else
anybody could keep somebody else from signing in by ten wrong passwords. A sign-in that succeeds clears what stands
against the account from its address. The tables have a fixed number of rows and let the oldest go. The clock is handed
in.
"""

from __future__ import annotations

import hashlib
import ipaddress
import math
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from gateway.errors import TooManyAttempts

WINDOW_SECONDS: Final = 900.0
PAIR_FAILURES: Final = 10
"""For one account from one address."""

ACCOUNT_FAILURES: Final = 100
"""For one account from everywhere: ten thousand guesses a day, against a password of ten characters."""

ADDRESS_FAILURES: Final = 30
"""More, since many people may come from one address."""

MAX_ROWS: Final = 10_000
"""About 2 MB for each of the three tables."""


class _Window:
    """Counts of one kind. A row is the count and when its window ends."""

    def __init__(self, allowed: int) -> None:
        self._allowed = allowed
        self._rows: OrderedDict[bytes, tuple[int, float]] = OrderedDict()

    def waits(self, key: bytes, now: float) -> float:
        """How many seconds until this key may try again; 0 when it may now."""
        count, ends = self._rows.get(key, (0, 0.0))
        return ends - now if count >= self._allowed and ends > now else 0.0

    def count(self, key: bytes, now: float) -> None:
        count, ends = self._rows.pop(key, (0, 0.0))
        self._rows[key] = (count + 1, ends) if ends > now else (1, now + WINDOW_SECONDS)
        if len(self._rows) > MAX_ROWS:
            self._rows.popitem(last=False)

    def clear(self, key: bytes) -> None:
        self._rows.pop(key, None)

    def __len__(self) -> int:
        return len(self._rows)


class Throttle:
    """The failed attempts of one control process."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._pairs = _Window(PAIR_FAILURES)
        self._accounts = _Window(ACCOUNT_FAILURES)
        self._addresses = _Window(ADDRESS_FAILURES)

    def admit(self, account: str | None, address: str) -> None:
        """Raises TooManyAttempts when this account or this address must wait. `account` None: a link or the like, which
        is nobody's before it has proved good."""
        now = self._clock()
        waits = max(window.waits(key, now) for window, key in self._rows_of(account, address))
        if waits > 0:
            seconds = math.ceil(waits)
            raise TooManyAttempts(
                f"Too many failed attempts; try again in {seconds} seconds.",
                headers=((b"retry-after", b"%d" % seconds),),
            )

    def failed(self, account: str | None, address: str) -> None:
        """Count a failure."""
        now = self._clock()
        for window, key in self._rows_of(account, address):
            window.count(key, now)

    def succeeded(self, account: str, address: str) -> None:
        """What failed for this account from this address is forgiven."""
        self._pairs.clear(_hash(account) + _network(address))

    def _rows_of(self, account: str | None, address: str) -> Iterator[tuple[_Window, bytes]]:
        network = _network(address)
        yield self._addresses, network
        if account is not None:
            yield self._pairs, _hash(account) + network
            yield self._accounts, _hash(account)

    @property
    def rows(self) -> Sequence[int]:
        """How many rows each table has."""
        return len(self._pairs), len(self._accounts), len(self._addresses)


def _hash(account: str) -> bytes:
    # A fixed size, whatever somebody sends as their address.
    return hashlib.blake2b(account.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _network(address: str) -> bytes:
    """An IPv4 address, or the /64 of an IPv6 one, which is what one customer has."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return b""
    if isinstance(parsed, ipaddress.IPv6Address):
        return parsed.packed[:8] if parsed.ipv4_mapped is None else parsed.ipv4_mapped.packed
    return parsed.packed
