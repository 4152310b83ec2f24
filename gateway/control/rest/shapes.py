"""What goes in and out of the API: one type for each shape, from which the OpenAPI description is made.

Times are RFC 3339 in UTC. Whatever comes in is closed: a field that nobody knows is an error, not ignored.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from gateway.control.escalations import State
from gateway.control.identity.roles import Permission, Role
from gateway.control.keys import KeyState

_ONE_LINE = r"^[^\x00-\x1f\x7f]*\S[^\x00-\x1f\x7f]*$"
Label = Annotated[str, Meta(min_length=1, max_length=200, pattern=_ONE_LINE)]
Text = Annotated[str, Meta(max_length=2000, pattern=r"^[^\x00]*$")]
Email = Annotated[str, Meta(min_length=3, max_length=254, pattern=r"^[^@\x00-\x20\x7f]+@[^@\x00-\x20\x7f]+$")]
NewPassword = Annotated[str, Meta(min_length=10, max_length=200)]
GivenPassword = Annotated[str, Meta(max_length=1000)]
Token = Annotated[str, Meta(max_length=200)]
Count = Annotated[int, Meta(ge=1, le=1_000_000_000)]
Money = Annotated[float, Meta(ge=0, le=9_000_000)]
Seconds = Annotated[int, Meta(ge=1, le=100 * 365 * 86_400)]
Models = Annotated[tuple[Label, ...], Meta(min_length=1, max_length=1000)]
Limit = Annotated[int, Meta(ge=1, le=200, description="How many at most.")]
Cursor = Annotated[str, Meta(max_length=400, description="`next` of the page before.")]
Search = Annotated[str, Meta(max_length=200, description="Part of a name or the like, in upper or lower case.")]


class In(Struct, forbid_unknown_fields=True):
    """A closed body or query."""


class Out(Struct):
    """An answer."""


def at(seconds: float | None) -> Any:
    """A time of the store as it is shown."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).replace(microsecond=0)


# Errors


class ErrorDetail(Out, kw_only=True):
    """What went wrong. `code` is stable; docs/errors.md lists all."""

    message: str
    type: str
    param: str | None
    code: str
    request_id: str


class Problem(Out, kw_only=True):
    """One thing that is wrong with a configuration's text. Lines and columns count from 1; 0: the whole text."""

    line: int
    column: int
    path: str
    message: str
    hint: str
    severity: Literal["error", "warning"]


class ErrorAnswer(Out, kw_only=True):
    """Every error. `problems` is there where a configuration was refused."""

    error: ErrorDetail
    problems: tuple[Problem, ...] | UnsetType = UNSET


# Signing in


class Provider(Out, kw_only=True):
    """An OpenID provider to sign in through: go to `start`."""

    name: str
    start: str


class SignInMethods(Out, kw_only=True):
    """By which ways one can sign in here."""

    setup_needed: bool
    """There is no user yet: open the set-up link that the gateway printed."""
    password: bool
    oidc: Provider | None


class SignIn(In, kw_only=True):
    """E-mail address and password."""

    email: Email
    password: GivenPassword


class Setup(In, kw_only=True):
    """The first user, who becomes the owner. `token` stands in the set-up link."""

    token: Token
    email: Email
    name: Label
    password: NewPassword


class Acceptance(In, kw_only=True):
    """A password for the user whom an invitation link is for."""

    token: Token
    password: NewPassword


class OIDCStart(In, kw_only=True):
    """`next`: a path of this gateway to go to afterwards."""

    next: Annotated[str, Meta(max_length=400)] = "/console/"


class OIDCAnswer(In, kw_only=True):
    """What the provider sends the browser back with."""

    code: Annotated[str, Meta(max_length=2000)] = ""
    state: Annotated[str, Meta(max_length=400)] = ""
    error: Annotated[str, Meta(max_length=400)] = ""
    error_description: Annotated[str, Meta(max_length=400)] = ""
    error_uri: Annotated[str, Meta(max_length=400)] = ""
    session_state: Annotated[str, Meta(max_length=400)] = ""
    iss: Annotated[str, Meta(max_length=400)] = ""


