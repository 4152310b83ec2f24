"""Keeps credentials fresh: fetched before they are needed, renewed before they end, and put into the targets.

For each source one task, so there is never more than one call for the same credential. It renews early enough that
several tries fit before the end, each worker at a moment of its own. A failure keeps the old credential for as long as
it lives; then, and not before, its targets become unavailable and say why. A request only reads what is there.

Times are Unix seconds: a machine that has slept must not believe in a token that ended meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Iterable
from typing import Final

from gateway import metrics
from gateway.errors import GatewayError
from gateway.routes import Target
from gateway.upstream.credentials.source import Credential, CredentialError, Machine, Source

EARLY_SHARE: Final = 0.2
"""The last part of a credential's life, in which it is renewed."""
EARLY_SECONDS: Final = 300.0
"""At least so long before its end, unless its whole life is short."""
LOOK_AGAIN_SECONDS: Final = 300.0
"""For credentials that do not say when they end: files that another program may renew."""
FIRST_RETRY_SECONDS: Final = 1.0
MAX_RETRY_SECONDS: Final = 60.0
NAP_SECONDS: Final = 30.0
"""The longest sleep: the clock is looked at again after each."""

log = logging.getLogger("gateway.credentials")


class Keeper:
    """One source's credential, and the targets that use it."""

    def __init__(self, source: Source, machine: Machine, count: Callable[[str, str], None]) -> None:
        """`count` is told the source's name and the outcome of each fetch, `ok` or `failed`."""
        self.source = source
        self.credential: Credential | None = None
        self.fault = f"its credential ({source.name}) has not been fetched yet"
        self.tried = asyncio.Event()
        """Set once the first fetch has ended, well or not."""
        self._machine = machine
        self._count = count
        self._targets: tuple[Target, ...] = ()
        self._random = random.Random()  # noqa: S311 (spreads calls, keeps no secret)
        self._failures = 0
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"credential {source.name}")

    def __repr__(self) -> str:
        return f"<Keeper {self.source.name} {self.credential or self.fault}, {self._failures} failures in a row>"

    def serve(self, targets: Iterable[Target]) -> None:
        """These targets use the credential, from now on."""
        self._targets = tuple(targets)
        self._tell()

    async def close(self) -> None:
        """Fetch no more."""
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    def stop(self) -> None:
        """The same, without waiting for it."""
        self._task.cancel()

    async def _run(self) -> None:
        while True:
            due = await self._renew()
            self.tried.set()
            # Naps, not one long sleep: the loop's clock stands still while the machine sleeps.
            while (left := due - self._machine.wall()) > 0:
                await self._machine.sleep(min(left, NAP_SECONDS))

    async def _renew(self) -> float:
        """Fetch once, tell the targets; when to do so again."""
        try:
            found = await self.source.fetch(self._machine)
            now = self._machine.wall()
            if found.expires_at is not None and found.expires_at <= now:
                raise CredentialError("what was fetched has ended already; is this machine's clock right?")
        except (CredentialError, GatewayError) as error:
            return self._failed(str(error))
        except Exception as error:
            log.exception("fault", extra={"where": repr(self), "error": type(error).__name__})
            return self._failed("a fault of the gateway; see its log")
        self.credential = found
        self._failures = 0
        self._count(self.source.name, "ok")
        self._tell()
        log.info("credential fetched", extra={"source": self.source.name, "seconds": self._life(now)})
        return now + self._pause(found, now)

    def _life(self, now: float) -> int | None:
        """Seconds that the credential has left; None: it does not say."""
        ends = None if self.credential is None else self.credential.expires_at
        return None if ends is None else int(ends - now)

    def _pause(self, found: Credential, now: float) -> float:
        """Until the credential is renewed, a little earlier in one worker than in another."""
        if found.expires_at is None:
            return LOOK_AGAIN_SECONDS * self._random.uniform(0.9, 1.1)
        life = found.expires_at - now
        early = max(life * EARLY_SHARE, min(EARLY_SECONDS, life / 2))
        return max(life - early * self._random.uniform(1.0, 1.3), min(FIRST_RETRY_SECONDS, life / 2))

    def _failed(self, why: str) -> float:
        self._failures += 1
        self._count(self.source.name, "failed")
        now = self._machine.wall()
        ends = None if self.credential is None else self.credential.expires_at
        if self.credential is None or (ends is not None and ends <= now):
            self.credential = None
            self.fault = f"its credential ({self.source.name}) cannot be fetched: {why}"
            self._tell()
        log.warning(
            "credential not fetched",
            extra={"source": self.source.name, "reason": why, "seconds_left": self._life(now)},
        )
        longest = min(FIRST_RETRY_SECONDS * 2.0 ** min(self._failures - 1, 10), MAX_RETRY_SECONDS)
        due = now + longest * self._random.uniform(0.5, 1.0)
        # At its end, not after it, an old credential is taken away.
        return due if self.credential is None or ends is None else min(due, ends)

    def _tell(self) -> None:
        for target in self._targets:
            assert target.grant is not None
            if self.credential is None:
                target.withdraw(self.fault)
            else:
                target.grant.give(target, self.credential)


class Keepers:
    """All keepers of a worker."""

    def __init__(self, machine: Machine, counters: metrics.Metrics) -> None:
        self._machine = machine
        self._fetches = counters.counters(metrics.CREDENTIAL_FETCHES)
        self._keepers: dict[Source, Keeper] = {}

    def __repr__(self) -> str:
        return f"<Keepers {list(self._keepers.values())}>"

    def watch(self, targets: Iterable[Target]) -> None:
        """These targets are about to be used. What they need is fetched, or is there already from before; what nobody
        needs any more is forgotten."""
        users: dict[Source, list[Target]] = {}
        for target in targets:
            if target.grant is not None:
                users.setdefault(target.grant.source, []).append(target)
        for source in self._keepers.keys() - users.keys():
            self._keepers.pop(source).stop()
        for source, served in users.items():
            if source not in self._keepers:
                self._keepers[source] = Keeper(source, self._machine, self._count)
            self._keepers[source].serve(served)

    def _count(self, source: str, outcome: str) -> None:
        self._fetches[source, outcome].inc()

    async def first(self, seconds: float) -> None:
        """Wait until each source has been tried once, at most so long."""
        tried = [keeper.tried.wait() for keeper in self._keepers.values()]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await asyncio.gather(*tried)

    async def close(self) -> None:
        """Fetch no more."""
        keepers, self._keepers = list(self._keepers.values()), {}
        for keeper in keepers:
            await keeper.close()
