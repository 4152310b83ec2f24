"""audit-logger has no hooks; what it promises is played by the audit writer's tests."""

from __future__ import annotations

import msgspec
import pytest

from policy.audit_logger import AuditLogger, AuditLoggerSettings


def test_the_settings_of_the_product_page() -> None:
    settings = msgspec.convert({"immutable": True, "retention_days": 365, "log_all_access": True}, AuditLoggerSettings)
    assert settings == AuditLoggerSettings()
    assert AuditLogger.check(settings) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"retention_days": 0},
        {"checkpoint_seconds": 0},
        {"checkpoint_records": 0},
        {"content": "full"},
        {"immutable": "yes"},
        {"days": 1},
    ],
)
def test_wrong_settings(wrong: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(wrong, AuditLoggerSettings)
