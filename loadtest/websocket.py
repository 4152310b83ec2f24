"""Measures what the gateway adds to a WebSocket, beside nginx's WebSocket proxying in the same run.

Sides take turns in short slices, as in `loadtest.compare`: direct, nginx, and the gateway unguarded, with its audit log
and with a scan of 40 patterns. A message is a text of 200 bytes; it goes to an echoing provider and comes back, so a
round trip is two messages. The servers under test have one core, the provider and the load share the other.

    python -m loadtest.websocket            # about a minute; a table, and what an idle socket costs
    python -m loadtest.websocket --quick    # a few seconds, for a first look
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import sys
import tempfile
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from loadtest import cpu, socket_client, stack
from loadtest.client import LoadError, percentile
from loadtest.compare import machine
from loadtest.slices import Side, meter

DIRECT: Final = "direct"
YARDSTICK: Final = "nginx"
GATE_P99_US: Final = 1000.0
"""Added to the 99th percentile of a round trip at 2,000 messages a second and way."""
GATE_IDLE_BYTES: Final = 30 * 1024
"""Resident memory for each of 1,000 idle sockets, the provider's side of it included."""


@dataclass(frozen=True)
class Plan:
    """How long and how hard. Seconds are of one slice; `rate` counts the messages of one way."""

    rounds: int = 5
    seconds: float = 2.0
    sockets: int = 32
    rate: float = 2000.0
    idle: int = 1000

    @classmethod
    def quick(cls) -> Plan:
        """Enough to see whether something is badly wrong."""
        return cls(rounds=2, seconds=0.5)


@dataclass(frozen=True)
class Slice:
    """One side's turn: messages (both ways) per second, CPU in µs per message, round trips in µs."""

    per_second: float
    cpu: float
    p50: float
    p99: float


def opening(side: Side) -> bytes:
    """The handshake with a side."""
    return socket_client.handshake(f"/v1/realtime?model={stack.MODEL}", f"localhost:{side.port}", side.key)


def measure(side: Side, load: Callable[[], socket_client.Samples]) -> Slice:
    """One slice. CPU is that of the worker process, all its threads, user and kernel."""
    processes = meter(side)
    before = processes.read()
    samples = load()
    messages = 2 * len(samples.latency)
    latency = array("q", samples.latency)
    return Slice(
        messages / samples.seconds,
        processes.fields(before, messages, samples.seconds).get("cpu", float("nan")),
        percentile(latency, 0.5),
        percentile(latency, 0.99),
    )


def with_worker(side: Side) -> Side:
    """The side, and which of its processes does the work."""
    processes = meter(side)
    before = processes.read()
    socket_client.closed_loop(side.address, partial(opening, side), sockets=8, seconds=0.2)
    after = processes.read()
    return replace(side, worker=max(after, key=lambda pid: after[pid].threads - before[pid].threads))


