"""Google's tokens, against servers that keep to its documentation and check what they are asked."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from gateway.upstream.credentials.google import AuthorizedUser, MetadataServer, ServiceAccount, source_of
from gateway.upstream.credentials.source import CredentialError
from tests.gateway.upstream.credentials.support import NOW, form, machine, says
from tests.provider import Request, ScriptedProvider, respond

TOKEN = {"access_token": "ya29.fetched", "expires_in": 3599, "token_type": "Bearer"}


def pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def token_server(key: rsa.RSAPrivateKey, audience: Callable[[], str]) -> Callable[[Request], bytes]:
    """RFC 7523: gives a token for a statement that this key has signed; raises InvalidSignature for another."""

    def answer(request: Request) -> bytes:
        asked = form(request)
        assert asked.keys() == {"grant_type", "assertion"}
        assert asked["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
        head, claims, signature = asked["assertion"].split(".")
        key.public_key().verify(decoded(signature), f"{head}.{claims}".encode(), padding.PKCS1v15(), hashes.SHA256())
        assert orjson.loads(decoded(head)) == {"alg": "RS256", "typ": "JWT", "kid": "key-1"}
        assert orjson.loads(decoded(claims)) == {
            "iss": "me@project.iam.gserviceaccount.com",
            "scope": "https://www.googleapis.com/auth/cloud-platform",
            "aud": audience(),
            "iat": int(NOW),
            "exp": int(NOW) + 3600,
        }
        return says(TOKEN)

    return answer


def service_account(key: rsa.RSAPrivateKey, token_url: str) -> dict[str, Any]:
    return {
        "type": "service_account",
        "project_id": "project",
        "private_key_id": "key-1",
        "private_key": pem(key),
        "client_email": "me@project.iam.gserviceaccount.com",
        "token_uri": token_url,
    }


async def test_a_service_account(key: rsa.RSAPrivateKey) -> None:
    async with ScriptedProvider(lambda one: token_server(key, lambda: f"{server.url}/token")(one)) as server:
        async with machine() as here:
            found = await source_of(service_account(key, f"{server.url}/token"), "the secret").fetch(here)
        assert server.requests[0].target == "/token"
    assert found.value == "ya29.fetched"
    assert found.expires_at == NOW + 3599


async def test_a_user() -> None:
    async with ScriptedProvider(says(TOKEN)) as server, machine() as here:
        document = {
            "type": "authorized_user",
            "client_id": "id",
            "client_secret": "s&cret",
            "refresh_token": "1//r",
            "token_uri": f"{server.url}/token",
        }
        found = await source_of(document, "the file").fetch(here)
        assert form(server.requests[0]) == {
            "grant_type": "refresh_token",
            "client_id": "id",
            "client_secret": "s&cret",
            "refresh_token": "1//r",
        }
    assert found.value == "ya29.fetched"


async def test_a_machine() -> None:
    async with ScriptedProvider(says(TOKEN)) as server, machine() as here:
        found = await MetadataServer(server.url.removeprefix("http://")).fetch(here)
        request = server.requests[0]
    assert (request.method, request.body) == ("GET", b"")
    assert request.target == "/computeMetadata/v1/instance/service-accounts/default/token"
    assert request.headers["metadata-flavor"] == "Google"
    assert "content-length" not in request.headers
    assert found.value == "ya29.fetched"


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (
            respond(b'{"error":"invalid_grant","error_description":"secret words"}', 400),
            r"answered 400 \(invalid_grant\)$",
        ),
        (respond(b'{"error":{"message":"secret words"}}', 403), r"answered 403$"),
        (respond(b"<html>", 502), r"answered 502$"),
        (respond(b"[1]"), "not a JSON object"),
        (respond(b"\xff"), "not a JSON object"),
        (says({"expires_in": 10}), "without a token"),
        (says({"access_token": "a\r\nx: y", "expires_in": 10}), "without a token"),
        (says({"access_token": "t"}), "no time to live"),
        (says({"access_token": "t", "expires_in": "soon"}), "no time to live"),
        (says({"access_token": "t", "expires_in": 0}), "no time to live"),
    ],
)
async def test_what_is_no_token(answer: bytes, why: str) -> None:
    async with ScriptedProvider(answer) as server, machine() as here:
        with pytest.raises(CredentialError, match=why):
            await AuthorizedUser("id", "secret", "refresh", server.url).fetch(here)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"type": "external_account"}, "external_account"),
        ({"type": None}, "None"),
        ({"client_email": ""}, "no client_email"),
        ({"private_key": None}, "no private_key"),
        ({"private_key": "-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----"}, "not an RSA key"),
        ({"private_key": pem(ec.generate_private_key(ec.SECP256R1()))}, "not an RSA key"),
        ({"token_uri": "http://oauth2.example/token"}, "must be an https URL"),
        ({"token_uri": "ftp://127.0.0.1/token"}, "must be an https URL"),
        ({"token_uri": "https://[half"}, "not a URL"),
    ],
)
def test_a_file_that_cannot_be_used(key: rsa.RSAPrivateKey, change: dict[str, Any], why: str) -> None:
    with pytest.raises(CredentialError, match=why):
        source_of({**service_account(key, "https://oauth2.googleapis.com/token"), **change}, "the secret")


def test_nothing_secret_is_shown(key: rsa.RSAPrivateKey) -> None:
    for source in (ServiceAccount("me", pem(key)), AuthorizedUser("id", "s3cret", "refr3sh")):
        for text in (repr(source), str(source), f"{source}"):
            assert text == f"<{type(source).__name__}>"
