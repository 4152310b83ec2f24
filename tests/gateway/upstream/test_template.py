"""Templates of response heads: they agree with the parser, or leave the head to it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import UpstreamInvalid
from gateway.response_fields import passed_on
from gateway.upstream.head import parse_head
from gateway.upstream.template import Learner, Template

ORDINARY = [
    "Date: Tue, 24 Nov 2026 07:00:00 GMT",
    "Content-Type: application/json",
    "X-Request-ID: req_1",
    "x-ratelimit-remaining-requests: 9",
    "100%-token!: a",
    "Set-Cookie: a=1",
    "Set-Cookie: b=2",
    "Content-Length: 12",
    "Connection: keep-alive",
    "server: provider",
]
NAMES = st.sampled_from(
    ["date", "x-request-id", "X-Ratelimit-Limit-Tokens", "set-cookie", "server", "cf-ray", "keep-alive", "a%b", "nel"]
)
VALUES = st.text("az AZ09\t;=%{}()\x80\xff", max_size=12)
ODD_VALUES = st.text("az :\t\r\n\0\x7f\x80\xff", max_size=6)


def lines(*fields: str, status: str = "HTTP/1.1 200 OK") -> bytes:
    return "\r\n".join([status, *fields, "", ""]).encode("latin-1")


def learnt(data: bytes) -> Template | None:
    learner = Learner()
    found = None
    for _ in range(2):
        found = learner.learn(data, *parse_head(data))
    return found


def same_as_the_parser(template: Template, data: bytes) -> bool:
    """Whether the template took the head; then everything it says is what the parser says."""
    known = template.read(data + b"body")
    if known is None:
        return False
    head, end = known
    parsed, body, keep_alive = parse_head(data)
    assert end == len(data)
    assert keep_alive
    assert body is template.body or head.content_length == 0
    assert head.passed == passed_on(parsed.raw, limited=False)
    assert head.passed_limited == passed_on(parsed.raw, limited=True)
    head.passed = head.passed_limited = None
    assert head == parsed
    return True


def test_an_ordinary_head_with_other_values() -> None:
    template = learnt(lines(*ORDINARY))
    assert template is not None
    other = [field.replace("req_1", "req_22").replace(": 12", ":  345").replace("a=1", "") for field in ORDINARY]
    assert same_as_the_parser(template, lines(*ORDINARY))
    assert same_as_the_parser(template, lines(*other))


def test_it_takes_two_heads_of_one_shape() -> None:
    learner = Learner()
    first, second = lines("a-shape-of: this test", "content-length: 1"), lines("content-length: 1")
    assert learner.learn(first, *parse_head(first)) is None
    assert learner.learn(second, *parse_head(second)) is None
    assert learner.learn(first, *parse_head(first)) is None
    assert learner.learn(first, *parse_head(first)) is not None


@pytest.mark.parametrize(
    "change",
    [
        ("Content-Type: application/json", "Content-Type: text/plain"),
        ("Connection: keep-alive", "Connection: close"),
        ("Connection: keep-alive", "Connection: x-request-id"),
        ("Content-Length: 12", "Content-Length: +2"),
        ("Content-Length: 12", "Content-Length: 12 "),
        ("Content-Length: 12", "Content-Length: 1234567890"),
        ("Content-Length: 12", "Content-Length: "),
        ("Content-Length: 12", "Transfer-Encoding: chunked"),
        ("Content-Length: 12", "Content-Length: 12\r\nContent-Length: 12"),
        ("Content-Length: 12", "Content-Length : 12"),
        ("server: provider", "server: provider\r\nTransfer-Encoding: chunked"),
        ("server: provider", "server: pro\r\n vider"),
        ("server: provider", "server: pro\nvider"),
        ("server: provider", "server: pro\0vider"),
        ("server: provider", "Server: provider"),
        ("x-ratelimit-remaining-requests: 9", "x-ratelimit-remaining-requests: 9\r"),
    ],
)
def test_what_differs_is_left_to_the_parser(change: tuple[str, str]) -> None:
    template = learnt(lines(*ORDINARY))
    assert template is not None
    assert template.read(lines(*ORDINARY).replace(change[0].encode(), change[1].encode())) is None


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        (["Content-Length: 1", "Connection: close"], "HTTP/1.1 200 OK"),
        (["Content-Length: 1", "Connection: server", "server: a"], "HTTP/1.1 200 OK"),
        (["Content-Length: 1", "Upgrade: h2c"], "HTTP/1.1 200 OK"),
        (["Content-Length: 1", "x-request-id: a", "X-Request-Id: b"], "HTTP/1.1 200 OK"),
        (["Content-Length: 1"], "HTTP/1.0 200 OK"),
        (["Content-Length: 0"], "HTTP/1.1 200 OK"),
        (["Date: now"], "HTTP/1.1 200 OK"),
        (["Date: now"], "HTTP/1.1 204 No Content"),
        (["Content-Length: 1"], "HTTP/1.1 200"),
    ],
)
def test_no_template_is_made_of(fields: list[str], status: str) -> None:
    assert learnt(lines(*fields, status=status)) is None


def test_a_head_cut_anywhere_is_left_to_the_parser() -> None:
    data = lines(*ORDINARY)
    template = learnt(data)
    assert template is not None
    assert not [end for end in range(len(data)) if template.read(data[:end]) is not None]


@given(st.lists(st.tuples(NAMES, VALUES), max_size=6), st.lists(VALUES, min_size=6, max_size=6))
def test_templates_agree_with_the_parser(fields: list[tuple[str, str]], values: list[str]) -> None:
    data = lines("content-length: 7", *(f"{name}:{value}" for name, value in fields))
    template = learnt(data)
    if template is None:  # too many have been made, or a name stands twice that may not
        return
    other = [f"{name}:{value}" for (name, _), value in zip(fields, values, strict=False)]
    assert same_as_the_parser(template, lines("content-length: 8", *other))


@given(ODD_VALUES)
def test_a_template_takes_nothing_that_the_parser_refuses(value: str) -> None:
    template = learnt(lines("server: a", "content-length: 7", "date: b"))
    assert template is not None
    data = lines(f"server:{value}", "content-length: 7", "date: b")
    try:
        parse_head(data)
    except UpstreamInvalid:
        assert template.read(data) is None
    else:
        same_as_the_parser(template, data)
