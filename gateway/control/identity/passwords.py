"""Passwords: argon2id, never on the event loop, never more than a few at a time.

One hash takes 64 MiB and some 60 ms of a core on purpose, so whoever sends passwords in a loop must not be able to
take the machine from the workers: two are computed at a time, a few more may wait, and further ones are turned away.
For an e-mail address that nobody has, a hash is computed all the same, so that time does not tell whose it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import TYPE_CHECKING, Final, TypeVar

from gateway.errors import InvalidRequest, Overloaded

if TYPE_CHECKING:
    from argon2 import PasswordHasher

MIN_LENGTH: Final = 10
MAX_LENGTH: Final = 200
"""In characters. Argon2 would take any length; a body of a megabyte is no password."""

AT_ONCE: Final = 2
WAITING: Final = 16
"""At 60 ms each, whoever waits here waits half a second at most."""

Result = TypeVar("Result")


class Passwords:
    """Hashes and verifies passwords in threads of its own."""

    def __init__(self, hasher: PasswordHasher | None = None) -> None:
        """`hasher` defaults to argon2-cffi's parameters, the second recommended option of RFC 9106, section 4."""
        self._given = hasher
        self._pool = ThreadPoolExecutor(AT_ONCE, "password")
        self._under_way = 0
        self._nobody: str | None = None

    async def hash(self, password: str) -> str:
        """The hash of a new password. Raises InvalidRequest for one that is too short or too long, or Overloaded."""
        if not MIN_LENGTH <= len(password) <= MAX_LENGTH:
            raise InvalidRequest(f"A password has {MIN_LENGTH} to {MAX_LENGTH} characters.", param="password")
        return await self._run(lambda: self._hasher.hash(_bytes(password)))

    async def verify(self, password: str, hash: str | None) -> bool:
        """Whether it is the password of this hash. `None` costs the same and is False. Raises Overloaded."""
        return await self._run(lambda: self._verify(password[:MAX_LENGTH], hash))

    def is_outdated(self, hash: str) -> bool:
        """Whether the hash was made with other parameters than today's."""
        return self._hasher.check_needs_rehash(hash)

    def close(self) -> None:
        """No more passwords."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    @cached_property
    def _hasher(self) -> PasswordHasher:
        if self._given is not None:
            return self._given
        from argon2 import PasswordHasher  # when the first password comes: no start waits for it

        return PasswordHasher()

    def _verify(self, password: str, hash: str | None) -> bool:
        from argon2.exceptions import InvalidHashError, VerificationError

        if self._nobody is None:
            self._nobody = self._hasher.hash(b"nobody's password")
        try:
            self._hasher.verify(self._nobody if hash is None else hash, _bytes(password))
        except (VerificationError, InvalidHashError):
            return False
        return hash is not None

    async def _run(self, work: Callable[[], Result]) -> Result:
        if self._under_way >= AT_ONCE + WAITING:
            raise Overloaded("Too many people sign in at the moment; try again in a second.", headers=_SOON)
        self._under_way += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        finally:
            self._under_way -= 1


_SOON: Final = ((b"retry-after", b"1"),)


def _bytes(password: str) -> bytes:
    return password.encode("utf-8", "surrogatepass")
