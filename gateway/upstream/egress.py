"""The way out: which provider is reached through a forward proxy, and how a proxy is spoken to.

The rules are those of `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`, read once into an `Egress` value. For
an https provider the proxy makes a tunnel (CONNECT, RFC 9110, section 9.3.6), inside which TLS is end to end; for an
http one the request goes to the proxy in absolute form (RFC 9112, section 3.2.2). No I/O, no environment.
"""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote, urlsplit

import msgspec

from gateway.types import Origin

_DEFAULT_PORTS: Final = {True: 443, False: 80}


class Proxy(msgspec.Struct, frozen=True):
    """One forward proxy. `authorization` is the value of Proxy-Authorization, or None; never printed."""

    host: str
    port: int
    authorization: bytes | None = None

    def __repr__(self) -> str:
        secret = " with credentials" if self.authorization is not None else ""
        return f"<Proxy {self.host}:{self.port}{secret}>"

    __str__ = __repr__

    def _credentials(self) -> bytes:
        return b"" if self.authorization is None else b"proxy-authorization: %b\r\n" % self.authorization

    def connect_request(self, origin: Origin) -> bytes:
        """The request for a tunnel to the origin."""
        authority = _authority(origin, port_always=True)
        return b"CONNECT %b HTTP/1.1\r\nhost: %b\r\n%b\r\n" % (authority, authority, self._credentials())

    def forwarding(self, origin: Origin) -> Forwarding:
        """How requests to an http origin are rewritten for this proxy."""
        return Forwarding(b"http://" + _authority(origin, port_always=False), self._credentials())


class Forwarding(msgspec.Struct, frozen=True):
    """Turns a request head into absolute form and adds the proxy's credentials."""

    base: bytes
    credentials: bytes

    def __repr__(self) -> str:
        return f"<Forwarding {self.base.decode()}>"

    __str__ = __repr__

    def rewrite(self, head: bytes) -> bytes:
        """The head as the proxy wants it."""
        method, _, rest = head.partition(b" ")
        line, separator, fields = rest.partition(b"\r\n")
        return b"".join((method, b" ", self.base, line, separator, self.credentials, fields))


class _Exemption(msgspec.Struct, frozen=True):
    """One entry of NO_PROXY: a network, or a domain with all below it; for any port or for one."""

    domain: str = ""
    network: ipaddress.IPv4Network | ipaddress.IPv6Network | None = None
    port: int | None = None

    def covers(self, host: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address | None, port: int) -> bool:
        if self.port is not None and self.port != port:
            return False
        if self.network is not None:
            return address is not None and address.version == self.network.version and address in self.network
        return self.domain == "*" or host == self.domain or host.endswith("." + self.domain)


class Egress(msgspec.Struct, frozen=True):
    """Which proxy leads to which origin. Without proxies every origin is reached directly."""

    https: Proxy | None = None
    http: Proxy | None = None
    exemptions: tuple[_Exemption, ...] = ()

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Egress:
        """Read the proxy variables; the lower-case spelling wins, as in curl. Raises ValueError."""
        everything = _proxy(environment, "ALL_PROXY")
        no_proxy = _variable(environment, "NO_PROXY")
        return cls(
            https=_proxy(environment, "HTTPS_PROXY") or everything,
            http=_proxy(environment, "HTTP_PROXY") or everything,
            exemptions=tuple(_exemption(entry) for entry in no_proxy.replace(",", " ").split()),
        )

    def proxy_for(self, origin: Origin) -> Proxy | None:
        """The proxy that leads to the origin; None: go there directly.

        Loopback is never reached through a proxy, nor is a link-local address: that is where clouds tell a machine its
        own credentials, and a proxy would ask for those of its own machine.
        """
        proxy = self.https if origin.tls else self.http
        if proxy is None or origin.unix_path is not None:
            return None
        host = origin.host.lower().rstrip(".")
        address = _address(host)
        if host == "localhost" or (address is not None and (address.is_loopback or address.is_link_local)):
            return None
        if any(exemption.covers(host, address, origin.port) for exemption in self.exemptions):
            return None
        return proxy


DIRECT: Final = Egress()


def _variable(environment: Mapping[str, str], name: str) -> str:
    return (environment.get(name.lower()) or environment.get(name) or "").strip()


def _proxy(environment: Mapping[str, str], name: str) -> Proxy | None:
    text = _variable(environment, name)
    if not text:
        return None
    # The value itself may hold a password, so it does not go into the message.
    try:
        url = urlsplit(text if "://" in text else f"http://{text}")
        host, port = url.hostname, url.port
    except ValueError:
        raise ValueError(f"{name} is not a URL; write it as http://host:port.") from None
    if url.scheme != "http" or not host:
        raise ValueError(f"{name} must be an http:// proxy, as http://host:port (https and SOCKS are not spoken).")
    authorization = None
    if url.username is not None:
        credentials = f"{unquote(url.username)}:{unquote(url.password or '')}"
        authorization = b"Basic " + base64.b64encode(credentials.encode())
    return Proxy(host, port or 80, authorization)


def _exemption(entry: str) -> _Exemption:
    try:
        return _Exemption(network=ipaddress.ip_network(entry.strip("[]"), strict=False))
    except ValueError:
        pass
    host, colon, port = entry.rpartition(":")
    if not (colon and port.isdecimal()):
        host, port = entry, ""
    host = host.strip("[]").lower().removeprefix("*.").strip(".") if host != "*" else host
    address = _address(host)
    return _Exemption(
        domain="" if address else host,
        network=ipaddress.ip_network(address) if address else None,
        port=int(port) if port else None,
    )


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _authority(origin: Origin, *, port_always: bool) -> bytes:
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    if port_always or origin.port != _DEFAULT_PORTS[origin.tls]:
        host = f"{host}:{origin.port}"
    return host.encode("ascii")
