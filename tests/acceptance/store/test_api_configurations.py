"""tests/gateway/control/rest/test_configurations.py, on PostgreSQL."""

from __future__ import annotations

from tests.gateway.control.rest.conftest import house, run_folder  # noqa: F401 (fixtures)
from tests.gateway.control.rest.test_configurations import *  # noqa: F403 (the tests themselves)
