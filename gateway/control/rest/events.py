"""Events and usage over the API: `/events`, `/usage`, `/overview`.

Who may read all events sees all; everybody else sees those of their own keys. What is asked is asked of the events
index (`control/events`), in a thread; nothing here is slower with a million events than with a hundred.
"""

from __future__ import annotations

import contextlib
import csv
import io
import time
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
import orjson
from aiohttp import web

from gateway.control.events.query import EVERYTHING, EventFilter, Query, level_for
from gateway.control.events.schema import MEASURES, Level
from gateway.control.events.service import Events, Unavailable, follow
from gateway.control.identity.roles import Permission
from gateway.control.rest import event_shapes as shapes
from gateway.control.rest.call import Call
from gateway.control.store.store import KeyFilter
from gateway.errors import InvalidRequest, NotFound, Overloaded

RANGES: Final = {"1h": 3600, "6h": 6 * 3600, "24h": 86_400, "7d": 7 * 86_400, "30d": 30 * 86_400}
MAX_SPAN_SECONDS: Final = 800 * 86_400
MAX_STEPS: Final = 3000
PING_SECONDS: Final = 15.0
"""A live stream says something at least this often, so that nobody on the way takes it for dead."""
_STEPS: Final = {"minute": Level.MINUTE, "hour": Level.HOUR, "day": Level.DAY}
_NAMES: Final = {level: name for name, level in _STEPS.items()}
_NOTHING: Final = dict.fromkeys(MEASURES, 0)
OTHERS: Final = "All others"


async def events(call: Call) -> dict[str, Any]:
    """A page of events."""
    wanted = await _filter(call)
    before = None if call.query.cursor is None else _cursor(call.query.cursor)
    found, following = await _ask(call, lambda query: query.page(wanted, call.query.limit, before))
    labels = await _labels(call, {one["key"] for one in found if one["key"]})
    return {"data": [_event(one, labels) for one in found], "next": None if following is None else str(following)}


async def event(call: Call) -> dict[str, Any]:
    """One event in full."""
    try:
        found = await _index(call).show(call.part("event"))
    except Unavailable as error:
        raise _unavailable() from error
    keys = await _own_keys(call)
    if found is None or (keys is not None and found["key"] not in keys):
        raise NotFound("There is no such event; it may not have ended yet, or be older than what is kept.")
    shown = ("client", "policy_version", "attributes", "bytes_sent", "decisions", "records")
    return {
        "event": _event({**found, "notes": len(found["notes"])}, await _labels(call, {found["key"]} - {None})),
        **{name: found[name] for name in shown},
        "notes": found["notes"],
    }


async def names(call: Call) -> dict[str, Any]:
    """What events can be filtered by."""
    found = await _ask(call, Query.names)
    labels, keys = await _labels(call), await _own_keys(call)
    if keys is not None:
        found["key"] = [row for row in found["key"] if row["name"] in keys]
        # What others use is not one's own business.
        found["team"], found["code"] = [], []
    return {
        kind: [
            {**row, "label": labels.get(row["name"], row["name"]), "last_at": moment(row["last_at"])} for row in rows
        ]
        for kind, rows in found.items()
    }


async def live(call: Call) -> web.StreamResponse:
    """Events as they come, as server-sent events: `event`, `missed` with a number, and a comment now and then."""
    wanted, labels = await _filter(call), await _labels(call)
    matches = _matcher(wanted)
    with _index(call).listening() as listener:
        if listener is None:
            raise Overloaded("Too many watch already; close some.")
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        )
        await response.prepare(call.request)
        with contextlib.suppress(ConnectionError):  # the listener has left
            await response.write(b"retry: 2000\n: watching\n\n")
            async for one in follow(listener, PING_SECONDS):
                if listener.missed:
                    missed, listener.missed = listener.missed, 0
                    await response.write(b"event: missed\ndata: %d\n\n" % missed)
                if one is None:
                    await response.write(b": nothing new\n\n")
                elif matches(one):
                    if one["key"] and one["key"] not in labels:
                        labels = await _labels(call, {one["key"]})
                    shown = orjson.dumps(_event(one, labels))
                    await response.write(b"event: event\nid: %b\ndata: %b\n\n" % (one["id"].encode(), shown))
    return response


