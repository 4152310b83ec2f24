"""The secrets of the control plane: access keys, session cookies, one-time links. How they are made and told apart.

All are chance of 190 bits or more, so a plain SHA-256 is what is kept of them (the reasons are in `control.keys`). An
access key has the form of a gateway key, with a prefix of its own, so that one scanner finds both.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import Final

from gateway.control.keys import ALPHABET, CHECKSUM_LENGTH, RANDOM_LENGTH, checksum
from gateway.secrets import Secret

ACCESS_KEY_PREFIX: Final = "kt_ak_"
SHOWN_LENGTH: Final = len(ACCESS_KEY_PREFIX) + 6
_LENGTH: Final = len(ACCESS_KEY_PREFIX) + RANDOM_LENGTH + CHECKSUM_LENGTH


def new_access_key() -> Secret:
    """A new access key; to be shown once."""
    body = ACCESS_KEY_PREFIX + "".join(secrets.choice(ALPHABET) for _ in range(RANDOM_LENGTH))
    return Secret(body + checksum(body.encode()).decode())


def is_access_key(text: str) -> bool:
    """Whether this is an access key that was copied whole. Says nothing of its worth."""
    if not (text.isascii() and len(text) == _LENGTH and text.startswith(ACCESS_KEY_PREFIX)):
        return False
    return text[-CHECKSUM_LENGTH:].encode() == checksum(text[:-CHECKSUM_LENGTH].encode())


def new_token() -> Secret:
    """A new secret of a session or of a one-time link: 256 bits in base64url."""
    return Secret(secrets.token_urlsafe(32))


def hashed(secret: str) -> bytes:
    """What is kept and looked up in place of a secret: 32 bytes."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()


def csrf_token(session_secret: str) -> str:
    """The CSRF token of a session: told to the page, and of no use without the cookie that it is made from."""
    return hmac.new(session_secret.encode(), b"keeptrusts csrf 1", hashlib.sha256).hexdigest()


def csrf_ok(session_secret: str, given: str) -> bool:
    """Whether a page has shown the CSRF token of this session."""
    return hmac.compare_digest(csrf_token(session_secret).encode(), given.encode("utf-8", "surrogateescape"))
