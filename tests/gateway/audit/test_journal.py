from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.audit.journal import Batch, Journal, JournalBusy, JournalInvalid, Mark
from gateway.errors import AuditUnavailable
from tests.gateway.audit.support import WRITER, no_file_beyond

SIZE = 4096
RING = 4096
"""Where the ring begins in the file."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit-0.journal"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    journal = Journal.create(path, WRITER, SIZE)
    yield journal
    journal.close()


def drain(journal: Journal, limit: int = 1_000_000, *, checked: bool = False) -> list[bytes]:
    batch = journal.take(limit, checked=checked)
    journal.advance(Mark(batch.position, journal.mark.sequence + len(batch.records)))
    return batch.records


def reopened(journal: Journal) -> Journal:
    """What the next opener gets to see."""
    journal.close()
    return Journal.open(journal.path)


def recovered(path: Path) -> Batch:
    """What a recovery finds."""
    with closing(Journal.open(path)) as journal:
        return journal.take(9, checked=True)


def fill(journal: Journal, *, last: bool = False) -> int:
    """Append records of 16 bytes, each its own number, until there is no more room; returns how many there are."""
    for number in itertools.count():
        try:
            journal.append(b"%08d" % number, last)
        except AuditUnavailable:
            return number
    raise AssertionError


def test_records_come_out_as_they_went_in(journal: Journal) -> None:
    for record in (b"one", b"", b"three" * 20):
        journal.append(record)
    assert journal.take(2).records == [b"one", b""]
    assert drain(journal) == [b"one", b"", b"three" * 20]
    assert drain(journal) == []
    assert repr(journal) == "<Journal audit-0.journal head=136 tail=136 of 4096>"


def test_the_ring_wraps_at_every_offset(path: Path) -> None:
    for lead in range(0, SIZE, 8):
        journal = Journal.create(path, WRITER, SIZE)
        # Bring the head to `lead`: frames of 8 bytes and a payload of 0 to 1016.
        for size in [1024] * (lead // 1024) + [lead % 1024] * (lead % 1024 > 0):
            journal.append(bytes(size - 8))
            drain(journal)
        assert journal.head == lead
        records = [bytes([number]) * size for number, size in enumerate((1000, 0, 7, 8, 9, 700))]
        for record in records:
            journal.append(record)
        assert drain(journal, checked=True) == records
        journal.close()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_it_behaves_as_a_bounded_queue(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    journal = Journal.create(tmp_path_factory.mktemp("journal") / "audit-0.journal", WRITER, SIZE)
    model: deque[bytes] = deque()
    for number in range(data.draw(st.integers(1, 40))):
        if data.draw(st.booleans()):
            record = bytes([number]) * data.draw(st.integers(0, 1200))
            try:
                journal.append(record)
            except AuditUnavailable:
                # Full means: with this record, and what it leaves unused at the ring's end, the reserve is touched.
                size, rest = len(record) + 15 & -8, SIZE - journal.head % SIZE
                assert journal.backlog + size + (rest if size > rest else 0) > SIZE * 7 // 8
            else:
                model.append(record)
        else:
            limit = data.draw(st.integers(0, 5))
            assert drain(journal, limit, checked=True) == [model.popleft() for _ in range(min(limit, len(model)))]
        if data.draw(st.integers(0, 9)) == 0:
            journal = reopened(journal)
    assert drain(journal) == list(model)
    journal.close()


def test_a_full_ring_refuses_and_keeps_what_it_has(journal: Journal) -> None:
    accepted = fill(journal)
    assert accepted == SIZE * 7 // 8 // 16
    with pytest.raises(AuditUnavailable, match="disk"):
        journal.append(b"one more")
    assert drain(journal) == [b"%08d" % number for number in range(accepted)]
    journal.append(b"again")
    assert drain(journal) == [b"again"]


def test_an_eighth_is_kept_for_records_that_come_last(journal: Journal) -> None:
    fill(journal)
    assert fill(journal, last=True) == SIZE // 8 // 16
    assert journal.backlog == SIZE


def test_a_record_larger_than_the_ring_is_refused(journal: Journal) -> None:
    with pytest.raises(AuditUnavailable):
        journal.append(bytes(SIZE))
    journal.append(b"small")
    assert drain(journal) == [b"small"]


def test_dropped_records_are_counted_in_the_file(journal: Journal) -> None:
    journal.drop()
    journal.drop()
    with closing(reopened(journal)) as leftover:
        assert leftover.dropped == 2


def test_a_leftover_holds_what_was_not_taken(journal: Journal) -> None:
    for number in range(5):
        journal.append(b"%d" % number)
    journal.advance(Mark(journal.take(2).position, 17, 3))
    leftover = reopened(journal)
    assert (leftover.writer, leftover.mark.sequence, leftover.mark.reported) == (WRITER, 17, 3)
    assert leftover.take(9, checked=True).records == [b"2", b"3", b"4"]
    leftover.close(remove=True)
    assert not leftover.path.exists()


def test_the_living_are_left_alone(journal: Journal) -> None:
    with pytest.raises(JournalBusy):
        Journal.open(journal.path)


def test_what_is_no_journal_is_refused(path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Journal.open(path)
    for content in (b"", b"short", b"KTJRNL2\n" + bytes(2 * SIZE - 8), bytes(2 * SIZE)):
        path.write_bytes(content)
        with pytest.raises(JournalInvalid):
            Journal.open(path)


@pytest.mark.parametrize("capacity", [0, 2048, 5000, -4096])
def test_a_capacity_is_a_power_of_two(path: Path, capacity: int) -> None:
    with pytest.raises(ValueError, match="power of two"):
        Journal.create(path, WRITER, capacity)


def test_a_closed_journal_takes_nothing(path: Path) -> None:
    journal = Journal.create(path, WRITER, SIZE)
    journal.append(b"one")
    append = journal.append
    journal.close()
    with pytest.raises(AuditUnavailable, match="closed"):
        append(b"two")


def test_its_space_on_the_disk_is_taken_at_once(journal: Journal) -> None:
    # A hole would become a SIGBUS on a full disk.
    assert journal.path.stat().st_blocks * 512 >= RING + SIZE


def test_without_room_on_the_disk_there_is_no_journal(path: Path) -> None:
    with no_file_beyond(RING + SIZE - 1), pytest.raises(OSError, match=r"too large|space"):
        Journal.create(path, WRITER, SIZE)
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("offset", range(16, 40))
def test_a_damaged_frame_ends_what_can_be_recovered(journal: Journal, offset: int) -> None:
    """The machine went down, and a page of the ring did not reach the disk."""
    for record in (b"01234567", b"abcdefghijklmnop", b"z"):
        journal.append(record)
    journal.close()
    flip(journal.path, RING + offset)
    batch = recovered(journal.path)
    assert batch.records == [b"01234567"]
    assert batch.damaged


def test_a_frame_of_an_earlier_lap_is_not_taken_for_a_new_one(journal: Journal) -> None:
    for _ in range(SIZE // 1024):
        journal.append(bytes(1016))
        drain(journal)
    journal.close()
    # The head reached the disk, and the record before it did not: under it lies the same record, one lap older.
    content = bytearray(journal.path.read_bytes())
    content[64:72] = (SIZE + 1024).to_bytes(8, "little")
    journal.path.write_bytes(content)
    batch = recovered(journal.path)
    assert (batch.records, batch.damaged) == ([], True)


def test_of_two_marks_the_newer_whole_one_counts(journal: Journal) -> None:
    journal.append(b"one")
    journal.append(b"two")
    journal.advance(Mark(16, 1))
    journal.advance(Mark(32, 2))
    with closing(reopened(journal)) as leftover:
        assert leftover.mark == Mark(32, 2)
    # The second turn is in the first slot. Torn, it gives way to the one before.
    flip(journal.path, 192 + 8)
    with closing(Journal.open(journal.path)) as leftover:
        assert leftover.mark == Mark(16, 1)


def flip(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 0x55
    path.write_bytes(content)


def test_two_threads_agree(path: Path) -> None:
    journal = Journal.create(path, WRITER, 1 << 14)
    total = 20_000
    taken: list[bytes] = []

    def consume() -> None:
        while len(taken) < total:
            taken.extend(drain(journal, 200, checked=True))

    consumer = threading.Thread(target=consume)
    consumer.start()
    for number in range(total):
        while True:
            try:
                journal.append(b"%d" % number * (number % 7))
                break
            except AuditUnavailable:
                continue
    consumer.join(30)
    assert taken == [b"%d" % number * (number % 7) for number in range(total)]
    journal.close()
