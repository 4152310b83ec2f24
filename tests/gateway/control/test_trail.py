"""Who changed what: in the store with each change, from there in the audit log, whatever happens in between."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from gateway.audit.reader import Reading
from gateway.audit.verify import verify
from gateway.control.identity.roles import Role
from gateway.control.store.errors import NameTaken
from gateway.control.store.records import KeyRules, KeyScope
from gateway.control.store.store import Store
from gateway.control.store.teams import TeamChange
from gateway.control.store.trail import Actor, Change, ChangeFilter
from gateway.control.store.users import UserChange
from gateway.control.trail import TrailRecorder
from gateway.errors import AuditUnavailable
from gateway.folders import audit_folder
from tests.gateway.control.conftest import Clock

ADA = Actor("ada@example.com", "session", "user_1", "192.0.2.1", "req_1")


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "state" / "run-41002"
    folder.mkdir(parents=True)
    return folder


async def test_a_change_says_who_what_and_what_differs(store: Store, clock: Clock) -> None:
    team = await store.teams.create("research", "", KeyRules(), ADA)
    clock.now += 1
    await store.teams.change(team.id, TeamChange(key_rules=KeyRules(requests_per_minute=60)), ADA)
    updated, created = await store.trail.search()
    assert (updated.action, updated.object_id, updated.object_name) == ("team.update", team.id, "research")
    assert (updated.actor, updated.via, updated.actor_id) == ("ada@example.com", "session", "user_1")
    assert (updated.client, updated.request_id) == ("192.0.2.1", "req_1")
    assert updated.before == {}
    assert updated.after["key_rules"]["requests_per_minute"] == 60
    assert (created.action, created.before, created.after["name"]) == ("team.create", {}, "research")


async def test_what_was_not_done_is_not_noted(store: Store) -> None:
    await store.users.create("ada@example.com", "Ada", Role.OWNER, ADA)
    with pytest.raises(NameTaken):
        await store.users.create("ADA@example.com", "Other", Role.OWNER, ADA)
    user = await store.users.get("ada@example.com")
    await store.users.change(user.id, UserChange(name="Ada"), ADA)  # no change at all
    assert [one.action for one in await store.trail.search()] == ["user.create"]


async def test_no_secret_is_noted(store: Store) -> None:
    user = await store.users.create("ada@example.com", "Ada", Role.OWNER, ADA, password_hash="$argon2id$canary")
    await store.users.set_password(user.id, "$argon2id$second-canary", ADA)
    key = (await store.create_key(KeyScope(name="k"), actor=ADA)).secret.reveal()
    access = (await store.access.create_access_key(user.id, "laptop", None, ADA)).secret.reveal()
    session = await store.access.begin_session(user.id, method="password", client="", agent="", seconds=60, actor=ADA)
    noted = str(await store.trail.search())
    for secret in ("canary", key, access, session.secret.reveal(), "hash"):
        assert secret not in noted


async def test_changes_can_be_looked_for(store: Store) -> None:
    new = (await store.create_key(KeyScope(name="k"), actor=ADA)).record.key
    await store.revoke_key("k", Actor("bob", "command_line"))
    await store.teams.create("research", "", KeyRules(), ADA)
    found = [one.action for one in await store.trail.search(ChangeFilter(action="gateway_key."))]
    assert sorted(found) == ["gateway_key.create", "gateway_key.revoke"]
    assert len(await store.trail.search(ChangeFilter(object_id=new.id))) == 2
    assert {one.actor for one in await store.trail.search(ChangeFilter(actor_id="user_1"))} == {"ada@example.com"}


async def test_they_come_into_the_log_that_verify_covers(store: Store, run_folder: Path, clock: Clock) -> None:
    recorder = TrailRecorder(run_folder, lambda: store)
    await store.create_key(KeyScope(name="k", team="research"), actor=ADA)
    clock.now += 1
    await store.revoke_key("k", ADA)
    assert await recorder.step() == 2
    assert await recorder.step() == 0
    await recorder.close()
    folder = audit_folder(run_folder.parent)
    report = verify(folder)
    assert (report.problems, report.records) == ([], 2)
    rows = list(Reading(folder).between(None, None))
    assert [row["action"] for row in rows] == ["gateway_key.create", "gateway_key.revoke"]
    assert {row["kind"] for row in rows} == {"change"}
    assert rows[1]["actor"] == "ada@example.com"
    segment = next(folder.glob("*-000001.jsonl"))
    segment.chmod(0o600)
    segment.write_bytes(segment.read_bytes().replace(b"ada@example.com", b"eve@example.com", 1))
    assert [problem.fault for problem in verify(folder).problems] == ["altered"]


async def test_what_could_not_be_recorded_waits(store: Store, run_folder: Path) -> None:
    await store.create_key(KeyScope(name="k"), actor=ADA)

    def refuse(changes: Sequence[Change]) -> None:
        raise AuditUnavailable("no space left")

    with pytest.raises(AuditUnavailable, match="no space"):
        await store.trail.hand_over(refuse)
    taken: list[Change] = []
    take: Callable[[Sequence[Change]], None] = taken.extend
    assert await store.trail.hand_over(take) == 1
    assert [one.action for one in taken] == ["gateway_key.create"]
    assert await store.trail.hand_over(take) == 0


async def test_they_are_handed_over_in_order_and_in_batches(store: Store) -> None:
    for number in range(5):
        await store.create_key(KeyScope(name=f"k{number}"), actor=ADA)
    batches: list[list[str]] = []

    def take(changes: Sequence[Change]) -> None:
        batches.append([one.object_name for one in changes])

    while await store.trail.hand_over(take, limit=2):
        pass
    assert [len(batch) for batch in batches] == [2, 2, 1]
    assert sorted(name for batch in batches for name in batch) == [f"k{number}" for number in range(5)]
