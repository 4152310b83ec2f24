"""Entra ID's tokens, against servers that keep to its documentation."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from gateway.upstream.credentials.azure import (
    AppServiceIdentity,
    ClientSecret,
    FederatedToken,
    ManagedIdentity,
    audience,
)
from gateway.upstream.credentials.source import CredentialError
from tests.gateway.upstream.credentials.support import NOW, form, machine, says
from tests.provider import Request, ScriptedProvider

TENANT = "11111111-2222-3333-4444-555555555555"
FOR = "https://cognitiveservices.azure.com"


def query(request: Request) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(request.target).query, strict_parsing=True).items()}


async def test_an_applications_secret() -> None:
    async with ScriptedProvider(says({"token_type": "Bearer", "expires_in": 3599, "access_token": "eyJ"})) as server:
        async with machine() as here:
            found = await ClientSecret(TENANT, "app", "s+cret", FOR, server.url).fetch(here)
        request = server.requests[0]
    assert (request.method, request.target) == ("POST", f"/{TENANT}/oauth2/v2.0/token")
    assert form(request) == {
        "grant_type": "client_credentials",
        "client_id": "app",
        "client_secret": "s+cret",
        "scope": "https://cognitiveservices.azure.com/.default",
    }
    assert found.value == "eyJ"
    assert found.expires_at == NOW + 3599


async def test_a_federated_token(tmp_path: Path) -> None:
    file = tmp_path / "token"
    async with ScriptedProvider(says({"expires_in": 3599, "access_token": "eyJ"})) as server, machine() as here:
        source = FederatedToken(TENANT, "app", str(file), FOR, server.url)
        for text in ("first.jwt", "second.jwt"):
            file.write_text(text + "\n")
            await source.fetch(here)
        asked = [form(request) for request in server.requests]
    assert [one["client_assertion"] for one in asked] == ["first.jwt", "second.jwt"]
    assert asked[0]["client_assertion_type"] == "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
    assert "client_secret" not in asked[0]


@pytest.mark.parametrize("client", ["", "user-assigned"])
async def test_a_machines_identity(client: str) -> None:
    # All numbers are text: https://learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token
    answer = {"access_token": "eyJ", "expires_in": "3599", "expires_on": str(int(NOW) + 3599), "resource": FOR}
    async with ScriptedProvider(says(answer)) as server, machine() as here:
        found = await ManagedIdentity(FOR, client, server.url).fetch(here)
        request = server.requests[0]
    assert request.target.startswith("/metadata/identity/oauth2/token?")
    assert query(request) == {
        "api-version": "2018-02-01",
        "resource": FOR,
        **({"client_id": client} if client else {}),
    }
    assert request.headers["metadata"] == "true"
    assert found.expires_at == NOW + 3599


async def test_an_app_services_identity() -> None:
    answer = {"access_token": "eyJ", "expires_on": str(int(NOW) + 600), "resource": FOR, "token_type": "Bearer"}
    async with ScriptedProvider(says(answer)) as server, machine() as here:
        found = await AppServiceIdentity(FOR, f"{server.url}/msi/token/", "he4der", "user-assigned").fetch(here)
        request = server.requests[0]
    assert query(request) == {"api-version": "2019-08-01", "resource": FOR, "client_id": "user-assigned"}
    assert request.headers["x-identity-header"] == "he4der"
    assert found.expires_at == NOW + 600


@pytest.mark.parametrize("expires_on", [None, "soon", str(int(NOW) - 1)])
async def test_an_app_services_token_that_is_over(expires_on: str | None) -> None:
    async with ScriptedProvider(says({"access_token": "eyJ", "expires_on": expires_on})) as server, machine() as here:
        with pytest.raises(CredentialError, match="no time to live"):
            await AppServiceIdentity(FOR, server.url, "h").fetch(here)


@pytest.mark.parametrize(
    ("host", "whom"),
    [
        ("r.openai.azure.com", "https://cognitiveservices.azure.com"),
        ("r.openai.azure.us", "https://cognitiveservices.azure.us"),
        ("r.openai.azure.cn", "https://cognitiveservices.azure.cn"),
        ("apim.example", "https://cognitiveservices.azure.com"),
    ],
)
def test_each_cloud_has_its_audience(host: str, whom: str) -> None:
    assert audience(host) == whom
