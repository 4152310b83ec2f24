"""The audit log over the API: what it consists of, and whether it is whole.

To verify is minutes of work for a large log, so it is done by a process of its own, at low priority, one at a time: the
very `kt audit verify` that a person would run.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any, Final

import msgspec
import orjson

from gateway.audit.checkpoint import CHECKPOINTS, key_id, read_public_key
from gateway.audit.layout import MANIFEST
from gateway.audit.segments import names_in
from gateway.control.events.query import Query
from gateway.control.events.service import Unavailable
from gateway.control.rest import event_shapes as shapes
from gateway.control.rest.call import Call
from gateway.control.rest.events import moment
from gateway.errors import NotFound, Overloaded

VERIFY_SECONDS: Final = 3600.0
_ARGUMENTS: Final = ("-c", "from gateway.commands.main import main; main()", "audit", "verify", "--json")
_NICENESS: Final = 10
_SEALED_MODE: Final = 0o222

_verifying = asyncio.Lock()


async def state(call: Call) -> dict[str, Any]:
    """What the log consists of."""
    folder = call.plane.events.audit_folder
    told = await asyncio.to_thread(_state, folder)
    try:
        gaps = await call.plane.events.ask(Query.gaps)
    except Unavailable:
        gaps = []
    return {**told, "gaps": [{**gap, "at": moment(gap["at"])} for gap in gaps]}


def _state(folder: Path) -> dict[str, Any]:
    try:
        names = names_in(folder)
    except FileNotFoundError:
        names = []
    files = [folder / str(name) for name in names]
    checkpoints = folder / CHECKPOINTS
    return {
        "segments": len(names),
        "open": sum(1 for file in files if file.stat().st_mode & _SEALED_MODE),
        "writers": len({name.writer for name in names}),
        "bytes": sum(file.stat().st_size for file in files),
        "since": min((name.date for name in names), default=None),
        "checkpoints": checkpoints.read_bytes().count(b"\n") if checkpoints.exists() else 0,
        "key": _key(folder.parent / "audit-key.pub"),
    }


def _key(path: Path) -> str | None:
    try:
        return key_id(read_public_key(path))
    except (OSError, ValueError):
        return None


async def verify(call: Call) -> shapes.AuditReport:
    """Whether the log is whole. Raises NotFound where there is none, Overloaded while it is being verified already."""
    folder = call.plane.events.audit_folder
    if not (folder / MANIFEST).exists():
        raise NotFound("There is no audit log yet.")
    if _verifying.locked():
        raise Overloaded("The log is being verified already; wait for that one.")
    async with _verifying:
        return _report(await _run(folder))


async def _run(folder: Path) -> bytes:
    arguments = [*_ARGUMENTS, str(folder)]
    public = folder.parent / "audit-key.pub"
    # The key is there from the start, the first checkpoint a minute later: until then there is nothing to compare with.
    if public.exists() and (folder / CHECKPOINTS).exists():
        arguments += ["--public-key", str(public)]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        os.setpriority(os.PRIO_PROCESS, process.pid, _NICENESS)
        async with asyncio.timeout(VERIFY_SECONDS):
            out, _ = await process.communicate()
    except BaseException:
        process.kill()
        await process.wait()
        raise
    return out


def _report(out: bytes) -> shapes.AuditReport:
    try:
        told = orjson.loads(out)
        faults = tuple(msgspec.convert(problem, shapes.AuditFault, strict=False) for problem in told["problems"])
    except (orjson.JSONDecodeError, msgspec.ValidationError, KeyError) as error:
        raise Overloaded("The log could not be verified; `kt audit verify` says why.") from error
    unsigned = told["unsigned_records"]
    return shapes.AuditReport(
        whole=told["ok"],
        records=told["records"],
        segments=told["segments"],
        writers=told["writers"],
        bytes=told["bytes"],
        signed=None if unsigned is None else told["records"] - unsigned,
        faults=faults,
    )