# People


class TeamName(Out, kw_only=True):
    """A team that somebody is in."""

    id: str
    name: str


class UserOut(Out, kw_only=True):
    """Somebody who may sign in."""

    id: str
    email: str
    name: str
    role: Role
    active: bool
    has_password: bool
    has_provider: bool
    teams: tuple[TeamName, ...]
    created_at: datetime
    last_sign_in_at: datetime | None


class Me(Out, kw_only=True):
    """Who asks. `user` is null for the machine's own API token; `csrf_token` is there for a session."""

    via: Literal["session", "access_key", "api_token", "command_line"]
    role: Role
    permissions: tuple[Permission, ...]
    user: UserOut | None
    csrf_token: str | None


class UserPage(Out, kw_only=True):
    """Users, newest first; `next` is null on the last page."""

    data: tuple[UserOut, ...]
    next: str | None


class Invitation(Out, kw_only=True):
    """A link by which a user chooses a password, once, until `expires_at`. It is shown this once."""

    user: UserOut
    link: str | None
    expires_at: datetime | None


class NewUser(In, kw_only=True):
    """A user to be. Without a password there is an invitation link in the answer."""

    email: Email
    name: Label
    role: Role
    password: NewPassword | None = None
    teams: Annotated[tuple[Label, ...], Meta(max_length=100, description="Ids or names.")] = ()


class UserEdit(In, kw_only=True):
    """What to change; what is not there stays."""

    name: Label | UnsetType = UNSET
    role: Role | UnsetType = UNSET
    active: bool | UnsetType = UNSET


class UserQuery(In, kw_only=True):
    """Which users."""

    search: Search | None = None
    role: Role | None = None
    team: Annotated[str, Meta(max_length=200, description="Id or name.")] | None = None
    limit: Limit = 50
    cursor: Cursor | None = None


class MyEdit(In, kw_only=True):
    """One's own name."""

    name: Label


class PasswordChange(In, kw_only=True):
    """The password one has, and the new one. All other sessions end."""

    current: GivenPassword = ""
    new: NewPassword


class SessionOut(Out, kw_only=True):
    """Somebody signed in. `current`: by this very session."""

    id: str
    method: str
    client: str
    agent: str
    created_at: datetime
    seen_at: datetime
    expires_at: datetime
    current: bool


class Sessions(Out, kw_only=True):
    """Sessions, newest first."""

    data: tuple[SessionOut, ...]


class NewAccessKey(In, kw_only=True):
    """An access key to be."""

    name: Label
    expires_in_seconds: Seconds | None = None


class AccessKeyOut(Out, kw_only=True):
    """A key for the API and the command line."""

    id: str
    name: str
    prefix: str
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None


class CreatedAccessKey(Out, kw_only=True):
    """The key, which is shown this once."""

    key: str
    access_key: AccessKeyOut


class AccessKeys(Out, kw_only=True):
    """Access keys, newest first."""

    data: tuple[AccessKeyOut, ...]


# Teams


class KeyRulesBody(In, kw_only=True):
    """What a key that a member makes may have at most; null: no such rule. It binds developers only."""

    models: Models | None = None
    configurations: Models | None = None
    requests_per_minute: Count | None = None
    tokens_per_minute: Count | None = None
    max_concurrency: Count | None = None
    budget_usd_per_month: Money | None = None
    expires_in_seconds: Seconds | None = None


class TeamLimitsBody(In, kw_only=True):
    """What all keys of a team together may use; null: no such limit."""

    requests_per_minute: Count | None = None
    tokens_per_minute: Count | None = None
    max_concurrency: Count | None = None
    budget_usd_per_month: Money | None = None


class TeamOut(Out, kw_only=True):
    """A team. `members` and `keys` are how many there are."""

    id: str
    name: str
    description: str
    key_rules: KeyRulesBody
    limits: TeamLimitsBody
    members: int
    keys: int
    created_at: datetime | None


class TeamPage(Out, kw_only=True):
    """Teams, by name."""

    data: tuple[TeamOut, ...]
    next: str | None


