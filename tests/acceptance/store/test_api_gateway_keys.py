"""tests/gateway/control/rest/test_gateway_keys.py, on PostgreSQL."""

from __future__ import annotations

from tests.gateway.control.rest.conftest import house, run_folder  # noqa: F401 (fixtures)
from tests.gateway.control.rest.test_gateway_keys import *  # noqa: F403 (the tests themselves)
