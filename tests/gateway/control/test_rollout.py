"""Who has a change in force: gateways are told by their run folders alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.control.feed import KeyLog
from gateway.control.rollout import running_gateways, wait_until_applied
from gateway.key_log import log_path
from gateway.keyring import WorkerSlots, WorkerState

NOW = 1_750_000_000.0


def gateway(
    state: Path, port: int, *applied: int, store: str = "mine", worker: WorkerState = WorkerState.READY
) -> Path:
    folder = state / f"run-{port}"
    folder.mkdir()
    KeyLog(log_path(folder)).begin(store, 1, [])
    for number, revision in enumerate(applied):
        WorkerSlots(folder, number).publish(state=worker, keys_revision=revision, heartbeat=NOW)
    return folder


def test_only_gateways_of_this_store_with_live_workers_count(tmp_path: Path) -> None:
    gateway(tmp_path, 1001, 1, 1)
    gateway(tmp_path, 1002, 1, store="other")
    gateway(tmp_path, 1003)
    gateway(tmp_path, 1004, 1, worker=WorkerState.STOPPED)
    gateway(tmp_path, 1005, 1, worker=WorkerState.STARTING)
    gateway(tmp_path, 1006, 1, worker=WorkerState.DRAINING)
    (tmp_path / "run-1007").mkdir()
    gateway(tmp_path, 1008, 1).rename(tmp_path / "run-backup")
    found = running_gateways(tmp_path, "mine", NOW)
    assert [(one.port, len(one.workers)) for one in found] == [(1001, 2), (1006, 1)]
    assert running_gateways(tmp_path, "mine", NOW + 60) == []
    assert running_gateways(tmp_path / "nowhere", "mine", NOW) == []


@pytest.mark.parametrize("late", [True, False])
def test_the_wait_ends_with_the_last_worker_or_with_patience(late: bool, tmp_path: Path) -> None:
    folder = gateway(tmp_path, 1001, 2)
    slots = WorkerSlots(folder, 1)
    slots.publish(state=WorkerState.READY, keys_revision=1, heartbeat=NOW)
    now = NOW
    sleeps = 0

    def sleep(seconds: float) -> None:
        nonlocal now, sleeps
        now += seconds
        sleeps += 1
        if sleeps == 5 and not late:
            slots.publish(keys_revision=2)

    rollout = wait_until_applied(tmp_path, "mine", 2, seconds=1.0, clock=lambda: now, sleep=sleep)
    assert [one.port for one in rollout.gateways] == [1001]
    assert [one.port for one in rollout.lagging] == ([1001] if late else [])
    assert now - NOW < 1.1
    assert late or sleeps == 5


def test_where_no_gateway_runs_nothing_is_waited_for(tmp_path: Path) -> None:
    def sleep(_: float) -> None:
        raise AssertionError

    assert wait_until_applied(tmp_path, "mine", 2, sleep=sleep) == ([], [])
