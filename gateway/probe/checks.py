"""What `kt doctor` looks at besides times: each check gives findings, and none changes anything.

A finding has an area, a status, what was found, and the next step where one is needed. Checks are handed the loaded
configurations, the environment and the folders; they send nothing to a provider but a connection and, where it takes
one, a `HEAD /` without credentials, whose `Date` tells how far this machine's clock is off.
"""

from __future__ import annotations

import asyncio
import ctypes
import enum
import errno
import os
import resource
import socket
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Final

import msgspec

from gateway.config.lint import lint, missing_secret
from gateway.config.load import LoadedConfiguration, check
from gateway.config.problems import Problem, Severity, in_order
from gateway.control.store.errors import StoreError, StoreMissing
from gateway.control.store.location import Location
from gateway.control.store.store import Store
from gateway.errors import GatewayError
from gateway.explain import compile_apart
from gateway.routes import Target
from gateway.types import Destination, ResponseHead
from gateway.upstream.egress import Egress
from gateway.upstream.mock import MOCK_HOST
from gateway.upstream.pool import Pools

ENOUGH_DESCRIPTORS: Final = 4096
"""A stream takes two; below this a few hundred clients exhaust them."""
CLOCK_SECONDS: Final = 30.0
"""A clock that is further off breaks expiry of keys, and signatures (AWS refuses after five minutes)."""
FREE_BYTES: Final = 1 << 30
REACH_SECONDS: Final = 10.0
_UNSYNCHRONISED: Final = 0x40  # STA_UNSYNC, adjtimex(2)


class Status(enum.StrEnum):
    """How a check ended."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    NOTE = "note"
    """Neither good nor bad: something that was not looked at, or a figure."""


class Finding(msgspec.Struct, frozen=True):
    """One line of the doctor's table."""

    area: str
    status: Status
    found: str
    next_step: str = ""


def configuration(paths: Sequence[str], environ: Mapping[str, str]) -> tuple[list[LoadedConfiguration], list[Finding]]:
    """The configurations that are right, and what is wrong or doubtful with them; missing secrets are told apart."""
    loaded, problems = check(paths)
    secret_paths = [problem for problem in lint(loaded, environ) if ".secret_key_ref" not in problem.path]
    findings = [_of_problem(problem) for problem in in_order([*problems, *secret_paths])]
    names = ", ".join(one.id for one in loaded)
    if loaded and not problems:
        findings.insert(0, Finding("configuration", Status.OK, f"{len(loaded)} read: {names}"))
    return loaded, findings


def _of_problem(problem: Problem) -> Finding:
    status = Status.FAILED if problem.severity is Severity.ERROR else Status.WARNING
    path = f"{problem.path}: " if problem.path else ""
    return Finding("configuration", status, f"{problem.place}: {path}{problem.message}", problem.hint)


def secrets(loaded: Sequence[LoadedConfiguration], environ: Mapping[str, str]) -> Iterator[Finding]:
    """Whether each target's secret is there. The secret itself is only looked for."""
    found = []
    for one in loaded:
        for target in one.configuration.providers.targets:
            if target.secret_key_ref is None:
                continue
            if reason := missing_secret(target.secret_key_ref, environ):
                step = f"until it is there, `{target.id}` is unavailable and the others serve"
                yield Finding("secrets", Status.WARNING, f"{target.id}: {reason}", step)
            else:
                found.append(target.id)
    if found:
        yield Finding("secrets", Status.OK, f"found for {', '.join(dict.fromkeys(found))}")


def state_files(state: Path) -> Iterator[Finding]:
    """Whether the state folder is this user's, closed to others, writable, and has room."""
    area = "state files"
    if not state.exists():
        yield Finding(area, Status.NOTE, f"{state} is not there yet; the gateway makes it")
        return
    if not os.access(state, os.W_OK | os.X_OK):
        yield Finding(area, Status.FAILED, f"{state} is not writable for this user", "run kt as the gateway's user")
        return
    foreign = [path for path in _with_secrets(state) if path.stat().st_uid != os.geteuid()]
    exposed = list(_exposed(state))
    yield from exposed
    for path in foreign:
        yield Finding(area, Status.WARNING, f"{path} belongs to another user", "run kt as the gateway's user")
    free = os.statvfs(state).f_bavail * os.statvfs(state).f_frsize
    if free < FREE_BYTES:
        step = "make room: when the disk is full, no request can be recorded"
        yield Finding(area, Status.WARNING, f"{free / 2**20:,.0f} MB free under {state}", step)
    if not exposed and not foreign:
        yield Finding(area, Status.OK, f"{state}, closed to others, {free / 2**30:,.0f} GB free")


