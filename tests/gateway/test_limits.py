"""Limits: exact numbers by hand, then against a naive model, then with clocks that jump and processes that die."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway import limits as limits_module
from gateway.allowances import PLACES
from gateway.errors import RateLimited
from gateway.limits import SLOTS_PER_FILE, Hold, Limits
from gateway.types import Scope

ROOT = Path(limits_module.__file__).parents[1]
T = 1_700_000_000.0


def key(
    id: str = "key-1",
    slot: int = 3,
    *,
    rpm: int | None = None,
    tpm: int | None = None,
    concurrency: int | None = None,
) -> Scope:
    return Scope("key", id, "dev", slot, rpm, tpm, concurrency)


@pytest.fixture
def limits(tmp_path: Path) -> Iterator[Limits]:
    limits = Limits(tmp_path, 0, 1)
    yield limits
    limits.close()


def admit(limits: Limits, key: Scope, tokens: int = 0, now: float = T) -> Hold:
    hold = limits.admit((key,), 0, tokens, now)
    assert hold is not None
    return hold


def refuse(limits: Limits, key: Scope, tokens: int = 0, now: float = T) -> RateLimited:
    with pytest.raises(RateLimited) as caught:
        limits.admit((key,), 0, tokens, now)
    return caught.value


def headers_of(source: Hold | RateLimited) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in source.headers}


def allocated(folder: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in folder.iterdir())


# By hand


def test_a_key_without_limits_costs_nothing(tmp_path: Path, limits: Limits) -> None:
    before = allocated(tmp_path)
    for _ in range(100):
        assert limits.admit((), 0, 1000, T) is None
    assert allocated(tmp_path) == before


def test_requests_per_minute(limits: Limits) -> None:
    three = key(rpm=3)
    assert headers_of(admit(limits, three, now=T + 0.25)) == {
        "x-ratelimit-limit-requests": "3",
        "x-ratelimit-remaining-requests": "2",
        "x-ratelimit-reset-requests": "59.750s",
    }
    admit(limits, three, now=T + 10)
    assert headers_of(admit(limits, three, now=T + 20))["x-ratelimit-remaining-requests"] == "0"
    error = refuse(limits, three, now=T + 20.5)
    assert (
        error.message
        == "Rate limit of gateway key 'dev' reached: 3 of 3 requests per minute are used. Try again in 40 s."
    )
    assert headers_of(error) == {
        "retry-after": "40",
        "x-ratelimit-limit-requests": "3",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "59.500s",
    }
    refuse(limits, three, now=T + 59.999)
    admit(limits, three, now=T + 60)
    refuse(limits, three, now=T + 69.999)
    admit(limits, three, now=T + 70)


def test_a_client_that_keeps_the_pace_is_never_refused(limits: Limits) -> None:
    sixty = key(rpm=60)
    for second in range(300):
        admit(limits, sixty, now=T + second + 0.5)


def test_tokens_per_minute(limits: Limits) -> None:
    thousand = key(tpm=1000)
    assert headers_of(admit(limits, thousand, 600)) == {
        "x-ratelimit-limit-tokens": "1000",
        "x-ratelimit-remaining-tokens": "400",
        "x-ratelimit-reset-tokens": "60.000s",
    }
    error = refuse(limits, thousand, 401, now=T + 5)
    assert "600 of 1000 tokens per minute are used and this request needs 401" in error.message
    assert headers_of(error)["retry-after"] == "55"
    assert headers_of(error)["x-ratelimit-remaining-tokens"] == "400"
    assert headers_of(admit(limits, thousand, 400, now=T + 5))["x-ratelimit-remaining-tokens"] == "0"
    refuse(limits, thousand, 0, now=T + 5)


def test_the_wait_is_for_as_many_tokens_as_are_needed(limits: Limits) -> None:
    thousand = key(tpm=1000)
    for second in range(10):
        admit(limits, thousand, 100, now=T + second)
    assert headers_of(refuse(limits, thousand, 100, now=T + 10))["retry-after"] == "50"
    assert headers_of(refuse(limits, thousand, 101, now=T + 10))["retry-after"] == "51"
    assert headers_of(refuse(limits, thousand, 1000, now=T + 10))["retry-after"] == "59"


def test_the_longest_wait_counts(limits: Limits) -> None:
    both = key(rpm=1, tpm=1000)
    admit(limits, both, 0, now=T).settle(1000, T + 30)
    error = refuse(limits, both, 500, now=T + 40)
    assert "tokens per minute" in error.message
    assert headers_of(error)["retry-after"] == "50"


def test_tokens_reserved_in_vain_are_given_back_to_their_second(limits: Limits) -> None:
    thousand = key(tpm=1000)
    hold = admit(limits, thousand, 900)
    refuse(limits, thousand, 200, now=T + 3)
    hold.settle(100, T + 3)
    assert headers_of(admit(limits, thousand, 200, now=T + 3))["x-ratelimit-remaining-tokens"] == "700"
    assert headers_of(admit(limits, thousand, 0, now=T + 60))["x-ratelimit-remaining-tokens"] == "800"
    assert headers_of(admit(limits, thousand, 0, now=T + 63))["x-ratelimit-remaining-tokens"] == "1000"


def test_tokens_nobody_reserved_count_from_when_they_are_known(limits: Limits) -> None:
    thousand = key(tpm=1000)
    admit(limits, thousand, 100).settle(1500, T + 90)
    error = refuse(limits, thousand, 0, now=T + 91)
    assert headers_of(error)["x-ratelimit-remaining-tokens"] == "0"
    assert headers_of(error)["retry-after"] == "59"
    assert headers_of(admit(limits, thousand, 1000, now=T + 150))["x-ratelimit-remaining-tokens"] == "0"


def test_a_settlement_after_the_window_changes_nothing(limits: Limits) -> None:
    thousand = key(tpm=1000)
    hold = admit(limits, thousand, 900)
    admit(limits, thousand, 500, now=T + 80)
    hold.settle(0, T + 81)
    assert headers_of(admit(limits, thousand, 0, now=T + 81))["x-ratelimit-remaining-tokens"] == "500"


def test_the_reset_of_tokens_may_be_before_that_of_requests(limits: Limits) -> None:
    both = key(rpm=10, tpm=1000)
    assert headers_of(admit(limits, both, 0))["x-ratelimit-reset-tokens"] == "0.000s"
    admit(limits, both, 100)
    found = headers_of(admit(limits, both, 0, now=T + 59.5))
    assert found["x-ratelimit-reset-tokens"] == "0.500s"
    assert found["x-ratelimit-reset-requests"] == "59.500s"


def test_a_refund_takes_the_request_back_too(limits: Limits) -> None:
    one = key(rpm=1, tpm=1000)
    hold = admit(limits, one, 900)
    refuse(limits, one, now=T + 1)
    hold.refund()
    hold.release()
    assert headers_of(admit(limits, one, 1000, now=T + 1))["x-ratelimit-remaining-tokens"] == "0"


def test_concurrency(limits: Limits) -> None:
    two = key(concurrency=2)
    first, _ = admit(limits, two), admit(limits, two, now=T + 200)
    error = refuse(limits, two, now=T + 300)
    assert "2 of 2 concurrent requests are running" in error.message
    assert headers_of(error) == {"retry-after": "1"}
    first.release()
    admit(limits, two, now=T + 300)
    refuse(limits, two, now=T + 300)


def test_each_ending_acts_once_in_any_order(limits: Limits) -> None:
    one = key(tpm=1000, concurrency=1)
    hold = admit(limits, one, 500)
    assert repr(hold) == "<Hold of key-1: 500 tokens, charged, running>"
    hold.release()
    hold.release()
    hold.settle(400, T)
    hold.settle(0, T)
    hold.refund()
    assert repr(hold) == "<Hold of key-1: 500 tokens, settled, released>"
    again = admit(limits, one, 0)
    assert headers_of(again)["x-ratelimit-remaining-tokens"] == "600"
    again.refund()
    again.settle(600, T)
    assert headers_of(refuse(limits, one, 0))["x-ratelimit-remaining-tokens"] == "600"


def test_without_a_settlement_the_estimate_stands(limits: Limits) -> None:
    thousand = key(tpm=1000)
    admit(limits, thousand, 900).release()
    assert headers_of(admit(limits, thousand, 0))["x-ratelimit-remaining-tokens"] == "100"


@pytest.mark.parametrize(
    ("hopeless", "tokens", "words"),
    [
        (key(tpm=1000), 1001, "needs 1001 tokens, and the key allows 1000"),
        (key(rpm=0), 0, "allows no requests"),
        (key(concurrency=0), 0, "allows no requests"),
    ],
)
def test_what_no_waiting_can_help_must_not_be_retried(limits: Limits, hopeless: Scope, tokens: int, words: str) -> None:
    error = refuse(limits, hopeless, tokens)
    assert words in error.message
    assert headers_of(error)["x-should-retry"] == "false"
    assert "retry-after" not in headers_of(error)


def test_a_refused_request_is_not_charged(limits: Limits) -> None:
    both = key(rpm=5, tpm=100)
    for _ in range(20):
        refuse(limits, both, 101)
    assert headers_of(admit(limits, both, 100))["x-ratelimit-remaining-requests"] == "4"


# Keys come, change and go


def test_changed_limits_hold_at_once_for_what_was_used_before(limits: Limits) -> None:
    admit(limits, key(rpm=10), 700)
    assert headers_of(admit(limits, key(rpm=10, tpm=1000), 0))["x-ratelimit-remaining-tokens"] == "300"
    refuse(limits, key(rpm=2))
    refuse(limits, key(rpm=10, concurrency=2))


def test_a_slot_begins_anew_with_another_key(limits: Limits) -> None:
    old = admit(limits, key("old", rpm=1, tpm=100, concurrency=1), 100)
    new = key("new", rpm=1, tpm=100, concurrency=1)
    running = admit(limits, new, 50)
    old.settle(0, T)
    old.release()
    error = refuse(limits, new)
    assert headers_of(error)["x-ratelimit-remaining-tokens"] == "50"
    assert "1 of 1" in error.message
    running.release()
    running.refund()
    admit(limits, new, 100)


def test_another_worker_does_not_count_what_a_slot_held_before(tmp_path: Path) -> None:
    one, other = Limits(tmp_path, 0, 2), Limits(tmp_path, 1, 2)
    admit(one, key("old", rpm=1))
    admit(other, key("new", rpm=1))
    refuse(one, key("new", rpm=1))


def test_slots_far_apart_use_files_of_their_own(tmp_path: Path, limits: Limits) -> None:
    for slot in (0, SLOTS_PER_FILE - 1, SLOTS_PER_FILE, PLACES - 1):
        one = key(f"key-{slot}", slot, rpm=1)
        admit(limits, one)
        refuse(limits, one)
    assert len(list(tmp_path.glob("limits-*"))) == 3
    assert allocated(tmp_path) < 100_000


def test_a_key_beyond_the_table_is_limited_by_each_worker_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    far = key(slot=PLACES, rpm=1)
    one, other = Limits(tmp_path, 0, 2), Limits(tmp_path, 1, 2)
    admit(one, far)
    refuse(one, far)
    admit(other, far)
    assert [record.getMessage() for record in caplog.records] == ["limits are kept by this worker alone"] * 2


def test_many_keys_do_not_disturb_each_other(tmp_path: Path) -> None:
    workers = [Limits(tmp_path, number, 3) for number in range(3)]
    keys = [key(f"key-{slot}", slot, rpm=3, tpm=slot + 1) for slot in range(200)]
    for worker in workers:
        for one in keys:
            admit(worker, one, 0)
    for one in keys:
        found = headers_of(refuse(workers[one.place % 3], one, 1))
        assert found["x-ratelimit-remaining-tokens"] == str(one.place + 1)


@pytest.mark.parametrize(("worker", "workers"), [(-1, 1), (1, 1), (0, 0), (0, 513)])
def test_a_worker_must_be_one_of_the_workers(tmp_path: Path, worker: int, workers: int) -> None:
    with pytest.raises(ValueError):
        Limits(tmp_path, worker, workers)


def test_after_close_what_still_runs_counts_into_the_void(tmp_path: Path) -> None:
    limits = Limits(tmp_path, 0, 1)
    hold = admit(limits, key(rpm=1, tpm=10), 5)
    limits.close()
    hold.settle(0, T + 5)
    hold.release()
    assert headers_of(refuse(Limits(tmp_path, 0, 1), key(rpm=1, tpm=10), 1))["x-ratelimit-remaining-tokens"] == "5"


# Clocks


def test_a_clock_that_steps_back_a_little_stands_still(limits: Limits) -> None:
    two = key(rpm=2)
    admit(limits, two, now=T + 3)
    admit(limits, two, now=T)
    refuse(limits, two, now=T + 62.9)
    admit(limits, two, now=T + 63)


def test_a_clock_that_goes_back_far_neither_frees_nor_locks(limits: Limits) -> None:
    two = key(rpm=2, tpm=100)
    admit(limits, two, 30, now=T)
    admit(limits, two, 30, now=T + 10)
    error = refuse(limits, two, 30, now=T - 3600)
    assert headers_of(error)["retry-after"] == "60"
    assert headers_of(error)["x-ratelimit-remaining-tokens"] == "40"
    admit(limits, two, 100, now=T - 3540)


def test_a_clock_that_goes_forward_has_let_the_time_pass(limits: Limits) -> None:
    one = key(rpm=1)
    admit(limits, one, now=T)
    admit(limits, one, now=T + 86_400)
    refuse(limits, one, now=T + 86_459.9)


def test_an_idle_worker_that_lived_in_the_future_is_not_waited_for(tmp_path: Path) -> None:
    one, other = Limits(tmp_path, 0, 2), Limits(tmp_path, 1, 2)
    single = key(rpm=1)
    admit(other, single, now=T + 3600)
    admit(one, single, now=T)
    refuse(one, single, now=T)


def test_a_worker_slightly_ahead_counts(tmp_path: Path) -> None:
    one, other = Limits(tmp_path, 0, 2), Limits(tmp_path, 1, 2)
    for ahead in (1, 4, 5, 59):
        single = key(f"key-{ahead}", ahead, rpm=1)
        admit(other, single, now=T + ahead)
        refuse(one, single, now=T)
        admit(one, single, now=T + ahead + 60)


def test_a_worker_ahead_is_read_where_its_ring_still_knows(tmp_path: Path) -> None:
    one, other = Limits(tmp_path, 0, 2), Limits(tmp_path, 1, 2)
    few = key(rpm=3)
    for _ in range(3):
        admit(other, few, now=T - 1000)
    admit(other, few, now=T + 4)
    assert headers_of(admit(one, few, now=T))["x-ratelimit-remaining-requests"] == "1"
    admit(other, few, now=T + 20)
    assert headers_of(refuse(one, few, now=T))["x-ratelimit-remaining-requests"] == "0"


@pytest.mark.parametrize("later", [0, 5])
def test_no_more_is_given_back_than_a_second_was_charged(limits: Limits, later: int) -> None:
    thousand = key(tpm=1000)
    hold = admit(limits, thousand, 900)
    admit(limits, thousand, 0, now=T - 100)
    admit(limits, thousand, 0, now=T + later)
    hold.settle(0, T + later)
    assert headers_of(admit(limits, thousand, 0, now=T + later))["x-ratelimit-remaining-tokens"] == "1000"


JUMPS = st.one_of(st.floats(-8, 8), st.floats(-70, 70), st.floats(-4000, 4000))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), JUMPS, st.integers(0, 500)), max_size=40))
def test_whatever_clocks_do_counts_are_sane_and_two_quiet_minutes_free_everything(
    steps: list[tuple[int, float, int]],
) -> None:
    some = key(rpm=20, tpm=5000, concurrency=100)
    with tempfile.TemporaryDirectory() as folder:
        workers = [Limits(Path(folder), number, 3) for number in range(3)]
        holds: list[Hold] = []
        now = T
        for worker, jump, tokens in steps:
            now = T + jump
            with contextlib.suppress(RateLimited):
                holds.append(admit(workers[worker], some, tokens, now))
            assert 0 <= workers[worker]._rows[some.place].request_wait(1000, now) <= 64, (
                "a window and the clock's slack"
            )
            if len(holds) % 3 == 2:
                holds[len(holds) // 2].settle(tokens // 2, now + jump / 7)
            row = workers[worker]._rows[some.place]
            for charged in zip(*_curves(row.cells), strict=True):
                assert list(charged) == sorted(charged)
        for hold in holds:
            hold.release()
        for later in (130, 260):
            for limits in workers:
                with contextlib.suppress(RateLimited):
                    free = admit(limits, some, 0, now + later)
                    found = headers_of(free)
                    free.refund()
                    free.release()
            assert later == 130 or (
                found["x-ratelimit-remaining-requests"] == "19" and found["x-ratelimit-remaining-tokens"] == "5000"
            )
        for limits in workers:
            limits.close()


def _curves(cells: memoryview[float]) -> Iterator[tuple[float, float]]:
    """The marks in the order of time, then the total; of requests and of tokens."""
    second = int(cells[2])
    for mark in range(second - 63, second + 1):
        yield cells[8 + (mark & 63)], cells[72 + (mark & 63)]
    yield cells[4], cells[5]


# Against a naive model


@dataclass
class Charge:
    """What the model knows of one charge: when, and how much of it still counts."""

    second: int
    requests: int
    tokens: int


@dataclass
class Running:
    """An admitted request, and the model's charge for it."""

    hold: Hold
    charge: Charge
    worker: int
    settled: bool = False


