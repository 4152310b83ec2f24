"""AWS' own ways to credentials, against servers that keep to its documentation."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.upstream.credentials.aws import (
    Container,
    Instance,
    Profile,
    WebIdentity,
    parse_secret,
    read_profiles,
    sts_url,
)
from gateway.upstream.credentials.source import CredentialError
from tests.gateway.upstream.credentials.support import NOW, Wall, form, machine, says
from tests.provider import Request, ScriptedProvider, respond
from tests.translators.test_sigv4 import by_botocore
from translators.sigv4 import AwsCredentials

EXPIRES = "2023-11-14T23:13:20Z"  # an hour after NOW
FOUND = {
    "Code": "Success",
    "AccessKeyId": "ASIAFETCHED",
    "SecretAccessKey": "fetched/secret",
    "Token": "fetched+token==",
    "Expiration": EXPIRES,
}
FETCHED = AwsCredentials("ASIAFETCHED", "fetched/secret", "fetched+token==")
STS = """<{0}Response xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><{0}Result><Credentials>
<AccessKeyId>ASIAFETCHED</AccessKeyId><SecretAccessKey>fetched/secret</SecretAccessKey>
<SessionToken>fetched+token==</SessionToken><Expiration>2023-11-14T23:13:20Z</Expiration>
</Credentials></{0}Result></{0}Response>"""


class TestInstance:
    """https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html"""

    @staticmethod
    def service(request: Request, role: str = "my-role") -> bytes:
        if request.target == "/latest/api/token":
            ttl = int(request.headers.get("x-aws-ec2-metadata-token-ttl-seconds", "0"))
            return respond(b"session-token") if request.method == "PUT" and 0 < ttl <= 21600 else respond(b"", 400)
        if request.headers.get("x-aws-ec2-metadata-token") != "session-token":
            return respond(b"", 401)
        pages = {
            "/latest/meta-data/iam/security-credentials/": respond(role.encode(), 200 if role else 404),
            "/latest/meta-data/iam/security-credentials/my-role": says({**FOUND, "Type": "AWS-HMAC"}),
        }
        return pages.get(request.target, respond(b"", 404)) if request.method == "GET" else respond(b"", 405)

    async def test_its_role(self) -> None:
        async with ScriptedProvider(self.service) as service, machine() as here:
            found = await Instance(service.url).fetch(here)
        assert found.value == FETCHED
        assert found.expires_at == NOW + 3600

    async def test_it_has_no_role(self) -> None:
        async with ScriptedProvider(lambda one: self.service(one, "")) as service, machine() as here:
            with pytest.raises(CredentialError, match="no role"):
                await Instance(service.url).fetch(here)

    async def test_the_service_says_no(self) -> None:
        answers = (respond(b"t"), respond(b"role"), says({"Code": "AssumeRoleUnauthorizedAccess"}))
        async with ScriptedProvider(*answers) as service, machine() as here:
            with pytest.raises(CredentialError, match="AssumeRoleUnauthorizedAccess"):
                await Instance(service.url).fetch(here)


class TestContainer:
    """https://docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html"""

    async def test_a_task(self) -> None:
        async with ScriptedProvider(says(FOUND)) as service, machine() as here:
            found = await Container(f"{service.url}/v2/credentials/id").fetch(here)
            request = service.requests[0]
        assert (request.method, request.target) == ("GET", "/v2/credentials/id")
        assert "authorization" not in request.headers
        assert found.value == FETCHED

    async def test_a_pod_with_a_token_that_is_renewed(self, tmp_path: Path) -> None:
        token = tmp_path / "token"
        async with ScriptedProvider(says(FOUND)) as service, machine() as here:
            source = Container(f"{service.url}/v1/credentials", authorization_file=str(token))
            for text in ("first", "second"):
                token.write_text(text + "\n")
                await source.fetch(here)
            assert [request.headers["authorization"] for request in service.requests] == ["first", "second"]
            token.unlink()
            with pytest.raises(CredentialError, match="cannot be read"):
                await source.fetch(here)

    async def test_a_token_in_the_environment(self) -> None:
        async with ScriptedProvider(says(FOUND)) as service, machine() as here:
            await Container(f"{service.url}/", authorization="Basic abc").fetch(here)
            assert service.requests[0].headers["authorization"] == "Basic abc"

    @pytest.mark.parametrize(
        "answer",
        [
            says({**FOUND, "AccessKeyId": ""}),
            says({**FOUND, "SecretAccessKey": None}),
            says({**FOUND, "Token": "two\nlines"}),
            says({**FOUND, "Expiration": "soon"}),
            respond(b"[]"),
            respond(b"not JSON"),
            respond(b"", 500),
        ],
    )
    async def test_what_is_no_credential(self, answer: bytes) -> None:
        async with ScriptedProvider(answer) as service, machine() as here:
            with pytest.raises(CredentialError):
                await Container(f"{service.url}/").fetch(here)


