"""What is counted of WebSockets, by what is spoken on them; `metrics` has the table."""

from __future__ import annotations

from gateway import metrics


class SocketMetrics:
    """The series of one kind of conversation."""

    __slots__ = (
        "_bytes_in", "_bytes_out", "_delay_in", "_delay_out", "_messages_in", "_messages_out", "open"
    )  # fmt: skip

    def __init__(self, counters: metrics.Metrics, kind: str) -> None:
        self.open = counters.gauge(metrics.OPEN_WEBSOCKETS, kind=kind)
        self._messages_in, self._messages_out = (
            counters.counter(metrics.WEBSOCKET_MESSAGES, kind=kind, direction=direction) for direction in ("in", "out")
        )
        self._bytes_in, self._bytes_out = (
            counters.counter(metrics.WEBSOCKET_BYTES, kind=kind, direction=direction) for direction in ("in", "out")
        )
        self._delay_in, self._delay_out = (
            counters.histogram(metrics.WEBSOCKET_DELAY, kind=kind, direction=direction) for direction in ("in", "out")
        )

    def came(self, size: int) -> None:
        """A message of the client has arrived. 0.2 µs."""
        self._messages_in.inc()
        self._bytes_in.inc(size)

    def went(self, size: int) -> None:
        """A message has gone to the client."""
        self._messages_out.inc()
        self._bytes_out.inc(size)

    def took_in(self, seconds: float) -> None:
        """So long a client's message was here."""
        self._delay_in.observe(max(seconds, 0.0))

    def took_out(self, seconds: float) -> None:
        """So long a provider's message was here."""
        self._delay_out.observe(max(seconds, 0.0))


class AllSocketMetrics(dict[str, SocketMetrics]):
    """The series of all kinds, each made when it is first asked for."""

    def __init__(self, counters: metrics.Metrics) -> None:
        super().__init__()
        self._counters = counters

    def __missing__(self, kind: str) -> SocketMetrics:
        found = self[kind] = SocketMetrics(self._counters, kind)
        return found
