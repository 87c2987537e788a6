"""Audit: what came of it, what it is about, who read; an index for each way to look for events.

Revision ID: 0013
Revises: 0012
"""

from __future__ import annotations

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

UP = (
    "ALTER TABLE audit ADD COLUMN outcome TEXT DEFAULT 'changed' NOT NULL",
    "ALTER TABLE audit ADD COLUMN part SMALLINT DEFAULT 0 NOT NULL",
    "ALTER TABLE audit ADD COLUMN parts SMALLINT DEFAULT 1 NOT NULL",
    "ALTER TABLE audit ADD COLUMN about TEXT[] DEFAULT '{}' NOT NULL",
    "ALTER TABLE audit DROP CONSTRAINT audit_refused_check",
    "ALTER TABLE audit NO FORCE ROW LEVEL SECURITY",
    "UPDATE audit SET outcome = 'refused' WHERE reason IS NOT NULL AND method <> 'DeclareLoss'",
    "ALTER TABLE audit FORCE ROW LEVEL SECURITY",
    "ALTER TABLE audit ADD CONSTRAINT audit_outcome_check CHECK (outcome IN ('changed', 'refused', 'read'))",
    "ALTER TABLE audit ADD CONSTRAINT audit_seq_check CHECK (outcome = 'changed' OR seq IS NULL)",
    "ALTER TABLE audit ADD CONSTRAINT audit_refused_check CHECK (outcome <> 'refused' OR reason IS NOT NULL)",
    "ALTER TABLE audit ADD CONSTRAINT audit_part_check CHECK (part BETWEEN 0 AND parts - 1)",
    "CREATE INDEX audit_tenant_idx ON audit (tenant_id, id)",
    "CREATE UNIQUE INDEX audit_seq_key ON audit (tenant_id, seq) WHERE seq IS NOT NULL",
    "CREATE INDEX audit_object_idx ON audit (tenant_id, object, id)",
    "CREATE INDEX audit_method_idx ON audit (tenant_id, method, id)",
    "CREATE INDEX audit_request_idx ON audit (tenant_id, request_id, id)",
    "CREATE INDEX audit_principal_idx ON audit (tenant_id, principal, id)",
    "CREATE INDEX audit_acting_user_idx ON audit (tenant_id, acting_user, id) WHERE acting_user IS NOT NULL",
    "CREATE INDEX audit_outcome_idx ON audit (tenant_id, outcome, id) WHERE outcome <> 'changed'",
    """
    CREATE TABLE audit_mention (
        tenant_id TEXT NOT NULL,
        object TEXT NOT NULL,
        audit_id BIGINT NOT NULL,
        CONSTRAINT audit_mention_pkey PRIMARY KEY (tenant_id, object, audit_id)
    )
    """,
    "GRANT SELECT, INSERT ON audit_mention TO pemba_api, pemba_system",
    "GRANT SELECT, DELETE ON audit_mention, audit TO pemba_relay",
    "ALTER TABLE audit_mention ENABLE ROW LEVEL SECURITY",
    "ALTER TABLE audit_mention FORCE ROW LEVEL SECURITY",
    """
    CREATE POLICY one_tenant ON audit_mention TO pemba_api
    USING (tenant_id = current_setting('pemba.tenant_id', true))
    """,
    "CREATE POLICY every_tenant ON audit_mention TO pemba_system, pemba_relay USING (true)",
)

# Who read is forgotten: the table of before has no place for it.
DOWN = (
    "DROP TABLE audit_mention",
    "REVOKE SELECT, DELETE ON audit FROM pemba_relay",
    "ALTER TABLE audit NO FORCE ROW LEVEL SECURITY",
    "DELETE FROM audit WHERE outcome = 'read'",
    "ALTER TABLE audit FORCE ROW LEVEL SECURITY",
    "DROP INDEX audit_outcome_idx",
    "DROP INDEX audit_acting_user_idx",
    "DROP INDEX audit_principal_idx",
    "DROP INDEX audit_request_idx",
    "DROP INDEX audit_method_idx",
    "DROP INDEX audit_object_idx",
    "DROP INDEX audit_seq_key",
    "DROP INDEX audit_tenant_idx",
    "ALTER TABLE audit DROP CONSTRAINT audit_refused_check",
    "ALTER TABLE audit DROP COLUMN about, DROP COLUMN parts, DROP COLUMN part, DROP COLUMN outcome",
    "ALTER TABLE audit ADD CONSTRAINT audit_refused_check CHECK ((seq IS NULL) = (reason IS NOT NULL))",
)


def upgrade() -> None:
    for statement in UP:
        op.execute(statement)


def downgrade() -> None:
    for statement in DOWN:
        op.execute(statement)
