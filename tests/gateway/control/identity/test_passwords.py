"""Passwords: argon2id, off the event loop, and never more than a few at a time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from argon2 import PasswordHasher

from gateway.control.identity.passwords import AT_ONCE, WAITING, Passwords
from gateway.errors import InvalidRequest, Overloaded
from tests.gateway.control.rest.conftest import QUICK


@pytest.fixture
def passwords() -> Iterator[Passwords]:
    one = Passwords(QUICK)
    yield one
    one.close()


async def test_what_is_kept_is_argon2id_with_salt(passwords: Passwords) -> None:
    first, second = await passwords.hash("correct horse"), await passwords.hash("correct horse")
    assert first.startswith("$argon2id$v=19$")
    assert first != second
    assert await passwords.verify("correct horse", first)
    assert not await passwords.verify("Correct horse", first)
    assert not await passwords.verify("correct horse", None)
    assert not await passwords.verify("correct horse", "no hash")


def test_the_parameters_are_those_of_the_rfc() -> None:
    """RFC 9106, section 4: the second recommended option."""
    hasher = Passwords()._hasher
    assert (hasher.time_cost, hasher.memory_cost, hasher.parallelism) == (3, 65_536, 4)


@pytest.mark.parametrize("password", ["", "too short", "x" * 201])
async def test_a_password_has_a_length(passwords: Passwords, password: str) -> None:
    with pytest.raises(InvalidRequest):
        await passwords.hash(password)


async def test_any_text_may_be_tried(passwords: Passwords) -> None:
    hash = await passwords.hash("pass\u00f6rd \U0001f511 long")
    assert await passwords.verify("pass\u00f6rd \U0001f511 long", hash)
    assert not await passwords.verify("\ud800", hash)
    assert not await passwords.verify("x" * 1_000_000, hash)


async def test_older_parameters_are_seen(passwords: Passwords) -> None:
    older = PasswordHasher(time_cost=1, memory_cost=16, parallelism=1).hash("correct horse")
    assert passwords.is_outdated(older)
    assert not passwords.is_outdated(await passwords.hash("correct horse"))


class Slow:
    """A hasher that takes until it is let go, and says in which thread it was."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.threads: set[int] = set()

    def hash(self, password: Any) -> str:
        self.threads.add(threading.get_ident())
        assert self.go.wait(20)
        return "$"


async def test_a_flood_is_turned_away_and_the_loop_goes_on() -> None:
    slow = Slow()
    passwords = Passwords(slow)  # type: ignore[arg-type]
    tasks = [asyncio.create_task(passwords.hash("correct horse")) for _ in range(AT_ONCE + WAITING)]
    await asyncio.sleep(0)  # all of them have begun, and the loop is free
    with pytest.raises(Overloaded):
        await passwords.hash("correct horse")
    slow.go.set()
    await asyncio.gather(*tasks)
    assert threading.get_ident() not in slow.threads
    assert len(slow.threads) <= AT_ONCE
    assert await passwords.hash("correct horse") == "$"
    passwords.close()
