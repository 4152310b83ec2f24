"""Gateway keys over the API: `/gateway-keys`.

Who may manage all keys makes them as they like. Everybody else makes their own: in a team of theirs, within its rules
(`control/allowance.py`), and of the keys of others they see as much as of keys that are not there.
"""

from __future__ import annotations

import asyncio
import re
from typing import Final

import msgspec

from gateway.control import allowance, keys
from gateway.control.identity.credentials import SHOWN_LENGTH, is_access_key
from gateway.control.identity.roles import Permission
from gateway.control.rest import shapes
from gateway.control.rest.call import Call
from gateway.control.rest.pages import cursor_of, page
from gateway.control.rest.shapes import at
from gateway.control.rollout import running_gateways
from gateway.control.store.errors import KeyNotFound, TeamNotFound
from gateway.control.store.paging import Place
from gateway.control.store.records import KeyRecord, KeyRules, KeyScope, scope_of
from gateway.control.store.store import KeyFilter
from gateway.control.store.teams import Team
from gateway.errors import PermissionDenied

ROLLOUT_SECONDS: Final = 1.5
_LOOK_SECONDS: Final = 0.02
_FOUND: Final = re.compile(r"(?<![0-9A-Za-z_])kt_(?:gk|ak)_[0-9A-Za-z]{38}(?![0-9A-Za-z])")
MAX_FOUND: Final = 50


def key_out(record: KeyRecord, call: Call) -> shapes.GatewayKeyOut:
    """A key as the API shows it."""
    key = record.key
    return shapes.GatewayKeyOut(
        id=key.id,
        name=key.name,
        prefix=key.prefix,
        state=keys.state_of(key, call.now()),
        configuration_id=key.configuration_id,
        team=key.team,
        owner=key.owner,
        owner_id=record.owner_id,
        yours=_is_own(record, call),
        models=None if key.models is None else tuple(sorted(key.models)),
        requests_per_minute=key.requests_per_minute,
        tokens_per_minute=key.tokens_per_minute,
        max_concurrency=key.max_concurrency,
        budget_usd_per_month=key.budget_usd_per_month,
        created_at=at(key.created_at),
        created_by=record.created_by,
        expires_at=at(key.expires_at),
        revoked_at=at(key.revoked_at),
        rotated_to=record.rotated_to,
        last_used_at=at(record.last_used_at),
        request_count=record.request_count,
    )


async def gateway_keys(call: Call) -> shapes.GatewayKeyPage:
    """All keys; without `read_gateway_keys`, one's own."""
    wanted: shapes.GatewayKeyQuery = call.query
    mine = wanted.mine or not call.may(Permission.READ_GATEWAY_KEYS)
    chosen = KeyFilter(
        wanted.state,
        wanted.team,
        wanted.owner,
        wanted.configuration_id,
        wanted.search,
        call.my_id if mine else None,
    )
    found = await call.store.list_keys(chosen, page(wanted.limit, wanted.cursor))
    following = None
    if len(found) > wanted.limit:
        found = found[: wanted.limit]
        following = cursor_of(Place(found[-1].key.created_at, found[-1].key.id))
    return shapes.GatewayKeyPage(data=tuple(key_out(one, call) for one in found), next=following)


async def create_gateway_key(call: Call) -> shapes.CreatedGatewayKey:
    """Make a key."""
    new: shapes.NewGatewayKey = call.body
    scope = KeyScope(
        name=new.name,
        configuration_id=new.configuration_id,
        team=new.team,
        owner=new.owner,
        models=None if new.models is None else frozenset(new.models),
        requests_per_minute=new.requests_per_minute,
        tokens_per_minute=new.tokens_per_minute,
        max_concurrency=new.max_concurrency,
        budget_usd_per_month=new.budget_usd_per_month,
    )
    seconds: float | None = new.expires_in_seconds
    owner_id = None
    if call.may(Permission.MANAGE_GATEWAY_KEYS):
        if new.team is not None:
            scope = _in_team(scope, await call.store.teams.get(new.team))
        if new.owner is None and call.me.user is not None:
            scope, owner_id = _owned(scope, call.me.user.email), call.me.user.id
    else:
        call.require(Permission.OWN_GATEWAY_KEYS)
        team = await _own_team(call, new.team)
        scope = _owned(_in_team(allowance.within(scope, team.key_rules), team), call.me.name)
        seconds = allowance.lifetime(seconds, team.key_rules)
        owner_id = call.my_id
    ends = None if seconds is None else call.now() + seconds
    made = await call.store.create_key(scope, expires_at=ends, owner_id=owner_id, actor=call.actor)
    return shapes.CreatedGatewayKey(
        key=made.secret.reveal(),
        gateway_key=key_out(made.record, call),
        rollout=await _rollout(call, made.record.revision),
    )


async def gateway_key(call: Call) -> shapes.GatewayKeyOut:
    """One key."""
    return key_out(await _visible(call), call)


