"""A whole exchange without a socket, so that a test reads as a transcript.

    play = playbook()                                   # a fixture; settings are those of `Play`
    exchange = play.ask(CHAT)                           # a client asks
    play.provider().says(JSON_HEAD, b'{"id":1}')        # the provider answers, one read each
    assert play.client.transcript == ["200 sized 8: 8 bytes, end"]
    assert play.finish()["outcome"] == "completed"      # what the audit log keeps

The exchange, its relays, the compiled configuration, limits, metrics and the provider's connection are the real ones.
Only what would be a socket, a clock or a thread is played: the client writes down what it is told, the pool gives
connections when the test says so, time passes by `advance`, and work for a thread waits for `work`.

At the end of each test `check` makes sure that nothing was told to a client twice or after the end, that every exchange
that ended was recorded once, and that no target believes itself busy.
"""

from __future__ import annotations

import asyncio
import hashlib
import heapq
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import h11
import orjson

from gateway import exposition, metrics
from gateway.application import GatewayApplication
from gateway.config.load import load_text
from gateway.config.schema import AuthMode
from gateway.downstream.head import HeadLimits, RequestHead, parse_head
from gateway.downstream.http import DownstreamConnection, DownstreamLimits, Handler, Server
from gateway.errors import GatewayError, Wire, envelope
from gateway.exchange import Exchange, State
from gateway.limits import Limits
from gateway.ports import Client as ClientPort
from gateway.ports import Pool as PoolPort
from gateway.ports import Waiter
from gateway.routes import Target
from gateway.services import Services
from gateway.snapshot import Compiler
from gateway.types import Destination, GatewayKey, Origin
from gateway.upstream.connection import UpstreamConnection

KEY = b"kt_gk_00000000000000000000000000000000000000"

TARGET = """
    - id: {id}
      provider: {provider}
      model: {model}
      base_url: http://{id}.test/v1
      secret_key_ref: {{env: PROVIDER_KEY}}
"""


def target(id: str = "one", model: str = "gpt-test", provider: str = "openai-compatible", **more: object) -> str:
    """One target, as it stands in the YAML; `more` are further fields, as flow YAML."""
    text = TARGET.format(id=id, provider=provider, model=model)
    return text + "".join(f"      {name}: {value}\n" for name, value in more.items())


def configuration(
    *targets: str, providers: str = "", policies: str = "", chain: str = "audit-logger", gateway: str = ""
) -> str:
    """A whole policy-config.yaml. `providers` are further lines within `providers`, `policies` those of `policy`."""
    return (
        "pack: {name: play, version: 1.0.0}\n"
        f"providers:\n  targets:{''.join(targets or (target(),))}\n{providers}\n"
        f"policies: {{chain: [{chain}]}}\n{f'policy:{policies}' if policies else ''}\n{gateway}\n"
    )


def dlp(action: str = "block", phase: str = "[input]", terms: str = "[secret]", more: str = "") -> str:
    """Settings of a `dlp-filter`, for `configuration(policies=…, chain="audit-logger, dlp-filter")`."""
    return f"\n  dlp-filter: {{terms: {terms}, action: {action}, phase: {phase}{more}}}\n"


def gateway_key(**settings: Any) -> GatewayKey:
    """The key that `KEY` is; settings as of `GatewayKey`."""
    return GatewayKey("key_1", hashlib.sha256(KEY).digest(), "kt_gk_000000", "play", 1, **settings)


