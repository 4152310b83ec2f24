"""tests/gateway/control/test_trail.py, on PostgreSQL."""

from __future__ import annotations

from tests.gateway.control.test_trail import *  # noqa: F403 (the tests themselves)