RPM, TPM, CONCURRENCY, WORKERS = 8, 1000, 5, 3


class AgainstAModel(RuleBasedStateMachine):
    """Several workers on one file, one after the other, beside a list of charges that is summed up anew each time."""

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.workers = [Limits(Path(self.folder.name), number, WORKERS) for number in range(WORKERS)]
        self.key = key(rpm=RPM, tpm=TPM, concurrency=CONCURRENCY)
        self.now = T + 0.5
        self.charges: list[Charge] = []
        self.running: list[Running] = []

    def used(self, now: float) -> tuple[int, int]:
        window = [charge for charge in self.charges if charge.second > int(now) - 60]
        return sum(charge.requests for charge in window), sum(charge.tokens for charge in window)

    def fits(self, tokens: int, now: float) -> bool:
        requests, used = self.used(now)
        return requests < RPM and used + max(tokens, 1) <= TPM

    def wait(self, fits: Callable[[float], bool]) -> int:
        """Whole seconds from now until it fits, by trying each."""
        return next(seconds for seconds in range(62) if fits(self.now + seconds))

    @rule(seconds=st.sampled_from((0.25, 1, 2.75, 10, 59, 60, 61, 63, 64, 65, 500)))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(worker=st.integers(0, WORKERS - 1), tokens=st.sampled_from((0, 1, 100, 400, 1000, 1001)))
    def ask(self, worker: int, tokens: int) -> None:
        requests, used = self.used(self.now)
        may = self.fits(tokens, self.now) and len(self.running) < CONCURRENCY
        try:
            hold = admit(self.workers[worker], self.key, tokens, self.now)
        except RateLimited as error:
            assert not may
            found = headers_of(error)
            if tokens > TPM:
                assert "retry-after" not in found
            else:
                assert found["retry-after"] == str(max(1, self.wait(lambda now: self.fits(tokens, now))))
        else:
            assert may
            requests, used = requests + 1, used + tokens
            charge = Charge(int(self.now), 1, tokens)
            self.charges.append(charge)
            self.running.append(Running(hold, charge, worker))
            found = headers_of(hold)
        assert found["x-ratelimit-remaining-requests"] == str(max(RPM - requests, 0))
        assert found["x-ratelimit-remaining-tokens"] == str(max(TPM - used, 0))
        for name, part in (("requests", 0), ("tokens", 1)):
            seconds = self.wait(lambda now, part=part: self.used(now)[part] == 0)  # type: ignore[misc]
            # Windows end with whole seconds of the clock, and the wait is told to the millisecond.
            expected = int(self.now) + seconds - self.now if seconds else 0
            assert found[f"x-ratelimit-reset-{name}"] == f"{expected:.3f}s"

    @precondition(lambda self: self.running)
    @rule(data=st.data(), actual=st.sampled_from((0, 50, 100, 400, 700)))
    def settle(self, data: st.DataObject, actual: int) -> None:
        running = data.draw(st.sampled_from(self.running))
        running.hold.settle(actual, self.now)
        if not running.settled:
            running.settled = True
            self.charges.append(Charge(int(self.now), 0, max(actual - running.charge.tokens, 0)))
            running.charge.tokens = min(actual, running.charge.tokens)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def refund(self, data: st.DataObject) -> None:
        running = data.draw(st.sampled_from(self.running))
        running.hold.refund()
        if not running.settled:
            running.settled = True
            running.charge.requests = running.charge.tokens = 0

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        running = data.draw(st.sampled_from(self.running))
        running.hold.release()
        running.hold.release()
        self.running.remove(running)

    @rule(worker=st.integers(0, WORKERS - 1))
    def die_and_come_back(self, worker: int) -> None:
        self.workers[worker].close()
        self.workers[worker] = Limits(Path(self.folder.name), worker, WORKERS)
        self.running = [running for running in self.running if running.worker != worker]

    @invariant()
    def every_worker_knows_what_runs(self) -> None:
        for limits in getattr(self, "workers", ()):
            row = limits._rows.get(self.key.place)
            if row is not None:
                assert row.running_everywhere() == len(self.running)

    def teardown(self) -> None:
        for running in self.running:
            running.hold.release()
        self.running.clear()
        self.every_worker_knows_what_runs()
        for limits in self.workers:
            limits.close()
        self.folder.cleanup()


