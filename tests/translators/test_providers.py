"""Rows and addresses: every base URL that an operator may write leads to the one right path."""

from __future__ import annotations

import pytest

from gateway.types import Operation, Origin
from translators.plan import FORMATS, bind
from translators.providers import PROVIDERS, VERTEX_CLAUDE, Auth, Where, row_of, upstream_of


def path(provider: str, base_url: str | None, operation: Operation = Operation.CHAT, **options: str) -> str:
    upstream = upstream_of(PROVIDERS[provider], base_url=base_url, **options)
    return f"{upstream.origin}{upstream.path(operation, stream=False)}"


@pytest.mark.parametrize("name", PROVIDERS)
def test_every_row_can_be_bound_and_addressed(name: str) -> None:
    row = PROVIDERS[name]
    assert row.name == name
    upstream = upstream_of(row, base_url=row.base_url or "https://host.example", model="m")
    for operation, endpoint in row.endpoints.items():
        assert endpoint.path.startswith("/")
        assert upstream.path(operation, stream=True).startswith("/")
        assert bind(operation, row).identity == (endpoint.dialect in FORMATS)


@pytest.mark.parametrize("name", [name for name, row in PROVIDERS.items() if row.base_url])
def test_every_default_address_is_kept_as_written(name: str) -> None:
    row = PROVIDERS[name]
    operation = next(iter(row.endpoints))
    url = path(name, None, operation, model="m")
    assert url.replace(":443/", "/", 1) == (row.base_url + row.endpoints[operation].path).replace("{model}", "m")


@pytest.mark.parametrize(
    ("base_url", "expected"),
    [
        ("http://localhost:8000", "http://localhost:8000/v1/chat/completions"),
        ("http://localhost:8000/", "http://localhost:8000/v1/chat/completions"),
        ("http://localhost:8000/v1", "http://localhost:8000/v1/chat/completions"),
        ("http://localhost:8000/v1/", "http://localhost:8000/v1/chat/completions"),
        ("https://host.example/api", "https://host.example:443/api/v1/chat/completions"),
        ("https://host.example/paas/v4", "https://host.example:443/paas/v4/chat/completions"),
        ("https://host.example/v1beta/openai", "https://host.example:443/v1beta/openai/chat/completions"),
        ("HTTPS://Host.Example:8443/v1", "https://host.example:8443/v1/chat/completions"),
        ("http://[::1]:8000/v1", "http://[::1]:8000/v1/chat/completions"),
    ],
)
def test_with_or_without_v1(base_url: str, expected: str) -> None:
    assert path("openai-compatible", base_url) == expected


AZURE = "https://r.openai.azure.com"
CLASSIC = "https://r.openai.azure.com:443/openai/deployments/d/chat/completions?api-version=2024-10-21"
V1 = "https://r.openai.azure.com:443/openai/v1/chat/completions"


@pytest.mark.parametrize(
    ("base_url", "expected"),
    [
        (AZURE, CLASSIC),
        (AZURE + "/", CLASSIC),
        (AZURE + "/openai", CLASSIC),
        (AZURE + "/openai/", CLASSIC),
        (AZURE + "/openai/v1", V1),
        (AZURE + "/openai/v1/", V1),
        (AZURE + "/v1", V1),
        ("https://apim.example/llm/openai", CLASSIC.replace("r.openai.azure.com:443", "apim.example:443/llm")),
    ],
)
def test_D6_azure_addresses(base_url: str, expected: str) -> None:
    assert path("azure-openai", base_url, azure_deployment="d") == expected


def test_D6_api_version_only_where_used() -> None:
    assert path("azure-openai", AZURE + "/openai/v1", azure_api_version="preview") == V1 + "?api-version=preview"
    assert path("azure-openai", AZURE, azure_api_version="2025-01-01-preview", model="m").endswith(
        "/openai/deployments/m/chat/completions?api-version=2025-01-01-preview"
    )


def test_azure_responses_have_no_deployment_in_their_path() -> None:
    upstream = upstream_of(PROVIDERS["azure-openai"], base_url=AZURE, azure_api_version="2025-04-01-preview")
    assert upstream.path(Operation.RESPONSES, stream=True) == "/openai/responses?api-version=2025-04-01-preview"


def test_a_deployment_name_is_percent_encoded() -> None:
    assert "/deployments/a%2Fb%3F/" in path("azure-openai", AZURE, azure_deployment="a/b?")


def test_a_path_of_its_own_for_streams() -> None:
    upstream = upstream_of(PROVIDERS["gemini"], model="gemini-x")
    assert upstream.path(Operation.CHAT, stream=False) == "/v1beta/models/gemini-x:generateContent"
    assert upstream.path(Operation.CHAT, stream=True) == "/v1beta/models/gemini-x:streamGenerateContent?alt=sse"
    assert upstream.path(Operation.MESSAGES, stream=True, query="a=1").endswith("?alt=sse&a=1")


