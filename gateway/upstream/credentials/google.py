"""Google's access tokens: of a service account, of a user (`gcloud auth application-default login`), of a machine.

Sources: https://developers.google.com/identity/protocols/oauth2/service-account#httprest,
https://developers.google.com/identity/protocols/oauth2/web-server#offline,
https://cloud.google.com/compute/docs/access/authenticate-workloads#curl.
"""

from __future__ import annotations

import base64
from typing import Any, Final
from urllib.parse import urlencode

import orjson

from gateway.upstream.credentials.source import (
    METADATA_SECONDS,
    Credential,
    CredentialError,
    Machine,
    Source,
    check_url,
    token_of,
)

SCOPE: Final = "https://www.googleapis.com/auth/cloud-platform"
TOKEN_URL: Final = "https://oauth2.googleapis.com/token"  # noqa: S105 (an address)
METADATA_HOST: Final = "169.254.169.254"
"""By its address, so that neither a resolver nor a proxy stands between."""

_ASSERTION_SECONDS: Final = 3600
_FORM: Final = (("content-type", "application/x-www-form-urlencoded"),)


class ServiceAccount(Source, frozen=True):
    """A service account's key: signs a statement (RFC 7523), which is exchanged for a token."""

    email: str
    private_key: str
    private_key_id: str = ""
    token_url: str = TOKEN_URL

    @property
    def name(self) -> str:
        return "google_service_account"

    async def fetch(self, machine: Machine) -> Credential:
        """A token for an hour."""
        now = machine.wall()
        assertion = await machine.run(lambda: self.assertion(now))
        form = {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": assertion}
        answer = await machine.ask("POST", self.token_url, headers=_FORM, body=urlencode(form).encode())
        return token_of(answer.json(self.token_url), self.token_url, now)

    def assertion(self, now: float) -> str:
        """The signed statement, a JWT (RFC 7519). Takes a millisecond. Raises CredentialError."""
        head = {"alg": "RS256", "typ": "JWT", **({"kid": self.private_key_id} if self.private_key_id else {})}
        claims = {
            "iss": self.email,
            "scope": SCOPE,
            "aud": self.token_url,
            "iat": int(now),
            "exp": int(now) + _ASSERTION_SECONDS,
        }
        text = f"{_encoded(orjson.dumps(head))}.{_encoded(orjson.dumps(claims))}"
        return f"{text}.{_encoded(_rs256(self.private_key, text.encode()))}"


class AuthorizedUser(Source, frozen=True):
    """A user's own refresh token."""

    client_id: str
    client_secret: str
    refresh_token: str
    token_url: str = TOKEN_URL

    @property
    def name(self) -> str:
        return "google_user"

    async def fetch(self, machine: Machine) -> Credential:
        """A token for an hour."""
        form = {
            "grant_type": "refresh_token",
            "client_id": self.client_id,
            "client_secret": self.client_secret,
            "refresh_token": self.refresh_token,
        }
        now = machine.wall()
        answer = await machine.ask("POST", self.token_url, headers=_FORM, body=urlencode(form).encode())
        return token_of(answer.json(self.token_url), self.token_url, now)


class MetadataServer(Source, frozen=True):
    """The service account of the virtual machine, pod or function that the gateway runs on."""

    host: str = METADATA_HOST

    @property
    def name(self) -> str:
        return "google_metadata"

    async def fetch(self, machine: Machine) -> Credential:
        """The machine's token, which the server renews by itself minutes before its end."""
        url = f"http://{self.host}/computeMetadata/v1/instance/service-accounts/default/token"
        now = machine.wall()
        answer = await machine.ask("GET", url, headers=(("metadata-flavor", "Google"),), seconds=METADATA_SECONDS)
        return token_of(answer.json("Google's metadata server"), "Google's metadata server", now)


def source_of(document: dict[str, Any], what: str) -> Source:
    """The source that a credentials file describes. Raises CredentialError."""
    kind = document.get("type")
    url = check_url(str(document.get("token_uri") or TOKEN_URL), f"token_uri of {what}")
    if kind == "service_account":
        email, key, key_id = _fields(document, what, "client_email", "private_key", "private_key_id")
        source = ServiceAccount(email, key, key_id, url)
        source.assertion(0.0)
        return source
    if kind == "authorized_user":
        client, secret, token = _fields(document, what, "client_id", "client_secret", "refresh_token")
        return AuthorizedUser(client, secret, token, url)
    raise CredentialError(f"{what} is of the type {str(kind)[:40]!r}; service_account and authorized_user are known")


def _fields(document: dict[str, Any], what: str, *names: str) -> list[str]:
    values = [document.get(name) for name in names]
    for name, value in zip(names, values, strict=True):
        if not isinstance(value, str) or not value:
            raise CredentialError(f"{what} has no {name}")
    return [str(value) for value in values]


def _rs256(private_key: str, text: bytes) -> bytes:
    """RSASSA-PKCS1-v1_5 with SHA-256 (RFC 7518, section 3.3)."""
    # Imported where it is needed: it takes 20 ms, and few gateways have a service account's key.
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding, rsa
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(private_key.encode(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, rsa.RSAPrivateKey):
        raise CredentialError("the service account's private_key is not an RSA key in PEM form")
    return key.sign(text, padding.PKCS1v15(), hashes.SHA256())


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
