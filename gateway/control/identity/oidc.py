"""Signing in through an OpenID provider: authorization code with PKCE, state and nonce.

What the browser must bring back (state, nonce, PKCE verifier) is in a cookie of its own, so that nothing is kept here
for people who never come back, and any node can finish what another began. `id_token.py` judges the token. Groups
become a role and teams at every sign-in. https://openid.net/specs/openid-connect-core-1_0.html, RFC 7636, RFC 9207.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
import os
import secrets
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import urlencode, urlsplit

import aiohttp
import orjson

from gateway.config.schema import OIDC
from gateway.control.identity.roles import Role
from gateway.control.store.errors import LastOwner, NameTaken, UserNotFound
from gateway.control.store.records import KeyRules
from gateway.control.store.store import Store
from gateway.control.store.trail import Actor
from gateway.control.store.users import User, UserChange
from gateway.errors import Overloaded
from gateway.secrets import read_secret

if TYPE_CHECKING:
    from joserfc.jwk import KeySet

STATE_SECONDS: Final = 600.0
"""How long one may take at the provider."""

DISCOVERY_SECONDS: Final = 3600.0
AWAY_SECONDS: Final = 2.0
"""How long a provider that could not be asked is not asked again."""

KEYS_PAUSE_SECONDS: Final = 10.0
"""A token signed by an unknown key makes us look for new keys, at most so often."""

ANSWER_SECONDS: Final = 10.0
MAX_ANSWER_BYTES: Final = 1 << 20
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")
_BY_RANK: Final = (Role.OWNER, Role.ADMIN, Role.AUDITOR, Role.DEVELOPER)

log = logging.getLogger("gateway.control.oidc")


class Refusal(Exception):
    """This sign-in leads nowhere; the message says why, for the person."""


class Attempt(NamedTuple):
    """Where to send the browser, and what it must bring back."""

    url: str
    cookie: str


class Found(NamedTuple):
    """What the provider says of somebody. `next` is where they wanted to go."""

    subject: str
    email: str
    verified: bool
    name: str
    groups: frozenset[str]
    next: str


class _Provider(NamedTuple):
    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    until: float


class OIDCClient:
    """The gateway as a client of one provider at a time."""

    def __init__(
        self, clock: Callable[[], float], monotonic: Callable[[], float], environment: Mapping[str, str] = os.environ
    ) -> None:
        self._clock = clock
        self._monotonic = monotonic
        self._environment = environment
        self._session: aiohttp.ClientSession | None = None
        self._provider: _Provider | None = None
        self._away_until = 0.0
        self._keys: tuple[str, KeySet, float] | None = None

    async def close(self) -> None:
        """Close connections; idempotent."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def begin(self, settings: OIDC, callback: str, next: str) -> Attempt:
        """Where to send a browser. Raises Overloaded when the provider cannot be reached."""
        provider = await self._discover(settings)
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")
        query = {
            "response_type": "code",
            "client_id": settings.client_id,
            "redirect_uri": callback,
            "scope": " ".join(settings.scopes),
            "state": state,
            "nonce": nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        mark = "&" if urlsplit(provider.authorization_endpoint).query else "?"
        kept = base64.urlsafe_b64encode(next.encode()).decode().rstrip("=")
        until = int(self._clock() + STATE_SECONDS)
        return Attempt(
            f"{provider.authorization_endpoint}{mark}{urlencode(query)}",
            f"{state}.{nonce}.{verifier}.{until}.{kept}",
        )

    async def finish(self, settings: OIDC, callback: str, cookie: str, answer: Mapping[str, str]) -> Found:
        """What the provider says of whom it has sent back. Raises Refusal, or Overloaded."""
        state, nonce, verifier, next = self._brought_back(cookie)
        if not answer["state"] or not hmac.compare_digest(answer["state"].encode(), state.encode()):
            raise Refusal("This sign-in was not begun in this browser; begin it again.")
        if answer["error"]:
            log.warning("the OpenID provider refused", extra={"error": answer["error"][:100]})
            raise Refusal("The provider has refused the sign-in.")
        provider = await self._discover(settings)
        if answer["iss"] and answer["iss"] != provider.issuer:
            raise Refusal("The answer is another provider's (RFC 9207).")
        token = await self._exchange(settings, provider, callback, answer["code"], verifier)
        claims = await self._verified(settings, provider, token, nonce)
        return _found(settings, provider.issuer, claims, next)

    def _brought_back(self, cookie: str) -> tuple[str, str, str, str]:
        parts = cookie.split(".")
        if len(parts) != 5 or not parts[3].isdecimal() or int(parts[3]) < self._clock():
            raise Refusal("This sign-in took too long, or was not begun in this browser; begin it again.")
        state, nonce, verifier, _, kept = parts
        try:
            next = base64.urlsafe_b64decode(kept + "=" * (-len(kept) % 4)).decode()
        except ValueError:
            next = "/console/"
        return state, nonce, verifier, next

    async def _discover(self, settings: OIDC) -> _Provider:
        known = self._provider
        if known is not None and known.issuer == settings.issuer and known.until > self._monotonic():
            return known
        if self._away_until > self._monotonic():
            raise _away("it could not be used a moment ago")  # anybody may begin, so not each beginning asks again
        try:
            self._provider = await self._fetch(settings.issuer)
        except Overloaded:
            self._away_until = self._monotonic() + AWAY_SECONDS
            raise
        return self._provider

    async def _fetch(self, issuer: str) -> _Provider:
        """https://openid.net/specs/openid-connect-discovery-1_0.html, section 4."""
        told = await self._ask("GET", f"{issuer.rstrip('/')}/.well-known/openid-configuration")
        if told.get("issuer") != issuer:
            raise _away("its discovery document names another issuer")
        authorization, token, keys = (
            str(told.get(name)) for name in ("authorization_endpoint", "token_endpoint", "jwks_uri")
        )
        if not all(map(_is_safe, (authorization, token, keys))):
            raise _away("its discovery document lacks an https endpoint")
        return _Provider(issuer, authorization, token, keys, self._monotonic() + DISCOVERY_SECONDS)

    async def _exchange(self, settings: OIDC, provider: _Provider, callback: str, code: str, verifier: str) -> str:
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": callback,
            "client_id": settings.client_id,
            "code_verifier": verifier,
        }
        headers = {}
        if settings.client_secret_ref is not None:
            secret, missing = read_secret(settings.client_secret_ref, self._environment)
            if missing:
                raise _away(f"its client secret is missing: {missing}")
            pair = f"{_form(settings.client_id)}:{_form(secret.reveal())}"
            headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        told = await self._ask("POST", provider.token_endpoint, data=form, headers=headers)
        token = told.get("id_token")
        if not isinstance(token, str):
            raise Refusal("The provider did not take the code; begin again.")
        return token

    async def _verified(self, settings: OIDC, provider: _Provider, token: str, nonce: str) -> dict[str, Any]:
        from gateway.control.identity.id_token import SignatureRefused, TokenRefused, claims_of

        def read(keys: KeySet) -> dict[str, Any]:
            return claims_of(
                token, keys, issuer=provider.issuer, client_id=settings.client_id, nonce=nonce, now=self._clock()
            )

        try:
            try:
                return read(await self._keys_of(provider, fresh=False))
            except SignatureRefused:
                # The provider may have changed its keys since they were fetched.
                return read(await self._keys_of(provider, fresh=True))
        except TokenRefused as error:
            log.warning("an ID token was refused", extra={"reason": str(error)})
            raise Refusal("The provider's answer does not hold; begin again.") from None

    async def _keys_of(self, provider: _Provider, *, fresh: bool) -> KeySet:
        from gateway.control.identity.id_token import TokenRefused, keys_of

        known = self._keys
        if known is not None and known[0] == provider.jwks_uri:
            age = self._monotonic() - known[2]
            if age < (KEYS_PAUSE_SECONDS if fresh else DISCOVERY_SECONDS):
                return known[1]
        try:
            keys = keys_of(await self._ask("GET", provider.jwks_uri))
        except TokenRefused as error:
            raise _away(f"its keys cannot be read: {error}") from None
        self._keys = provider.jwks_uri, keys, self._monotonic()
        return keys

    async def _ask(self, method: str, url: str, **options: Any) -> dict[str, Any]:
        """The JSON object that the provider answers, whatever the status; one that is none is Overloaded."""
        if not _is_safe(url):
            raise _away("it is not reached by https")
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
            self._session = aiohttp.ClientSession(timeout=timeout, trust_env=True, cookie_jar=aiohttp.DummyCookieJar())
        try:
            async with self._session.request(method, url, allow_redirects=False, **options) as response:
                body = await response.content.read(MAX_ANSWER_BYTES)
                status = response.status
            told = orjson.loads(body)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise _away(type(error).__name__) from None
        if not isinstance(told, dict) or (status >= 400 and status != 400 and status != 401):
            raise _away(f"it answers {status}")
        return told

    async def admit(
        self, settings: OIDC, found: Found, store: Store, actor: Callable[[str, str | None], Actor]
    ) -> User:
        """The user that somebody is here, made or brought up to date. Raises Refusal."""
        _require_domain(settings, found.email)
        user = await store.users.by_subject(found.subject)
        role = _role(settings, found.groups, None if user is None else user.role)
        if user is None:
            user = await _new_user(found, role, store, actor)
        if not user.active:
            raise Refusal("This user is not active.")
        acting = actor(user.email, user.id)
        if settings.roles and user.role is not role:
            try:
                user = await store.users.change(user.id, UserChange(role=role), acting)
            except LastOwner:
                log.warning("the last owner keeps the role", extra={"user": user.id})
        if settings.teams:
            user = await _map_teams(settings, found, user, store, acting)
        return user