def test_query() -> None:
    upstream = upstream_of(PROVIDERS["openai"])
    assert upstream.path(Operation.IMAGES, stream=False) == "/v1/images/generations"
    assert upstream.path(Operation.CHAT, stream=False, query="a=1") == "/v1/chat/completions?a=1"
    azure = upstream_of(PROVIDERS["azure-openai"], base_url=AZURE, model="m")
    assert azure.path(Operation.CHAT, stream=False, query="a=1").endswith("?api-version=2024-10-21&a=1")


@pytest.mark.parametrize(
    "base_url",
    [
        "api.openai.com",
        "ftp://host/v1",
        "https://",
        "https:///v1",
        "https://user:pass@host/v1",
        "https://host/v1#x",
        "https://host/v1?x=1",
        "https://host/v1?",
        "https://host:99999/v1",
        "https://host:x/v1",
        "https://ho st/v1",
        "https://host/a b",
        "https://host/\nv1",
        " https://host/v1",
        "https://hö.st/v1",
        "https://host/<x>",
        "https://-host/v1",
    ],
)
def test_a_base_url_is_read_strictly(base_url: str) -> None:
    with pytest.raises(ValueError, match="base_url"):
        upstream_of(PROVIDERS["openai-compatible"], base_url=base_url)


def test_a_deployment_in_the_base_url_is_refused() -> None:
    with pytest.raises(ValueError, match="azure_deployment"):
        upstream_of(PROVIDERS["azure-openai"], base_url=AZURE + "/openai/deployments/d")


@pytest.mark.parametrize("name", ["openai-compatible", "azure-openai"])
def test_a_row_without_an_address_needs_one(name: str) -> None:
    with pytest.raises(ValueError, match="needs a base_url"):
        upstream_of(PROVIDERS[name])


GEMINI = "/publishers/google/models/m:generateContent"


@pytest.mark.parametrize(
    ("provider", "base_url", "where", "expected"),
    [
        ("bedrock", None, Where(region="eu-central-1"), "https://bedrock-runtime.eu-central-1.amazonaws.com:443"),
        ("bedrock", None, Where(region="cn-north-1"), "https://bedrock-runtime.cn-north-1.amazonaws.com.cn:443"),
        ("bedrock", "https://vpce.example/", Where(region="eu-central-1"), "https://vpce.example:443"),
        ("bedrock", "https://vpce.example/x", Where(), "https://vpce.example:443/x"),
        (
            "vertex",
            None,
            Where(project="acme", location="europe-west4"),
            f"https://europe-west4-aiplatform.googleapis.com:443/v1/projects/acme/locations/europe-west4{GEMINI}",
        ),
        (
            "vertex",
            None,
            Where(project="acme"),
            f"https://aiplatform.googleapis.com:443/v1/projects/acme/locations/global{GEMINI}",
        ),
        (
            "vertex",
            None,
            Where(project="acme", location="eu"),
            f"https://aiplatform.eu.rep.googleapis.com:443/v1/projects/acme/locations/eu{GEMINI}",
        ),
        (
            "vertex",
            "http://127.0.0.1:80/",
            Where(project="acme", location="us-east5"),
            f"http://127.0.0.1:80/v1/projects/acme/locations/us-east5{GEMINI}",
        ),
        (
            "vertex",
            "https://psc.example/v1/x",
            Where(project="acme"),
            "https://psc.example:443/v1/x/models/m:generateContent",
        ),
        ("vertex", None, Where(location="us-east5"), f"https://aiplatform.googleapis.com:443/v1{GEMINI}"),
    ],
)
def test_places_in_clouds(provider: str, base_url: str | None, where: Where, expected: str) -> None:
    upstream = upstream_of(PROVIDERS[provider], base_url=base_url, model="m", where=where)
    path = upstream.path(Operation.CHAT, stream=False)
    assert f"{upstream.origin}{path}".removesuffix("/model/m/converse") == expected


def test_a_cloud_without_a_place() -> None:
    with pytest.raises(ValueError, match="bedrock needs aws_region or a base_url"):
        upstream_of(PROVIDERS["bedrock"])
    with pytest.raises(ValueError, match="vertex needs vertex_project or a base_url"):
        upstream_of(VERTEX_CLAUDE)


@pytest.mark.parametrize("model", ["claude-sonnet-4-5@20250929", "claude-opus-4-1"])
def test_claude_on_vertex_has_a_row_of_its_own(model: str) -> None:
    assert row_of("vertex", None, model) is VERTEX_CLAUDE
    assert row_of("vertex", None, "gemini-2.5-pro") is PROVIDERS["vertex"]
    assert row_of("anthropic", None, model) is PROVIDERS["anthropic"]
    for operation in (Operation.CHAT, Operation.MESSAGES, Operation.RESPONSES, Operation.COUNT_TOKENS):
        assert bind(operation, VERTEX_CLAUDE).identity == (operation in (Operation.MESSAGES, Operation.COUNT_TOKENS))


