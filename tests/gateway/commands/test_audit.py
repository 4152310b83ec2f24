from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gateway.audit.checkpoint import CHECKPOINTS, Notary
from gateway.audit.record import GapReason, Outcome, finish_record, gap_record, start_record
from gateway.audit.segments import SegmentedChain
from gateway.commands.audit import group
from gateway.types import Decision, Phase, Usage, Verdict
from tests.gateway.audit.support import DAY, JOURNAL, NOON, WRITER, segments

ROOT = Path(__file__).parents[3]
PROGRAM = "from gateway.commands.audit import group; group()"
OTHER = "fedcba9876543210"


def exchange(id: str, now: float, *, key: str = "key_1", status: int = 200, model: str = "gpt-4o") -> list[bytes]:
    at = int(now * 1e6)
    outcome = Outcome.COMPLETED if status == 200 else Outcome.REFUSED
    block = (Decision("dlp-filter", Phase.INPUT, Verdict.BLOCK, "dlp-filter.term"),) if status == 409 else ()
    return [
        start_record(id, at, key, "core", "my-config", "v1", "chat", model, "203.0.113.7", block),
        finish_record(
            id,
            at + 500_000,
            outcome,
            status=status,
            code=None if status == 200 else "input_blocked",
            target="openai-gpt4o",
            usage=Usage(10, 20),
            duration_us=500_000,
        ),
    ]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two writers: exchanges one, two, three; four, which is still open; and a gap."""
    monkeypatch.setenv("KT_STATE_DIR", str(tmp_path))
    folder = tmp_path / "audit"
    series = SegmentedChain(folder, WRITER, journal=JOURNAL)
    series.write(exchange("one", NOON), NOON)
    series.write(exchange("three", NOON + 2 * DAY, key="key_2"), NOON + 2 * DAY)
    series.seal(NOON + 2 * DAY)
    series = SegmentedChain(folder, OTHER, journal=JOURNAL)
    series.write(exchange("two", NOON + DAY, status=409), NOON + DAY)
    series.write([gap_record(int((NOON + DAY + 60) * 1e6), GapReason.JOURNAL_FULL, 7)], NOON + DAY)
    series.write(exchange("four", NOON + 3 * DAY)[:1], NOON + DAY)
    series.close()
    return folder


def run(*arguments: str) -> Result:
    return CliRunner().invoke(group, arguments)


def lines(result: Result) -> list[dict[str, object]]:
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def ids(result: Result) -> list[object]:
    return [row.get("id", row["kind"]) for row in lines(result)]


# verify


def test_verify_says_that_all_is_well(folder: Path) -> None:
    result = run("verify")
    assert (result.exit_code, result.output) == (
        0,
        "8 records, 3 segments (1 open, 0 retired), 2 writers: the log is whole\n",
    )
    assert run("verify", str(folder)).output == result.output


def test_verify_names_the_bad_place(folder: Path) -> None:
    path = segments(folder)[0]
    path.chmod(0o640)
    path.write_bytes(path.read_bytes().replace(b"key_1", b"key_9"))
    result = run("verify")
    assert result.exit_code == 1
    assert result.output.splitlines() == [
        f"bad: {path.name}:2: altered: record 1 does not match its hash",
        "6 records, 3 segments (1 open, 0 retired), 2 writers: 1 problem",
    ]
    report = json.loads(run("verify", "--json").stdout)
    assert report["ok"] is False
    assert report["problems"] == [
        {"file": path.name, "line": 2, "fault": "altered", "message": "record 1 does not match its hash"}
    ]


def test_verify_needs_a_log(tmp_path: Path) -> None:
    assert run("verify", str(tmp_path)).exit_code == 2
    assert run("verify", str(tmp_path / "none")).exit_code == 2


def test_verify_takes_a_key_and_checkpoints(folder: Path, tmp_path: Path) -> None:
    pem = run("key")
    assert pem.exit_code == 0
    assert pem.output == (tmp_path / "audit-key.pub").read_text()
    name = run("key", "--id").output.strip()
    public = tmp_path / "elsewhere.pub"
    public.write_text(pem.output)
    assert run("verify", "--public-key", str(public)).exit_code == 1, "nothing was signed yet"
    series = SegmentedChain(
        folder, "00000000000000aa", journal=JOURNAL, notary=Notary(folder, tmp_path / "audit-key.pem")
    )
    series.write(exchange("five", NOON), NOON)
    series.seal(NOON)
    result = run("verify", "--public-key", str(public))
    assert (result.exit_code, result.output) == (
        0,
        "10 records, 4 segments (1 open, 0 retired), 3 writers, 2 checkpoints (8 records not signed yet): "
        "the log is whole\n",
    )
    shipped = tmp_path / "shipped.jsonl"
    shipped.write_bytes((folder / CHECKPOINTS).read_bytes())
    assert json.loads(shipped.read_text().splitlines()[0])["checkpoint"]["key"] == name
    sealed = next(path for path in segments(folder) if "00000000000000aa" in path.name)
    sealed.unlink()
    result = run("verify", "--public-key", str(public), "--checkpoints", str(shipped))
    assert result.exit_code == 1
    assert f"bad: {sealed.name}: missing: " in result.output


def test_a_secret_is_shown_once(folder: Path, tmp_path: Path) -> None:
    first = tmp_path / "first.secret"
    first.write_text(run("secret").output)
    assert run("secret").exit_code == 1
    series = SegmentedChain(
        folder, "00000000000000aa", journal=JOURNAL, notary=Notary(folder, tmp_path / "audit-key.pem")
    )
    series.write(exchange("five", NOON), NOON)
    series.seal(NOON)
    assert run("verify", "--secret", str(first)).exit_code == 0
    first.write_text(first.read_text().replace("secret", "nothing"))
    assert run("verify", "--secret", str(first)).exit_code == 2


def test_a_damaged_signing_key_is_named(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "audit-key.pem").write_text("nothing")
    result = run("key")
    assert result.exit_code == 1
    assert "audit-key.pem holds no private key" in result.output


def test_verify_wants_a_key_that_is_one(folder: Path, tmp_path: Path) -> None:
    no_key = tmp_path / "no.pub"
    no_key.write_text("nothing")
    assert run("verify", "--public-key", str(no_key)).exit_code == 2
    assert run("verify", "--checkpoints", str(no_key)).exit_code == 2


# tail


def test_tail_shows_a_table(folder: Path) -> None:
    result = run("tail")
    assert result.exit_code == 0
    rows = [line.split() for line in result.stdout.splitlines()]
    assert " ".join(rows[0]) == "TIME KEY OPERATION MODEL TARGET STATUS OUTCOME TOKENS MS VERDICTS ID"
    assert [row[-1] for row in rows[1:]] == ["one", "two", "-", "three", "four"]
    assert "GAP" in rows[3]
    assert "open" in rows[5]
    assert " ".join(rows[2]) == (
        "2026-06-02T12:00:00.500Z key_1 chat gpt-4o openai-gpt4o 409 refused 10+20 500.0 block dlp-filter.term two"
    )


def test_tail_takes_the_last(folder: Path) -> None:
    assert ids(run("tail", "-n", "2", "--json")) == ["three", "four"]
    assert ids(run("tail", "-n", "3", "--json")) == ["gap", "three", "four"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--key", "key_2"], ["three"]),
        (["--status", "409"], ["two"]),
        (["--status", "4xx"], ["two"]),
        (["--status", "2xx", "--key", "key_1"], ["one"]),
        (["--status", "500"], []),
    ],
)
def test_tail_filters(folder: Path, options: list[str], expected: list[str]) -> None:
    assert ids(run("tail", "--json", *options)) == expected


def test_tail_refuses_what_is_no_status(folder: Path) -> None:
    assert run("tail", "--status", "40").exit_code == 2


def test_tail_joins_a_start_and_its_finish(folder: Path) -> None:
    (row,) = lines(run("tail", "--json", "--status", "409"))
    assert row["started_at"] == "2026-06-02T12:00:00.000Z"
    assert row["finished_at"] == "2026-06-02T12:00:00.500Z"
    assert (row["key"], row["model"], row["status"], row["prompt_tokens"]) == ("key_1", "gpt-4o", 409, 10)
    assert row["decisions"] == [
        {
            "policy": "dlp-filter",
            "phase": "input",
            "verdict": "block",
            "reason": "dlp-filter.term",
            "detail": "",
            "microseconds": 0,
        }
    ]


def test_no_escape_sequence_reaches_the_terminal(tmp_path: Path) -> None:
    series = SegmentedChain(tmp_path, WRITER, journal=JOURNAL)
    series.write(exchange("x", NOON, model="\x1b[2Jgpt\x07"), NOON)
    series.seal(NOON)
    output = run("tail", "--folder", str(tmp_path)).stdout
    assert "\x1b" not in output
    assert "�[2Jgpt�" in output


def test_tail_says_when_lines_cannot_be_read(folder: Path) -> None:
    with segments(folder)[-1].open("ab") as file:
        file.write(b"rubbish\n")
    result = run("tail")
    assert result.exit_code == 0
    assert "1 line could not be read" in result.stderr


def test_tail_follows(folder: Path) -> None:
    """A process of its own, until it has shown what was written while it watched."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "tail", "-f", "-n", "1", "--json", "--folder", str(folder)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["id"] == "three"
        series, _ = SegmentedChain.resume(folder, OTHER, None, NOON + DAY, journal=JOURNAL)
        series.write(exchange("four", NOON + 3 * DAY)[1:], NOON + DAY)
        followed = json.loads(process.stdout.readline())
        assert (followed["id"], followed["model"], followed["status"]) == ("four", "gpt-4o", 200)
        fresh = SegmentedChain(folder, "00000000000000cc", journal=JOURNAL)
        fresh.write(exchange("five", NOON), NOON)
        assert json.loads(process.stdout.readline())["id"] == "five"
        fresh.write(exchange("six", NOON + DAY), NOON + DAY)
        assert json.loads(process.stdout.readline())["id"] == "six"
        series.close()
        fresh.close()
        process.kill()


