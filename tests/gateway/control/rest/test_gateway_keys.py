"""Gateway keys over the API: what a developer may make, see, rotate and end; what others may."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.control.identity.roles import Role
from gateway.control.store.store import Store
from tests.gateway.control.conftest import Clock
from tests.gateway.control.rest.conftest import Caller, House

RULES = {
    "models": ["gpt-4o", "gpt-4o-mini"],
    "configurations": ["play"],
    "requests_per_minute": 60,
    "tokens_per_minute": 100_000,
    "max_concurrency": 4,
    "budget_usd_per_month": 50.0,
    "expires_in_seconds": 90 * 86_400,
}


@pytest.fixture
async def owner(house: House) -> Caller:
    return await house.by_key(await house.user(Role.OWNER))


@pytest.fixture
async def ada(house: House, owner: Caller) -> Caller:
    """A developer in a team with rules."""
    assert (await owner("POST", "/teams", {"name": "research", "key_rules": RULES})).status == 201
    return await house.by_key(await house.user(Role.DEVELOPER, "ada@example.com", "research"))


async def test_a_developer_gets_what_the_team_allows(ada: Caller, store: Store, clock: Clock) -> None:
    answer = await ada("POST", "/gateway-keys", {"name": "laptop", "requests_per_minute": 10})
    assert answer.status == 201
    key = answer.body["gateway_key"]
    assert (await store.get_key(answer.body["key"])).key.id == key["id"]
    assert (key["team"], key["owner"], key["yours"]) == ("research", "ada@example.com", True)
    assert (key["models"], key["configuration_id"]) == (["gpt-4o", "gpt-4o-mini"], "play")
    assert (key["requests_per_minute"], key["tokens_per_minute"], key["max_concurrency"]) == (10, 100_000, 4)
    assert (await store.get_key(key["id"])).key.expires_at == clock.now + 90 * 86_400
    assert answer.body["rollout"] == {"in_force": True, "gateways": 0, "lagging": []}


@pytest.mark.parametrize(
    ("wish", "param"),
    [
        ({"models": ["gpt-4o", "o3"]}, "models"),
        ({"configuration_id": "other"}, "configuration_id"),
        ({"requests_per_minute": 61}, "requests_per_minute"),
        ({"tokens_per_minute": 100_001}, "tokens_per_minute"),
        ({"max_concurrency": 5}, "max_concurrency"),
        ({"budget_usd_per_month": 50.01}, "budget_usd_per_month"),
        ({"expires_in_seconds": 90 * 86_400 + 1}, "expires_in_seconds"),
        ({"team": "other"}, "team"),
    ],
)
async def test_what_goes_beyond_is_refused(ada: Caller, owner: Caller, wish: dict[str, Any], param: str) -> None:
    await owner("POST", "/teams", {"name": "other"})
    answer = await ada("POST", "/gateway-keys", {"name": "x", **wish})
    assert (answer.code, answer.body["error"]["param"]) == ("permission_denied", param)
    assert (await ada("GET", "/gateway-keys")).body["data"] == []


async def test_who_is_in_no_team_makes_no_key(house: House) -> None:
    loner = await house.by_key(await house.user())
    answer = await loner("POST", "/gateway-keys", {"name": "x"})
    assert (answer.code, answer.body["error"]["param"]) == ("permission_denied", "team")


async def test_who_is_in_several_teams_names_one(ada: Caller, house: House, owner: Caller) -> None:
    await owner("POST", "/teams", {"name": "second"})
    ada_id = (await house.store.users.get("ada@example.com")).id
    assert (await owner("PUT", f"/teams/second/members/{ada_id}")).status == 200
    assert (await ada("POST", "/gateway-keys", {"name": "x"})).code == "permission_denied"
    assert (await ada("POST", "/gateway-keys", {"name": "x", "team": "second"})).body["gateway_key"]["models"] is None
    assert (await owner("DELETE", f"/teams/second/members/{ada_id}")).status == 200
    assert (await ada("POST", "/gateway-keys", {"name": "y", "team": "second"})).code == "permission_denied"


async def test_others_keys_are_not_there_for_a_developer(ada: Caller, house: House, owner: Caller) -> None:
    theirs = (await owner("POST", "/gateway-keys", {"name": "theirs"})).body["gateway_key"]["id"]
    bob = await house.by_key(await house.user(Role.DEVELOPER, "bob@example.com", "research"))
    bobs = (await bob("POST", "/gateway-keys", {"name": "bobs"})).body["gateway_key"]["id"]
    for id in (theirs, bobs, "gk_none"):
        for method, path in (("GET", ""), ("POST", "/rotate"), ("POST", "/revoke"), ("DELETE", "")):
            answer = await ada(method, f"/gateway-keys/{id}{path}")
            assert answer.code == "not_found", (id, method, path)
            assert answer.body["error"]["message"] == f"no gateway key has the id, name or prefix {id!r}"
    assert (await ada("GET", "/gateway-keys")).body["data"] == []
    auditor = await house.by_key(await house.user(Role.AUDITOR))
    assert len((await auditor("GET", "/gateway-keys")).body["data"]) == 2
    assert (await auditor("POST", f"/gateway-keys/{bobs}/revoke")).code == "permission_denied"
    assert (await owner("POST", f"/gateway-keys/{bobs}/revoke")).body["gateway_key"]["state"] == "revoked"


async def test_a_life_of_a_key(ada: Caller, clock: Clock) -> None:
    first = (await ada("POST", "/gateway-keys", {"name": "laptop"})).body
    rotated = (await ada("POST", f"/gateway-keys/{first['gateway_key']['id']}/rotate", {"overlap_seconds": 60})).body
    assert rotated["key"] != first["key"]
    assert (rotated["old"]["state"], rotated["old"]["rotated_to"]) == ("active", rotated["gateway_key"]["id"])
    assert rotated["gateway_key"]["yours"]
    clock.now += 60
    assert (await ada("GET", f"/gateway-keys/{first['gateway_key']['id']}")).body["state"] == "expired"
    again = await ada("POST", f"/gateway-keys/{first['gateway_key']['id']}/rotate")
    assert (again.status, again.code) == (409, "conflict")
    id = rotated["gateway_key"]["id"]
    assert (await ada("POST", f"/gateway-keys/{id}/revoke")).body["gateway_key"]["state"] == "revoked"
    assert (await ada("DELETE", f"/gateway-keys/{id}")).status == 200
    assert (await ada("GET", f"/gateway-keys/{id}")).status == 404


async def test_a_key_that_has_more_than_the_team_allows_by_now_is_not_rotated(ada: Caller, owner: Caller) -> None:
    id = (await ada("POST", "/gateway-keys", {"name": "laptop"})).body["gateway_key"]["id"]
    await owner("PATCH", "/teams/research", {"key_rules": {**RULES, "requests_per_minute": 5}})
    assert (await ada("POST", f"/gateway-keys/{id}/rotate")).code == "permission_denied"
    assert (await owner("POST", f"/gateway-keys/{id}/rotate")).status == 201


async def test_who_leaves_the_team_or_the_house(ada: Caller, house: House, owner: Caller) -> None:
    id = (await ada("POST", "/gateway-keys", {"name": "laptop"})).body["gateway_key"]["id"]
    user = await house.store.users.get("ada@example.com")
    await owner("DELETE", f"/teams/research/members/{user.id}")
    assert (await ada("POST", f"/gateway-keys/{id}/rotate")).code == "permission_denied"
    assert (await owner("DELETE", f"/users/{user.id}")).status == 204
    assert (await owner("GET", f"/gateway-keys/{id}")).body["state"] == "revoked"


async def test_pages_and_search(owner: Caller, clock: Clock) -> None:
    for number in range(7):
        clock.now += number % 2  # some have equal times
        await owner("POST", "/gateway-keys", {"name": f"key-{number}"})
    seen, cursor = [], ""
    while True:
        page = (await owner("GET", f"/gateway-keys?limit=3{cursor}")).body
        seen += [one["name"] for one in page["data"]]
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    assert sorted(seen) == [f"key-{number}" for number in range(7)]
    assert [one["name"] for one in (await owner("GET", "/gateway-keys?search=KEY-3")).body["data"]] == ["key-3"]
    assert (await owner("GET", "/gateway-keys?state=revoked")).body["data"] == []


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=201", "limit=x", "cursor=x", "state=odd", "color=red", "limit=1&limit=2"]
)
async def test_a_query_that_is_not_right(owner: Caller, query: str) -> None:
    assert (await owner("GET", f"/gateway-keys?{query}")).status == 400


async def test_leaked_keys(ada: Caller, owner: Caller, store: Store) -> None:
    made = (await owner("POST", "/gateway-keys", {"name": "theirs"})).body
    access = owner.headers["Authorization"].removeprefix("Bearer ")
    forged = made["key"][:-1] + ("0" if made["key"][-1] != "0" else "1")
    from gateway.control import keys

    strange = keys.generate().reveal()
    text = f"export KEY={made['key']}\n{forged} {strange}; again {made['key']} {access} kt_gk_short"
    found = (await ada("POST", "/identify-keys", {"text": text})).body["data"]
    told = [(one["kind"], one["known"], one["gateway_key"] and one["gateway_key"]["name"]) for one in found]
    assert told == [("gateway_key", True, "theirs"), ("gateway_key", False, None), ("access_key", True, None)]
    assert made["key"] not in str(found)