class TestHeaders:
    def test_bearer(self) -> None:
        assert upstream_of(PROVIDERS["openai"]).auth_headers("s") == ((b"authorization", b"Bearer s"),)

    def test_azure(self) -> None:
        upstream = upstream_of(PROVIDERS["azure-openai"], base_url=AZURE)
        assert upstream.auth_headers("s") == ((b"api-key", b"s"),)

    def test_anthropic(self) -> None:
        upstream = upstream_of(PROVIDERS["anthropic"], extra_headers={"anthropic-beta": "x"})
        assert upstream.auth_headers("s") == (
            (b"x-api-key", b"s"),
            (b"anthropic-version", b"2023-06-01"),
            (b"anthropic-beta", b"x"),
        )

    def test_E17_gemini(self) -> None:
        upstream = upstream_of(PROVIDERS["gemini"], model="m")
        assert upstream.auth_headers("s") == ((b"x-goog-api-key", b"s"),)
        assert "key=" not in upstream.path(Operation.CHAT, stream=True)

    def test_the_targets_own_value_wins(self) -> None:
        upstream = upstream_of(PROVIDERS["anthropic"], extra_headers={"Anthropic-Version": "2024-01-01"})
        assert upstream.headers == ((b"anthropic-version", b"2024-01-01"),)

    def test_no_secret_no_credential(self) -> None:
        assert upstream_of(PROVIDERS["vllm"]).auth_headers("") == ()

    @pytest.mark.parametrize(
        ("name", "value"),
        [("x y", "1"), ("x", "a\r\nb"), ("x", "a\0"), ("", "x"), ("Host", "x"), ("Content-Length", "1")],
    )
    def test_a_bad_header_is_refused(self, name: str, value: str) -> None:
        with pytest.raises(ValueError, match="header"):
            upstream_of(PROVIDERS["openai"], extra_headers={name: value})


def test_mock_has_no_connection() -> None:
    upstream = upstream_of(PROVIDERS["mock"])
    assert upstream.provider.local
    assert upstream.auth is Auth.NONE
    assert upstream.origin == Origin("mock.invalid", 443)


class TestOneKindOfChat:
    @pytest.mark.parametrize("operation", [Operation.CHAT, Operation.MESSAGES, Operation.RESPONSES])
    def test_every_client_is_led_to_responses(self, operation: Operation) -> None:
        row = row_of("openai", "responses")
        assert upstream_of(row).path(operation, stream=True) == "/v1/responses"
        assert bind(operation, row).identity == (operation is Operation.RESPONSES)
        assert bind(Operation.EMBEDDINGS, row).identity

    def test_or_to_chat(self) -> None:
        row = row_of("openai", "chat")
        assert upstream_of(row).path(Operation.RESPONSES, stream=False) == "/v1/chat/completions"

    def test_a_provider_without_it(self) -> None:
        with pytest.raises(ValueError, match=r"provider mistral has no API of the kind 'responses'"):
            row_of("mistral", "responses")


@pytest.mark.parametrize(
    ("provider", "base_url", "operation", "expected"),
    [
        ("openai", None, Operation.REALTIME, "/v1/realtime?model=gpt-realtime"),
        ("openai", None, Operation.RESPONSES, "/v1/responses"),
        ("xai", None, Operation.REALTIME, "/v1/realtime?model=gpt-realtime"),
        (
            "openai-compatible",
            "http://localhost:8000/sub/v1",
            Operation.REALTIME,
            "/sub/v1/realtime?model=gpt-realtime",
        ),
        (
            "azure-openai",
            "https://r.openai.azure.com",
            Operation.REALTIME,
            "/openai/realtime?api-version=2024-10-21&deployment=gpt-realtime",
        ),
        (
            "azure-openai",
            "https://r.openai.azure.com/openai/v1",
            Operation.REALTIME,
            "/openai/v1/realtime?model=gpt-realtime",
        ),
        ("azure-openai", "https://r.openai.azure.com/openai/v1", Operation.RESPONSES, "/openai/v1/responses"),
    ],
)
def test_websockets(provider: str, base_url: str | None, operation: Operation, expected: str) -> None:
    assert upstream_of(row_of(provider), base_url=base_url, model="gpt-realtime").socket_path(operation) == expected


def test_a_provider_without_websockets() -> None:
    with pytest.raises(KeyError):
        upstream_of(row_of("anthropic")).socket_path(Operation.RESPONSES)
