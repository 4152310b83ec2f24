"""One's own account, and the users: `/me` and `/users`."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET

from gateway.control.identity.principal import Via
from gateway.control.identity.roles import GRANTS, Permission, Role
from gateway.control.rest import shapes
from gateway.control.rest.call import Call
from gateway.control.rest.pages import cut, page
from gateway.control.rest.shapes import at
from gateway.control.store.access import INVITATION, AccessKey, Session
from gateway.control.store.store import Store
from gateway.control.store.users import User, UserChange, UserFilter
from gateway.errors import PermissionDenied, SignInFailed

INVITATION_SECONDS = 7 * 86_400.0


def user_out(user: User) -> shapes.UserOut:
    """A user as the API shows them."""
    return shapes.UserOut(
        id=user.id,
        email=user.email,
        name=user.name,
        role=user.role,
        active=user.active,
        has_password=user.has_password,
        has_provider=user.has_provider,
        teams=tuple(shapes.TeamName(id=team.id, name=team.name) for team in user.teams),
        created_at=at(user.created_at),
        last_sign_in_at=at(user.last_sign_in_at),
    )


def me_out(call: Call) -> shapes.Me:
    """Who asks, as the API shows them."""
    me = call.me
    return shapes.Me(
        via=me.via.value,
        role=me.role,
        permissions=tuple(sorted(GRANTS[me.role])),
        user=None if me.user is None else user_out(me.user),
        csrf_token=me.csrf,
    )


# One's own account


async def me(call: Call) -> shapes.Me:
    """Who asks."""
    return me_out(call)


async def rename_me(call: Call) -> shapes.UserOut:
    """Change one's own name."""
    return user_out(await call.store.users.change(call.my_id, UserChange(name=call.body.name), call.actor))


async def change_password(call: Call) -> None:
    """Change one's own password, by the one that one has."""
    user = call.me.user
    if call.me.via is not Via.SESSION or user is None:
        raise PermissionDenied("A password is changed in a session, not with an access key.")
    plane, address = call.plane, call.client
    plane.throttle.admit(user.email, address)
    _, known = await call.store.users.password_hash(user.email)
    if known is not None and not await plane.passwords.verify(call.body.current, known):
        plane.throttle.failed(user.email, address)
        raise SignInFailed("The current password is not right.")
    new = await plane.passwords.hash(call.body.new)
    await call.store.users.set_password(user.id, new, call.actor, keep_session=call.me.credential_id)


def _session_out(session: Session, current: str | None) -> shapes.SessionOut:
    return shapes.SessionOut(
        id=session.id,
        method=session.method,
        client=session.client,
        agent=session.agent,
        created_at=at(session.created_at),
        seen_at=at(session.seen_at),
        expires_at=at(session.expires_at),
        current=session.id == current,
    )


async def my_sessions(call: Call) -> shapes.Sessions:
    """One's own sessions."""
    found = await call.store.access.sessions(call.my_id)
    return shapes.Sessions(data=tuple(_session_out(one, call.me.credential_id) for one in found))


async def end_my_session(call: Call) -> None:
    """End one of one's own sessions."""
    await call.store.access.end_session(call.my_id, call.part("session"), call.actor)


def _access_key_out(key: AccessKey) -> shapes.AccessKeyOut:
    return shapes.AccessKeyOut(
        id=key.id,
        name=key.name,
        prefix=key.prefix,
        created_at=at(key.created_at),
        expires_at=at(key.expires_at),
        last_used_at=at(key.last_used_at),
    )


async def my_access_keys(call: Call) -> shapes.AccessKeys:
    """One's own access keys."""
    found = await call.store.access.access_keys(call.my_id)
    return shapes.AccessKeys(data=tuple(map(_access_key_out, found)))


async def create_access_key(call: Call) -> shapes.CreatedAccessKey:
    """Make an access key."""
    seconds = call.body.expires_in_seconds
    ends = None if seconds is None else call.now() + seconds
    new = await call.store.access.create_access_key(call.my_id, call.body.name, ends, call.actor)
    return shapes.CreatedAccessKey(key=new.secret.reveal(), access_key=_access_key_out(new.record))


