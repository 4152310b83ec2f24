"""A gateway that has been in use for a month: people, teams, keys, a history of events, and requests that wait.

What has happened is written by the very code that writes it in a gateway; only the clock is handed in. The same seed
gives the same month, so that pictures of the console change when the console does.
"""

from __future__ import annotations

import contextlib
import math
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from argon2 import PasswordHasher

from gateway.audit.record import Outcome, finish_record, start_record
from gateway.audit.segments import SegmentedChain
from gateway.control.identity.roles import Role
from gateway.control.store.records import KeyRules, KeyScope
from gateway.control.store.store import Store
from gateway.control.store.trail import Actor
from gateway.folders import audit_folder
from gateway.key_usage import KeyUse
from gateway.oversight import Referral
from gateway.types import Decision, Phase, Usage, Verdict
from tests.gateway_process import PATIENCE, GatewayProcess, configuration, running_gateway

PASSWORD: Final = "correct horse battery staple"
OWNER: Final = "ada@example.com"
DEVELOPER: Final = "lin@example.com"
DAYS: Final = 30
SECOND: Final = 1_000_000
_QUICK: Final = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)

_TARGETS: Final[tuple[dict[str, Any], ...]] = (
    {"id": "openai-gpt4o", "provider": "mock", "model": "gpt-4o"},
    {"id": "openai-mini", "provider": "openai", "model": "gpt-4o-mini", "secret_key_ref": {"env": "NO_SUCH_KEY"}},
    {
        "id": "anthropic-sonnet",
        "provider": "anthropic",
        "model": "claude-sonnet-4-5",
        "secret_key_ref": {"env": "NO_SUCH_KEY"},
    },
)
CHAIN: Final = ("audit-logger", "prompt-injection", "pii-detector")
CONFIGURATION: Final = configuration(*_TARGETS, name="assistants", chain=CHAIN)
BATCH: Final = configuration(
    {"id": "mistral-large", "provider": "mistral", "model": "mistral-large", "secret_key_ref": {"env": "NO_SUCH_KEY"}},
    name="batch-jobs",
)

# Name, team, owner, configuration, share of the requests, limits.
_KEYS: Final[tuple[tuple[str, str | None, str, str | None, float, dict[str, Any]], ...]] = (
    ("support-assistant", "Support", OWNER, None, 0.34, {"requests_per_minute": 600, "budget_usd_per_month": 400.0}),
    ("docs-search", "Platform", DEVELOPER, None, 0.24, {"tokens_per_minute": 200_000}),
    ("nightly-summaries", "Research", "grace@example.com", "batch-jobs", 0.16, {"budget_usd_per_month": 120.0}),
    ("code-review-bot", "Platform", DEVELOPER, None, 0.12, {}),
    ("notebook-lin", "Research", DEVELOPER, None, 0.07, {"requests_per_minute": 30}),
    ("checkout-agent", "Support", OWNER, None, 0.05, {}),
    ("ci-smoke-test", None, OWNER, None, 0.02, {"max_concurrency": 2}),
)
# Model, target, share, USD per million tokens in and out.
_MODELS: Final = (
    ("gpt-4o", "openai-gpt4o", 0.46, 2.5, 10.0),
    ("claude-sonnet-4-5", "anthropic-sonnet", 0.31, 3.0, 15.0),
    ("gpt-4o-mini", "openai-mini", 0.23, 0.15, 0.6),
)


@dataclass
class Stage:
    """What was put there."""

    state: Path
    keys: dict[str, str] = field(default_factory=dict)
    """Ids by name."""


async def furnish(state: Path, now: float, *, events: int = 12_000) -> Stage:
    """Put it all into a state folder that no gateway uses yet."""
    stage = Stage(state)
    clock = _Clock(now - DAYS * 86_400)
    store = await Store.open(f"sqlite:///{state / 'gateway.db'}", clock=clock)
    try:
        await _people(store)
        clock.now += 3600
        await _keys(store, stage, clock)
        clock.now = now - 600
        await _waiting(store, stage)
    finally:
        await store.close()
    _history(stage, now, events)
    return stage


class _Clock:
    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


async def _people(store: Store) -> None:
    hashed = _QUICK.hash(PASSWORD)
    ada = Actor(OWNER, "session")
    owner = await store.users.create(OWNER, "Ada Lindqvist", Role.OWNER, ada, password_hash=hashed)
    for name, description, rules in (
        ("Platform", "Developer tools and search", KeyRules(requests_per_minute=300, expires_in_seconds=90 * 86_400)),
        ("Research", "Notebooks and nightly jobs", KeyRules(budget_usd_per_month=150.0)),
        ("Support", "What customers talk to", KeyRules()),
    ):
        team = await store.teams.create(name, description, rules, ada)
        await store.users.join(team.id, owner.id, ada)
    for email, name, role, teams in (
        (DEVELOPER, "Lin Okafor", Role.DEVELOPER, ("Platform", "Research")),
        ("grace@example.com", "Grace Moreau", Role.ADMIN, ("Research",)),
        ("noor@example.com", "Noor Haddad", Role.AUDITOR, ()),
        ("sam@example.com", "Sam Becker", Role.DEVELOPER, ("Support",)),
    ):
        ids = [(await store.teams.get(team)).id for team in teams]
        await store.users.create(email, name, role, ada, password_hash=hashed, team_ids=ids)