class TestWebIdentity:
    """https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html"""

    async def test_a_role(self, tmp_path: Path) -> None:
        (tmp_path / "token").write_text("jwt.of.cluster\n")
        answer = respond(STS.format("AssumeRoleWithWebIdentity").encode())
        async with ScriptedProvider(answer) as sts, machine() as here:
            source = WebIdentity("arn:aws:iam::1:role/r", str(tmp_path / "token"), sts.url)
            found = await source.fetch(here)
            asked = form(sts.requests[0])
        assert asked == {
            "Action": "AssumeRoleWithWebIdentity",
            "Version": "2011-06-15",
            "RoleArn": "arn:aws:iam::1:role/r",
            "RoleSessionName": "keeptrusts-gateway",
            "WebIdentityToken": "jwt.of.cluster",
        }
        assert "authorization" not in sts.requests[0].headers
        assert found.value == FETCHED
        assert found.expires_at == NOW + 3600

    async def test_a_refusal_tells_its_code_and_not_its_message(self, tmp_path: Path) -> None:
        (tmp_path / "token").write_text("jwt")
        refusal = (
            b"<ErrorResponse><Error><Code>ExpiredTokenException</Code><Message>jwt</Message></Error></ErrorResponse>"
        )
        async with ScriptedProvider(respond(refusal, 400)) as sts, machine() as here:
            with pytest.raises(CredentialError) as refused:
                await WebIdentity("r", str(tmp_path / "token"), sts.url).fetch(here)
        assert str(refused.value) == "STS answered 400 (ExpiredTokenException)"

    def test_the_regional_endpoint(self) -> None:
        assert sts_url("eu-central-1", {}) == "https://sts.eu-central-1.amazonaws.com"
        assert sts_url("cn-north-1", {}) == "https://sts.cn-north-1.amazonaws.com.cn"
        assert sts_url("x", {"AWS_ENDPOINT_URL_STS": "https://vpce.example/"}) == "https://vpce.example"
        with pytest.raises(CredentialError, match="AWS_ENDPOINT_URL_STS must be an https URL"):
            sts_url("x", {"AWS_ENDPOINT_URL_STS": "http://sts.example"})