async def _new_user(found: Found, role: Role, store: Store, actor: Callable[[str, str | None], Actor]) -> User:
    try:
        known = await store.users.get(found.email)
    except UserNotFound:
        acting = actor(found.email, None)
        return await store.users.create(found.email, found.name, role, acting, subject=found.subject)
    # Who merely claims an address must not get the account that it is the name of.
    if not found.verified or known.has_provider:
        raise Refusal("Another user has this e-mail address already; ask an owner.")
    try:
        return await store.users.link(known.id, found.subject, actor(known.email, known.id))
    except NameTaken as error:
        raise Refusal(str(error)) from None


async def _map_teams(settings: OIDC, found: Found, user: User, store: Store, acting: Actor) -> User:
    wanted = [name for group, name in settings.teams.items() if group in found.groups]
    for name in dict.fromkeys(wanted):
        if name not in [team.name for team in user.teams]:
            try:
                await store.teams.create(name, "", KeyRules(), acting)
            except NameTaken:
                pass  # there is one, as there should be
    return await store.users.map_teams(user.id, wanted, list(settings.teams.values()), acting)


def _found(settings: OIDC, issuer: str, claims: Mapping[str, Any], next: str) -> Found:
    email, groups = claims.get("email"), claims.get(settings.groups_claim, ())
    if not isinstance(email, str) or email.count("@") != 1 or len(email) > 254:
        raise Refusal("The provider does not say your e-mail address; the scope `email` may be missing.")
    if isinstance(groups, str):
        groups = (groups,)
    named = frozenset(str(group) for group in groups) if isinstance(groups, list | tuple) else frozenset()
    name = str(claims.get("name") or email)[:200]
    verified = claims.get("email_verified") is True
    return Found(f"{issuer} {claims['sub']}", email.lower(), verified, name, named, next)


def _role(settings: OIDC, groups: frozenset[str], current: Role | None) -> Role:
    """The highest role that a group leads to, else the default one. Raises Refusal where there is none."""
    mapped = [role for group, role in settings.roles.items() if group in groups]
    if mapped:
        return min(mapped, key=_BY_RANK.index)
    if not settings.roles and current is not None:
        return current
    if settings.default_role is None:
        raise Refusal("No group of yours leads to a role here; ask an owner.")
    return settings.default_role


def _require_domain(settings: OIDC, email: str) -> None:
    domain = email.rpartition("@")[2]
    if settings.allowed_domains and domain not in [one.lower() for one in settings.allowed_domains]:
        raise Refusal(f"Nobody of {domain} may sign in here.")


def _is_safe(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK)


def _form(text: str) -> str:
    """RFC 6749, section 2.3.1: both are form-encoded before they become a user and a password."""
    return urlencode({"": text})[1:]


def _away(reason: str) -> Overloaded:
    log.warning("the OpenID provider cannot be used", extra={"reason": reason})
    return Overloaded(
        "The OpenID provider cannot be used right now; its operator finds the reason in the gateway's log."
    )
