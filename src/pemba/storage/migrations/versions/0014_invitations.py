"""Invitations.

Revision ID: 0014
Revises: 0013
"""

from __future__ import annotations

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

UP = (
    """
    CREATE TABLE invitations (
        tenant_id TEXT NOT NULL,
        id TEXT NOT NULL,
        workspace_id TEXT,
        email TEXT NOT NULL,
        role TEXT NOT NULL,
        invited_by TEXT,
        accepted_by TEXT,
        outcome TEXT,
        expire_time timestamptz NOT NULL,
        end_time timestamptz,
        create_time timestamptz DEFAULT now() NOT NULL,
        changed_seq BIGINT NOT NULL,
        CONSTRAINT invitations_pkey PRIMARY KEY (tenant_id, id),
        CONSTRAINT invitations_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES tenants (id) ON DELETE CASCADE,
        CONSTRAINT invitations_tenant_id_workspace_id_fkey
            FOREIGN KEY (tenant_id, workspace_id) REFERENCES workspaces (tenant_id, id) ON DELETE CASCADE,
        CONSTRAINT invitations_invited_by_fkey FOREIGN KEY (invited_by) REFERENCES users (id) ON DELETE RESTRICT,
        CONSTRAINT invitations_accepted_by_fkey FOREIGN KEY (accepted_by) REFERENCES users (id) ON DELETE RESTRICT,
        CONSTRAINT invitations_email_check CHECK (octet_length(email) BETWEEN 3 AND 320),
        CONSTRAINT invitations_role_check CHECK (
            CASE WHEN workspace_id IS NULL THEN role IN ('member', 'admin')
            ELSE role IN ('viewer', 'member', 'admin', 'owner') END
        ),
        CONSTRAINT invitations_outcome_check CHECK (outcome IN ('accepted', 'declined', 'revoked')),
        CONSTRAINT invitations_end_check CHECK ((outcome IS NULL) = (end_time IS NULL)),
        CONSTRAINT invitations_accepted_check
            CHECK ((accepted_by IS NOT NULL) = (outcome IS NOT DISTINCT FROM 'accepted'))
    )
    """,
    "CREATE INDEX invitations_workspace_idx ON invitations (tenant_id, workspace_id, id)",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON invitations TO pemba_api, pemba_system",
    "ALTER TABLE invitations ENABLE ROW LEVEL SECURITY",
    "ALTER TABLE invitations FORCE ROW LEVEL SECURITY",
    """
    CREATE POLICY one_tenant ON invitations TO pemba_api
    USING (tenant_id = current_setting('pemba.tenant_id', true))
    """,
    "CREATE POLICY every_tenant ON invitations TO pemba_system USING (true)",
)


def upgrade() -> None:
    for statement in UP:
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TABLE invitations")
