"""Rows of the audit log to spans and measurements."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.telemetry.spans import Exchange, exchange_of, parent_of

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
END = 1_700_000_010_000_000_000
ROW: dict[str, Any] = {
    "kind": "exchange",
    "id": "req_1",
    "started_at": "2023-11-14T22:13:28.000Z",
    "finished_at": "2023-11-14T22:13:30.000Z",
    "key": "key_1",
    "team": "research",
    "configuration": "main",
    "operation": "chat",
    "model": "gpt-4o",
    "client": "10.0.0.7",
    "outcome": "completed",
    "status": 200,
    "code": None,
    "target": "azure",
    "attempts": 1,
    "prompt_tokens": 12,
    "completion_tokens": 34,
    "cached_tokens": 0,
    "duration_us": 2_000_000,
    "first_byte_us": 700_000,
    "sent_us": 200_000,
    "cost_nanousd": 1_500_000,
    "stages_us": {"admission": 100, "upstream": 1_000_000},
    "decisions": [{"policy": "dlp-filter", "phase": "input", "verdict": "allow", "microseconds": 5, "reason": ""}],
    "notes": [],
    "attributes": {"traceparent": TRACE},
}
PROVIDERS = {("main", "azure"): "azure-openai"}


def exchange(**changed: Any) -> Exchange:
    found = exchange_of({**ROW, **changed}, PROVIDERS)
    assert found is not None
    return found


def test_the_server_span_is_the_whole_exchange_under_the_clients_own() -> None:
    found = exchange()
    assert found.parent is not None
    assert (found.parent.trace_id, found.parent.span_id) == (0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331)
    assert (found.server.name, found.server.end, found.server.end - found.server.start) == (
        "POST /v1/chat/completions",
        END,
        2_000_000_000,
    )
    assert found.server.attributes["http.response.status_code"] == 200
    assert found.server.attributes["keeptrusts.stage.upstream"] == 1.0
    assert found.server.attributes["keeptrusts.team"] == "research"
    assert "error.type" not in found.server.attributes
    assert found.server.error == ""


def test_the_client_span_is_what_the_provider_was_asked() -> None:
    client = exchange().client
    assert client is not None
    assert (client.name, client.end - client.start) == ("chat gpt-4o", 1_800_000_000)
    assert client.attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "azure.ai.openai",
        "gen_ai.request.model": "gpt-4o",
        "gen_ai.usage.input_tokens": 12,
        "gen_ai.usage.output_tokens": 34,
        "keeptrusts.target": "azure",
        "keeptrusts.cost_usd": 0.0015,
    }


def test_measurements_are_of_the_provider() -> None:
    measured = exchange().measured
    assert measured is not None
    assert (measured.duration, measured.first_byte) == (1.8, 0.5)
    assert (measured.input_tokens, measured.output_tokens) == (12, 34)
    assert set(measured.attributes) == {"gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.request.model"}


def test_a_verdict_is_an_event() -> None:
    ((name, at, attributes),) = exchange().server.events
    assert (name, at) == ("keeptrusts.policy", END - 2_000_000_000)
    assert attributes == {
        "keeptrusts.policy.policy": "dlp-filter",
        "keeptrusts.policy.phase": "input",
        "keeptrusts.policy.verdict": "allow",
        "keeptrusts.policy.microseconds": 5,
    }


def test_a_refusal_has_no_client_span_and_is_no_error_of_the_server() -> None:
    found = exchange(target=None, outcome="refused", status=409, code="input_blocked", sent_us=None)
    assert (found.client, found.measured) == (None, None)
    assert (found.server.error, found.server.attributes["error.type"]) == ("", "input_blocked")


@pytest.mark.parametrize(
    ("changed", "server", "client"),
    [
        ({"outcome": "failed", "status": 502, "code": "upstream_reset"}, "upstream_reset", "upstream_reset"),
        ({"outcome": "cancelled", "status": 499, "code": None}, "", "cancelled"),
        ({"outcome": "truncated", "status": 200, "code": "upstream_reset"}, "upstream_reset", "upstream_reset"),
    ],
)
def test_what_went_wrong_is_told_where_it_did(changed: dict[str, Any], server: str, client: str) -> None:
    found = exchange(**changed)
    assert found.client is not None
    assert (found.server.error, found.client.error) == (server, client)
    assert found.client.attributes["error.type"] == client


@pytest.mark.parametrize(
    ("operation", "name"), [("messages", "chat"), ("embeddings", "embeddings"), ("completions", "text_completion")]
)
def test_operations_have_the_conventions_names(operation: str, name: str) -> None:
    client = exchange(operation=operation).client
    assert client is not None
    assert client.attributes["gen_ai.operation.name"] == name


def test_rows_that_are_no_measured_exchange_make_nothing() -> None:
    assert exchange_of({"kind": "gap", "started_at": "x"}, {}) is None
    assert exchange_of({**ROW, "duration_us": None}, {}) is None
    assert exchange_of({**ROW, "started_at": None}, {}) is None


@pytest.mark.parametrize(
    "field",
    [
        None,
        "",
        "00-" + "0" * 32 + "-b7ad6b7169203331-01",
        TRACE.replace("b7ad6b7169203331", "0" * 16),
        "01" + TRACE[2:],
        TRACE.upper(),
        TRACE + "-x",
        TRACE[:-1],
    ],
)
def test_what_names_no_span_begins_a_trace_of_its_own(field: str | None) -> None:
    assert parent_of(field) is None
    assert exchange(attributes={"traceparent": field} if field else {}).parent is None


def test_a_target_of_no_known_provider() -> None:
    found = exchange_of(ROW, {})
    assert found is not None
    assert found.client is not None
    assert found.client.attributes["gen_ai.provider.name"] == "_OTHER"
