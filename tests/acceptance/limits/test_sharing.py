"""Two machines that share limits through a real Redis: each has its own files, its worker and its control process."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from gateway.allowances import FRESH_SECONDS, WAKE_SHARE, Allowances, Mode, WhenAway
from gateway.control.roster import Roster
from gateway.control.sharing import Place, Sharing
from gateway.errors import RateLimited
from gateway.limits import Hold, Limits
from gateway.prices import NANO
from gateway.types import GatewayKey, Scope
from tests.redis_server import RedisServer, redis_server


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with redis_server() as started:
        yield started


class Machine:
    """One of them. Its clock may be moved on."""

    def __init__(self, folder: Path, keys: list[GatewayKey]) -> None:
        folder.mkdir()
        self.later = 0.0
        self.limits = Limits(folder, 0, 1)
        roster = Roster()
        roster.note_keys(keys)
        self.allowances = Allowances(folder)
        self.sharing = Sharing(folder, 1, roster, self.allowances, wall=self.now)
        self.holds: list[Hold] = []

    def now(self) -> float:
        return time.time() + self.later

    def ask(self, scope: Scope, tokens: int = 0) -> bool:
        """Whether a request is admitted."""
        try:
            hold = self.limits.admit((scope,), 0, tokens, self.now())
        except RateLimited:
            return False
        assert hold is not None
        self.holds.append(hold)
        return True

    def ask_often(self, scope: Scope, times: int) -> int:
        return sum(self.ask(scope) for _ in range(times))

    async def step(self) -> None:
        for share in self.sharing._shares.values():
            share.synced_at = 0.0  # as if the time to tell it again had come
        await self.sharing.step()

    async def close(self) -> None:
        self.limits.close()
        await self.sharing.close()
        self.allowances.close()


def key(number: int = 1, **limits: int | float) -> GatewayKey:
    return GatewayKey(f"gk_{number}", b"", "kt_gk_ab", f"key-{number}", number, **limits)  # type: ignore[arg-type]


def scope(key: GatewayKey) -> Scope:
    budget = key.budget_usd_per_month
    return Scope(
        "key", key.id, key.name, key.slot, key.requests_per_minute, key.tokens_per_minute, key.max_concurrency,
        None if budget is None else round(budget * NANO),
    )  # fmt: skip


class Pair:
    """Both, and the place where they meet."""

    def __init__(self, folder: Path, place: Place) -> None:
        self._folder = folder
        self._place = place
        self.machines: list[Machine] = []

    async def open(self, *keys: GatewayKey, count: int = 2) -> list[Machine]:
        for number in range(count):
            machine = Machine(self._folder / str(number), list(keys))
            await machine.sharing.configure(self._place)
            await machine.sharing.step()
            self.machines.append(machine)
        return self.machines


@pytest.fixture
async def pair(tmp_path: Path, server: RedisServer) -> AsyncIterator[Pair]:
    server.ask("FLUSHALL")
    opened = Pair(tmp_path, Place(server.url, "kt", WhenAway.LOCAL))
    yield opened
    for machine in opened.machines:
        await machine.close()


async def test_one_alone_has_all_of_it(pair: Pair) -> None:
    one, _ = await pair.open(key(requests_per_minute=100))
    limit = scope(key(requests_per_minute=100))
    assert one.ask(limit)
    await one.step()
    assert one.ask_often(limit, 200) == 93, "all but a sixteenth, rounded in its favour"
    for _ in range(6):
        await one.step()
        one.ask_often(limit, 200)
    assert len(one.holds) == 100


async def test_what_one_uses_the_other_does_not_get(pair: Pair) -> None:
    one, other = await pair.open(key(requests_per_minute=100))
    limit = scope(key(requests_per_minute=100))
    for _ in range(8):
        one.ask_often(limit, 200)
        await one.step()
    assert len(one.holds) == 100
    early = other.ask_often(limit, 200)
    assert early == -(-100 // WAKE_SHARE), "before it has heard"
    await other.step()
    assert other.ask_often(limit, 200) == 0


async def test_both_get_their_part(pair: Pair) -> None:
    one, other = await pair.open(key(requests_per_minute=100))
    limit = scope(key(requests_per_minute=100))
    for machine in (one, other, one, other):
        machine.ask(limit)
        await machine.step()
    shares = [machine.ask_often(limit, 200) for machine in (one, other)]
    assert min(shares) >= 42
    for machine in (one, other) * 6:
        await machine.step()
        machine.ask_often(limit, 200)
    assert len(one.holds) + len(other.holds) == 100


@pytest.mark.parametrize("seed", range(10))
async def test_together_they_never_exceed_the_limit_by_more_than_what_they_wake_with(seed: int, pair: Pair) -> None:
    chance = random.Random(seed)
    limit = chance.choice([1, 3, 17, 100, 250])
    found = key(requests_per_minute=limit)
    machines = await pair.open(found, count=3)
    admitted = 0
    for _ in range(120):
        machine = chance.choice(machines)
        if chance.random() < 0.3:
            await machine.step()
        else:
            admitted += machine.ask_often(scope(found), chance.randrange(limit + 1))
    assert limit * 0.5 <= admitted <= limit + 3 * -(-limit // WAKE_SHARE)


async def test_concurrency_is_shared_and_comes_back(pair: Pair) -> None:
    one, other = await pair.open(key(max_concurrency=8))
    limit = scope(key(max_concurrency=8))
    one.ask(limit)
    await one.step()
    assert one.ask_often(limit, 20) == 7
    await one.step()
    assert other.ask_often(limit, 20) == 1
    await other.step()
    assert other.ask_often(limit, 20) == 0
    for hold in one.holds:
        hold.release()
    await one.step()
    await other.step()
    await one.step()
    await other.step()
    assert other.ask_often(limit, 20) >= 2


async def test_a_budget_is_shared(pair: Pair) -> None:
    found = key(budget_usd_per_month=1.0)
    one, other = await pair.open(found)
    for machine in (one, other):
        machine.ask(scope(found))
        await machine.step()
    one.holds.pop().settle(0, one.now(), NANO)
    await one.step()
    await other.step()
    assert not one.ask(scope(found))
    assert not other.ask(scope(found)), "long before the store has told"


async def test_who_goes_quiet_gives_back(pair: Pair) -> None:
    found = key(requests_per_minute=100)
    one, other = await pair.open(found)
    for machine in (one, other, one, other):
        machine.ask(scope(found))
        await machine.step()
    for hold in one.holds:
        hold.release()
    one.later = 61.0
    await one.step()
    assert one.sharing._shares == {}
    for _ in range(8):
        await other.step()
        other.ask_often(scope(found), 200)
    assert len(other.holds) == 100


@pytest.mark.parametrize("trouble", ["stopped", "frozen"])
async def test_while_redis_is_away_each_counts_for_itself(
    trouble: str, pair: Pair, server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    found = key(requests_per_minute=10)
    one, other = await pair.open(found)
    one.ask(scope(found))
    await one.step()
    if trouble == "stopped":
        server.stop()
    else:
        server.freeze()
    try:
        await one.step()
        await other.step()
        assert one.ask(scope(found)), "for a moment, what was granted last"
        for machine in (one, other):
            machine.later = FRESH_SECONDS
        assert one.ask_often(scope(found), 20) == 8
        assert other.ask_often(scope(found), 20) == 10
    finally:
        if trouble == "stopped":
            server.start()
        else:
            server.thaw()
    for machine in (one, other) * 2:  # the first time finds a dead connection
        machine.later = 0.0
        await machine.step()
    assert one.ask_often(scope(found), 20) == other.ask_often(scope(found), 20) == 0
    assert [record.getMessage() for record in caplog.records if record.name.endswith("sharing")] == [
        *["limits cannot be shared with other machines"] * 2,
        *["limits are shared with other machines"] * 2,
    ]


async def test_a_redis_that_has_forgotten_everything_learns_it_again(pair: Pair, server: RedisServer) -> None:
    found = key(requests_per_minute=100)
    one, other = await pair.open(found)
    for machine in (one, other, one, other):
        machine.ask(scope(found))
        await machine.step()
    one.ask_often(scope(found), 40)
    server.stop()
    server.start()
    for machine in (one, other) * 3:  # the first time finds a dead connection
        await machine.step()
    for machine in (one, other) * 6:
        await machine.step()
        machine.ask_often(scope(found), 100)
    assert len(one.holds) + len(other.holds) == 100


async def test_what_an_earlier_process_left_does_not_last(tmp_path: Path, server: RedisServer) -> None:
    found = key(requests_per_minute=10)
    machine = Machine(tmp_path / "a", [found])
    machine.allowances.tell_mode(Mode.SHARED, WhenAway.REFUSE, 0.0)
    assert not machine.ask(scope(found))
    await machine.sharing.configure(None)
    assert machine.ask(scope(found))
    await machine.close()


async def test_another_prefix_is_another_world(tmp_path: Path, server: RedisServer) -> None:
    found = key(requests_per_minute=10)
    machines = []
    for name in ("a", "b"):
        machine = Machine(tmp_path / name, [found])
        await machine.sharing.configure(Place(server.url, name, WhenAway.LOCAL))
        machine.ask(scope(found))
        await machine.sharing.step()
        machines.append(machine)
    assert [machine.ask_often(scope(found), 20) for machine in machines] == [9, 9]
    await machines[0].sharing.configure(None)
    assert not machines[0].ask(scope(found))
    for machine in machines:
        await machine.close()
