"""Every test of what was spent, on PostgreSQL instead of SQLite."""

from __future__ import annotations

from tests.gateway.control.test_spending import *  # noqa: F403 (the tests themselves)
