"""What an operator may write for the store, and the database it means.

A SQLite store is named by `sqlite:///relative`, `sqlite:////absolute`, or simply by the path of its file; a PostgreSQL
store by its URL. Drivers are chosen elsewhere and are nothing an operator must know.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlsplit

from gateway.control.store.errors import StoreMissing, StoreReadOnly, StoreUnavailable

_FILE: Final = "sqlite:///"
_SERVERS: Final = ("postgresql", "postgres")
_HINT: Final = "write sqlite:///path or postgresql://user:password@host/database"


class Location:
    """Where a store is: the `path` of a file, or the `url` of a server. `str()` names it without a password."""

    def __init__(self, text: str) -> None:
        """Raises StoreUnavailable for what names no store we know."""
        self.path: Path | None = None
        self.url = ""
        scheme, separator, _ = text.partition("://")
        if not separator or text.startswith(_FILE):
            self.path = _path(text.removeprefix(_FILE))
        elif scheme in _SERVERS:
            self.url = text
        elif scheme == "sqlite":
            raise StoreUnavailable(f"{text!r} names no file; {_HINT}")
        else:
            raise StoreUnavailable(f"a store of kind {scheme!r} is not supported; {_HINT}")

    def __str__(self) -> str:
        if self.path is not None:
            return str(self.path)
        scheme, host, path, _, _ = urlsplit(self.url)
        user, separator, host = host.rpartition("@")
        return f"{scheme}://{user.partition(':')[0]}{separator}{host}{path}"

    @property
    def file_uri(self) -> str:
        """The file, for SQLite. `rw`: one that has gone is an error, not a new database. https://www.sqlite.org/uri.html"""
        return f"file:{quote(str(self.path))}?mode=rw"

    def create(self) -> None:
        """Make the file and its folder if there are none, readable by this user only. SQLite itself asks the umask."""
        if self.path is None:
            return
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not self.path.exists():
                _make(self.path)
            os.close(os.open(self.path, os.O_RDWR | os.O_CLOEXEC))
        except PermissionError as error:
            raise StoreUnavailable(f"no permission to open the store {self} ({error.strerror})") from error
        except (OSError, sqlite3.Error) as error:
            raise StoreReadOnly(f"the store {self} cannot be opened for writing ({error})") from error

    def require(self) -> None:
        """Raises StoreMissing when there is no such file."""
        if self.path is not None and not self.path.is_file():
            raise StoreMissing(f"there is no store at {self}; `kt gateway-key create` or `kt gateway run` makes it")


def _make(path: Path) -> None:
    """A new, empty database that is in WAL mode from birth; if another process is faster, its file stays.

    Two connections that turn one database to WAL at the same moment do not wait for each other: one of them fails.
    """
    making = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    os.close(os.open(making, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
    try:
        with contextlib.closing(sqlite3.connect(making)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
        with contextlib.suppress(FileExistsError):
            os.link(making, path)
    finally:
        making.unlink(missing_ok=True)


def _path(text: str) -> Path:
    if not text or text == ":memory:":
        raise StoreUnavailable("the store must be a file, as in sqlite:///path: other processes read it too")
    if "?" in text:
        raise StoreUnavailable(f"options after the store's path are not supported; {_HINT}")
    return Path(text).expanduser().absolute()