@contextlib.contextmanager
def echo(folder: Path, cores: set[int]) -> Iterator[stack.Server]:
    """The provider that echoes."""
    port = stack.free_port()
    command = [sys.executable, "-m", "loadtest.echo", f"--port={port}"]
    path = os.pathsep.join(filter(None, (str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH"))))
    with stack.running("echo", command, port, folder, cores=cores, environ={"PYTHONPATH": path}) as server:
        yield server


def idle_bytes(side: Side, count: int) -> float:
    """Resident memory that one idle socket costs: it has carried a message each way and is open."""
    assert side.worker is not None
    worker = side.worker
    found: list[int] = []
    for sockets in (count, count):  # the first time fills what is kept for the next: pools, arenas, caches
        before = cpu.resident_bytes(worker)
        socket_client.idle(
            side.address,
            partial(opening, side),
            sockets=sockets,
            while_open=lambda: found.append(cpu.resident_bytes(worker)),
        )
        found.append(before)
    return max(found[0] - found[1], found[2] - found[3]) / count


def hurry(pids: list[int]) -> None:
    """Put all that takes part before whatever else the machine runs; only root may, and others go without.

    Where Linux groups processes by session (sched(7), "The autogroup feature"), priorities count within a session only,
    and the session has one of its own.
    """
    for pid in (os.getpid(), *pids):
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{pid}/task").iterdir():
                os.setpriority(os.PRIO_PROCESS, int(task.name), -15)
            Path(f"/proc/{pid}/autogroup").write_text("-15")


def compare(plan: Plan, sides: list[Side], console: Console) -> dict[str, list[tuple[Slice, Slice]]]:
    """Round by round, each side in turn: as many messages as go, then at the fixed rate."""
    slices: dict[str, list[tuple[Slice, Slice]]] = {side.name: [] for side in sides}
    with console.status("") as status:
        for number in range(plan.rounds):
            for side in sides[number % len(sides) :] + sides[: number % len(sides)]:
                status.update(f"round {number + 1} of {plan.rounds}: {side.name}")
                ask = partial(opening, side)
                flat_out = partial(
                    socket_client.closed_loop, side.address, ask, sockets=plan.sockets, seconds=plan.seconds
                )
                paced = partial(
                    socket_client.open_loop,
                    side.address,
                    ask,
                    sockets=plan.sockets,
                    rate=plan.rate,
                    seconds=plan.seconds,
                )
                slices[side.name].append((measure(side, flat_out), measure(side, paced)))
    return slices


def table(plan: Plan, slices: dict[str, list[tuple[Slice, Slice]]]) -> Table:
    """Medians over the rounds; ratios and additions are of the same round."""
    title = f"WebSocket, 200-byte texts, {plan.sockets} sockets: medians of {plan.rounds} rounds"
    found = Table(title=title, title_justify="left")
    found.add_column("side")
    rate = f"at {plan.rate:g}/s each way"
    for heading in ("CPU µs a message", "× nginx", "messages/s", f"CPU µs {rate}", "added p50 µs", "added p99 µs"):
        found.add_column(heading, justify="right")
    for name, pairs in slices.items():
        ratios = [mine[0].cpu / nginx[0].cpu for mine, nginx in zip(pairs, slices[YARDSTICK], strict=True)]
        direct = name == DIRECT
        found.add_row(
            name,
            "–" if direct else f"{statistics.median(one.cpu for one, _ in pairs):.1f}",
            "–" if direct else f"{statistics.median(ratios):.2f}",
            f"{statistics.median(one.per_second for one, _ in pairs):,.0f}",
            "–" if direct else f"{statistics.median(one.cpu for _, one in pairs):.1f}",
            "–" if direct else f"{added(slices, name, 'p50'):.0f}",
            "–" if direct else f"{added(slices, name, 'p99'):.0f}",
        )
    return found


def added(slices: dict[str, list[tuple[Slice, Slice]]], name: str, what: str) -> float:
    """What a side adds to a round trip at the fixed rate, in µs: the median of the rounds' differences."""
    pairs = zip(slices[name], slices[DIRECT], strict=True)
    differences: list[float] = [getattr(mine, what) - getattr(direct, what) for (_, mine), (_, direct) in pairs]
    return statistics.median(differences)


def run(plan: Plan, console: Console) -> bool:
    """Start everything, measure, print; whether both bars are held."""
    cores = sorted(os.sched_getaffinity(0))
    ours, others = {cores[0]}, {cores[-1]}
    facts = machine()
    console.print(f"{facts['cpu']}, {facts['cores']} cores, load before {facts['load_average_before'][0]:.2f}")
    with contextlib.ExitStack() as held:
        folder = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="loadtest-")))
        provider = held.enter_context(echo(folder, others))
        proxy = held.enter_context(stack.nginx(folder, provider.port, cores=ours, upgrades=True))
        gateway = held.enter_context(stack.gateway(folder, {stack.MODEL: provider.port}, cores=ours))
        os.sched_setaffinity(0, others)
        server = gateway.server
        sides = [
            Side(DIRECT, provider.port),
            with_worker(Side(YARDSTICK, proxy.port, proxy.pid)),
            *(
                with_worker(Side(f"gateway {name}", server.port, server.pid, gateway.keys.get(name, "")))
                for name in ("bare", "default", "scan")
            ),
        ]
        hurry([provider.pid, *(pid for side in sides if side.pid is not None for pid in cpu.family(side.pid))])
        slices = compare(plan, sides, console)
        console.print(table(plan, slices))
        memory = {side.name: idle_bytes(side, plan.idle) for side in sides[1:3]}
    for name, value in memory.items():
        console.print(f"{plan.idle} idle sockets, {name}: {value / 1024:.1f} KB each (both sides of each)")
    p99 = added(slices, "gateway default", "p99")
    console.print(
        f"added p99 {p99:.0f} µs (bar {GATE_P99_US:.0f}), idle {memory['gateway bare'] / 1024:.1f} KB (bar 30)"
    )
    return p99 < GATE_P99_US and memory["gateway bare"] < GATE_IDLE_BYTES


def main() -> int:
    """Measure and print. 1 if a server did not come up, or with `--check` a bar is missed."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.websocket", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="short slices, few rounds: a first look, not a figure")
    parser.add_argument("--rounds", type=int, help="how often each side gets its turn")
    parser.add_argument("--seconds", type=float, help="how long a slice is")
    parser.add_argument("--rate", type=float, help="messages a second and way where the rate is fixed")
    parser.add_argument("--check", action="store_true", help="exit 1 if a bar is missed")
    arguments = parser.parse_args()
    plan = Plan.quick() if arguments.quick else Plan()
    given = {name: getattr(arguments, name) for name in ("rounds", "seconds", "rate")}
    plan = replace(plan, **{name: value for name, value in given.items() if value is not None})
    try:
        held = run(plan, Console(width=None if sys.stdout.isatty() else 120))
    except (stack.StartError, LoadError) as problem:
        print(problem, file=sys.stderr)
        return 1
    return 1 if arguments.check and not held else 0


if __name__ == "__main__":
    sys.exit(main())
