"""The store's rules about keys, on a real SQLite file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.control import keys
from gateway.control.keys import KeyState
from gateway.control.store.errors import KeyAmbiguous, KeyNotActive, KeyNotFound, StoreError
from gateway.control.store.records import NO_SLOT, KeyScope
from gateway.control.store.store import SLOT_REST_SECONDS, KeyFilter, Store
from gateway.control.store.trail import Actor
from gateway.key_usage import KeyUse
from tests.gateway.control.conftest import Clock

DAY = 86_400.0

GRACE = Actor("grace", "command_line")
SCOPE = KeyScope(
    name="dev-team-key",
    configuration_id="my-config",
    team="developers",
    owner="ada@example.com",
    models=frozenset(("gpt-4o", "claude-sonnet-4-20250514")),
    requests_per_minute=60,
    tokens_per_minute=100_000,
    max_concurrency=4,
    budget_usd_per_month=12.5,
)


async def test_a_key_is_kept_as_it_was_asked_for(store: Store, clock: Clock) -> None:
    new = await store.create_key(SCOPE, expires_at=clock.now + 90 * DAY, actor=GRACE)
    record = await store.get_key(new.record.key.id)
    assert record == new.record
    key = record.key
    assert {name: getattr(key, name) for name in SCOPE.__struct_fields__} == msgspec.structs.asdict(SCOPE)
    assert (key.created_at, key.expires_at, key.revoked_at) == (clock.now, clock.now + 90 * DAY, None)
    assert (record.created_by, record.rotated_to, record.last_used_at, record.request_count) == ("grace", None, None, 0)


async def test_only_hash_and_prefix_are_kept(store: Store, url: str) -> None:
    new = await store.create_key(SCOPE)
    secret = new.secret.reveal()
    assert keys.checksum_ok(secret)
    assert new.record.key.hash == keys.hash_key(secret.encode())
    assert new.record.key.prefix == secret[:12]
    await store.close()
    folder = Path(url.removeprefix("sqlite:///")).parent
    kept = b"".join(file.read_bytes() for file in folder.iterdir())
    assert new.record.key.hash in kept
    assert secret.encode() not in kept
    assert secret[12:].encode() not in kept


@pytest.mark.parametrize("by", ["id", "name", "prefix", "secret"])
async def test_a_key_is_found_by(by: str, store: Store) -> None:
    new = await store.create_key(SCOPE)
    await store.create_key(KeyScope(name="another"))
    reference = new.secret.reveal() if by == "secret" else getattr(new.record.key, by)
    assert (await store.get_key(reference)).key.id == new.record.key.id


async def test_an_unknown_key_is_not_shown_whole(store: Store) -> None:
    secret = keys.generate().reveal()
    with pytest.raises(KeyNotFound) as caught:
        await store.get_key(secret)
    assert secret[12:] not in str(caught.value)


async def test_of_one_name_the_only_active_key_is_meant(store: Store) -> None:
    first = await store.create_key(KeyScope(name="ci"))
    await store.revoke_key("ci")
    assert (await store.get_key("ci")).key.id == first.record.key.id
    second = await store.create_key(KeyScope(name="ci"))
    assert (await store.get_key("ci")).key.id == second.record.key.id
    third = await store.create_key(KeyScope(name="ci"))
    with pytest.raises(KeyAmbiguous, match=f"{second.record.key.id}.*{third.record.key.id}|{third.record.key.id}.*"):
        await store.revoke_key("ci")


async def test_every_change_has_its_revision(store: Store) -> None:
    a = (await store.create_key(KeyScope(name="a"))).record
    b = (await store.create_key(KeyScope(name="b"))).record
    assert (a.revision, b.revision) == (1, 2)
    changes = await store.changes_since(0)
    assert changes.revision == 2
    assert {key.name for key in changes.keys} == {"a", "b"}
    assert changes.store_id == store.id

    revoked = await store.revoke_key("a")
    changes = await store.changes_since(2)
    assert (changes.revision, changes.keys, changes.deleted) == (3, [revoked.key], [])

    gone = await store.delete_key("b")
    changes = await store.changes_since(3)
    assert (changes.revision, changes.keys, changes.deleted) == (4, [], [b.key.id])
    assert gone.revision == 4
    assert (await store.changes_since(4)).keys == []


async def test_what_fails_changes_nothing(store: Store) -> None:
    await store.create_key(KeyScope(name="a"))
    for failing in (store.rotate_key("nobody", 0), store.revoke_key("nobody"), store.delete_key("nobody")):
        with pytest.raises(KeyNotFound):
            await failing
    assert (await store.changes_since(0)).revision == 1


async def test_rotation_keeps_the_scope_and_lets_both_live_for_a_while(store: Store, clock: Clock) -> None:
    first = await store.create_key(SCOPE, expires_at=clock.now + 90 * DAY)
    clock.now += 80 * DAY
    rotation = await store.rotate_key("dev-team-key", 3600.0, actor=GRACE)
    new, old = rotation.new.record.key, rotation.old.key
    assert {name: getattr(new, name) for name in SCOPE.__struct_fields__} == msgspec.structs.asdict(SCOPE)
    assert new.id != old.id == first.record.key.id
    assert new.hash != old.hash
    assert (old.expires_at, new.expires_at) == (clock.now + 3600.0, clock.now + 90 * DAY)
    assert rotation.old.rotated_to == new.id
    assert rotation.new.record.created_by == "grace"
    assert old.slot != new.slot
    assert (await store.get_key("dev-team-key")).key.id == new.id


async def test_an_overlap_does_not_lengthen_a_life(store: Store, clock: Clock) -> None:
    await store.create_key(SCOPE, expires_at=clock.now + 10.0)
    rotation = await store.rotate_key("dev-team-key", 3600.0, expires_at=clock.now + 5 * DAY)
    assert rotation.old.key.expires_at == clock.now + 10.0
    assert rotation.new.record.key.expires_at == clock.now + 5 * DAY


async def test_a_key_without_an_end_gets_a_successor_without_one(store: Store, clock: Clock) -> None:
    await store.create_key(SCOPE)
    rotation = await store.rotate_key("dev-team-key", 0.0)
    assert keys.state_of(rotation.old.key, clock.now) is KeyState.EXPIRED
    assert rotation.new.record.key.expires_at is None


@pytest.mark.parametrize("state", ["revoked", "expired", "rotated"])
async def test_only_an_active_key_rotates(state: str, store: Store, clock: Clock) -> None:
    id = (await store.create_key(SCOPE, expires_at=clock.now + DAY)).record.key.id
    if state == "revoked":
        await store.revoke_key(id)
    elif state == "expired":
        clock.now += DAY
    else:
        await store.rotate_key(id, 60.0)
    with pytest.raises(KeyNotActive, match=state):
        await store.rotate_key(id, 60.0)


async def test_revoking_again_keeps_the_first_time(store: Store, clock: Clock) -> None:
    await store.create_key(SCOPE)
    first = await store.revoke_key("dev-team-key")
    clock.now += 10.0
    assert await store.revoke_key("dev-team-key") == first
    assert first.key.revoked_at == clock.now - 10.0
    assert (await store.changes_since(0)).revision == 2


async def test_live_keys_have_slots_of_their_own(store: Store, clock: Clock) -> None:
    async def create(**options: Any) -> int:
        return (await store.create_key(KeyScope(name="k"), **options)).record.key.slot

    assert [await create(), await create(expires_at=clock.now + 10.0), await create(), await create()] == [0, 1, 2, 3]
    in_slot = {record.key.slot: record.key.id for record in await store.list_keys()}
    assert (await store.revoke_key(in_slot[0])).key.slot == NO_SLOT
    await store.delete_key(in_slot[2])
    assert await create() == 4, "a slot rests before another key has it"
    clock.now += SLOT_REST_SECONDS
    assert [await create(), await create(), await create()] == [0, 2, 5]
    assert (await store.get_key(in_slot[1])).key.slot == NO_SLOT, "an expired key gives its slot up"
    clock.now += SLOT_REST_SECONDS
    assert await create() == 1
    live = [record.key.slot for record in await store.list_keys(KeyFilter(KeyState.ACTIVE))]
    assert sorted(live) == [0, 1, 2, 3, 4, 5]


async def test_deleting_a_revoked_key_does_not_free_its_slot_twice(store: Store, clock: Clock) -> None:
    await store.create_key(KeyScope(name="a"))
    await store.revoke_key("a")
    await store.delete_key("a")
    clock.now += SLOT_REST_SECONDS
    slots = [(await store.create_key(KeyScope(name="b"))).record.key.slot for _ in range(2)]
    assert slots == [0, 1]


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        (KeyFilter(), {"one", "Two_2", "gone", "old"}),
        (KeyFilter(KeyState.ACTIVE), {"one", "Two_2"}),
        (KeyFilter(KeyState.REVOKED), {"gone"}),
        (KeyFilter(KeyState.EXPIRED), {"old"}),
        (KeyFilter(team="red"), {"one"}),
        (KeyFilter(owner="ada"), {"Two_2"}),
        (KeyFilter(configuration_id="c"), {"Two_2"}),
        (KeyFilter(search="TWO"), {"Two_2"}),
        (KeyFilter(search="_"), {"one", "Two_2", "gone", "old"}),
        (KeyFilter(search="%"), set()),
        (KeyFilter(KeyState.ACTIVE, search="O"), {"one", "Two_2"}),
    ],
)
async def test_filters(wanted: KeyFilter, names: set[str], store: Store, clock: Clock) -> None:
    await store.create_key(KeyScope(name="one", team="red"))
    await store.create_key(KeyScope(name="Two_2", team="blue", owner="ada", configuration_id="c"))
    await store.create_key(KeyScope(name="gone"))
    await store.create_key(KeyScope(name="old"), expires_at=clock.now + 1.0)
    await store.revoke_key("gone")
    clock.now += 1.0
    assert {record.key.name for record in await store.list_keys(wanted)} == names


async def test_the_newest_key_is_listed_first(store: Store, clock: Clock) -> None:
    for name in ("first", "second", "third"):
        await store.create_key(KeyScope(name=name))
        clock.now += 1.0
    assert [record.key.name for record in await store.list_keys()] == ["third", "second", "first"]


async def test_use_is_added_up_and_is_no_change(store: Store, clock: Clock) -> None:
    a = (await store.create_key(KeyScope(name="a"))).record.key.id
    await store.touch({a: KeyUse(3, clock.now), "gk_nobody": KeyUse(1, clock.now)})
    await store.touch({a: KeyUse(2, clock.now - 5.0)})
    record = await store.get_key(a)
    assert (record.request_count, record.last_used_at) == (5, clock.now)
    assert (await store.changes_since(0)).revision == 1
    await store.touch({})


async def test_two_openings_of_one_store_see_each_other(store: Store, url: str) -> None:
    other = await Store.open(url)
    try:
        before = await other.stamp()
        assert await other.stamp() == before
        await store.create_key(KeyScope(name="a"))
        assert await other.stamp() != before
        assert other.id == store.id
        assert (await other.get_key("a")).key.name == "a"
    finally:
        await other.close()


async def test_errors_are_of_one_kind() -> None:
    assert issubclass(KeyNotFound, StoreError)