class NewTeam(In, kw_only=True):
    """A team to be."""

    name: Label
    description: Text = ""
    key_rules: KeyRulesBody = msgspec.field(default_factory=KeyRulesBody)
    limits: TeamLimitsBody = msgspec.field(default_factory=TeamLimitsBody)


class TeamEdit(In, kw_only=True):
    """What to change; what is not there stays. `key_rules` and `limits` are replaced whole."""

    name: Label | UnsetType = UNSET
    description: Text | UnsetType = UNSET
    key_rules: KeyRulesBody | UnsetType = UNSET
    limits: TeamLimitsBody | UnsetType = UNSET


class TeamQuery(In, kw_only=True):
    """Which teams."""

    search: Search | None = None
    limit: Limit = 50
    cursor: Cursor | None = None


# Gateway keys


class GatewayKeyOut(Out, kw_only=True):
    """A gateway key, without its secret. `yours`: you made it for yourself."""

    id: str
    name: str
    prefix: str
    state: KeyState
    configuration_id: str | None
    team: str | None
    owner: str | None
    owner_id: str | None
    yours: bool
    models: tuple[str, ...] | None
    requests_per_minute: int | None
    tokens_per_minute: int | None
    max_concurrency: int | None
    budget_usd_per_month: float | None
    created_at: datetime
    created_by: str | None
    expires_at: datetime | None
    revoked_at: datetime | None
    rotated_to: str | None
    last_used_at: datetime | None
    request_count: int


class Rollout(Out, kw_only=True):
    """How far a change has come in the workers of this machine: `in_force` is true when all have it."""

    in_force: bool
    gateways: int
    lagging: tuple[int, ...]
    """Ports of gateways that have not applied it yet."""


class ChangedGatewayKey(Out, kw_only=True):
    """A key after a change."""

    gateway_key: GatewayKeyOut
    rollout: Rollout


class CreatedGatewayKey(Out, kw_only=True):
    """The key, which is shown this once."""

    key: str
    gateway_key: GatewayKeyOut
    rollout: Rollout


class RotatedGatewayKey(Out, kw_only=True):
    """The new key, which is shown this once, and the old one with its end."""

    key: str
    gateway_key: GatewayKeyOut
    old: GatewayKeyOut
    rollout: Rollout


class GatewayKeyPage(Out, kw_only=True):
    """Gateway keys, newest first."""

    data: tuple[GatewayKeyOut, ...]
    next: str | None


class NewGatewayKey(In, kw_only=True):
    """A gateway key to be. Without `manage_gateway_keys` it is your own, in a team of yours, within its rules."""

    name: Label
    configuration_id: Label | None = None
    team: Annotated[str, Meta(min_length=1, max_length=200, description="Id or name.")] | None = None
    owner: Label | None = None
    models: Models | None = None
    requests_per_minute: Count | None = None
    tokens_per_minute: Count | None = None
    max_concurrency: Count | None = None
    budget_usd_per_month: Money | None = None
    expires_in_seconds: Seconds | None = None


class GatewayKeyQuery(In, kw_only=True):
    """Which keys."""

    state: KeyState | None = None
    team: Annotated[str, Meta(max_length=200, description="Name.")] | None = None
    owner: Annotated[str, Meta(max_length=200)] | None = None
    mine: Annotated[bool, Meta(description="Only one's own.")] = False
    configuration_id: Annotated[str, Meta(max_length=200)] | None = None
    search: Search | None = None
    limit: Limit = 50
    cursor: Cursor | None = None


class Rotation(In, kw_only=True):
    """How long the old key stays good, and how long the new one is; null: as long as the old one was made for."""

    overlap_seconds: Annotated[int, Meta(ge=0, le=30 * 86_400)] = 86_400
    expires_in_seconds: Seconds | None = None


class Leaked(In, kw_only=True):
    """A text in which a key was found, or the key itself."""

    text: Annotated[str, Meta(max_length=20_000)]


class Identified(Out, kw_only=True):
    """A key that was found: whether it is whole, and what is known of it."""

    prefix: str
    kind: Literal["gateway_key", "access_key"]
    known: bool
    gateway_key: GatewayKeyOut | None


