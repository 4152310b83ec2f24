"""Signatures, judged by AWS's own signer (botocore) over generated requests."""

from __future__ import annotations

import datetime
from unittest import mock

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given, settings
from hypothesis import strategies as st

from translators.sigv4 import AwsCredentials, Signer, canonical_target

KEY = AwsCredentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
WHEN = 1_440_938_160.0  # 2015-08-30T12:36:00Z, as in AWS's own examples


def by_botocore(
    credentials: AwsCredentials,
    when: float,
    url: str,
    body: bytes,
    *,
    region: str,
    service: str,
    method: str = "POST",
    fields: tuple[tuple[str, str], ...] = (),
) -> dict[str, str]:
    """The header fields that botocore would send."""
    request = AWSRequest(method=method, url=url, data=body, headers=dict(fields))
    signer = SigV4Auth(
        Credentials(credentials.access_key_id, credentials.secret_access_key, credentials.session_token),
        service,
        region,
    )
    now = datetime.datetime.fromtimestamp(int(when), datetime.UTC).replace(tzinfo=None)
    with mock.patch("botocore.auth.get_current_datetime", return_value=now):
        signer.add_auth(request)
    return {name.lower(): value for name, value in request.headers.items()}


def ours(lines: bytes) -> dict[str, str]:
    assert lines.endswith(b"\r\n")
    return dict(line.split(": ", 1) for line in lines.decode("latin-1").split("\r\n")[:-1])


words = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="/?#%"), max_size=12)
escaped = st.sampled_from(["%3A", "%2F", "%20", "%25", "%C3%A9", "~", "..", ".", ""])
segments = st.lists(st.one_of(words, escaped), max_size=5).map("".join)
paths = st.lists(segments, min_size=1, max_size=6).map(lambda parts: "/" + "/".join(parts))
names = st.text("abcXYZ019-_.~%", max_size=6)
queries = st.lists(st.tuples(names, names), max_size=4).map(
    lambda pairs: "&".join(f"{name}={value}" if value else name for name, value in pairs)
)
credentials = st.builds(
    AwsCredentials,
    st.text("ABCDEFGH0123456789", min_size=16, max_size=20),
    st.text("abcXYZ019+/=", min_size=1, max_size=40),
    st.one_of(st.none(), st.text("abcXYZ019+/=", min_size=1, max_size=300)),
)


@settings(max_examples=400, deadline=None)
@given(
    credentials,
    st.floats(0, 4e9),
    paths,
    queries,
    st.binary(max_size=200),
    st.sampled_from(["us-east-1", "eu-central-1", "cn-north-1"]),
    st.sampled_from(["POST", "GET"]),
)
def test_as_botocore_signs(
    who: AwsCredentials, when: float, path: str, query: str, body: bytes, region: str, method: str
) -> None:
    host = f"bedrock-runtime.{region}.amazonaws.com"
    target = f"{path}?{query}" if query else path
    signer = Signer(who, region=region, service="bedrock", host=host)
    fields = (("content-type", "application/json"),)
    lines = signer.lines(target, body, when, method=method, fields=fields)
    theirs = by_botocore(
        who, when, f"https://{host}{target}", body, region=region, service="bedrock", method=method, fields=fields
    )
    assert ours(lines) == {name: value for name, value in theirs.items() if name != "content-type"}


@pytest.mark.parametrize(
    ("sent", "signed"),
    [
        ("/model/m/converse", "/model/m/converse\n"),
        ("/model/anthropic.claude-v2%3A1/converse", "/model/anthropic.claude-v2%253A1/converse\n"),
        (
            "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Ainference-profile%2Fus.x/converse",
            "/model/arn%253Aaws%253Abedrock%253Aus-east-1%253A1%253Ainference-profile%252Fus.x/converse\n",
        ),
        ("/?b=2&a=1&a=0&c", "/\na=0&a=1&b=2&c="),
        ("/a/./b/../c//d/", "/a/c/d/\n"),
        ("/..", "/\n"),
    ],
)
def test_F10_what_is_sent_is_encoded_once_more(sent: str, signed: str) -> None:
    assert canonical_target(sent) == signed


def test_F10_a_model_that_is_an_arn() -> None:
    """The same string in the request line and in the signature."""
    target = "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A123%3Aapplication-inference-profile%2Fabc/converse-stream"
    lines = Signer(KEY, region="us-east-1", service="bedrock", host="h.example").lines(target, b"{}", WHEN)
    theirs = by_botocore(KEY, WHEN, f"https://h.example{target}", b"{}", region="us-east-1", service="bedrock")
    assert ours(lines) == theirs


def test_a_signer_serves_for_days() -> None:
    signer = Signer(KEY, region="us-east-1", service="bedrock", host="h.example:8443")
    for when in (WHEN, WHEN + 0.9, WHEN + 1, WHEN + 86_400, WHEN):
        for target in ("/a", "/b?x=1", "/a"):
            theirs = by_botocore(
                KEY, when, f"https://h.example:8443{target}", b"x", region="us-east-1", service="bedrock"
            )
            assert ours(signer.lines(target, b"x", when)) == theirs


def test_it_keeps_few_paths() -> None:
    signer = Signer(KEY, region="us-east-1", service="bedrock", host="h")
    first = signer.lines("/0", b"", WHEN)
    for number in range(200):
        signer.lines(f"/{number}", b"", WHEN)
    assert len(signer._paths) <= 64
    assert signer.lines("/0", b"", WHEN) == first


def test_nothing_secret_is_shown() -> None:
    who = AwsCredentials("AKIDSHOWN", "s3cret", "t0ken")
    signer = Signer(who, region="us-east-1", service="bedrock", host="h")
    for text in (repr(who), str(who), f"{who}", repr(signer)):
        assert not any(word in text for word in ("AKIDSHOWN", "s3cret", "t0ken"))
