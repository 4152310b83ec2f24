"""Questions to the index: pages of events, sums over time, latencies, and the names that there are to filter by.

Each answer is made of plain values, ready to be JSON, with times in Unix seconds. A page of events walks the one index
that the rarest of its filters has, which the counts in `facets` tell: with a million events each answer takes
milliseconds. It opens no file itself and may be used by one thread at a time.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from gateway.control.events.ingest import OUTCOMES, VERDICTS
from gateway.control.events.schema import (
    ALTOGETHER,
    DIMENSIONS,
    EVENT_COLUMNS,
    FACETS,
    MEASURES,
    Level,
    number_at,
    time_of,
)
from gateway.control.events.sums import ADDED, DURATION, FIRST_BYTE, quantile

MAX_PAGE: Final = 500
GROUPS: Final = ("key", "team", "model", "target", "provider", "configuration", "status")
"""What usage can be told apart by."""
_CLASS: Final = "(status / 100)"
_PARTIAL: Final = {column: f" AND {column} > 0" for column in ("verdict", "outcome", "policy")}
"""What SQLite must see to take an index that leaves the usual value out."""
_OTHERS: Final = -1
_NOBODY: Final = -2
"""The number of a name that no event has."""
_FEW: Final = 20_000
"""So many events are sorted in a few milliseconds."""


class EventFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which events. `None` leaves a field open; `keys` are those that the reader may see, None for all.

    `status` is a number or a class (`4xx`), `request` a request's id, the gateway's or the client's own. `since` and
    `until` are Unix seconds, when the exchange ended.
    """

    key: str | None = None
    team: str | None = None
    model: str | None = None
    target: str | None = None
    provider: str | None = None
    configuration: str | None = None
    operation: str | None = None
    code: str | None = None
    policy: str | None = None
    status: str | None = None
    outcome: str | None = None
    verdict: str | None = None
    request: str | None = None
    since: float | None = None
    until: float | None = None
    keys: frozenset[str] | None = None


EVERYTHING: Final = EventFilter()


