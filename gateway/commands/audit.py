"""`kt audit`: verify the audit log, watch it, and take it out as JSON lines or CSV."""

from __future__ import annotations

import csv
import re
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TextIO

import click
import msgspec
import orjson

from gateway.audit.checkpoint import begin_secret, key_id, private_key, public_pem, read_public_key
from gateway.audit.commitments import Opener, forget
from gateway.audit.ratchet import Ratchet
from gateway.audit.reader import COLUMNS, Follower, Match, Reading, Row, time_of
from gateway.audit.verify import NothingToVerify, Progress, Report, verify
from gateway.commands.output import EXIT_FAILURE, EXIT_OK, EXIT_USAGE, fail, show, show_json, warn
from gateway.folders import audit_folder, audit_key, audit_salts, state_folder

FOLLOW_SECONDS = 0.2
"""Between two looks at the segments; the writer itself looks every 50 ms."""

_AGO = re.compile(r"(\d+)([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_TABLE = ("time", "key", "operation", "model", "target", "status", "outcome", "tokens", "ms", "verdicts", "id")
_WIDTHS = (24, 16, 12, 24, 20, 6, 11, 13, 8, 24, 28)


def _audit_folder() -> Path:
    return audit_folder(state_folder())


_folder_option = click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=_audit_folder,
    show_default="the state folder's `audit`",
    help="The audit folder.",
)


@click.group("audit")
def group() -> None:
    """Verify, follow and export the audit log.

    \b
    Examples:
      kt audit verify
      kt audit tail -f --status 409
      kt audit export --since 7d --format csv --output audit.csv
    """


@group.command("verify")
@click.argument("folder", required=False, type=click.Path(path_type=Path), default=_audit_folder)
@click.option(
    "--public-key",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Check the signed checkpoints too, with this key: what `kt audit key` prints.",
)
@click.option(
    "--secret",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Check the checkpoints' macs too, with this first key: what `kt audit secret` printed.",
)
@click.option(
    "--checkpoints",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="The checkpoint file, best a copy from elsewhere.  [default: FOLDER's `checkpoints.jsonl`]",
)
@click.option(
    "--salts",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="The salts of commitments, to say which were erased.  [default: `audit-salts` beside FOLDER]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def verify_log(
    folder: Path,
    public_key: Path | None,
    secret: Path | None,
    checkpoints: Path | None,
    salts: Path | None,
    as_json: bool,
) -> None:
    """Check every hash of an audit log and say where it does not hold together.

    FOLDER is the state folder's `audit` unless given; a copy will do. The log may be in use. Exit code 0: whole. 1:
    something was altered, removed, reordered, duplicated or cut off; the first bad place of each file is named. 2:
    there is no audit log, or the key is none.

    With --public-key the log must also contain every checkpoint that the gateway has signed, so that one that was
    written anew, all hashes included, is found out. That needs neither the gateway nor its private key. With --secret
    one that was signed anew, by who has taken the gateway over, is found out too.

    \b
    Examples:
      kt audit verify
      kt audit verify /backup/audit --json | jq .problems
      kt audit verify --public-key audit-key.pub --checkpoints /elsewhere/checkpoints.jsonl
      kt audit verify --secret first.secret
    """
    if checkpoints is not None and public_key is None and secret is None:
        raise click.UsageError("--checkpoints needs --public-key or --secret")
    try:
        key = read_public_key(public_key) if public_key is not None else None
        first = Ratchet.parse(secret.read_text("ascii")) if secret is not None else None
    except ValueError as error:
        fail(str(error), code=EXIT_USAGE)
    try:
        with _progress() as progress:
            report = verify(
                folder,
                progress,
                public_key=key,
                secret=first,
                checkpoints=checkpoints,
                salts=salts or _salts_beside(folder),
            )
    except NothingToVerify as error:
        fail(str(error), code=EXIT_USAGE)
    if as_json:
        show_json({"ok": report.ok, **msgspec.to_builtins(report)})
    else:
        _print_report(report)
    sys.exit(EXIT_OK if report.ok else EXIT_FAILURE)


@contextmanager
def _progress() -> Iterator[Progress | None]:
    """A bar on standard error, for a person; nothing for a pipe."""
    if not sys.stderr.isatty():
        yield None
        return
    with click.progressbar(length=1, label="Verifying", file=sys.stderr) as bar:

        def advance(done: int, total: int) -> None:
            bar.length = total
            bar.update(done - bar.pos)

        yield advance


def _print_report(report: Report) -> None:
    for problem in report.problems:
        click.echo(f"{click.style('bad', fg='red')}: {problem}")
    parts = [
        _count(report.records, "record"),
        _count(report.segments, "segment") + f" ({report.open_segments:,} open, {report.retired_segments:,} retired)",
        _count(report.writers, "writer"),
    ]
    if report.unsigned_records is not None:
        parts.append(
            f"{_count(report.checkpoints, 'checkpoint')} ({_count(report.unsigned_records, 'record')} not signed yet)"
        )
    if report.commitments:
        erased = "their salts are not here" if report.erased is None else f"{report.erased:,} erased"
        parts.append(f"{_count(report.commitments, 'commitment')} ({erased})")
    verdict = "the log is whole" if report.ok else _count(len(report.problems), "problem")
    click.echo(f"{', '.join(parts)}: {verdict}")


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


