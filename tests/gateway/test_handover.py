"""A handover without a gateway: sockets that go round, the word that is passed, windows that are copied."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from gateway.folders import other_run_folder, port_of
from gateway.handover import Listeners, bequest, copy_windows, inherit, notify_manager, said_ready
from gateway.slots import SlotFile

HOST = "127.0.0.1"


def bound() -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind((HOST, 0))
    return sock


def test_inherited_sockets_go_round_and_a_worker_without_gets_a_new_one() -> None:
    sockets = tuple(bound() for _ in range(3))
    numbers = tuple(sock.fileno() for sock in sockets)
    port = sockets[0].getsockname()[1]
    two = Listeners(HOST, port, 2, sockets)
    assert (two.of(0), two.of(1)) == ((numbers[0], numbers[2]), (numbers[1],))
    assert sorted(two.all()) == sorted(numbers)
    four = Listeners(HOST, port, 4, tuple(socket.socket(fileno=os.dup(number)) for number in numbers[:1]))
    assert [len(four.of(worker)) for worker in range(4)] == [1, 1, 1, 1]
    two.close()
    four.close()


def test_the_sockets_of_a_dead_worker_refuse_and_the_next_ones_do_not() -> None:
    with bound() as reserved:
        port = reserved.getsockname()[1]
        listeners = Listeners(HOST, port, 1)
        (first,) = listeners.of(0)
        with socket.socket(fileno=os.dup(first)) as worker:
            worker.listen()
            socket.create_connection((HOST, port)).close()
        listeners.renew(0)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((HOST, port))
        (second,) = listeners.of(0)
        with socket.socket(fileno=os.dup(second)) as worker:
            worker.listen()
            socket.create_connection((HOST, port)).close()
        listeners.close()


def test_the_word_is_passed_once() -> None:
    reading, writing = os.pipe()
    with bound() as sock:
        environ = bequest(writing, (os.dup(sock.fileno()),))
        inheritance = inherit(environ)
        assert environ == {}
        assert inheritance is not None
        assert inheritance.sockets[0].getsockname() == sock.getsockname()
        assert not os.get_inheritable(inheritance.sockets[0].fileno())
        inheritance.tell_ready()
        assert said_ready(reading)
        assert not said_ready(reading), "the writer has closed its end"
        inheritance.sockets[0].close()
    os.close(reading)
    assert inherit({}) is None


def test_windows_are_copied_and_their_holes_stay_holes(tmp_path: Path) -> None:
    source, target = tmp_path / "run-1", tmp_path / "run-1-b"
    source.mkdir()
    file = SlotFile(source / "limits-v1-w1-0.slots", 1 << 20)
    file.cells[3] = 1.5
    file.cells[(1 << 20) - 2] = 2.5
    file.close()
    target.mkdir()
    (target / "limits-v1-w9-0.slots").write_bytes(b"of an older run")
    copy_windows(source, target)
    (path,) = target.iterdir()
    copy = SlotFile(path, 1 << 20)
    assert (copy.cells[3], copy.cells[(1 << 20) - 2], sum(copy.cells[:3])) == (1.5, 2.5, 0)
    copy.close()
    assert path.stat().st_size == 8 << 20
    assert path.stat().st_blocks * 512 < 1 << 20


def test_the_run_folders_of_a_port_take_turns(tmp_path: Path) -> None:
    first = tmp_path / "run-41002"
    second = other_run_folder(first)
    assert second.name == "run-41002-b"
    assert other_run_folder(second) == first
    assert port_of(first) == port_of(second) == 41002
    assert port_of(tmp_path / "run-away") is None


def test_a_service_manager_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify_manager("READY=1")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        notify_manager("READY=1\nMAINPID=7")
        assert manager.recv(100) == b"READY=1\nMAINPID=7"
    notify_manager("STOPPING=1")  # a manager that is gone is no reason to fail
