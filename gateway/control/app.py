"""The control process: owns the store, feeds keys to the workers, answers `/metrics` and `/api`.

One runs beside the workers of each gateway. Traffic does not depend on it: if it dies, workers go on with the keys they
have, and the next one begins the feed anew. Workers wait for their first keys, so these are told before SQLAlchemy and
aiohttp are loaded: 0.15 s after the start of the process instead of 0.6.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import importlib
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from gateway.control.feed import Feed, KeyLog
from gateway.control.roster import Roster
from gateway.control.store.errors import StoreError
from gateway.key_log import log_path
from gateway.key_usage import UsageReader
from gateway.keyring import WorkerSlots, WorkerStatus
from gateway.logs import configure
from gateway.run_file import RunFile, read_run_file
from gateway.types import GatewayKey

if TYPE_CHECKING:
    from gateway.control.rest.call import Plane
    from gateway.control.store.store import Store

USAGE_SECONDS: Final = 5.0
"""How old the last use of a key may be in the store."""

PARENT_SECONDS: Final = 0.5
LOCK_SECONDS: Final = 5.0
"""How long to wait for an earlier control process of this run folder to end. It looks for its parent more often."""

log = logging.getLogger("gateway.control")


class Control:
    """The control process of one gateway."""

    def __init__(self, run_folder: Path, store_url: str, workers: int = 1) -> None:
        self.run_folder = run_folder
        self._workers = workers
        self._roster = Roster()
        self._owners: dict[int, GatewayKey] = {}
        self._key_log = KeyLog(log_path(run_folder))
        self._feed = Feed(store_url, self._key_log, self._note_owners)
        self._usage = UsageReader(run_folder)

    async def run(self, stopping: asyncio.Event) -> None:
        """Work until `stopping` is set."""
        self._feed.begin()
        await self._feed.step(create=True)
        async with asyncio.TaskGroup() as tasks:
            jobs = [
                tasks.create_task(job)
                for job in (
                    self._feed.run(),
                    self._keep_usage(),
                    self._keep_limits(),
                    self._export_telemetry(),
                    self._serve(),
                )
            ]
            await stopping.wait()
            for job in jobs:
                job.cancel()
        await self._store_usage()
        await self._feed.close()
        self._usage.close()
        self._key_log.close()

    def status(self, now: float) -> dict[str, Any]:
        """What `/api/v1/status` shows. Nobody signs in for it yet, so: no path, no name of a key, no error text."""
        workers = WorkerSlots.read(self.run_folder)
        return {
            "keys": {"revision": self._feed.revision, "store": "unavailable" if self._feed.fault else "ok"},
            "configurations": self._configurations(),
            "workers": [_worker_row(worker, now) for worker in workers],
        }

    def store(self) -> Store | None:
        """The store; None while it cannot be used."""
        return self._feed.store

    def _configurations(self) -> dict[str, Any]:
        try:
            run_file = read_run_file(self.run_folder)
        except (OSError, msgspec.DecodeError):
            return {"version": None, "reload_failed": False}
        return {"version": run_file.version[:12], "reload_failed": run_file.error is not None}

    async def _serve(self) -> None:
        # In a thread: to import aiohttp takes 0.2 s, in which keys must go on.
        api = await asyncio.to_thread(importlib.import_module, "gateway.control.api")
        try:
            plane = api.plane_of(self, reload=_ask_for_reload)
            async with api.serving(plane):
                await self._keep_house(plane)
        except OSError as error:
            log.error("the control process cannot be reached; keys go on", extra={"reason": str(error)})

    async def _keep_house(self, plane: Plane) -> None:
        """What people do over the API comes into force and into the audit log; until cancelled."""
        from gateway.control import setup_link
        from gateway.control.trail import TrailRecorder

        trail = TrailRecorder(self.run_folder, self.store)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(plane.keeper.run())
                tasks.create_task(trail.run())
                tasks.create_task(plane.events.run())
                tasks.create_task(setup_link.announce(self.store, lambda: plane.settings.base_url))
        finally:
            await trail.close()

    async def _keep_limits(self) -> None:
        """Money and limits, here and with other machines; until cancelled."""
        accounts = await asyncio.to_thread(importlib.import_module, "gateway.control.accounts")
        try:
            await accounts.keep(self.run_folder, self._workers, self.store, self._roster)
        except OSError as error:
            log.error("limits are kept by each worker alone", extra={"reason": str(error)})

    async def _export_telemetry(self) -> None:
        """Where `gateway.telemetry` asks for it; until cancelled."""
        telemetry = await asyncio.to_thread(importlib.import_module, "gateway.control.telemetry")
        await telemetry.keep(self.run_folder)

    def _note_owners(self, keys: Sequence[GatewayKey]) -> None:
        self._roster.note_keys(keys)
        for key in keys:
            if key.slot >= 0:
                self._owners[key.slot] = key

    async def _keep_usage(self) -> None:
        while True:
            await asyncio.sleep(USAGE_SECONDS)
            await self._store_usage()

    async def _store_usage(self) -> None:
        """Bring what workers counted into the store; what cannot be stored now stays counted for the next time."""
        store = self._feed.store
        if store is None:
            return
        try:
            await store.touch(self._usage.collect(self._owners))
        except (StoreError, OSError) as error:
            log.warning("use of keys cannot be stored", extra={"reason": str(error)})
        else:
            self._usage.confirm()


def _ask_for_reload() -> None:
    """The supervisor reads the configurations again at once."""
    os.kill(os.getppid(), signal.SIGHUP)


def _worker_row(worker: WorkerStatus, now: float) -> dict[str, Any]:
    return {
        "worker": worker.worker,
        "pid": worker.pid,
        "state": worker.state.name.lower(),
        "live": worker.is_live(now),
        "keys_revision": worker.keys_revision,
        "configuration": worker.configuration,
    }


@contextlib.asynccontextmanager
async def only_one(run_folder: Path) -> AsyncIterator[None]:
    """Hold the run folder against another control process. Raises TimeoutError when there is one that does not end."""
    descriptor = os.open(run_folder / "control.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        async with asyncio.timeout(LOCK_SECONDS):
            while not _lock(descriptor):  # noqa: ASYNC110 (another process has it)
                await asyncio.sleep(0.05)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


async def _main(run_folder: Path, store_url: str, workers: int) -> None:
    parent = os.getppid()
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)

    def look_for_parent() -> None:
        if os.getppid() != parent:
            stopping.set()  # nobody would stop us any more
        loop.call_later(PARENT_SECONDS, look_for_parent)

    look_for_parent()
    async with only_one(run_folder):
        await Control(run_folder, store_url, workers).run(stopping)


def _log_settings(run_folder: Path) -> RunFile:
    try:
        return read_run_file(run_folder)
    except (OSError, msgspec.DecodeError):
        return RunFile("", ())


def main(arguments: list[str] = sys.argv[1:]) -> None:
    """Entry point of the process: `python -m gateway.control.app RUN_FOLDER [WORKERS]`; store: `$KT_STORE_URL`."""
    run_folder, store_url = Path(arguments[0]), os.environ["KT_STORE_URL"]
    workers = int(arguments[1]) if len(arguments) > 1 else 1
    os.umask(0o077)  # whatever is made here, the socket above all, is for this user only
    settings = _log_settings(run_folder)
    logs = configure(settings.log_level, "text" if settings.log_format == "text" else "json", sys.stderr)
    try:
        asyncio.run(_main(run_folder, store_url, workers))
    except TimeoutError:
        log.error("another control process holds the run folder", extra={"run_folder": str(run_folder)})
        sys.exit(1)
    finally:
        logs.close()


if __name__ == "__main__":
    main()
