"""Signing in and out: by password, set-up link and invitation; sessions, CSRF, fixation, throttling."""

from __future__ import annotations

import re

import pytest

from gateway.control.identity.roles import Role
from gateway.control.identity.throttle import PAIR_FAILURES
from gateway.control.setup_link import new_link
from gateway.control.store.trail import THE_GATEWAY
from gateway.control.store.users import UserChange
from tests.gateway.control.conftest import Clock
from tests.gateway.control.rest.conftest import PASSWORD, House


async def test_the_first_user_comes_by_the_set_up_link_once(house: House) -> None:
    link = await new_link(house.store, "http://localhost:41002")
    assert link is not None
    token = link.partition("token=")[2]
    browser = house.browser()
    assert (await browser("GET", "/auth/methods")).body == {"setup_needed": True, "password": True, "oidc": None}
    wrong = {"token": "x" * 43, "email": "ada@example.com", "name": "Ada", "password": PASSWORD}
    assert (await browser("POST", "/auth/setup", wrong)).code == "sign_in_failed"
    answer = await browser("POST", "/auth/setup", {**wrong, "token": token})
    assert (answer.status, answer.body["role"]) == (200, "owner")
    assert (await browser("GET", "/me")).body["user"]["email"] == "ada@example.com"
    again = await house.browser()("POST", "/auth/setup", {**wrong, "token": token, "email": "eve@example.com"})
    assert again.code == "sign_in_failed"
    assert await new_link(house.store, "") is None


async def test_a_set_up_link_is_of_no_use_once_there_is_a_user(house: House) -> None:
    link = await new_link(house.store, "")
    assert link is not None
    await house.user(Role.OWNER)
    body = {"token": link.partition("token=")[2], "email": "eve@example.com", "name": "Eve", "password": PASSWORD}
    assert (await house.browser()("POST", "/auth/setup", body)).status == 409


async def test_a_session(house: House) -> None:
    await house.user(email="ada@example.com")
    browser = house.browser()
    answer = await browser("POST", "/auth/sign-in", {"email": " Ada@Example.com"[1:], "password": PASSWORD})
    cookie = answer.cookies["kt_session"]
    assert (cookie["httponly"], cookie["samesite"], cookie["path"]) == (True, "Lax", "/")
    assert not cookie["secure"]  # http on a loopback address
    csrf = answer.body["csrf_token"]
    me = await browser("GET", "/me")
    assert (me.body["via"], me.body["csrf_token"]) == ("session", csrf)
    assert (await browser("POST", "/auth/sign-out", x_csrf_token=csrf)).status == 204
    assert (await browser("GET", "/me")).code == "not_signed_in"


