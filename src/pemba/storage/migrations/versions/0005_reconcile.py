"""When the whole store was last compared with the records, and an order in which to read roles on tenants.

Revision ID: 0005
Revises: 0003
"""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE installation ADD COLUMN reconcile_time timestamptz")
    op.execute("GRANT UPDATE (reconcile_time) ON installation TO pemba_system")
    op.execute(
        "CREATE INDEX memberships_of_tenants_idx ON memberships (tenant_id, subject_type, subject_id) "
        "WHERE workspace_id IS NULL"
    )


def downgrade() -> None:
    op.execute("DROP INDEX memberships_of_tenants_idx")
    op.execute("ALTER TABLE installation DROP COLUMN reconcile_time")