# export


def test_export_gives_all(folder: Path) -> None:
    assert sorted(map(str, ids(run("export")))) == ["four", "gap", "one", "three", "two"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--since", "2026-06-02"], ["four", "gap", "three", "two"]),
        (["--since", "2026-06-02T12:00:30Z"], ["four", "gap", "three"]),
        (["--until", "2026-06-02"], ["one"]),
        (["--since", "2026-06-02", "--until", "2026-06-02T14:00:30+02:00"], ["two"]),
        (["--since", "2026-06-03T12:00:00", "--until", "2026-06-03T12:00:01"], ["three"]),
        (["--since", "2030-01-01"], []),
    ],
)
def test_export_takes_a_period(folder: Path, options: list[str], expected: list[str]) -> None:
    assert sorted(map(str, ids(run("export", *options)))) == expected


@pytest.mark.parametrize("option", ["--since", "--until"])
@pytest.mark.parametrize("text", ["yesterday", "7", "7y", "2026-13-01"])
def test_export_refuses_what_is_no_time(folder: Path, option: str, text: str) -> None:
    assert run("export", option, text).exit_code == 2


def test_an_exchange_that_ends_in_another_segment_is_whole(tmp_path: Path) -> None:
    series = SegmentedChain(tmp_path, WRITER, journal=JOURNAL)
    begin, end = exchange("late", NOON)
    series.write([begin], NOON)
    series.write([end, *exchange("next", NOON + DAY)], NOON + DAY)
    series.seal(NOON + DAY)
    (row,) = lines(run("export", "--folder", str(tmp_path), "--until", "2026-06-01T13:00"))
    assert (row["id"], row["status"], row["model"]) == ("late", 200, "gpt-4o")


