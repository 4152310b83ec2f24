"""Addresses that the log proves and does not hold: committed, opened, erased, and the chain whole all the time."""

from __future__ import annotations

import threading
from pathlib import Path

import orjson
import pytest
from click.testing import CliRunner

from gateway.audit.commitments import Commitments, Opener, committed, forget, openings, retire_salts
from gateway.audit.journal import Journal
from gateway.audit.reader import Reading
from gateway.audit.record import Outcome, finish_record, start_record
from gateway.audit.recovery import recover
from gateway.audit.segments import SegmentedChain
from gateway.audit.verify import verify
from gateway.commands.audit import group

NOW = 1_790_000_000.0
DAY = 86_400.0
ANN, BOB = "192.0.2.7", "2001:db8::2"


def start(client: str, configuration: str = "private", model: str = "gpt-test", id: str = "req_1") -> bytes:
    return start_record(id, 1, None, None, configuration, "v", "chat", model, client)


def client_of(record: bytes) -> str:
    return str(orjson.loads(record)["client"])


@pytest.fixture
def salts(tmp_path: Path) -> Path:
    return tmp_path / "audit-salts"


@pytest.fixture
def commitments(salts: Path) -> Commitments:
    return Commitments(salts, ["private", 'quo"ted'])


def written(tmp_path: Path, commitments: Commitments, *records: bytes) -> Path:
    """An audit folder with these records, sealed."""
    folder = tmp_path / "audit"
    folder.mkdir(exist_ok=True)
    chain = SegmentedChain(folder, f"{len(list(folder.iterdir())):016x}", journal="/none", commitments=commitments)
    chain.write(records, NOW)
    chain.seal(NOW)
    return folder


def test_an_address_becomes_a_commitment_that_can_be_opened(commitments: Commitments, salts: Path) -> None:
    first, second, other = commitments.apply([start(ANN), start(ANN), start(BOB)], NOW)
    assert committed(first) == client_of(first) == client_of(second) != client_of(other)
    assert orjson.loads(first) == {**orjson.loads(start(ANN)), "client": client_of(first)}
    assert openings(salts) == {client_of(first): ANN, client_of(other): BOB}
    assert ANN.encode() not in first


@pytest.mark.parametrize(
    "record",
    [
        start(ANN, configuration="open"),
        finish_record("req_1", 1, Outcome.COMPLETED),
        start(""),
        b'{"kind":"gap","at":1,"reason":"journal_full","records":1}',
    ],
)
def test_what_stays_as_it_is(record: bytes, commitments: Commitments, salts: Path) -> None:
    assert list(commitments.apply([record], NOW)) == [record]
    assert openings(salts) == {}


def test_nobody_asks_for_it(salts: Path) -> None:
    records = [start(ANN)]
    assert Commitments(salts, []).apply(records, NOW) is records
    assert Commitments(salts).apply(records, NOW) is records
    assert not salts.exists()


def test_another_process_finishes_what_a_worker_has_left(commitments: Commitments, salts: Path) -> None:
    commitments.apply([start(ANN)], NOW)
    (record,) = Commitments(salts).apply([start(BOB)], NOW)
    assert openings(salts)[client_of(record)] == BOB
    commitments.configurations = frozenset()
    commitments.apply([start(ANN)], NOW)
    assert Commitments(salts).apply([start(BOB)], NOW) == [start(BOB)]


def test_a_models_name_cannot_pass_for_a_field(commitments: Commitments) -> None:
    odd = '","client":"10.0.0.1","x":"\\"'
    (record,) = commitments.apply([start(ANN, configuration='quo"ted', model=odd)], NOW)
    assert (orjson.loads(record)["model"], committed(record)) == (odd, client_of(record))


def test_each_day_and_each_process_has_its_own(commitments: Commitments, salts: Path) -> None:
    found = [
        client_of(one.apply([start(ANN)], now)[0])
        for one, now in ((commitments, NOW), (commitments, NOW + DAY), (Commitments(salts, ["private"]), NOW))
    ]
    assert len(set(found)) == 3
    assert openings(salts) == dict.fromkeys(found, ANN)