def _exposed(state: Path) -> Iterator[Finding]:
    """What others than its owner can read. Of the folder a group may, as container platforms have it."""
    for path in [state, *_with_secrets(state)]:
        mode = _mode(path)
        told = f"{path} can be read by {'everybody' if mode & 0o007 else 'its group'} ({mode:04o})"
        if mode & 0o007:
            yield Finding("state files", Status.FAILED, told, f"chmod go= {path}")
        elif mode & 0o070 and path != state:
            yield Finding("state files", Status.WARNING, told, f"chmod go= {path}")


def _with_secrets(state: Path) -> list[Path]:
    """What in the folder must be nobody else's."""
    found = [path for pattern in ("*.db", "audit-key*", "*token*") for path in sorted(state.glob(pattern))]
    return [path for path in found if ".pub" not in path.suffixes]


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def store(url: str) -> Finding:
    """Whether the store opens. It is migrated when it is older, as every command does."""
    area = "store"
    try:
        opened = await Store.open(url, create=False, busy_seconds=1.0)
    except StoreMissing:
        return Finding(area, Status.NOTE, f"{Location(url)} is not there yet; the gateway or `kt gateway-key` makes it")
    except StoreError as error:
        return Finding(area, Status.FAILED, str(error), "without its store a gateway that starts knows no keys")
    await opened.close()
    return Finding(area, Status.OK, f"{opened.location} opens")


def port(host: str, number: int) -> Finding:
    """Whether a gateway could listen there, or somebody does."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((host, number))
        except OSError as error:
            return _port_taken(host, number, error)
    return Finding("port", Status.OK, f"{host}:{number} is free")


def _port_taken(host: str, number: int, error: OSError) -> Finding:
    if error.errno != errno.EADDRINUSE:
        return Finding("port", Status.FAILED, f"{host}:{number}: {error.strerror}", "check gateway.listen")
    if _is_gateway(host, number):
        return Finding("port", Status.OK, f"{host}:{number} is held by a gateway that runs")
    return Finding("port", Status.FAILED, f"{host}:{number} is held by another program", "choose another with --port")


def _is_gateway(host: str, number: int) -> bool:
    request = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
    address = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 (compared, not bound)
    try:
        with socket.create_connection((address, number), timeout=2) as sock:
            sock.sendall(request)
            return b" 200 " in sock.recv(4096)
    except OSError:
        return False


def descriptors() -> Finding:
    """How many files and sockets a process of this user may have open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    told = f"{soft:,} for a process (at most {hard:,})"
    if soft >= ENOUGH_DESCRIPTORS:
        return Finding("descriptors", Status.OK, told)
    return Finding("descriptors", Status.WARNING, told, "ulimit -n 65536, or LimitNOFILE= of the systemd unit")


def clock() -> Finding:
    """What the kernel says of its clock: whether something keeps it right."""
    buffer = ctypes.create_string_buffer(512)  # struct timex; modes 0 at its beginning: read only
    try:
        if ctypes.CDLL(None, use_errno=True).adjtimex(buffer) < 0:
            raise OSError(ctypes.get_errno(), "adjtimex")
    except (OSError, AttributeError):
        return Finding("clock", Status.NOTE, "the kernel does not say whether its clock is kept right")
    # `status` follows modes, offset, freq, maxerror and esterror: an int, padding, and four longs.
    status = ctypes.c_int.from_buffer(buffer, 5 * ctypes.sizeof(ctypes.c_long)).value
    if status & _UNSYNCHRONISED:
        return Finding(
            "clock", Status.WARNING, "nothing keeps this machine's clock right", "run chrony or another NTP client"
        )
    return Finding("clock", Status.OK, "kept right by NTP")


