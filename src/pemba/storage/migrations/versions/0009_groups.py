"""Groups: their members, and groups as subjects of memberships.

Revision ID: 0009
Revises: 0008
"""

from __future__ import annotations

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

TABLES = ("groups", "group_members")

UP = (
    """
    CREATE TABLE groups (
        tenant_id TEXT NOT NULL,
        id TEXT NOT NULL,
        slug TEXT NOT NULL,
        name TEXT NOT NULL CONSTRAINT groups_name_check CHECK (char_length(name) BETWEEN 1 AND 200),
        external_id TEXT CONSTRAINT groups_external_id_check CHECK (char_length(external_id) BETWEEN 1 AND 256),
        changed_seq BIGINT NOT NULL,
        create_time timestamptz DEFAULT now() NOT NULL,
        update_time timestamptz DEFAULT now() NOT NULL,
        CONSTRAINT groups_pkey PRIMARY KEY (tenant_id, id),
        CONSTRAINT groups_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES tenants (id) ON DELETE RESTRICT,
        CONSTRAINT groups_slug_key UNIQUE (tenant_id, slug),
        CONSTRAINT groups_external_id_key UNIQUE (tenant_id, external_id)
    )
    """,
    """
    CREATE TABLE group_members (
        tenant_id TEXT NOT NULL,
        group_id TEXT NOT NULL,
        subject_type TEXT NOT NULL,
        subject_id TEXT NOT NULL,
        user_id TEXT GENERATED ALWAYS AS (CASE WHEN subject_type = 'user' THEN subject_id END) STORED,
        member_group_id TEXT GENERATED ALWAYS AS (CASE WHEN subject_type = 'group' THEN subject_id END) STORED,
        manager BOOLEAN DEFAULT false NOT NULL,
        added_by TEXT,
        join_time timestamptz DEFAULT now() NOT NULL,
        CONSTRAINT group_members_pkey PRIMARY KEY (tenant_id, group_id, subject_type, subject_id),
        CONSTRAINT group_members_tenant_id_group_id_fkey
            FOREIGN KEY (tenant_id, group_id) REFERENCES groups (tenant_id, id) ON DELETE RESTRICT,
        CONSTRAINT group_members_tenant_id_member_group_id_fkey
            FOREIGN KEY (tenant_id, member_group_id) REFERENCES groups (tenant_id, id) ON DELETE RESTRICT,
        CONSTRAINT group_members_user_id_fkey FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE RESTRICT,
        CONSTRAINT group_members_added_by_fkey FOREIGN KEY (added_by) REFERENCES users (id) ON DELETE RESTRICT,
        CONSTRAINT group_members_subject_type_check CHECK (subject_type IN ('user', 'group')),
        CONSTRAINT group_members_manager_check CHECK (NOT manager OR subject_type = 'user'),
        CONSTRAINT group_members_own_member_check CHECK (subject_type <> 'group' OR subject_id <> group_id)
    )
    """,
    "CREATE INDEX group_members_of_user_idx ON group_members (user_id, tenant_id, group_id)",
    """
    CREATE INDEX group_members_of_group_idx ON group_members (tenant_id, member_group_id)
    WHERE member_group_id IS NOT NULL
    """,
    "ALTER TABLE memberships DROP CONSTRAINT memberships_subject_type_check",
    """
    ALTER TABLE memberships ADD CONSTRAINT memberships_subject_type_check CHECK (subject_type IN ('user', 'group'))
    """,
    """
    ALTER TABLE memberships ADD COLUMN group_id TEXT
    GENERATED ALWAYS AS (CASE WHEN subject_type = 'group' THEN subject_id END) STORED
    """,
    """
    ALTER TABLE memberships ADD CONSTRAINT memberships_tenant_id_group_id_fkey
    FOREIGN KEY (tenant_id, group_id) REFERENCES groups (tenant_id, id) ON DELETE RESTRICT
    """,
    "CREATE INDEX memberships_group_id_idx ON memberships (tenant_id, group_id) WHERE group_id IS NOT NULL",
)

# What groups hold goes with them; the tuples that this leaves behind `pemba reconcile` finds.  Row-level security would
# hide the rows that are to go: it holds for the owner of a table too.
DOWN = (
    "ALTER TABLE memberships NO FORCE ROW LEVEL SECURITY",
    "DELETE FROM memberships WHERE subject_type = 'group'",
    "ALTER TABLE memberships FORCE ROW LEVEL SECURITY",
    "DROP INDEX memberships_group_id_idx",
    "ALTER TABLE memberships DROP CONSTRAINT memberships_tenant_id_group_id_fkey",
    "ALTER TABLE memberships DROP COLUMN group_id",
    "ALTER TABLE memberships DROP CONSTRAINT memberships_subject_type_check",
    "ALTER TABLE memberships ADD CONSTRAINT memberships_subject_type_check CHECK (subject_type IN ('user'))",
    "DROP TABLE group_members",
    "DROP TABLE groups",
)


def upgrade() -> None:
    for statement in UP:
        op.execute(statement)
    for table in TABLES:
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO pemba_api, pemba_system")
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(
            f"CREATE POLICY one_tenant ON {table} TO pemba_api"
            " USING (tenant_id = current_setting('pemba.tenant_id', true))"
        )
        op.execute(f"CREATE POLICY every_tenant ON {table} TO pemba_system USING (true)")


def downgrade() -> None:
    for statement in DOWN:
        op.execute(statement)
