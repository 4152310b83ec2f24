"""The queue of requests that wait for a person: in a real store, by HTTP, and by many at once."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from gateway.control import escalations as module
from gateway.control.api import plane_of, serving
from gateway.control.api_token import api_token
from gateway.control.escalations import EscalationDecided, EscalationNotFound, Escalations, QueueFull, State
from gateway.control.store.store import Store
from gateway.oversight import PATH, Answer, Referral
from tests.gateway.control.conftest import Clock

TOLD = Referral(
    fingerprint="f1",
    valid_seconds=3600,
    request_id="req_1",
    key_id="gk_1",
    key_name="dev",
    model="gpt-4o",
    operation="chat",
    policy="human-oversight",
    reason="human-oversight.rule",
    detail="all",
)


@pytest.fixture
def queue(store: Store) -> Escalations:
    return store.escalations


async def test_a_request_waits_under_one_id(queue: Escalations) -> None:
    first = await queue.refer(TOLD)
    assert first.state == "pending"
    assert first.id.startswith("esc_")
    assert await queue.refer(msgspec.structs.replace(TOLD, request_id="req_2")) == first
    assert (await queue.refer(msgspec.structs.replace(TOLD, fingerprint="f2"))).id != first.id
    assert [one.key_name for one in await queue.search(State.PENDING)] == ["dev", "dev"]


async def test_an_approval_is_used_once(queue: Escalations) -> None:
    id = (await queue.refer(TOLD)).id
    approved = await queue.decide(id, approve=True, by="ada", note="fine")
    assert (approved.state, approved.decided_by, approved.note) == (State.APPROVED, "ada", "fine")
    assert await queue.refer(TOLD) == Answer("approved", id)
    assert (await queue.get(id)).state is State.USED
    again = await queue.refer(TOLD)
    assert again.state == "pending"
    assert again.id != id


async def test_of_many_only_one_uses_it(url: str, clock: Clock) -> None:
    stores = [await Store.open(url, clock=clock) for _ in range(4)]
    queues = [store.escalations for store in stores]
    id = (await queues[0].refer(TOLD)).id
    await queues[0].decide(id, approve=True, by="ada")
    answers = await asyncio.gather(*(each.refer(TOLD) for each in queues * 2))
    for store in stores:
        await store.close()
    assert [answer.state for answer in answers].count("approved") == 1
    assert len({answer.id for answer in answers if answer.state == "pending"}) == 1


async def test_a_refusal_holds_while_it_is_valid(queue: Escalations, clock: Clock) -> None:
    id = (await queue.refer(TOLD)).id
    await queue.decide(id, approve=False, by="ada")
    assert await queue.refer(TOLD) == Answer("refused", id)
    clock.now += 3601
    assert (await queue.refer(TOLD)).state == "pending"


async def test_what_nobody_decides_or_uses_expires(queue: Escalations, clock: Clock) -> None:
    first, second = [(await queue.refer(msgspec.structs.replace(TOLD, fingerprint=f))).id for f in "ab"]
    await queue.decide(second, approve=True, by="ada")
    clock.now += 3601
    assert [one.state for one in await queue.search()] == [State.EXPIRED, State.EXPIRED]
    assert {one.id for one in await queue.search(State.EXPIRED)} == {first, second}
    assert await queue.search(State.PENDING) == []
    with pytest.raises(EscalationDecided, match="expired already"):
        await queue.decide(first, approve=True, by="ada")
    assert (await queue.refer(msgspec.structs.replace(TOLD, fingerprint="b"))).state == "pending"


async def test_an_approval_is_valid_from_its_decision(queue: Escalations, clock: Clock) -> None:
    id = (await queue.refer(TOLD)).id
    clock.now += 3000
    await queue.decide(id, approve=True, by="ada")
    clock.now += 3000
    assert (await queue.refer(TOLD)).state == "approved"


async def test_decided_is_decided(queue: Escalations) -> None:
    id = (await queue.refer(TOLD)).id
    await queue.decide(id, approve=False, by="ada")
    with pytest.raises(EscalationDecided, match="refused already"):
        await queue.decide(id, approve=True, by="bob")
    with pytest.raises(EscalationNotFound):
        await queue.decide("esc_none", approve=True, by="bob")
    with pytest.raises(EscalationNotFound):
        await queue.get("esc_none")


async def test_old_ones_are_forgotten(queue: Escalations, clock: Clock) -> None:
    id = (await queue.refer(TOLD)).id
    clock.now += 3600 + module.KEPT_SECONDS + 1
    await queue.refer(msgspec.structs.replace(TOLD, fingerprint="new"))
    with pytest.raises(EscalationNotFound):
        await queue.get(id)


async def test_the_queue_is_bounded(queue: Escalations, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PENDING", 1)
    await queue.refer(TOLD)
    with pytest.raises(QueueFull):
        await queue.refer(msgspec.structs.replace(TOLD, fingerprint="other"))
    assert (await queue.refer(TOLD)).state == "pending"


class Source:
    """What the API's answers are made of."""

    def __init__(self, run_folder: Path, store: Store | None) -> None:
        self.run_folder = run_folder
        self.opened = store

    def status(self, now: float) -> dict[str, Any]:
        return {}

    def store(self) -> Store | None:
        return self.opened


