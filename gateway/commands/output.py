"""What every command prints: a table for a person, JSON for a program, and one way to fail.

Results go to standard output, everything said about them to standard error, so that `--json` can always be piped.
Commands hand over plain rows; only this module knows how they look.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NoReturn

import click
import orjson

EXIT_OK = 0
EXIT_FAILURE = 1
EXIT_USAGE = 2
"""The command line or a configuration file is wrong."""


def show(rows: Sequence[Mapping[str, object]], columns: Sequence[str], *, as_json: bool) -> None:
    """Print rows: as a JSON array with every field of each row, or as a table of `columns`.

    A column is a field's name; the table's heading is that name in words (`expires_at` is shown as `EXPIRES AT`). A
    field that a row lacks, or that is None, is `null` in JSON and `-` in the table.
    """
    if as_json:
        show_json(list(rows))
        return
    _print_table([[_cell(row.get(column)) for column in columns] for row in rows], columns)


def show_json(value: object) -> None:
    """Print one value as indented JSON."""
    click.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2, default=str).decode())


def warn(message: str) -> None:
    """Say something on standard error and go on."""
    click.echo(f"{click.style('warning', fg='yellow')}: {message}", err=True)


def fail(message: str, *, code: int = EXIT_FAILURE) -> NoReturn:
    """Say on standard error why the command cannot do its work, and leave with `code` (1: failure, 2: usage)."""
    click.echo(f"{click.style('error', fg='red')}: {message}", err=True)
    sys.exit(code)


def _cell(value: object) -> str:
    match value:
        case None | "":
            return "-"
        case bool():
            return "yes" if value else "no"
        case datetime():
            return value.isoformat(sep=" ", timespec="seconds")
        case str():
            return value
        case list() | tuple() | set() | frozenset():
            return ", ".join(sorted(map(str, value)) if isinstance(value, set | frozenset) else map(str, value)) or "-"
        case _:
            return str(value)


def _print_table(cells: Sequence[Sequence[str]], columns: Sequence[str]) -> None:
    # Imported here: rich costs 60 ms, and `--json` and `--help` do without it.
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column.replace("_", " ").upper(), overflow="fold")
    for row in cells:
        table.add_row(*(Text(cell) for cell in row))
    # A pipe has no width: nothing is folded there, so that `grep` and `awk` see whole lines.
    width = None if sys.stdout.isatty() else max(80, 4 * len(columns) + sum(map(len, _widest(cells, columns))))
    Console(file=sys.stdout, width=width, highlight=False, soft_wrap=False).print(table)


def _widest(cells: Sequence[Sequence[str]], columns: Sequence[str]) -> list[str]:
    return [max([columns[index], *(row[index] for row in cells)], key=len) for index in range(len(columns))]