CONFIG = """
[default]
region = eu-central-1
[profile team]
role_arn = arn:aws:iam::1:role/team
source_profile = base
external_id = e-1
[profile pod]
role_arn = arn:aws:iam::1:role/pod
web_identity_token_file = {folder}/token
role_session_name = me
[profile a]
role_arn = x
source_profile = b
[profile b]
role_arn = y
source_profile = a
[profile lost]
role_arn = x
source_profile = nobody
[sso-session other]
sso_region = us-east-1
"""
CREDENTIALS = """
[default]
aws_access_key_id = AKIDDEFAULT
aws_secret_access_key = default/secret
[base]
aws_access_key_id = AKIDBASE
aws_secret_access_key = base/secret
aws_session_token = base/token
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config").write_text(CONFIG.format(folder=tmp_path))
    (tmp_path / "credentials").write_text(CREDENTIALS)
    (tmp_path / "token").write_text("jwt")
    return tmp_path


def profile(name: str, folder: Path, sts: str = "https://sts.example") -> Profile:
    return Profile(name, str(folder / "credentials"), str(folder / "config"), sts, "eu-central-1")


class TestProfile:
    """https://docs.aws.amazon.com/sdkref/latest/guide/file-format.html, .../feature-assume-role-credentials.html"""

    async def test_keys(self, folder: Path) -> None:
        async with machine() as here:
            assert (await profile("default", folder).fetch(here)).value == AwsCredentials(
                "AKIDDEFAULT", "default/secret"
            )
            found = await profile("base", folder).fetch(here)
        assert found.value == AwsCredentials("AKIDBASE", "base/secret", "base/token")
        assert found.expires_at is None

    async def test_keys_that_another_program_renews(self, folder: Path) -> None:
        async with machine() as here:
            source = profile("default", folder)
            await source.fetch(here)
            (folder / "credentials").write_text(CREDENTIALS.replace("AKIDDEFAULT", "AKIDNEWER"))
            found = (await source.fetch(here)).value
        assert isinstance(found, AwsCredentials)
        assert found.access_key_id == "AKIDNEWER"

    async def test_a_role_taken_on_with_another_profiles_keys(self, folder: Path) -> None:
        async with ScriptedProvider(respond(STS.format("AssumeRole").encode())) as sts, machine(Wall(NOW)) as here:
            found = await profile("team", folder, sts.url).fetch(here)
            request, url = sts.requests[0], sts.url
        assert form(request) == {
            "Action": "AssumeRole",
            "Version": "2011-06-15",
            "RoleArn": "arn:aws:iam::1:role/team",
            "RoleSessionName": "keeptrusts-gateway",
            "ExternalId": "e-1",
        }
        signed = by_botocore(
            AwsCredentials("AKIDBASE", "base/secret", "base/token"),
            NOW,
            f"{url}/",
            request.body,
            region="eu-central-1",
            service="sts",
            fields=(("content-type", "application/x-www-form-urlencoded"),),
        )
        assert {name: request.headers[name] for name in signed} == signed
        assert found.value == FETCHED

    async def test_a_role_taken_on_with_a_token(self, folder: Path) -> None:
        answer = respond(STS.format("AssumeRoleWithWebIdentity").encode())
        async with ScriptedProvider(answer) as sts, machine() as here:
            await profile("pod", folder, sts.url).fetch(here)
            asked = form(sts.requests[0])
        assert (asked["RoleArn"], asked["RoleSessionName"]) == ("arn:aws:iam::1:role/pod", "me")
        assert asked["WebIdentityToken"] == "jwt"

    @pytest.mark.parametrize(
        ("name", "why"),
        [("none", "no AWS profile"), ("a", "leads back"), ("lost", "nobody"), ("pod2", "no AWS profile")],
    )
    async def test_profiles_that_lead_nowhere(self, folder: Path, name: str, why: str) -> None:
        async with machine() as here:
            with pytest.raises(CredentialError, match=why):
                await profile(name, folder).fetch(here)

    def test_either_file_may_be_missing(self, folder: Path) -> None:
        missing = str(folder / "missing")
        assert "team" not in read_profiles(str(folder / "credentials"), missing)
        assert read_profiles(missing, str(folder / "config"))["team"]["source_profile"] == "base"
        assert read_profiles(missing, missing) == {}

    def test_a_file_that_is_none(self, folder: Path) -> None:
        (folder / "config").write_text("no sections")
        with pytest.raises(CredentialError, match="AWS' format"):
            read_profiles(str(folder / "credentials"), str(folder / "config"))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("AKIAIOSFODNN7EXAMPLE:wJalr/XUt+EXAMPLE", AwsCredentials("AKIAIOSFODNN7EXAMPLE", "wJalr/XUt+EXAMPLE")),
        ("ASIAIOSFODNN7EXAMPLE:wJalr:FwoG//t=", AwsCredentials("ASIAIOSFODNN7EXAMPLE", "wJalr", "FwoG//t=")),
        (
            '{"aws_access_key_id":"AKIDX","aws_secret_access_key":"s","aws_session_token":"t"}',
            AwsCredentials("AKIDX", "s", "t"),
        ),
        ('{"aws_access_key_id":"AKIDX","aws_secret_access_key":"s"}', AwsCredentials("AKIDX", "s")),
        # Bedrock API keys: long-lived and short-lived.
        ("ABSKQmVkcm9ja0FQSUtleS1hYmNk", None),
        ("bedrock-api-key-YmVkcm9jay5hbWF6b25hd3MuY29tLz9BY3Rpb249Q2FsbA==&Version=1", None),
    ],
)
def test_a_static_secret(text: str, found: AwsCredentials | None) -> None:
    assert parse_secret(text) == found


@pytest.mark.parametrize("text", ["{", "{}", '{"aws_access_key_id":"AKIDX"}', '{"aws_access_key_id":1}'])
def test_a_static_secret_that_is_none(text: str) -> None:
    with pytest.raises(CredentialError):
        parse_secret(text)
