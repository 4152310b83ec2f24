"""Measures, side by side in one run, what the gateway adds to a request, with nginx's `proxy_pass` as the yardstick.

Sides take turns in short slices; reported are medians over the rounds, with the lowest and highest beside them. The
servers under test have one core, one of them busy at a time; the providers and the load generator share the other.
What is counted as "CPU" is said in `slices`, what is promised in `gates`.

    python -m loadtest.compare            # some minutes; the tables, and a file in loadtest/results/
    python -m loadtest.compare --quick    # a fraction of that, for a first look
    python -m loadtest.compare --peers    # LiteLLM and Portkey beside it; `python -m loadtest.peers` installs them
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from loadtest import client, cpu, peers, stack
from loadtest.gates import BASELINE, GATES, YARDSTICK, Scenario, Verdict, judge
from loadtest.slices import Side, Slice, closed_slice, find_worker, open_slice, stream_slice
from loadtest.tables import gate_table, process_table, scenario_table

RESULTS: Final = Path(__file__).parent / "results"
KB: Final = 1024
PACED: Final = "gpt-4o-paced"
"""The model that the provider with a pace is asked for."""


@dataclass(frozen=True)
class Plan:
    """How long and how hard. Seconds are of one slice; streams run `chunks` events with `gap_ms` between them."""

    rounds: int = 7
    seconds: float = 1.0
    connections: int = 32
    rate: float = 1000.0
    streams: int = 1000
    gap_ms: float = 200.0
    chunks: int = 40

    @classmethod
    def quick(cls) -> Plan:
        """Seconds instead of minutes: enough to see whether something is badly wrong."""
        return cls(rounds=2, seconds=0.3, streams=100, gap_ms=20.0, chunks=100)

    @property
    def opening_rate(self) -> float:
        """Streams opened a second: all flow for the latter half of their time."""
        return self.streams / (self.chunks * self.gap_ms / 1000 / 2)


def scenarios(
    plan: Plan, fast: Sequence[Side], paced: Sequence[Side], gateways: Sequence[Side], others: Others
) -> list[Scenario]:
    """The whole programme. `fast` and `paced`: direct and nginx before the one provider and the other."""

    def closed(size: int) -> Callable[[Side], Slice]:
        body = stack.prompt(size)
        return lambda side: closed_slice(side, body, plan.connections, plan.seconds)

    def streaming(side: Side) -> Slice:
        return stream_slice(side, stack.prompt(KB, stream=True, model=PACED), plan.streams, plan.opening_rate)

    def few(side: Side) -> Slice:
        count = max(plan.streams // 10, 1)
        rate = plan.opening_rate * count / plan.streams
        return stream_slice(side, stack.prompt(KB, stream=True, model=PACED), count, rate)

    whole = [*fast, *(side for side in gateways if side.name != "gateway decode")]
    streamed = [*paced, *(side for side in gateways if side.name != "gateway scan")]
    # Others are put beside on what everybody does; at sizes and rates at which they would drown there is no figure.
    small_ones = [*whole, *others.whole]
    small = stack.prompt(KB)
    return [
        Scenario("1 KB", "request", small_ones, closed(KB)),
        Scenario("32 KB", "request", whole, closed(32 * KB)),
        Scenario("256 KB", "request", whole, closed(256 * KB)),
        Scenario("stream", "event", streamed, streaming),
        *([Scenario("stream, few", "event", [*streamed, *others.streamed], few)] if others.streamed else []),
        Scenario(
            f"1 KB at {plan.rate:g}/s",
            "request",
            whole,
            lambda side: open_slice(side, small, plan.rate, plan.seconds),
        ),
    ]


@contextlib.contextmanager
def plain_sides(folder: Path, upstream: stack.Server, cores: set[int]) -> Iterator[tuple[Side, Side]]:
    """Direct and nginx before one provider."""
    with stack.nginx(folder, upstream.port, cores=cores, name=f"nginx-{upstream.name}") as proxy:
        yield Side(BASELINE, upstream.port), _with_worker(Side(YARDSTICK, proxy.port, proxy.pid))


@contextlib.contextmanager
def gateway_sides(folder: Path, upstreams: Mapping[str, int], cores: set[int]) -> Iterator[tuple[list[Side], float]]:
    """One gateway, and the keys that choose how much it does; and how long it took to start, in seconds."""
    with stack.gateway(folder, upstreams, cores=cores) as ours:
        sides = [
            _with_worker(Side(f"gateway {name}", ours.server.port, ours.server.pid, ours.keys.get(name, "")))
            for name in ("bare", "default", "scan", "decode", "six")
        ]
        yield sides, ours.server.started_in


@dataclass(frozen=True)
class Others:
    """Other gateways: before the one provider, and before the one with a pace."""

    whole: Sequence[Side] = ()
    streamed: Sequence[Side] = ()
    started_in: Mapping[str, float] = field(default_factory=dict)


@contextlib.contextmanager
def other_sides(folder: Path, fast: stack.Server, slow: stack.Server, cores: set[int]) -> Iterator[Others]:
    """LiteLLM and Portkey. Raises StartError where they are not installed."""
    if not peers.installed():
        raise stack.StartError("LiteLLM and Portkey are not installed. Next step: python -m loadtest.peers")
    with contextlib.ExitStack() as held:
        upstreams = {stack.MODEL: fast.port, PACED: slow.port}
        python = held.enter_context(peers.litellm(folder, upstreams, cores))
        node = held.enter_context(peers.portkey(folder, fast.port, cores))
        paced = held.enter_context(peers.portkey(folder, slow.port, cores, "portkey-paced"))
        lite = _with_worker(Side("LiteLLM", python.server.port, python.server.pid, peers.KEY))
        yield Others(
            [lite, _with_worker(Side("Portkey", node.server.port, node.server.pid, peers.KEY, fields=node.fields))],
            [lite, _with_worker(Side("Portkey", paced.server.port, paced.server.pid, peers.KEY, fields=paced.fields))],
            {"LiteLLM": python.server.started_in, "Portkey": node.server.started_in},
        )


def _with_worker(side: Side) -> Side:
    return replace(side, worker=find_worker(side, stack.prompt(KB)))


def machine() -> dict[str, Any]:
    """Facts without which the figures mean nothing."""
    model = ""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    nginx = stack.nginx_command()
    version = subprocess.run([nginx, "-v"], capture_output=True, text=True).stderr.strip() if nginx else ""
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "nginx": version.rpartition("/")[2],
        "load_average_before": os.getloadavg(),
        **cpu.calibration(),
    }


def commit() -> str:
    """The short name of the commit that was measured, with `+` after it if files differed from it."""
    git = ["git", "-C", str(Path(__file__).parent)]
    name = subprocess.run([*git, "rev-parse", "--short=10", "HEAD"], capture_output=True, text=True).stdout.strip()
    dirty = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True).stdout.strip()
    return (name or "unknown") + ("+" if dirty else "")


def report(done: Sequence[Scenario], facts: Mapping[str, Any], plan: Plan, memory: Mapping[str, Any]) -> dict[str, Any]:
    """Everything measured, as one JSON document."""
    by_name = {scenario.name: scenario for scenario in done}
    verdicts = [judge(gate, by_name) for gate in GATES]
    return {
        "machine": dict(facts),
        "plan": asdict(plan),
        "counted": "scheduler time (user and kernel) of the worker process, all threads; per answer or event",
        "gates": [{**asdict(verdict.gate), **_plain(verdict), "verdict": verdict.word} for verdict in verdicts],
        "processes": dict(memory),
        "scenarios": {
            scenario.name: {
                side: {"slices": [_numbers(asdict(piece)) for piece in pieces]}
                for side, pieces in scenario.slices.items()
            }
            for scenario in done
        },
    }


def _plain(verdict: Verdict) -> dict[str, float | None]:
    return _numbers({"measured": verdict.measured, "low": verdict.low, "high": verdict.high})


def _numbers(values: Mapping[str, float]) -> dict[str, float | None]:
    """JSON has no NaN: what was not measured is null."""
    return {key: None if math.isnan(value) else round(value, 3) for key, value in values.items()}


def run(
    plan: Plan, console: Console, *, gateway: bool, others: bool = False, only: Collection[str] | None = None
) -> dict[str, Any]:
    """Start everything, measure round by round, print the tables; the report."""
    facts = {"when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), "commit": commit(), **machine()}
    ours, beside = _placement()
    with contextlib.ExitStack() as held:
        folder = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="loadtest-")))
        fast = held.enter_context(stack.provider(folder, cores=beside, name="provider-fast"))
        pace = {"gap_ms": plan.gap_ms, "chunks": plan.chunks, "ttft_ms": plan.gap_ms}
        slow = held.enter_context(stack.provider(folder, cores=beside, name="provider-paced", **pace))
        held.enter_context(_with_logs(folder))
        plain = held.enter_context(plain_sides(folder, fast, ours))
        paced = held.enter_context(plain_sides(folder, slow, ours))
        gateways: list[Side] = []
        started: dict[str, float] = {}
        if gateway:
            upstreams = {stack.MODEL: fast.port, PACED: slow.port}
            gateways, took = held.enter_context(gateway_sides(folder, upstreams, ours))
            started["gateway"] = took
        rivals = held.enter_context(other_sides(folder, fast, slow, ours)) if others else Others()
        os.sched_setaffinity(0, beside)
        _hurry([fast, slow], [*plain, *paced, *gateways, *rivals.whole, *rivals.streamed])
        programme = scenarios(plan, plain, paced, gateways, rivals)
        programme = [scenario for scenario in programme if not only or scenario.name in only]
        idle = [*plain, *gateways[:1], *rivals.whole]
        memory = {side.name: cpu.resident_bytes(side.worker) for side in idle if side.worker}
        started = {**started, **rivals.started_in}
        for scenario in programme:
            _measure(scenario, plan.rounds, console)
    by_name = {scenario.name: scenario for scenario in programme}
    console.print(process_table(memory, started))
    console.print(gate_table([judge(gate, by_name) for gate in GATES]))
    return report(programme, facts, plan, {"resident_bytes_idle": memory, "started_in_seconds": started})


def _measure(scenario: Scenario, rounds: int, console: Console) -> None:
    with console.status("") as status:
        for number in range(rounds):
            status.update(f"{scenario.name}: round {number + 1} of {rounds}")
            scenario.round(number)
    console.print(scenario_table(scenario))


@contextlib.contextmanager
def _with_logs(folder: Path) -> Iterator[None]:
    """Add what the servers said last to a failure: their logs go with the folder."""
    try:
        yield
    except client.LoadError as problem:
        logs = [stack.log_tail(log, lines=5) for log in sorted(folder.glob("*.log"))]
        raise client.LoadError("\n".join([str(problem), *filter(None, logs)])) from problem


def _placement() -> tuple[set[int], set[int]]:
    """A core for the servers under test, and one for everybody else; the same for both where there is but one."""
    cores = sorted(os.sched_getaffinity(0))
    return {cores[0]}, {cores[-1]}


def _hurry(providers: Sequence[stack.Server], sides: Sequence[Side]) -> None:
    """Put all that takes part before whatever else the machine runs, equally; only root may, and others go without."""
    pids = {os.getpid(), *(server.pid for server in providers)}
    pids.update(pid for side in sides if side.pid is not None for pid in cpu.family(side.pid))
    with contextlib.suppress(PermissionError):
        for pid in pids:
            for task in Path(f"/proc/{pid}/task").iterdir():
                own = os.getpriority(os.PRIO_PROCESS, int(task.name))  # what gives way to others still does
                os.setpriority(os.PRIO_PROCESS, int(task.name), own - 15)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m loadtest.compare", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="short slices, few rounds: a first look, not a figure")
    parser.add_argument("--only", action="append", metavar="SCENARIO", help="1 KB, 32 KB, stream, …; may be repeated")
    parser.add_argument("--rounds", type=int, help="how often each side gets its turn")
    parser.add_argument("--seconds", type=float, help="how long a slice is, where requests are whole")
    parser.add_argument("--rate", type=float, help="requests a second where the rate is fixed")
    parser.add_argument("--streams", type=int, help="how many streams flow at once")
    parser.add_argument("--chunks", type=int, help="events of a stream")
    parser.add_argument("--peers", action="store_true", help="LiteLLM and Portkey beside it (loadtest/peers.py)")
    parser.add_argument("--no-gateway", action="store_true", help="only direct and nginx")
    parser.add_argument("--json", action="store_true", help="print the report as JSON, and nothing else, on stdout")
    parser.add_argument("--check", action="store_true", help="exit 1 if a gate is missed or was not measured")
    parser.add_argument("--no-save", action="store_true", help="write nothing into loadtest/results/")
    return parser.parse_args()


def main() -> int:
    """Measure, print, save. 0; 1 with `--check` and a gate missed, or if a server did not come up."""
    arguments = _arguments()
    plan = Plan.quick() if arguments.quick else Plan()
    wished = {
        "rounds": arguments.rounds,
        "seconds": arguments.seconds,
        "rate": arguments.rate,
        "streams": arguments.streams,
        "chunks": arguments.chunks,
    }
    plan = Plan(**{**asdict(plan), **{key: value for key, value in wished.items() if value is not None}})
    console = Console(stderr=arguments.json, width=None if sys.stdout.isatty() else 120)
    try:
        wanted = arguments.only
        document = run(plan, console, gateway=not arguments.no_gateway, others=arguments.peers, only=wanted)
    except (stack.StartError, client.LoadError) as problem:
        print(problem, file=sys.stderr)
        return 1
    text = json.dumps(document, indent=1, ensure_ascii=False)
    if arguments.json:
        print(text)
    if not arguments.no_save:
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"{document['machine']['when'][:10]}-{document['machine']['commit'].rstrip('+')}.json"
        path.write_text(text + "\n")
        console.print(f"written to {os.path.relpath(path)}")
    missed = any(gate["verdict"] in ("missed", "not measured") for gate in document["gates"])
    return 1 if arguments.check and missed else 0


if __name__ == "__main__":
    sys.exit(main())
