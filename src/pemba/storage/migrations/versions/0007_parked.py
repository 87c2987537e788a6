"""Operations that SpiceDB refuses: parked one by one, so that the stream of their tenant goes on.

Revision ID: 0007
Revises: 0006
"""

from __future__ import annotations

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

GRANTS = {
    "pemba_api": "SELECT, UPDATE (retried_under)",
    "pemba_system": "SELECT",
    "pemba_relay": "SELECT, INSERT, UPDATE, DELETE",
}


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE parked_operation (
            tenant_id TEXT NOT NULL,
            tuple TEXT NOT NULL,
            op TEXT NOT NULL,
            seq BIGINT NOT NULL,
            since_seq BIGINT NOT NULL,
            effect TEXT NOT NULL,
            reason TEXT NOT NULL,
            message TEXT NOT NULL,
            schema_number BIGINT NOT NULL,
            retried_under BIGINT,
            park_time timestamptz DEFAULT now() NOT NULL,
            CONSTRAINT parked_operation_pkey PRIMARY KEY (tenant_id, tuple),
            CONSTRAINT parked_operation_op_check CHECK (op IN ('touch', 'delete')),
            CONSTRAINT parked_operation_effect_check CHECK (effect IN ('grants_less', 'withdrawn', 'restricts')),
            CONSTRAINT parked_operation_delete_check CHECK (op = 'touch' OR effect = 'restricts'),
            CONSTRAINT parked_operation_seq_check CHECK (since_seq BETWEEN 1 AND seq)
        )
        """
    )
    op.execute("CREATE INDEX parked_operation_since_seq_idx ON parked_operation (tenant_id, since_seq, tuple)")
    for role, rights in GRANTS.items():
        op.execute(f"GRANT {rights} ON parked_operation TO {role}")
    op.execute("ALTER TABLE parked_operation ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE parked_operation FORCE ROW LEVEL SECURITY")
    op.execute(
        "CREATE POLICY one_tenant ON parked_operation TO pemba_api "
        "USING (tenant_id = current_setting('pemba.tenant_id', true))"
    )
    op.execute("CREATE POLICY every_tenant ON parked_operation TO pemba_system, pemba_relay USING (true)")
    # A tenant's first row may be parked before anything of it is delivered.
    op.execute("ALTER TABLE tenant_delivery DROP CONSTRAINT tenant_delivery_delivered_seq_check")
    op.execute(
        """
        ALTER TABLE tenant_delivery
            ADD COLUMN parked_under BIGINT,
            ADD COLUMN closed BOOLEAN DEFAULT false NOT NULL,
            ADD CONSTRAINT tenant_delivery_delivered_seq_check CHECK (delivered_seq >= 0),
            ADD CONSTRAINT tenant_delivery_parked_check CHECK ((parked_from IS NULL) = (parked_under IS NULL)),
            ADD CONSTRAINT tenant_delivery_closed_check CHECK (NOT closed OR parked_from IS NOT NULL)
        """
    )


def downgrade() -> None:
    op.execute("DELETE FROM tenant_delivery WHERE delivered_seq = 0")
    op.execute("UPDATE tenant_delivery SET parked_from = NULL, parked_under = NULL, closed = false")
    op.execute("ALTER TABLE tenant_delivery DROP CONSTRAINT tenant_delivery_delivered_seq_check")
    op.execute("ALTER TABLE tenant_delivery DROP COLUMN parked_under, DROP COLUMN closed")
    op.execute(
        "ALTER TABLE tenant_delivery ADD CONSTRAINT tenant_delivery_delivered_seq_check CHECK (delivered_seq > 0)"
    )
    op.execute("DROP TABLE parked_operation")
