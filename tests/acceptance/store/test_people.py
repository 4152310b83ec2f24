"""tests/gateway/control/test_people.py, on PostgreSQL."""

from __future__ import annotations

from tests.gateway.control.test_people import *  # noqa: F403 (the tests themselves)
