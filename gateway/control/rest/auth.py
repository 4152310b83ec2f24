"""Signing in and out: set-up link, password, invitation link, OIDC.

Whatever the way, it ends in a new session: its secret is made here and now, never taken from the request, and the
session that the browser may have had before ends.
"""

from __future__ import annotations

import contextlib
from typing import Final

import msgspec
from aiohttp import web

from gateway.control.identity.credentials import csrf_token
from gateway.control.identity.oidc import STATE_SECONDS, Refusal
from gateway.control.identity.principal import Principal, Via
from gateway.control.identity.roles import Role
from gateway.control.rest import shapes
from gateway.control.rest.call import Call
from gateway.control.rest.people import me_out
from gateway.control.store.access import INVITATION, SETUP
from gateway.control.store.errors import SessionNotFound
from gateway.control.store.users import User, normalised
from gateway.errors import NotFound, SignInFailed

CONSOLE: Final = "/console/"
OIDC_PATH: Final = "/api/v1/auth/oidc"
_WRONG: Final = "The e-mail address or the password is not right."
_USED: Final = "This link is not good: it was used already, is too old, or was not copied whole."


async def methods(call: Call) -> shapes.SignInMethods:
    """By which ways one can sign in."""
    oidc = call.plane.settings.identity.oidc
    return shapes.SignInMethods(
        setup_needed=await call.store.users.count() == 0,
        password=oidc is None or oidc.password_too,
        oidc=None if oidc is None else shapes.Provider(name=oidc.name, start=f"{OIDC_PATH}/start"),
    )


async def sign_in(call: Call) -> web.Response:
    """Sign in by password."""
    plane, email, address = call.plane, normalised(call.body.email), call.client
    _require_passwords(call)
    plane.throttle.admit(email, address)
    # The same steps whether there is such a user or not, until a password has proved right.
    id, hash = await call.store.users.password_hash(email)
    right = await plane.passwords.verify(call.body.password, hash)
    user = await call.store.users.get(id) if right and id is not None else None
    if user is None or hash is None or not user.active:
        plane.throttle.failed(email, address)
        raise SignInFailed(_WRONG)
    plane.throttle.succeeded(email, address)
    if plane.passwords.is_outdated(hash):
        await call.store.users.rehash(user.id, await plane.passwords.hash(call.body.password))
    return await _begin(call, user, "password")


async def setup(call: Call) -> web.Response:
    """Make the first user, an owner, by the set-up link."""
    plane = call.plane
    plane.throttle.admit(None, call.client)
    if not await call.store.access.is_good(SETUP, call.body.token):
        plane.throttle.failed(None, call.client)
        raise SignInFailed(_USED)
    hash = await plane.passwords.hash(call.body.password)
    actor = call.acting(call.body.email, "sign_in")
    user = await call.store.users.create(
        call.body.email, call.body.name, Role.OWNER, actor, password_hash=hash, first=True
    )
    await call.store.access.redeem(SETUP, call.body.token)
    return await _begin(call, user, "setup")


async def accept(call: Call) -> web.Response:
    """Choose a password by an invitation link, and sign in."""
    plane = call.plane
    plane.throttle.admit(None, call.client)
    _require_passwords(call)
    hash = await plane.passwords.hash(call.body.password)
    good, user_id = await call.store.access.redeem(INVITATION, call.body.token)
    if not good or user_id is None:
        plane.throttle.failed(None, call.client)
        raise SignInFailed(_USED)
    user = await call.store.users.get(user_id)
    user = await call.store.users.set_password(user.id, hash, call.acting(user.email, "sign_in", user.id))
    if not user.active:
        raise SignInFailed("This user is not active.")
    return await _begin(call, user, "invitation")


async def sign_out(call: Call) -> web.Response:
    """End this session."""
    me = call.me
    if me.via is Via.SESSION and me.id is not None and me.credential_id is not None:
        await call.store.access.end_session(me.id, me.credential_id, call.actor)
    response = web.Response(status=204)
    _set_cookie(call, response, "", 0)
    return response


