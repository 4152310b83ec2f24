"""From a model to the targets that offer it: order of attempts, circuit breakers, what may be tried again.

A `Route` is made when a configuration is compiled; a request only asks it for its candidates. Where one target offers
a model, which is the ordinary case, that is the same tuple every time and costs nothing. Health is a worker's own
experience: breakers and latencies are not shared.
"""

from __future__ import annotations

import enum
import random
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote_to_bytes

from gateway.config.schema import CircuitBreaker, Fallback, FallbackTrigger, RoutingStrategy
from gateway.errors import GatewayError, UpstreamReset, UpstreamStatus, UpstreamTimeout, UpstreamUnreachable
from gateway.types import KEY_PREFIX, Destination, Operation

if TYPE_CHECKING:
    from gateway.metrics import Counter, Handles, Histogram
    from gateway.prices import Price
    from gateway.upstream.credentials.choose import Grant
    from translators.client_headers import Keep
    from translators.dialect import Translation

LATENCY_WEIGHT: Final = 0.2
"""How much the newest answer counts in the moving average of the time to the first byte."""


class BreakerState(enum.Enum):
    """Whether a target is tried."""

    CLOSED = "closed"
    OPEN = "open"
    TRYING = "trying"


CLOSED: Final = BreakerState.CLOSED
"""For the hot path: a look-up on an enum's class costs 0.15 µs, a module's name 0.01."""


class Breaker:
    """Leaves a failing target alone for a while, then lets one request try it."""

    __slots__ = ("_failures", "_open_until", "_settings", "state")

    def __init__(self, settings: CircuitBreaker) -> None:
        self._settings = settings
        self._failures = 0
        self._open_until = 0.0
        self.state = BreakerState.CLOSED

    def __repr__(self) -> str:
        return f"<Breaker {self.state.value}, {self._failures} failures in a row>"

    def allows(self, now: float) -> bool:
        """Whether the target may be tried now. Past its time an open breaker lets exactly one request through."""
        if self.state is CLOSED:
            return True
        if now < self._open_until:
            return False
        self.state = BreakerState.TRYING
        self._open_until = now + self._settings.open_seconds
        return True

    def succeeded(self) -> None:
        """The target answered."""
        self._failures = 0
        self.state = CLOSED

    def failed(self, now: float) -> None:
        """The target failed in a way that is its own fault."""
        self._failures += 1
        if not self._settings.enabled or self.state is BreakerState.OPEN:
            return  # what fails while it is open was sent before, and says nothing new
        if self.state is BreakerState.TRYING or self._failures >= self._settings.failure_threshold:
            self.state = BreakerState.OPEN
            self._open_until = now + self._settings.open_seconds


Sign = Callable[[str, bytes, float], bytes]
"""Signs a request: its target, its body and the time in Unix seconds give header lines."""


class Lane:
    """One target for one operation: all that a request to it needs, made ready when the configuration is compiled.

    `fields` and `credential` are rendered header lines: host and the operator's own, and the provider's key.
    `query` gives, of a client's query string, what means something to this provider. `sign` is for providers that want
    each request signed. `keep` gives, of the client's header lines, those that the provider understands; None: all.
    `meters`: streams are asked for their usage, until the provider refuses to be.
    `lasting`: neither a signature nor a credential that is renewed, so a head that was rendered
    once stays good.
    """

    __slots__ = (
        "credential", "fields", "keep", "lasting", "meters", "path", "query", "sign", "stream_path", "translation",
    )  # fmt: skip

    def __init__(
        self,
        translation: Translation,
        *,
        path: bytes,
        stream_path: bytes,
        fields: bytes,
        credential: bytes,
        query: Callable[[bytes], bytes],
        sign: Sign | None = None,
        lasting: bool = True,
        keep: Keep | None = None,
    ) -> None:
        self.translation = translation
        self.path = path
        self.stream_path = stream_path
        self.fields = fields
        self.credential = credential
        self.query = query
        self.sign = sign
        self.lasting = lasting
        self.keep = keep
        self.meters = True

    def head(
        self, query: bytes, lines: Sequence[bytes], own_fields: Collection[bytes], credential: bytes, *, stream: bool
    ) -> bytes:
        """A request's head, up to the fields that differ with every request.

        `query` and `lines` are the client's; `own_fields` names the fields that the target's operator has set.
        """
        path = self.stream_path if stream else self.path
        if query and (query := _without_keys(self.query(query))):
            path = b"%b%b%b" % (path, b"&" if b"?" in path else b"?", query)
        if self.keep is not None:
            lines = self.keep(lines)
        if own_fields:
            lines = [line for line in lines if line.partition(b":")[0].lower() not in own_fields]
        text = b"".join(lines)
        if KEY_PREFIX in text:
            # A gateway key in a field that is none of those it is taken from, by a client's mistake.
            text = b"".join([line for line in lines if KEY_PREFIX not in line])
        return b"POST %b HTTP/1.1\r\n%b%b%b" % (path, self.fields, credential, text)

    def signature(self, body: bytes, *, stream: bool, now: float) -> bytes:
        """The header lines that sign one request. 12 µs for 1 KB."""
        assert self.sign is not None
        return self.sign((self.stream_path if stream else self.path).decode(), body, now)


