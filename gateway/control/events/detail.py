"""One event in full, as the audit log itself has it: both records, their numbers and hashes, every decision and note.

The index only says where the two lines stand. What it shows of a line is what the line says; whether the log is whole
is `verify`'s to judge.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from gateway.audit.chain import Malformed, parse
from gateway.control.events.ingest import read_line
from gateway.control.events.query import Query


def show(query: Query, audit_folder: Path, id: str) -> dict[str, Any] | None:
    """The event with this number or request id; None where there is none. Its `decisions` are in the order in which
    they were made; `records` are the lines of the log, `start` first, without those that are not there any more."""
    number = query.find(id)
    if number is None:
        return None
    event = query.events([number])[0]
    lines = [_line(audit_folder, place) for place in query.places(number)]
    start, finish = (line["record"] if line else {} for line in lines)
    return {
        **event,
        "client": start.get("client"),
        "policy_version": start.get("policy_version"),
        "attributes": start.get("attributes") or {},
        "bytes_sent": finish.get("bytes_sent"),
        "decisions": [*start.get("decisions", ()), *finish.get("decisions", ())],
        "notes": finish.get("notes", []),
        "records": [line for line in lines if line],
    }


def _line(folder: Path, place: tuple[str, int] | None) -> dict[str, Any] | None:
    if place is None:
        return None
    segment, offset = place
    try:
        link = parse(read_line(folder / segment, offset).rstrip(b"\n"))
    except Malformed:
        return None
    record = orjson.loads(link.record)
    return {"segment": segment, "sequence": link.sequence, "hash": link.hash.hex(), "record": record}
