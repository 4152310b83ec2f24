"""Shares limits with the gateways of other machines through Redis or Valkey, beside the path of requests.

Each machine tells Redis what it has used of a scope: requests and tokens of the last minute, what runs, what the month
has cost. One script, which Redis runs atomically, answers with caps: the most that this machine's own use may come to
until it asks again. The caps of all machines together never exceed the limit, so neither does what they admit, whatever
the order of events. A machine that uses a scope gets its part of what is left. A sixteenth of that stays with nobody
until the next time, a tenth of a second later, so that there is something for a machine that comes anew. Who has been
quiet keeps a small reserve, and gives it back after a minute.

    hash  <prefix>:<kind>:<id>
    field <node>   requests tokens running money | caps of the same four | time, hot, month

What is told is always the whole use and never a difference, so what gets lost on the way does no harm. A scope that a
machine has not used for a minute has no cap there; its workers begin with a small part of the limit (`allowances`),
until word comes back. While Redis is away, what the operator has chosen holds.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Sequence
from math import inf
from pathlib import Path
from typing import Any, Final, NamedTuple

import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from gateway.allowances import (
    WAKE_MONEY_SHARE,
    WAKE_SHARE,
    Allowance,
    Allowances,
    Caps,
    Mode,
    WhenAway,
)
from gateway.control.roster import Roster
from gateway.control.tallies import Tallies, Tally
from gateway.types import Scope
from gateway.window import owner_of

SECONDS: Final = 0.1
"""Between two looks at what workers have used."""
HOT_SECONDS: Final = 2.0
"""A scope that was used so lately here takes its part of what is left."""
QUIET_SECONDS: Final = 1.0
"""How often a scope that is not hot is told."""
ANSWER_SECONDS: Final = 1.0
"""How long Redis may take before it counts as away."""
BATCH: Final = 500

SCRIPT: Final = """
local node, month, hot = ARGV[1], ARGV[2], tonumber(ARGV[3])
local clock = redis.call('TIME')
local now = clock[1] + clock[2] / 1000000
local used, others, reserved, users = {}, {0, 0, 0, 0}, {0, 0, 0, 0}, 1
for d = 1, 4 do used[d] = tonumber(ARGV[7 + d]) end
local entries = redis.call('HGETALL', KEYS[1])
for i = 1, #entries, 2 do
  local e = {}
  for word in string.gmatch(entries[i + 1], '%S+') do e[#e + 1] = tonumber(word) end
  local age, same_month = now - e[9], e[11] == tonumber(month)
  if age > 62 and not (same_month and e[4] > 0) then
    redis.call('HDEL', KEYS[1], entries[i])
  elseif entries[i] ~= node then
    if age < 5 and e[10] > 0 then users = users + 1 end
    for d = 1, 3 do
      if age <= 62 then
        others[d] = others[d] + e[d]
        reserved[d] = reserved[d] + math.max(e[d], e[4 + d])
      end
    end
    if same_month then
      others[4] = others[4] + e[4]
      reserved[4] = reserved[4] + (age <= 62 and math.max(e[4], e[8]) or e[4])
    end
  end
end
local caps = {}
for d = 1, 4 do
  local limit = tonumber(ARGV[3 + d])
  if limit < 0 then
    caps[d] = -1
  else
    local share = 0
    if hot > 0 then share = math.ceil((limit - used[d] - others[d]) * 15 / 16 / users)
    elseif hot == 0 then share = math.max(1, math.floor(limit / (d == 4 and 64 or 16))) end
    caps[d] = used[d] + math.max(0, math.min(share, limit - reserved[d] - used[d]))
  end
end
local line = {}
for d = 1, 4 do line[d], line[4 + d] = string.format('%d', used[d]), string.format('%d', caps[d]) end
line[9], line[10], line[11] = string.format('%.3f', now), hot, month
redis.call('HSET', KEYS[1], node, table.concat(line, ' '))
redis.call('EXPIRE', KEYS[1], tonumber(ARGV[7]) >= 0 and 3456000 or 120)
return {caps[1], caps[2], caps[3], string.format('%d', caps[4])}
"""
"""KEYS: the scope. ARGV: node, month, hot (1: used lately, 0: quiet, -1: gives everything back), the four limits
(-1: none), the four uses. Returns the four caps (-1: none)."""

log = logging.getLogger(__name__)


class Place(NamedTuple):
    """Where limits are shared, and what holds while they cannot be."""

    url: str
    prefix: str
    away: WhenAway


class Sharing:
    """One machine's part. `workers` is how many workers it has."""

    def __init__(
        self,
        run_folder: Path,
        workers: int,
        roster: Roster,
        allowances: Allowances,
        *,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._roster = roster
        self._allowances = allowances
        self._wall = wall
        self._tallies = Tallies(run_folder, workers)
        self._node = _node_id(run_folder)
        self._place: Place | None = None
        self._configured = False
        self._client: redis.Redis | None = None
        self._script: Any = None
        self._shares: dict[tuple[str, str], _Share] = {}
        self._fault = ""

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self.step()
            await asyncio.sleep(SECONDS)

    async def configure(self, place: Place | None) -> None:
        """Share limits here from now on, or nowhere (None)."""
        if self._configured and place == self._place:
            return
        await self._disconnect()
        self._place, self._configured = place, True
        if place is None:
            self._allowances.tell_mode(Mode.OWN, WhenAway.LOCAL, self._wall())
            return
        self._allowances.tell_mode(Mode.SHARED, place.away, 0.0)
        self._client = redis.Redis.from_url(
            place.url,
            socket_timeout=ANSWER_SECONDS,
            socket_connect_timeout=ANSWER_SECONDS,
            retry=Retry(NoBackoff(), 0),
            client_name=f"keeptrusts-gateway-{self._node}",
        )
        self._script = self._client.register_script(SCRIPT)

    async def step(self) -> None:
        """Tell what has changed, and pass the caps on. Never raises for what may be wrong with Redis or a disk."""
        if self._client is None:
            return
        now = self._wall()
        try:
            due = self._due(now)
            if due:
                for first in range(0, len(due), BATCH):
                    await self._sync(due[first : first + BATCH], now)
            else:
                async with asyncio.timeout(ANSWER_SECONDS):
                    await self._client.ping()
        except (RedisError, OSError, TimeoutError) as error:
            self._report(f"{type(error).__name__}: {error}")
        else:
            assert self._place is not None
            self._allowances.tell_mode(Mode.SHARED, self._place.away, self._wall())
            self._report("")

    async def close(self) -> None:
        """No more sharing; what is used here counts there for another minute."""
        await self._disconnect()
        self._tallies.close()

    async def _disconnect(self) -> None:
        client, self._client = self._client, None
        self._shares.clear()
        if client is not None:
            await client.aclose()

    def _due(self, now: float) -> list[_Share]:
        """The scopes to be told: those that were used, those that are due again, those that have gone quiet."""
        active = self._tallies.active(self._roster, now)
        due = []
        for scope, tally in active:
            share = self._shares.get((scope.kind, scope.id))
            if share is None:
                share = self._shares[scope.kind, scope.id] = _Share()
            share.note(scope, tally, now)
            if share.is_due(now):
                due.append(share)
        seen = {(scope.kind, scope.id) for scope, _ in active}
        for name in [name for name in self._shares if name not in seen]:
            share = self._shares.pop(name)
            share.give_back()
            due.append(share)
        return due

    async def _sync(self, shares: Sequence[_Share], now: float) -> None:
        assert self._client is not None
        assert self._place is not None
        async with asyncio.timeout(ANSWER_SECONDS), self._client.pipeline(transaction=False) as pipe:
            for share in shares:
                await self._script(
                    keys=[f"{self._place.prefix}:{share.scope.kind}:{share.scope.id}"],
                    args=[self._node, *share.arguments(now)],
                    client=pipe,
                )
            answers = await pipe.execute()
        for share, answer in zip(shares, answers, strict=True):
            share.synced_at = now
            self._grant(share, Caps(*[inf if int(cap) < 0 else float(int(cap)) for cap in answer]))

    def _grant(self, share: _Share, caps: Caps) -> None:
        allowance = Allowance(self._allowances.record(share.scope.place), owner_of(share.scope.id))
        if share.given_back:
            allowance.withdraw()
        else:
            allowance.grant(caps)
        allowance.release()

    def _report(self, fault: str) -> None:
        if bool(fault) != bool(self._fault):
            self._fault = fault
            if fault:
                away = self._place.away.name.lower() if self._place else ""
                log.error("limits cannot be shared with other machines", extra={"reason": fault, "when_away": away})
            else:
                log.info("limits are shared with other machines")


class _Share:
    """What Redis knows of one scope's use here."""

    __slots__ = ("_tally", "_used_at", "given_back", "scope", "synced_at")

    scope: Scope
    _tally: Tally

    def __init__(self) -> None:
        self.synced_at = -inf
        self.given_back = False
        self._used_at = -inf

    def note(self, scope: Scope, tally: Tally, now: float) -> None:
        """What is used now."""
        self.scope, self._tally = scope, tally
        if tally.second >= now - HOT_SECONDS or tally.running:
            self._used_at = now

    def give_back(self) -> None:
        """Nothing was used for a minute."""
        self.given_back = True
        self._tally = self._tally._replace(requests=0, tokens=0, running=0)

    def is_due(self, now: float) -> bool:
        hot = now - self._used_at < HOT_SECONDS
        return now - self.synced_at >= (SECONDS if hot else QUIET_SECONDS)

    def arguments(self, now: float) -> list[str]:
        """The script's, but for the node."""
        scope, tally = self.scope, self._tally
        hot = -1 if self.given_back else int(now - self._used_at < HOT_SECONDS)
        limits = (scope.requests_per_minute, scope.tokens_per_minute, scope.max_concurrency, scope.budget)
        used = (tally.requests, tally.tokens, tally.running, tally.money)
        numbers = (tally.month, hot, *[-1 if limit is None else limit for limit in limits], *used)
        return [f"{number:.0f}" for number in numbers]


def _node_id(run_folder: Path) -> str:
    """Which machine this is, for as long as its run folder is kept."""
    path = run_folder / "node"
    try:
        if found := path.read_text().strip():
            return found
    except FileNotFoundError:
        pass
    id = secrets.token_hex(8)
    path.write_text(id)
    return id


assert f"/ (d == 4 and {WAKE_MONEY_SHARE} or {WAKE_SHARE})" in SCRIPT
