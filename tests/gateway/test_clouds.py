"""Whole exchanges with the clouds: tokens come over real connections, and the provider checks who is asking."""

from __future__ import annotations

import struct
import zlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from gateway.config.schema import AuthMode
from gateway.upstream.credentials.keeper import Keepers
from gateway.upstream.credentials.source import Credential, Machine
from tests.gateway.upstream.credentials.support import NOW, machine, says
from tests.gateway.upstream.credentials.test_aws import EXPIRES, FETCHED
from tests.gateway.upstream.credentials.test_google import service_account, token_server
from tests.playbook import Play, Provider, configuration
from tests.provider import ScriptedProvider, head, respond
from tests.translators.test_sigv4 import by_botocore
from translators.sigv4 import AwsCredentials

CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}
STREAM = {**CHAT, "stream": True}
MESSAGES: dict[str, Any] = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hello"}]}
STATIC = AwsCredentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI")
NO_FILES = {"AWS_SHARED_CREDENTIALS_FILE": "/nowhere/credentials", "AWS_CONFIG_FILE": "/nowhere/config"}
CONVERSE = {
    "output": {"message": {"role": "assistant", "content": [{"text": "Hi"}]}},
    "stopReason": "end_turn",
    "usage": {"inputTokens": 3, "outputTokens": 1, "totalTokens": 4},
}
CLAUDE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-sonnet-4-5",
    "content": [{"type": "text", "text": "Hi"}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 3, "output_tokens": 1},
}
GEMINI = {"candidates": [{"content": {"role": "model", "parts": [{"text": "Hi"}]}, "finishReason": "STOP"}]}

Playbook = Callable[..., Play]


def one(**settings: str) -> str:
    """A configuration with one target."""
    lines = "".join(f"      {name}: {value}\n" for name, value in settings.items())
    return configuration(f"\n    - id: one\n      model: m\n{lines}")


class Clouds:
    """Real keepers beside a play."""

    def __init__(self, here: Machine) -> None:
        self._here = here
        self._keepers: list[Keepers] = []

    async def __call__(self, play: Play) -> Play:
        """The play, once its targets have what they need."""
        keepers = Keepers(self._here, play.metrics)
        self._keepers.append(keepers)
        keepers.watch(play.services.snapshot.targets)
        await keepers.first(20.0)
        return play

    async def close(self) -> None:
        for keepers in self._keepers:
            await keepers.close()


@pytest.fixture
async def clouds() -> AsyncIterator[Clouds]:
    async with machine() as here:
        made = Clouds(here)
        yield made
        await made.close()


def answered(play: Play) -> Any:
    assert play.client.status == 200, play.client.body
    return orjson.loads(play.client.body)


def request_line(provider: Provider) -> str:
    return provider.asked.split(b"\r\n", 1)[0].decode()


def assert_signed(provider: Provider, credentials: AwsCredentials, region: str) -> None:
    """As AWS does it: the signature is computed from what has arrived."""
    target = request_line(provider).split(" ")[1]
    url = f"https://{provider.headers['host']}{target}"
    body = provider.asked.partition(b"\r\n\r\n")[2]
    expected = by_botocore(credentials, NOW, url, body, region=region, service="bedrock")
    assert {name: provider.headers.get(name) for name in expected} == expected
    names = [line.partition(b":")[0].lower() for line in provider.asked.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]]
    assert len([name for name in names if name in (b"authorization", b"x-amz-date", b"x-amz-security-token")]) == len(
        expected
    )


ARN = "arn:aws:bedrock:eu-central-1:123456789012:application-inference-profile/abc"


