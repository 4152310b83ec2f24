"""Work beside the loop: results, errors, and threads that hang."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from queue import Queue
from typing import Any

import pytest

from gateway.threads import HANGS_SECONDS, MAX_GIVEN_UP, Threads
from tests.playbook import Clock


class Beside:
    """Threads whose loop is the test itself: what is handed over waits in `told`."""

    def __init__(self) -> None:
        self.clock = Clock(0.0)
        self.told: Queue[tuple[Callable[[Any], None], Any]] = Queue()
        self.threads = Threads(lambda then, result: self.told.put((then, result)), self.clock, 2)

    def next(self) -> Any:
        then, result = self.told.get(timeout=20)
        then(result)
        return result

    def hang(self, free: threading.Event) -> None:
        """One thread is at work that does not come back."""
        began = threading.Event()

        def work() -> bool:
            began.set()
            return free.wait()

        self.threads.run(work, lambda result: None)
        assert began.wait(20)


@pytest.fixture
def beside() -> Iterator[Beside]:
    made = Beside()
    yield made
    made.threads.close()


@pytest.fixture
def free() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


def test_a_result_and_an_error(beside: Beside) -> None:
    heard: list[Any] = []
    beside.threads.run(lambda: 1 + 1, heard.append)
    assert beside.next() == 2
    beside.threads.run(lambda: 1 / 0, heard.append)
    assert isinstance(beside.next(), ZeroDivisionError)
    assert heard[0] == 2


def test_threads_that_hang_are_replaced(beside: Beside, free: threading.Event) -> None:
    for _ in range(2):
        beside.hang(free)
    beside.threads.run(lambda: "late", lambda result: None)
    assert beside.threads.look() == 0
    beside.clock.now += HANGS_SECONDS + 0.1
    assert beside.threads.look() == 2
    assert beside.next() == "late"
    assert beside.threads.look() == 0
    free.set()
    assert beside.next() is beside.next() is True  # what they say in the end is handed over all the same
    beside.threads.run(lambda: "more", lambda result: None)
    assert beside.next() == "more"


def test_only_so_many_are_given_up(beside: Beside, free: threading.Event) -> None:
    for _ in range(MAX_GIVEN_UP + 1):
        beside.hang(free)
        beside.clock.now += HANGS_SECONDS + 0.1
        beside.threads.look()
    assert beside.threads.given_up == MAX_GIVEN_UP
    beside.threads.run(lambda: "the last", lambda result: None)
    assert beside.next() == "the last"