async def rotate(call: Call) -> shapes.RotatedGatewayKey:
    """Make a key in place of another, which ends after an overlap."""
    old = await _changeable(call)
    wanted: shapes.Rotation = call.body
    seconds: float | None = wanted.expires_in_seconds
    if not call.may(Permission.MANAGE_GATEWAY_KEYS):
        rules = await _rules_of(call, old)
        scope = scope_of(old.key)
        if allowance.within(scope, rules) != scope:
            raise PermissionDenied("The team allows less by now than this key has; create a new one.")
        if seconds is None and old.key.expires_at is not None:
            seconds = old.key.expires_at - old.key.created_at
        seconds = allowance.lifetime(seconds, rules)
    ends = None if seconds is None else call.now() + seconds
    rotation = await call.store.rotate_key(old.key.id, wanted.overlap_seconds, expires_at=ends, actor=call.actor)
    return shapes.RotatedGatewayKey(
        key=rotation.new.secret.reveal(),
        gateway_key=key_out(rotation.new.record, call),
        old=key_out(rotation.old, call),
        rollout=await _rollout(call, rotation.new.record.revision),
    )


async def revoke(call: Call) -> shapes.ChangedGatewayKey:
    """End a key now."""
    record = await call.store.revoke_key((await _changeable(call)).key.id, call.actor)
    rollout = await _rollout(call, record.revision)
    return shapes.ChangedGatewayKey(gateway_key=key_out(record, call), rollout=rollout)


async def delete(call: Call) -> shapes.ChangedGatewayKey:
    """Forget a key, and end it if it is still good."""
    record = await call.store.delete_key((await _changeable(call)).key.id, call.actor)
    rollout = await _rollout(call, record.revision)
    return shapes.ChangedGatewayKey(gateway_key=key_out(record, call), rollout=rollout)


async def identify(call: Call) -> shapes.Identifications:
    """What is known of the keys in a text. Whoever shows a whole key may know whose it is: they could use it."""
    found = list(dict.fromkeys(_FOUND.findall(call.body.text)))[:MAX_FOUND]
    return shapes.Identifications(data=tuple([await _identified(call, text) for text in found if _is_whole(text)]))


def _is_whole(text: str) -> bool:
    return keys.checksum_ok(text) or is_access_key(text)


async def _identified(call: Call, text: str) -> shapes.Identified:
    prefix = text[:SHOWN_LENGTH]
    if is_access_key(text):
        known = await call.store.access.access_key_of(text) is not None
        return shapes.Identified(prefix=prefix, kind="access_key", known=known, gateway_key=None)
    try:
        record = await call.store.get_key(text)
    except KeyNotFound:
        return shapes.Identified(prefix=prefix, kind="gateway_key", known=False, gateway_key=None)
    return shapes.Identified(prefix=prefix, kind="gateway_key", known=True, gateway_key=key_out(record, call))


# Whose keys


def _is_own(record: KeyRecord, call: Call) -> bool:
    return record.owner_id is not None and record.owner_id == call.me.id


async def _visible(call: Call) -> KeyRecord:
    reference = call.part("gateway_key")
    record = await call.store.get_key(reference)
    if call.may(Permission.READ_GATEWAY_KEYS) or _is_own(record, call):
        return record
    raise KeyNotFound(f"no gateway key has the id, name or prefix {keys.shown_prefix(reference)!r}")


async def _changeable(call: Call) -> KeyRecord:
    record = await _visible(call)
    if not (call.may(Permission.MANAGE_GATEWAY_KEYS) or _is_own(record, call)):
        raise PermissionDenied("This key is somebody else's.")
    return record


def _in_team(scope: KeyScope, team: Team) -> KeyScope:
    return msgspec.structs.replace(scope, team=team.name)


def _owned(scope: KeyScope, email: str) -> KeyScope:
    return msgspec.structs.replace(scope, owner=email)


async def _own_team(call: Call, reference: str | None) -> Team:
    """The team that a developer's key is for: the one they name, or the only one they are in."""
    own = () if call.me.user is None else call.me.user.teams
    if reference is None and len(own) == 1:
        return await call.store.teams.get(own[0].id)
    chosen = [team for team in own if reference in (team.id, team.name)]
    if chosen:
        return await call.store.teams.get(chosen[0].id)
    if not own:
        raise PermissionDenied("You are in no team yet; ask an admin to put you into one.", param="team")
    names = ", ".join(team.name for team in own)
    raise PermissionDenied(f"Name a team that you are in: {names}.", param="team")


async def _rules_of(call: Call, record: KeyRecord) -> KeyRules:
    """The rules of the key's team, whose member one must still be."""
    if record.key.team is None:
        return KeyRules()
    try:
        return (await _own_team(call, record.key.team)).key_rules
    except TeamNotFound:
        return KeyRules()


async def _rollout(call: Call, revision: int) -> shapes.Rollout:
    """Wait until the workers of this machine have a change, as the command line does, without holding up the loop."""
    state_folder, store_id = call.plane.source.run_folder.parent, call.store.id
    clock = asyncio.get_running_loop().time
    deadline = clock() + ROLLOUT_SECONDS
    while True:
        gateways = running_gateways(state_folder, store_id, call.now())
        lagging = [one for one in gateways if any(worker.keys_revision < revision for worker in one.workers)]
        if not lagging or clock() >= deadline:
            ports = tuple(one.port for one in lagging)
            return shapes.Rollout(in_force=not lagging, gateways=len(gateways), lagging=ports)
        await asyncio.sleep(_LOOK_SECONDS)
