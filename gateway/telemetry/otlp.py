"""Exports exchanges as OTLP over HTTP, by the OpenTelemetry SDK: spans in batches, metrics at an interval.

Imported only where telemetry is set, since the SDK is an extra (`pip install 'keeptrusts-gateway[otel]'`) and takes
0.3 s to load. It lives in the control process, in threads of its own. A collector that is away costs what is exported
meanwhile: the SDK tries again for some seconds, then drops, and says so in the log. Nothing of a request waits for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from gateway.telemetry.spans import Exchange, Parent, Span

SCOPE: Final = "keeptrusts.gateway"
QUEUE: Final = 16_384
"""Spans that may wait for the collector; what comes beyond is dropped."""
BATCH: Final = 512
EXPORT_SECONDS: Final = 10
"""For one request to the collector."""
CLOSE_MILLISECONDS: Final = 3000
_KINDS: Final = {"server": SpanKind.SERVER, "client": SpanKind.CLIENT}
# Bounds that the conventions advise for these instruments.
_SECONDS: Final = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
_TOKENS: Final = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864)


class Exporter:
    """Takes exchanges and exports them until it is closed. Its methods may block; not for an event loop."""

    def __init__(
        self, endpoint: str, headers: Mapping[str, str], interval_seconds: float, resource: Mapping[str, str]
    ) -> None:
        """`endpoint` is the collector's base URL, to which `/v1/traces` and `/v1/metrics` are added."""
        base = endpoint.rstrip("/")
        described = Resource.create(dict(resource))
        fields = dict(headers)
        traces = OTLPSpanExporter(f"{base}/v1/traces", headers=fields, timeout=EXPORT_SECONDS)
        self._spans = TracerProvider(resource=described, shutdown_on_exit=False)
        self._spans.add_span_processor(
            BatchSpanProcessor(
                traces,
                max_queue_size=QUEUE,
                max_export_batch_size=BATCH,
                schedule_delay_millis=1000 * interval_seconds,
            )
        )
        metrics = OTLPMetricExporter(f"{base}/v1/metrics", headers=fields, timeout=EXPORT_SECONDS)
        reader = PeriodicExportingMetricReader(metrics, export_interval_millis=1000 * interval_seconds)
        self._metrics = MeterProvider([reader], resource=described, shutdown_on_exit=False)
        self._tracer = self._spans.get_tracer(SCOPE)
        meter = self._metrics.get_meter(SCOPE)
        self._duration = meter.create_histogram(
            "gen_ai.client.operation.duration",
            "s",
            "From the request sent to the provider until its answer's end.",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self._first = meter.create_histogram(
            "gen_ai.client.operation.time_to_first_chunk",
            "s",
            "From the request sent to the provider until the answer's first byte for the client.",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self._tokens = meter.create_histogram(
            "gen_ai.client.token.usage",
            "{token}",
            "Tokens as the provider counted them.",
            explicit_bucket_boundaries_advisory=_TOKENS,
        )

    def export(self, exchanges: Iterable[Exchange]) -> None:
        """Queue spans and count measurements."""
        for exchange in exchanges:
            self._trace(exchange)
            self._measure(exchange)

    def close(self) -> None:
        """Send what is queued, for a few seconds at most, and end."""
        self._spans.force_flush(CLOSE_MILLISECONDS)
        self._spans.shutdown()
        self._metrics.shutdown(timeout_millis=CLOSE_MILLISECONDS)

    def _trace(self, exchange: Exchange) -> None:
        context = None
        if exchange.parent is not None:
            context = set_span_in_context(NonRecordingSpan(_context_of(exchange.parent)))
        server = self._begin(exchange.server, context)
        if exchange.client is not None:
            client = self._begin(exchange.client, set_span_in_context(server))
            client.end(exchange.client.end)
        server.end(exchange.server.end)

    def _begin(self, span: Span, context):  # type: ignore[no-untyped-def]
        begun = self._tracer.start_span(
            span.name, context=context, kind=_KINDS[span.kind], attributes=dict(span.attributes), start_time=span.start
        )
        for name, at, attributes in span.events:
            begun.add_event(name, dict(attributes), at)
        if span.error:
            begun.set_status(Status(StatusCode.ERROR, span.error))
        return begun

    def _measure(self, exchange: Exchange) -> None:
        measured = exchange.measured
        if measured is None:
            return
        attributes = dict(measured.attributes)
        self._duration.record(measured.duration, attributes)
        if measured.first_byte is not None:
            self._first.record(measured.first_byte, attributes)
        for kind, count in (("input", measured.input_tokens), ("output", measured.output_tokens)):
            if count:
                self._tokens.record(count, {**attributes, "gen_ai.token.type": kind})


def _context_of(parent: Parent) -> SpanContext:
    """The client's span. Whether it is sampled is not asked: whoever turned telemetry on wants every exchange."""
    return SpanContext(parent.trace_id, parent.span_id, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))
