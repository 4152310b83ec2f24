"""AWS' credentials: of a profile, a container, an instance, or a role that is taken on by a token or another key.

Sources: https://docs.aws.amazon.com/sdkref/latest/guide/standardized-credentials.html and the pages that it names for
each kind, https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html (IMDSv2),
https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html.
"""

from __future__ import annotations

import configparser
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

from gateway.upstream.credentials.source import (
    METADATA_SECONDS,
    Answer,
    Credential,
    CredentialError,
    Machine,
    Source,
    check_url,
    read_text,
)
from translators.sigv4 import AwsCredentials, Signer

METADATA_URL: Final = "http://169.254.169.254"
CONTAINER_URL: Final = "http://169.254.170.2"
CLEAR_HOSTS: Final = ("127.0.0.1", "localhost", "::1", "169.254.170.2", "169.254.170.23", "fd00:ec2::23")
"""Where credentials of a container may be asked for without TLS: this machine, ECS and EKS."""

_TOKEN_TTL: Final = (("x-aws-ec2-metadata-token-ttl-seconds", "21600"),)
_FORM: Final = (("content-type", "application/x-www-form-urlencoded"),)
_SESSION: Final = "keeptrusts-gateway"
_XML: Final = re.compile(r"<(AccessKeyId|SecretAccessKey|SessionToken|Expiration|Code)>([^<>]*)</\1>")
_KEY_PAIR: Final = re.compile(r"(?P<id>[A-Z0-9]{16,128}):(?P<secret>[^:\s]+)(?::(?P<token>\S+))?\Z")


class Instance(Source, frozen=True):
    """The role of the EC2 instance that the gateway runs on, by IMDSv2."""

    metadata_url: str = METADATA_URL

    @property
    def name(self) -> str:
        return "aws_instance"

    async def fetch(self, machine: Machine) -> Credential:
        """The role's key, which the service renews some minutes before its end."""
        what = "the instance metadata service"
        asked = await machine.ask(
            "PUT", f"{self.metadata_url}/latest/api/token", headers=_TOKEN_TTL, seconds=METADATA_SECONDS
        )
        headers = (("x-aws-ec2-metadata-token", asked.text(what)),)
        base = f"{self.metadata_url}/latest/meta-data/iam/security-credentials/"
        listed = await machine.ask("GET", base, headers=headers, seconds=METADATA_SECONDS)
        if listed.status == 404:
            raise CredentialError("the instance has no role")
        role = listed.text(what).split("\n")[0]
        url = base + quote(role.strip(), safe="")
        return _of_json(await machine.ask("GET", url, headers=headers, seconds=METADATA_SECONDS), what)


class Container(Source, frozen=True):
    """The role of an ECS task or an EKS pod. `authorization` is a token, `authorization_file` the file of one."""

    url: str
    authorization: str = ""
    authorization_file: str = ""

    @property
    def name(self) -> str:
        return "aws_container"

    async def fetch(self, machine: Machine) -> Credential:
        """The role's key; the file is read anew each time."""
        token = self.authorization
        if self.authorization_file:
            token = await machine.read(self.authorization_file)
        headers = (("authorization", token),) if token else ()
        answer = await machine.ask("GET", self.url, headers=headers, seconds=METADATA_SECONDS)
        return _of_json(answer, "the container's credential endpoint")


class WebIdentity(Source, frozen=True):
    """A role that is taken on with a token of another authority (IRSA, GitHub's OIDC): the token is in a file."""

    role_arn: str
    token_file: str
    sts_url: str
    session_name: str = _SESSION

    @property
    def name(self) -> str:
        return "aws_web_identity"

    async def fetch(self, machine: Machine) -> Credential:
        """The role's key for an hour; the file is read anew each time."""
        form = {
            "Action": "AssumeRoleWithWebIdentity",
            "Version": "2011-06-15",
            "RoleArn": self.role_arn,
            "RoleSessionName": self.session_name,
            "WebIdentityToken": await machine.read(self.token_file),
        }
        return _of_xml(await machine.ask("POST", f"{self.sts_url}/", headers=_FORM, body=urlencode(form).encode()))


