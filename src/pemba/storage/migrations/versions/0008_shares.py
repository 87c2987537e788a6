"""Shares of workspaces, and when the next of a tenant's tuples expires.

Revision ID: 0008
Revises: 0007
"""

from __future__ import annotations

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

UP = (
    """
    CREATE TABLE shares (
        tenant_id TEXT NOT NULL,
        id TEXT NOT NULL,
        workspace_id TEXT NOT NULL,
        with_workspace_id TEXT NOT NULL,
        role TEXT NOT NULL,
        expire_time timestamptz,
        created_by TEXT,
        changed_seq BIGINT NOT NULL,
        create_time timestamptz DEFAULT now() NOT NULL,
        CONSTRAINT shares_pkey PRIMARY KEY (tenant_id, id),
        CONSTRAINT shares_pair_key UNIQUE (tenant_id, workspace_id, with_workspace_id),
        CONSTRAINT shares_tenant_id_workspace_id_fkey
            FOREIGN KEY (tenant_id, workspace_id) REFERENCES workspaces (tenant_id, id) ON DELETE RESTRICT,
        CONSTRAINT shares_tenant_id_with_workspace_id_fkey
            FOREIGN KEY (tenant_id, with_workspace_id) REFERENCES workspaces (tenant_id, id) ON DELETE RESTRICT,
        CONSTRAINT shares_created_by_fkey FOREIGN KEY (created_by) REFERENCES users (id) ON DELETE RESTRICT,
        CONSTRAINT shares_role_check CHECK (role IN ('viewer', 'member', 'admin')),
        CONSTRAINT shares_with_itself_check CHECK (workspace_id <> with_workspace_id),
        CONSTRAINT shares_whole_seconds_check CHECK (expire_time = date_trunc('second', expire_time))
    )
    """,
    "CREATE INDEX shares_with_workspace_idx ON shares (tenant_id, with_workspace_id)",
    "CREATE INDEX shares_expire_time_idx ON shares (expire_time) WHERE expire_time IS NOT NULL",
    "CREATE INDEX shares_next_expiry_idx ON shares (tenant_id, expire_time) WHERE expire_time IS NOT NULL",
    "GRANT SELECT, INSERT, DELETE ON shares TO pemba_api, pemba_system",
    "ALTER TABLE shares ENABLE ROW LEVEL SECURITY",
    "ALTER TABLE shares FORCE ROW LEVEL SECURITY",
    "CREATE POLICY one_tenant ON shares TO pemba_api USING (tenant_id = current_setting('pemba.tenant_id', true))",
    "CREATE POLICY every_tenant ON shares TO pemba_system USING (true)",
    "ALTER TABLE outbox ADD COLUMN next_expiry timestamptz",
    "CREATE UNIQUE INDEX parked_operation_plain_key ON parked_operation (tenant_id, split_part(tuple, '[', 1))",
)

# The tuples of shares stay in SpiceDB: once no build that knows shares runs any more, `pemba reconcile --apply`
# takes them out.
DOWN = (
    "DROP INDEX parked_operation_plain_key",
    "ALTER TABLE outbox DROP COLUMN next_expiry",
    "DROP TABLE shares",
)


def upgrade() -> None:
    for statement in UP:
        op.execute(statement)


def downgrade() -> None:
    for statement in DOWN:
        op.execute(statement)