@pytest.fixture
async def source(tmp_path: Path, store: Store) -> AsyncIterator[Source]:
    folder = tmp_path / "state" / "run-1"
    folder.mkdir()
    one = Source(folder, store)
    async with serving(plane_of(one)):
        yield one


@pytest.fixture
async def http(source: Source) -> AsyncIterator[aiohttp.ClientSession]:
    token = api_token(source.run_folder.parent)
    connector = aiohttp.UnixConnector(str(source.run_folder / "control.sock"))
    headers = {"Authorization": f"Bearer {token}"}
    async with aiohttp.ClientSession("http://control", connector=connector, headers=headers) as session:
        yield session


async def refer(http: aiohttp.ClientSession, told: Referral = TOLD) -> tuple[int, Any]:
    async with http.post(PATH, data=msgspec.json.encode(told), headers={"Authorization": ""}) as answer:
        return answer.status, await answer.json() if answer.status == 200 else None


async def test_the_whole_way_by_http(http: aiohttp.ClientSession) -> None:
    status, waiting = await refer(http)
    assert (status, waiting["state"]) == (200, "pending")
    id = waiting["id"]
    async with http.get("/api/v1/escalations?state=pending") as answer:
        (row,) = (await answer.json())["data"]
    assert (row["id"], row["state"], row["key_name"], row["text"]) == (id, "pending", "dev", None)
    async with http.post(f"/api/v1/escalations/{id}/approve", json={"note": "fine", "by": "ada"}) as answer:
        assert (answer.status, (await answer.json())["decided_by"]) == (200, "ada")
    async with http.post(f"/api/v1/escalations/{id}/refuse") as answer:
        assert answer.status == 409
        assert "approved already" in (await answer.json())["error"]["message"]
    assert await refer(http) == (200, {"state": "approved", "id": id})
    async with http.get(f"/api/v1/escalations/{id}") as answer:
        assert (await answer.json())["state"] == "used"


@pytest.mark.parametrize("given", ["", "Bearer wrong", "Basic wrong", "Bearer \u00e9"])
@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("GET", "/esc_1"), ("POST", "/esc_1/approve")])
async def test_whoever_has_no_token_is_nobody(http: aiohttp.ClientSession, given: str, method: str, path: str) -> None:
    async with http.request(method, f"/api/v1/escalations{path}", headers={"Authorization": given}) as answer:
        assert answer.status == 401
        assert (await answer.json())["error"]["code"] == "not_signed_in"


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/esc_none", b"", 404),
        ("POST", "/esc_none/approve", b"", 404),
        ("POST", "/esc_none/approve", b"no", 400),
        ("POST", "/esc_none/approve", b"[]", 400),
        ("POST", "/esc_none/approve", b'{"note": 1}', 400),
        ("POST", "/esc_none/burn", b"", 404),
        ("GET", "?state=odd", b"", 400),
    ],
)
async def test_wrong_requests(http: aiohttp.ClientSession, method: str, path: str, body: bytes, status: int) -> None:
    async with http.request(method, f"/api/v1/escalations{path}", data=body) as answer:
        assert answer.status == status


async def test_without_the_store(http: aiohttp.ClientSession, source: Source) -> None:
    source.opened = None
    assert (await refer(http))[0] == 503
    async with http.get("/api/v1/escalations") as answer:
        assert answer.status == 503


async def test_a_referral_that_cannot_be_read(http: aiohttp.ClientSession) -> None:
    async with http.post(PATH, data=b"{}") as answer:
        assert answer.status == 503


def test_the_token_is_made_once_and_for_its_user_only(tmp_path: Path) -> None:
    token = api_token(tmp_path)
    assert token.startswith("kt_api_")
    assert api_token(tmp_path) == token
    assert stat.S_IMODE((tmp_path / "api-token").stat().st_mode) == 0o600
