"""The stream `~` says whose status changed: rows of it name the user or the tenant, and hold no operations.

Revision ID: 0002
Revises: 0001
"""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# crc32 of `~` modulo the shards, as for every other stream.
SHARD = 6


def upgrade() -> None:
    op.execute("ALTER TABLE outbox ADD COLUMN about TEXT")
    op.execute(
        "ALTER TABLE outbox ADD CONSTRAINT outbox_about_check "
        "CHECK ((tenant_id = '~') = (about IS NOT NULL) AND (about IS NULL OR op_count = 0))"
    )
    op.execute(f"UPDATE tenant_head SET shard = {SHARD} WHERE tenant_id = '~'")


def downgrade() -> None:
    op.execute("UPDATE tenant_head SET shard = 0 WHERE tenant_id = '~'")
    op.execute("ALTER TABLE outbox DROP CONSTRAINT outbox_about_check")
    op.execute("ALTER TABLE outbox DROP COLUMN about")
