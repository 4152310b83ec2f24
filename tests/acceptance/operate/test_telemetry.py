"""A running gateway with `gateway.telemetry` set, and a collector: what a client's trace looks like in the end."""

from __future__ import annotations

from pathlib import Path

from tests.gateway.telemetry.test_otlp import Collector, attributes
from tests.gateway_process import configuration, running_gateway
from tests.process.support import MOCK, Wire, chat, until

TRACE = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = f"00-{TRACE}-b7ad6b7169203331-01"


def test_a_clients_trace_is_continued(tmp_path: Path) -> None:
    collector = Collector()
    with collector.listening() as url:
        otlp = {"endpoint": url, "headers": {"authorization": {"env": "OTLP_TOKEN"}}, "interval_seconds": 1}
        text = configuration(MOCK, gateway={"telemetry": {"otlp": otlp}})
        with running_gateway(tmp_path, text, environment={"OTLP_TOKEN": "secret-token"}) as gateway:
            until(lambda: "telemetry is exported" in gateway.log, "the exporter is there")
            with Wire(gateway.port) as client:
                for _ in range(3):  # the third goes the short way of a head that is known
                    client.send(chat("mock-gpt", traceparent=TRACEPARENT))
                    assert client.answer()[0] == 200
            until(lambda: len(collector.spans()) == 6, "two spans of each exchange have come")
            servers = [span for span in collector.spans() if span.kind == 2]
            assert {span.trace_id.hex() for span in collector.spans()} == {TRACE}
            assert {span.parent_span_id.hex() for span in servers} == {"b7ad6b7169203331"}
            assert [attributes(span)["http.response.status_code"] for span in servers] == [200] * 3
            clients = [span for span in collector.spans() if span.kind == 3]
            assert {attributes(span)["gen_ai.provider.name"] for span in clients} == {"mock"}
            assert sum(attributes(span)["gen_ai.usage.input_tokens"] for span in clients) > 0
            until(lambda: collector.metrics().get("gen_ai.client.token.usage"), "metrics come too")
        assert {fields["authorization"] for _, fields, _ in collector.requests} == {"secret-token"}
        assert "secret-token" not in gateway.log


def test_without_the_setting_nothing_is_loaded_and_nothing_recorded(tmp_path: Path) -> None:
    with running_gateway(tmp_path, configuration(MOCK)) as gateway:
        with Wire(gateway.port) as client:
            client.send(chat("mock-gpt", traceparent=TRACEPARENT))
            assert client.answer()[0] == 200
        (record,) = until(lambda: gateway.audit_records(), "the exchange is recorded")
        assert TRACE not in str(record)
        libraries = {
            line.split()[-1]
            for pid in Path(f"/proc/{gateway.process.pid}/task/{gateway.process.pid}/children").read_text().split()
            for line in Path(f"/proc/{pid}/maps").read_text().splitlines()
        }
        assert not [name for name in libraries if "opentelemetry" in name or "google/_upb" in name]
