"""Twenty minutes of everything at once, and what must not have changed in them: `make soak`.

Users ask for whole answers and streams, leave in the middle, send 32 KB, are refused; a second provider resets, stalls,
cuts and errs. Each stream's events are counted. Meanwhile memory, descriptors and loop lag of every process of the
gateway are sampled; `loadtest.steady` says what of them is steady enough. The exit code is 0 only if everything held.

    python -m loadtest.soak --seconds 1200 --users 40
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from loadtest import cpu, stack
from loadtest.steady import Counts, ProcessSample, Sample, Verdict, judge, lag_buckets, sample_of

CHUNKS: Final = 40
FAULTY: Final = "gpt-4o-faulty"
ANSWER_SECONDS: Final = 30.0
SETTLE_SECONDS: Final = 4.0
"""After the last request, for connections to close and records to reach the log."""
FAULT_TIMEOUTS: Final = {"first_byte_seconds": 2, "idle_seconds": 1}


class Lost(Exception):
    """A stream whose events were not those that the provider sent."""


async def _exchange(port: int, key: str, body: bytes, *, leave_after: int = 0) -> tuple[int, bytes]:
    """Status and body of one request on a connection of its own; `leave_after` closes it after so many events."""
    reader, writer = await asyncio.open_connection(stack.HOST, port)
    try:
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: {stack.HOST}:{port}\r\nContent-Type: application/json\r\n"
            f"Authorization: Bearer {key}\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        received = await reader.readuntil(b"\r\n\r\n")
        status = int(received.split(b" ", 2)[1])
        text = b""
        while data := await reader.read(65536):
            text += data
            if leave_after and text.count(b"\n\n") >= leave_after:
                break
        return status, text
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def check_stream(status: int, text: bytes, chunks: int) -> str:
    """What became of a stream: `complete`, or `failed` where that was said. Raises Lost."""
    if status != 200:
        return "failed"
    events = text.count(b'"content":" ')
    if b"data: [DONE]" in text:
        if events != chunks:
            raise Lost(f"{events} of {chunks} events in a stream that ended with [DONE]")
        return "complete"
    if b'"error"' in text:
        return "failed"
    raise Lost(f"a stream ended after {events} of {chunks} events without a word")


class Users:
    """The load. `counts` says what came back."""

    def __init__(self, port: int, keys: dict[str, str]) -> None:
        self._port = port
        self._keys = keys
        self.counts = Counts()
        self.errors: Counter[str] = Counter()
        self._stop = asyncio.Event()
        self._bodies = {
            "short": stack.prompt(1024),
            "large": stack.prompt(32 * 1024),
            "stream": stack.prompt(2048, stream=True),
            "left": stack.prompt(2048, stream=True),
            "faulty": stack.prompt(1024, model=FAULTY),
            "faulty stream": stack.prompt(1024, stream=True, model=FAULTY),
            "refused": stack.prompt(1024, text=f"What of {stack.BLOCKED_TERM}?"),
        }

    async def run(self, users: int, seconds: float) -> None:
        """Keep so many users busy for so long."""
        tasks = [asyncio.create_task(self._user(random.Random(number))) for number in range(users)]
        await asyncio.sleep(seconds)
        self._stop.set()
        await asyncio.gather(*tasks)

    async def _user(self, chance: random.Random) -> None:
        kinds = list(self._bodies)
        shares = (6, 2, 4, 1, 1, 1, 1)
        while not self._stop.is_set():
            await self._ask(chance.choices(kinds, shares)[0])
            await asyncio.sleep(chance.uniform(0.05, 0.3))

    async def _ask(self, kind: str) -> None:
        key = self._keys["refusing" if kind == "refused" else "default"]
        self.counts.sent += 1
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                leave = 3 if kind == "left" else 0
                status, text = await _exchange(self._port, key, self._bodies[kind], leave_after=leave)
            self._check(kind, status, text)
        except Lost as lost:
            self.counts.lost += 1
            self.errors[str(lost)] += 1
        except (OSError, EOFError, TimeoutError) as error:
            self.counts.unanswered += 1
            self.errors[f"{kind}: {error!r}"] += 1

    def _check(self, kind: str, status: int, text: bytes) -> None:
        counts = self.counts
        if kind in ("stream", "faulty stream"):
            outcome = check_stream(status, text, CHUNKS)
            counts.streams += 1
            counts.events += CHUNKS if outcome == "complete" else 0
            if kind == "stream" and outcome != "complete":
                counts.wrong += 1
                self.errors[f"{kind}: {status} {text[-200:]!r}"] += 1
        elif kind == "left":
            counts.left += 1
        else:
            expected = {"refused": (409,), "faulty": (200, 429, 500, 502, 503, 504)}.get(kind, (200,))
            if status not in expected:
                counts.wrong += 1
                self.errors[f"{kind}: {status} {text[-200:]!r}"] += 1
        counts.answered += 1


class Sampler:
    """Looks at the gateway's processes and its metrics now and then."""

    def __init__(self, port: int, pid: int) -> None:
        self._port = port
        self._pid = pid
        self.samples: list[Sample] = []

    async def run(self, every: float, on_sample: Callable[[Sample], None]) -> None:
        """Sample until cancelled."""
        while True:
            self.samples.append(await self.take())
            on_sample(self.samples[-1])
            await asyncio.sleep(every)

    async def take(self) -> Sample:
        """One look."""
        processes = [_process(pid) for pid in await asyncio.to_thread(cpu.family, self._pid)]
        reader, writer = await asyncio.open_connection(stack.HOST, self._port)
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        page = await reader.read()
        writer.close()
        return sample_of(time.monotonic(), [process for process in processes if process is not None], page)


