"""Gateway keys, the teams they belong to, and the revision that orders all changes."""

from __future__ import annotations

import uuid

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    meta = op.create_table(
        "meta",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("store_id", sa.String, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_meta"),
    )
    op.bulk_insert(meta, [{"id": 1, "store_id": uuid.uuid4().hex, "revision": 0}])
    op.create_table(
        "teams",
        sa.Column("id", sa.String, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_teams"),
        sa.UniqueConstraint("name", name="uq_teams_name"),
    )
    _gateway_keys()
    op.create_table(
        "free_slots",
        sa.Column("slot", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("free_since", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("slot", name="pk_free_slots"),
    )
    op.create_index("ix_free_slots_free_since", "free_slots", ["free_since"])
    op.create_table(
        "deleted_keys",
        sa.Column("id", sa.String, nullable=False),
        sa.Column("deleted_at", sa.Double, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_deleted_keys"),
    )
    op.create_index("ix_deleted_keys_revision", "deleted_keys", ["revision"])


def _gateway_keys() -> None:
    op.create_table(
        "gateway_keys",
        sa.Column("id", sa.String, nullable=False),
        sa.Column("hash", sa.LargeBinary, nullable=False),
        sa.Column("prefix", sa.String, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("slot", sa.Integer),
        sa.Column("configuration_id", sa.String),
        sa.Column("team_id", sa.String),
        sa.Column("owner", sa.String),
        sa.Column("models", sa.JSON),
        sa.Column("requests_per_minute", sa.BigInteger),
        sa.Column("tokens_per_minute", sa.BigInteger),
        sa.Column("max_concurrency", sa.BigInteger),
        sa.Column("budget_usd_per_month", sa.Double),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("created_by", sa.String),
        sa.Column("expires_at", sa.Double),
        sa.Column("revoked_at", sa.Double),
        sa.Column("rotated_to", sa.String),
        sa.Column("last_used_at", sa.Double),
        sa.Column("request_count", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_gateway_keys"),
        sa.UniqueConstraint("hash", name="uq_gateway_keys_hash"),
        sa.UniqueConstraint("slot", name="uq_gateway_keys_slot"),
        sa.ForeignKeyConstraint(["team_id"], ["teams.id"], name="fk_gateway_keys_team_id"),
    )
    for column in ("prefix", "name", "team_id", "expires_at", "revision"):
        op.create_index(f"ix_gateway_keys_{column}", "gateway_keys", [column])
