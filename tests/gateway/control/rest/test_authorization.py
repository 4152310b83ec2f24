"""Every route with every role. A new route fails here until somebody has written down who may use it."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.control.identity.roles import GRANTS, Permission, Role
from gateway.control.rest.call import Route
from gateway.control.rest.reference import reference, replaced, roles
from gateway.control.rest.table import ROUTES
from gateway.oversight import Referral
from tests.gateway.control.rest.conftest import Caller, House
from tests.test_docs import DOCS

EVERYBODY = "owner admin developer auditor"
WHO: dict[str, str] = {
    "sign_in_methods": "nobody " + EVERYBODY,
    "sign_in": "nobody " + EVERYBODY,
    "set_up": "nobody " + EVERYBODY,
    "accept_invitation": "nobody " + EVERYBODY,
    "start_oidc": "nobody " + EVERYBODY,
    "finish_oidc": "nobody " + EVERYBODY,
    "sign_out": EVERYBODY,
    "me": EVERYBODY,
    "rename_me": EVERYBODY,
    "change_password": EVERYBODY,
    "my_sessions": EVERYBODY,
    "end_my_session": EVERYBODY,
    "my_access_keys": EVERYBODY,
    "create_access_key": EVERYBODY,
    "delete_access_key": EVERYBODY,
    "users": "owner admin auditor",
    "create_user": "owner admin",
    "user": "owner admin auditor",
    "edit_user": "owner admin",
    "delete_user": "owner admin",
    "invite_user": "owner admin",
    "sessions_of_user": "owner admin auditor",
    "end_sessions_of_user": "owner admin",
    "teams": EVERYBODY,
    "create_team": "owner admin",
    "team": EVERYBODY,
    "edit_team": "owner admin",
    "delete_team": "owner admin",
    "team_members": EVERYBODY,
    "join_team": "owner admin",
    "leave_team": "owner admin",
    "gateway_keys": EVERYBODY,
    "create_gateway_key": "owner admin developer",
    "identify_keys": EVERYBODY,
    "gateway_key": EVERYBODY,
    "rotate_gateway_key": "owner admin developer",
    "revoke_gateway_key": "owner admin developer",
    "delete_gateway_key": "owner admin developer",
    "configurations": EVERYBODY,
    "configuration_schema": EVERYBODY,
    "check_configuration": "owner admin auditor",
    "configuration": "owner admin auditor",
    "change_configuration": "owner admin",
    "release_configuration": "owner admin",
    "roll_back_configuration": "owner admin",
    "configuration_versions": "owner admin auditor",
    "configuration_version": "owner admin auditor",
    "status": "owner admin auditor",
    "explain": "owner admin auditor",
    "changes": "owner admin auditor",
    "escalations": "owner admin auditor",
    "escalation": "owner admin auditor",
    "approve_escalation": "owner admin",
    "refuse_escalation": "owner admin",
    "overview": EVERYBODY,
    "events": EVERYBODY,
    "live_events": EVERYBODY,
    "event_names": EVERYBODY,
    "event": EVERYBODY,
    "usage": EVERYBODY,
    "audit_state": "owner admin auditor",
    "verify_audit": "owner admin auditor",
}
"""Who may use a route. `nobody` is who has not signed in, from another machine."""

ASKERS = ("nobody", *(role.value for role in Role))
BODIES: dict[str, Any] = {
    "sign_in": {"email": "nobody@example.com", "password": "wrong"},
    "set_up": {"token": "x", "email": "a@example.com", "name": "A", "password": "long enough"},
    "accept_invitation": {"token": "x", "password": "long enough"},
    "rename_me": {"name": "New name"},
    "change_password": {"current": "x", "new": "long enough"},
    "create_access_key": {"name": "x"},
    "create_user": {"email": "new@example.com", "name": "New", "role": "developer"},
    "edit_user": {"name": "Other"},
    "create_team": {"name": "new"},
    "edit_team": {"description": "other"},
    "create_gateway_key": {"name": "x", "team": "research"},
    "identify_keys": {"text": "nothing"},
    "check_configuration": {"text": "a: 1"},
    "change_configuration": {"text": "a: 1"},
    "roll_back_configuration": {"number": 1},
    "explain": {"request": {"model": "gpt-test", "messages": []}},
}
SIGNING_IN = ("sign_in", "set_up", "accept_invitation", "finish_oidc")
"""Who is refused here is refused for what they say, not for who they are."""


def test_every_route_has_its_entry() -> None:
    assert {route.name for route in ROUTES} == set(WHO)
    assert len({(route.method, route.path) for route in ROUTES}) == len(ROUTES)


def test_the_documentation_has_every_route_and_permission() -> None:
    for page, made in (("api.md", reference()), ("identity.md", roles())):
        text = (DOCS / page).read_text()
        assert text == replaced(text, made), f"run `python -m gateway.control.rest.reference docs/{page}`"


def test_an_auditor_may_change_nothing_and_an_admin_makes_no_owner() -> None:
    writing = {one for one in Permission if one.startswith(("manage_", "decide_"))}
    assert not GRANTS[Role.AUDITOR] & writing
    assert not GRANTS[Role.DEVELOPER] & writing
    assert GRANTS[Role.OWNER] - GRANTS[Role.ADMIN] == {Permission.MANAGE_OWNERS}


@pytest.fixture
async def callers(house: House) -> dict[str, Caller]:
    """Somebody of each role, all in one team; and who has not signed in, by way of a proxy."""
    found: dict[str, Caller] = {"nobody": house.browser()}
    owner = await house.by_key(await house.user(Role.OWNER))
    await owner("POST", "/teams", {"name": "research"})
    found["owner"] = owner
    for role in (Role.ADMIN, Role.DEVELOPER, Role.AUDITOR):
        found[role.value] = await house.by_key(await house.user(role, None, "research"))
    found["nobody"].headers["X-Forwarded-For"] = "192.0.2.1"
    return found


NONE = dict.fromkeys(("session", "access_key", "gateway_key", "event"), "none")


async def parts_of(house: House, route: Route) -> dict[str, str]:
    """What the path of a route names: a user and an escalation of its own, else what there is anyway, or is not."""
    parts = {**NONE, "team": "research", "configuration": "play", "number": "1"}
    if "{user}" in route.path:
        parts["user"] = (await house.user(Role.DEVELOPER, f"victim-of-{route.name}@example.com")).id
    if "{escalation}" in route.path:
        told = Referral(fingerprint=route.name, valid_seconds=3600, request_id="req_1")
        parts["escalation"] = (await house.store.escalations.refer(told)).id
    return parts


async def ask(route: Route, caller: Caller, parts: dict[str, str]) -> tuple[int, str | None]:
    path = route.path.format_map(parts)
    answer = await caller(route.method, path, BODIES.get(route.name))
    return answer.status, answer.code


@pytest.mark.parametrize("asker", ASKERS)
async def test_every_route_with_every_role(house: House, callers: dict[str, Caller], asker: str) -> None:
    for route in sorted(ROUTES, key=lambda route: route.method == "DELETE"):
        status, code = await ask(route, callers[asker], await parts_of(house, route))
        expected = asker in WHO[route.name].split()
        if route.name in SIGNING_IN:
            assert code in ("sign_in_failed", "not_found"), route.name
        elif route.name == "change_password":
            assert code == ("not_signed_in" if asker == "nobody" else "permission_denied")  # never by a key
        elif expected:
            assert code not in ("not_signed_in", "permission_denied"), (route.name, status, code)
            assert status != 500, (route.name, status)
        else:
            wanted = "not_signed_in" if asker == "nobody" else "permission_denied"
            assert code == wanted, (route.name, status, code)


async def test_an_admin_cannot_touch_an_owner_or_become_one(house: House, callers: dict[str, Caller]) -> None:
    admin = callers["admin"]
    owner = await house.store.users.get("owner@example.com")
    me = await house.store.users.get("admin@example.com")
    for method, path, body in (
        ("PATCH", f"/users/{owner.id}", {"active": False}),
        ("PATCH", f"/users/{me.id}", {"role": "owner"}),
        ("DELETE", f"/users/{owner.id}", None),
        ("POST", f"/users/{owner.id}/invitation", None),
        ("DELETE", f"/users/{owner.id}/sessions", None),
        ("POST", "/users", {"email": "new@example.com", "name": "New", "role": "owner"}),
    ):
        assert (await admin(method, path, body)).code == "permission_denied", (method, path)
    assert await house.store.users.get(owner.id) == owner


async def test_there_is_always_an_owner(house: House, callers: dict[str, Caller]) -> None:
    owner = await house.store.users.get("owner@example.com")
    for method, body in (("PATCH", {"role": "admin"}), ("PATCH", {"active": False}), ("DELETE", None)):
        assert (await callers["owner"](method, f"/users/{owner.id}", body)).code == "conflict"
    second = await house.user(Role.OWNER, "second@example.com")
    assert (await callers["owner"]("PATCH", f"/users/{second.id}", {"role": "admin"})).status == 200


async def test_the_api_token_is_good_on_this_machine_only(house: House, run_folder: Any) -> None:
    token = (run_folder.parent / "api-token").read_text().strip()
    anybody, credential = house.browser(), {"Authorization": f"Bearer {token}"}
    me = await anybody("GET", "/me", **credential)
    assert (me.body["via"], me.body["role"], me.body["user"]) == ("api_token", "owner", None)
    assert (await anybody("GET", "/users", **credential)).status == 200
    assert (await anybody("GET", "/me/sessions", **credential)).code == "permission_denied"
    for passed_on in (
        {"X-Forwarded-For": "192.0.2.1"},
        {"Host": "rebound.example"},
        {"Origin": "https://evil.example"},
    ):
        assert (await anybody("GET", "/me", **credential, **passed_on)).code == "not_signed_in"


async def test_this_machines_own_user_sees_the_state_without_signing_in(house: House) -> None:
    anybody = house.browser()
    assert (await anybody("GET", "/status")).status == 200
    assert (await anybody("GET", "/status", Host="rebound.example")).code == "not_signed_in"
    assert (await anybody("GET", "/status", X_Forwarded_For="192.0.2.1")).code == "not_signed_in"
