"""What all routes have in common: errors in one shape, bounds, the description, and what happens when things fail."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from typing import Any

import aiohttp
import orjson
import pytest

from gateway.control.identity.roles import Role
from gateway.control.rest import server
from gateway.control.rest.call import Call, Route
from gateway.control.rest.openapi import describe
from gateway.control.rest.table import ROUTES
from tests.gateway.control.rest.conftest import Caller, House, Source


@pytest.fixture
async def owner(house: House) -> Caller:
    return await house.by_key(await house.user(Role.OWNER))


async def test_errors_have_the_shape_of_all_others(owner: Caller) -> None:
    answer = await owner("GET", "/nothing", x_request_id="req_1")
    assert (answer.status, answer.body["error"]) == (
        404,
        {
            "message": "There is nothing at /api/v1/nothing.",
            "type": "invalid_request_error",
            "param": None,
            "code": "not_found",
            "request_id": "req_1",
        },
    )
    wrong = await owner("PUT", "/users")
    assert (wrong.status, wrong.code) == (405, "method_not_allowed")
    assert wrong.headers["Allow"] == "GET,POST"
    assert "Server" not in wrong.headers


@pytest.mark.parametrize(
    ("body", "headers", "status", "param"),
    [
        (b"{", {}, 400, None),
        (b"\xff", {}, 400, None),
        (b"[]", {}, 400, None),
        (b'{"name": "x", "color": "red"}', {}, 400, None),
        (b'{"name": ""}', {}, 400, "name"),
        (b'{"name": 1}', {}, 400, "name"),
        (b'{"name": "two\\nlines"}', {}, 400, "name"),
        (b'{"name": "x"}', {"Content-Type": "text/plain"}, 400, None),
        (b'{"name": "x"}', {"Content-Type": "application/x-www-form-urlencoded"}, 400, None),
        (b'{"name": "x"}', {"Content-Encoding": "gzip"}, 415, None),
        (b"x" * 70_000, {}, 413, None),
        (b"x" * (2 << 20), {}, 413, None),
    ],
)
async def test_bodies_that_are_not_right(
    house: House, owner: Caller, body: bytes, headers: dict[str, str], status: int, param: str | None
) -> None:
    given = {**owner.headers, "Content-Type": "application/json", **headers}
    async with owner.session.post(
        f"{house.url}/api/v1/teams", data=body, headers=given, skip_auto_headers=()
    ) as answer:
        told = await answer.json(content_type=None)
        assert (answer.status, told["error"]["param"]) == (status, param), told
    assert await house.store.teams.search() == []


async def test_a_body_where_none_is_taken(owner: Caller) -> None:
    assert (await owner("GET", "/me", {"x": 1})).code == "invalid_request"
    assert (await owner("GET", "/me?x=1")).code == "invalid_request"


async def test_without_the_store(house: House, owner: Caller) -> None:
    source = house.plane.source
    assert isinstance(source, Source)
    source.opened = None
    for method, path in (("GET", "/me"), ("GET", "/auth/methods")):
        answer = await owner(method, path)
        assert (answer.status, answer.code, answer.headers["Retry-After"]) == (503, "overloaded", "1")
    assert (await house.browser()("GET", "/status")).status == 200


async def test_so_many_calls_at_once_and_no_more(house: House, owner: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MAX_CALLS", 2)
    go, begun = asyncio.Event(), asyncio.Semaphore(0)

    async def slow(*_: Any, **__: Any) -> list[Any]:
        begun.release()
        await go.wait()
        return []

    monkeypatch.setattr(type(house.store.teams), "search", slow)
    waiting = [asyncio.create_task(owner("GET", "/teams")) for _ in range(2)]
    for _ in waiting:
        await begun.acquire()
    refused = await owner("GET", "/me")
    assert (refused.status, refused.code) == (503, "overloaded")
    go.set()
    assert [answer.status for answer in await asyncio.gather(*waiting)] == [200, 200]
    assert (await owner("GET", "/me")).status == 200


async def test_a_bug_is_logged_and_not_shown(
    house: House, owner: Caller, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("canary")

    monkeypatch.setattr(type(house.store.teams), "search", broken)
    answer = await owner("GET", "/teams")
    assert (answer.status, answer.code) == (500, "internal_error")
    assert "canary" not in str(answer.body)
    assert "canary" in caplog.text


async def test_the_description_is_served_to_anybody(house: House) -> None:
    told = (await house.browser()("GET", "/openapi.json")).body
    assert told == orjson.loads(orjson.dumps(describe(ROUTES)))
    assert told["openapi"] == "3.1.0"


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def test_the_description_holds_together() -> None:
    told = describe(ROUTES)
    names = {f"#/components/schemas/{name}" for name in told["components"]["schemas"]}
    assert set(references(told)) <= names
    operations = [one for path in told["paths"].values() for one in path.values()]
    assert len({one["operationId"] for one in operations}) == len(operations) == len(ROUTES)
    for route in ROUTES:
        operation = told["paths"]["/api/v1" + route.path][route.method.lower()]
        parts = {one["name"] for one in operation["parameters"] if one["in"] == "path"}
        assert parts == set(re.findall(r"\{(\w+)\}", route.path))
        assert ("security" in operation) == bool(route.needs)


def test_no_fixed_path_is_an_object_s_name() -> None:
    """`/things/check` and `/things/{thing}` would make a thing named `check` unreachable. Events have made-up ids."""

    def shadows(fixed: Route, open: Route) -> bool:
        pattern = re.sub(r"\{\w+\}", "[^/]+", open.path)
        return "{" not in fixed.path.rpartition("/")[2] and re.fullmatch(pattern, fixed.path) is not None

    made_up = {"/events/live", "/events/names"}
    pairs = [
        (one.path, other.path) for one in ROUTES for other in ROUTES if one.path != other.path and shadows(one, other)
    ]
    assert {fixed for fixed, _ in pairs} <= made_up


async def test_a_call_without_a_request_has_no_address(house: House) -> None:
    call = Call(house.plane, None, {"user": "a\nb"}, None)
    assert (call.client, call.address) == ("local", None)
    with pytest.raises(AssertionError):
        _ = call.request


async def test_the_unix_socket_alone_answers_workers(house: House) -> None:
    async with aiohttp.ClientSession() as session, session.post(f"{house.url}/internal/escalations") as answer:
        assert answer.status == 404
