"""The proxy variables, as a table."""

from __future__ import annotations

import pytest

from gateway.types import Origin
from gateway.upstream.egress import DIRECT, Egress

OPENAI = Origin("api.openai.com", 443)


def through(environment: dict[str, str], origin: Origin = OPENAI) -> str | None:
    proxy = Egress.from_environment(environment).proxy_for(origin)
    return None if proxy is None else f"{proxy.host}:{proxy.port}"


@pytest.mark.parametrize(
    ("environment", "origin", "proxy"),
    [
        ({}, OPENAI, None),
        ({"HTTPS_PROXY": "http://proxy:3128"}, OPENAI, "proxy:3128"),
        ({"https_proxy": "http://lower:1", "HTTPS_PROXY": "http://upper:2"}, OPENAI, "lower:1"),
        ({"https_proxy": "", "HTTPS_PROXY": "http://upper:2"}, OPENAI, "upper:2"),
        ({"HTTPS_PROXY": "proxy:3128"}, OPENAI, "proxy:3128"),
        ({"HTTPS_PROXY": "http://proxy"}, OPENAI, "proxy:80"),
        ({"HTTPS_PROXY": "http://[2001:db8::1]:3128/"}, OPENAI, "2001:db8::1:3128"),
        ({"HTTP_PROXY": "http://proxy:3128"}, OPENAI, None),
        ({"HTTP_PROXY": "http://proxy:3128"}, Origin("vllm.internal", 8000, tls=False), "proxy:3128"),
        ({"HTTPS_PROXY": "http://proxy:3128"}, Origin("vllm.internal", 8000, tls=False), None),
        ({"ALL_PROXY": "http://all:1"}, OPENAI, "all:1"),
        ({"ALL_PROXY": "http://all:1", "HTTPS_PROXY": "http://own:2"}, OPENAI, "own:2"),
        ({"ALL_PROXY": "http://all:1"}, Origin("localhost", 11434, tls=False), None),
        ({"ALL_PROXY": "http://all:1"}, Origin("127.0.0.2", 80, tls=False), None),
        ({"ALL_PROXY": "http://all:1"}, Origin("::1", 80, tls=False), None),
        ({"ALL_PROXY": "http://all:1"}, Origin("169.254.169.254", 80, tls=False), None),
        ({"ALL_PROXY": "http://all:1"}, Origin("fe80::1", 80, tls=False), None),
        ({"ALL_PROXY": "http://all:1"}, Origin("control", 0, tls=False, unix_path="c.sock"), None),
    ],
)
def test_which_proxy(environment: dict[str, str], origin: Origin, proxy: str | None) -> None:
    assert through(environment, origin) == proxy


@pytest.mark.parametrize(
    ("no_proxy", "host", "port", "exempt"),
    [
        ("*", "api.openai.com", 443, True),
        ("openai.com", "api.openai.com", 443, True),
        ("openai.com", "openai.com", 443, True),
        (".openai.com", "api.openai.com", 443, True),
        ("*.openai.com", "api.openai.com", 443, True),
        ("OpenAI.com", "API.openai.com.", 443, True),
        ("openai.com", "notopenai.com", 443, False),
        ("api.openai.com", "openai.com", 443, False),
        ("a.test, openai.com", "api.openai.com", 443, True),
        ("a.test openai.com", "api.openai.com", 443, True),
        ("openai.com:8443", "api.openai.com", 443, False),
        ("openai.com:443", "api.openai.com", 443, True),
        ("10.0.0.0/8", "10.1.2.3", 443, True),
        ("10.0.0.0/8", "11.1.2.3", 443, False),
        ("10.0.0.0/8", "ten.test", 443, False),
        ("10.1.2.3", "10.1.2.3", 443, True),
        ("10.1.2.3:8000", "10.1.2.3", 8000, True),
        ("10.1.2.3:8000", "10.1.2.3", 443, False),
        ("2001:db8::/32", "2001:db8::7", 443, True),
        ("2001:db8::7", "2001:db8::7", 443, True),
        ("[2001:db8::7]:443", "2001:db8::7", 443, True),
        ("[2001:db8::7]:444", "2001:db8::7", 443, False),
        ("10.0.0.0/8", "2001:db8::7", 443, False),
        ("", "api.openai.com", 443, False),
    ],
)
def test_which_hosts_are_exempt(no_proxy: str, host: str, port: int, exempt: bool) -> None:
    environment = {"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": no_proxy}
    assert (through(environment, Origin(host, port)) is None) is exempt


@pytest.mark.parametrize(
    "value", ["socks5://secret@proxy:1080", "https://secret@proxy:443", "http://", "http://secret@proxy:x"]
)
def test_a_proxy_that_cannot_be_used_names_its_variable_and_not_its_password(value: str) -> None:
    with pytest.raises(ValueError, match="HTTPS_PROXY") as caught:
        Egress.from_environment({"HTTPS_PROXY": value})
    assert "secret" not in str(caught.value)


def test_credentials_are_sent_and_never_printed() -> None:
    egress = Egress.from_environment({"HTTPS_PROXY": "http://us%65r:p%40ss@proxy:3128"})
    proxy = egress.proxy_for(OPENAI)
    assert proxy is not None
    assert "p@ss" not in repr(egress)
    assert repr(proxy) == "<Proxy proxy:3128 with credentials>"
    assert proxy.connect_request(OPENAI) == (
        b"CONNECT api.openai.com:443 HTTP/1.1\r\nhost: api.openai.com:443\r\n"
        b"proxy-authorization: Basic dXNlcjpwQHNz\r\n\r\n"
    )


def test_an_http_request_is_rewritten_into_absolute_form() -> None:
    proxy = Egress.from_environment({"HTTP_PROXY": "http://u:p@proxy:3128"}).http
    assert proxy is not None
    forwarding = proxy.forwarding(Origin("2001:db8::1", 8000, tls=False))
    assert repr(forwarding) == "<Forwarding http://[2001:db8::1]:8000>"
    assert forwarding.rewrite(b"POST /v1/x?y HTTP/1.1\r\nhost: a\r\n\r\n") == (
        b"POST http://[2001:db8::1]:8000/v1/x?y HTTP/1.1\r\nproxy-authorization: Basic dTpw\r\nhost: a\r\n\r\n"
    )
    assert proxy.forwarding(Origin("a.test", 80, tls=False)).base == b"http://a.test"


def test_nothing_set_means_direct() -> None:
    assert Egress.from_environment({"PATH": "x"}) == DIRECT
