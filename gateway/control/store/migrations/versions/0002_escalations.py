"""Requests that wait for a person."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "escalations",
        sa.Column("id", sa.String, nullable=False),
        sa.Column("fingerprint", sa.String, nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("expires_at", sa.Double, nullable=False),
        sa.Column("valid_seconds", sa.Double, nullable=False),
        sa.Column("decided_at", sa.Double),
        sa.Column("decided_by", sa.String),
        sa.Column("note", sa.String),
        sa.Column("used_at", sa.Double),
        sa.Column("request_id", sa.String, nullable=False),
        sa.Column("key_id", sa.String),
        sa.Column("key_name", sa.String),
        sa.Column("team", sa.String),
        sa.Column("configuration_id", sa.String, nullable=False),
        sa.Column("model", sa.String, nullable=False),
        sa.Column("operation", sa.String, nullable=False),
        sa.Column("policy", sa.String, nullable=False),
        sa.Column("reason", sa.String, nullable=False),
        sa.Column("detail", sa.String, nullable=False),
        sa.Column("text", sa.Text),
        sa.PrimaryKeyConstraint("id", name="pk_escalations"),
    )
    op.create_index("ix_escalations_fingerprint", "escalations", ["fingerprint"])
    op.create_index("ix_escalations_created_at", "escalations", ["created_at"])
