"""Whose SpiceDB it is, and which life of its data each tenant stands in.

Revision ID: 0006
Revises: 0005
"""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE installation ADD COLUMN installation_id uuid NOT NULL DEFAULT gen_random_uuid()")
    op.execute("ALTER TABLE installation ALTER COLUMN installation_id DROP DEFAULT")
    op.execute("ALTER TABLE installation ADD COLUMN filled_epoch uuid")
    op.execute("UPDATE installation SET filled_epoch = store_epoch")
    op.execute("ALTER TABLE installation ALTER COLUMN filled_epoch SET NOT NULL")
    op.execute("GRANT UPDATE (database_epoch, filled_epoch) ON installation TO pemba_system")
    op.execute("ALTER TABLE tenant_head ADD COLUMN store_epoch uuid")
    op.execute(
        "UPDATE tenant_head h SET store_epoch = coalesce("
        "(SELECT d.store_epoch FROM tenant_delivery d WHERE d.tenant_id = h.tenant_id), i.store_epoch)"
        " FROM installation i"
    )
    op.execute("ALTER TABLE tenant_head ALTER COLUMN store_epoch SET NOT NULL")
    op.execute("ALTER TABLE outbox ADD COLUMN store_epoch uuid")
    op.execute("CREATE INDEX outbox_store_epoch_idx ON outbox (tenant_id) WHERE store_epoch IS NOT NULL")
    op.execute("ALTER TABLE relay_lease ADD COLUMN landed bigint NOT NULL DEFAULT -1")
    op.execute("UPDATE relay_lease SET landed = n - 1")


def downgrade() -> None:
    op.execute("ALTER TABLE relay_lease DROP COLUMN landed")
    op.execute("DROP INDEX outbox_store_epoch_idx")
    op.execute("ALTER TABLE outbox DROP COLUMN store_epoch")
    op.execute("ALTER TABLE tenant_head DROP COLUMN store_epoch")
    op.execute("REVOKE UPDATE (database_epoch, filled_epoch) ON installation FROM pemba_system")
    op.execute("ALTER TABLE installation DROP COLUMN filled_epoch")
    op.execute("ALTER TABLE installation DROP COLUMN installation_id")
