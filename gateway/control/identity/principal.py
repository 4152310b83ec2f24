"""Who asks, once it is proved: a user by a session or an access key, or this machine's own user by the API token."""

from __future__ import annotations

import enum

import msgspec

from gateway.control.identity.roles import GRANTS, Permission, Role
from gateway.control.store.users import User


class Via(enum.StrEnum):
    """How somebody proved who they are."""

    SESSION = "session"
    ACCESS_KEY = "access_key"
    API_TOKEN = "api_token"  # noqa: S105 (a name)
    COMMAND_LINE = "command_line"


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody, and what they may do.

    `user` is None for the machine's own user, who may do what an owner may; `machine_user` is their name where it is
    known. `credential_id` is the session's or the
    access key's, `csrf` the CSRF token of the session.
    """

    via: Via
    role: Role
    user: User | None = None
    credential_id: str | None = None
    csrf: str | None = None
    machine_user: str | None = None

    @property
    def name(self) -> str:
        """How others see them."""
        return self.user.email if self.user is not None else self.machine_user or "api-token"

    @property
    def id(self) -> str | None:
        """The user's id."""
        return None if self.user is None else self.user.id

    def may(self, permission: Permission) -> bool:
        """Whether their role allows it."""
        return permission in GRANTS[self.role]