class Clock:
    """Time that passes only when it is told to."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Timer:
    """What `call_later` gives."""

    def __init__(self, when: float, call: Callable[[], None]) -> None:
        self.when = when
        self.call = call
        self.cancelled = False

    def __lt__(self, other: Timer) -> bool:
        return self.when < other.when

    def cancel(self) -> None:
        self.cancelled = True


class Transport(asyncio.Transport):
    """Keeps each write as the very object that was given. `events` tells of everything else."""

    def __init__(self) -> None:
        super().__init__({"peername": ("192.0.2.7", 40000)})
        self.writes: list[bytes] = []
        self.events: list[str] = []
        self.unsent = 0
        self._closing = False

    @property
    def written(self) -> bytes:
        """Everything that was written."""
        return b"".join(self.writes)

    def write(self, data: Any) -> None:
        assert not self._closing, "a write after the close"
        assert data, "an empty write"
        self.writes.append(data)

    def writelines(self, pieces: Any) -> None:
        for piece in pieces:
            self.write(piece)

    def is_closing(self) -> bool:
        return self._closing

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        pass  # whoever plays tells it of what happens

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def pause_reading(self) -> None:
        self.events.append("paused")

    def resume_reading(self) -> None:
        self.events.append("resumed")

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.events.append("eof")

    def close(self) -> None:
        self._closing = True
        self.events.append("closed")

    def abort(self) -> None:
        self._closing = True
        self.events.append("aborted")


class Client:
    """The client's side of one exchange. `transcript` says what it was told, `body` is the payload it has.

    What no connection could do (an answer begun twice, bytes after the end) lands in `faults`.
    """

    peer = "192.0.2.7"

    def __init__(self, *, takes_chunks: bool = True) -> None:
        self.takes_chunks = takes_chunks
        self.transcript: list[str] = []
        self.writes: list[bytes] = []
        self.fields = b""
        self.status = 0
        self.faults: list[str] = []
        self.error: GatewayError | None = None
        self.over = False
        self._framed = b""
        self._plain = b""

    def __repr__(self) -> str:
        return f"<Client {self.transcript}>"

    @property
    def body(self) -> bytes:
        """The payload, its framing taken off by h11."""
        return self._plain + (unframe(self._framed) if self._framed else b"")

    @property
    def headers(self) -> dict[str, str]:
        """The answer's fields; a repeated one is joined by a comma, as a client would."""
        found: dict[str, str] = {}
        for line in self.fields.decode("latin-1").split("\r\n")[:-1]:
            name, _, value = line.partition(": ")
            found[name] = f"{found[name]}, {value}" if name in found else value
        return found

    def begin(
        self, status: int, fields: bytes, *, length: int | None, data: bytes, end: bool, raw: bool, reason: bytes = b""
    ) -> None:
        if self.status or self.over:
            self.faults.append(f"begun with {status} after {self.transcript}")
        self.status = status
        self.fields = fields
        how = "chunked" if length is None else f"sized {length}"
        self._take(f"{status} {how}: ", data, end, raw)

    def send(self, data: bytes, *, end: bool, raw: bool) -> None:
        if not self.status or self.over:
            self.faults.append(f"sent {data!r} after {self.transcript}")
        self._take("", data, end, raw)

    def write(self, data: bytes) -> None:
        self.send(data, end=False, raw=True)

    def reply(self, status: int, fields: bytes, body: bytes) -> None:
        self.begin(status, fields, length=len(body), data=body, end=True, raw=False)

    def refuse(self, error: GatewayError, request_id: str = "", wire: Wire = Wire.OPENAI, fields: bytes = b"") -> None:
        self.error = error
        extra = b"".join([b"%b: %b\r\n" % field for field in error.headers])
        self.reply(error.status, fields + extra, envelope(error, request_id, wire))
        self.transcript[-1] = f"refused: {error.status} {error.code}"

    def abort(self) -> None:
        if self.over:
            self.faults.append(f"aborted after {self.transcript}")
        self.over = True
        self.transcript.append("aborted")

    def _take(self, begin: str, data: bytes, end: bool, raw: bool) -> None:
        kind = "framed bytes" if raw else "bytes"
        self.transcript.append(f"{begin}{len(data)} {kind}{', end' if end else ''}")
        if raw and not self.takes_chunks:
            self.faults.append("framed bytes for a client that does not take chunks")
        self.writes.append(data)
        if raw:
            self._framed += data
        elif not self.takes_chunks:
            self._plain += data
        else:
            self._framed += (b"%x\r\n%b\r\n" % (len(data), data) if data else b"") + (b"0\r\n\r\n" if end else b"")
        self.over = end