async def test_the_cookie_is_for_tls_only_where_there_is_tls(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    import msgspec

    secure = msgspec.structs.replace(house.plane.settings, secure=True)
    monkeypatch.setattr(type(house.plane), "settings", property(lambda _: secure))
    monkeypatch.setattr(house.plane.gatekeeper, "_settings", lambda: secure)
    await house.user(email="ada@example.com")
    answer = await house.browser()("POST", "/auth/sign-in", {"email": "ada@example.com", "password": PASSWORD})
    assert answer.cookies["__Host-kt_session"]["secure"]


async def test_what_is_wrong_is_not_said(house: House) -> None:
    await house.user(email="ada@example.com")
    off = await house.user(email="off@example.com")
    await house.store.users.change(off.id, UserChange(active=False), THE_GATEWAY)
    browser = house.browser()
    bodies = [
        {"email": "ada@example.com", "password": "wrong"},
        {"email": "nobody@example.com", "password": PASSWORD},
        {"email": "off@example.com", "password": PASSWORD},
    ]
    answers = [await browser("POST", "/auth/sign-in", body) for body in bodies]
    assert [answer.status for answer in answers] == [401] * 3
    assert len({str(answer.body) for answer in answers}) == 1


async def test_a_session_is_begun_anew_at_each_sign_in(house: House) -> None:
    """Fixation: a cookie that somebody else has put into the browser never becomes the session."""
    await house.user(email="ada@example.com")
    browser = house.browser()
    planted = "A" * 43
    body = {"email": "ada@example.com", "password": PASSWORD}
    first = await browser("POST", "/auth/sign-in", body, Cookie=f"kt_session={planted}")
    secret = first.cookies["kt_session"].value
    assert secret != planted
    assert (await house.browser()("GET", "/me", Cookie=f"kt_session={planted}")).status == 401
    second = await browser("POST", "/auth/sign-in", body, x_csrf_token=first.body["csrf_token"])
    assert second.cookies["kt_session"].value != secret
    assert (await house.browser()("GET", "/me", Cookie=f"kt_session={secret}")).status == 401


async def test_csrf(house: House) -> None:
    await house.user(email="ada@example.com")
    ada = await house.signed_in("ada@example.com")
    token = ada.headers.pop("x-csrf-token")
    edit = {"name": "Countess"}
    assert (await ada("PATCH", "/me", edit)).code == "csrf_refused"
    assert (await ada("PATCH", "/me", edit, x_csrf_token="0" * 64)).code == "csrf_refused"
    assert (await ada("PATCH", "/me", edit, x_csrf_token=token, Origin="https://evil.example")).code == "csrf_refused"
    assert (await ada("PATCH", "/me", edit, x_csrf_token=token, Sec_Fetch_Site="cross-site")).code == "csrf_refused"
    assert (await ada("PATCH", "/me", edit, x_csrf_token=token, Origin=house.url)).status == 200
    other = await house.user(email="eve@example.com")
    eve = await house.signed_in(other.email)
    assert (await ada("PATCH", "/me", edit, x_csrf_token=eve.headers["x-csrf-token"])).code == "csrf_refused"


async def test_a_foreign_page_cannot_sign_somebody_in(house: House) -> None:
    await house.user(email="eve@example.com")
    body = {"email": "eve@example.com", "password": PASSWORD}
    answer = await house.browser()("POST", "/auth/sign-in", body, Origin="https://evil.example")
    assert answer.code == "csrf_refused"


async def test_guessing_is_slowed_down(house: House) -> None:
    await house.user(email="ada@example.com")
    browser = house.browser()
    for _ in range(PAIR_FAILURES):
        answer = await browser("POST", "/auth/sign-in", {"email": "ada@example.com", "password": "wrong"})
        assert answer.code == "sign_in_failed"
    answer = await browser("POST", "/auth/sign-in", {"email": "ADA@example.com", "password": PASSWORD})
    assert (answer.code, answer.status) == ("too_many_attempts", 429)
    assert 0 < int(answer.headers["Retry-After"]) <= 900


async def test_a_session_ends(house: House, clock: Clock) -> None:
    user = await house.user(email="ada@example.com")
    idle = await house.signed_in(user.email)
    clock.now += 120 * 60 + 1
    assert (await idle("GET", "/me")).status == 401
    busy = await house.signed_in(user.email)
    for _ in range(12):
        assert (await busy("GET", "/me")).status == 200
        clock.now += 3600
    assert (await busy("GET", "/me")).status == 401


async def test_somebody_who_is_made_inactive_is_out_at_once(house: House) -> None:
    owner = await house.by_key(await house.user(Role.OWNER))
    user = await house.user(email="ada@example.com")
    ada, key = await house.signed_in(user.email), await house.by_key(user)
    assert (await owner("PATCH", f"/users/{user.id}", {"active": False})).status == 200
    assert (await ada("GET", "/me")).status == 401
    assert (await key("GET", "/me")).code == "not_signed_in"


async def test_sessions_can_be_seen_and_ended(house: House) -> None:
    user = await house.user(email="ada@example.com")
    here, there = await house.signed_in(user.email), await house.signed_in(user.email)
    listed = (await here("GET", "/me/sessions")).body["data"]
    assert len(listed) == 2
    other = next(one["id"] for one in listed if not one["current"])
    assert (await here("DELETE", f"/me/sessions/{other}")).status == 204
    assert (await there("GET", "/me")).status == 401
    assert (await here("GET", "/me")).status == 200
    assert (await here("DELETE", f"/me/sessions/{other}")).status == 404


async def test_a_new_password_ends_all_other_sessions(house: House) -> None:
    user = await house.user(email="ada@example.com")
    here, there = await house.signed_in(user.email), await house.signed_in(user.email)
    assert (await here("POST", "/me/password", {"current": "wrong", "new": "x" * 12})).code == "sign_in_failed"
    assert (await here("POST", "/me/password", {"current": PASSWORD, "new": "short"})).status == 400
    assert (await here("POST", "/me/password", {"current": PASSWORD, "new": "x" * 12})).status == 204
    assert (await here("GET", "/me")).status == 200
    assert (await there("GET", "/me")).status == 401
    body = {"email": user.email, "password": PASSWORD}
    assert (await house.browser()("POST", "/auth/sign-in", body)).status == 401


async def test_an_invitation_works_once(house: House) -> None:
    owner = await house.by_key(await house.user(Role.OWNER))
    new = await owner("POST", "/users", {"email": "Ada@Example.com", "name": "Ada", "role": "developer"})
    assert new.status == 201
    assert new.body["user"]["has_password"] is False
    found = re.fullmatch(r"http://localhost:41002/console/invitation\?token=(\S+)", new.body["link"])
    assert found is not None
    browser, accept = house.browser(), {"token": found[1], "password": PASSWORD}
    assert (await browser("POST", "/auth/invitation", accept)).body["user"]["email"] == "ada@example.com"
    assert (await browser("GET", "/me")).status == 200
    assert (await house.browser()("POST", "/auth/invitation", accept)).code == "sign_in_failed"
    again = (await owner("POST", f"/users/{new.body['user']['id']}/invitation")).body["link"]
    newest = (await owner("POST", f"/users/{new.body['user']['id']}/invitation")).body["link"]
    for link, status in ((again, 401), (newest, 200)):
        body = {"token": link.partition("token=")[2], "password": PASSWORD}
        assert (await house.browser()("POST", "/auth/invitation", body)).status == status


async def test_access_keys(house: House, clock: Clock) -> None:
    user = await house.user(email="ada@example.com")
    ada = await house.signed_in(user.email)
    new = await ada("POST", "/me/access-keys", {"name": "laptop", "expires_in_seconds": 3600})
    key = {"Authorization": f"Bearer {new.body['key']}"}
    assert new.status == 201
    anybody = house.browser()
    assert (await anybody("GET", "/me", **key)).body["via"] == "access_key"
    listed = (await ada("GET", "/me/access-keys")).body["data"]
    assert [one["prefix"] for one in listed] == [new.body["key"][:12]]
    assert "key" not in listed[0]
    # It needs no CSRF token, and no cookie is looked at beside it.
    assert (await anybody("PATCH", "/me", {"name": "A"}, **key)).status == 200
    clock.now += 3600
    assert (await anybody("GET", "/me", **key)).code == "not_signed_in"
    second = await ada("POST", "/me/access-keys", {"name": "second"})
    assert (await ada("DELETE", f"/me/access-keys/{second.body['access_key']['id']}")).status == 204
    assert (await anybody("GET", "/me", Authorization=f"Bearer {second.body['key']}")).status == 401


@pytest.mark.parametrize("credential", ["", "Bearer", "Bearer wrong", "Basic x", "Bearer kt_ak_" + "0" * 38])
async def test_a_bad_credential_is_refused_though_there_is_a_session(house: House, credential: str) -> None:
    await house.user(email="ada@example.com")
    ada = await house.signed_in("ada@example.com")
    assert (await ada("GET", "/me", Authorization=credential)).code == "not_signed_in"
