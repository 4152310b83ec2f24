"""Who runs a command, as the trail of changes names them."""

from __future__ import annotations

import getpass

from gateway.control.store.trail import Actor


def actor() -> Actor:
    """The user of this machine, as far as the system knows."""
    return Actor(user() or "unknown", "command_line")


def user() -> str | None:
    """The name of the machine's user, or None where there is none."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # KeyError: a user without an entry, before Python 3.13
        return None