async def usage(call: Call) -> dict[str, Any] | web.Response:
    """Sums over time."""
    asked: shapes.UsageQuery = call.query
    now = call.now()
    until = now if asked.until is None else asked.until.timestamp()
    since = until - 30 * 86_400 if asked.since is None else asked.since.timestamp()
    if not 0 < until - since <= MAX_SPAN_SECONDS:
        raise InvalidRequest("`since` is before `until`, by 800 days at most.", param="since")
    wanted = await _usage_filter(call)
    step = _STEPS[asked.step] if asked.step else level_for(since, until, now, narrow=wanted != EVERYTHING)
    if (until - since) / step > MAX_STEPS:
        raise InvalidRequest("There would be too many steps; take a longer `step`.", param="step")
    whole = asked.format == "csv"

    def question(query: Query) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        groups = query.totals(since, until, step, by=asked.by, wanted=wanted)
        only = None if whole or asked.by is None else [row["name"] for row in groups[: asked.top]]
        return groups, query.usage(since, until, step, by=asked.by, only=only, wanted=wanted)

    groups, points = await _ask(call, question)
    labels = await _labels(call) if asked.by == "key" else {}
    if whole:
        return _csv(points, asked.by, labels)
    if len(groups) > asked.top:
        groups = [*groups[: asked.top], {"name": None, **_total(groups[asked.top :])}]
    return {
        "since": moment(since),
        "until": moment(until),
        "step": _NAMES[step],
        "total": _total(groups),
        "groups": [_labelled(row, labels) for row in groups] if asked.by else [],
        "points": [{"name": "", **row, "at": moment(row["at"])} for row in points],
    }


async def overview(call: Call) -> dict[str, Any]:
    """The gateway at a glance."""
    span, until = RANGES[call.query.range], call.now()
    since = until - span
    wanted = EventFilter(keys=await _own_keys(call))
    narrow = wanted != EVERYTHING
    step = level_for(since, until, until, narrow=narrow)

    def question(query: Query) -> dict[str, Any]:
        totals = query.totals(since, until, step, wanted=wanted)
        earlier = query.totals(since - span, since, level_for(since - span, since, until, narrow=narrow), wanted=wanted)
        return {
            "total": totals[0] if totals else _NOTHING,
            "before": earlier[0] if earlier else _NOTHING,
            "latency": query.latencies(since, until, step),
            "points": query.usage(since, until, step, wanted=wanted),
            "models": query.totals(since, until, step, by="model", wanted=wanted)[:6],
            "keys": query.totals(since, until, step, by="key", wanted=wanted)[:6],
            "policies": query.verdicts(since, until, step) if wanted.keys is None else [],
            "gaps": len(query.gaps()),
        }

    found = await _ask(call, question)
    index, labels = _index(call), await _labels(call)
    return {
        "since": moment(since),
        "until": moment(until),
        "step": _NAMES[step],
        **{name: found[name] for name in ("total", "before", "latency", "policies")},
        "points": [{"name": "", **row, "at": moment(row["at"])} for row in found["points"]],
        "models": [_labelled(row, {}) for row in found["models"]],
        "keys": [_labelled(row, labels) for row in found["keys"]],
        "index": {"behind": index.behind, "fault": bool(index.fault), "records_missing": found["gaps"]},
    }


# What is asked


async def _filter(call: Call) -> EventFilter:
    asked: shapes.EventFilterQuery = call.query
    fields = {name: getattr(asked, name) for name in EventFilter.__struct_fields__ if hasattr(asked, name)}
    for name in ("since", "until"):
        fields[name] = None if fields[name] is None else fields[name].timestamp()
    return EventFilter(**fields, keys=await _own_keys(call))


async def _usage_filter(call: Call) -> EventFilter:
    fields = ("key", "team", "model", "target", "provider", "configuration")
    return EventFilter(**{name: getattr(call.query, name) for name in fields}, keys=await _own_keys(call))


