"""What only the machine's own users may see, and which request ids are echoed."""

from __future__ import annotations

import pytest

from gateway.authenticate import require_local
from gateway.downstream.head import HeadLimits, RequestHead, parse_head
from gateway.errors import ForbiddenOrigin, NotFound


def head(*lines: str, host: str = "localhost:41002") -> RequestHead:
    text = "\r\n".join(["GET /api/v1/status HTTP/1.1", f"Host: {host}", *lines, "", ""])
    return parse_head(text.encode("latin-1"), HeadLimits())


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.8.8.8", "::1"])
def test_this_machine_may_see_operator_paths(peer: str) -> None:
    require_local(head(), peer)
    require_local(head("Origin: http://127.0.0.1:41002"), peer)


@pytest.mark.parametrize("peer", ["10.0.0.1", "192.168.1.2", "2001:db8::1", ""])
def test_for_others_there_is_nothing_there(peer: str) -> None:
    with pytest.raises(NotFound):
        require_local(head(), peer)


def test_a_web_page_cannot_make_a_browser_ask() -> None:
    with pytest.raises(ForbiddenOrigin):
        require_local(head(host="rebound.example"), "127.0.0.1")
    with pytest.raises(ForbiddenOrigin):
        require_local(head("Origin: https://page.example"), "127.0.0.1")
    with pytest.raises(ForbiddenOrigin):
        require_local(head("Origin: null"), "127.0.0.1")


@pytest.mark.parametrize("given", ["a-b_c.1", "x" * 128])
def test_a_request_id_of_the_client_is_kept(given: str) -> None:
    assert head(f"X-Request-Id: {given}").own[b"x-request-id"] == given.encode()


@pytest.mark.parametrize("given", ["with space", "x" * 129, "", "umlaut-\xe4"])
def test_a_request_id_that_cannot_be_echoed_is_not_taken(given: str) -> None:
    assert b"x-request-id" not in head(f"X-Request-Id: {given}").own