class SocketLane:
    """One target for one operation over a WebSocket. `path` is the request target, `fields` and `credential` are
    rendered header lines, as a `Lane` has them."""

    __slots__ = ("credential", "fields", "path")

    def __init__(self, *, path: bytes, fields: bytes, credential: bytes) -> None:
        self.path = path
        self.fields = fields
        self.credential = credential

    def target(self, query: bytes) -> bytes:
        """The request target with what a client's query says besides the model and the version of an API."""
        rest = [part for part in _without_keys(query).split(b"&") if part and part.partition(b"=")[0] not in _OWN_QUERY]
        return b"%b%b%b" % (self.path, b"&" if b"?" in self.path else b"?", b"&".join(rest)) if rest else self.path


def _without_keys(query: bytes) -> bytes:
    """A query without the parts that hold a gateway key, however it is encoded."""
    if KEY_PREFIX not in unquote_to_bytes(query):
        return query
    return b"&".join([part for part in query.split(b"&") if KEY_PREFIX not in unquote_to_bytes(part)])


_OWN_QUERY: Final = frozenset((b"model", b"deployment", b"api-version"))


class Target:
    """A provider and a model as a worker sees them, with the worker's own experience of them."""

    __slots__ = (
        "breaker",
        "cost",
        "destination",
        "duration",
        "fault",
        "first_byte",
        "grant",
        "id",
        "in_flight",
        "lanes",
        "latency",
        "model",
        "own_fields",
        "price",
        "provider",
        "requests",
        "retries",
        "sockets",
        "tokens_in",
        "tokens_out",
        "upstream_model",
        "weight",
    )

    requests: Handles[Counter]
    duration: Histogram
    first_byte: Histogram
    tokens_in: Counter
    tokens_out: Counter
    cost: Counter
    retries: Counter

    def __init__(
        self,
        id: str,
        provider: str,
        model: str,
        upstream_model: str,
        *,
        destination: Destination,
        lanes: Mapping[Operation, Lane],
        breaker: Breaker,
        weight: int = 1,
        own_fields: frozenset[bytes] = frozenset(),
        fault: str | None = None,
        grant: Grant | None = None,
        sockets: Mapping[Operation, SocketLane] = {},
        price: Price | None = None,
    ) -> None:
        """`fault`: why the target cannot be used at all (its secret is missing). `own_fields`: names of header fields
        that the operator set, so that a client's field of the same name is not forwarded. `grant`: where its credential
        comes from, if that is fetched and renewed (`upstream.credentials`). `sockets`: what the provider offers over a
        WebSocket."""
        self.id = id
        self.provider = provider
        self.model = model
        self.upstream_model = upstream_model
        self.destination = destination
        self.lanes = lanes
        self.breaker = breaker
        self.weight = weight
        self.own_fields = own_fields
        self.fault = fault
        self.grant = grant
        self.sockets = dict(sockets)
        self.price = price
        self.in_flight = 0
        self.latency = 0.0

    def __repr__(self) -> str:
        return f"<Target {self.id} {self.fault or self.breaker.state.value}, {self.in_flight} in flight>"

    def empower(self, credential: bytes, sign: Sign | None) -> None:
        """Requests carry this credential from now on, a header line or a signer, and the target can be used."""
        for lane in self.lanes.values():
            lane.credential = credential
            lane.sign = sign
        for socket in self.sockets.values():
            socket.credential = credential
        self.fault = None

    def withdraw(self, fault: str) -> None:
        """There is no credential, so the target cannot be used until there is one."""
        for lane in self.lanes.values():
            lane.credential = b""
            lane.sign = None
        for socket in self.sockets.values():
            socket.credential = b""
        self.fault = fault

    def takes_no_socket(self, operation: Operation) -> None:
        """The provider has refused a WebSocket for this operation: it is not asked for another one."""
        self.sockets.pop(operation, None)

    def usable(self, now: float) -> bool:
        """Whether a request may be sent here now."""
        if self.fault is not None:
            return False
        return self.breaker.allows(now)

    def answered(self, seconds: float) -> None:
        """The first byte of a good answer came after `seconds`."""
        self.breaker.succeeded()
        latency = self.latency
        self.latency = latency + (seconds - latency) * LATENCY_WEIGHT if latency else seconds


