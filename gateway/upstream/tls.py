"""TLS to providers: whom to trust, and what a failed handshake means.

A context is made once for each certificate file, since reading the roots takes about 20 ms. Host names are always
checked; there is no switch to turn that off.
"""

from __future__ import annotations

import ssl
from typing import Final

import certifi

from gateway.errors import UpstreamUnreachable
from gateway.types import Origin

HANDSHAKE_SECONDS: Final = 30.0
"""A last bound; the connect deadline of the target ends a handshake sooner."""
SHUTDOWN_SECONDS: Final = 1.0
"""How long a provider may take to answer a closing alert before the socket is closed anyway."""

# X509_V_ERR_* of OpenSSL, x509_vfy.h
_NOT_YET_VALID: Final = 9
_EXPIRED: Final = 10
_SELF_SIGNED: Final = (18, 19)
_UNKNOWN_ISSUER: Final = (2, 20, 21)
_WRONG_NAME: Final = (62, 64)


class Contexts:
    """One context for each `ca_file`; None: the system's roots and those of certifi."""

    def __init__(self) -> None:
        self._contexts: dict[str | None, ssl.SSLContext] = {}

    def get(self, ca_file: str | None) -> ssl.SSLContext:
        """The context that trusts exactly the certificates of this file. Raises UpstreamUnreachable."""
        context = self._contexts.get(ca_file)
        if context is None:
            context = self._contexts[ca_file] = _make(ca_file)
        return context


def _make(ca_file: str | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise UpstreamUnreachable(f"The target's ca_file cannot be read: {error}.") from None
    if ca_file is None:
        context.load_verify_locations(certifi.where())
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


def explain(error: Exception, origin: Origin) -> UpstreamUnreachable:
    """A failed handshake as the gateway's error, with the next step for whoever runs the gateway."""
    return UpstreamUnreachable(f"TLS to {origin} failed: {_reason(error, origin)}")


def _reason(error: Exception, origin: Origin) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return _certificate_reason(error, origin)
    if isinstance(error, ssl.SSLError):
        if error.reason == "WRONG_VERSION_NUMBER":
            return "the provider does not speak TLS on this port. Use http:// in base_url, or another port."
        if error.reason is not None and "VERSION" in error.reason:
            return "the provider does not offer TLS 1.2 or newer."
        return f"{(error.reason or str(error)).lower().replace('_', ' ')}."
    if isinstance(error, TimeoutError):
        return "the handshake took too long."
    return "the provider closed the connection during the handshake."


def _certificate_reason(error: ssl.SSLCertVerificationError, origin: Origin) -> str:
    code = error.verify_code
    if code in _WRONG_NAME:
        return f"the certificate is not for {origin.host}. Check the host in the target's base_url."
    if code == _EXPIRED:
        return "the provider's certificate has expired. Check this machine's clock, or tell the provider."
    if code == _NOT_YET_VALID:
        return "the provider's certificate is not valid yet. Check this machine's clock."
    if code in _SELF_SIGNED:
        return "the certificate is self-signed. If that is intended, name its authority in the target's ca_file."
    if code in _UNKNOWN_ISSUER:
        return "the certificate's issuer is unknown. Name the authority's certificate in the target's ca_file."
    return f"{error.verify_message}."