def unframe(framed: bytes) -> bytes:
    """The payload of a chunked body, which need not be complete, by h11, which is strict."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("host", "x")]))
    client.send(h11.EndOfMessage())
    client.receive_data(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + framed)
    payload = b""
    while True:
        event = client.next_event()
        if isinstance(event, h11.Data):
            payload += bytes(event.data)
        elif event is h11.NEED_DATA or isinstance(event, h11.EndOfMessage | h11.ConnectionClosed):
            return payload


class Provider:
    """The provider's end of one real `UpstreamConnection`."""

    def __init__(self, pool: Pool, destination: Destination) -> None:
        self.destination = destination
        self.transport = Transport()
        self.connection = UpstreamConnection(pool, destination.origin)
        self.connection.connection_made(self.transport)

    def __repr__(self) -> str:
        return f"<Provider {self.destination.name} {self.connection!r}>"

    @property
    def asked(self) -> bytes:
        """The latest request, as it was written."""
        return self.transport.writes[-1]

    @property
    def body(self) -> Any:
        """The latest request's body, from its JSON."""
        return orjson.loads(self.asked.partition(b"\r\n\r\n")[2])

    @property
    def headers(self) -> dict[str, str]:
        lines = self.asked.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")[1:]
        return dict(line.split(": ", 1) for line in lines)

    @property
    def gone(self) -> bool:
        """The gateway has dropped the connection."""
        return "aborted" in self.transport.events

    def says(self, *reads: bytes) -> None:
        """One read of the gateway for each."""
        for read in reads:
            self.connection.data_received(read)

    def closes(self) -> None:
        """FIN."""
        self.connection.eof_received()

    def resets(self) -> None:
        """RST."""
        self.connection.connection_lost(ConnectionResetError())


class Ticket:
    """A place in the queue."""

    def __init__(self, destination: Destination, waiter: Waiter) -> None:
        self.destination = destination
        self.waiter = waiter
        self.state = "waiting"

    def cancel(self) -> None:
        assert self.state == "waiting", f"cancelled when {self.state}"
        self.state = "cancelled"


class Pool:
    """Gives connections as the test says: at once as long as `idle`, otherwise by `connect` and `fail`."""

    def __init__(self, clock: Clock) -> None:
        self.idle = True
        self.providers: list[Provider] = []
        self.tickets: list[Ticket] = []
        self.free: list[Provider] = []
        self.lingering: list[UpstreamConnection] = []
        self._clock = clock

    def take(self, destination: Destination) -> UpstreamConnection | None:
        return self._lease(destination) if self.idle else None

    def of(self, destination: Destination) -> None:
        """No warm path: what plays here are exchanges (tests/gateway/test_warm_path.py has both)."""

    def wait(self, destination: Destination, waiter: Waiter) -> Ticket:
        self.tickets.append(Ticket(destination, waiter))
        return self.tickets[-1]

    def _lease(self, destination: Destination) -> UpstreamConnection:
        for provider in [one for one in self.free if one.destination == destination]:
            self.free.remove(provider)
            break
        else:
            provider = Provider(self, destination)
        provider.connection.idle_since = self._clock()  # a real pool would probe a socket that was idle for long
        self.providers.append(provider)
        assert provider.connection.lease(self._clock())
        return provider.connection

    def connect(self) -> None:
        """The request that waits gets its connection."""
        ticket = self._next()
        ticket.state = "served"
        ticket.waiter.on_connection(self._lease(ticket.destination))

    def fail(self, error: GatewayError) -> None:
        """The request that waits gets none."""
        ticket = self._next()
        ticket.state = "failed"
        ticket.waiter.on_connect_failed(error)

    def _next(self) -> Ticket:
        return next(ticket for ticket in self.tickets if ticket.state == "waiting")

    def on_connection_idle(self, connection: UpstreamConnection) -> None:
        connection.idle_since = self._clock()
        # Each lease of one connection stands in `providers`.
        found = next((one for one in reversed(self.providers) if one.connection is connection), None)
        if found is not None and found not in self.free:
            self.free.append(found)

    def on_connection_lingering(self, connection: UpstreamConnection) -> None:
        self.lingering.append(connection)

    def on_connection_closed(self, connection: UpstreamConnection) -> None:
        self.free = [one for one in self.free if one.connection is not connection]