@group.command("key")
@click.option("--id", "only_id", is_flag=True, help="Print only the id, as checkpoints have it.")
def show_key(only_id: bool) -> None:
    """Show the public key of the audit log's checkpoints, in PEM; it is made where there is none yet.

    Keep it where whoever verifies can trust it: not beside the log.

    \b
    Examples:
      kt audit key > audit-key.pub
      kt audit key --id
    """
    try:
        public = private_key(audit_key(state_folder())).public_key()
    except (OSError, ValueError) as error:
        fail(str(error))
    click.echo(key_id(public) if only_id else public_pem(public).decode("ascii"), nl=only_id)


@group.command("secret")
def begin_audit_secret() -> None:
    """Begin to authenticate checkpoints with a key that moves forward, and print the first key: once, never again.

    The gateway keeps only the key of the next checkpoint. Keep the first one where the gateway cannot read it. A
    running gateway takes it up by itself. Exit code 1 where it was begun already.

    \b
    Examples:
      kt audit secret > first.secret        # then move it off this machine
      kt audit verify --secret first.secret
    """
    state = state_folder()
    try:
        first = begin_secret(audit_folder(state), audit_key(state))
    except FileExistsError:
        fail("begun already, and the first key is not here any more: it was printed then")
    except OSError as error:
        fail(str(error))
    click.echo(str(first), nl=False)


@group.command("erase")
@click.argument("address")
@click.option(
    "--salts",
    type=click.Path(path_type=Path, file_okay=False),
    default=lambda: audit_salts(_audit_folder()),
    show_default="the state folder's `audit-salts`",
    help="The salts folder.",
)
def erase(address: str, salts: Path) -> None:
    """Make the audit log forget whose a client address was: for `addresses: committed`.

    Every salt of ADDRESS is forgotten. Its records stay, and the log still verifies; what stands in them cannot be told
    from a random number any more. A running gateway heeds it at once. Copies of the salts folder must be seen to
    apart. Exit code 1 where there was nothing to forget.

    \b
    Examples:
      kt audit erase 192.0.2.7
      kt audit verify                       # 40 commitments (12 erased): the log is whole
    """
    try:
        count = forget(salts, address) if salts.is_dir() else 0
    except OSError as error:
        fail(str(error))
    click.echo(f"{_count(count, 'salt')} of {address} forgotten")
    sys.exit(EXIT_OK if count else EXIT_FAILURE)


def _salts_beside(folder: Path) -> Path | None:
    beside = audit_salts(folder)
    return beside if beside.is_dir() else None


@group.command("tail")
@_folder_option
@click.option("-f", "--follow", is_flag=True, help="Go on with new exchanges as they end.")
@click.option(
    "-n", "--lines", type=click.IntRange(min=1), default=20, show_default=True, help="How many to begin with."
)
@click.option("--key", help="Only exchanges of this gateway key (its id).")
@click.option("--status", metavar="STATUS", help="Only this HTTP status (409) or class (4xx).")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line, with every field.")
def tail(folder: Path, follow: bool, lines: int, key: str | None, status: str | None, as_json: bool) -> None:
    """Show the latest exchanges, oldest first.

    \b
    Examples:
      kt audit tail
      kt audit tail -n 100 --status 4xx
      kt audit tail -f --json | jq 'select(.outcome == "refused")'
    """
    match = _filter(key, status)
    if follow:
        _follow(_existing(folder, may_come=True), lines, match, as_json)
        return
    reading = Reading(_existing(folder))
    rows = _opened(folder, reading.latest(lines, match))
    if as_json:
        _print_json_lines(rows)
    else:
        show([_cells(row) for row in rows], _TABLE, as_json=False)
    _mention(reading)


def _follow(folder: Path, lines: int, match: Match, as_json: bool) -> None:
    follower = Follower(folder)
    if not as_json:
        _print_aligned(column.upper() for column in _TABLE)
    rows: Iterable[Row] = deque(filter(match, follower.poll() if folder.is_dir() else ()), maxlen=lines)
    try:
        while True:
            rows = _opened(folder, rows)
            if as_json:
                _print_json_lines(rows)
            else:
                for row in rows:
                    cells = _cells(row)
                    _print_aligned("-" if cells[name] in (None, "") else str(cells[name]) for name in _TABLE)
            time.sleep(FOLLOW_SECONDS)
            rows = filter(match, follower.poll()) if folder.is_dir() else ()
    except (KeyboardInterrupt, BrokenPipeError):
        # Both are how one leaves `tail -f`.
        return


