"""The teams, who is in them, and what their members may make: `/teams`."""

from __future__ import annotations

import msgspec
from msgspec import UNSET

from gateway.control.identity.roles import Permission
from gateway.control.rest import shapes
from gateway.control.rest.call import Call
from gateway.control.rest.pages import cut, page
from gateway.control.rest.people import user_out
from gateway.control.rest.shapes import at
from gateway.control.store.errors import TeamNotFound
from gateway.control.store.records import KeyRules, TeamUse
from gateway.control.store.teams import Team, TeamChange
from gateway.control.store.users import UserFilter


def _team_out(team: Team) -> shapes.TeamOut:
    return shapes.TeamOut(
        id=team.id,
        name=team.name,
        description=team.description,
        key_rules=shapes.KeyRulesBody(**msgspec.structs.asdict(team.key_rules)),
        limits=shapes.TeamLimitsBody(**msgspec.structs.asdict(team.limits)),
        members=team.members,
        keys=team.keys,
        created_at=at(team.created_at),
    )


def _rules(body: shapes.KeyRulesBody) -> KeyRules:
    return KeyRules(**msgspec.structs.asdict(body))


def _limits(body: shapes.TeamLimitsBody) -> TeamUse:
    return TeamUse(**msgspec.structs.asdict(body))


async def teams(call: Call) -> shapes.TeamPage:
    """All teams; without `read_teams`, those one is in."""
    wanted: shapes.TeamQuery = call.query
    member = None if call.may(Permission.READ_TEAMS) else call.my_id
    found = await call.store.teams.search(search=wanted.search, member=member, page=page(wanted.limit, wanted.cursor))
    rows, following = cut(found, wanted.limit, id="name")
    return shapes.TeamPage(data=tuple(map(_team_out, rows)), next=following)


async def create_team(call: Call) -> shapes.TeamOut:
    """Make a team."""
    new: shapes.NewTeam = call.body
    rules, limits = _rules(new.key_rules), _limits(new.limits)
    return _team_out(await call.store.teams.create(new.name, new.description, rules, call.actor, limits))


async def team(call: Call) -> shapes.TeamOut:
    """One team."""
    return _team_out(await _visible(call))


async def edit_team(call: Call) -> shapes.TeamOut:
    """Change a team."""
    edit: shapes.TeamEdit = call.body
    rules = UNSET if edit.key_rules is UNSET else _rules(edit.key_rules)
    limits = UNSET if edit.limits is UNSET else _limits(edit.limits)
    change = TeamChange(name=edit.name, description=edit.description, key_rules=rules, limits=limits)
    return _team_out(await call.store.teams.change(call.part("team"), change, call.actor))


async def delete_team(call: Call) -> None:
    """Forget a team that has no keys."""
    await call.store.teams.delete(call.part("team"), call.actor)


async def members(call: Call) -> shapes.UserPage:
    """Who is in a team."""
    team = await _visible(call)
    wanted: shapes.PageQuery = call.query
    found = await call.store.users.search(UserFilter(team_id=team.id), page(wanted.limit, wanted.cursor))
    rows, following = cut(found, wanted.limit)
    return shapes.UserPage(data=tuple(map(user_out, rows)), next=following)


async def join(call: Call) -> shapes.UserOut:
    """Put a user into a team."""
    team = await call.store.teams.get(call.part("team"))
    return user_out(await call.store.users.join(team.id, call.part("user"), call.actor))


async def leave(call: Call) -> shapes.UserOut:
    """Take a user out of a team."""
    team = await call.store.teams.get(call.part("team"))
    return user_out(await call.store.users.leave(team.id, call.part("user"), call.actor))


async def _visible(call: Call) -> Team:
    """The team of the path, if whoever asks may see it; else it is as if there were none."""
    team = await call.store.teams.get(call.part("team"))
    user = call.me.user
    if call.may(Permission.READ_TEAMS) or (user is not None and team.id in [own.id for own in user.teams]):
        return team
    raise TeamNotFound(f"there is no team {call.part('team')!r}")