class Profile(Source, frozen=True):
    """A profile of the shared files: keys, or a role that is taken on with the keys of another profile."""

    profile: str
    credentials_file: str
    config_file: str
    sts_url: str
    region: str

    @property
    def name(self) -> str:
        return "aws_profile"

    async def fetch(self, machine: Machine) -> Credential:
        """What the profile leads to; the files are read anew each time, so another program may renew them."""
        profiles = await machine.run(lambda: read_profiles(self.credentials_file, self.config_file))
        return await self._resolve(machine, profiles, self.profile, ())

    async def _resolve(
        self, machine: Machine, profiles: Mapping[str, Mapping[str, str]], name: str, before: tuple[str, ...]
    ) -> Credential:
        settings = profiles.get(name)
        if settings is None:
            raise CredentialError(f"there is no AWS profile {name!r}")
        role, source = settings.get("role_arn"), settings.get("source_profile")
        if role and (token_file := settings.get("web_identity_token_file")):
            session = settings.get("role_session_name", _SESSION)
            return await WebIdentity(role, token_file, self.sts_url, session).fetch(machine)
        if role and source and source != name:
            if source in before:
                raise CredentialError(f"the AWS profile {name!r} leads back to {source!r}")
            own = await self._resolve(machine, profiles, source, (*before, name))
            return await self._assume(machine, own, role, settings)
        return Credential(_keys(settings, f"the AWS profile {name!r}"))

    async def _assume(self, machine: Machine, own: Credential, role: str, settings: Mapping[str, str]) -> Credential:
        assert isinstance(own.value, AwsCredentials)
        form = {
            "Action": "AssumeRole",
            "Version": "2011-06-15",
            "RoleArn": role,
            "RoleSessionName": settings.get("role_session_name", _SESSION),
        }
        if "external_id" in settings:
            form["ExternalId"] = settings["external_id"]
        body = urlencode(form).encode()
        host = urlsplit(self.sts_url).netloc
        signer = Signer(own.value, region=self.region, service="sts", host=host)
        lines = signer.lines("/", body, machine.wall(), fields=_FORM).decode("latin-1")
        signed = tuple((name, value) for name, _, value in (line.partition(": ") for line in lines.splitlines()))
        return _of_xml(await machine.ask("POST", f"{self.sts_url}/", headers=(*_FORM, *signed), body=body))


def read_profiles(credentials_file: str, config_file: str) -> dict[str, dict[str, str]]:
    """All profiles by name; what the credentials file says of one wins. Blocks. Raises CredentialError.

    In the config file a section is called `profile <name>`, and `default` by itself.
    """
    profiles: dict[str, dict[str, str]] = {}
    for path, prefix in ((config_file, "profile "), (credentials_file, "")):
        parser = configparser.RawConfigParser(default_section="", strict=False)
        try:
            parser.read_string(read_text(path))
        except CredentialError:
            continue  # either file may be missing
        except configparser.Error:
            raise CredentialError(f"the file {path} is not in AWS' format") from None
        for section in parser.sections():
            if prefix and section != "default" and not section.startswith(prefix):
                continue
            profiles.setdefault(section.removeprefix(prefix).strip(), {}).update(parser.items(section))
    return profiles


def parse_secret(text: str) -> AwsCredentials | None:
    """A static key as an operator may write it: `id:secret`, `id:secret:token`, or JSON with AWS' names.

    None: it is something else, a Bedrock API key. Raises CredentialError for JSON that is not a key.
    """
    if text.startswith("{"):
        tree = Answer(200, text.encode()).json("the secret")
        return _keys(tree, "the secret")
    found = _KEY_PAIR.match(text)
    return None if found is None else AwsCredentials(found["id"], found["secret"], found["token"])


def _keys(settings: Mapping[str, Any], what: str) -> AwsCredentials:
    key, secret = settings.get("aws_access_key_id"), settings.get("aws_secret_access_key")
    token = settings.get("aws_session_token")
    for value in (key, secret, *((token,) if token else ())):
        if not isinstance(value, str) or not value:
            raise CredentialError(
                f"{what} has no aws_access_key_id and aws_secret_access_key (and no role that could be taken on)"
            )
        if not (value.isascii() and value.isprintable()):
            raise CredentialError(f"{what} holds a key that is not plain ASCII")
    return AwsCredentials(str(key), str(secret), token or None)


def _of_json(answer: Answer, what: str) -> Credential:
    tree = answer.json(what)
    if tree.get("Code", "Success") != "Success":
        raise CredentialError(f"{what} has no credentials ({str(tree.get('Code'))[:80]})")
    return _credential(
        tree.get("AccessKeyId"), tree.get("SecretAccessKey"), tree.get("Token"), tree.get("Expiration"), what
    )


def _of_xml(answer: Answer) -> Credential:
    """An answer of STS. Its error's code (`AccessDenied`) is told, its message is not."""
    found = dict(_XML.findall(answer.body.decode("utf-8", "replace")))
    if answer.status // 100 != 2:
        raise CredentialError(f"STS answered {answer.status} ({found.get('Code', 'without a code')[:80]})")
    return _credential(
        found.get("AccessKeyId"),
        found.get("SecretAccessKey"),
        found.get("SessionToken"),
        found.get("Expiration"),
        "STS",
    )


def _credential(key: Any, secret: Any, token: Any, expiration: Any, what: str) -> Credential:
    values = {"aws_access_key_id": key, "aws_secret_access_key": secret, "aws_session_token": token}
    credentials = _keys(values, f"the answer of {what}")
    if expiration is None:
        return Credential(credentials)
    try:
        return Credential(credentials, datetime.fromisoformat(expiration).timestamp())
    except (TypeError, ValueError):
        raise CredentialError(f"{what} answered with an expiration that is not a date") from None


def sts_url(region: str, environment: Mapping[str, str]) -> str:
    """The regional STS. Raises CredentialError for an `AWS_ENDPOINT_URL_STS` that is not safe."""
    own = environment.get("AWS_ENDPOINT_URL_STS")
    if own:
        return check_url(own.rstrip("/"), "AWS_ENDPOINT_URL_STS")
    return f"https://sts.{region}.amazonaws.com{'.cn' if region.startswith('cn-') else ''}"
