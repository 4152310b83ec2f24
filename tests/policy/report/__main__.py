"""Print the report. Exit status 1: a goal is missed; 2: there is no data."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.policy.report import answers, injection, pii, safety, secrets
from tests.policy.report.data import FIXTURES, Data
from tests.policy.report.rows import Row, printed

TASKS: dict[str, Callable[[Data], Iterator[Row]]] = {
    "injection": injection.measure,
    "pii": pii.measure,
    "secrets": secrets.measure,
    "citations": answers.measure_citations,
    "quality": answers.measure_quality,
    "safety": safety.measure,
}
"""Each task with what measures it: a new one is one module and one line here."""


def main(arguments: list[str] | None = None) -> int:
    """Measure the tasks that are asked for."""
    parser = argparse.ArgumentParser(prog="make policy-report", description=main.__doc__)
    parser.add_argument("--data", type=Path, default=FIXTURES, help="a folder of labelled data")
    parser.add_argument("--task", action="append", choices=sorted(TASKS), help="only this task; may be given again")
    options = parser.parse_args(arguments)
    data = Data(options.data)
    missed = measured = 0
    for task in options.task or TASKS:
        if not (rows := list(TASKS[task](data))):
            print(f"{task}\n  no data in {options.data}")
            continue
        measured += 1
        missed += sum(row.held is False for row in rows)
        print("\n".join(printed(task, rows)))
    print(f"\n{missed} goals missed" if missed else "\nall goals held")
    return 2 if not measured else 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
