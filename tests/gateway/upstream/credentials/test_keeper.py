"""When credentials are fetched, how long they serve, and what a failure does. Time is moved by what sleeps."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway import metrics
from gateway.config.schema import CircuitBreaker
from gateway.errors import UpstreamUnreachable
from gateway.routes import Breaker, Lane, Target
from gateway.types import Destination, Operation, Origin
from gateway.upstream.credentials.choose import Grant
from gateway.upstream.credentials.keeper import Keepers
from gateway.upstream.credentials.source import Credential, CredentialError, Machine, Source
from tests.gateway.upstream.credentials.support import NOW, Wall
from translators.plan import bind
from translators.providers import PROVIDERS
from translators.sigv4 import AwsCredentials

Outcome = Credential | Exception


class Scripted(Source, frozen=True):
    """Gives what the test says, and then waits for ever."""

    label: str = "one"

    @property
    def name(self) -> str:
        return "scripted"

    async def fetch(self, machine: Machine) -> Credential:
        assert isinstance(machine, Slept)
        return await machine.next(self)


class Slept(Machine):
    """A machine on which sleeping is all that takes time."""

    def __init__(self) -> None:
        self.time = Wall()
        super().__init__(asyncio.get_running_loop(), None, self.time)  # type: ignore[arg-type]
        self.script: dict[str, list[Outcome]] = {}
        self.fetched_at: list[float] = []
        self.asked: list[str] = []
        self.dry = asyncio.Event()
        """The script is over; what follows would be fetched now."""

    async def next(self, source: Scripted) -> Credential:
        self.fetched_at.append(self.time.now - NOW)
        self.asked.append(source.label)
        outcomes = self.script[source.label]
        if not outcomes:
            self.dry.set()
            await asyncio.Event().wait()
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def sleep(self, seconds: float) -> None:
        assert 0 < seconds <= 30
        self.time.now += seconds
        await asyncio.sleep(0)


def target(id: str, source: Source, region: str = "") -> Target:
    lane = Lane(
        bind(Operation.CHAT, PROVIDERS["openai"]),
        path=b"/p",
        stream_path=b"/s",
        fields=b"",
        credential=b"",
        query=bytes,
        lasting=False,
    )
    return Target(
        id,
        "vertex",
        "m",
        "m",
        destination=Destination(id, Origin("h", 443)),
        lanes={Operation.CHAT: lane},
        breaker=Breaker(CircuitBreaker()),
        grant=Grant(source, region, "h"),
    )


def lane(target: Target) -> Lane:
    return target.lanes[Operation.CHAT]


class Stage:
    """Keepers over a scripted machine; `outcomes` of a source in order."""

    def __init__(self, counters: metrics.Metrics) -> None:
        self.machine = Slept()
        self.counters = counters
        self.keepers = Keepers(self.machine, counters)

    def script(self, *outcomes: Outcome, label: str = "one") -> None:
        self.machine.script[label] = list(outcomes)

    async def play(self, *targets: Target) -> None:
        """Until the script is over."""
        self.keepers.watch(targets)
        async with asyncio.timeout(20):
            await self.machine.dry.wait()

    def count(self, outcome: str) -> float:
        counter = self.counters.counter(metrics.CREDENTIAL_FETCHES, source="scripted", outcome=outcome)
        return counter.cells[counter.index]


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    counters = metrics.Metrics(tmp_path, 0)
    made = Stage(counters)
    yield made
    await made.keepers.close()
    counters.close()


def token(text: str, seconds: float | None = 3600, since: float = 0.0) -> Credential:
    return Credential(text, None if seconds is None else NOW + since + seconds)


async def test_it_fetches_at_once_and_renews_before_the_end(stage: Stage) -> None:
    one = target("one", Scripted())
    stage.script(token("first"))
    await stage.play(one)
    assert lane(one).credential == b"authorization: Bearer first\r\n"
    assert one.fault is None
    first, renewed = stage.machine.fetched_at
    assert first == 0
    # A fifth of its life before the end, and up to a third more of that, by chance.
    assert 3600 - 720 * 1.3 - 1 <= renewed <= 3600 - 720 + 1
    assert (stage.count("ok"), stage.count("failed")) == (1, 0)


@pytest.mark.parametrize(
    ("life", "earliest", "latest"),
    [(86_400, 86_400 * 0.74, 86_400 * 0.8), (900, 510, 600), (300, 105, 150), (2, 0.7, 1.01)],
)
async def test_how_early_depends_on_the_life(stage: Stage, life: float, earliest: float, latest: float) -> None:
    stage.script(token("t", life))
    await stage.play(target("one", Scripted()))
    assert earliest - 0.01 <= stage.machine.fetched_at[1] <= latest + 0.01


async def test_what_does_not_say_when_it_ends_is_looked_at_again(stage: Stage) -> None:
    one = target("one", Scripted())
    stage.script(token("first", None), CredentialError("gone"), token("second", None))
    await stage.play(one)
    assert lane(one).credential == b"authorization: Bearer second\r\n"
    assert 270 <= stage.machine.fetched_at[1] <= 330


async def test_a_key_that_signs(stage: Stage) -> None:
    one = target("one", Scripted(), "eu-central-1")
    stage.script(Credential(AwsCredentials("AKIDX", "s"), NOW + 3600))
    await stage.play(one)
    assert lane(one).credential == b""
    lines = lane(one).signature(b"{}", stream=True, now=NOW)
    assert b"Credential=AKIDX/20231114/eu-central-1/bedrock/aws4_request" in lines


async def test_a_failure_keeps_the_old_one_until_its_end(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    one = target("one", Scripted())
    faults: list[tuple[float, str | None]] = []

    stage.script(token("old", 100), *[CredentialError("no luck") for _ in range(40)])
    sleep = stage.machine.sleep

    async def looking(seconds: float) -> None:
        await sleep(seconds)
        faults.append((stage.machine.time.now - NOW, one.fault))

    stage.machine.sleep = looking  # type: ignore[method-assign]
    with caplog.at_level(logging.WARNING):
        await stage.play(one)
    # It may be used for as long as it lives; the last nap ends exactly then.
    assert all(fault is None for at, fault in faults if at < 100)
    after = [fault for at, fault in faults if at > 100]
    assert after
    assert set(after) == {"its credential (scripted) cannot be fetched: no luck"}
    assert lane(one).credential == b""
    assert stage.count("failed") == 40
    pauses = [b - a for a, b in zip(stage.machine.fetched_at[1:], stage.machine.fetched_at[2:], strict=False)]
    assert all(pause <= 60.001 for pause in pauses)
    assert all(pause >= 30 for pause in pauses[-10:])
    assert any(0 < pause <= 1 for pause in pauses[:1])
    assert "credential not fetched" in caplog.text


async def test_it_comes_back(stage: Stage) -> None:
    one = target("one", Scripted())
    stage.script(UpstreamUnreachable("sts cannot be reached"), token("late", since=10))
    await stage.play(one)
    assert one.fault is None
    assert lane(one).credential == b"authorization: Bearer late\r\n"


async def test_before_the_first_there_is_none(stage: Stage) -> None:
    one = target("one", Scripted())
    stage.script()
    stage.keepers.watch([one])
    assert not one.usable(0.0)
    assert one.fault == "its credential (scripted) has not been fetched yet"


async def test_a_network_failure_is_told(stage: Stage) -> None:
    one = target("one", Scripted())
    stage.script(UpstreamUnreachable("https://sts.example:443 cannot be reached: refused."))
    await stage.play(one)
    assert one.fault is not None
    assert "cannot be reached: refused" in one.fault


async def test_a_token_that_has_ended_is_none(stage: Stage) -> None:
    one = target("one", Scripted())
    stage.script(token("stale", -1))
    await stage.play(one)
    assert one.fault is not None
    assert "clock" in one.fault


async def test_a_bug_in_a_source_does_not_end_the_keeper(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    one = target("one", Scripted())
    stage.script(ZeroDivisionError("s3cret"), token("well"))
    await stage.play(one)
    assert lane(one).credential == b"authorization: Bearer well\r\n"
    assert "fault" in caplog.text


async def test_one_fetch_for_all_targets_of_a_source(stage: Stage) -> None:
    targets = [target(str(number), Scripted()) for number in range(5)]
    other = target("other", Scripted("two"))
    stage.script(token("shared"))
    stage.script(token("own"), label="two")
    await stage.play(*targets, other)
    assert {lane(one).credential for one in targets} == {b"authorization: Bearer shared\r\n"}
    assert lane(other).credential == b"authorization: Bearer own\r\n"
    assert stage.machine.asked.count("one") <= 2  # the second is its renewal


async def test_a_reload_keeps_what_is_there(stage: Stage) -> None:
    before = target("before", Scripted())
    stage.script(token("kept"))
    stage.script(token("new"), label="two")
    await stage.play(before)
    after, added = target("after", Scripted()), target("added", Scripted("two"))
    stage.keepers.watch([after, added])
    assert lane(after).credential == b"authorization: Bearer kept\r\n"
    assert added.fault == "its credential (scripted) has not been fetched yet"


async def test_what_nobody_uses_is_forgotten(stage: Stage) -> None:
    stage.script(token("t"))
    await stage.play(target("one", Scripted()))
    stage.keepers.watch([])
    assert repr(stage.keepers) == "<Keepers []>"


async def test_a_worker_waits_for_the_first_try_only_so_long(stage: Stage) -> None:
    hanging, refused = target("hanging", Scripted()), target("refused", Scripted("two"))
    stage.script()
    stage.script(CredentialError("no"), label="two")
    stage.keepers.watch([refused])
    await stage.keepers.first(20.0)
    assert refused.fault == "its credential (scripted) cannot be fetched: no"
    stage.keepers.watch([refused, hanging])
    await stage.keepers.first(0.01)
    assert hanging.fault == "its credential (scripted) has not been fetched yet"


async def test_nothing_secret_is_shown(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    one = target("one", Scripted())
    stage.script(token("s3cret"))
    with caplog.at_level(logging.DEBUG):
        await stage.play(one)
    shown = (
        f"{stage.keepers!r} {one!r} {one.grant!r} {token('s3cret')} {token('s3cret')!r} {caplog.text} {caplog.records}"
    )
    assert "s3cret" not in shown
