"""Names to addresses, with a look-up that the test answers."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence

import pytest

from gateway.upstream.dns import Resolver
from tests.gateway.upstream.support import Clock


class Names:
    """A look-up that a test can change; it counts what it was asked."""

    def __init__(self, *addresses: str) -> None:
        self.addresses: Sequence[str] = addresses
        self.asked: list[str] = []
        self.answering = asyncio.Event()
        self.answering.set()

    async def __call__(self, host: str) -> Sequence[str]:
        self.asked.append(host)
        await self.answering.wait()
        if not self.addresses:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return self.addresses


async def settle() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def test_a_name_is_asked_for_once_and_then_remembered() -> None:
    names, clock = Names("192.0.2.1"), Clock()
    resolver = Resolver(clock, names)
    for _ in range(3):
        assert await resolver.resolve("api.test") == ["192.0.2.1"]
        clock.now += 9
    assert names.asked == ["api.test"]
    assert repr(resolver) == "<Resolver 1 names known, 0 being asked>"


async def test_those_who_ask_at_once_share_one_look_up_and_one_may_leave() -> None:
    names = Names("192.0.2.1")
    names.answering.clear()
    resolver = Resolver(Clock(), names)
    first, second = (asyncio.create_task(resolver.resolve("api.test")) for _ in range(2))
    await settle()
    assert repr(resolver) == "<Resolver 0 names known, 1 being asked>"
    first.cancel()
    await settle()
    names.answering.set()
    assert await second == ["192.0.2.1"]
    assert names.asked == ["api.test"]


async def test_an_old_answer_is_given_at_once_while_a_new_one_is_fetched() -> None:
    names, clock = Names("192.0.2.1"), Clock()
    resolver = Resolver(clock, names)
    await resolver.resolve("api.test")
    names.addresses = ["192.0.2.2"]
    names.answering.clear()
    clock.now += 31
    assert await resolver.resolve("api.test") == ["192.0.2.1"]
    names.answering.set()
    await settle()
    assert await resolver.resolve("api.test") == ["192.0.2.2"]
    assert len(names.asked) == 2


async def test_a_resolver_that_is_down_does_not_take_the_provider_with_it(caplog: pytest.LogCaptureFixture) -> None:
    names, clock = Names("192.0.2.1"), Clock()
    resolver = Resolver(clock, names)
    await resolver.resolve("api.test")
    names.addresses = []
    for _ in range(2):
        clock.now += 31
        assert await resolver.resolve("api.test") == ["192.0.2.1"]
        await settle()
    assert "resolve api.test" in caplog.text
    assert len(names.asked) == 3


async def test_a_name_that_is_unknown_is_asked_for_again() -> None:
    names = Names()
    resolver = Resolver(Clock(), names)
    for _ in range(2):
        with pytest.raises(socket.gaierror):
            await resolver.resolve("nowhere.test")
    assert len(names.asked) == 2


async def test_addresses_rotate_and_families_alternate() -> None:
    """RFC 8305, section 4: the family that the system prefers comes first."""
    resolver = Resolver(Clock(), Names("2001:db8::1", "2001:db8::2", "192.0.2.1", "192.0.2.2", "192.0.2.3"))
    assert await resolver.resolve("api.test") == ["2001:db8::1", "192.0.2.1", "2001:db8::2", "192.0.2.2", "192.0.2.3"]
    assert await resolver.resolve("api.test") == ["2001:db8::2", "192.0.2.2", "2001:db8::1", "192.0.2.3", "192.0.2.1"]
    only_one = Resolver(Clock(), Names("192.0.2.1", "192.0.2.2"))
    assert [(await only_one.resolve("api.test"))[0] for _ in range(3)] == ["192.0.2.1", "192.0.2.2", "192.0.2.1"]


@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1"])
async def test_an_address_needs_no_look_up(address: str) -> None:
    names = Names()
    assert await Resolver(Clock(), names).resolve(address) == [address]
    assert names.asked == []


async def test_the_system_is_asked_in_a_thread() -> None:
    resolver = Resolver(Clock())
    addresses = await resolver.resolve("localhost")
    assert set(addresses) <= {"127.0.0.1", "::1"}
    assert addresses
    resolver.close()
