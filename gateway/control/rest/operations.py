"""What is not about people, teams, keys or configurations: state, explanations, escalations, who changed what."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import TYPE_CHECKING, Any

import msgspec
import orjson
from aiohttp import web

from gateway.control.escalations import Escalation
from gateway.control.identity.gatekeeper import origin_of
from gateway.control.identity.principal import Via
from gateway.control.identity.roles import Permission
from gateway.control.rest import shapes
from gateway.control.rest.call import Call
from gateway.control.rest.pages import cut, page
from gateway.control.rest.shapes import at
from gateway.control.settings import InForce
from gateway.control.store.trail import Actor, ChangeFilter
from gateway.errors import NotSignedIn, Overloaded

if TYPE_CHECKING:
    from gateway.snapshot import Snapshot


async def status(call: Call) -> web.Response:
    """The state of the gateway; this machine's own users need not sign in for it."""
    if call.principal is None:
        if not origin_of(call.request, call.plane.settings).local:
            raise NotSignedIn
    else:
        call.require(Permission.READ_STATUS)
    body = orjson.dumps(call.plane.source.status(call.now()))
    return web.Response(body=body, content_type="application/json")


# Who changed what


async def changes(call: Call) -> shapes.ChangePage:
    """Who changed what, newest first."""
    wanted: shapes.ChangeQuery = call.query
    chosen = ChangeFilter(wanted.actor_id, wanted.object_id, wanted.action)
    found = await call.store.trail.search(chosen, page(wanted.limit, wanted.cursor))
    rows, following = cut(found, wanted.limit, at="at")
    shown = (shapes.ChangeOut(**{**msgspec.structs.asdict(one), "at": at(one.at)}) for one in rows)
    return shapes.ChangePage(data=tuple(shown), next=following)


# Escalations


def _escalation_out(escalation: Escalation) -> shapes.EscalationOut:
    fields: dict[str, Any] = msgspec.structs.asdict(escalation)
    for name in ("created_at", "expires_at", "decided_at", "used_at"):
        fields[name] = at(fields[name])
    return shapes.EscalationOut(**fields)


async def escalations(call: Call) -> shapes.Escalations:
    """The newest escalations."""
    found = await call.store.escalations.search(call.query.state)
    return shapes.Escalations(data=tuple(map(_escalation_out, found)))


async def escalation(call: Call) -> shapes.EscalationOut:
    """One escalation."""
    return _escalation_out(await call.store.escalations.get(call.part("escalation")))


async def approve(call: Call) -> shapes.EscalationOut:
    """Let the request through when it is sent again, once."""
    return await _decide(call, approve=True)


async def refuse(call: Call) -> shapes.EscalationOut:
    """Refuse the request, also when it is sent again."""
    return await _decide(call, approve=False)


async def _decide(call: Call, *, approve: bool) -> shapes.EscalationOut:
    decision: shapes.Decision = call.body
    by = call.me.name
    if call.me.via is Via.API_TOKEN and decision.by:
        by = decision.by  # the machine's own user speaks for whom they say; nobody else does
    actor: Actor = msgspec.structs.replace(call.actor, name=by)
    decided = await call.store.escalations.decide(
        call.part("escalation"), approve=approve, by=by, note=decision.note, actor=actor
    )
    return _escalation_out(decided)


# Explanations


class Explainer:
    """Answers what would become of a request under the configurations in force, without sending it.

    Compiling a configuration and judging a text take longer than keys may wait, so both happen in a thread; what was
    compiled is kept until another configuration is in force.
    """

    def __init__(self, in_force: InForce) -> None:
        self._in_force = in_force
        self._compiling = threading.Lock()
        self._compiled: tuple[int, Snapshot] | None = None

    async def answer(self, question: shapes.Question) -> dict[str, Any]:
        """One question. Raises GatewayError where the request itself would be refused as malformed."""
        return await asyncio.to_thread(self._answer, question)

    def _answer(self, asked: shapes.Question) -> dict[str, Any]:
        # Imported at the first question: policies and translations, which nobody else in this process needs.
        from gateway.explain import Question, explain

        return explain(self._snapshot(), Question(asked.request, asked.path, asked.headers, asked.configuration))

    def _snapshot(self) -> Snapshot:
        from gateway.explain import compile_apart

        run_file = self._in_force.run_file
        if run_file is None:
            raise Overloaded("No configuration is in force yet; try again in a moment.")
        with self._compiling:
            if self._compiled is None or self._compiled[0] != run_file.generation:
                self._compiled = run_file.generation, compile_apart(self._in_force.configurations, os.environ)
            return self._compiled[1]


async def explain(call: Call) -> web.Response:
    """What would become of a request."""
    told = await call.plane.explainer.answer(call.body)
    return web.Response(body=orjson.dumps(told), content_type="application/json")
