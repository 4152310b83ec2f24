"""Who may connect, and whose word about that is believed."""

from __future__ import annotations

import pytest

from gateway.downstream.access import Access, access
from gateway.downstream.http import DownstreamLimits
from gateway.errors import AddressNotAllowed
from tests.gateway.downstream.support import Wire
from tests.wire.requests import get

PEER = "192.0.2.7"
"""Where the client of `Wire` comes from."""


def test_no_rules_are_no_object() -> None:
    assert access((), ()) is None


@pytest.mark.parametrize(
    ("allowed", "peer", "admitted"),
    [
        ([], "198.51.100.1", True),
        (["192.0.2.0/24"], "192.0.2.255", True),
        (["192.0.2.0/24"], "192.0.3.0", False),
        (["192.0.2.7"], "192.0.2.7", True),
        (["192.0.2.7"], "::ffff:192.0.2.7", True),
        (["192.0.2.7"], "::ffff:192.0.2.8", False),
        (["192.0.2.7"], "2001:db8::7", False),
        (["2001:db8::/32"], "2001:db8::7", True),
        (["2001:db8::/32"], "192.0.2.7", False),
        (["fe80::/10"], "fe80::1%eth0", True),
        (["10.0.0.0/8", "192.0.2.0/24"], "192.0.2.1", True),
        (["192.0.2.0/24"], "local", True),
    ],
)
def test_the_allow_list(allowed: list[str], peer: str, admitted: bool) -> None:
    rules = Access(allowed, [])
    client = rules.client(peer, b"192.0.2.1")  # nobody's word counts
    if admitted:
        rules.check(client)
    else:
        with pytest.raises(AddressNotAllowed, match="ip_allowlist"):
            rules.check(client)


@pytest.mark.parametrize(
    ("forwarded", "client"),
    [
        (None, "10.0.0.1"),
        (b"", "10.0.0.1"),
        (b"198.51.100.9", "198.51.100.9"),
        (b" 198.51.100.9 ", "198.51.100.9"),
        (b"198.51.100.9:4711", "198.51.100.9"),
        (b"2001:db8::9", "2001:db8::9"),
        (b"[2001:db8::9]:4711", "2001:db8::9"),
        (b"[2001:db8::9]", "2001:db8::9"),
        (b"::ffff:198.51.100.9", "198.51.100.9"),
        # What a client wrote itself stands to the left of what the proxy saw.
        (b"127.0.0.1, 198.51.100.9", "198.51.100.9"),
        (b"10.0.0.9, 198.51.100.9", "198.51.100.9"),
        # A chain of proxies, all of them trusted.
        (b"198.51.100.9, 10.0.0.3, 10.0.0.2", "198.51.100.9"),
        (b"10.0.0.9, 10.0.0.3", "10.0.0.9"),
        (b"6.6.6.6, 198.51.100.9, 10.0.0.3", "198.51.100.9"),
        # What is no address ends the chain: only what stands behind it was seen by a proxy.
        (b"unknown", "10.0.0.1"),
        (b"198.51.100.9, unknown, 10.0.0.3", "10.0.0.3"),
        (b"198.51.100.9,", "10.0.0.1"),
        (b"198.51.100.9, 10.0.0.3,", "10.0.0.1"),
        (b"<script>, \xff", "10.0.0.1"),
        (b", ".join([b"198.51.100.9"] + [b"10.0.0.2"] * 40), "10.0.0.2"),
    ],
)
def test_the_client_behind_a_trusted_proxy(forwarded: bytes | None, client: str) -> None:
    assert Access([], ["10.0.0.0/8"]).client("10.0.0.1", forwarded) == client


def test_a_proxy_that_nobody_trusts_is_the_client() -> None:
    assert Access([], ["10.0.0.0/8"]).client("192.0.2.7", b"127.0.0.1") == "192.0.2.7"


def test_the_allow_list_is_about_the_client_and_not_its_proxy() -> None:
    rules = Access(["198.51.100.0/24"], ["10.0.0.0/8"])
    rules.check(rules.client("10.0.0.1", b"198.51.100.9"))
    for peer, forwarded in (("10.0.0.1", b"203.0.113.1"), ("10.0.0.1", None), ("203.0.113.1", b"198.51.100.9")):
        with pytest.raises(AddressNotAllowed):
            rules.check(rules.client(peer, forwarded))


# On a connection


def test_a_barred_client_gets_one_answer_and_no_more() -> None:
    wire = Wire()
    wire.server.configure(DownstreamLimits(), access(["10.0.0.0/8"], []))
    wire.sends(get() + get())
    assert [status for status, _ in wire.answers] == [403]
    assert b'"code":"address_not_allowed"' in wire.transport.written
    assert wire.closed
    assert wire.application.handlers == []


def test_a_body_of_a_barred_client_is_not_read() -> None:
    wire = Wire()
    wire.server.configure(DownstreamLimits(), access(["10.0.0.0/8"], []))
    wire.sends(get(b"Content-Length: 30000000", method=b"POST"), b"x" * 1000)
    assert [status for status, _ in wire.answers] == [403]
    assert wire.server.buffered == 0


def test_each_head_says_anew_who_asks() -> None:
    """One connection of a proxy carries the requests of many clients."""
    wire = Wire()
    wire.server.configure(DownstreamLimits(), access(["198.51.100.0/24"], [PEER]))
    for number in (1, 2, 2):
        wire.sends(get(b"X-Forwarded-For: 198.51.100.%d" % number, b"Content-Length: 1", method=b"POST") + b"x")
        assert wire.connection.peer == f"198.51.100.{number}"
    wire.sends(get(b"X-Forwarded-For: 203.0.113.5", b"Content-Length: 1", method=b"POST") + b"x")
    assert [status for status, _ in wire.answers] == [200, 200, 200, 403]


def test_other_rules_count_on_connections_that_are_open_and_for_heads_that_are_known() -> None:
    wire = Wire()
    request = get(b"Content-Length: 3", method=b"POST") + b"abc"
    wire.sends(request, request)
    wire.server.configure(DownstreamLimits(), access(["10.0.0.0/8"], []))
    wire.sends(request)
    assert [status for status, _ in wire.answers] == [200, 200, 403]