async def targets(loaded: Sequence[LoadedConfiguration], environ: Mapping[str, str]) -> list[Finding]:
    """Whether each target's provider can be reached, with proxy and TLS, and what its clock says."""
    try:
        snapshot = await asyncio.to_thread(compile_apart, loaded, environ)
        egress = Egress.from_environment(environ)
    except (GatewayError, ValueError) as error:
        return [Finding("targets", Status.FAILED, str(error), "mend the configuration first")]
    loop = asyncio.get_running_loop()
    pools = Pools(loop, clock=loop.time, egress=egress)
    sweeper = asyncio.create_task(_sweep(pools))
    seen: dict[Destination, Target] = {}
    for target in snapshot.targets:
        if target.destination.origin.host != MOCK_HOST:
            seen.setdefault(target.destination, target)
    try:
        found = await asyncio.gather(*(_reach(pools, target) for target in seen.values()))
    finally:
        sweeper.cancel()
        pools.close()
    mocks = [target.id for target in snapshot.targets if target.destination.origin.host == MOCK_HOST]
    if mocks:
        found.append([Finding("targets", Status.OK, f"{', '.join(mocks)}: answers by itself")])
    return [finding for some in found for finding in some]


async def _sweep(pools: Pools) -> None:
    """Deadlines are looked at from outside."""
    while True:
        await asyncio.sleep(0.1)
        pools.sweep(asyncio.get_running_loop().time())


class _Probe:
    """Waits for one connection, sends `HEAD /` on it, and hears of the answer's head."""

    def __init__(self, target: Target) -> None:
        loop = asyncio.get_running_loop()
        self._target = target
        self.connected: asyncio.Future[float] = loop.create_future()
        self.date: asyncio.Future[str] = loop.create_future()

    def on_connection(self, connection: object) -> None:
        self.connected.set_result(time.perf_counter())
        origin = self._target.destination.origin
        fields = (f"host: {origin.host}:{origin.port}", "user-agent: kt-doctor", "connection: close", "", "")
        connection.send("\r\n".join(("HEAD / HTTP/1.1", *fields)).encode(), b"", self)  # type: ignore[attr-defined]

    def on_connect_failed(self, error: GatewayError) -> None:
        self.connected.set_exception(error)

    def on_response_head(self, head: ResponseHead, data: bytes, end: bool) -> None:
        if not self.date.done():
            self.date.set_result((head.get(b"date") or b"").decode("latin-1"))

    def on_response_data(self, data: bytes, end: bool) -> None:
        """Of no interest."""

    def on_response_failed(self, error: GatewayError) -> None:
        if not self.date.done():
            self.date.set_result("")


async def _reach(pools: Pools, target: Target) -> list[Finding]:
    area, origin = "targets", target.destination.origin
    probe = _Probe(target)
    begin = time.perf_counter()
    pools.wait(target.destination, probe)
    try:
        async with asyncio.timeout(REACH_SECONDS):
            took = await probe.connected - begin
    except GatewayError as error:
        return [Finding(area, Status.FAILED, f"{target.id}: {error.message}")]
    except TimeoutError:
        return [Finding(area, Status.FAILED, f"{target.id}: {origin} did not answer within {REACH_SECONDS:g} s")]
    found = [Finding(area, Status.OK, f"{target.id}: {origin} reached in {1000 * took:.0f} ms")]
    if target.fault:
        found.append(Finding(area, Status.WARNING, f"{target.id}: {target.fault}"))
    try:
        async with asyncio.timeout(REACH_SECONDS):
            date = await probe.date
    except TimeoutError:
        return found
    return [*found, *clock_against(str(origin), date, time.time())]


def clock_against(origin: str, date: str, now: float) -> list[Finding]:
    """What a provider's `Date` says of this machine's clock; nothing where they agree."""
    try:
        off = now - parsedate_to_datetime(date).timestamp()
    except (ValueError, TypeError):
        return []
    if abs(off) < CLOCK_SECONDS:
        return []
    told = f"this clock is {abs(off):,.0f} s {'ahead of' if off > 0 else 'behind'} that of {origin}"
    return [Finding("clock", Status.FAILED, told, "set this machine's clock: keys' expiry and signatures depend on it")]
