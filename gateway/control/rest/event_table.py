"""The routes about events, usage and the audit log; a part of the one table in `table`."""

from __future__ import annotations

from typing import Final

from gateway.control.identity.roles import Permission
from gateway.control.rest import audit, events
from gateway.control.rest import event_shapes as shapes
from gateway.control.rest.call import Route

_READERS: Final = frozenset((Permission.READ_EVENTS, Permission.OWN_EVENTS))
_TAG: Final = "Events and usage"

EVENT_ROUTES: Final[tuple[Route, ...]] = (
    Route(
        name="overview",
        method="GET",
        path="/overview",
        summary="The gateway at a glance: requests, added latency, blocks, spend",
        description="A developer's are those of their own keys; latencies are those of all.",
        handler=events.overview,
        needs=_READERS,
        query=shapes.OverviewQuery,
        answer=shapes.Overview,
        tag=_TAG,
    ),
    Route(
        name="events",
        method="GET",
        path="/events",
        summary="Events, newest first; a developer's own ones",
        handler=events.events,
        needs=_READERS,
        query=shapes.EventQuery,
        answer=shapes.EventPage,
        tag=_TAG,
    ),
    Route(
        name="live_events",
        method="GET",
        path="/events/live",
        summary="Events as they come, as server-sent events",
        description="`event` has an event as JSON, `missed` how many there were no room for.",
        handler=events.live,
        needs=_READERS,
        query=shapes.EventFilterQuery,
        status=200,
        endless=True,
        tag=_TAG,
    ),
    Route(
        name="event_names",
        method="GET",
        path="/events/names",
        summary="What events can be filtered by",
        handler=events.names,
        needs=_READERS,
        answer=shapes.EventNames,
        tag=_TAG,
    ),
    Route(
        name="event",
        method="GET",
        path="/events/{event}",
        summary="One event in full",
        description="By its id or a request's id, the gateway's or the client's own.",
        handler=events.event,
        needs=_READERS,
        answer=shapes.EventDetail,
        errors=(404,),
        tag=_TAG,
    ),
    Route(
        name="usage",
        method="GET",
        path="/usage",
        summary="Requests, tokens and spend over time, told apart by one thing",
        description="With `format=csv` as a table, all groups in it.",
        handler=events.usage,
        needs=_READERS,
        query=shapes.UsageQuery,
        answer=shapes.Usage,
        tag=_TAG,
    ),
    Route(
        name="audit_state",
        method="GET",
        path="/audit",
        summary="What the audit log consists of",
        handler=audit.state,
        needs=frozenset((Permission.READ_EVENTS,)),
        answer=shapes.AuditState,
        tag="Audit log",
    ),
    Route(
        name="verify_audit",
        method="POST",
        path="/audit/verify",
        summary="Whether the audit log is whole",
        description="Reads all of it, which takes a while; one at a time.",
        handler=audit.verify,
        needs=frozenset((Permission.READ_EVENTS,)),
        answer=shapes.AuditReport,
        errors=(404,),
        tag="Audit log",
    ),
)
