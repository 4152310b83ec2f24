"""The API in this process: a real store, a real server on a loopback port, and people who call it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from argon2 import PasswordHasher

from gateway.control.api import application, plane_of
from gateway.control.identity.passwords import Passwords
from gateway.control.identity.roles import Role
from gateway.control.rest.call import Plane
from gateway.control.store.store import Store
from gateway.control.store.trail import THE_GATEWAY
from gateway.control.store.users import User
from gateway.run_file import ConfigurationText, RunFile, write_run_file
from tests.gateway.control.conftest import Clock
from tests.playbook import configuration, target

PASSWORD = "correct horse battery"
QUICK = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
"""Argon2id as it is, but not slow: what is tested here is what is done with it."""


class Source:
    """A control process that has a store."""

    def __init__(self, run_folder: Path, store: Store | None) -> None:
        self.run_folder = run_folder
        self.opened = store

    def status(self, now: float) -> dict[str, Any]:
        return {"workers": []}

    def store(self) -> Store | None:
        return self.opened


class Answer:
    """What came back."""

    def __init__(self, status: int, body: Any, headers: Mapping[str, str], cookies: Mapping[str, Any]) -> None:
        self.status = status
        self.body = body
        self.headers = headers
        self.cookies = cookies

    @property
    def code(self) -> str | None:
        """The error's code, if it is one."""
        return self.body["error"]["code"] if isinstance(self.body, dict) and "error" in self.body else None

    def __repr__(self) -> str:
        return f"<{self.status} {self.body}>"


class Caller:
    """Somebody who calls the API."""

    def __init__(self, session: aiohttp.ClientSession, url: str, headers: Mapping[str, str] | None = None) -> None:
        self.session = session
        self.url = url
        self.headers = dict(headers or {})

    async def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        options: dict[str, Any] = {} if body is None else {"json": body}
        async with self.session.request(
            method, f"{self.url}/api/v1{path}", headers={**self.headers, **given}, allow_redirects=False, **options
        ) as answer:
            kind = answer.content_type
            if kind == "application/json":
                told = await answer.json()
            else:
                told = None if kind == "text/event-stream" else await answer.read()
            return Answer(answer.status, told, answer.headers, answer.cookies)


class House:
    """A running API, its store, and how to become somebody who calls it."""

    def __init__(self, plane: Plane, store: Store, url: str) -> None:
        self.plane = plane
        self.store = store
        self.url = url
        self._sessions: list[aiohttp.ClientSession] = []

    def browser(self) -> Caller:
        """Somebody with a cookie jar, who has not signed in."""
        self._sessions.append(aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)))
        return Caller(self._sessions[-1], self.url)

    async def user(self, role: Role = Role.DEVELOPER, email: str | None = None, *teams: str) -> User:
        """A user with the password that all have."""
        ids = []
        for name in teams:
            found = await self.store.teams.search(search=name)
            ids.append(found[0].id)
        hash = await self.plane.passwords.hash(PASSWORD)
        return await self.store.users.create(
            email or f"{role.value}@example.com",
            role.value.title(),
            role,
            THE_GATEWAY,
            password_hash=hash,
            team_ids=ids,
        )

    async def signed_in(self, email: str) -> Caller:
        """A browser in which this user has signed in, and whose pages know the CSRF token."""
        browser = self.browser()
        answer = await browser("POST", "/auth/sign-in", {"email": email, "password": PASSWORD})
        assert answer.status == 200, answer
        browser.headers["x-csrf-token"] = answer.body["csrf_token"]
        return browser

    async def by_key(self, user: User) -> Caller:
        """This user with an access key."""
        new = await self.store.access.create_access_key(user.id, "test", None, THE_GATEWAY)
        self._sessions.append(aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()))
        return Caller(self._sessions[-1], self.url, {"Authorization": f"Bearer {new.secret.reveal()}"})

    async def close(self) -> None:
        for session in self._sessions:
            await session.close()


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "state" / "run-41002"
    folder.mkdir(parents=True, mode=0o700)
    put_in_force(folder, configuration(target("gpt")), 1)
    return folder


def put_in_force(folder: Path, text: str, generation: int) -> None:
    write_run_file(folder, RunFile(str(generation), (ConfigurationText("play.yaml", text),), generation))


@pytest.fixture
async def house(run_folder: Path, store: Store, clock: Clock) -> AsyncIterator[House]:
    plane = plane_of(Source(run_folder, store), passwords=Passwords(QUICK), clock=clock)
    runner = web.AppRunner(application(plane), access_log=None, shutdown_timeout=0.05)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    opened = House(plane, store, f"http://127.0.0.1:{port}")
    yield opened
    await opened.close()
    await runner.cleanup()
    await plane.oidc.close()
    plane.passwords.close()
