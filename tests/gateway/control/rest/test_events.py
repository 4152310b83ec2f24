"""Events, usage and the audit log over the API, out of a real log."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from gateway.audit.checkpoint import private_key
from gateway.control.events.service import MAX_LISTENERS
from gateway.control.identity.roles import Role
from gateway.control.rest.event_table import EVENT_ROUTES
from gateway.control.store.records import KeyScope
from gateway.control.store.trail import THE_GATEWAY
from gateway.folders import audit_folder
from tests.gateway.control.conftest import Clock
from tests.gateway.control.events.log import BLOCKED, MASKED, NOON, Log
from tests.gateway.control.rest.conftest import Answer, Caller, House

PATIENCE = 20.0


@pytest.fixture
def log(run_folder: Path) -> Log:
    return Log(audit_folder(run_folder.parent))


@pytest.fixture
async def auditor(house: House, log: Log, clock: Clock) -> AsyncIterator[Caller]:
    """Somebody who may see everything, while the index follows the log."""
    clock.now = NOON + 120.0
    house.plane.events._clock = clock
    user = await house.user(Role.AUDITOR)
    following = asyncio.create_task(house.plane.events.run())
    yield await house.by_key(user)
    following.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await following


async def until_there(caller: Caller, count: int, path: str = "/events") -> Answer:
    """The events, once there are so many."""
    async with asyncio.timeout(PATIENCE):
        while True:
            answer = await caller("GET", path)
            if answer.status == 200 and len(answer.body["data"]) >= count:
                return answer
            await asyncio.sleep(0.02)  # as often as one asks


async def own_key(house: House, email: str, name: str = "mine") -> str:
    user = await house.store.users.get(email)
    made = await house.store.create_key(KeyScope(name=name), owner_id=user.id, actor=THE_GATEWAY)
    return made.record.key.id


async def test_a_page_of_events(auditor: Caller, house: House, log: Log) -> None:
    key = await own_key(house, "auditor@example.com", "billing")
    log.exchange("req_1", key=key)
    log.exchange("req_2", 5, **BLOCKED)
    answer = await until_there(auditor, 2)
    newest, oldest = answer.body["data"]
    assert answer.body["next"] is None
    assert (newest["request_id"], newest["verdict"], newest["key_name"]) == ("req_2", "block", None)
    assert (oldest["key"], oldest["key_name"], oldest["at"]) == (key, "billing", "2025-06-16T12:00:01.000Z")
    assert (await auditor("GET", f"/events?key={key}")).body["data"] == [oldest]
    assert (await auditor("GET", "/events?status=4xx&since=2025-06-16T12:00:00Z")).body["data"] == [newest]


async def test_pages_have_cursors(auditor: Caller, log: Log) -> None:
    for number in range(5):
        log.exchange(f"req_{number}", number)
    await until_there(auditor, 5)
    first = (await auditor("GET", "/events?limit=3")).body
    second = (await auditor("GET", f"/events?limit=3&cursor={first['next']}")).body
    assert [one["request_id"] for one in (*first["data"], *second["data"])] == [f"req_{n}" for n in (4, 3, 2, 1, 0)]
    assert second["next"] is None


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("cursor=nonsense", "cursor"),
        ("status=9xx", "status"),
        ("verdict=maybe", "verdict"),
        ("since=yesterday", "since"),
        ("since=2025-06-16T12:00:00", "since"),
        ("limit=501", "limit"),
        ("colour=red", None),
    ],
)
async def test_what_is_asked_wrongly_is_refused(auditor: Caller, log: Log, query: str, param: str | None) -> None:
    log.exchange("req_1")
    await until_there(auditor, 1)
    answer = await auditor("GET", f"/events?{query}")
    assert (answer.status, answer.code) == (400, "invalid_request")
    assert answer.body["error"]["param"] == param


async def test_one_event_in_full(auditor: Caller, log: Log) -> None:
    log.exchange("req_1", client_id="own", decisions=(MASKED,), notes=("dropped `seed`",))
    (event,) = (await until_there(auditor, 1)).body["data"]
    for id in ("req_1", "own", event["id"]):
        found = (await auditor("GET", f"/events/{id}")).body
        assert found["event"] == event
        assert found["decisions"][0]["detail"] == "email"
        assert found["notes"] == ["dropped `seed`"]
        assert [line["record"]["kind"] for line in found["records"]] == ["start", "finish"]
    assert (await auditor("GET", "/events/nobody")).code == "not_found"


async def test_developers_see_what_their_own_keys_did(auditor: Caller, house: House, log: Log) -> None:
    developer = await house.by_key(await house.user())
    key = await own_key(house, "developer@example.com")
    log.exchange("req_1", key="gk_of_others", team="secret", code="rate_limit_exceeded", status=429)
    log.exchange("req_2", 2, key=key)
    await until_there(auditor, 2)
    assert [one["request_id"] for one in (await developer("GET", "/events")).body["data"]] == ["req_2"]
    assert (await developer("GET", "/events/req_1")).status == 404
    assert (await developer("GET", "/events/req_2")).status == 200
    assert (await developer("GET", "/events?request=req_1")).body["data"] == []
    names = (await developer("GET", "/events/names")).body
    assert [one["name"] for one in names["key"]] == [key]
    assert (names["team"], names["code"]) == ([], [])
    assert (await developer("GET", f"/usage?{SPAN}")).body["total"]["requests"] == 1
    assert (await developer("GET", "/overview?range=1h")).body["total"]["requests"] == 1
    assert (await developer("GET", "/audit")).code == "permission_denied"


SPAN = "since=2025-06-16T11:00:00Z&until=2025-06-16T13:00:00Z"


async def test_usage_by_group(auditor: Caller, log: Log) -> None:
    for number in range(6):
        log.exchange(f"req_{number}", 60 * number, team=f"team-{number // 2}" if number < 5 else "team-0")
    await until_there(auditor, 6)
    usage = (await auditor("GET", f"/usage?{SPAN}&by=team&top=1")).body
    assert usage["step"] == "minute"
    assert usage["total"]["requests"] == 6
    assert [(one["name"], one["label"], one["requests"]) for one in usage["groups"]] == [
        ("team-0", "team-0", 3),
        (None, "All others", 3),
    ]
    assert sum(one["requests"] for one in usage["points"] if one["name"] is None) == 3
    hours = (await auditor("GET", f"/usage?{SPAN}&step=hour")).body
    assert [(one["at"], one["requests"]) for one in hours["points"]] == [("2025-06-16T12:00:00.000Z", 6)]


async def test_usage_as_a_table(auditor: Caller, log: Log) -> None:
    log.exchange("req_1", team="=HYPERLINK()")
    await until_there(auditor, 1)
    answer = await auditor("GET", f"/usage?{SPAN}&by=team&step=hour&format=csv")
    assert answer.headers["Content-Type"].startswith("text/csv")
    head, row = csv.reader(io.StringIO(answer.body.decode()))
    assert head[:3] == ["time", "team", "requests"]
    assert row[:3] == ["2025-06-16T12:00:00.000Z", "'=HYPERLINK()", "1"]


@pytest.mark.parametrize(
    "query",
    [
        "since=2025-06-17T00:00:00Z&until=2025-06-16T00:00:00Z",
        "since=2020-01-01T00:00:00Z&until=2025-06-16T00:00:00Z",
        "since=2025-01-01T00:00:00Z&until=2025-06-16T00:00:00Z&step=minute",
    ],
)
async def test_usage_of_a_time_that_cannot_be_shown(auditor: Caller, log: Log, query: str) -> None:
    log.exchange("req_1")
    await until_there(auditor, 1)
    assert (await auditor("GET", f"/usage?{query}")).code == "invalid_request"


async def test_the_overview(auditor: Caller, log: Log) -> None:
    log.exchange("req_1")
    log.exchange("req_2", 30, **BLOCKED)
    await until_there(auditor, 2)
    async with asyncio.timeout(PATIENCE):
        while (told := (await auditor("GET", "/overview?range=1h")).body)["index"]["behind"]:  # noqa: ASYNC110
            await asyncio.sleep(0.02)  # as often as one asks
    assert (told["total"]["requests"], told["total"]["blocked"], told["before"]["requests"]) == (2, 1, 0)
    assert told["latency"]["added"]["p50_ms"] == pytest.approx(0.4, rel=0.05)
    assert {one["policy"] for one in told["policies"]} == {"pii-detector", "prompt-injection"}
    assert told["index"] == {"behind": False, "fault": False, "records_missing": 0}


async def test_watching(auditor: Caller, log: Log) -> None:
    log.exchange("req_0")
    await until_there(auditor, 1)
    async with watching(auditor, "verdict=block") as lines:
        assert await anext(lines) == "retry: 2000"
        log.exchange("req_1", 5)
        log.exchange("req_2", 10, **BLOCKED)
        seen = [line async for line in until(lines, "data: ")]
    assert seen[-3] == "event: event"
    assert msgspec.json.decode(seen[-1].removeprefix("data: "))["request_id"] == "req_2"


async def test_so_many_may_watch(auditor: Caller, house: House, log: Log) -> None:
    with contextlib.ExitStack() as watchers:
        for _ in range(MAX_LISTENERS):
            watchers.enter_context(house.plane.events.listening())
        assert (await auditor("GET", "/events/live")).code == "overloaded"


@contextlib.asynccontextmanager
async def watching(caller: Caller, query: str) -> AsyncIterator[AsyncIterator[str]]:
    async with caller.session.get(f"{caller.url}/api/v1/events/live?{query}", headers=caller.headers) as answer:
        assert answer.content_type == "text/event-stream"
        yield _lines(answer)


async def _lines(answer: aiohttp.ClientResponse) -> AsyncIterator[str]:
    async for line in answer.content:
        yield line.decode().rstrip("\n")


async def until(lines: AsyncIterator[str], begin: str) -> AsyncIterator[str]:
    async with asyncio.timeout(PATIENCE):
        async for line in lines:
            yield line
            if line.startswith(begin):
                return


async def test_the_log_and_whether_it_is_whole(auditor: Caller, log: Log) -> None:
    assert (await auditor("POST", "/audit/verify")).code == "not_found"
    log.exchange("req_1")
    await until_there(auditor, 1)
    state = (await auditor("GET", "/audit")).body
    assert (state["segments"], state["open"], state["writers"], state["gaps"]) == (1, 1, 1, [])
    log.chain.seal(NOON + 30)
    report = (await auditor("POST", "/audit/verify")).body
    assert (report["whole"], report["records"], report["faults"]) == (True, 2, [])
    (path,) = log.folder.glob("*-000001.jsonl")
    path.chmod(0o640)
    path.write_bytes(path.read_bytes().replace(b'"prompt_tokens":10', b'"prompt_tokens":11'))
    report = (await auditor("POST", "/audit/verify")).body
    assert report["whole"] is False
    assert report["faults"][0]["fault"] == "altered"


async def test_what_is_answered_is_what_the_description_says(auditor: Caller, house: House, log: Log) -> None:
    key = await own_key(house, "auditor@example.com")
    for number in range(4):
        log.exchange(f"req_{number}", number, key=key, **(BLOCKED if number == 2 else {}))
    await until_there(auditor, 4)
    paths: dict[str, str] = {
        "events": "?limit=2", "event": "", "usage": f"?{SPAN}&by=key&top=1", "overview": "", "audit_state": "",
        "event_names": "", "verify_audit": "",
    }  # fmt: skip
    for route in EVENT_ROUTES:
        if route.endless:
            continue
        answer = await auditor(route.method, route.path.replace("{event}", "req_2") + paths[route.name])
        assert answer.status == 200, answer
        described = msgspec.convert(answer.body, route.answer)
        assert _names(msgspec.to_builtins(described)) == _names(answer.body), route.name


def _names(told: Any) -> Any:
    """The structure of an answer: the names of its fields, all the way down."""
    if isinstance(told, dict):
        return {name: _names(value) for name, value in told.items()}
    return [_names(one) for one in told] if isinstance(told, list | tuple) else None


async def test_a_log_without_its_first_checkpoint_is_whole(auditor: Caller, log: Log) -> None:
    """The public key is there from the first second, and nothing is signed before the first minute is over."""
    log.exchange("req_1")
    private_key(log.folder.parent / "audit-key.pem")
    assert (log.folder.parent / "audit-key.pub").exists()
    report = (await auditor("POST", "/audit/verify")).body
    assert (report["whole"], report["signed"]) == (True, None)


async def test_the_name_of_a_key_that_was_made_a_moment_ago(auditor: Caller, house: House, log: Log) -> None:
    """Names are kept for a moment; a key that came since is looked up all the same, and one that nobody has is not."""
    await own_key(house, "auditor@example.com", "older")
    log.exchange("req_1", key="key_of_nobody")
    assert (await until_there(auditor, 1)).body["data"][0]["key_name"] is None
    key = await own_key(house, "auditor@example.com", "newer")
    log.exchange("req_2", key=key)
    newest, oldest = (await until_there(auditor, 2)).body["data"]
    assert (newest["key_name"], oldest["key_name"]) == ("newer", None)