async def oidc_start(call: Call) -> web.Response:
    """Go to the provider."""
    oidc, client = call.plane.settings.identity.oidc, call.plane.oidc
    if oidc is None:
        raise NotFound("There is no OpenID provider to sign in through.")
    attempt = await client.begin(oidc, _callback(call), _own_path(call.query.next))
    response = web.Response(status=302, headers={"Location": attempt.url, "Cache-Control": "no-store"})
    response.set_cookie(
        _state_cookie(call),
        attempt.cookie,
        max_age=int(STATE_SECONDS),
        path="/",
        httponly=True,
        secure=_secure(call),
        samesite="Lax",
    )
    return response


async def oidc_callback(call: Call) -> web.Response:
    """Come back from the provider, and go on to the console."""
    plane = call.plane
    oidc = plane.settings.identity.oidc
    if oidc is None:
        raise NotFound("There is no OpenID provider to sign in through.")
    plane.throttle.admit(None, call.client)
    cookie = call.request.cookies.get(_state_cookie(call), "")
    try:
        found = await plane.oidc.finish(oidc, _callback(call), cookie, msgspec.structs.asdict(call.query))
        user = await plane.oidc.admit(oidc, found, call.store, lambda name, id: call.acting(name, "sign_in", id))
    except Refusal as error:
        plane.throttle.failed(None, call.client)
        raise SignInFailed(str(error)) from None
    response = await _begin(call, user, "oidc", to=found.next)
    response.del_cookie(_state_cookie(call), path="/", secure=_secure(call), httponly=True, samesite="Lax")
    return response


async def _begin(call: Call, user: User, method: str, *, to: str | None = None) -> web.Response:
    """A new session, and its cookie; the answer says who that is, or leads to `to`."""
    old = call.principal
    actor = call.acting(user.email, "sign_in", user.id)
    if old is not None and old.via is Via.SESSION and old.id is not None and old.credential_id is not None:
        with contextlib.suppress(SessionNotFound):  # it has ended by itself
            await call.store.access.end_session(old.id, old.credential_id, actor)
    seconds = call.plane.settings.identity.session_hours * 3600
    agent = call.request.headers.get("User-Agent", "")
    new = await call.store.access.begin_session(
        user.id, method=method, client=call.client, agent=agent, seconds=seconds, actor=actor
    )
    secret = new.secret.reveal()
    call.principal = Principal(
        via=Via.SESSION, role=user.role, user=user, credential_id=new.record.id, csrf=csrf_token(secret)
    )
    if to is None:
        body = msgspec.json.encode(me_out(call))
        response = web.Response(body=body, content_type="application/json")
    else:
        response = web.Response(status=302, headers={"Location": to})
    response.headers["Cache-Control"] = "no-store"
    _set_cookie(call, response, secret, int(seconds))
    return response


def _set_cookie(call: Call, response: web.Response, value: str, seconds: int) -> None:
    # Lax, not Strict: a link from elsewhere into the console finds one signed in, and OIDC comes back that way.
    response.set_cookie(
        call.plane.gatekeeper.cookie_name(call.request),
        value,
        max_age=seconds,
        path="/",
        httponly=True,
        secure=_secure(call),
        samesite="Lax",
    )


def _secure(call: Call) -> bool:
    return call.plane.gatekeeper.cookie_name(call.request).startswith("__Host-")


def _state_cookie(call: Call) -> str:
    return "__Host-kt_oidc" if _secure(call) else "kt_oidc"


def _callback(call: Call) -> str:
    return f"{call.plane.settings.base_url}{OIDC_PATH}/callback"


def _own_path(path: str) -> str:
    """A path of ours, or the console: `//elsewhere` and `/\\elsewhere` are other hosts to a browser."""
    own = path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable() and "\\" not in path
    return path if own and path.isascii() else CONSOLE


def _require_passwords(call: Call) -> None:
    oidc = call.plane.settings.identity.oidc
    if oidc is not None and not oidc.password_too:
        raise SignInFailed("Nobody signs in by password here; use single sign-on.")
