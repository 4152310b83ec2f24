"""What teams may use, and what everybody has spent."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("teams", sa.Column("slot", sa.Integer))
    for name in ("requests_per_minute", "tokens_per_minute", "max_concurrency"):
        op.add_column("teams", sa.Column(name, sa.BigInteger))
    op.add_column("teams", sa.Column("budget_usd_per_month", sa.Double))
    op.create_table(
        "spending",
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("scope_id", sa.String, nullable=False),
        sa.Column("month", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("ledger", sa.String, nullable=False),
        sa.Column("nanousd", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("kind", "scope_id", "month", "ledger", name="pk_spending"),
    )
    op.create_index("ix_spending_month", "spending", ["month", "updated_at"])
