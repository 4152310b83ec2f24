"""Every test of the queue of escalations, on PostgreSQL instead of SQLite."""

from __future__ import annotations

from tests.gateway.control.test_escalations import *  # noqa: F403 (the tests themselves)
