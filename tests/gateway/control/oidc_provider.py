"""A scripted OpenID provider: real HTTP, real keys, and a knob for each thing that can be wrong with an answer."""

from __future__ import annotations

import base64
import hashlib
import secrets
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from aiohttp import web
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, OctKey, RSAKey


class Provider:
    """One provider. `person` is who signs in; `claims` changes an ID token before it is signed."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.key: Any = ECKey.generate_key("P-256", {"kid": "first", "alg": "ES256"}, private=True)
        self.published = self.key
        self.clock = clock
        self.alg = "ES256"
        self.person: dict[str, Any] = {"sub": "s-1", "email": "ada@example.com", "email_verified": True, "name": "Ada"}
        self.claims: Callable[[dict[str, Any]], dict[str, Any]] = lambda claims: claims
        self.named = ""
        self.secret: str | None = None
        self.unsigned = False
        self.url = ""
        self.codes: dict[str, dict[str, str]] = {}
        self.asked: list[str] = []
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        app = web.Application()
        app.router.add_get("/.well-known/openid-configuration", self._discovery)
        app.router.add_get("/jwks", self._jwks)
        app.router.add_post("/token", self._token)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = self.named = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    def authorize(self, location: str) -> dict[str, str]:
        """What a browser brings back from the page that it was sent to, once the person has signed in there."""
        asked = dict(parse_qsl(urlsplit(location).query, strict_parsing=True))
        assert asked["response_type"] == "code"
        assert asked["code_challenge_method"] == "S256"
        code = secrets.token_urlsafe(8)
        self.codes[code] = asked
        return {"code": code, "state": asked["state"]}

    def rotate(self, kid: str = "second") -> None:
        """Sign with a new key from now on."""
        self.key = RSAKey.generate_key(2048, {"kid": kid, "alg": "RS256"}, private=True)
        self.published = self.key
        self.alg = "RS256"

    def sign_with_the_client_secret(self, secret: str) -> None:
        """As an attacker would who knows it: HS256, under the name of the key that is published."""
        self.key = OctKey.import_key(secret, {"kid": "first"})
        self.alg = "HS256"

    async def _discovery(self, request: web.Request) -> web.Response:
        self.asked.append("discovery")
        return web.json_response(
            {
                "issuer": self.named,
                "authorization_endpoint": f"{self.url}/authorize",
                "token_endpoint": f"{self.url}/token",
                "jwks_uri": f"{self.url}/jwks",
            }
        )

    async def _jwks(self, request: web.Request) -> web.Response:
        self.asked.append("jwks")
        return web.json_response(KeySet([self.published]).as_dict(private=False))

    async def _token(self, request: web.Request) -> web.Response:
        self.asked.append("token")
        form = await request.post()
        asked = self.codes.pop(str(form.get("code")), None)
        if asked is None or not self._authenticates(request) or form["redirect_uri"] != asked["redirect_uri"]:
            return web.json_response({"error": "invalid_grant"}, status=400)
        digest = hashlib.sha256(str(form["code_verifier"]).encode()).digest()
        if base64.urlsafe_b64encode(digest).decode().rstrip("=") != asked["code_challenge"]:
            return web.json_response({"error": "invalid_grant"}, status=400)
        now = int(self.clock())
        claims = {
            "iss": self.named,
            "aud": asked["client_id"],
            "iat": now,
            "exp": now + 300,
            "nonce": asked["nonce"],
            **self.person,
        }
        header = {"alg": self.alg, "kid": self.key.kid}
        token = jwt.encode(header, self.claims(claims), self.key, algorithms=[self.alg])
        if self.unsigned:
            none = base64.urlsafe_b64encode(b'{"alg":"none"}').decode().rstrip("=")
            token = f"{none}.{token.split('.')[1]}."
        return web.json_response({"access_token": "at", "token_type": "Bearer", "id_token": token})

    def _authenticates(self, request: web.Request) -> bool:
        if self.secret is None:
            return True
        expected = base64.b64encode(f"keeptrusts:{self.secret}".encode()).decode()
        return request.headers.get("Authorization") == f"Basic {expected}"
