"""What an ID token says, once it has proved good: OpenID Connect Core 1.0, section 3.1.3.7.

Imported when the first one comes: its library takes a quarter of a second on a busy machine, which no start should wait
for. It knows no network: keys are handed in.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

LEEWAY_SECONDS: Final = 60
"""By how much clocks may differ."""

ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Signatures by the provider's private key only: with a shared secret a client could sign for itself."""

_KINDS: Final = ("RSA", "EC", "OKP")


class TokenRefused(Exception):
    """The token does not hold; the message says which claim or what else, for the log."""


class SignatureRefused(TokenRefused):
    """The signature is by none of these keys: the provider may have newer ones."""


def keys_of(told: Mapping[str, Any]) -> KeySet:
    """The signing keys of a JWK set. Raises TokenRefused where it cannot be read."""
    listed = told.get("keys")
    if not isinstance(listed, list):
        raise TokenRefused("no keys")
    usable = [key for key in listed if isinstance(key, dict) and key.get("use", "sig") == "sig"]
    try:
        return KeySet.import_key_set({"keys": [key for key in usable if key.get("kty") in _KINDS]})
    except (JoseError, ValueError) as error:
        raise TokenRefused(type(error).__name__) from None


def claims_of(token: str, keys: KeySet, *, issuer: str, client_id: str, nonce: str, now: float) -> dict[str, Any]:
    """The claims of a token. `now` is in Unix seconds. Raises SignatureRefused or TokenRefused."""
    try:
        decoded = jwt.decode(token, keys, algorithms=list(ALGORITHMS))
    except (JoseError, ValueError) as error:
        raise SignatureRefused(type(error).__name__) from None
    rules = jwt.JWTClaimsRegistry(
        now=int(now),
        leeway=LEEWAY_SECONDS,
        iss={"essential": True, "value": issuer},
        aud={"essential": True, "value": client_id},
        sub={"essential": True},
        exp={"essential": True},
        iat={"essential": True},
        nonce={"essential": True, "value": nonce},
    )
    try:
        rules.validate(decoded.claims)
    except (JoseError, ValueError) as error:
        raise TokenRefused(f"{type(error).__name__}: {error}"[:200]) from None
    audience = decoded.claims["aud"]
    several = isinstance(audience, list) and len(audience) > 1
    if decoded.claims.get("azp", None if several else client_id) != client_id:
        raise TokenRefused("azp")
    return dict(decoded.claims)