async def _keys(store: Store, stage: Stage, clock: _Clock) -> None:
    for name, team, owner, configuration_id, _, limits in _KEYS:
        user = await store.users.get(owner)
        scope = KeyScope(name=name, team=team, owner=owner, configuration_id=configuration_id, **limits)
        clock.now += 7200
        ends = None if name == "support-assistant" else clock.now + 90 * 86_400
        made = await store.create_key(scope, expires_at=ends, owner_id=user.id, actor=Actor(owner, "session"))
        stage.keys[name] = made.record.key.id
    ids = list(stage.keys.values())
    await store.touch({id: KeyUse(900 + 41 * place, clock.now + 29 * 86_400) for place, id in enumerate(ids)})
    old = await store.create_key(KeyScope(name="prototype", owner=OWNER), actor=Actor(OWNER, "session"))
    await store.revoke_key(old.record.key.id, Actor(OWNER, "session"))


async def _waiting(store: Store, stage: Stage) -> None:
    for number, (detail, text) in enumerate(
        (
            ("large-exports", "Export the addresses of all customers in the north region as a table."),
            ("contract-changes", "Rewrite clause 7 of the supplier contract so that the notice period is 14 days."),
        )
    ):
        told = Referral(
            fingerprint=f"waiting-{number}",
            valid_seconds=86_400,
            request_id=f"req_waiting_{number}",
            key_id=stage.keys["support-assistant"],
            key_name="support-assistant",
            team="Support",
            configuration_id="assistants",
            model="gpt-4o",
            operation="chat",
            policy="human-oversight",
            reason="human-oversight.rule",
            detail=detail,
            text=text,
        )
        await store.escalations.refer(told)


def _history(stage: Stage, now: float, count: int) -> None:
    """A month of exchanges: more by day than by night, fewer at weekends, ever a little more."""
    chance = random.Random(7)
    moments = sorted(now - DAYS * 86_400 * chance.random() for _ in range(count * 2))
    kept = [at for at in moments if chance.random() < _busy(at, now)][:count]
    folder = audit_folder(stage.state)
    folder.mkdir(exist_ok=True)
    chain = SegmentedChain(folder, "1f0c5a7be2d94613", journal="")
    for number, at in enumerate(kept):
        chain.write(_exchange(chance, stage, number, at), at)
    chain.seal(now - 1)


def _busy(at: float, now: float) -> float:
    hour, day = (at % 86_400) / 3600, int(at // 86_400 + 4) % 7
    daily = 0.28 + 0.72 * math.exp(-(((hour - 14) / 4.6) ** 2))
    growth = 0.55 + 0.45 * (1 - (now - at) / (DAYS * 86_400))
    return daily * growth * (0.42 if day in (0, 6) else 1.0)


def _exchange(chance: random.Random, stage: Stage, number: int, at: float) -> list[bytes]:
    name, team, _, configuration_id, _, _ = chance.choices(_KEYS, [key[4] for key in _KEYS])[0]
    model, target, _, price_in, price_out = chance.choices(_MODELS, [one[2] for one in _MODELS])[0]
    if configuration_id == "batch-jobs":
        model, target, price_in, price_out = "mistral-large", "mistral-large", 2.0, 6.0
    id, moment = f"req_{number:06d}{chance.getrandbits(40):010x}", round(at * SECOND)
    roll = chance.random()
    decisions = [Decision("prompt-injection", Phase.INPUT, Verdict.ALLOW, microseconds=chance.randint(18, 60))]
    blocked = roll < 0.012
    if blocked:
        decisions = [Decision("prompt-injection", Phase.INPUT, Verdict.BLOCK, "prompt-injection.rule", "override", 41)]
    else:
        personal = Verdict.REDACT if roll < 0.06 else Verdict.ALLOW
        detail = ("pii-detector.email", "email") if personal is Verdict.REDACT else ("", "")
        decisions.append(Decision("pii-detector", Phase.INPUT, personal, *detail, chance.randint(25, 90)))
    started = start_record(
        id, moment, stage.keys[name], team, configuration_id or "assistants", "5d0c1f7a92be", "chat", model,
        "10.2.0.17", decisions,
    )  # fmt: skip
    added = round(chance.lognormvariate(math.log(240), 0.45))
    if blocked:
        refused = finish_record(
            id, moment + added, Outcome.REFUSED, status=409, code="input_blocked", duration_us=added
        )
        return [started, refused]
    first = added + round(chance.lognormvariate(math.log(420_000), 0.5))
    took = first + round(chance.lognormvariate(math.log(2_100_000), 0.7))
    usage = Usage(prompt=round(chance.lognormvariate(6.6, 0.9)), completion=round(chance.lognormvariate(5.5, 0.8)))
    outcome, status, code = Outcome.COMPLETED, 200, None
    if 0.99 < roll < 0.996:
        outcome, status, code, usage = Outcome.FAILED, 502, "upstream_reset", None
    elif roll >= 0.996:
        outcome, status = Outcome.CANCELLED, 499
    cost = 0 if usage is None else round(1000 * (usage.prompt * price_in + usage.completion * price_out))
    finished = finish_record(
        id, moment + took, outcome, status=status, code=code, target=target, attempts=1, usage=usage,
        bytes_sent=0 if usage is None else usage.completion * 4, duration_us=took,
        first_byte_us=None if usage is None else first, sent_us=added, cost_nanousd=cost or None,
    )  # fmt: skip
    return [started, finished]


@contextlib.contextmanager
def furnished_gateway(folder: Path, *arguments: str) -> Iterator[GatewayProcess]:
    """A gateway on a state folder that was furnished already: `folder / "state"`."""
    with running_gateway(folder, CONFIGURATION, BATCH, arguments=arguments) as gateway:
        wait_until_served(gateway)
        yield gateway


def wait_until_served(gateway: GatewayProcess) -> None:
    """Traffic does not wait for the control process, so the console may come a moment after `/readyz` says 200."""
    deadline = time.monotonic() + PATIENCE
    while gateway.get("/console/")[0] != 200:
        assert time.monotonic() < deadline, gateway.log
        time.sleep(0.02)  # as often as one asks
