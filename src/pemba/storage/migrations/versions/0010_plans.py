"""Indexes for what is asked all the time: positions that moved, tenants with parked operations, users who are denied.

Revision ID: 0010
Revises: 0009
"""

from __future__ import annotations

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

UP = (
    "CREATE INDEX tenant_delivery_shard_stamp_idx ON tenant_delivery (shard, stamp)",
    "DROP INDEX tenant_delivery_shard_idx",
    "CREATE INDEX tenant_delivery_parked_idx ON tenant_delivery (tenant_id) WHERE parked_from IS NOT NULL",
    "CREATE INDEX users_inactive_idx ON users (id) WHERE status <> 'active'",
)
DOWN = (
    "DROP INDEX users_inactive_idx",
    "DROP INDEX tenant_delivery_parked_idx",
    "CREATE INDEX tenant_delivery_shard_idx ON tenant_delivery (shard)",
    "DROP INDEX tenant_delivery_shard_stamp_idx",
)


def upgrade() -> None:
    for statement in UP:
        op.execute(statement)


def downgrade() -> None:
    for statement in DOWN:
        op.execute(statement)
