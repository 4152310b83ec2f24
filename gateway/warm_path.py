"""The ordinary request on a warm connection: the life of an exchange in two functions, without an exchange.

A client keeps its connection and asks again: same head, same model, a JSON answer in the client's own format that no
policy reads. Most traffic of many deployments is this, and it costs 17 µs here where an `Exchange` costs 33. So
once an exchange has noted its course on the head (`exchange.Course`), a `WarmPath` takes the requests that follow:
`take` is phases one to six, `_read` is seven to nine.

It knows only the good case. Whatever is not ordinary, at any moment, becomes an exchange in the state that it would
have been in (`Exchange.resumed`), which goes on from there: there is one truth about errors, retries, slow answers and
clients that leave, and it is not here. What `take` cannot be sure of it refuses before anything has happened. The
tests play the same requests on both ways and compare bytes, records, metrics and limits.
"""

from __future__ import annotations

from bisect import bisect_left
from re import Match
from typing import TYPE_CHECKING, Any, Final

from gateway.audit.record import completed_form, fill_start
from gateway.errors import AuditUnavailable, GatewayError, RateLimited
from gateway.exchange import GLANCE_INLINE_BYTES, READ_INLINE_BYTES, Course, Exchange
from gateway.routes import CLOSED
from gateway.stages import ADMISSION, FIRST_BYTE, INPUT_POLICIES, NAMES, NONE, TIMING, UPSTREAM
from gateway.types import ResponseHead, Usage

if TYPE_CHECKING:
    from gateway.downstream.head import RequestHead
    from gateway.limits import Hold
    from gateway.ports import Template, WarmClient, WarmConnection, WarmPool
    from gateway.services import Services
    from gateway.surface import Endpoint

_NEVER: Final = float("inf")
_IDLE: Final[Any] = None
_UNSCREENED: Final = (ADMISSION, UPSTREAM, FIRST_BYTE)
MAX_STRAYS: Final = 16
"""A provider whose answers are not ordinary, so many times in a row, is not tried this way again on this connection."""


def prepared(services: Services, endpoint: Endpoint, request: RequestHead, client: Any) -> WarmPath | None:
    """The warm path of the requests that repeat this head; None: what they ask for is not ordinary."""
    course: Course = request.course
    pipeline = course.binding.configuration.pipeline
    translation = course.lane.translation
    ordinary = (
        translation.identity
        and services.reads_ordinarily
        and translation.plain is not None
        and course.upstream_model == course.model
        and not endpoint.model
        and not pipeline.reads_output
        and (pipeline.glances or not pipeline.reads_input)
        and request.credential is not None
        and course.binding.key is not None
        and course.binding.configuration.shadow is None
    )
    pool = services.pool.of(course.destination) if ordinary else None
    return None if pool is None else WarmPath(services, endpoint, request, client, pool)


