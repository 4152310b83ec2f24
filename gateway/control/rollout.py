"""Whether a change of the store is in force: which gateways of this machine use the store, and what they have applied.

It reads what gateways leave in their run folders and asks nobody, so it works without the control process too, and for
a user who may read the state folder.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from gateway.folders import port_of
from gateway.key_log import log_path, read_header
from gateway.keyring import WorkerSlots, WorkerStatus

WAIT_SECONDS: Final = 1.5
"""A change is in force within one second, or something is wrong."""

_LOOK_SECONDS: Final = 0.01


class RunningGateway(NamedTuple):
    """A gateway with live workers."""

    run_folder: Path
    port: int
    workers: tuple[WorkerStatus, ...]


class Rollout(NamedTuple):
    """How far a change has come: `gateways` use the store, and on `lagging` some worker has not applied it."""

    gateways: list[RunningGateway]
    lagging: list[RunningGateway]


def running_gateways(state_folder: Path, store_id: str, now: float) -> list[RunningGateway]:
    """The gateways with this state folder that serve keys of this store at `now`, Unix seconds."""
    found = []
    for run_folder in sorted(state_folder.glob("run-*")):
        header = read_header(log_path(run_folder))
        port = port_of(run_folder)
        if header is None or header.store != store_id or port is None:
            continue
        workers = tuple(one for one in WorkerSlots.read(run_folder) if one.state.serves and one.is_live(now))
        if workers:
            found.append(RunningGateway(run_folder, port, workers))
    return found


def wait_until_applied(
    state_folder: Path,
    store_id: str,
    revision: int,
    *,
    seconds: float = WAIT_SECONDS,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
) -> Rollout:
    """Wait until every worker has applied the revision, for at most `seconds`."""
    deadline = clock() + seconds
    while True:
        now = clock()
        gateways = running_gateways(state_folder, store_id, now)
        lagging = [one for one in gateways if any(worker.keys_revision < revision for worker in one.workers)]
        if not lagging or now >= deadline:
            return Rollout(gateways, lagging)
        sleep(_LOOK_SECONDS)
