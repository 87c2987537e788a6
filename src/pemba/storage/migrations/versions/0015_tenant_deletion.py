"""Tenants that are being deleted: another status, and no record of them for the API's role.

Revision ID: 0015
Revises: 0014
"""

from __future__ import annotations

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

TABLE = (
    """
    CREATE TABLE tenant_deletion (
        tenant_id TEXT NOT NULL,
        slug TEXT NOT NULL,
        name TEXT NOT NULL CONSTRAINT tenant_deletion_name_check CHECK (char_length(name) BETWEEN 1 AND 200),
        request_id TEXT NOT NULL,
        counts JSONB NOT NULL,
        create_time timestamptz DEFAULT now() NOT NULL,
        update_time timestamptz DEFAULT now() NOT NULL,
        finish_time timestamptz,
        CONSTRAINT tenant_deletion_pkey PRIMARY KEY (tenant_id)
    )
    """,
    "CREATE INDEX tenant_deletion_slug_idx ON tenant_deletion (slug, create_time)",
    "CREATE INDEX tenant_deletion_update_time_idx ON tenant_deletion (update_time) WHERE finish_time IS NULL",
    "GRANT SELECT ON tenant_deletion TO pemba_api",
    "GRANT SELECT, INSERT, UPDATE ON tenant_deletion TO pemba_system",
    "GRANT DELETE ON idempotency TO pemba_system",
    "ALTER TABLE tenant_deletion ENABLE ROW LEVEL SECURITY",
    "ALTER TABLE tenant_deletion FORCE ROW LEVEL SECURITY",
    """
    CREATE POLICY one_tenant ON tenant_deletion TO pemba_api
    USING (tenant_id = current_setting('pemba.tenant_id', true))
    """,
    "CREATE POLICY every_tenant ON tenant_deletion TO pemba_system USING (true)",
)

# What callers see of a tenant.  Streams are not among it: a repair goes on, and deletes what it finds.
TENANT_COLUMN = {
    "tenants": "id",
    "workspaces": "tenant_id",
    "memberships": "tenant_id",
    "shares": "tenant_id",
    "groups": "tenant_id",
    "group_members": "tenant_id",
    "api_keys": "tenant_id",
    "user_current_workspace": "tenant_id",
    "workspace_settings": "tenant_id",
    "invitations": "tenant_id",
    "idempotency": "tenant_id",
}


def upgrade() -> None:
    statuses("'active', 'suspended', 'deleting'")
    for statement in TABLE:
        op.execute(statement)
    # It names no column of the table: one look for each statement, whatever rows that has.
    there = "NOT EXISTS (SELECT FROM tenant_deletion d WHERE d.tenant_id = current_setting('pemba.tenant_id', true))"
    for table, column in TENANT_COLUMN.items():
        one = f"{column} = current_setting('pemba.tenant_id', true)"
        op.execute(f"ALTER POLICY one_tenant ON {table} USING ({one} AND {there})")


def downgrade() -> None:
    """What is left of a tenant whose deletion is under way is suspended: nobody may do anything in it."""
    for table, column in TENANT_COLUMN.items():
        op.execute(f"ALTER POLICY one_tenant ON {table} USING ({column} = current_setting('pemba.tenant_id', true))")
    # Row-level security would hide the rows: it holds for the owner of a table too.
    op.execute("ALTER TABLE tenants NO FORCE ROW LEVEL SECURITY")
    op.execute("UPDATE tenants SET status = 'suspended', suspend_time = now() WHERE status = 'deleting'")
    op.execute("ALTER TABLE tenants FORCE ROW LEVEL SECURITY")
    statuses("'active', 'suspended'")
    op.execute("DROP TABLE tenant_deletion")
    op.execute("REVOKE DELETE ON idempotency FROM pemba_system")


def statuses(values: str) -> None:
    op.execute("ALTER TABLE tenants DROP CONSTRAINT tenants_status_check")
    op.execute(f"ALTER TABLE tenants ADD CONSTRAINT tenants_status_check CHECK (status IN ({values}))")
