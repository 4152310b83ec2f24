"""What Alembic runs for a command: it migrates over the connection that `gateway.control.store.migrate` hands in."""

from __future__ import annotations

from alembic import context

from gateway.control.store.schema import metadata

# The connection is inside a transaction already, so a migration is done whole or not at all; `render_as_batch` because
# SQLite cannot alter a table in place.
context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True)
context.run_migrations()