class Identifications(Out, kw_only=True):
    """The keys that were found in a text."""

    data: tuple[Identified, ...]


# Configurations


class ConfigurationOut(Out, kw_only=True):
    """A configuration. `source`: a file, or the store, in which `number` counts its versions (0 for a file)."""

    id: str
    source: Literal["file", "store"]
    number: int
    version: str
    """A digest of its text."""
    default: bool
    models: tuple[str, ...]
    policies: tuple[str, ...]
    in_force: bool
    """The workers of this machine have it."""


class ConfigurationText(Out, kw_only=True):
    """A configuration and its text."""

    configuration: ConfigurationOut
    text: str


class ConfigurationList(Out, kw_only=True):
    """The configurations, the default one first. `reload_error`: why a newer state of the files is not in force."""

    data: tuple[ConfigurationOut, ...]
    reload_error: str | None


class NewVersion(In, kw_only=True):
    """A text to come into force, and why."""

    text: Annotated[str, Meta(max_length=1_000_000)]
    note: Text = ""


class CheckedText(In, kw_only=True):
    """A text to be checked."""

    text: Annotated[str, Meta(max_length=1_000_000)]


class Checked(Out, kw_only=True):
    """Whether a text could come into force, and what is wrong or doubtful about it."""

    valid: bool
    problems: tuple[Problem, ...]


class VersionOut(Out, kw_only=True):
    """One version that the store has."""

    number: int
    author: str
    note: str
    created_at: datetime
    in_force: bool


class VersionText(Out, kw_only=True):
    """One version and its text."""

    number: int
    author: str
    note: str
    created_at: datetime
    text: str


class VersionPage(Out, kw_only=True):
    """Versions, newest first."""

    data: tuple[VersionOut, ...]
    next: str | None


class RollBack(In, kw_only=True):
    """Which version is to come into force again."""

    number: Annotated[int, Meta(ge=1, le=1_000_000_000)]


class PageQuery(In, kw_only=True):
    """Which page."""

    limit: Limit = 50
    cursor: Cursor | None = None


# The rest


class EscalationQuery(In, kw_only=True):
    """Which escalations."""

    state: State | None = None


class Decision(In, kw_only=True):
    """Why; kept with the escalation. `by` is only taken from the machine's own user."""

    note: Annotated[str, Meta(max_length=2000)] | None = None
    by: Annotated[str, Meta(max_length=200)] | None = None


class ChangeOut(Out, kw_only=True):
    """Who changed what. `before` and `after` have the fields that differ."""

    id: str
    at: datetime
    actor: str
    actor_id: str | None
    via: str
    client: str | None
    request_id: str | None
    action: str
    object_id: str
    object_name: str
    before: dict[str, Any]
    after: dict[str, Any]


class ChangePage(Out, kw_only=True):
    """Changes, newest first."""

    data: tuple[ChangeOut, ...]
    next: str | None


class ChangeQuery(In, kw_only=True):
    """Which changes. `action` may end with a dot, which means all that begin so (`gateway_key.`)."""

    actor_id: Annotated[str, Meta(max_length=200)] | None = None
    object_id: Annotated[str, Meta(max_length=200)] | None = None
    action: Annotated[str, Meta(max_length=100)] | None = None
    limit: Limit = 50
    cursor: Cursor | None = None


class EscalationOut(Out, kw_only=True):
    """A request that waits for a person, or has waited. `text` is there where the configuration has it kept."""

    id: str
    state: State
    created_at: datetime
    expires_at: datetime
    decided_at: datetime | None
    decided_by: str | None
    note: str | None
    used_at: datetime | None
    request_id: str
    key_id: str | None
    key_name: str | None
    team: str | None
    configuration_id: str
    model: str
    operation: str
    policy: str
    reason: str
    detail: str
    text: str | None


class Escalations(Out, kw_only=True):
    """Escalations, newest first: the newest 200."""

    data: tuple[EscalationOut, ...]


class Question(In, kw_only=True):
    """A request that is to be explained."""

    request: msgspec.Raw
    path: str = "/v1/chat/completions"
    headers: dict[str, str] = {}
    configuration: str | None = None
