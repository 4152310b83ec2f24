"""What every exchange of a worker uses: clocks, pool, limits, snapshot, audit log, metrics.

One object, made by the worker, given to each exchange. It owns nothing that blocks.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import secrets
import time
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

from gateway import metrics
from gateway.exchange import Exchange
from gateway.shadow import Shadows
from gateway.socket_metrics import AllSocketMetrics
from gateway.stages import NAMES
from gateway.threads import Threads
from gateway.types import Operation
from translators.plan import FORMATS, SPOKEN

if TYPE_CHECKING:
    from gateway.chat_socket import ChatSocket
    from gateway.conversation import Session
    from gateway.errors import GatewayError
    from gateway.limits import Limits
    from gateway.oversight import Oversight
    from gateway.ports import Pool
    from gateway.snapshot import Snapshot
    from gateway.socket_ports import SocketDialler
    from gateway.turn import Turn
    from gateway.types import Decision, GatewayKey
    from gateway.warm_path import WarmPath
    from translators.dialect import RequestView

log = logging.getLogger("gateway.exchange")
Result = TypeVar("Result")

VIEWS: Final = {operation: FORMATS[dialect].view for operation, dialect in SPOKEN.items()}


class Services:
    """Given to every exchange."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        pool: Pool,
        limits: Limits,
        counters: metrics.Metrics,
        snapshot: Snapshot,
        audit: Callable[[bytes], None],
        conclude: Callable[[bytes], None],
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        count_use: Callable[[GatewayKey, float], None] = lambda key, now: None,
    ) -> None:
        """`audit` takes a record of what is about to happen; it raises AuditUnavailable where nothing may happen
        unrecorded. `conclude` takes a record of what has happened, and never raises.
        `count_use` notes the use of a key at a time in Unix seconds, and never raises."""
        self.loop = loop
        self.pool = pool
        self.limits = limits
        self.snapshot = snapshot
        self.audit = audit
        self.conclude = conclude
        self.clock = clock
        self.wall = wall
        self.call_later = loop.call_later
        self.count_use = count_use
        self.active: set[Exchange | WarmPath | Session | ChatSocket] = set()
        self.sockets: SocketDialler
        """The way to providers' WebSockets; the worker sets it."""
        self.oversight: Oversight | None = None
        """The way to the queue of requests that wait for a person; None: there is no control process."""
        self.draining = False
        self.views: Mapping[Operation, Callable[[bytes], RequestView]] = VIEWS
        """What reads request bodies; others than these where the operator allows them less depth."""
        self.keys_known = True
        """False only in a worker that has started and not heard of its keys: nobody can be authenticated."""
        self.socket_metrics = AllSocketMetrics(counters)
        self._threads = Threads(self._hand_over, clock)
        report = lambda where, error: self.report_bug(where, error)  # noqa: E731
        self.shadows = Shadows(self._hand_over, counters, conclude, clock, wall, report)
        self._id_prefix = f"req_{secrets.token_hex(8)}"
        self._id_prefix_bytes = self._id_prefix.encode()
        self._id_count = itertools.count(1).__next__
        self._open = counters.gauge(metrics.OPEN_EXCHANGES)
        self._errors = counters.counters(metrics.ERRORS)
        self._faults = counters.counter(metrics.INTERNAL_ERRORS)
        self._verdicts = counters.counters(metrics.POLICY_EVALUATIONS)
        self.stages = tuple(counters.histogram(metrics.STAGE, stage=name) for name in NAMES)
        self.traces = False
        """Whether records name the client's span: `gateway.telemetry` is set."""
        self._stage_cells, self._stage_bounds = self.stages[0].cells, self.stages[0].bounds
        self._stage_rows = tuple(stage.index for stage in self.stages)
        self.server_timing = True
        """Whether answers say where their time went."""
        self._unrouted = counters.counters(metrics.REQUESTS, provider="", model="")

    def next_id(self) -> str:
        """A request id that no other exchange has: random per worker, then counted. 0.15 µs."""
        return f"{self._id_prefix}{self._id_count():08x}"

    def next_id_bytes(self) -> bytes:
        """The same as ASCII."""
        return b"%b%08x" % (self._id_prefix_bytes, self._id_count())

    def verdict_cells(self, decisions: Sequence[Decision]) -> tuple[int, ...]:
        """Where the verdicts of these decisions are counted, among the cells of all metrics."""
        return tuple(self._verdicts[one.policy, one.phase.value, one.verdict.value].index for one in decisions)

    def view(self, operation: Operation, body: bytes) -> RequestView:
        """What must be known of a request body. Raises InvalidJSON or InvalidRequest."""
        return self.views[operation](body)

    def viewer(self, operation: Operation | None) -> Callable[[bytes], RequestView]:
        """What `view` calls for one operation."""
        assert operation is not None
        return self.views[operation]

    @property
    def reads_ordinarily(self) -> bool:
        """Bodies may be nested as deep as is usual."""
        return self.views is VIEWS

    def _hand_over(self, then: Callable[[Any], None], result: Any) -> None:
        self.loop.call_soon_threadsafe(then, result)

    def run_in_thread(self, work: Callable[[], Result], then: Callable[[Result | BaseException], None]) -> None:
        """Do long work beside the loop; `then` is called on the loop with its result or its exception."""
        self._threads.run(work, then)

    def count(self, exchange: Exchange | Turn, status: int, code: str | None, now: float) -> None:
        """An exchange's metrics, once, at its end. 0.8 µs."""
        key = exchange.binding.key
        if key is not None:
            self.count_use(key, self.wall())  # 0.3 µs
        target = exchange.target
        if target is None:
            self._unrouted[status].inc()
        else:
            # Counters by hand: a call costs 0.06 µs more.
            counter = target.requests[status]
            counter.cells[counter.index] += 1.0
            started = exchange.started_at
            target.duration.observe(now - started)
            if exchange.begun:
                target.first_byte.observe(exchange.first_byte_at - started)
            usage = exchange.usage
            if usage is not None:
                counter = target.tokens_in
                counter.cells[counter.index] += usage.prompt
                counter = target.tokens_out
                counter.cells[counter.index] += usage.completion
            if exchange.cost:
                counter = target.cost
                counter.cells[counter.index] += exchange.cost * 1e-9
        # `Histogram.observe` by hand, for each stage that took any time: 1.5 µs less.
        cells, bounds = self._stage_cells, self._stage_bounds
        last = len(bounds) + 1
        for first, seconds in zip(self._stage_rows, exchange.stages):  # noqa: B905
            if seconds:
                cells[first + bisect_left(bounds, seconds)] += 1.0
                cells[first + last] += seconds
        if code is not None:
            self._errors[code].inc()
        # `_value_`: an enum's `value` is a descriptor in Python, 0.1 µs.
        for decision in exchange.input_decisions:
            self._verdicts[decision.policy, decision.phase._value_, decision.verdict._value_].inc()
        for decision in exchange.output_decisions:
            self._verdicts[decision.policy, decision.phase._value_, decision.verdict._value_].inc()

    def count_refusal(self, error: GatewayError) -> None:
        """A request that was refused before it became an exchange."""
        self._unrouted[error.status].inc()
        self._errors[error.code].inc()

    def report(self, exchange: Exchange, error: Exception) -> None:
        """A fault of ours: logged with the exchange's state, never with its content, and counted apart."""
        self.report_bug(repr(exchange), error)

    def report_bug(self, where: str, error: Exception) -> None:
        """A fault of ours outside any exchange."""
        self._faults.inc()
        log.error("fault", extra={"where": where, "error": repr(error)}, exc_info=error)

    def sweep(self) -> None:
        """Look at the deadlines of all exchanges; called every 100 ms, 0.07 µs each."""
        now = self.clock()
        late = [one for one in self.active if one.deadline < now or one.total_deadline < now]
        for exchange in late:
            exchange.on_deadline(now)
        self._open.set(len(self.active))
        self.shadows.look()
        if hanging := self._threads.look():
            log.error("threads hang and are given up", extra={"threads": hanging, "in_all": self._threads.given_up})

    def close(self) -> None:
        """No more work."""
        self._threads.close()
        self.shadows.close()