TestAgainstAModel = AgainstAModel.TestCase
TestAgainstAModel.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


# Several processes

WORKER = """
import sys
from pathlib import Path
from gateway.errors import RateLimited
from gateway.limits import Limits
from gateway.types import Scope
folder, worker, workers, attempts = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
rpm, concurrency = (int(word) or None for word in sys.argv[5:7])
bounds = dict(requests_per_minute=rpm, tokens_per_minute=10**9, max_concurrency=concurrency)
key = Scope("key", "key-1", "dev", 3, **bounds)
limits = Limits(folder, worker, workers)
print("ready", flush=True)
sys.stdin.readline()
holds = []
for attempt in range(attempts):
    try:
        holds.append(limits.admit((key,), 0, 10, 1_700_000_000 + attempt // 1000))
    except RateLimited:
        pass
print(len(holds), flush=True)
sys.stdin.readline()
for hold in holds:
    hold.settle(5, 1_700_000_001)
    hold.release()
print(limits._rows[3], flush=True)
sys.stdin.readline()
"""


class Worker:
    """A process that admits as fast as it can when told to."""

    def __init__(self, folder: Path, *arguments: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(folder), *map(str, arguments)],
            cwd=ROOT,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self.hear() == "ready"

    def hear(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def go_on(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()


@pytest.mark.parametrize(("rpm", "concurrency"), [(1000, 0), (0, 1000)])
def test_workers_share_a_limit_up_to_one_request_each(tmp_path: Path, rpm: int, concurrency: int) -> None:
    count = 3
    workers = [Worker(tmp_path, number, count, 3000, rpm, concurrency) for number in range(count)]
    for worker in workers:
        worker.go_on()
    admitted = sum(int(worker.hear()) for worker in workers)
    assert 1000 <= admitted <= 1000 + count - 1
    for worker in workers:
        worker.go_on()
        row = worker.hear()
    requests, tokens = admitted, 5 * admitted
    assert row.endswith(f"{requests} requests, {tokens} tokens, 0 running>"), "holds end at zero, and nothing was lost"
    for worker in workers:
        worker.kill()


def test_a_killed_worker_leaves_its_window_and_takes_its_running_requests_along(tmp_path: Path) -> None:
    worker = Worker(tmp_path, 0, 2, 5, 8, 5)
    worker.go_on()
    assert worker.hear() == "5"
    other = Limits(tmp_path, 1, 2)
    both = key(rpm=8, concurrency=5)
    assert "concurrent" in refuse(other, both, now=T).message
    worker.kill()
    again = Limits(tmp_path, 0, 2)
    admit(other, both, now=T)
    admit(again, both, now=T)
    assert headers_of(admit(again, both, now=T))["x-ratelimit-remaining-requests"] == "0"
    assert "requests per minute" in refuse(other, both, now=T).message
