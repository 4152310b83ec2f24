"""Users, teams, sessions, access keys, one-time links and configurations, as the store keeps them."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import select

from gateway.control.identity.credentials import hashed
from gateway.control.identity.roles import Role
from gateway.control.store import access
from gateway.control.store.access import INVITATION, SETUP, NewSession
from gateway.control.store.errors import (
    AccessKeyNotFound,
    LastOwner,
    NameTaken,
    SessionNotFound,
    StillInUse,
    StoreError,
    TeamNotFound,
    UserNotFound,
    VersionChanged,
    VersionNotFound,
)
from gateway.control.store.paging import Page, Place
from gateway.control.store.records import KeyRules, KeyScope
from gateway.control.store.schema import access_keys, one_time_tokens, sessions
from gateway.control.store.store import KeyFilter, Store
from gateway.control.store.teams import TeamChange
from gateway.control.store.trail import Actor
from gateway.control.store.users import User, UserChange, UserFilter
from tests.gateway.control.conftest import Clock

ADA = Actor("ada@example.com", "session")
RULES = KeyRules(models=("gpt-4o",), requests_per_minute=60)


async def user(store: Store, email: str = "ada@example.com", role: Role = Role.DEVELOPER) -> User:
    return await store.users.create(email, email, role, ADA)


async def session(store: Store, one: User, seconds: float = 3600.0) -> NewSession:
    return await store.access.begin_session(
        one.id, method="password", client="192.0.2.1", agent="x" * 500, seconds=seconds, actor=ADA
    )


# Users


async def test_an_address_is_taken_once_however_it_is_written(store: Store) -> None:
    made = await user(store, "Ada@Example.com")
    assert (made.email, made.has_password, made.has_provider) == ("ada@example.com", False, False)
    with pytest.raises(NameTaken):
        await user(store, " ADA@example.com ")
    assert await store.users.get("ada@EXAMPLE.com") == await store.users.get(made.id) == made
    with pytest.raises(UserNotFound):
        await store.users.get("bob@example.com")


async def test_of_many_first_users_one_is_made(store: Store) -> None:
    async def first(number: int) -> object:
        try:
            return await store.users.create(f"{number}@example.com", "x", Role.OWNER, ADA, first=True)
        except StoreError as error:
            return error

    made = await asyncio.gather(*map(first, range(4)))
    assert sum(isinstance(one, User) for one in made) == 1
    assert await store.users.count() == 1


async def test_a_user_of_a_team_that_is_not_there_is_not_made(store: Store) -> None:
    with pytest.raises(TeamNotFound):
        await store.users.create("ada@example.com", "Ada", Role.DEVELOPER, ADA, team_ids=["team_none"])
    assert await store.users.count() == 0
    assert await store.trail.search() == []


async def test_users_in_pages_by_search_role_and_team(store: Store, clock: Clock) -> None:
    team = await store.teams.create("research", "", KeyRules(), ADA)
    for number in range(5):
        clock.now += number % 2
        one = await user(store, f"user{number}@example.com", Role.AUDITOR if number % 2 else Role.DEVELOPER)
        if number < 2:
            await store.users.join(team.id, one.id, ADA)
            await store.users.join(team.id, one.id, ADA)  # once more changes nothing
    everybody = await store.users.search()
    first = await store.users.search(page=Page(2))
    rest = await store.users.search(page=Page(10, Place(first[-1].created_at, first[-1].id)))
    assert [*first, *rest] == everybody
    assert len(await store.users.search(UserFilter(role=Role.AUDITOR))) == 2
    assert {one.email for one in await store.users.search(UserFilter(team_id=team.id))} == {
        "user0@example.com",
        "user1@example.com",
    }
    assert [one.email for one in await store.users.search(UserFilter(search="USER3"))] == ["user3@example.com"]
    assert await store.users.search(UserFilter(search="%")) == []
    assert (await store.teams.get("research")).members == 2


async def test_there_is_always_an_owner(store: Store) -> None:
    first = await user(store, "first@example.com", Role.OWNER)
    for attempt in (
        store.users.change(first.id, UserChange(role=Role.ADMIN), ADA),
        store.users.change(first.id, UserChange(active=False), ADA),
        store.users.delete(first.id, ADA),
    ):
        with pytest.raises(LastOwner):
            await attempt
    assert await store.users.get(first.id) == first
    second = await user(store, "second@example.com", Role.OWNER)
    await store.users.change(first.id, UserChange(active=False), ADA)
    with pytest.raises(LastOwner):  # the first one is there, but cannot act
        await store.users.delete(second.id, ADA)


async def test_who_is_made_inactive_or_gone_has_nothing_left(store: Store) -> None:
    one = await user(store)
    began, key = await session(store, one), await store.access.create_access_key(one.id, "laptop", None, ADA)
    await store.users.change(one.id, UserChange(active=False), ADA)
    assert await store.access.session_of(began.secret.reveal(), 3600) is None
    assert await store.access.access_key_of(key.secret.reveal()) is None
    await store.users.change(one.id, UserChange(active=True), ADA)
    assert await store.access.session_of(began.secret.reveal(), 3600) is None
    assert await store.access.access_key_of(key.secret.reveal()) is not None
    await store.users.delete(one.id, ADA)
    assert await store.access.access_key_of(key.secret.reveal()) is None


async def test_the_keys_of_a_user_are_revoked(store: Store) -> None:
    one = await user(store)
    own = await store.create_key(KeyScope(name="own"), owner_id=one.id, actor=ADA)
    other = await store.create_key(KeyScope(name="other"), actor=ADA)
    assert [record.key.id for record in await store.revoke_keys_of(one.id, ADA)] == [own.record.key.id]
    assert await store.revoke_keys_of(one.id, ADA) == []
    assert (await store.get_key(other.record.key.id)).key.revoked_at is None
    assert [record.key.name for record in await store.list_keys(KeyFilter(owner_id=one.id))] == ["own"]


# Teams


async def test_a_team(store: Store) -> None:
    team = await store.teams.create("research", "for research", RULES, ADA)
    assert (team.key_rules, team.members, team.keys) == (RULES, 0, 0)
    with pytest.raises(NameTaken):
        await store.teams.create("research", "", KeyRules(), ADA)
    other = await store.teams.create("sales", "", KeyRules(), ADA)
    with pytest.raises(NameTaken):
        await store.teams.change(other.id, TeamChange(name="research"), ADA)
    assert await store.teams.get(team.id) == await store.teams.get("research") == team
    assert [one.name for one in await store.teams.search()] == ["research", "sales"]
    assert [one.name for one in await store.teams.search(search="ALE")] == ["sales"]
    assert [one.name for one in await store.teams.search(page=Page(5, Place(0, "research")))] == ["sales"]


async def test_a_new_name_is_told_with_the_keys(store: Store) -> None:
    key = (await store.create_key(KeyScope(name="k", team="research"), actor=ADA)).record
    before = await store.changes_since(0)
    await store.teams.change("research", TeamChange(name="science"), ADA)
    changes = await store.changes_since(before.revision)
    assert [(one.id, one.team) for one in changes.keys] == [(key.key.id, "science")]


async def test_a_team_with_keys_is_not_deleted(store: Store) -> None:
    await store.create_key(KeyScope(name="k", team="research"), actor=ADA)
    one = await user(store)
    await store.users.join((await store.teams.get("research")).id, one.id, ADA)
    with pytest.raises(StillInUse):
        await store.teams.delete("research", ADA)
    await store.delete_key("k", ADA)
    await store.teams.delete("research", ADA)
    assert (await store.users.get(one.id)).teams == ()


# Sessions, access keys, one-time links


async def test_only_hashes_are_kept(store: Store) -> None:
    one = await user(store)
    began = (await session(store, one)).secret.reveal()
    key = (await store.access.create_access_key(one.id, "laptop", None, ADA)).secret.reveal()
    link = (await store.access.issue(INVITATION, one.id, 60)).reveal()
    async with store._database.read() as connection:
        for table, secret in ((sessions, began), (access_keys, key), (one_time_tokens, link)):
            (row,) = (await connection.execute(select(table))).mappings()
            assert bytes(row["hash"]) == hashed(secret)
            assert secret not in str(dict(row))


async def test_a_session_is_used_until_it_ends(store: Store, clock: Clock) -> None:
    one = await user(store)
    began = await session(store, one, seconds=1000)
    secret = began.secret.reveal()
    assert len(began.record.agent) == 200
    assert await store.access.session_of(secret + "x", 500) is None
    for _ in range(3):
        clock.now += 300
        found = await store.access.session_of(secret, 500)
        assert found is not None
        assert found[1] == await store.users.get(one.id)
    clock.now += 100
    assert await store.access.session_of(secret, 500) is None
    await session(store, one)
    async with store._database.read() as connection:  # what has ended is cleared away by the way
        assert len((await connection.execute(select(sessions))).all()) == 1


async def test_sessions_and_access_keys_are_bounded(
    store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "MAX_SESSIONS", 3)
    monkeypatch.setattr(access, "MAX_ACCESS_KEYS", 2)
    one = await user(store)
    oldest = await session(store, one)
    for _ in range(3):
        clock.now += 1
        await session(store, one)
    assert len(await store.access.sessions(one.id)) == 3
    assert await store.access.session_of(oldest.secret.reveal(), 3600) is None
    for name in "ab":
        await store.access.create_access_key(one.id, name, None, ADA)
    with pytest.raises(StillInUse):
        await store.access.create_access_key(one.id, "c", None, ADA)


async def test_what_is_another_users_is_not_there(store: Store) -> None:
    one, other = await user(store), await user(store, "bob@example.com")
    began, key = await session(store, one), await store.access.create_access_key(one.id, "laptop", None, ADA)
    with pytest.raises(SessionNotFound):
        await store.access.end_session(other.id, began.record.id, ADA)
    with pytest.raises(AccessKeyNotFound):
        await store.access.delete_access_key(other.id, key.record.id, ADA)
    assert await store.access.session_of(began.secret.reveal(), 3600) is not None


async def test_a_link_works_once_even_for_many_at_once(store: Store) -> None:
    secret = (await store.access.issue(SETUP, None, 60)).reveal()
    assert await store.access.is_good(SETUP, secret)
    assert not await store.access.is_good(INVITATION, secret)
    used = await asyncio.gather(*(store.access.redeem(SETUP, secret) for _ in range(3)))
    assert sorted(good for good, _ in used) == [False, False, True]
    assert not await store.access.is_good(SETUP, secret)


async def test_a_link_does_not_work_for_ever(store: Store, clock: Clock) -> None:
    secret = (await store.access.issue(SETUP, None, 60)).reveal()
    clock.now += 60
    assert await store.access.redeem(SETUP, secret) == (False, None)


# Configurations


async def test_versions_of_a_configuration(store: Store) -> None:
    kept = store.configurations
    await kept.add("my-config", "one", "first", expected=0, actor=ADA)
    await kept.add("my-config", "two", "", expected=1, actor=ADA)
    with pytest.raises(VersionChanged):
        await kept.add("my-config", "three", "", expected=1, actor=ADA)
    assert [(one.number, one.text) for one in await kept.versions("my-config")] == [(2, "two"), (1, "one")]
    assert (await kept.version("my-config")).text == "two"
    await kept.put_in_force("my-config", 1, expected=2, actor=ADA)
    assert [one.text for one in await kept.in_force()] == ["one"]
    with pytest.raises(VersionNotFound):
        await kept.put_in_force("my-config", 9, expected=1, actor=ADA)
    await kept.release("my-config", expected=1, actor=ADA)
    assert await kept.numbers() == {}
    with pytest.raises(VersionNotFound):
        await kept.release("my-config", expected=0, actor=ADA)
    assert (await kept.add("my-config", "four", "", expected=0, actor=ADA)).number == 3
    assert [one.number for one in await kept.versions("my-config", Page(1, Place(3, "")))] == [2]


async def test_of_two_authors_one_is_first(store: Store) -> None:
    async def add(text: str) -> object:
        try:
            return await store.configurations.add("my-config", text, "", expected=0, actor=ADA)
        except VersionChanged as error:
            return error

    told = await asyncio.gather(add("one"), add("two"))
    assert sum(isinstance(one, VersionChanged) for one in told) == 1
    assert len(await store.configurations.versions("my-config")) == 1