async def _own_keys(call: Call) -> frozenset[str] | None:
    """The keys whose events one may see; None for all."""
    if call.may(Permission.READ_EVENTS):
        return None
    records = await call.store.list_keys(KeyFilter(owner_id=call.my_id))
    return frozenset(record.key.id for record in records)


def _matcher(wanted: EventFilter) -> Any:
    """Whether a new event is one of these."""
    equal = {
        name: value
        for name in EventFilter.__struct_fields__
        if name not in ("status", "request", "since", "until", "keys") and (value := getattr(wanted, name)) is not None
    }
    status = (wanted.status or "").removesuffix("xx")

    def matches(event: Mapping[str, Any]) -> bool:
        return (
            all(event[name] == value for name, value in equal.items())
            and str(event["status"] or "").startswith(status)
            and (wanted.request is None or event["request_id"] == wanted.request)
            and (wanted.keys is None or event["key"] in wanted.keys)
        )

    return matches


def _cursor(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 20):
        raise InvalidRequest("`cursor` is not one that a list has given.", param="cursor")
    return int(text)


def _index(call: Call) -> Events:
    return call.plane.events


async def _ask(call: Call, question: Any) -> Any:
    try:
        return await _index(call).ask(question)
    except Unavailable as error:
        raise _unavailable() from error


def _unavailable() -> Overloaded:
    return Overloaded("The events cannot be read right now; try again in a moment.")


# What is answered


class _Labels(msgspec.Struct):
    """The names of keys, as they were a moment ago; `absent` are keys that had none then."""

    store_id: str
    until: float
    names: dict[str, str]
    absent: set[str] = msgspec.field(default_factory=set)


_kept: dict[str, _Labels] = {}
_LABELS_SECONDS: Final = 2.0


async def _labels(call: Call, needed: Collection[str] = ()) -> dict[str, str]:
    """The names that people gave the keys, by id. Asked anew for a key that is `needed` and was made just now."""
    store, now = call.store, time.monotonic()
    known = _kept.get(store.id)
    if known is None or known.until < now or not known.names.keys() | known.absent >= set(needed):
        records = await store.list_keys()
        names = {record.key.id: record.key.name for record in records}
        known = _kept[store.id] = _Labels(store.id, now + _LABELS_SECONDS, names)
        known.absent.update(set(needed) - names.keys())
    return known.names


def _event(event: Mapping[str, Any], labels: Mapping[str, str]) -> dict[str, Any]:
    """An event as the API shows it."""
    shown = {name: event.get(name) for name in shapes.EventOut.__struct_fields__}
    shown["at"], shown["started_at"] = moment(event["at"]), moment(event["started_at"])
    shown["key_name"] = labels.get(event["key"] or "")
    return shown


def moment(seconds: float | None) -> str | None:
    """RFC 3339 with milliseconds."""
    if seconds is None:
        return None
    text = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def _labelled(row: dict[str, Any], labels: Mapping[str, str]) -> dict[str, Any]:
    name = row.get("name", "")
    return {**row, "name": name, "label": OTHERS if name is None else labels.get(name, name)}


def _total(groups: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {measure: sum(row[measure] for row in groups) for measure in MEASURES}


def _csv(points: Sequence[Mapping[str, Any]], by: str | None, labels: Mapping[str, str]) -> web.Response:
    """One row for each step and group."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\r\n")  # RFC 4180
    columns = [column for column in (by, f"{by}_name" if by == "key" else None) if column]
    writer.writerow(["time", *columns, *MEASURES])
    for point in points:
        values = [point.get("name", "")] if by else []
        values += [labels.get(point["name"], "")] if by == "key" else []
        writer.writerow([moment(point["at"]), *map(_cell, values), *(point[measure] for measure in MEASURES)])
    return web.Response(
        text=file.getvalue(),
        content_type="text/csv",
        headers={"Content-Disposition": 'attachment; filename="usage.csv"', "Cache-Control": "no-store"},
    )


def _cell(text: str) -> str:
    """A text that a spreadsheet would take for a formula begins with an apostrophe."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
