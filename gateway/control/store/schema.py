"""The store's tables, as the newest migration leaves them; a test compares the two.

Times are Unix seconds. Every change of what a gateway must know increments `meta.revision` in the same transaction and
stamps the changed row with it. That one row is what all writers meet at, so revisions are committed in their order, and
"what changed since r" is a question with an exact answer.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

# Alembic must know a constraint's name to drop it later, and SQLite gives none by itself.
metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# One row. `store_id` is random: it tells whether two paths or URLs mean the same store.
meta = Table(
    "meta",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("store_id", String, nullable=False),
    Column("revision", BigInteger, nullable=False),
)

teams = Table(
    "teams",
    metadata,
    Column("id", String, primary_key=True),
    Column("name", String, nullable=False, unique=True),
    Column("description", String, nullable=False, server_default=""),
    # What a key that a member makes may have at most (`records.KeyRules`). None: no rule.
    Column("key_rules", JSON(none_as_null=True)),
    Column("created_at", Double),
    # What all keys of the team together may use, and its place in the workers' tables once that is limited.
    Column("slot", Integer),
    Column("requests_per_minute", BigInteger),
    Column("tokens_per_minute", BigInteger),
    Column("max_concurrency", BigInteger),
    Column("budget_usd_per_month", Double),
)

gateway_keys = Table(
    "gateway_keys",
    metadata,
    Column("id", String, primary_key=True),
    Column("hash", LargeBinary, nullable=False, unique=True),
    Column("prefix", String, nullable=False, index=True),
    Column("name", String, nullable=False, index=True),
    # The key's place in the workers' shared tables. None once the key is no longer good.
    Column("slot", Integer, unique=True),
    Column("configuration_id", String),
    Column("team_id", String, ForeignKey("teams.id"), index=True),
    Column("owner", String),
    # The user who made it for themselves; `owner` is then their e-mail address. None: nobody who signs in.
    Column("owner_id", String, index=True),
    Column("models", JSON(none_as_null=True)),
    Column("requests_per_minute", BigInteger),
    Column("tokens_per_minute", BigInteger),
    Column("max_concurrency", BigInteger),
    Column("budget_usd_per_month", Double),
    Column("created_at", Double, nullable=False),
    Column("created_by", String),
    Column("expires_at", Double, index=True),
    Column("revoked_at", Double),
    Column("rotated_to", String),
    Column("last_used_at", Double),
    Column("request_count", BigInteger, nullable=False, server_default="0"),
    Column("revision", BigInteger, nullable=False, index=True),
)

# Slots that had a key. They rest for a while before the next one gets them.
free_slots = Table(
    "free_slots",
    metadata,
    Column("slot", Integer, primary_key=True, autoincrement=False),
    Column("free_since", Double, nullable=False, index=True),
)

# What a key, a team or a configuration has spent in a month (202611), as one gateway has counted it. A `ledger` is a
# gateway's own sums, which it writes whole and alone.
spending = Table(
    "spending",
    metadata,
    Column("kind", String, primary_key=True),
    Column("scope_id", String, primary_key=True),
    Column("month", Integer, primary_key=True, autoincrement=False),
    Column("ledger", String, primary_key=True),
    Column("nanousd", BigInteger, nullable=False),
    Column("updated_at", Double, nullable=False),
    Index("ix_spending_month", "month", "updated_at"),
)

# What remains of a deleted key, so that whoever asks for changes hears of it.
deleted_keys = Table(
    "deleted_keys",
    metadata,
    Column("id", String, primary_key=True),
    Column("deleted_at", Double, nullable=False),
    Column("revision", BigInteger, nullable=False, index=True),
)

# Requests that wait for a person, or have waited (`control/escalations.py`). Equal requests have equal fingerprints.
escalations = Table(
    "escalations",
    metadata,
    Column("id", String, primary_key=True),
    Column("fingerprint", String, nullable=False, index=True),
    Column("state", String, nullable=False),
    Column("created_at", Double, nullable=False, index=True),
    Column("expires_at", Double, nullable=False),
    Column("valid_seconds", Double, nullable=False),
    Column("decided_at", Double),
    Column("decided_by", String),
    Column("note", String),
    Column("used_at", Double),
    Column("request_id", String, nullable=False),
    Column("key_id", String),
    Column("key_name", String),
    Column("team", String),
    Column("configuration_id", String, nullable=False),
    Column("model", String, nullable=False),
    Column("operation", String, nullable=False),
    Column("policy", String, nullable=False),
    Column("reason", String, nullable=False),
    Column("detail", String, nullable=False),
    Column("text", Text),
)

# People who sign in. `email` is in lower case. `subject` is `<issuer> <sub>` of who comes through OIDC.
users = Table(
    "users",
    metadata,
    Column("id", String, primary_key=True),
    Column("email", String, nullable=False, unique=True),
    Column("name", String, nullable=False),
    Column("role", String, nullable=False),
    Column("password_hash", String),
    Column("subject", String, unique=True),
    Column("active", Boolean(create_constraint=False), nullable=False),
    Column("created_at", Double, nullable=False, index=True),
    Column("last_sign_in_at", Double),
)

memberships = Table(
    "memberships",
    metadata,
    Column("team_id", String, ForeignKey("teams.id"), primary_key=True),
    Column("user_id", String, ForeignKey("users.id"), primary_key=True, index=True),
    Column("created_at", Double, nullable=False),
)

# Of a session, an access key and a one-time token only the hash is kept.
sessions = Table(
    "sessions",
    metadata,
    Column("id", String, primary_key=True),
    Column("hash", LargeBinary, nullable=False, unique=True),
    Column("user_id", String, ForeignKey("users.id"), nullable=False, index=True),
    Column("method", String, nullable=False),
    Column("client", String, nullable=False),
    Column("agent", String, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("seen_at", Double, nullable=False),
    Column("expires_at", Double, nullable=False, index=True),
)

access_keys = Table(
    "access_keys",
    metadata,
    Column("id", String, primary_key=True),
    Column("hash", LargeBinary, nullable=False, unique=True),
    Column("prefix", String, nullable=False),
    Column("name", String, nullable=False),
    Column("user_id", String, ForeignKey("users.id"), nullable=False, index=True),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double),
    Column("last_used_at", Double),
)

# Links that work once: to set the gateway up (no user), or to choose a password.
one_time_tokens = Table(
    "one_time_tokens",
    metadata,
    Column("hash", LargeBinary, primary_key=True),
    Column("purpose", String, nullable=False),
    Column("user_id", String, ForeignKey("users.id"), index=True),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double, nullable=False),
)

# Configurations that are kept here instead of in a file; `number` is the version in force.
configurations = Table(
    "configurations",
    metadata,
    Column("id", String, primary_key=True),
    Column("number", Integer, nullable=False),
    Column("changed_at", Double, nullable=False),
)

configuration_versions = Table(
    "configuration_versions",
    metadata,
    Column("configuration_id", String, primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("text", Text, nullable=False),
    Column("author", String, nullable=False),
    Column("note", String, nullable=False),
    Column("created_at", Double, nullable=False),
)

# Who changed what (`store/trail.py`). `recorded_at` is when it came into the audit log, None while it is on its way.
changes = Table(
    "changes",
    metadata,
    Column("id", String, primary_key=True),
    Column("at", Double, nullable=False, index=True),
    Column("actor", String, nullable=False),
    Column("actor_id", String),
    Column("via", String, nullable=False),
    Column("client", String),
    Column("request_id", String),
    Column("action", String, nullable=False),
    Column("object_id", String, nullable=False, index=True),
    Column("object_name", String, nullable=False),
    Column("before", JSON, nullable=False),
    Column("after", JSON, nullable=False),
    Column("recorded_at", Double, index=True),
)
