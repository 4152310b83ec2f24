"""How much processor time a server and its children have used, from Linux's scheduler, in nanoseconds.

`/proc/<pid>/task/<tid>/schedstat` counts what each thread ran, user and kernel together; `/proc/<pid>/stat` counts in
ticks of 10 ms, too coarse for slices of a second. The kernel's work for loopback traffic is done in the sender's
time, so each side pays for what it sends.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Usage:
    """Nanoseconds of one process: its main thread, and all its threads."""

    main: int
    threads: int

    def __sub__(self, earlier: Usage) -> Usage:
        return Usage(self.main - earlier.main, self.threads - earlier.threads)


def family(pid: int) -> list[int]:
    """A process and all its descendants that run now."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name, in parentheses, may hold anything; the fields after it are "state ppid …".
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
        children.setdefault(parent, []).append(int(stat.parent.name))
    found = [pid]
    for member in found:
        found += children.get(member, [])
    return found


def usage(pid: int) -> Usage:
    """What a process has used so far."""
    threads = {task.name: _ran(task) for task in Path(f"/proc/{pid}/task").iterdir()}
    return Usage(threads[str(pid)], sum(threads.values()))


def _ran(task: Path) -> int:
    try:
        return int((task / "schedstat").read_text().split()[0])
    except (FileNotFoundError, ProcessLookupError):
        return 0


def resident_bytes(pid: int) -> int:
    """The memory of a process that is in RAM (VmRSS)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


def calibration() -> dict[str, float]:
    """How fast this machine is just now, so that runs on different days can be compared.

    `loop_ms`: a fixed loop of Python. `idle_wakeup_us`: processor time of one sleep of a millisecond. On a virtual
    machine that may be 60 µs rather than 3, and then figures at low rates are mostly the cost of waking up.
    """
    begin = time.thread_time_ns()
    total = 0
    for number in range(200_000):
        total += number
    middle = time.thread_time_ns()
    for _ in range(100):
        time.sleep(0.001)
    return {"loop_ms": (middle - begin) / 1e6, "idle_wakeup_us": (time.thread_time_ns() - middle) / 100 / 1000}
