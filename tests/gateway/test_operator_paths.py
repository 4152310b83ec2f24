"""Who is this machine's own user, and which request ids are echoed."""

from __future__ import annotations

import pytest

from gateway.authenticate import is_local
from gateway.downstream.head import HeadLimits, RequestHead, parse_head


def head(*lines: str, host: str = "localhost:41002") -> RequestHead:
    text = "\r\n".join(["GET /api/v1/status HTTP/1.1", f"Host: {host}", *lines, "", ""])
    return parse_head(text.encode("latin-1"), HeadLimits())


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.8.8.8", "::1"])
def test_this_machines_own_user_is_known(peer: str) -> None:
    assert is_local(head(), peer)
    assert is_local(head("Origin: http://127.0.0.1:41002"), peer)


@pytest.mark.parametrize("peer", ["10.0.0.1", "192.168.1.2", "2001:db8::1", ""])
def test_others_are_not(peer: str) -> None:
    assert not is_local(head(), peer)


def test_neither_a_web_page_nor_a_proxy_makes_somebody_local() -> None:
    assert not is_local(head(host="rebound.example"), "127.0.0.1")
    assert not is_local(head("Origin: https://page.example"), "127.0.0.1")
    assert not is_local(head("Origin: null"), "127.0.0.1")
    assert not is_local(head("X-Forwarded-For: 10.0.0.1"), "127.0.0.1")
    assert not is_local(head("Forwarded: for=10.0.0.1"), "127.0.0.1")


@pytest.mark.parametrize("given", ["a-b_c.1", "x" * 128])
def test_a_request_id_of_the_client_is_kept(given: str) -> None:
    assert head(f"X-Request-Id: {given}").own[b"x-request-id"] == given.encode()


@pytest.mark.parametrize("given", ["with space", "x" * 129, "", "umlaut-\xe4"])
def test_a_request_id_that_cannot_be_echoed_is_not_taken(given: str) -> None:
    assert b"x-request-id" not in head(f"X-Request-Id: {given}").own
