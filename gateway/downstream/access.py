"""Who may connect, and from which address a request really comes: `ip_allowlist` and `trusted_proxies`.

Addresses in, an address or a refusal out. What a proxy says of its client is believed only where the operator trusts
the proxy, and only as far back as the chain of trusted ones reaches: whatever a client wrote into `x-forwarded-for`
itself stands before that and is never read. It knows no socket and no request.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Final

from gateway.errors import AddressNotAllowed

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_MAX_HOPS: Final = 32
"""Addresses of one `x-forwarded-for` that are looked at, from its end."""


class Access:
    """The rules of one configuration. Empty `allowed`: every address may connect."""

    __slots__ = ("_allowed", "_proxies")

    def __init__(self, allowed: Iterable[str], proxies: Iterable[str]) -> None:
        self._allowed = [ipaddress.ip_network(network) for network in allowed]
        self._proxies = [ipaddress.ip_network(network) for network in proxies]

    def client(self, peer: str, forwarded: bytes | None) -> str:
        """The address that a request comes from. `peer` is the other end of the connection, `forwarded` the value of
        `x-forwarded-for`."""
        address = _parse(peer)
        if address is None:
            return peer  # no address of a network
        if forwarded and _within(address, self._proxies):
            address = self._behind(address, forwarded)
        return str(address)

    def check(self, client: str) -> None:
        """Raises AddressNotAllowed where this address may not connect."""
        address = _parse(client) if self._allowed else None
        if address is not None and not _within(address, self._allowed):
            raise AddressNotAllowed(f"The address {address} may not use this gateway (gateway.ip_allowlist).")

    def _behind(self, proxy: Address, forwarded: bytes) -> Address:
        """The last address that no trusted proxy has, or the first of all where every one is such.

        Each proxy appends the address it was called from, so what is right of an address was written by the ones that
        passed the request on, and what is left of it by itself. What is no address ends the chain.
        """
        found = proxy
        for text in reversed(forwarded.rsplit(b",", _MAX_HOPS)[-_MAX_HOPS:]):
            address = _parse(_without_port(text.strip(b" \t").decode("latin-1")))
            if address is None:
                return found
            found = address
            if not _within(address, self._proxies):
                return found
        return found


def access(allowed: Iterable[str], proxies: Iterable[str]) -> Access | None:
    """The rules, or None where there are none."""
    allowed, proxies = tuple(allowed), tuple(proxies)
    return Access(allowed, proxies) if allowed or proxies else None


def _parse(text: str) -> Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    # A socket for both families shows IPv4 clients so (RFC 4291, section 2.5.5.2).
    return getattr(address, "ipv4_mapped", None) or address


def _without_port(text: str) -> str:
    """Some proxies write `192.0.2.1:4711` and `[2001:db8::1]:4711`."""
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0] if text.count(":") == 1 else text


def _within(address: Address, networks: Iterable[Network]) -> bool:
    return any(address in network for network in networks)