class Route:
    """The targets that offer one model."""

    __slots__ = ("_random", "_turn", "fallback", "strategy", "targets")

    def __init__(self, targets: Sequence[Target], strategy: RoutingStrategy, fallback: Fallback) -> None:
        self.targets = tuple(targets)
        self.strategy = strategy
        self.fallback = fallback
        self._turn = 0
        self._random = random.Random()  # noqa: S311 (spreads load, keeps no secret)

    def __repr__(self) -> str:
        return f"<Route {self.strategy.value} {[target.id for target in self.targets]}>"

    def candidates(self) -> tuple[Target, ...]:
        """All targets in the order in which this request tries them."""
        targets = self.targets
        if len(targets) == 1 or self.strategy is RoutingStrategy.ORDERED:
            return targets
        if self.strategy is RoutingStrategy.ROUND_ROBIN:
            turn, self._turn = self._turn, (self._turn + 1) % len(targets)
            return targets[turn:] + targets[:turn]
        if self.strategy is RoutingStrategy.WEIGHTED:
            return self._weighted()
        if self.strategy is RoutingStrategy.LOWEST_LATENCY:
            return tuple(sorted(targets, key=lambda target: target.latency))
        return tuple(sorted(targets, key=lambda target: target.in_flight / target.weight))

    def _weighted(self) -> tuple[Target, ...]:
        """A random order in which each next one is drawn by weight (Efraimidis and Spirakis, 2006)."""
        draw = self._random.random
        return tuple(sorted(self.targets, key=lambda target: draw() ** (1.0 / target.weight), reverse=True))


def trigger_of(error: GatewayError) -> FallbackTrigger | None:
    """What the operator calls this failure; None: no other target would do better."""
    if isinstance(error, UpstreamStatus):
        if error.status in (402, 429):  # 402: the account with the provider has nothing left
            return FallbackTrigger.RATE_LIMIT
        return FallbackTrigger.SERVER_ERROR if error.status >= 500 else None
    if isinstance(error, UpstreamTimeout):
        return FallbackTrigger.TIMEOUT
    if isinstance(error, UpstreamUnreachable | UpstreamReset):
        return FallbackTrigger.CONNECTION
    return FallbackTrigger.SERVER_ERROR if error.retryable else None


def asked_pause(error: GatewayError) -> float:
    """Seconds that a provider asks to be left alone (`retry-after-ms`, `retry-after`); 0 where it does not say.

    A date (RFC 9110, section 10.2.3) counts as more than anyone waits for: providers of models send numbers.
    """
    fields = dict(error.headers)
    for name, unit in ((b"retry-after-ms", 1000.0), (b"retry-after", 1.0)):
        value = fields.get(name)
        if value is not None:
            return float(value) / unit if _NUMBER.fullmatch(value) else float("inf")
    return 0.0


_NUMBER: Final = re.compile(rb"\d{1,9}(?:\.\d{1,9})?")