def _process(pid: int) -> ProcessSample | None:
    try:
        name = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        descriptors = len(os.listdir(f"/proc/{pid}/fd"))
        return ProcessSample(pid, _role(name), cpu.resident_bytes(pid), descriptors)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None


def _role(command: str) -> str:
    if "gateway.worker" in command:
        return "worker"
    return "control" if "gateway.control" in command else "supervisor"


def _documents(healthy: int, faulty: int) -> dict[str, dict[str, Any]]:
    """The load tests' configurations, with the faulty provider's model beside the healthy one's."""
    kept = ("bare", "default", "refusing")
    found = {name: one for name, one in stack.configurations({stack.MODEL: healthy}).items() if name in kept}
    extra = stack.configurations({FAULTY: faulty})["bare"]["providers"]["targets"][0]
    extra["timeouts"] = FAULT_TIMEOUTS
    for one in found.values():
        one["providers"]["targets"] = [*one["providers"]["targets"], extra]
        one["providers"]["fallback"] = {"circuit_breaker": {"enabled": False}}
    return found


def _audit(folder: Path) -> tuple[int, bool]:
    """Records of exchanges in the audit log, and whether it is whole."""
    command, environ = stack.kt_command(), {**os.environ, "KT_STATE_DIR": str(folder / "gateway-state")}
    assert command is not None
    exported = subprocess.run(
        [command, "audit", "export"], env=environ, capture_output=True, text=True, timeout=300, check=True
    )
    kinds = Counter(json.loads(line)["kind"] for line in exported.stdout.splitlines())
    verified = subprocess.run([command, "audit", "verify"], env=environ, capture_output=True, timeout=300, check=False)
    return kinds["exchange"], verified.returncode == 0


@contextlib.contextmanager
def _servers(folder: Path, workers: int) -> Iterator[stack.Gateway]:
    with (
        stack.provider(folder, ttft_ms=50, gap_ms=20, chunks=CHUNKS) as healthy,
        stack.provider(folder, name="faulty", ttft_ms=50, gap_ms=20, chunks=CHUNKS, faults=2) as faulty,
        stack.gateway(folder, {}, documents=_documents(healthy.port, faulty.port), workers=workers) as gateway,
    ):
        yield gateway


async def _soak(gateway: stack.Gateway, arguments: argparse.Namespace, console: Console) -> tuple[Users, list[Sample]]:
    users = Users(gateway.server.port, dict(gateway.keys))
    sampler = Sampler(gateway.server.port, gateway.server.pid)
    begin = time.monotonic()

    def show(sample: Sample) -> None:
        counts = users.counts
        memory = sum(process.rss for process in sample.processes) / 2**20
        console.print(
            f"{time.monotonic() - begin:6.0f} s  {counts.answered:8,} answered  {counts.events:9,} events"
            f"  {counts.lost} lost  {counts.wrong} wrong  {memory:6.0f} MB"
            f"  {sum(process.descriptors for process in sample.processes):5} descriptors",
            soft_wrap=True,
        )

    sampling = asyncio.create_task(sampler.run(arguments.every, show))
    await users.run(arguments.users, arguments.seconds)
    sampling.cancel()
    await asyncio.gather(sampling, return_exceptions=True)
    await asyncio.sleep(SETTLE_SECONDS)
    sampler.samples.append(await sampler.take())
    return users, sampler.samples


def _table(verdicts: list[Verdict]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("", "what", "measured", "bound"):
        table.add_column(heading)
    for verdict in verdicts:
        mark = "[green]held[/]" if verdict.held else "[red]broken[/]"
        table.add_row(mark, verdict.what, verdict.measured, verdict.bound)
    return table


def main() -> int:
    """0 when everything held."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.soak", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--seconds", type=float, default=1200, help="how long (default 1200)")
    parser.add_argument("--users", type=int, default=40, help="simulated users at once (default 40)")
    parser.add_argument("--workers", type=int, default=2, help="the gateway's workers (default 2)")
    parser.add_argument("--every", type=float, default=5, help="seconds between two looks (default 5)")
    parser.add_argument("--report", type=Path, default=Path("build/soak.json"), help="everything that was measured")
    arguments = parser.parse_args()
    console = Console()
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        folder = Path(name)
        try:
            with _servers(folder, arguments.workers) as gateway:
                users, samples = asyncio.run(_soak(gateway, arguments, console))
                recorded, whole = _audit(folder)
        except stack.StartError as problem:
            console.print(str(problem))
            return 1
    verdicts = judge(samples, users.counts, recorded=recorded, whole=whole)
    console.print(_table(verdicts))
    for error, count in users.errors.most_common(10):
        console.print(f"{count} × {error}", markup=False)
    arguments.report.parent.mkdir(parents=True, exist_ok=True)
    arguments.report.write_text(
        json.dumps(
            {
                "counts": asdict(users.counts),
                "errors": dict(users.errors),
                "verdicts": [verdict._asdict() for verdict in verdicts],
                "samples": [asdict(sample) for sample in samples],
                "lag": lag_buckets(samples),
            },
            indent=1,
        )
    )
    console.print(f"report: {arguments.report.resolve()}")
    return 0 if all(verdict.held for verdict in verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