async def delete_access_key(call: Call) -> None:
    """End one of one's own access keys."""
    await call.store.access.delete_access_key(call.my_id, call.part("access_key"), call.actor)


# Users


async def users(call: Call) -> shapes.UserPage:
    """The users."""
    wanted: shapes.UserQuery = call.query
    team = None if wanted.team is None else (await call.store.teams.get(wanted.team)).id
    found = await call.store.users.search(
        UserFilter(wanted.search, wanted.role, team), page(wanted.limit, wanted.cursor)
    )
    rows, following = cut(found, wanted.limit)
    return shapes.UserPage(data=tuple(map(user_out, rows)), next=following)


async def create_user(call: Call) -> shapes.Invitation:
    """Make a user, with a password or an invitation link."""
    new: shapes.NewUser = call.body
    _require_owner_for(call, new.role)
    team_ids = [(await call.store.teams.get(name)).id for name in new.teams]
    hash = None if new.password is None else await call.plane.passwords.hash(new.password)
    user = await call.store.users.create(
        new.email, new.name, new.role, call.actor, password_hash=hash, team_ids=team_ids
    )
    if hash is not None:
        return shapes.Invitation(user=user_out(user), link=None, expires_at=None)
    return await _invite(call, user)


async def user(call: Call) -> shapes.UserOut:
    """One user."""
    return user_out(await call.store.users.get(call.part("user")))


async def edit_user(call: Call) -> shapes.UserOut:
    """Change a user. Who is made inactive loses sessions, and their gateway keys are revoked."""
    edit: shapes.UserEdit = call.body
    before = await call.store.users.get(call.part("user"))
    _require_owner_for(call, before.role)
    if edit.role is not UNSET:
        _require_owner_for(call, edit.role)
    change = UserChange(**msgspec.structs.asdict(edit))
    after = await call.store.users.change(before.id, change, call.actor)
    if not after.active:
        await call.store.revoke_keys_of(after.id, call.actor)
    return user_out(after)


async def delete_user(call: Call) -> None:
    """Forget a user. Their gateway keys are revoked."""
    user = await call.store.users.get(call.part("user"))
    _require_owner_for(call, user.role)
    await call.store.users.delete(user.id, call.actor)
    await call.store.revoke_keys_of(user.id, call.actor)


async def invite(call: Call) -> shapes.Invitation:
    """A new link by which a user chooses a password; earlier ones no longer work."""
    user = await call.store.users.get(call.part("user"))
    _require_owner_for(call, user.role)
    return await _invite(call, user)


async def _invite(call: Call, user: User) -> shapes.Invitation:
    link, ends = await invitation_link(call.store, user, call.plane.settings.base_url, call.now())
    return shapes.Invitation(user=user_out(user), link=link, expires_at=at(ends))


async def invitation_link(store: Store, user: User, base_url: str, now: float) -> tuple[str, float]:
    """A new invitation link, and when it ends."""
    secret = await store.access.issue(INVITATION, user.id, INVITATION_SECONDS)
    return f"{base_url}/console/invitation?token={secret.reveal()}", now + INVITATION_SECONDS


async def sessions_of(call: Call) -> shapes.Sessions:
    """The sessions of a user."""
    user = await call.store.users.get(call.part("user"))
    found = await call.store.access.sessions(user.id)
    return shapes.Sessions(data=tuple(_session_out(one, call.me.credential_id) for one in found))


async def end_sessions_of(call: Call) -> None:
    """Sign a user out everywhere."""
    user = await call.store.users.get(call.part("user"))
    _require_owner_for(call, user.role)
    await call.store.access.end_sessions(user.id, call.actor)


def _require_owner_for(call: Call, role: Any) -> None:
    """An owner can be made, changed, invited or signed out by owners only: else an admin could become one."""
    if role is Role.OWNER:
        call.require(Permission.MANAGE_OWNERS, "Only an owner may make or change an owner.")
