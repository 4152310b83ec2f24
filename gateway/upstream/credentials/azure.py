"""Microsoft Entra ID's access tokens for Azure OpenAI: by a client secret, a federated token, or a managed identity.

Sources: https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow (first and third case),
https://learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token,
https://learn.microsoft.com/azure/app-service/overview-managed-identity#rest-endpoint-reference.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import quote, urlencode

from gateway.upstream.credentials.source import (
    METADATA_SECONDS,
    Credential,
    CredentialError,
    Machine,
    Source,
    token_of,
)

AUTHORITY: Final = "https://login.microsoftonline.com"
METADATA_URL: Final = "http://169.254.169.254"
_FORM: Final = (("content-type", "application/x-www-form-urlencoded"),)
_BY_JWT: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


def audience(host: str) -> str:
    """Whom a token is for, by the cloud that the resource's host is in."""
    for end, cloud in ((".azure.us", "us"), (".azure.cn", "cn")):
        if host.endswith(end):
            return f"https://cognitiveservices.azure.{cloud}"
    return "https://cognitiveservices.azure.com"


class ClientSecret(Source, frozen=True):
    """An application's own secret."""

    tenant: str
    client_id: str
    secret: str
    audience: str
    authority: str = AUTHORITY

    @property
    def name(self) -> str:
        return "azure_client_secret"

    async def fetch(self, machine: Machine) -> Credential:
        """A token for an hour or more."""
        form = {"client_secret": self.secret}
        return await _client_credentials(machine, self.authority, self.tenant, self.client_id, self.audience, form)


class FederatedToken(Source, frozen=True):
    """A token of another authority, in a file that is renewed by somebody else (AKS workload identity)."""

    tenant: str
    client_id: str
    token_file: str
    audience: str
    authority: str = AUTHORITY

    @property
    def name(self) -> str:
        return "azure_federated_token"

    async def fetch(self, machine: Machine) -> Credential:
        """A token for an hour or more; the file is read anew each time."""
        assertion = await machine.read(self.token_file)
        form = {"client_assertion_type": _BY_JWT, "client_assertion": assertion}
        return await _client_credentials(machine, self.authority, self.tenant, self.client_id, self.audience, form)


class ManagedIdentity(Source, frozen=True):
    """The identity of the virtual machine that the gateway runs on; `client_id` names one of several."""

    audience: str
    client_id: str = ""
    metadata_url: str = METADATA_URL

    @property
    def name(self) -> str:
        return "azure_managed_identity"

    async def fetch(self, machine: Machine) -> Credential:
        """The machine's token."""
        query = {"api-version": "2018-02-01", "resource": self.audience}
        if self.client_id:
            query["client_id"] = self.client_id
        url = f"{self.metadata_url}/metadata/identity/oauth2/token?{urlencode(query)}"
        now = machine.wall()
        answer = await machine.ask("GET", url, headers=(("metadata", "true"),), seconds=METADATA_SECONDS)
        return token_of(answer.json("Azure's metadata service"), "Azure's metadata service", now)


class AppServiceIdentity(Source, frozen=True):
    """The identity of an App Service, function or container app; its endpoint is in the environment."""

    audience: str
    endpoint: str
    header: str
    client_id: str = ""

    @property
    def name(self) -> str:
        return "azure_app_service_identity"

    async def fetch(self, machine: Machine) -> Credential:
        """The application's token. It tells the end of its life as a date, not as a duration."""
        query = {"api-version": "2019-08-01", "resource": self.audience}
        if self.client_id:
            query["client_id"] = self.client_id
        url = f"{self.endpoint}{'&' if '?' in self.endpoint else '?'}{urlencode(query)}"
        what = "the identity endpoint"
        headers = (("x-identity-header", self.header),)
        tree = (await machine.ask("GET", url, headers=headers, seconds=METADATA_SECONDS)).json(what)
        now = machine.wall()
        try:
            seconds = float(tree["expires_on"]) - now
        except (KeyError, TypeError, ValueError):
            raise CredentialError(f"{what} answered with a token that has no time to live") from None
        return token_of({**tree, "expires_in": seconds}, what, now)


async def _client_credentials(
    machine: Machine, authority: str, tenant: str, client_id: str, audience: str, form: dict[str, str]
) -> Credential:
    url = f"{authority}/{quote(tenant, safe='')}/oauth2/v2.0/token"
    fields = {
        "grant_type": "client_credentials",
        "client_id": client_id,
        "scope": f"{audience}/.default",
        **form,
    }
    now = machine.wall()
    answer = await machine.ask("POST", url, headers=_FORM, body=urlencode(fields).encode())
    return token_of(answer.json(authority), authority, now)
