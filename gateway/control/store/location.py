"""What an operator may write for the store, and the database it means.

A SQLite store is named by `sqlite:///relative`, `sqlite:////absolute`, or simply by the path of its file; a PostgreSQL
store by its URL. Drivers are chosen here and are nothing an operator must know.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from gateway.control.store.errors import StoreMissing, StoreReadOnly, StoreUnavailable

_DRIVERS: Final = {
    "sqlite": "sqlite+aiosqlite",
    "postgresql": "postgresql+asyncpg",
    "postgres": "postgresql+asyncpg",
}


class Location:
    """Where a store is. `path` is its file, None for a database server; `str()` names it without its password."""

    def __init__(self, text: str) -> None:
        """Raises StoreUnavailable for a URL that names no store we know."""
        if "://" not in text:
            text = f"sqlite:///{Path(text).expanduser()}"
        try:
            url = make_url(text)
        except (ArgumentError, ValueError):  # ValueError: a port that is no number
            raise StoreUnavailable("the store's URL cannot be read; write sqlite:///path or postgresql://…") from None
        driver = _DRIVERS.get(url.get_backend_name())
        if driver is None:
            kind = url.get_backend_name()
            raise StoreUnavailable(f"a store of kind {kind!r} is not supported; write sqlite:///path or postgresql://…")
        self.path: Path | None = None
        if driver.startswith("sqlite"):
            if not url.database or url.database == ":memory:":
                raise StoreUnavailable("the store must be a file, as in sqlite:///path: other processes read it too")
            self.path = Path(url.database).expanduser().absolute()
            url = url.set(database=str(self.path))
        self.url: URL = url.set(drivername=driver)

    def __str__(self) -> str:
        if self.path is not None:
            return str(self.path)
        return self.url.set(drivername=self.url.get_backend_name()).render_as_string(hide_password=True)

    def create(self) -> None:
        """Make the file and its folder if there are none, readable by this user only. SQLite itself asks the umask."""
        if self.path is None:
            return
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
        except PermissionError as error:
            raise StoreUnavailable(f"no permission to open the store {self} ({error.strerror})") from error
        except OSError as error:
            raise StoreReadOnly(f"the store {self} cannot be made ({error.strerror})") from error

    def require(self) -> None:
        """Raises StoreMissing when there is no such file."""
        if self.path is not None and not self.path.is_file():
            raise StoreMissing(f"there is no store at {self}; `kt gateway-key create` or `kt gateway run` makes it")
