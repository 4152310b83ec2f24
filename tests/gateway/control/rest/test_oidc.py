"""Signing in through an OpenID provider, the whole way, and each thing that may be wrong with an answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from gateway.control.identity.roles import Role
from gateway.control.store.trail import THE_GATEWAY
from gateway.control.store.users import UserChange
from tests.gateway.control.conftest import Clock
from tests.gateway.control.oidc_provider import Provider
from tests.gateway.control.rest.conftest import Answer, Caller, House, put_in_force
from tests.playbook import configuration, target

SECRET = "client-secret-canary"


@pytest.fixture
async def provider(clock: Clock) -> AsyncIterator[Provider]:
    one = Provider(clock)
    await one.start()
    yield one
    await one.stop()


Settings = Callable[..., None]


@pytest.fixture
def settings(house: House, provider: Provider, run_folder: Path) -> Settings:
    """Puts a configuration in force with these settings of `gateway.identity.oidc`."""
    generation = 1

    def put(**oidc: Any) -> None:
        nonlocal generation
        generation += 1
        import json

        told = {"issuer": provider.url, "client_id": "keeptrusts", **oidc}
        section = {"identity": {"public_url": house.url, "oidc": told}}
        text = configuration(target("gpt")) + f"\ngateway: {json.dumps(section)}\n"
        put_in_force(run_folder, text, generation)

    put(default_role="developer")
    return put


async def go(browser: Caller, provider: Provider, next: str = "/console/keys") -> Answer:
    """The whole way of a browser."""
    started = await browser("GET", f"/auth/oidc/start?{urlencode({'next': next})}")
    assert started.status == 302, started
    return await come_back(browser, provider.authorize(started.headers["Location"]))


async def come_back(browser: Caller, answer: dict[str, str]) -> Answer:
    return await browser("GET", f"/auth/oidc/callback?{urlencode(answer)}")


async def test_somebody_new_signs_in(house: House, provider: Provider, settings: Settings) -> None:
    browser = house.browser()
    methods = (await browser("GET", "/auth/methods")).body
    assert methods["oidc"] == {"name": "Single sign-on", "start": "/api/v1/auth/oidc/start"}
    answer = await go(browser, provider)
    assert (answer.status, answer.headers["Location"]) == (302, "/console/keys")
    me = (await browser("GET", "/me")).body
    assert (me["role"], me["user"]["email"], me["user"]["has_provider"]) == ("developer", "ada@example.com", True)
    again = house.browser()
    assert (await go(again, provider)).status == 302
    assert (await again("GET", "/me")).body["user"]["id"] == me["user"]["id"]
    assert await house.store.users.count() == 1


@pytest.mark.parametrize("next", ["//evil.example", "https://evil.example", "/\\evil.example", "/a\\b", "javascript:0"])
async def test_the_way_back_leads_nowhere_else(house: House, provider: Provider, settings: Settings, next: str) -> None:
    assert (await go(house.browser(), provider, next)).headers["Location"] == "/console/"


async def test_groups_become_a_role_and_teams(house: House, provider: Provider, settings: Settings) -> None:
    settings(
        roles={"admins": "admin", "auditors": "auditor"},
        teams={"g-research": "research", "g-sales": "sales"},
        default_role="developer",
    )
    browser = house.browser()
    provider.person["groups"] = ["auditors", "admins", "g-research"]
    assert (await go(browser, provider)).status == 302
    user = (await browser("GET", "/me")).body["user"]
    assert (user["role"], [team["name"] for team in user["teams"]]) == ("admin", ["research"])
    own = await house.store.teams.create("own", "", (await house.store.teams.get("research")).key_rules, THE_GATEWAY)
    await house.store.users.join(own.id, user["id"], THE_GATEWAY)
    provider.person["groups"] = ["g-sales"]
    assert (await go(browser, provider)).status == 302
    user = (await browser("GET", "/me")).body["user"]
    assert (user["role"], [team["name"] for team in user["teams"]]) == ("developer", ["own", "sales"])


async def test_without_a_role_nobody_gets_in(house: House, provider: Provider, settings: Settings) -> None:
    settings(roles={"admins": "admin"})
    answer = await go(house.browser(), provider)
    assert (answer.code, answer.body["error"]["message"]) == (
        "sign_in_failed",
        "No group of yours leads to a role here; ask an owner.",
    )
    assert await house.store.users.count() == 0


async def test_who_was_invited_is_the_same_user_if_the_address_is_verified(
    house: House, provider: Provider, settings: Settings
) -> None:
    user = await house.user(Role.ADMIN, "ada@example.com")
    provider.person["email_verified"] = False
    assert (await go(house.browser(), provider)).code == "sign_in_failed"
    provider.person["email_verified"] = True
    browser = house.browser()
    assert (await go(browser, provider)).status == 302
    me = (await browser("GET", "/me")).body["user"]
    assert (me["id"], me["role"]) == (user.id, "admin")
    # Another account of the provider with the same address is not that user.
    provider.person["sub"] = "s-2"
    assert (await go(house.browser(), provider)).code == "sign_in_failed"


async def test_the_last_owner_is_not_taken_the_role_by_a_group(
    house: House, provider: Provider, settings: Settings
) -> None:
    await house.user(Role.OWNER, "ada@example.com")
    settings(roles={"admins": "admin"}, default_role="developer")
    browser = house.browser()
    assert (await go(browser, provider)).status == 302
    assert (await browser("GET", "/me")).body["role"] == "owner"


async def test_somebody_inactive_or_of_another_domain(house: House, provider: Provider, settings: Settings) -> None:
    settings(default_role="developer", allowed_domains=["example.org"])
    assert (await go(house.browser(), provider)).code == "sign_in_failed"
    settings(default_role="developer", allowed_domains=["Example.com"])
    assert (await go(house.browser(), provider)).status == 302
    user = await house.store.users.get("ada@example.com")
    await house.user(Role.OWNER)
    await house.store.users.change(user.id, UserChange(active=False), THE_GATEWAY)
    assert (await go(house.browser(), provider)).code == "sign_in_failed"


async def test_an_answer_that_this_browser_did_not_ask_for(
    house: House, provider: Provider, settings: Settings
) -> None:
    """Login CSRF: an attacker's answer, brought to somebody else's browser."""
    attacker, victim = house.browser(), house.browser()
    started = await attacker("GET", "/auth/oidc/start")
    stolen = provider.authorize(started.headers["Location"])
    assert (await come_back(victim, stolen)).code == "sign_in_failed"
    await victim("GET", "/auth/oidc/start")
    assert (await come_back(victim, stolen)).code == "sign_in_failed"
    assert provider.asked.count("token") == 0


async def test_a_code_is_good_once(house: House, provider: Provider, settings: Settings) -> None:
    browser = house.browser()
    started = await browser("GET", "/auth/oidc/start")
    cookie = started.cookies["kt_oidc"]
    assert (cookie["httponly"], cookie["samesite"]) == (True, "Lax")
    answer = provider.authorize(started.headers["Location"])
    assert (await come_back(browser, answer)).status == 302
    replayed = await house.browser()(
        "GET", f"/auth/oidc/callback?{urlencode(answer)}", Cookie=f"kt_oidc={cookie.value}"
    )
    assert replayed.code == "sign_in_failed"


async def test_whoever_takes_too_long(house: House, provider: Provider, settings: Settings, clock: Clock) -> None:
    browser = house.browser()
    started = await browser("GET", "/auth/oidc/start")
    answer = provider.authorize(started.headers["Location"])
    clock.now += 601
    assert (await come_back(browser, answer)).code == "sign_in_failed"


def without(name: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda claims: {key: value for key, value in claims.items() if key != name}


def with_claim(name: str, value: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda claims: {**claims, name: value}


@pytest.mark.parametrize(
    "claims",
    [
        with_claim("iss", "https://evil.example"),
        with_claim("aud", "another-client"),
        with_claim("aud", ["keeptrusts", "another-client"]),
        with_claim("azp", "another-client"),
        with_claim("nonce", "another"),
        with_claim("exp", 1_600_000_000),
        without("nonce"),
        without("exp"),
        without("sub"),
        without("email"),
    ],
    ids=["iss", "aud", "auds", "azp", "nonce", "exp", "no nonce", "no exp", "no sub", "no email"],
)
async def test_a_token_that_does_not_hold(
    house: House, provider: Provider, settings: Settings, claims: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    provider.claims = claims
    assert (await go(house.browser(), provider)).code == "sign_in_failed"
    assert await house.store.users.count() == 0


async def test_several_audiences_with_us_as_the_authorised_party(
    house: House, provider: Provider, settings: Settings
) -> None:
    provider.claims = lambda claims: {**claims, "aud": ["keeptrusts", "other"], "azp": "keeptrusts"}
    assert (await go(house.browser(), provider)).status == 302


async def test_keys_that_were_changed(
    house: House, provider: Provider, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await go(house.browser(), provider)).status == 302
    provider.rotate()
    assert (await go(house.browser(), provider)).code == "sign_in_failed"  # we have just looked
    monkeypatch.setattr("gateway.control.identity.oidc.KEYS_PAUSE_SECONDS", 0.0)
    assert (await go(house.browser(), provider)).status == 302
    assert provider.asked.count("discovery") == 1


async def test_a_token_signed_with_the_shared_secret_or_not_at_all(
    house: House, provider: Provider, settings: Settings
) -> None:
    provider.sign_with_the_client_secret(SECRET * 2)
    assert (await go(house.browser(), provider)).code == "sign_in_failed"
    provider.unsigned = True
    assert (await go(house.browser(), provider)).code == "sign_in_failed"


async def test_the_client_authenticates_with_its_secret(
    house: House, provider: Provider, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider.secret = SECRET
    settings(default_role="developer", client_secret_ref={"env": "OIDC_SECRET"})
    assert (await go(house.browser(), provider)).code == "overloaded"
    monkeypatch.setenv("OIDC_SECRET", SECRET)
    assert (await go(house.browser(), provider)).status == 302


async def test_a_provider_that_refuses_or_is_another(house: House, provider: Provider, settings: Settings) -> None:
    browser = house.browser()
    for change in ({"error": "access_denied"}, {"iss": "https://evil.example"}, {"code": "wrong"}, {"state": ""}):
        started = await browser("GET", "/auth/oidc/start")
        answer = {**provider.authorize(started.headers["Location"]), **change}
        assert (await come_back(browser, answer)).code == "sign_in_failed"


async def test_a_provider_that_is_away_or_names_itself_otherwise(
    house: House, provider: Provider, settings: Settings
) -> None:
    provider.named = "https://evil.example"
    assert (await house.browser()("GET", "/auth/oidc/start")).code == "overloaded"
    await provider.stop()
    assert (await house.browser()("GET", "/auth/oidc/start")).code == "overloaded"


async def test_without_passwords(house: House, provider: Provider, settings: Settings) -> None:
    await house.user(Role.OWNER, "ada@example.com")
    settings(default_role="developer", password_too=False)
    assert (await house.browser()("GET", "/auth/methods")).body["password"] is False
    body = {"email": "ada@example.com", "password": "correct horse battery"}
    assert (await house.browser()("POST", "/auth/sign-in", body)).code == "sign_in_failed"
