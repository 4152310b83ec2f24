"""The exporter against a collector that follows a script, over real HTTP."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from gateway.telemetry.otlp import Exporter
from gateway.telemetry.spans import exchange_of
from tests.gateway.telemetry.test_spans import PROVIDERS, ROW


class Collector:
    """An OTLP/HTTP receiver. `status` is what it answers; everything it was sent is kept."""

    def __init__(self, status: int = 200) -> None:
        self.status = status
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.arrived = threading.Condition()

    @contextmanager
    def listening(self) -> Iterator[str]:
        """Its base URL, while it listens."""
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                with collector.arrived:
                    fields = {name.lower(): value for name, value in self.headers.items()}
                    collector.requests.append((self.path, fields, body))
                    collector.arrived.notify_all()
                self.send_response(collector.status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    def spans(self) -> list[Any]:
        """All spans that have come."""
        sent = [ExportTraceServiceRequest.FromString(body) for path, _, body in self.requests if path == "/v1/traces"]
        return [
            span
            for request in sent
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def metrics(self) -> dict[str, list[Any]]:
        """The data points that have come, by metric."""
        found: dict[str, list[Any]] = {}
        for path, _, body in self.requests:
            if path == "/v1/metrics":
                for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                    for scope in resource.scope_metrics:
                        for metric in scope.metrics:
                            found.setdefault(metric.name, []).extend(metric.histogram.data_points)
        return found


def attributes(item: Any) -> dict[str, Any]:
    """The attributes of a span, a data point or a resource."""
    kinds = {one.key: one.value.WhichOneof("value") for one in item.attributes}
    return {one.key: getattr(one.value, kinds[one.key]) for one in item.attributes}


@pytest.fixture
def collector() -> Iterator[tuple[Collector, Exporter]]:
    collector = Collector()
    with collector.listening() as url:
        yield collector, Exporter(url, {"authorization": "Bearer t"}, 3600, {"service.name": "gw"})


def test_spans_and_metrics_arrive_as_the_conventions_name_them(collector: tuple[Collector, Exporter]) -> None:
    receiver, exporter = collector
    exchange = exchange_of(ROW, PROVIDERS)
    assert exchange is not None
    exporter.export([exchange])
    exporter.close()
    client, server = receiver.spans()
    assert (server.name, client.name) == ("POST /v1/chat/completions", "chat gpt-4o")
    assert server.trace_id.hex() == client.trace_id.hex() == "0af7651916cd43dd8448eb211c80319c"
    assert (server.parent_span_id.hex(), client.parent_span_id) == ("b7ad6b7169203331", server.span_id)
    assert (server.start_time_unix_nano, server.end_time_unix_nano) == (exchange.server.start, exchange.server.end)
    assert attributes(client)["gen_ai.usage.output_tokens"] == 34
    assert [event.name for event in server.events] == ["keeptrusts.policy"]
    metrics = receiver.metrics()
    assert set(metrics) == {
        "gen_ai.client.operation.duration",
        "gen_ai.client.operation.time_to_first_chunk",
        "gen_ai.client.token.usage",
    }
    (duration,) = metrics["gen_ai.client.operation.duration"]
    assert (duration.count, duration.sum) == (1, 1.8)
    assert sorted(
        (attributes(point)["gen_ai.token.type"], point.sum) for point in metrics["gen_ai.client.token.usage"]
    ) == [
        ("input", 12),
        ("output", 34),
    ]
    assert {fields["authorization"] for _, fields, _ in receiver.requests} == {"Bearer t"}


def test_an_exchange_without_a_parent_begins_a_trace(collector: tuple[Collector, Exporter]) -> None:
    receiver, exporter = collector
    rows = [{**ROW, "attributes": {}, "target": None, "outcome": "failed", "status": 503, "code": "overloaded"}] * 2
    exporter.export(found for row in rows if (found := exchange_of(row, {})) is not None)
    exporter.close()
    first, second = receiver.spans()
    assert first.trace_id != second.trace_id
    assert first.parent_span_id == b""
    assert (first.status.code, first.status.message) == (2, "overloaded")
    assert receiver.metrics() == {}


def test_a_collector_that_refuses_hinders_nobody() -> None:
    refusing = Collector(status=400)
    with refusing.listening() as url:
        exporter = Exporter(url, {}, 3600, {})
        exchange = exchange_of(ROW, PROVIDERS)
        assert exchange is not None
        exporter.export([exchange])
        exporter.close()
    assert {path for path, _, _ in refusing.requests} == {"/v1/traces", "/v1/metrics"}
