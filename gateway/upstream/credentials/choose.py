"""What a target's requests are authenticated with, from what the operator wrote and where the gateway runs.

Three providers know more than a key of their own: `bedrock`, `vertex` and `azure-openai`. A secret of the target always
comes first; without one, the environment is looked at in the order of the cloud's own SDKs. Files are read here, so it
belongs into a thread. What cannot be is a fault of the one target, in words for the operator.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Protocol

import msgspec
import orjson

from gateway.routes import Sign, Target
from gateway.secrets import Secret
from gateway.types import Origin
from gateway.upstream.credentials import aws, azure, google
from gateway.upstream.credentials.source import Credential, CredentialError, Source, check_url, read_text
from translators.sigv4 import AwsCredentials, Signer

_REGION: Final = re.compile(r"bedrock-runtime(?:-fips)?\.([a-z0-9-]+)\.")
_DEFAULT_CREDENTIALS: Final = "~/.config/gcloud/application_default_credentials.json"


class Settings(Protocol):
    """What of a target's settings matters here (`config.schema.Target`)."""

    @property
    def provider(self) -> str: ...
    @property
    def aws_region(self) -> str | None: ...
    @property
    def aws_profile(self) -> str | None: ...
    @property
    def azure_tenant_id(self) -> str | None: ...
    @property
    def azure_client_id(self) -> str | None: ...
    @property
    def vertex_project(self) -> str | None: ...


class Grant:
    """A source, and how what comes from it is put into a target."""

    __slots__ = ("_host", "_region", "source")

    def __init__(self, source: Source, region: str = "", host: str = "") -> None:
        """`region` and `host` are for keys that sign."""
        self.source = source
        self._region = region
        self._host = host

    def __repr__(self) -> str:
        return f"<Grant {self.source.name}>"

    @property
    def signs(self) -> bool:
        """What comes are keys that sign."""
        return bool(self._region)

    def give(self, target: Target, credential: Credential) -> None:
        """The target's requests carry this credential from now on."""
        if isinstance(credential.value, AwsCredentials):
            target.empower(b"", signing(credential.value, self._region, self._host))
        else:
            target.empower(_bearer(credential.value), None)


class Chosen(msgspec.Struct, frozen=True):
    """One target's way: the secret to send as its row says (`plain`), a signer, or a grant."""

    plain: Secret | None = None
    sign: Sign | None = None
    grant: Grant | None = None

    @property
    def signs(self) -> bool:
        """Requests are signed, or will be."""
        return self.sign is not None or (self.grant is not None and self.grant.signs)

    def __repr__(self) -> str:
        return f"<Chosen {self.grant or ('a signer' if self.sign else 'a key')}>"

    __str__ = __repr__


def signing(credentials: AwsCredentials, region: str, host: str) -> Sign:
    """What signs the requests of one target."""
    return Signer(credentials, region=region, service="bedrock", host=host).lines


def choose(settings: Settings, secret: Secret, environment: Mapping[str, str], origin: Origin, host: str) -> Chosen:
    """How a target is authenticated. An empty secret: the target names none. `host` is its requests' Host field.

    Raises CredentialError.
    """
    if settings.provider == "bedrock":
        return _bedrock(settings, secret, environment, origin, host)
    if settings.provider == "vertex":
        return _vertex(settings, secret, environment)
    if settings.provider == "azure-openai":
        return _azure(settings, secret, environment, origin)
    return Chosen(plain=secret)


def _bearer(token: str) -> bytes:
    return b"authorization: Bearer %b\r\n" % token.encode("latin-1")


# --- Amazon Bedrock --------------------------------------------------------------------------------------------------


def _bedrock(settings: Settings, secret: Secret, environment: Mapping[str, str], origin: Origin, host: str) -> Chosen:
    if not secret and settings.aws_profile is None:
        secret = Secret(environment.get("AWS_BEARER_TOKEN_BEDROCK", ""))
    static = aws.parse_secret(secret.reveal()) if secret else None
    if secret and static is None:
        return Chosen(plain=secret)
    region = _region(settings, origin)
    if static is None and settings.aws_profile is None:
        static = _aws_environment(environment)
    if static is not None:
        return Chosen(sign=signing(static, region, host))
    return Chosen(grant=Grant(_aws_source(settings.aws_profile, environment, region), region, host))


def _region(settings: Settings, origin: Origin) -> str:
    if settings.aws_region is not None:
        return settings.aws_region
    found = _REGION.search(origin.host)
    if found is None:
        raise CredentialError("aws_region is not set, and base_url does not show it")
    return found[1]


def _aws_environment(environment: Mapping[str, str]) -> AwsCredentials | None:
    key, secret = environment.get("AWS_ACCESS_KEY_ID"), environment.get("AWS_SECRET_ACCESS_KEY")
    return AwsCredentials(key, secret, environment.get("AWS_SESSION_TOKEN") or None) if key and secret else None


