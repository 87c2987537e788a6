"""API keys, and API keys as subjects of memberships and groups.

Revision ID: 0012
Revises: 0011
"""

from __future__ import annotations

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def holding(table: str, index: str) -> tuple[str, ...]:
    """API keys as subjects of the table's rows."""
    return (
        f"ALTER TABLE {table} DROP CONSTRAINT {table}_subject_type_check",
        f"""
        ALTER TABLE {table} ADD CONSTRAINT {table}_subject_type_check
        CHECK (subject_type IN ('user', 'group', 'api_key'))
        """,
        f"""
        ALTER TABLE {table} ADD COLUMN api_key_id TEXT
        GENERATED ALWAYS AS (CASE WHEN subject_type = 'api_key' THEN subject_id END) STORED
        """,
        f"""
        ALTER TABLE {table} ADD CONSTRAINT {table}_tenant_id_api_key_id_fkey
        FOREIGN KEY (tenant_id, api_key_id) REFERENCES api_keys (tenant_id, id) ON DELETE RESTRICT
        """,
        f"CREATE INDEX {index} ON {table} (tenant_id, api_key_id) WHERE api_key_id IS NOT NULL",
    )


def not_holding(table: str, index: str) -> tuple[str, ...]:
    """What keys hold goes; the tuples that this leaves behind `pemba reconcile` finds.

    Row-level security would hide the rows that are to go: it holds for the owner of a table too.
    """
    return (
        f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY",
        f"DELETE FROM {table} WHERE subject_type = 'api_key'",
        f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY",
        f"DROP INDEX {index}",
        f"ALTER TABLE {table} DROP CONSTRAINT {table}_tenant_id_api_key_id_fkey",
        f"ALTER TABLE {table} DROP COLUMN api_key_id",
        f"ALTER TABLE {table} DROP CONSTRAINT {table}_subject_type_check",
        f"ALTER TABLE {table} ADD CONSTRAINT {table}_subject_type_check CHECK (subject_type IN ('user', 'group'))",
    )


UP = (
    """
    CREATE TABLE api_keys (
        id TEXT NOT NULL,
        tenant_id TEXT,
        user_id TEXT,
        workspace_id TEXT,
        name TEXT NOT NULL CONSTRAINT api_keys_name_check CHECK (char_length(name) BETWEEN 1 AND 200),
        prefix TEXT NOT NULL,
        scopes TEXT[] NOT NULL,
        secret_hash BYTEA NOT NULL,
        previous_hash BYTEA,
        previous_expire_time timestamptz,
        expire_time timestamptz,
        revoke_time timestamptz,
        last_used_time timestamptz,
        created_by TEXT,
        swept BOOLEAN DEFAULT false NOT NULL,
        version BIGINT DEFAULT 1 NOT NULL,
        create_time timestamptz DEFAULT now() NOT NULL,
        update_time timestamptz DEFAULT now() NOT NULL,
        CONSTRAINT api_keys_pkey PRIMARY KEY (id),
        CONSTRAINT api_keys_tenant_id_id_key UNIQUE (tenant_id, id),
        CONSTRAINT api_keys_secret_hash_key UNIQUE (secret_hash),
        CONSTRAINT api_keys_previous_hash_key UNIQUE (previous_hash),
        CONSTRAINT api_keys_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES tenants (id) ON DELETE RESTRICT,
        CONSTRAINT api_keys_user_id_fkey FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE RESTRICT,
        CONSTRAINT api_keys_created_by_fkey FOREIGN KEY (created_by) REFERENCES users (id) ON DELETE RESTRICT,
        CONSTRAINT api_keys_tenant_id_workspace_id_fkey
            FOREIGN KEY (tenant_id, workspace_id) REFERENCES workspaces (tenant_id, id) ON DELETE RESTRICT,
        CONSTRAINT api_keys_hashes_check
            CHECK (octet_length(secret_hash) = 32 AND octet_length(previous_hash) = 32),
        CONSTRAINT api_keys_previous_check CHECK ((previous_hash IS NULL) = (previous_expire_time IS NULL)),
        CONSTRAINT api_keys_scopes_check CHECK (
            cardinality(scopes) > 0 AND scopes <@ ARRAY['check', 'read', 'write', 'admin', 'act_as']
        ),
        CONSTRAINT api_keys_act_as_check CHECK (user_id IS NULL OR 'act_as' <> ALL (scopes)),
        CONSTRAINT api_keys_workspace_check CHECK (workspace_id IS NULL OR tenant_id IS NOT NULL)
    )
    """,
    "CREATE INDEX api_keys_user_id_idx ON api_keys (user_id) WHERE user_id IS NOT NULL",
    "CREATE INDEX api_keys_workspace_idx ON api_keys (tenant_id, workspace_id) WHERE workspace_id IS NOT NULL",
    """
    CREATE INDEX api_keys_expire_time_idx ON api_keys (expire_time)
    WHERE NOT swept AND tenant_id IS NOT NULL AND expire_time IS NOT NULL
    """,
    *holding("memberships", "memberships_api_key_id_idx"),
    *holding("group_members", "group_members_of_key_idx"),
    "GRANT SELECT, INSERT, UPDATE, DELETE ON api_keys TO pemba_api, pemba_system",
    "ALTER TABLE api_keys ENABLE ROW LEVEL SECURITY",
    "ALTER TABLE api_keys FORCE ROW LEVEL SECURITY",
    "CREATE POLICY one_tenant ON api_keys TO pemba_api USING (tenant_id = current_setting('pemba.tenant_id', true))",
    "CREATE POLICY every_tenant ON api_keys TO pemba_system USING (true)",
)

DOWN = (
    *not_holding("group_members", "group_members_of_key_idx"),
    *not_holding("memberships", "memberships_api_key_id_idx"),
    "DROP TABLE api_keys",
)


def upgrade() -> None:
    for statement in UP:
        op.execute(statement)


def downgrade() -> None:
    for statement in DOWN:
        op.execute(statement)