class TestBedrock:
    @pytest.mark.parametrize(
        ("model", "path"),
        [
            ("eu.anthropic.claude-sonnet-4-5-20250929-v1:0", "eu.anthropic.claude-sonnet-4-5-20250929-v1%3A0"),
            ("amazon.nova-lite-v1:0", "amazon.nova-lite-v1%3A0"),
            ("meta.llama3-1-70b-instruct-v1:0", "meta.llama3-1-70b-instruct-v1%3A0"),
            ("mistral.mistral-large-2407-v1:0", "mistral.mistral-large-2407-v1%3A0"),
            (ARN, ARN.replace(":", "%3A").replace("/", "%2F")),
        ],
    )
    def test_F10_each_family_by_converse_signed(self, playbook: Playbook, model: str, path: str) -> None:
        text = one(
            provider="bedrock", upstream_model=f"'{model}'", aws_region="eu-central-1", secret_key_ref="{env: KEY}"
        )
        play = playbook(text, environment={"KEY": f"{STATIC.access_key_id}:{STATIC.secret_access_key}"})
        play.wall.now = NOW
        for _ in range(2):  # on one connection of the client: nothing that was signed is kept
            play.ask(CHAT, headers=["x-amz-date: 20200101T000000Z", "X-Amz-Security-Token: mine"])
            provider = play.provider()
            assert request_line(provider) == f"POST /model/{path}/converse HTTP/1.1"
            assert provider.headers["host"] == "bedrock-runtime.eu-central-1.amazonaws.com"
            assert_signed(provider, STATIC, "eu-central-1")
            provider.says(respond(orjson.dumps(CONVERSE)))
            assert answered(play)["choices"][0]["message"]["content"] == "Hi"

    def test_a_stream(self, playbook: Playbook) -> None:
        text = one(
            provider="bedrock", upstream_model="amazon.nova", aws_region="eu-central-1", secret_key_ref="{env: KEY}"
        )
        play = playbook(text, environment={"KEY": f"{STATIC.access_key_id}:{STATIC.secret_access_key}"})
        play.wall.now = NOW
        play.ask(STREAM)
        provider = play.provider()
        assert request_line(provider) == "POST /model/amazon.nova/converse-stream HTTP/1.1"
        assert_signed(provider, STATIC, "eu-central-1")
        events = (
            ("messageStart", {"role": "assistant"}),
            ("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "Hi"}}),
            ("contentBlockStop", {"contentBlockIndex": 0}),
            ("messageStop", {"stopReason": "end_turn"}),
            ("metadata", {"usage": {"inputTokens": 3, "outputTokens": 1, "totalTokens": 4}}),
        )
        body = b"".join(frame(kind, payload) for kind, payload in events)
        provider.says(head(200, ("content-type", "application/vnd.amazon.eventstream"), length=len(body)), body)
        assert b'"content":"Hi"' in play.client.body
        assert play.client.body.endswith(b"data: [DONE]\n\n")

    async def test_a_container_whose_key_is_renewed(self, playbook: Playbook, clouds: Clouds) -> None:
        """Each request is signed with what is there at that moment."""
        keys = {"AccessKeyId": FETCHED.access_key_id, "SecretAccessKey": FETCHED.secret_access_key}
        answer = says({**keys, "Token": FETCHED.session_token, "Expiration": EXPIRES})
        async with ScriptedProvider(answer) as service:
            environment = {**NO_FILES, "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{service.url}/role"}
            text = one(provider="bedrock", upstream_model="amazon.nova", aws_region="us-east-1")
            play = await clouds(playbook(text, environment=environment))
        play.wall.now = NOW
        play.ask(CHAT)
        assert_signed(play.provider(), FETCHED, "us-east-1")
        play.provider().says(respond(orjson.dumps(CONVERSE)))
        assert play.client.status == 200
        target = play.targets["one"]
        assert target.grant is not None
        renewed = AwsCredentials("ASIARENEWED", "other", "newer")
        target.grant.give(target, Credential(renewed))
        play.ask(CHAT)
        assert_signed(play.provider(), renewed, "us-east-1")
        play.provider().says(respond(orjson.dumps(CONVERSE)))

    async def test_no_credential(self, playbook: Playbook, clouds: Clouds) -> None:
        async with ScriptedProvider(respond(b"", 500)) as service:
            environment = {**NO_FILES, "AWS_EC2_METADATA_SERVICE_ENDPOINT": service.url}
            text = one(provider="bedrock", upstream_model="amazon.nova", aws_region="us-east-1")
            play = await clouds(playbook(text, environment=environment))
            play.ask(CHAT)
        assert play.client.status == 503
        error = orjson.loads(play.client.body)["error"]
        assert error["code"] == "upstream_unavailable"
        assert "(aws_instance) cannot be fetched: the instance metadata service answered 500" in error["message"]

    def test_an_api_key(self, playbook: Playbook) -> None:
        text = one(
            provider="bedrock", upstream_model="amazon.nova", aws_region="us-east-1", secret_key_ref="{env: KEY}"
        )
        play = playbook(text, environment={"KEY": "ABSKkey"})
        play.ask(CHAT)
        assert play.provider().headers["authorization"] == "Bearer ABSKkey"
        assert "x-amz-date" not in play.provider().headers
        play.provider().says(respond(orjson.dumps(CONVERSE)))

    @pytest.mark.parametrize(
        ("model", "sent", "answer", "vectors"),
        [
            (
                "amazon.titan-embed-text-v2:0",
                {"inputText": "a", "dimensions": 2},
                {"embedding": [0.5, 0.25], "inputTextTokenCount": 7},
                [[0.5, 0.25]],
            ),
            (
                "cohere.embed-english-v3",
                {"texts": ["a"], "input_type": "search_document", "embedding_types": ["float"], "output_dimension": 2},
                {"embeddings": {"float": [[0.5, 0.25]]}, "response_type": "embeddings_by_type"},
                [[0.5, 0.25]],
            ),
        ],
    )
    def test_embeddings(
        self, playbook: Playbook, model: str, sent: dict[str, Any], answer: dict[str, Any], vectors: list[Any]
    ) -> None:
        text = one(provider="bedrock", upstream_model=f"'{model}'", aws_region="us-east-1", secret_key_ref="{env: KEY}")
        play = playbook(text, environment={"KEY": f"{STATIC.access_key_id}:{STATIC.secret_access_key}"})
        play.wall.now = NOW
        play.ask({"model": "m", "input": "a", "dimensions": 2}, "/v1/embeddings")
        assert request_line(play.provider()).endswith("/invoke HTTP/1.1")
        assert play.provider().body == sent
        assert_signed(play.provider(), STATIC, "us-east-1")
        play.provider().says(respond(orjson.dumps(answer)))
        found = answered(play)
        assert [item["embedding"] for item in found["data"]] == vectors
        assert found["usage"]["prompt_tokens"] == answer.get("inputTextTokenCount", 0)

    def test_titan_takes_one_text(self, playbook: Playbook) -> None:
        text = one(
            provider="bedrock",
            upstream_model="'amazon.titan-embed-text-v2:0'",
            aws_region="us-east-1",
            secret_key_ref="{env: KEY}",
        )
        play = playbook(text, environment={"KEY": "ABSKkey"})
        play.ask({"model": "m", "input": ["a", "b"]}, "/v1/embeddings")
        assert play.client.status == 400
        assert b"one text" in play.client.body


def frame(kind: str, payload: dict[str, Any]) -> bytes:
    """One message of AWS' event stream."""
    fields = b"".join(
        bytes([len(name)]) + name + b"\x07" + struct.pack(">H", len(value)) + value
        for name, value in ((b":event-type", kind.encode()), (b":message-type", b"event"))
    )
    body = orjson.dumps(payload)
    prelude = struct.pack(">II", 16 + len(fields) + len(body), len(fields))
    message = prelude + struct.pack(">I", zlib.crc32(prelude)) + fields + body
    return message + struct.pack(">I", zlib.crc32(message))


@pytest.fixture(scope="module")
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


class TestVertex:
    async def test_gemini_by_a_service_account(
        self, playbook: Playbook, clouds: Clouds, rsa_key: rsa.RSAPrivateKey
    ) -> None:
        async with ScriptedProvider(lambda it: token_server(rsa_key, lambda: f"{server.url}/token")(it)) as server:
            secret = orjson.dumps(service_account(rsa_key, f"{server.url}/token"), option=orjson.OPT_INDENT_2).decode()
            text = one(
                provider="vertex",
                upstream_model="gemini-2.5-flash",
                vertex_project="acme",
                vertex_location="europe-west4",
                secret_key_ref="{env: KEY}",
            )
            play = await clouds(playbook(text, environment={"KEY": secret}))
        play.ask(CHAT)
        provider = play.provider()
        assert request_line(provider) == (
            "POST /v1/projects/acme/locations/europe-west4/publishers/google/models/gemini-2.5-flash:generateContent"
            " HTTP/1.1"
        )
        assert provider.headers["host"] == "europe-west4-aiplatform.googleapis.com"
        assert provider.headers["authorization"] == "Bearer ya29.fetched"
        assert "x-goog-api-key" not in provider.headers
        provider.says(respond(orjson.dumps(GEMINI)))
        assert answered(play)["choices"][0]["message"]["content"] == "Hi"

    async def test_gemini_by_the_machine_streamed(self, playbook: Playbook, clouds: Clouds) -> None:
        async with ScriptedProvider(says({"access_token": "ya29.machine", "expires_in": 3599})) as server:
            text = one(provider="vertex", upstream_model="gemini-2.5-flash", vertex_project="acme")
            environment = {"GCE_METADATA_HOST": server.url.removeprefix("http://"), "HOME": "/nowhere"}
            play = await clouds(playbook(text, environment=environment))
        play.ask(STREAM)
        provider = play.provider()
        assert "/locations/global/publishers/google/models/gemini-2.5-flash:streamGenerateContent?alt=sse" in (
            request_line(provider)
        )
        assert provider.headers["host"] == "aiplatform.googleapis.com"
        assert provider.headers["authorization"] == "Bearer ya29.machine"
        frames = b"data: %b\r\n\r\n" % orjson.dumps(GEMINI)
        provider.says(head(200, ("content-type", "text/event-stream"), length=len(frames)) + frames)
        assert play.client.body.endswith(b"data: [DONE]\n\n")

    @pytest.fixture
    async def claude(self, playbook: Playbook, clouds: Clouds) -> Play:
        async with ScriptedProvider(says({"access_token": "ya29.machine", "expires_in": 3599})) as server:
            text = one(
                provider="vertex",
                upstream_model="claude-sonnet-4-5@20250929",
                vertex_project="acme",
                vertex_location="us-east5",
            )
            environment = {"GCE_METADATA_HOST": server.url.removeprefix("http://"), "HOME": "/nowhere"}
            return await clouds(playbook(text, environment=environment))

    PATH = "/v1/projects/acme/locations/us-east5/publishers/anthropic/models/claude-sonnet-4-5%4020250929"

    async def test_claude_for_a_client_of_openai(self, claude: Play) -> None:
        claude.ask(CHAT)
        provider = claude.provider()
        assert request_line(provider) == f"POST {self.PATH}:rawPredict HTTP/1.1"
        assert provider.headers["host"] == "us-east5-aiplatform.googleapis.com"
        assert provider.headers["authorization"] == "Bearer ya29.machine"
        assert provider.body["anthropic_version"] == "vertex-2023-10-16"
        assert "model" not in provider.body
        provider.says(respond(orjson.dumps(CLAUDE)))
        assert answered(claude)["choices"][0]["message"]["content"] == "Hi"

    async def test_claude_for_a_client_of_anthropic(self, claude: Play) -> None:
        """Every other value keeps its bytes, and so does the answer."""
        body = b'{"model":"m", "max_tokens":9,"temperature":0.70,"messages":[{"role":"user", "content":"H\\u00e9"}]}'
        claude.ask(body, "/v1/messages?beta=true")
        provider = claude.provider()
        assert request_line(provider) == f"POST {self.PATH}:rawPredict HTTP/1.1"
        sent = provider.asked.partition(b"\r\n\r\n")[2]
        assert sent == (
            b'{"anthropic_version":"vertex-2023-10-16","max_tokens":9,"temperature":0.70,'
            b'"messages":[{"role":"user", "content":"H\\u00e9"}]}'
        )
        provider.says(respond(orjson.dumps(CLAUDE)))
        assert claude.client.body == orjson.dumps(CLAUDE)

    async def test_claude_streamed(self, claude: Play) -> None:
        claude.ask({**MESSAGES, "stream": True}, "/v1/messages")
        provider = claude.provider()
        assert request_line(provider) == f"POST {self.PATH}:streamRawPredict HTTP/1.1"
        assert provider.body["stream"] is True
        events: tuple[dict[str, Any], ...] = (
            {"type": "message_start", "message": {**CLAUDE, "content": [], "stop_reason": None}},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}},
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 1}},
            {"type": "message_stop"},
        )
        frames = b"".join(b"event: %b\ndata: %b\n\n" % (it["type"].encode(), orjson.dumps(it)) for it in events)
        provider.says(head(200, ("content-type", "text/event-stream"), length=len(frames)) + frames)
        assert claude.client.body == frames
        assert claude.finish()["outcome"] == "completed"

    async def test_claude_counts(self, claude: Play) -> None:
        claude.ask({key: MESSAGES[key] for key in ("model", "messages")}, "/v1/messages/count_tokens")
        provider = claude.provider()
        assert request_line(provider).startswith(
            "POST /v1/projects/acme/locations/us-east5/publishers/anthropic/models/count-tokens:rawPredict "
        )
        assert provider.body["model"] == "claude-sonnet-4-5@20250929"
        provider.says(respond(b'{"input_tokens":8}'))
        assert answered(claude) == {"input_tokens": 8}

    def test_embeddings(self, playbook: Playbook) -> None:
        text = one(
            provider="vertex", upstream_model="text-embedding-005", vertex_project="acme", secret_key_ref="{env: KEY}"
        )
        play = playbook(text, environment={"KEY": "AIza"})
        play.ask({"model": "m", "input": ["a", "b"], "dimensions": 2, "task_type": "CLUSTERING"}, "/v1/embeddings")
        provider = play.provider()
        assert request_line(provider).endswith("/publishers/google/models/text-embedding-005:predict HTTP/1.1")
        assert provider.headers["x-goog-api-key"] == "AIza"
        assert provider.body == {
            "instances": [{"task_type": "CLUSTERING", "content": text} for text in ("a", "b")],
            "parameters": {"outputDimensionality": 2},
        }
        predictions = [
            {"embeddings": {"values": [0.5, 0.25], "statistics": {"token_count": count, "truncated": False}}}
            for count in (2, 3)
        ]
        provider.says(respond(orjson.dumps({"predictions": predictions})))
        found = answered(play)
        assert [item["embedding"] for item in found["data"]] == [[0.5, 0.25], [0.5, 0.25]]
        assert found["usage"]["prompt_tokens"] == 5


