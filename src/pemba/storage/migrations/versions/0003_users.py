"""Users: etags, activations under way, emails unique whatever their case, current workspaces, and status jobs.

Revision ID: 0003
Revises: 0002
"""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

UP = (
    "ALTER TABLE users ADD COLUMN activating BOOLEAN DEFAULT false NOT NULL",
    "ALTER TABLE users ADD COLUMN version BIGINT DEFAULT 0 NOT NULL",
    "ALTER TABLE users ADD CONSTRAINT users_activating_check CHECK (NOT activating OR status = 'suspended')",
    "ALTER TABLE users ADD CONSTRAINT users_email_check CHECK (octet_length(email) BETWEEN 3 AND 320)",
    "ALTER TABLE users ADD CONSTRAINT users_display_name_check CHECK (char_length(display_name) <= 200)",
    "ALTER TABLE users DROP CONSTRAINT users_email_key",
    "CREATE UNIQUE INDEX users_email_key ON users (lower(email))",
    """CREATE INDEX users_email_idx ON users ((coalesce(lower(email), '') COLLATE "C"), id)""",
    """CREATE INDEX users_display_name_idx ON users ((lower(display_name) COLLATE "C"))""",
    "CREATE INDEX users_create_time_idx ON users (create_time, id)",
    "CREATE INDEX memberships_of_user_idx ON memberships (user_id, tenant_id, (coalesce(workspace_id, '')))",
    """
    CREATE TABLE user_current_workspace (
        user_id TEXT NOT NULL,
        tenant_id TEXT NOT NULL,
        workspace_id TEXT NOT NULL,
        update_time timestamptz DEFAULT now() NOT NULL,
        CONSTRAINT user_current_workspace_pkey PRIMARY KEY (user_id, tenant_id),
        CONSTRAINT user_current_workspace_user_id_fkey FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE RESTRICT,
        CONSTRAINT user_current_workspace_tenant_id_workspace_id_fkey
            FOREIGN KEY (tenant_id, workspace_id) REFERENCES workspaces (tenant_id, id) ON DELETE CASCADE
    )
    """,
    "CREATE INDEX user_current_workspace_workspace_idx ON user_current_workspace (tenant_id, workspace_id)",
    """
    CREATE TABLE user_job (
        user_id TEXT NOT NULL,
        goal TEXT NOT NULL,
        user_version BIGINT NOT NULL,
        after_tenant TEXT DEFAULT '' NOT NULL,
        after_workspace TEXT DEFAULT '' NOT NULL,
        request_id TEXT NOT NULL,
        create_time timestamptz DEFAULT now() NOT NULL,
        update_time timestamptz DEFAULT now() NOT NULL,
        CONSTRAINT user_job_pkey PRIMARY KEY (user_id),
        CONSTRAINT user_job_user_id_fkey FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE RESTRICT,
        CONSTRAINT user_job_goal_check CHECK (goal IN ('withdraw', 'restore', 'remove'))
    )
    """,
    "CREATE INDEX user_job_update_time_idx ON user_job (update_time)",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON user_current_workspace TO pemba_api, pemba_system",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON user_job TO pemba_system",
    "ALTER TABLE user_current_workspace ENABLE ROW LEVEL SECURITY",
    "ALTER TABLE user_current_workspace FORCE ROW LEVEL SECURITY",
    """
    CREATE POLICY one_tenant ON user_current_workspace TO pemba_api
    USING (tenant_id = current_setting('pemba.tenant_id', true))
    """,
    "CREATE POLICY every_tenant ON user_current_workspace TO pemba_system USING (true)",
)

# An activation that is under way ends with its job: the user stays suspended.  Of emails that differ by their case
# alone there were none while 0003 was in force, so the old constraint holds.
DOWN = (
    "DROP TABLE user_job",
    "DROP TABLE user_current_workspace",
    "DROP INDEX memberships_of_user_idx",
    "DROP INDEX users_create_time_idx",
    "DROP INDEX users_display_name_idx",
    "DROP INDEX users_email_idx",
    "DROP INDEX users_email_key",
    "ALTER TABLE users ADD CONSTRAINT users_email_key UNIQUE (email)",
    "ALTER TABLE users DROP CONSTRAINT users_display_name_check",
    "ALTER TABLE users DROP CONSTRAINT users_email_check",
    "ALTER TABLE users DROP CONSTRAINT users_activating_check",
    "ALTER TABLE users DROP COLUMN version",
    "ALTER TABLE users DROP COLUMN activating",
)


def upgrade() -> None:
    for statement in UP:
        op.execute(statement)


def downgrade() -> None:
    for statement in DOWN:
        op.execute(statement)
