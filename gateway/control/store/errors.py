"""What can go wrong with the store, as errors that say what to do about it.

They are for operators and for the CLI; none of them ever reaches a client, since no request touches the store.
"""

from __future__ import annotations


class StoreError(Exception):
    """The store could not do it. The message names the store (without password) and the next step."""


class StoreUnavailable(StoreError):
    """The store cannot be used right now or as named: gone, unreachable, not permitted, no driver."""


class StoreMissing(StoreUnavailable):
    """There is no such database."""


class StoreReplaced(StoreUnavailable):
    """Another file has taken the place of the database; it must be opened anew."""


class StoreLocked(StoreUnavailable):
    """Another process holds the database for longer than we wait."""


class StoreReadOnly(StoreUnavailable):
    """The disk or the file cannot be written."""


class StoreFull(StoreUnavailable):
    """No space is left for the database."""


class StoreDamaged(StoreError):
    """The file is not a database, or is a broken one."""


class StoreNewer(StoreError):
    """A newer version of the program has changed the database; this one must not touch it."""


class KeyNotFound(StoreError):
    """No gateway key goes by this id, name or prefix."""


class KeyAmbiguous(StoreError):
    """Several gateway keys go by this name or prefix; the message lists their ids."""


class KeyNotActive(StoreError):
    """The key has expired, was revoked or was rotated already, so it cannot be rotated."""


class UserNotFound(StoreError):
    """There is no such user."""


class TeamNotFound(StoreError):
    """There is no such team."""


class NameTaken(StoreError):
    """Another object has this name or e-mail address already."""


class LastOwner(StoreError):
    """Without this user there would be no active owner left."""


class StillInUse(StoreError):
    """Something else needs it; the message says what."""


class AccessKeyNotFound(StoreError):
    """There is no such access key."""


class SessionNotFound(StoreError):
    """There is no such session."""


class VersionNotFound(StoreError):
    """There is no such version of the configuration, or none in the store."""


class VersionChanged(StoreError):
    """Somebody else has changed it in the meantime."""