@group.command("export")
@_folder_option
@click.option("--since", metavar="TIME", help="From here on: 2026-01-31, 2026-01-31T08:00Z, or 24h, 7d ago.")
@click.option("--until", metavar="TIME", help="Up to here, exclusive; written as --since is.")
@click.option("--format", "form", type=click.Choice(["jsonl", "csv"]), default="jsonl", show_default=True)
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="Write to this file.")
def export(folder: Path, since: str | None, until: str | None, form: str, output: Path | None) -> None:
    """Write exchanges out, one per line: those that began in the given time. Times without a zone are UTC.

    \b
    Examples:
      kt audit export --since 24h > today.jsonl
      kt audit export --since 2026-01-01 --until 2026-02-01 --format csv --output january.csv
    """
    low, high = _moment(since, "--since"), _moment(until, "--until")
    reading = Reading(_existing(folder))
    rows = _opened(folder, reading.between(low, high))
    if output is None:
        _write(rows, form, sys.stdout)
    else:
        with output.open("w", encoding="utf-8", newline="") as file:
            _write(rows, form, file)
    _mention(reading)


def _opened(folder: Path, rows: Iterable[Row]) -> Iterator[Row]:
    """The rows with addresses in the place of commitments, of those that can be opened."""
    opener = Opener(audit_salts(folder))
    for row in rows:
        client = row.get("client")
        yield {**row, "client": opener.open(client)} if isinstance(client, str) and client.startswith("~") else row


def _existing(folder: Path, *, may_come: bool = False) -> Path:
    if not may_come and not folder.is_dir():
        fail(f"there is no audit log in {folder}", code=EXIT_USAGE)
    return folder


def _mention(reading: Reading) -> None:
    if reading.unreadable:
        warn(f"{_count(reading.unreadable, 'line')} could not be read; run `kt audit verify`")


def _filter(key: str | None, status: str | None) -> Match:
    if status is not None and not re.fullmatch(r"[1-5](\d\d|xx)", status):
        raise click.BadParameter("a status is a number such as 409, or a class such as 4xx", param_hint="--status")
    prefix = (status or "").removesuffix("xx")

    def match(row: Row) -> bool:
        return (key is None or row.get("key") == key) and str(row.get("status")).startswith(prefix)

    return match


def _moment(text: str | None, option: str) -> datetime | None:
    if text is None:
        return None
    if ago := _AGO.fullmatch(text):
        return datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is neither a date, nor a time, nor a span such as 24h", param_hint=option)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _cells(row: Row) -> dict[str, object]:
    """A row as the table has it. What came from outside is printed without control characters."""
    cells: dict[str, object] = {name: _plain(row.get(name)) for name in ("key", "operation", "model", "target", "id")}
    cells["time"] = time_of(row)
    cells["status"] = row.get("status")
    if row["kind"] == "gap":
        count = row["records"]
        cells["outcome"] = "GAP"
        cells["verdicts"] = f"{'some' if count is None else count} records: {row['reason']}"
        return cells
    if row["kind"] == "change":
        cells["outcome"] = "CHANGE"
        cells["verdicts"] = _plain(f"{row['action']} {row['object_name']} by {row['actor']}")
        return cells
    if row["kind"] == "shadow":
        cells["outcome"] = "SHADOW"
        cells["verdicts"] = ", ".join(_remarkable(row))
        return cells
    cells["outcome"] = row.get("outcome") or "open"
    cells["tokens"] = f"{row.get('prompt_tokens', 0)}+{row.get('completion_tokens', 0)}"
    duration = row.get("duration_us")
    cells["ms"] = f"{duration / 1000:.1f}" if isinstance(duration, int) else None
    cells["verdicts"] = ", ".join(_remarkable(row))
    return cells


def _remarkable(row: Row) -> Iterator[str]:
    decisions = row["decisions"]
    assert isinstance(decisions, list)
    for decision in decisions:
        if decision["verdict"] != "allow":
            yield f"{decision['verdict']} {decision['reason'] or decision['policy']}"


def _plain(value: object) -> str | None:
    """A client chooses its model's name: an escape sequence in it must not reach the terminal."""
    return (
        None
        if value is None
        else "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in str(value))
    )


def _print_aligned(cells: Iterable[str]) -> None:
    click.echo("  ".join(cell.ljust(width) for cell, width in zip(cells, _WIDTHS, strict=True)).rstrip())


def _print_json_lines(rows: Iterable[Row]) -> None:
    for row in rows:
        click.echo(orjson.dumps(row))


def _write(rows: Iterable[Row], form: str, file: TextIO) -> None:
    if form == "jsonl":
        for row in rows:
            file.write(orjson.dumps(row).decode() + "\n")
        return
    table = csv.writer(file, lineterminator="\n")
    table.writerow(COLUMNS)
    table.writerows([_csv_cell(row.get(column)) for column in COLUMNS] for row in rows)


def _csv_cell(value: object) -> object:
    match value:
        case str() if value.startswith(("=", "+", "-", "@", "\t", "\r")):
            # A spreadsheet would take it for a formula.
            return f"'{value}"
        case list() | dict():
            return orjson.dumps(value).decode() if value else ""
        case _:
            return value
