"""Runs the migrations inside a transaction that somebody else has begun. The only place that knows Alembic."""

from __future__ import annotations

import logging
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection

from gateway.control.store.errors import StoreNewer

log = logging.getLogger(__name__)

SCRIPTS = Path(__file__).parent / "migrations"


def configuration() -> Config:
    """Alembic's configuration, without a file: our scripts are part of the package."""
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def upgrade(connection: Connection, store: str) -> None:
    """Bring the schema up to the newest version. Raises StoreNewer when it is beyond what this program knows."""
    config = configuration()
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise StoreNewer(f"the store {store} was changed by a newer version of kt; install that version") from error
    log.info("store brought up to date", extra={"store": store})