class Play:
    """A worker without sockets: ask, let the provider answer, look at what happened."""

    def __init__(
        self,
        folder: Path,
        text: str = "",
        *,
        key: GatewayKey | None = None,
        mode: AuthMode = AuthMode.REQUIRED,
        environment: Mapping[str, str] = {"PROVIDER_KEY": "sk-provider"},
    ) -> None:
        """`text` is the YAML of one configuration; `key` the only gateway key, else one without limits."""
        self.clock = Clock(1000.0)
        self.wall = Clock(1_700_000_000.0)
        self.pool = Pool(self.clock)
        self.audit: list[bytes] = []
        self.audit_error: GatewayError | None = None
        self.counted: list[tuple[int, str | None]] = []
        self.faults: list[Exception] = []
        self.threads: list[tuple[Callable[[], Any], Callable[[Any], None]]] = []
        self.opened: list[Handler | None] = []
        self.client = Client()
        self._timers: list[Timer] = []
        self.metrics = metrics.Metrics(folder, 0)
        self.folder = folder
        key = key or gateway_key()
        compiler = Compiler(
            self.metrics,
            fail_mode=None,
            clock=lambda: 0,
            on_policy_error=lambda kind, error: self.faults.append(error),
            environment=environment,
        )
        snapshot = compiler.compile([load_text(text or configuration(), "play.yaml")], {key.hash: key}.get)
        self.services = Services(
            cast(asyncio.AbstractEventLoop, self),
            pool=cast(PoolPort, self.pool),
            limits=Limits(folder, 0, 1),
            counters=self.metrics,
            snapshot=snapshot,
            audit=self._take_record,
            conclude=self.audit.append,
            clock=self.clock,
            wall=self.wall,
        )
        self.services.run_in_thread = lambda work, then: self.threads.append((work, then))  # type: ignore[method-assign]
        self.services.report_bug = lambda where, error: self.faults.append(error)  # type: ignore[method-assign]
        count = self.services.count

        def counting(exchange: Exchange, status: int, code: str | None, now: float) -> None:
            self.counted.append((status, code))
            count(exchange, status, code, now)

        self.services.count = counting  # type: ignore[method-assign]
        self.application = GatewayApplication(
            self.services,
            self.metrics,
            mode=mode,
            control=Destination("control", Origin("control", 0, tls=False)),
            status=lambda: {"ready": True},
        )
        open_ = self.application.open

        def recording(head: RequestHead, client: ClientPort) -> Handler | None:
            self.opened.append(open_(head, client))
            return self.opened[-1]

        self.application.open = recording  # type: ignore[method-assign]

    def _take_record(self, record: bytes) -> None:
        if self.audit_error is not None:
            raise self.audit_error
        self.audit.append(record)

    # The client's side

    def open(
        self,
        path: str = "/v1/chat/completions",
        *,
        method: str = "POST",
        headers: Sequence[str] = (),
        key: bytes | None = KEY,
        client: Client | None = None,
    ) -> Handler | None:
        """A request head comes. Its answer goes to `self.client`."""
        self.client = client or Client()
        version = "1.1" if self.client.takes_chunks else "1.0"
        credential = [f"Authorization: Bearer {key.decode()}"] if key is not None else []
        lines = [f"{method} {path} HTTP/{version}", "Host: localhost:41002", *credential, *headers, "", ""]
        head = parse_head("\r\n".join(lines).encode("latin-1"), HeadLimits())
        return self.application.open(head, self.client)

    def ask(self, body: Mapping[str, Any] | bytes, path: str = "/v1/chat/completions", **options: Any) -> Exchange:
        """A whole request comes; it must become an exchange."""
        exchange = self.open(path, **options)
        assert isinstance(exchange, Exchange), f"answered at once: {self.client}"
        exchange.on_body(body if isinstance(body, bytes) else orjson.dumps(body))
        return exchange

    def connect(self) -> tuple[DownstreamConnection, Transport]:
        """A real connection of a client, without a socket: what it is given are bytes of HTTP."""
        connection = Server(self.application, DownstreamLimits(), self.clock, self.wall)()
        transport = Transport()
        connection.connection_made(transport)
        return connection, transport

    def provider(self, index: int = -1) -> Provider:
        """The provider of the latest attempt."""
        return self.pool.providers[index]

    @property
    def targets(self) -> dict[str, Target]:
        return {one.id: one for one in self.services.snapshot.targets}

    # Time and threads

    def call_later(self, delay: float, call: Callable[..., None], *arguments: Any) -> Timer:
        timer = Timer(self.clock.now + delay, lambda: call(*arguments))
        heapq.heappush(self._timers, timer)
        return timer

    def advance(self, seconds: float) -> None:
        """Time passes; what is due happens, then the worker sweeps."""
        until = self.clock.now + seconds
        while self._timers and self._timers[0].when <= until:
            timer = heapq.heappop(self._timers)
            if not timer.cancelled:
                self.clock.now = timer.when
                timer.call()
        self.wall.now += seconds
        self.clock.now = until
        self.services.sweep()

    @property
    def pauses(self) -> list[float]:
        """Seconds until each timer that is set."""
        return [timer.when - self.clock.now for timer in self._timers if not timer.cancelled]

    def work(self) -> None:
        """A thread does its work, and the loop hears of it."""
        work, then = self.threads.pop(0)
        try:
            result = work()
        except Exception as error:
            result = error
        then(result)

    # What was recorded

    @property
    def records(self) -> list[dict[str, Any]]:
        """The audit records, in order."""
        return [orjson.loads(record) for record in self.audit]

    def finish(self) -> dict[str, Any]:
        """The only finish record of the latest exchange."""
        found = [record for record in self.records if record["kind"] == "finish"]
        last = [record for record in found if record["id"] == found[-1]["id"]]
        assert len(last) == 1, last
        return last[0]

    def metric(self, name: str) -> float:
        """The sum of a metric's samples, as Prometheus would read them."""
        lines = [line for line in exposition.render(self.folder).decode().splitlines() if line.startswith(name)]
        return sum(float(line.rpartition(" ")[2]) for line in lines if line[len(name)] in " {")

    def check(self) -> None:
        """What must be true whatever happened. A test that means to meet a fault clears `faults`."""
        for fault in self.faults:
            raise fault
        assert self.client.faults == []
        exchanges = [one for one in self.opened if isinstance(one, Exchange)]
        ended = [one for one in exchanges if one.state is State.ENDED]
        assert self.services.active == set(exchanges) - set(ended)
        assert len(self.counted) == len(ended)
        finished = [record["id"] for record in self.records if record["kind"] == "finish"]
        assert len(finished) == len(set(finished))
        if len(ended) == len(exchanges):
            busy = [one for one in self.services.snapshot.targets if one.in_flight]
            assert not busy
            assert not [ticket for ticket in self.pool.tickets if ticket.state == "waiting"]
            assert not self.pauses

    def close(self) -> None:
        self.services.close()
        self.services.limits.close()
        self.metrics.close()
