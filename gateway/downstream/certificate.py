"""TLS towards clients: a server context from two files, and how it follows them when they are renewed.

A context that serves is only ever given a pair of files that another one has taken before, so that a renewal which is
half done, or wrong, changes nothing. TLS 1.2 or newer, `http/1.1` by ALPN, no renegotiation, and the ciphers of Python
(those with forward secrecy). It knows no socket.
"""

from __future__ import annotations

import os
import ssl
from typing import Final, NoReturn

from gateway.config.schema import TLS, TLSVersion

_VERSIONS: Final = {TLSVersion.V1_2: ssl.TLSVersion.TLSv1_2, TLSVersion.V1_3: ssl.TLSVersion.TLSv1_3}
HANDSHAKE_SECONDS: Final = 10.0
SHUTDOWN_SECONDS: Final = 2.0

Stamp = tuple[tuple[int, int, int], ...]


class CertificateInvalid(Exception):
    """The files cannot be used; the message says why."""


class Certificate:
    """The certificate of one listener. `context` is the same object all its life."""

    def __init__(self, settings: TLS) -> None:
        """Raises CertificateInvalid."""
        self._settings = settings
        self._stamp = self._look()
        self.context = _context(settings)

    def __repr__(self) -> str:
        return f"<Certificate {self._settings.cert_file}>"

    def renewed(self) -> bool:
        """Whether the files have changed since they were tried last, and can be used; for a thread. Raises
        CertificateInvalid where they cannot, once for each change."""
        stamp = self._look()
        if stamp == self._stamp:
            return False
        self._stamp = stamp
        _context(self._settings)
        return True

    def adopt(self) -> None:
        """Use what `renewed` has found good, from the next handshake on. On the event loop: 0.3 ms. Raises
        CertificateInvalid."""
        _load(self.context, self._settings)

    def _look(self) -> Stamp:
        stamps = []
        for path in (self._settings.cert_file, self._settings.key_file):
            try:
                status = os.stat(path)
            except OSError:
                stamps.append((0, 0, 0))
            else:
                stamps.append((status.st_ino, status.st_size, status.st_mtime_ns))
        return tuple(stamps)


def check(settings: TLS | None) -> None:
    """Raises CertificateInvalid where there is to be TLS and its files cannot be used."""
    if settings is not None:
        _context(settings)


def _context(settings: TLS) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[settings.min_version]
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.set_alpn_protocols(["http/1.1"])
    _load(context, settings)
    return context


def _load(context: ssl.SSLContext, settings: TLS) -> None:
    try:
        context.load_cert_chain(settings.cert_file, settings.key_file, password=_no_password)
    except ssl.SSLError as error:
        reason = "the key does not belong to the certificate" if "MISMATCH" in str(error) else str(error)
        raise CertificateInvalid(
            f"gateway.tls: {settings.cert_file} and {settings.key_file} cannot be used: {reason}"
        ) from None
    except OSError as error:
        # The error does not say which of the two files it is.
        raise CertificateInvalid(
            f"gateway.tls: {settings.cert_file} or {settings.key_file} cannot be read: {error.strerror}"
        ) from None
    except ValueError as error:
        raise CertificateInvalid(f"gateway.tls: {settings.key_file} cannot be used: {error}") from None


def _no_password() -> NoReturn:
    """OpenSSL would ask on the terminal otherwise."""
    raise ValueError("it is encrypted; give one without a passphrase, readable for the gateway's user only")