class Query:
    """Answers out of one connection."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._texts: dict[int, str] = {0: ""}

    def close(self) -> None:
        """Let the index go."""
        self._connection.close()

    def page(
        self, wanted: EventFilter, limit: int, before: int | None = None
    ) -> tuple[list[dict[str, Any]], int | None]:
        """The newest events, those before the number `before`; and where the next page begins, None where none does."""
        if wanted.request is not None:
            events = [event for number in self._numbers_of(wanted.request) for event in self.events([number])]
            return [event for event in events if wanted.keys is None or event["key"] in wanted.keys], None
        conditions, values = self._conditions(wanted, before)
        if conditions is None:
            return [], None
        where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
        sql = f"SELECT {', '.join(EVENT_COLUMNS)} FROM events {where} ORDER BY number DESC LIMIT ?"  # noqa: S608
        rows = self._connection.execute(sql, (*values, limit + 1)).fetchall()
        more = rows[limit - 1][0] if len(rows) > limit else None
        return [self._event(row) for row in rows[:limit]], more

    def events(self, numbers: Iterable[int]) -> list[dict[str, Any]]:
        """The events of these numbers that there are, in their order."""
        sql = f"SELECT {', '.join(EVENT_COLUMNS)} FROM events WHERE number = ?"  # noqa: S608
        found = (self._connection.execute(sql, (number,)).fetchone() for number in numbers)
        return [self._event(row) for row in found if row is not None]

    def find(self, id: str) -> int | None:
        """The number of the newest event with this number or request id, the gateway's or the client's own."""
        if id.isdecimal() and len(id) < 20 and self.events([int(id)]):
            return int(id)
        return max(self._numbers_of(id), default=None)

    def places(self, number: int) -> tuple[tuple[str, int] | None, tuple[str, int] | None]:
        """Where the start and the finish of an event stand in the log: segment and offset."""
        sql = "SELECT start_file, start_offset, finish_file, finish_offset FROM events WHERE number = ?"
        row = self._connection.execute(sql, (number,)).fetchone()
        if row is None:
            return None, None
        return self._place(row[0], row[1]), self._place(row[2], row[3])

    def _place(self, file: int | None, offset: int | None) -> tuple[str, int] | None:
        row = self._connection.execute("SELECT name FROM files WHERE id = ?", (file,)).fetchone()
        return None if row is None or offset is None else (row[0], offset)

    def names(self) -> dict[str, list[dict[str, Any]]]:
        """What events can be filtered by: each name of each kind, with how many events had it, most first."""
        found: dict[str, list[dict[str, Any]]] = {kind: [] for kind in FACETS}
        rows = self._connection.execute("SELECT kind, name, events, last FROM facets ORDER BY events DESC")
        for kind, name, events, last in rows:
            if kind not in found or not name:
                continue
            found[kind].append({"name": self._text(name), "events": events, "last_at": time_of(last)})
        return found

    def gaps(self, limit: int = 100) -> list[dict[str, Any]]:
        """Where the log says that records are missing, newest first."""
        rows = self._connection.execute("SELECT at, reason, records FROM gaps ORDER BY at DESC LIMIT ?", (limit,))
        return [{"at": at / 1_000_000, "reason": reason, "records": records} for at, reason, records in rows]

    def usage(
        self,
        since: float,
        until: float,
        step: Level,
        *,
        by: str | None = None,
        only: Iterable[str] | None = None,
        wanted: EventFilter = EVERYTHING,
    ) -> list[dict[str, Any]]:
        """The sums from `since` to `until` for each `step`, told apart by one of `GROUPS` or not at all. With `only`,
        the groups of other names are summed up as one, whose name is None."""
        chosen = None if only is None else [int(name or 0) if by == "status" else self._number(name) for name in only]
        return self._sums(since, until, step, by, wanted, timed=True, only=chosen)

    def totals(
        self, since: float, until: float, level: Level, *, by: str | None = None, wanted: EventFilter = EVERYTHING
    ) -> list[dict[str, Any]]:
        """The sums over the whole time, told apart by one of `GROUPS` or not at all; most requests first."""
        rows = self._sums(since, until, level, by, wanted)
        return sorted(rows, key=lambda row: -row["requests"])

    def _sums(
        self,
        since: float,
        until: float,
        level: Level,
        by: str | None,
        wanted: EventFilter,
        *,
        timed: bool = False,
        only: list[int] | None = None,
    ) -> list[dict[str, Any]]:
        conditions, values = self._series_conditions(wanted)
        first = int(since) - int(since) % level
        if conditions:
            name = f"series.{by}"
            source = (
                "series CROSS JOIN usage ON usage.series = series.id AND level = ? AND bucket >= ? AND bucket < ? "
                f"WHERE {' AND '.join(conditions)}"
            )
            values = [int(level), first, until, *values]
        else:
            name = "name"
            source = "totals WHERE level = ? AND dimension = ? AND bucket >= ? AND bucket < ?"
            values = [int(level), DIMENSIONS.index(by) if by else ALTOGETHER, first, until]
        if only is not None:
            name = f"CASE WHEN {name} IN ({', '.join(map(str, only))}) THEN {name} ELSE -1 END"
        columns = [*(["bucket AS at"] if timed else []), *([f"{name} AS who"] if by else [])]
        groups = [*(["at"] if timed else []), *(["who"] if by else [])]
        sql = (
            f"SELECT {', '.join([*columns, *(f'sum({measure})' for measure in MEASURES)])} FROM {source}"  # noqa: S608
            f"{' GROUP BY ' + ', '.join(groups) if groups else ''}{' ORDER BY at' if timed else ''}"
        )
        rows = self._connection.execute(sql, values)
        return [self._sum(row, timed, by) for row in rows if row[-len(MEASURES)] is not None]

    def _sum(self, row: Sequence[Any], timed: bool, by: str | None) -> dict[str, Any]:
        told: dict[str, Any] = {}
        values = list(row)
        if timed:
            told["at"] = values.pop(0)
        if by:
            name = values.pop(0)
            text = str(name or "") if by == "status" else self._text(name)
            told["name"] = None if name == _OTHERS else text
        for measure, value in zip(MEASURES, values, strict=True):
            told[measure] = round(value, 9) if measure == "cost_usd" else int(value)
        return told

    def latencies(self, since: float, until: float, level: Level) -> dict[str, dict[str, float | None]]:
        """Median and 99th percentile in milliseconds: what the gateway added, to the first byte, to the end."""
        sql = (
            "SELECT kind, bin, sum(count) FROM latencies WHERE level = ? AND bucket >= ? AND bucket < ? "
            "GROUP BY kind, bin"
        )
        counts: dict[int, list[tuple[int, int]]] = {}
        first = int(since) - int(since) % level
        for kind, bin, count in self._connection.execute(sql, (level, first, until)):
            counts.setdefault(kind, []).append((bin, count))
        kinds = {"added": ADDED, "first_byte": FIRST_BYTE, "duration": DURATION}
        return {
            name: {
                f"p{percent}_ms": _milliseconds(quantile(counts.get(kind, ()), percent / 100))
                for percent in (50, 95, 99)
            }
            for name, kind in kinds.items()
        }

    def verdicts(self, since: float, until: float, level: Level) -> list[dict[str, Any]]:
        """How often each policy gave each verdict."""
        sql = (
            "SELECT policy, verdict, sum(count) FROM verdicts WHERE level = ? AND bucket >= ? AND bucket < ? "
            "GROUP BY policy, verdict"
        )
        first = int(since) - int(since) % level
        found: dict[str, dict[str, Any]] = {}
        for policy, verdict, count in self._connection.execute(sql, (level, first, until)):
            name = self._text(policy)
            row = found.setdefault(name, {"policy": name, **{one.value: 0 for one in VERDICTS}})
            row[VERDICTS[verdict].value] = count
        return sorted(found.values(), key=lambda row: row["policy"])

    def _numbers_of(self, id: str) -> list[int]:
        sql = "SELECT number FROM events WHERE request = ? UNION SELECT number FROM client_ids WHERE text = ?"
        return sorted((row[0] for row in self._connection.execute(sql, (id, id))), reverse=True)[:MAX_PAGE]

    def _conditions(self, wanted: EventFilter, before: int | None) -> tuple[list[str] | None, list[object]]:
        """The WHERE of a page; None where nothing can match."""
        terms = self._terms(wanted)
        if any(count == 0 for _, _, count in terms):
            return None, []
        conditions, values = _times(wanted, before)
        terms.sort(key=lambda term: term[2])
        for place, (column, value, _) in enumerate(terms):
            # All filters but the rarest get a plus sign, which keeps SQLite from taking their index:
            # https://www.sqlite.org/optoverview.html, "disqualifying terms".
            conditions.append(f"+{column} = ?" if place else f"{column} = ?{_PARTIAL.get(column, '') if value else ''}")
            values.append(value)
        if wanted.keys is not None:
            names = self._numbers_of_names(wanted.keys)
            few = not terms and sum(self._count("key", name) for name in names) < _FEW
            conditions.append(f"{'' if few else '+'}key IN ({', '.join('?' * len(names))})")
            values.extend(names)
        return conditions, values

    def _terms(self, wanted: EventFilter) -> list[tuple[str, int, int]]:
        """The filters by equality: column, value, and how many events have it."""
        terms = [(kind, self._number(text)) for kind in FACETS if (text := getattr(wanted, kind)) is not None]
        found = [(kind, number, self._count(kind, number)) for kind, number in terms]
        if wanted.verdict is not None:
            value = [one.value for one in VERDICTS].index(wanted.verdict)
            found.append(("verdict", value, self._count("verdict", value)))
        if wanted.outcome is not None:
            value = [one.value for one in OUTCOMES].index(wanted.outcome)
            found.append(("outcome", value, self._count("outcome", value)))
        if wanted.status is not None:
            kind = "class" if wanted.status.endswith("xx") else "status"
            value = int(wanted.status.removesuffix("xx"))
            found.append((_CLASS if kind == "class" else kind, value, self._count(kind, value)))
        return found

    def _number(self, text: str) -> int:
        if not text:
            return 0
        row = self._connection.execute("SELECT id FROM names WHERE text = ?", (text,)).fetchone()
        return int(row[0]) if row else _NOBODY

    def _count(self, kind: str, value: int) -> int:
        sql = "SELECT events FROM facets WHERE kind = ? AND name = ?"
        row = self._connection.execute(sql, (kind, value)).fetchone()
        return int(row[0]) if row else 0

    def _series_conditions(self, wanted: EventFilter) -> tuple[list[str], list[object]]:
        conditions: list[str] = []
        values: list[object] = []
        for kind in GROUPS[:-1]:
            text = getattr(wanted, kind)
            if text is not None:
                conditions.append(f"series.{kind} = ?")
                values.append(self._number(text))
        if wanted.keys is not None:
            names = self._numbers_of_names(wanted.keys)
            conditions.append(f"series.key IN ({', '.join('?' * len(names))})")
            values.extend(names)
        return conditions, values

    def _numbers_of_names(self, texts: Iterable[str]) -> list[int]:
        return [number for text in texts if (number := self._number(text)) > 0]

    def _event(self, row: Sequence[Any]) -> dict[str, Any]:
        told = dict(zip(EVENT_COLUMNS, row, strict=True))
        for kind in FACETS:
            told[kind] = self._text(told[kind]) or None
        number, asked = told.pop("number"), told.pop("asked")
        for column in ("start_file", "start_offset", "finish_file", "finish_offset"):
            told.pop(column)
        started = told.pop("started")
        return {
            "id": str(number),
            "request_id": told.pop("request"),
            "at": time_of(number),
            "started_at": None if started is None else started / 1_000_000,
            **told,
            "model": told["model"] or asked,
            "status": told["status"] or None,
            "outcome": OUTCOMES[told["outcome"]].value,
            "verdict": VERDICTS[told["verdict"]].value,
        }

    def _text(self, name: int) -> str:
        text = self._texts.get(name)
        if text is None:
            row = self._connection.execute("SELECT text FROM names WHERE id = ?", (name,)).fetchone()
            text = self._texts[name] = row[0] if row else ""
        return text


def _times(wanted: EventFilter, before: int | None) -> tuple[list[str], list[object]]:
    conditions: list[str] = []
    values: list[object] = []
    if wanted.since is not None:
        conditions.append("number >= ?")
        values.append(number_at(int(wanted.since * 1_000_000)))
    highest = [number for number in (before, wanted.until and number_at(int(wanted.until * 1_000_000))) if number]
    if highest:
        conditions.append("number < ?")
        values.append(min(highest))
    return conditions, values


def _milliseconds(microseconds: float | None) -> float | None:
    return None if microseconds is None else round(microseconds / 1000, 4)


def level_for(since: float, until: float, now: float, *, narrow: bool = False) -> Level:
    """The finest sums that a plot of this time can use: at most some 400 points, and none that are not kept.

    `narrow`: something is filtered by, so that sums are by combinations of names, of which there are many more.
    """
    span = until - since
    if span <= 6 * 3600 and since > now - 47 * 3600:
        return Level.MINUTE
    days = 3 if narrow else 8
    return Level.HOUR if span <= days * 86_400 and since > now - 60 * 86_400 else Level.DAY
