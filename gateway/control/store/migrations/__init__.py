"""The store's history as Alembic scripts; `gateway.control.store.migrate` runs them."""