def test_export_writes_csv(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "audit.csv"
    assert run("export", "--format", "csv", "--output", str(output)).exit_code == 0
    rows = {row["id"]: row for row in csv.DictReader(io.StringIO(output.read_text(encoding="utf-8")))}
    assert (rows["two"]["status"], rows["two"]["target"]) == ("409", "openai-gpt4o")
    assert json.loads(rows["two"]["decisions"])[0]["verdict"] == "block"
    assert rows["one"]["decisions"] == ""
    assert (rows[""]["kind"], rows[""]["records"], rows[""]["reason"]) == ("gap", "7", "journal_full")
    assert rows["four"]["outcome"] == ""


def test_csv_holds_no_formulas(tmp_path: Path) -> None:
    series = SegmentedChain(tmp_path, WRITER, journal=JOURNAL)
    series.write(exchange("x", NOON, model='=HYPERLINK("http://example.com")'), NOON)
    series.seal(NOON)
    (row,) = csv.DictReader(io.StringIO(run("export", "--folder", str(tmp_path), "--format", "csv").stdout))
    assert row["model"] == '\'=HYPERLINK("http://example.com")'


@pytest.mark.parametrize("command", ["tail", "export"])
def test_there_must_be_a_folder(tmp_path: Path, command: str) -> None:
    assert run(command, "--folder", str(tmp_path / "none")).exit_code == 2