class TestAzure:
    async def test_a_client_secret_of_entra_id(self, playbook: Playbook, clouds: Clouds) -> None:
        async with ScriptedProvider(says({"access_token": "eyJ", "expires_in": 3599})) as server:
            text = one(
                provider="azure-openai",
                base_url="https://r.openai.azure.com",
                azure_tenant_id="tenant",
                azure_client_id="client",
                secret_key_ref="{env: KEY}",
            )
            environment = {"KEY": "app-secret", "AZURE_AUTHORITY_HOST": server.url}
            play = await clouds(playbook(text, environment=environment))
            assert server.requests[0].target == "/tenant/oauth2/v2.0/token"
        for _ in range(2):
            play.ask(CHAT)
            provider = play.provider()
            assert provider.headers["authorization"] == "Bearer eyJ"
            assert "api-key" not in provider.headers
            provider.says(respond(b'{"choices":[]}'))
            assert play.client.status == 200

    async def test_a_renewed_token_is_used_on_the_same_connection(self, playbook: Playbook, clouds: Clouds) -> None:
        async with ScriptedProvider(says({"access_token": "first", "expires_in": "3599"})) as server:
            text = one(provider="azure-openai", base_url="https://r.openai.azure.com")
            play = await clouds(playbook(text, environment={"AZURE_POD_IDENTITY_AUTHORITY_HOST": server.url}))
        connection, _ = play.connect()
        body = orjson.dumps(CHAT)
        request = (
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer kt_gk_%b\r\n"
            b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (b"0" * 38, len(body), body)
        )
        for token in ("first", "first", "second"):
            play.targets["one"].empower(b"authorization: Bearer %b\r\n" % token.encode(), None)
            connection.data_received(request)
            assert play.provider().headers["authorization"] == f"Bearer {token}"
            play.provider().says(respond(b'{"choices":[]}'))

    async def test_the_operators_own_header_wins(self, playbook: Playbook, clouds: Clouds) -> None:
        text = one(
            provider="azure-openai", base_url="https://r.openai.azure.com", headers="{authorization: Bearer mine}"
        )
        play = await clouds(playbook(text, environment={}))
        play.ask(CHAT)
        assert play.provider().headers["authorization"] == "Bearer mine"
        play.provider().says(respond(b'{"choices":[]}'))


async def test_a_clients_own_credential_is_neither_replaced_nor_signed_over(playbook: Playbook) -> None:
    text = one(provider="bedrock", upstream_model="amazon.nova", aws_region="us-east-1")
    environment = {"AWS_ACCESS_KEY_ID": "AKIDENV", "AWS_SECRET_ACCESS_KEY": "s"}
    play = playbook(text, environment=environment, mode=AuthMode.PASSTHROUGH)
    play.ask(CHAT, key=b"ABSKclient")
    assert play.provider().headers["authorization"] == "Bearer ABSKclient"
    assert "x-amz-date" not in play.provider().headers
    play.provider().says(respond(orjson.dumps(CONVERSE)))
