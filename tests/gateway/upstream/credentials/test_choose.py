"""From settings and environment to a way to authenticate."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from gateway.config.schema import Target
from gateway.secrets import Secret
from gateway.types import Origin
from gateway.upstream.credentials import aws, azure, google
from gateway.upstream.credentials.choose import Chosen, choose
from gateway.upstream.credentials.source import CredentialError, Source
from tests.gateway.upstream.credentials.test_google import service_account

PAIR = {"AWS_ACCESS_KEY_ID": "AKIDENV", "AWS_SECRET_ACCESS_KEY": "s"}
NO_FILES = {"AWS_SHARED_CREDENTIALS_FILE": "/nowhere/credentials", "AWS_CONFIG_FILE": "/nowhere/config"}
STS = "https://sts.eu-central-1.amazonaws.com"


def way(
    provider: str,
    environment: Mapping[str, str] = {},
    secret: str = "",
    host: str = "h.example",
    **settings: Any,
) -> Chosen:
    if provider == "bedrock":
        settings = {"aws_region": "eu-central-1", **settings}
    target = Target(id="t", provider=provider, model="m", **settings)
    return choose(target, Secret(secret), environment, Origin(host, 443), host)


def source(chosen: Chosen) -> Source:
    assert chosen.grant is not None
    assert chosen.plain is None
    assert chosen.sign is None
    return chosen.grant.source


def signed_by(chosen: Chosen) -> bytes:
    assert chosen.sign is not None
    assert chosen.plain is None
    assert chosen.grant is None
    return chosen.sign("/", b"", 0.0)


class TestBedrock:
    def test_an_api_key(self) -> None:
        chosen = way("bedrock", PAIR, "ABSKkey")
        assert chosen.plain == Secret("ABSKkey")
        assert not chosen.signs

    def test_a_static_key(self) -> None:
        chosen = way("bedrock", PAIR, "AKIAIOSFODNN7EXAMPLE:s:t")
        assert b"Credential=AKIAIOSFODNN7EXAMPLE/19700101/eu-central-1/bedrock/" in signed_by(chosen)
        assert b"x-amz-security-token: t\r\n" in signed_by(chosen)
        assert chosen.signs

    def test_a_key_in_the_environment(self) -> None:
        assert b"Credential=AKIDENV/" in signed_by(way("bedrock", PAIR))
        lines = signed_by(way("bedrock", {**PAIR, "AWS_SESSION_TOKEN": "t"}))
        assert b"x-amz-security-token: t\r\n" in lines

    def test_an_api_key_in_the_environment_comes_before_all(self) -> None:
        assert way("bedrock", {**PAIR, "AWS_BEARER_TOKEN_BEDROCK": "ABSKenv"}).plain == Secret("ABSKenv")

    def test_a_named_profile_comes_before_the_environment(self) -> None:
        found = source(way("bedrock", {**PAIR, "AWS_BEARER_TOKEN_BEDROCK": "k"}, aws_profile="team"))
        assert found == aws.Profile("team", "~/.aws/credentials", "~/.aws/config", STS, "eu-central-1")

    def test_a_web_identity(self) -> None:
        environment = {"AWS_ROLE_ARN": "arn", "AWS_WEB_IDENTITY_TOKEN_FILE": "/t", "AWS_PROFILE": "p"}
        assert source(way("bedrock", environment)) == aws.WebIdentity("arn", "/t", STS)

    def test_a_profile(self, tmp_path: Path) -> None:
        (tmp_path / "credentials").write_text("[default]\naws_access_key_id = AKIDX\naws_secret_access_key = s\n")
        files = {**NO_FILES, "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials")}
        found = source(way("bedrock", files))
        assert isinstance(found, aws.Profile)
        assert found.profile == "default"
        found = source(way("bedrock", {**NO_FILES, "AWS_PROFILE": "other"}))
        assert isinstance(found, aws.Profile)
        assert found.profile == "other"

    def test_a_container(self) -> None:
        found = source(way("bedrock", {**NO_FILES, "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/v2/x"}))
        assert found == aws.Container("http://169.254.170.2/v2/x")
        environment = {
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://169.254.170.23/v1/credentials",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": "/token",
        }
        found = source(way("bedrock", {**NO_FILES, **environment}))
        assert found == aws.Container("http://169.254.170.23/v1/credentials", authorization_file="/token")

    def test_a_container_is_not_asked_in_clear_text_over_a_network(self) -> None:
        with pytest.raises(CredentialError, match="must be an https URL"):
            way("bedrock", {**NO_FILES, "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://10.0.0.1/"})

    def test_an_instance(self) -> None:
        assert source(way("bedrock", NO_FILES)) == aws.Instance("http://169.254.169.254")
        endpoint = {"AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://127.0.0.1:1338/"}
        assert source(way("bedrock", {**NO_FILES, **endpoint})) == aws.Instance("http://127.0.0.1:1338")
        with pytest.raises(CredentialError, match="AWS_EC2_METADATA_DISABLED"):
            way("bedrock", {**NO_FILES, "AWS_EC2_METADATA_DISABLED": "true"})

    @pytest.mark.parametrize(
        ("host", "region"),
        [
            ("bedrock-runtime.us-west-2.amazonaws.com", "us-west-2"),
            ("bedrock-runtime-fips.us-gov-west-1.amazonaws.com", "us-gov-west-1"),
            ("vpce-1.bedrock-runtime.eu-west-1.vpce.amazonaws.com", "eu-west-1"),
        ],
    )
    def test_the_region_of_a_base_url(self, host: str, region: str) -> None:
        lines = signed_by(way("bedrock", PAIR, host=host, aws_region=None))
        assert f"/{region}/bedrock/".encode() in lines

    def test_no_region(self) -> None:
        with pytest.raises(CredentialError, match="aws_region is not set"):
            way("bedrock", PAIR, aws_region=None)
        assert way("bedrock", {}, "ABSKkey", aws_region=None).plain is not None


class TestVertex:
    @pytest.fixture(autouse=True)
    def home(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setenv("HOME", str(tmp_path))
        return tmp_path

    def test_an_api_key(self) -> None:
        assert way("vertex", secret="AIza").plain == Secret("AIza")

    def test_a_service_account(self) -> None:
        document = service_account(rsa.generate_private_key(65537, 2048), "https://oauth2.googleapis.com/token")
        found = source(way("vertex", secret=orjson.dumps(document).decode()))
        assert isinstance(found, google.ServiceAccount)
        assert found.email == "me@project.iam.gserviceaccount.com"

    def test_a_secret_that_is_neither(self) -> None:
        with pytest.raises(CredentialError, match="not the JSON of a credential"):
            way("vertex", secret="{broken")

    def test_default_credentials(self, home: Path) -> None:
        user = {"type": "authorized_user", "client_id": "i", "client_secret": "s", "refresh_token": "r"}
        file = home / ".config/gcloud/application_default_credentials.json"
        file.parent.mkdir(parents=True)
        file.write_bytes(orjson.dumps(user))
        assert source(way("vertex")) == google.AuthorizedUser("i", "s", "r")
        other = home / "other.json"
        other.write_bytes(orjson.dumps({**user, "client_id": "other"}))
        found = source(way("vertex", {"GOOGLE_APPLICATION_CREDENTIALS": str(other)}))
        assert found == google.AuthorizedUser("other", "s", "r")
        with pytest.raises(CredentialError, match="cannot be read"):
            way("vertex", {"GOOGLE_APPLICATION_CREDENTIALS": str(home / "missing.json")})

    def test_a_machine(self) -> None:
        assert source(way("vertex")) == google.MetadataServer("169.254.169.254")
        assert source(way("vertex", {"GCE_METADATA_HOST": "127.0.0.1:80"})) == google.MetadataServer("127.0.0.1:80")


class TestAzure:
    FOR = "https://cognitiveservices.azure.com"

    def test_an_api_key(self) -> None:
        assert way("azure-openai", {"AZURE_CLIENT_SECRET": "x"}, "key").plain == Secret("key")

    def test_a_client_secret(self) -> None:
        settings = {"azure_tenant_id": "t", "azure_client_id": "c"}
        expected = azure.ClientSecret("t", "c", "secret", self.FOR)
        assert source(way("azure-openai", secret="secret", **settings)) == expected
        assert source(way("azure-openai", {"AZURE_CLIENT_SECRET": "secret"}, **settings)) == expected
        environment = {"AZURE_TENANT_ID": "t", "AZURE_CLIENT_ID": "c", "AZURE_CLIENT_SECRET": "secret"}
        assert source(way("azure-openai", environment)) == expected

    def test_a_client_secret_of_nobody(self) -> None:
        with pytest.raises(CredentialError, match="azure_tenant_id and azure_client_id"):
            way("azure-openai", secret="secret", azure_tenant_id="t")

    def test_a_federated_token_in_another_cloud(self) -> None:
        environment = {
            "AZURE_TENANT_ID": "t",
            "AZURE_CLIENT_ID": "c",
            "AZURE_FEDERATED_TOKEN_FILE": "/token",
            "AZURE_AUTHORITY_HOST": "https://login.microsoftonline.us/",
        }
        found = source(way("azure-openai", environment, host="r.openai.azure.us"))
        whom = "https://cognitiveservices.azure.us"
        assert found == azure.FederatedToken("t", "c", "/token", whom, "https://login.microsoftonline.us")

    def test_an_authority_in_clear_text(self) -> None:
        with pytest.raises(CredentialError, match="AZURE_AUTHORITY_HOST must be an https URL"):
            way("azure-openai", {"AZURE_AUTHORITY_HOST": "http://login.example"})

    def test_an_app_service(self) -> None:
        environment = {"IDENTITY_ENDPOINT": "http://127.0.0.1:41/msi/token", "IDENTITY_HEADER": "h"}
        found = source(way("azure-openai", environment))
        assert found == azure.AppServiceIdentity(self.FOR, "http://127.0.0.1:41/msi/token", "h")

    def test_a_machine(self) -> None:
        assert source(way("azure-openai")) == azure.ManagedIdentity(self.FOR)
        found = source(way("azure-openai", azure_client_id="user-assigned"))
        assert found == azure.ManagedIdentity(self.FOR, "user-assigned")


def test_other_providers_have_keys_of_their_own() -> None:
    assert way("openai", PAIR, "sk").plain == Secret("sk")


def test_nothing_secret_is_shown() -> None:
    shown = [
        way("bedrock", secret="AKIAIOSFODNN7EXAMPLE:s3cret"),
        way("bedrock", secret="s3cret"),
        way("bedrock", NO_FILES),
    ]
    assert "s3cret" not in f"{shown} {shown[0]} {shown[1]}"
