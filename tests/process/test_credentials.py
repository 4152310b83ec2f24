"""A real gateway gets a cloud's credentials before its first request, and again after a reload."""

from __future__ import annotations

from pathlib import Path

import httpx
import orjson

from tests.gateway_process import configuration, running_gateway
from tests.process.support import metrics, readiness, until
from tests.provider import Request, ScriptedProvider, respond

GEMINI = {"candidates": [{"content": {"role": "model", "parts": [{"text": "Hi"}]}, "finishReason": "STOP"}]}
FETCHES = "keeptrusts_gateway_credential_fetches_total"


def cloud(request: Request) -> bytes:
    """Google's metadata server and Vertex AI behind one address; the latter takes only the former's token."""
    if request.target.startswith("/computeMetadata/"):
        assert request.headers["metadata-flavor"] == "Google"
        return respond(orjson.dumps({"access_token": "ya29.machine", "expires_in": 3599}))
    allowed = request.headers.get("authorization") == "Bearer ya29.machine"
    return respond(orjson.dumps(GEMINI)) if allowed else respond(b'{"error":{"code":401}}', 401)


def test_from_the_first_request_on(tmp_path: Path) -> None:
    with ScriptedProvider(cloud).in_thread() as provider:
        vertex = {"provider": "vertex", "base_url": provider.url, "vertex_project": "acme"}
        gemini = {**vertex, "id": "gemini", "model": "gemini-2.5-flash"}
        # The file is not there, so this one target is unavailable and the other serves.
        broken = {
            "id": "broken",
            "provider": "bedrock",
            "model": "nova",
            "aws_region": "us-east-1",
            "aws_profile": "none",
        }
        environment = {"GCE_METADATA_HOST": provider.url.removeprefix("http://"), "HOME": str(tmp_path)}
        with running_gateway(tmp_path, configuration(gemini, broken), environment=environment) as gateway:
            ask = {"messages": [{"role": "user", "content": "Hello"}]}
            answer = httpx.post(f"{gateway.api}/chat/completions", json={**ask, "model": "gemini-2.5-flash"})
            assert answer.status_code == 200, answer.text
            refused = httpx.post(f"{gateway.api}/chat/completions", json={**ask, "model": "nova"})
            assert refused.status_code == 503
            assert "there is no AWS profile 'none'" in refused.json()["error"]["message"]
            assert "there is no AWS profile 'none'" in readiness(gateway)["unavailable_targets"]["broken"]
            assert metrics(gateway)[f'{FETCHES}{{outcome="ok",source="google_metadata"}}'] == 1
            more = {**vertex, "id": "more", "model": "gemini-2.5-pro"}
            gateway.configuration_file().write_text(configuration(gemini, more))
            until(
                lambda: (
                    httpx.post(f"{gateway.api}/chat/completions", json={**ask, "model": "gemini-2.5-pro"}).is_success
                ),
                "the reloaded configuration serves",
            )
            # It shares the token that is there already.
            assert metrics(gateway)[f'{FETCHES}{{outcome="ok",source="google_metadata"}}'] == 1
            assert "ya29.machine" not in gateway.log