def test_who_is_erased_is_erased_everywhere_and_from_then_on(commitments: Commitments, salts: Path) -> None:
    other = Commitments(salts, ["private"])
    before = [client_of(one.apply([start(ANN), start(BOB)], NOW)[0]) for one in (commitments, other)]
    assert forget(salts, ANN) == 2
    assert sorted(openings(salts).values()) == [BOB, BOB]
    assert not any(ANN.encode() in path.read_bytes() for path in salts.iterdir())
    (after,) = commitments.apply([start(ANN)], NOW)
    assert client_of(after) not in before
    assert forget(salts, "192.0.2.99") == 0


def test_the_salt_is_on_the_disk_before_the_record(commitments: Commitments, salts: Path) -> None:
    salts.write_text("not a folder")
    with pytest.raises(OSError):
        commitments.apply([start(ANN)], NOW)
    salts.unlink()
    (record,) = commitments.apply([start(ANN)], NOW)
    assert openings(salts) == {client_of(record): ANN}


def test_old_salts_go(commitments: Commitments, salts: Path) -> None:
    retire_salts(salts, 30, NOW)
    for days in range(3):
        commitments.apply([start(ANN)], NOW + days * DAY)
    retire_salts(salts, 30, NOW + 32 * DAY)
    assert len(openings(salts)) == 1


def test_writers_and_erasers_at_once(commitments: Commitments, salts: Path) -> None:
    """No salt of anybody else is lost while somebody is erased."""
    made: dict[str, str] = {}

    def write() -> None:
        for number in range(100):
            address = f"198.51.100.{number}"
            (record,) = commitments.apply([start(address)], NOW)
            made[client_of(record)] = address

    thread = threading.Thread(target=write)
    salts.mkdir()
    thread.start()
    while thread.is_alive():
        forget(salts, ANN)
    thread.join()
    assert made.items() <= openings(salts).items()


def test_the_chain_verifies_before_and_after(tmp_path: Path, commitments: Commitments, salts: Path) -> None:
    folder = written(tmp_path, commitments, start(ANN), start(BOB, id="req_2"))
    report = verify(folder, salts=salts)
    assert (report.problems, report.commitments, report.erased) == ([], 2, 0)
    forget(salts, ANN)
    report = verify(folder, salts=salts)
    assert (report.problems, report.commitments, report.erased) == ([], 2, 1)
    assert verify(folder).erased is None


def test_what_a_dead_worker_has_left_is_committed_too(tmp_path: Path, commitments: Commitments, salts: Path) -> None:
    journal = Journal.create(tmp_path / "audit-0-0123456789abcdef.journal", "0123456789abcdef", 1 << 16)
    journal.append(start(ANN))
    journal.close(remove=False)
    (tmp_path / "audit").mkdir()
    recover(tmp_path, tmp_path / "audit", clock=lambda: NOW, commitments=commitments)
    (row,) = Reading(tmp_path / "audit").between(None, None)
    assert row["outcome"] == "interrupted"
    assert Opener(salts).open(str(row["client"])) == ANN


def test_by_command(tmp_path: Path, commitments: Commitments, salts: Path) -> None:
    folder = written(tmp_path, commitments, start(ANN), start(BOB, id="req_2"))

    def kt(*arguments: object) -> str:
        result = CliRunner().invoke(group, [str(one) for one in arguments])
        assert result.exit_code == 0, result.output
        return result.output

    def shown() -> list[str]:
        lines = kt("export", "--folder", folder).splitlines()
        assert lines == kt("tail", "--folder", folder, "--json").splitlines()
        return [orjson.loads(line)["client"] for line in lines]

    assert "2 commitments (0 erased): the log is whole" in kt("verify", folder)
    assert sorted(shown()) == [ANN, BOB]
    assert kt("erase", ANN, "--salts", salts) == f"1 salt of {ANN} forgotten\n"
    assert "2 commitments (1 erased): the log is whole" in kt("verify", folder)
    assert orjson.loads(kt("verify", folder, "--json"))["erased"] == 1
    first, second = sorted(shown())
    assert (first, second[0]) == (BOB, "~")
    assert CliRunner().invoke(group, ["erase", ANN, "--salts", str(salts)]).exit_code == 1
    assert "their salts are not here" in CliRunner().invoke(group, ["verify", str(_moved(folder))]).output


def _moved(folder: Path) -> Path:
    """The log without its salts, as a copy elsewhere is."""
    elsewhere = folder.parent / "elsewhere"
    elsewhere.mkdir()
    return folder.rename(elsewhere / "audit")