def _aws_source(profile: str | None, environment: Mapping[str, str], region: str) -> Source:
    sts = aws.sts_url(region, environment)
    role, token_file = environment.get("AWS_ROLE_ARN"), environment.get("AWS_WEB_IDENTITY_TOKEN_FILE")
    if profile is None and role and token_file:
        return aws.WebIdentity(role, token_file, sts)
    credentials_file = environment.get("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials")
    config_file = environment.get("AWS_CONFIG_FILE", "~/.aws/config")
    named = profile or environment.get("AWS_PROFILE")
    if named or _has_keys(aws.read_profiles(credentials_file, config_file).get("default", {})):
        return aws.Profile(named or "default", credentials_file, config_file, sts, region)
    if container := _container(environment):
        return container
    if environment.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true":
        raise CredentialError("the environment has no AWS credentials, and AWS_EC2_METADATA_DISABLED is set")
    return aws.Instance(environment.get("AWS_EC2_METADATA_SERVICE_ENDPOINT", aws.METADATA_URL).rstrip("/"))


def _has_keys(profile: Mapping[str, str]) -> bool:
    return "aws_access_key_id" in profile or "role_arn" in profile


def _container(environment: Mapping[str, str]) -> aws.Container | None:
    relative, full = (environment.get(f"AWS_CONTAINER_CREDENTIALS_{kind}_URI") for kind in ("RELATIVE", "FULL"))
    if not relative and not full:
        return None
    name = "AWS_CONTAINER_CREDENTIALS_FULL_URI"
    url = f"{aws.CONTAINER_URL}{relative}" if relative else full or ""
    return aws.Container(
        check_url(url, name, clear_hosts=aws.CLEAR_HOSTS),
        environment.get("AWS_CONTAINER_AUTHORIZATION_TOKEN", ""),
        environment.get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", ""),
    )


# --- Google Vertex AI ------------------------------------------------------------------------------------------------


def _vertex(settings: Settings, secret: Secret, environment: Mapping[str, str]) -> Chosen:
    if secret and not secret.reveal().startswith("{"):
        return Chosen(plain=secret)
    if secret:
        return Chosen(grant=Grant(_google_source(secret.reveal(), "the secret")))
    path = environment.get("GOOGLE_APPLICATION_CREDENTIALS")
    if path is None and Path(_DEFAULT_CREDENTIALS).expanduser().is_file():
        path = _DEFAULT_CREDENTIALS
    if path is not None:
        return Chosen(grant=Grant(_google_source(read_text(path), f"the file {path}")))
    return Chosen(grant=Grant(google.MetadataServer(environment.get("GCE_METADATA_HOST", google.METADATA_HOST))))


def _google_source(text: str, what: str) -> Source:
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError:
        document = None
    if not isinstance(document, dict):
        raise CredentialError(f"{what} is not the JSON of a credential")
    return google.source_of(document, what)


# --- Azure OpenAI ----------------------------------------------------------------------------------------------------


def _azure(settings: Settings, secret: Secret, environment: Mapping[str, str], origin: Origin) -> Chosen:
    entra = settings.azure_tenant_id is not None or settings.azure_client_id is not None
    if secret and not entra:
        return Chosen(plain=secret)
    get: Callable[[str], str] = lambda name: environment.get(name, "")  # noqa: E731 (short, and used seven times)
    audience = azure.audience(origin.host)
    tenant, client = (
        settings.azure_tenant_id or get("AZURE_TENANT_ID"),
        settings.azure_client_id or get("AZURE_CLIENT_ID"),
    )
    authority = check_url(get("AZURE_AUTHORITY_HOST").rstrip("/") or azure.AUTHORITY, "AZURE_AUTHORITY_HOST")
    application_secret = secret.reveal() or get("AZURE_CLIENT_SECRET")
    if application_secret:
        if not (tenant and client):
            raise CredentialError("azure_tenant_id and azure_client_id must both be set for a client secret")
        return Chosen(grant=Grant(azure.ClientSecret(tenant, client, application_secret, audience, authority)))
    if tenant and client and (token_file := get("AZURE_FEDERATED_TOKEN_FILE")):
        return Chosen(grant=Grant(azure.FederatedToken(tenant, client, token_file, audience, authority)))
    if (endpoint := get("IDENTITY_ENDPOINT")) and (header := get("IDENTITY_HEADER")):
        return Chosen(grant=Grant(azure.AppServiceIdentity(audience, endpoint, header, client)))
    metadata = get("AZURE_POD_IDENTITY_AUTHORITY_HOST").rstrip("/") or azure.METADATA_URL
    return Chosen(grant=Grant(azure.ManagedIdentity(audience, client, metadata)))
