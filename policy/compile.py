"""A chain and its settings, compiled into the pipeline that requests walk."""

from __future__ import annotations

from typing import Any

from policy.audit_logger import AuditLogger
from policy.dlp_filter import DlpFilter

KINDS: dict[str, Any] = {
    AuditLogger.kind: AuditLogger,
    DlpFilter.kind: DlpFilter,
}
"""Every policy kind that a chain may name, with its class; `KINDS[kind].Settings` is its settings' schema."""
