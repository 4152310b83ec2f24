"""The control process as it really runs: a process of its own, killed, stopped, locked out."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from gateway.control.app import only_one
from gateway.control.rollout import wait_until_applied
from gateway.control.store.records import KeyScope
from gateway.control.store.store import Store
from gateway.key_log import Mark, encode_lines, log_path
from gateway.key_usage import KeyUsage
from gateway.keyring import Keyring, WorkerSlots, WorkerState

PATIENCE = 20.0


class ControlProcess:
    """`python -m gateway.control.app`, and its log."""

    def __init__(self, run_folder: Path, url: str) -> None:
        self._log = run_folder / "control.log"
        with self._log.open("ab") as log:
            command = [sys.executable, "-m", "gateway.control.app", str(run_folder)]
            self.process = subprocess.Popen(command, stderr=log, env={**os.environ, "KT_STORE_URL": url})

    def lines(self) -> list[dict[str, Any]]:
        return [orjson.loads(line) for line in self._log.read_bytes().splitlines()]

    def events(self) -> list[str]:
        return [line["event"] for line in self.lines()]

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "state" / "run-41002"
    folder.mkdir(parents=True, mode=0o700)
    return folder


@pytest.fixture
def start(run_folder: Path, url: str) -> Iterator[Callable[[], ControlProcess]]:
    started: list[ControlProcess] = []

    def begin() -> ControlProcess:
        started.append(ControlProcess(run_folder, url))
        return started[-1]

    yield begin
    for control in started:
        if control.process.poll() is None:
            control.process.kill()
            control.process.wait()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 (another process makes it true)
            await asyncio.sleep(0.01)


async def until_loaded(ring: Keyring, revision: int) -> None:
    def reached() -> bool:
        ring.load(time.time())
        return ring.revision >= revision

    await until(reached)


@contextlib.asynccontextmanager
async def client(run_folder: Path) -> AsyncIterator[aiohttp.ClientSession]:
    socket = run_folder / "control.sock"
    await until(socket.exists)
    connector = aiohttp.UnixConnector(str(socket))
    async with aiohttp.ClientSession("http://gateway", connector=connector) as session:
        yield session


async def test_keys_reach_another_process(start: Callable[[], ControlProcess], run_folder: Path, url: str) -> None:
    start()
    ring = Keyring(log_path(run_folder))
    await until_loaded(ring, 0)
    store = await Store.open(url)
    new = await store.create_key(KeyScope(name="a"))
    await until_loaded(ring, 1)
    assert ring.get(new.record.key.hash) == new.record.key
    revoked = await store.revoke_key("a")
    await until_loaded(ring, 2)
    assert ring.get(new.record.key.hash) == revoked.key
    await store.close()


async def test_killed_in_the_middle_of_a_line_and_started_again(
    start: Callable[[], ControlProcess], run_folder: Path, url: str
) -> None:
    control = start()
    ring = Keyring(log_path(run_folder))
    await until_loaded(ring, 0)
    store = await Store.open(url)
    kept = (await store.create_key(KeyScope(name="kept"))).record.key
    await until_loaded(ring, 1)
    control.end(signal.SIGKILL)
    with log_path(run_folder).open("ab") as file:
        file.write(encode_lines([Mark(77)])[:-3])
    gone = (await store.create_key(KeyScope(name="later"))).record.key
    await store.revoke_key("kept")
    ring.load(time.time())
    assert ring.revision == 1
    assert ring.get(kept.hash) == kept
    start()
    await until_loaded(ring, 3)
    assert ring.get(gone.hash) == gone
    revoked = ring.get(kept.hash)
    assert revoked is not None
    assert revoked.revoked_at is not None
    await store.close()


async def test_a_store_locked_from_the_start_is_waited_for(
    start: Callable[[], ControlProcess], run_folder: Path, url: str
) -> None:
    await (await Store.open(url)).close()
    holder = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
    holder.execute("PRAGMA locking_mode = EXCLUSIVE")
    holder.execute("BEGIN EXCLUSIVE")
    control = start()
    await until(lambda: "keys cannot be told; those that are known stay in force" in control.events())
    assert not log_path(run_folder).exists()
    holder.close()
    await until(log_path(run_folder).exists)
    assert control.process.poll() is None
    assert control.end() == 0


async def test_it_answers_on_a_socket_for_this_user_only(
    start: Callable[[], ControlProcess], run_folder: Path, url: str
) -> None:
    control = start()
    slots = WorkerSlots(run_folder, 0)
    async with client(run_folder) as session:
        slots.publish(state=WorkerState.READY, keys_revision=0, configuration="ab" * 32, heartbeat=time.time())
        assert stat.S_IMODE((run_folder / "control.sock").stat().st_mode) == 0o600
        async with session.get("/api/v1/status") as answer:
            assert (answer.status, answer.content_type) == (200, "application/json")
            assert await answer.json() == {
                "keys": {"revision": 0, "store": "ok"},
                "configurations": {"version": None, "reload_failed": False},
                "workers": [
                    {
                        "worker": 0,
                        "pid": os.getpid(),
                        "state": "ready",
                        "live": True,
                        "keys_revision": 0,
                        "configuration": "abababababab",
                    }
                ],
            }
        async with session.get("/metrics") as answer:
            assert answer.status == 200
            assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        async with session.post("/metrics") as answer:
            assert answer.status == 405
            assert "GET" in answer.headers["Allow"]
            assert (await answer.json())["error"]["code"] == "method_not_allowed"
        async with session.get("/api/v1/nothing", headers={"x-request-id": "req_1"}) as answer:
            assert answer.status == 404
            error = (await answer.json())["error"]
            assert (error["code"], error["request_id"]) == ("not_found", "req_1")
    assert control.end() == 0
    assert not (run_folder / "control.sock").exists()
    assert {line["level"] for line in control.lines()} == {"info"}


async def test_use_of_keys_is_in_the_store_when_it_stops(
    start: Callable[[], ControlProcess], run_folder: Path, url: str
) -> None:
    store = await Store.open(url)
    key = (await store.create_key(KeyScope(name="a"))).record.key
    control = start()
    usage = KeyUsage(run_folder, 0)
    used_at = time.time()
    usage.count(key, used_at)
    usage.count(key, used_at + 1)
    async with client(run_folder):
        assert control.end() == 0
    record = await store.get_key("a")
    assert (record.request_count, record.last_used_at) == (2, used_at + 1)
    await store.close()


async def test_only_one_serves_a_run_folder(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.control.app.LOCK_SECONDS", 0.02)
    async with only_one(run_folder):
        with pytest.raises(TimeoutError):
            async with only_one(run_folder):
                pass
    monkeypatch.setattr("gateway.control.app.LOCK_SECONDS", PATIENCE)
    async with only_one(run_folder):
        waiting = asyncio.create_task(take_turn(run_folder))
        await asyncio.sleep(0)
        assert not waiting.done()
    await waiting


async def take_turn(run_folder: Path) -> None:
    async with only_one(run_folder):
        pass


async def test_it_ends_with_its_parent(run_folder: Path, url: str) -> None:
    command = [sys.executable, "-m", "gateway.control.app", str(run_folder)]
    program = f"import subprocess; print(subprocess.Popen({command!r}, stdout=2).pid, flush=True); input()"
    pipe, nowhere = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    environment = {**os.environ, "KT_STORE_URL": url}
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdin=pipe, stdout=pipe, stderr=nowhere, env=environment
    )
    assert parent.stdout is not None
    pid = int(await parent.stdout.readline())
    try:
        async with client(run_folder):
            parent.kill()
            await parent.wait()
        await until(lambda: not runs(pid))
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        raise


def runs(pid: int) -> bool:
    """Whether it does; a zombie that nobody reaps does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_a_change_is_waited_for_until_every_worker_has_it(
    start: Callable[[], ControlProcess], run_folder: Path, url: str
) -> None:
    start()
    rings = [Keyring(log_path(run_folder)) for _ in range(2)]
    slots = [WorkerSlots(run_folder, number) for number in range(2)]
    for ring in rings:
        await until_loaded(ring, 0)
    stopping = asyncio.Event()

    async def work(number: int) -> None:
        while not stopping.is_set():
            rings[number].load(time.time())
            slots[number].publish(state=WorkerState.READY, keys_revision=rings[number].revision, heartbeat=time.time())
            await asyncio.sleep(0.01)

    workers = [asyncio.create_task(work(number)) for number in range(2)]
    store = await Store.open(url)
    new = await store.create_key(KeyScope(name="a"))
    state = run_folder.parent
    rollout = await asyncio.to_thread(wait_until_applied, state, store.id, new.record.revision, seconds=PATIENCE)
    assert ([one.port for one in rollout.gateways], rollout.lagging) == ([41002], [])
    assert [ring.get(new.record.key.hash) for ring in rings] == [new.record.key] * 2
    stopping.set()
    await asyncio.gather(*workers)
    await store.close()