class WarmPath:
    """Serves one client connection, one request at a time. `deadline` and `total_deadline` are for the sweep."""

    __slots__ = (
        "_answer_form", "_bounds", "_cells", "_cost", "_credential", "_duration", "_first_byte", "_glance",
        "_good_until", "_head", "_key", "_listens", "_own", "_plain", "_pool", "_price", "_requests", "_stage_bounds",
        "_stages", "_strays", "_tokens_in", "_tokens_out", "_usage", "_verdicts", "binding", "body", "client",
        "connection", "course", "deadline", "endpoint", "hold", "id", "request", "screening", "sent_at", "services",
        "started_at", "total_deadline",
    )  # fmt: skip

    connection: WarmConnection
    hold: Hold | None

    def __init__(
        self, services: Services, endpoint: Endpoint, request: RequestHead, client: WarmClient, pool: WarmPool
    ) -> None:
        course: Course = request.course
        binding, target = course.binding, course.target
        pipeline = binding.configuration.pipeline
        self.services = services
        self.endpoint = endpoint
        self.request = request
        self.client = client
        self.course = course
        self.binding = binding
        self._good_until = binding.good_until
        key, plain = binding.key, course.lane.translation.plain
        assert key is not None
        assert plain is not None
        assert request.credential is not None
        self._key, self._plain, self._credential = key, plain, request.credential
        self._usage = course.lane.translation.usage
        self._glance = pipeline.glance if pipeline.reads_input else None
        self._pool = pool
        self._head = course.heads[0].replace(b"%", b"%%") + b"x-request-id: %b\r\ncontent-length: %d\r\n\r\n%b"
        self._own = request.own.get(b"x-request-id")
        numbers = (ADMISSION, INPUT_POLICIES, UPSTREAM, FIRST_BYTE) if pipeline.reads_input else _UNSCREENED
        names = [NAMES[number] for number in numbers]
        self._stages = tuple([services.stages[number].index for number in numbers])
        self._stage_bounds = services.stages[0].bounds
        self._price = target.price
        self._cost = -1 if target.price is None else target.cost.index
        self._answer_form = completed_form(200, target.id, names, priced=target.price is not None)
        counter = target.requests[200]
        self._cells = counter.cells
        self._requests = counter.index
        self._bounds = target.duration.bounds
        self._duration = target.duration.index
        self._first_byte = target.first_byte.index
        self._tokens_in = target.tokens_in.index
        self._tokens_out = target.tokens_out.index
        self._verdicts = services.verdict_cells(course.decisions)
        self._listens = self._read
        self._strays = 0
        self.id = b""
        self.body = b""
        self.connection = _IDLE
        self.hold = None
        self.started_at = self.screening = self.sent_at = 0.0
        self.deadline = self.total_deadline = _NEVER

    def __repr__(self) -> str:
        doing = f"request {self.id.decode()} to {self.course.target.id}" if self.connection is not _IDLE else "idle"
        return f"<WarmPath {self.endpoint.operation} {doing}>"

    def take(self, body: bytes) -> bool:
        """Phases one to six. False: nothing has happened, and an exchange must look at it."""
        services, course = self.services, self.course
        clock = services.clock
        self.started_at = now = clock()
        wall = services.wall()
        target = course.target
        if (
            services.snapshot.bindings.get(self._credential) is not self.binding
            or wall >= self._good_until
            or services.draining
            or target.breaker.state is not CLOSED
            or self._strays > MAX_STRAYS
            or len(body) > READ_INLINE_BYTES
        ):
            return False
        output_tokens = self._plain(body, course.model)
        if output_tokens is None:
            return False
        glance = self._glance
        if glance is not None:
            begin = clock()
            clean = glance(body) if len(body) <= GLANCE_INLINE_BYTES else None
            if clean is None or clean.decisions is not course.decisions:
                return False
            self.screening = clock() - begin
        hold = None
        if self.binding.limited:
            try:
                hold = services.limits.admit(self.binding.scopes, len(body), output_tokens, wall, course.candidates)
            except RateLimited:
                return False
        connection = self._pool.take()
        if connection is None:
            return self._refuse(hold)
        id = services.next_id_bytes()
        if course.start is not None:
            try:
                services.audit(fill_start(course.start, id, int(wall * 1_000_000)))
            except AuditUnavailable:
                connection.give_back()
                return self._refuse(hold)
        self.id = id
        self.body = body
        self.hold = hold
        self.connection = connection
        target.in_flight += 1
        services.active.add(self)
        self.deadline = now + course.first_byte_seconds
        if course.total_seconds is not None:
            self.total_deadline = now + course.total_seconds
        self.sent_at = clock()
        connection.send_whole(self._head % (self._own or id, len(body), body), self, self._listens)
        return True

    def _refuse(self, hold: Hold | None) -> bool:
        """As if nothing had happened."""
        if hold is not None:
            hold.refund()
            hold.release()
        return False

    def _read(self, data: bytes) -> bool:
        """Phases seven to nine, if this read is all of an ordinary answer. False: it is not, and nothing was done."""
        whole = self.connection.whole(data)
        if whole is None:
            return False
        try:
            self._finish(self.services.clock(), data[whole[1].end() :], *whole)
        except Exception as bug:
            self._become_exchange().on_fault(bug)
        return True

    def _finish(self, read_at: float, body: bytes, template: Template, found: Match[bytes]) -> None:
        services, course = self.services, self.course
        services.active.discard(self)
        self.connection = _IDLE
        self._strays = 0
        target = course.target
        target.in_flight -= 1
        target.answered(read_at - self.sent_at)
        usage = self._usage(body)
        hold, id, started_at = self.hold, self.id, self.started_at
        now, wall = services.clock(), services.wall()
        seconds, policies, sent = now - started_at, self.screening, self.sent_at - started_at
        before, waited, added = sent - policies, read_at - self.sent_at, now - read_at
        took = (before, waited, added) if self._glance is None else (before, policies, waited, added)
        cells, bounds = self._cells, self._bounds
        place, last = bisect_left(bounds, seconds), len(bounds) + 1
        cells[self._requests] += 1.0
        cells[self._duration + place] += 1.0
        cells[self._duration + last] += seconds
        cells[self._first_byte + place] += 1.0
        cells[self._first_byte + last] += seconds
        bounds = self._stage_bounds
        last = len(bounds) + 1
        for first, stage in zip(self._stages, took):  # noqa: B905 (they are as many, and `strict` costs 0.1 µs)
            cells[first + bisect_left(bounds, stage)] += 1.0
            cells[first + last] += stage
        if usage is None:
            prompt = completion = cached = reasoning = 0
        else:
            prompt, completion, cached, reasoning = usage.prompt, usage.completion, usage.cached, usage.reasoning
            cells[self._tokens_in] += prompt
            cells[self._tokens_out] += completion
        for cell in self._verdicts:
            cells[cell] += 1.0
        services.count_use(self._key, wall)
        price, cost = self._price, None
        if price is not None:
            # Of an answer without usage its size is what can be known; as in `Exchange`.
            cost = price.cost(usage or Usage(len(self.body) >> 2, len(body) >> 2), wall)
            cells[self._cost] += cost * 1e-9
        if course.start is not None:
            us = int(seconds * 1e6)
            numbers = id, int(wall * 1e6), prompt, completion, cached, reasoning, len(body), us, us, int(sent * 1e6)
            stages = [int(stage * 1e6) for stage in took]
            services.conclude(self._answer_form % ((*numbers, *stages) if cost is None else (*numbers, *stages, cost)))
        self.body = b""
        if hold is None:
            fields = b"%bx-request-id: %b\r\n" % (template.passed(found, limited=False), self._own or id)
        else:
            self.hold = None
            if usage is not None:
                hold.settle(prompt + completion, wall, cost)
            else:
                hold.spend(cost, wall)
            hold.release()
            passed = template.passed(found, limited=True)
            fields = b"%bx-request-id: %b\r\n%b" % (passed, self._own or id, hold.lines)
        if services.server_timing:
            fields += TIMING % ((before + added) * 1e3, policies * 1e3, b"", waited * 1e3)
        self.client.answer_whole(fields, body)

    @property
    def stages(self) -> list[float]:
        """What the stages took until the request was sent, by number of stage."""
        stages = [*NONE]
        stages[ADMISSION], stages[INPUT_POLICIES] = self.sent_at - self.started_at - self.screening, self.screening
        return stages

    # Whatever is not ordinary

    def _become_exchange(self) -> Exchange:
        """The request as an exchange that waits for its answer; this path is free for the next one."""
        self._strays += 1
        exchange = Exchange.resumed(self)
        self.body = b""
        self.connection = _IDLE
        self.hold = None
        return exchange

    def on_response_head(self, head: ResponseHead, data: bytes, end: bool) -> None:
        """The answer comes in parts, or is no ordinary one."""
        self._become_exchange().on_response_head(head, data, end)

    def on_response_data(self, data: bytes, end: bool) -> None:
        """Never called: a head comes first."""
        raise AssertionError("a body without a head")

    def on_response_failed(self, error: GatewayError) -> None:
        """The provider's connection ended."""
        self._become_exchange().on_response_failed(error)

    def on_body(self, body: bytes) -> None:
        """Never called: `take` had the whole body."""
        raise AssertionError("a second body")

    def on_body_failed(self, error: GatewayError) -> None:
        """Never called: `take` had the whole body."""
        raise AssertionError("a second body")

    def on_client_gone(self) -> None:
        """The client has left."""
        self._become_exchange().on_client_gone()

    def on_client_paused(self) -> None:
        """The client does not take what it was sent before."""
        self._become_exchange().on_client_paused()

    def on_client_resumed(self) -> None:
        """Told to the exchange that was told of the pause."""

    def on_deadline(self, now: float) -> None:
        """The provider took too long."""
        self._become_exchange().on_deadline(now)

    def end_early(self, error: GatewayError) -> None:
        """The key was revoked, or the worker must go."""
        self._become_exchange().end_early(error)
