"""The spine: users, tenants, workspaces, memberships, the outbox and what delivery needs.

Roles are the cluster's, not the database's: the downgrade takes their rights here and leaves the roles themselves,
which other databases may use.

Revision ID: 0001
Revises:
"""

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TABLES = (
    """
    CREATE TABLE installation (
        id SMALLINT NOT NULL CONSTRAINT installation_one_check CHECK (id = 1),
        database_epoch UUID NOT NULL,
        store_epoch UUID NOT NULL,
        schema_number BIGINT DEFAULT 0 NOT NULL,
        create_time timestamptz DEFAULT now() NOT NULL,
        CONSTRAINT installation_pkey PRIMARY KEY (id)
    )
    """,
    """
    CREATE TABLE users (
        id TEXT NOT NULL CONSTRAINT users_id_check CHECK (octet_length(id) BETWEEN 1 AND 256),
        email TEXT,
        display_name TEXT DEFAULT '' NOT NULL,
        status TEXT DEFAULT 'active' NOT NULL,
        suspend_time timestamptz,
        deactivate_time timestamptz,
        last_login_time timestamptz,
        create_time timestamptz DEFAULT now() NOT NULL,
        update_time timestamptz DEFAULT now() NOT NULL,
        CONSTRAINT users_pkey PRIMARY KEY (id),
        CONSTRAINT users_status_check CHECK (status IN ('active', 'suspended', 'deactivated')),
        CONSTRAINT users_suspended_check CHECK ((status = 'suspended') = (suspend_time IS NOT NULL)),
        CONSTRAINT users_deactivated_check CHECK ((status = 'deactivated') = (deactivate_time IS NOT NULL)),
        CONSTRAINT users_email_key UNIQUE (email)
    )
    """,
    """
    CREATE TABLE tenants (
        id TEXT NOT NULL,
        slug TEXT NOT NULL,
        name TEXT NOT NULL CONSTRAINT tenants_name_check CHECK (char_length(name) BETWEEN 1 AND 200),
        status TEXT DEFAULT 'active' NOT NULL,
        suspend_time timestamptz,
        changed_seq BIGINT NOT NULL,
        create_time timestamptz DEFAULT now() NOT NULL,
        update_time timestamptz DEFAULT now() NOT NULL,
        CONSTRAINT tenants_pkey PRIMARY KEY (id),
        CONSTRAINT tenants_slug_key UNIQUE (slug),
        CONSTRAINT tenants_status_check CHECK (status IN ('active', 'suspended')),
        CONSTRAINT tenants_suspended_check CHECK ((status = 'suspended') = (suspend_time IS NOT NULL))
    )
    """,
    """
    CREATE TABLE workspaces (
        tenant_id TEXT NOT NULL,
        id TEXT NOT NULL,
        parent_id TEXT,
        slug TEXT NOT NULL,
        name TEXT NOT NULL CONSTRAINT workspaces_name_check CHECK (char_length(name) BETWEEN 1 AND 200),
        kind TEXT NOT NULL,
        personal_user_id TEXT,
        creator_id TEXT,
        archive_time timestamptz,
        archived_with TEXT,
        changed_seq BIGINT NOT NULL,
        create_time timestamptz DEFAULT now() NOT NULL,
        update_time timestamptz DEFAULT now() NOT NULL,
        CONSTRAINT workspaces_pkey PRIMARY KEY (tenant_id, id),
        CONSTRAINT workspaces_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES tenants (id) ON DELETE RESTRICT,
        CONSTRAINT workspaces_tenant_id_parent_id_fkey
            FOREIGN KEY (tenant_id, parent_id) REFERENCES workspaces (tenant_id, id) ON DELETE RESTRICT,
        CONSTRAINT workspaces_creator_id_fkey FOREIGN KEY (creator_id) REFERENCES users (id) ON DELETE RESTRICT,
        CONSTRAINT workspaces_personal_user_id_fkey
            FOREIGN KEY (personal_user_id) REFERENCES users (id) ON DELETE RESTRICT,
        CONSTRAINT workspaces_kind_check CHECK (kind IN ('root', 'shared', 'personal')),
        CONSTRAINT workspaces_parent_check CHECK ((kind = 'shared') = (parent_id IS NOT NULL)),
        CONSTRAINT workspaces_personal_check CHECK ((kind = 'personal') = (personal_user_id IS NOT NULL)),
        CONSTRAINT workspaces_own_parent_check CHECK (parent_id <> id),
        CONSTRAINT workspaces_archived_check CHECK ((archive_time IS NULL) = (archived_with IS NULL)),
        CONSTRAINT workspaces_root_not_archived_check CHECK (kind <> 'root' OR archive_time IS NULL)
    )
    """,
    """
    CREATE INDEX workspaces_archived_with_idx ON workspaces (tenant_id, archived_with) WHERE archived_with IS NOT NULL
    """,
    "CREATE UNIQUE INDEX workspaces_one_root_key ON workspaces (tenant_id) WHERE kind = 'root'",
    """
    CREATE UNIQUE INDEX workspaces_sibling_slug_key ON workspaces (tenant_id, parent_id, slug)
    WHERE parent_id IS NOT NULL
    """,
    """
    CREATE TABLE memberships (
        tenant_id TEXT NOT NULL,
        workspace_id TEXT,
        subject_type TEXT NOT NULL,
        subject_id TEXT NOT NULL,
        user_id TEXT GENERATED ALWAYS AS (CASE WHEN subject_type = 'user' THEN subject_id END) STORED,
        role TEXT NOT NULL,
        invited_by TEXT,
        changed_seq BIGINT NOT NULL,
        join_time timestamptz DEFAULT now() NOT NULL,
        update_time timestamptz DEFAULT now() NOT NULL,
        CONSTRAINT memberships_subject_key
            UNIQUE NULLS NOT DISTINCT (tenant_id, workspace_id, subject_type, subject_id),
        CONSTRAINT memberships_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES tenants (id) ON DELETE RESTRICT,
        CONSTRAINT memberships_tenant_id_workspace_id_fkey
            FOREIGN KEY (tenant_id, workspace_id) REFERENCES workspaces (tenant_id, id) ON DELETE RESTRICT,
        CONSTRAINT memberships_user_id_fkey FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE RESTRICT,
        CONSTRAINT memberships_invited_by_fkey FOREIGN KEY (invited_by) REFERENCES users (id) ON DELETE RESTRICT,
        CONSTRAINT memberships_subject_type_check CHECK (subject_type IN ('user')),
        CONSTRAINT memberships_role_check CHECK (role IN ('viewer', 'member', 'admin', 'owner')),
        CONSTRAINT memberships_tenant_role_check CHECK (workspace_id IS NOT NULL OR role IN ('member', 'admin')),
        CONSTRAINT memberships_owner_is_user_check CHECK (role <> 'owner' OR subject_type = 'user')
    )
    """,
    "CREATE INDEX memberships_user_id_idx ON memberships (tenant_id, user_id)",
    """
    CREATE TABLE tenant_head (
        tenant_id TEXT NOT NULL,
        shard SMALLINT NOT NULL,
        head_seq BIGINT NOT NULL,
        CONSTRAINT tenant_head_pkey PRIMARY KEY (tenant_id),
        CONSTRAINT tenant_head_shard_check CHECK (shard BETWEEN 0 AND 15),
        CONSTRAINT tenant_head_head_seq_check CHECK (head_seq >= 0)
    )
    WITH (fillfactor = 50)
    """,
    "CREATE INDEX tenant_head_shard_idx ON tenant_head (shard)",
    """
    CREATE TABLE outbox (
        tenant_id TEXT NOT NULL,
        seq BIGINT NOT NULL,
        shard SMALLINT NOT NULL,
        ops JSONB NOT NULL,
        op_count INTEGER NOT NULL,
        op_bytes INTEGER NOT NULL,
        trace JSONB NOT NULL,
        create_time timestamptz DEFAULT now() NOT NULL,
        CONSTRAINT outbox_pkey PRIMARY KEY (tenant_id, seq),
        CONSTRAINT outbox_seq_check CHECK (seq > 0),
        CONSTRAINT outbox_op_count_check CHECK (op_count BETWEEN 0 AND 500 AND op_count = jsonb_array_length(ops)),
        CONSTRAINT outbox_op_bytes_check CHECK (op_bytes BETWEEN 0 AND 2097152)
    )
    """,
    "CREATE INDEX outbox_create_time_idx ON outbox (create_time)",
    """
    CREATE TABLE tenant_delivery (
        tenant_id TEXT NOT NULL,
        shard SMALLINT NOT NULL,
        delivered_seq BIGINT NOT NULL,
        zedtoken TEXT,
        stamp BIGINT NOT NULL,
        schema_number BIGINT NOT NULL,
        store_epoch UUID NOT NULL,
        next_expiry timestamptz,
        parked_from BIGINT,
        update_time timestamptz DEFAULT now() NOT NULL,
        CONSTRAINT tenant_delivery_pkey PRIMARY KEY (tenant_id),
        CONSTRAINT tenant_delivery_delivered_seq_check CHECK (delivered_seq > 0)
    )
    WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 100)
    """,
    "CREATE INDEX tenant_delivery_shard_idx ON tenant_delivery (shard)",
    """
    CREATE TABLE relay_lease (
        shard SMALLINT NOT NULL,
        epoch BIGINT DEFAULT 0 NOT NULL,
        n BIGINT DEFAULT 0 NOT NULL,
        holder TEXT,
        lease_until timestamptz,
        deliveries BIGINT DEFAULT 0 NOT NULL,
        CONSTRAINT relay_lease_pkey PRIMARY KEY (shard),
        CONSTRAINT relay_lease_shard_check CHECK (shard BETWEEN 0 AND 15),
        CONSTRAINT relay_lease_holder_check CHECK ((holder IS NULL) = (lease_until IS NULL))
    )
    WITH (fillfactor = 50)
    """,
    """
    CREATE TABLE idempotency (
        tenant_id TEXT NOT NULL,
        principal TEXT NOT NULL,
        acting_user TEXT NOT NULL,
        method TEXT NOT NULL,
        request_id TEXT NOT NULL,
        body_digest BYTEA NOT NULL,
        response JSONB,
        token TEXT DEFAULT '' NOT NULL,
        create_time timestamptz DEFAULT now() NOT NULL,
        CONSTRAINT idempotency_pkey PRIMARY KEY (tenant_id, principal, acting_user, method, request_id)
    )
    """,
    "CREATE INDEX idempotency_create_time_idx ON idempotency (create_time)",
    """
    CREATE TABLE audit (
        id BIGINT GENERATED ALWAYS AS IDENTITY,
        tenant_id TEXT NOT NULL,
        seq BIGINT,
        create_time timestamptz DEFAULT now() NOT NULL,
        principal TEXT NOT NULL,
        acting_user TEXT,
        peer TEXT NOT NULL,
        request_id TEXT NOT NULL,
        method TEXT NOT NULL,
        object TEXT NOT NULL,
        reason TEXT,
        before JSONB,
        after JSONB,
        ops JSONB NOT NULL,
        CONSTRAINT audit_pkey PRIMARY KEY (id),
        CONSTRAINT audit_refused_check CHECK ((seq IS NULL) = (reason IS NOT NULL))
    )
    """,
    "CREATE INDEX audit_tenant_id_create_time_idx ON audit (tenant_id, create_time)",
    """
    CREATE TABLE schema_version (
        number BIGINT NOT NULL,
        digest TEXT NOT NULL,
        text TEXT NOT NULL,
        state TEXT DEFAULT 'pending' NOT NULL,
        zedtoken TEXT,
        why TEXT,
        create_time timestamptz DEFAULT now() NOT NULL,
        finish_time timestamptz,
        CONSTRAINT schema_version_pkey PRIMARY KEY (number),
        CONSTRAINT schema_version_state_check CHECK (state IN ('pending', 'applied', 'failed')),
        CONSTRAINT schema_version_applied_check CHECK ((state = 'applied') = (zedtoken IS NOT NULL)),
        CONSTRAINT schema_version_failed_check CHECK ((state = 'failed') = (why IS NOT NULL)),
        CONSTRAINT schema_version_pending_check CHECK ((state = 'pending') = (finish_time IS NULL))
    )
    """,
)

# What each role may do.  The API's is no owner and has no BYPASSRLS; it may neither change nor remove audit rows.
# UPDATE on users.last_login_time is also what PostgreSQL asks for before it lets a role lock a user FOR SHARE.
GRANTS = {
    "pemba_api": (
        "SELECT ON installation, tenant_delivery, schema_version",
        "SELECT, INSERT, UPDATE (last_login_time) ON users",
        "SELECT, UPDATE ON tenants",
        "SELECT, INSERT, UPDATE, DELETE ON workspaces, memberships",
        "SELECT, UPDATE ON tenant_head",
        "SELECT, INSERT ON outbox, audit",
        "SELECT, INSERT ON idempotency",
    ),
    "pemba_system": (
        "SELECT ON installation, tenant_delivery, schema_version, relay_lease",
        "SELECT, INSERT, UPDATE, DELETE ON users, tenants, workspaces, memberships, tenant_head",
        "SELECT, INSERT ON outbox, audit",
        "SELECT, INSERT, UPDATE ON idempotency",
    ),
    "pemba_relay": (
        "SELECT ON installation, tenants, tenant_head, schema_version",
        "SELECT, DELETE ON outbox, idempotency",
        "SELECT, INSERT, UPDATE ON tenant_delivery",
        "SELECT, UPDATE ON relay_lease",
    ),
}

# Row-level security: the API's role sees one tenant, the one that its transaction named; unset means no rows.
TENANT_COLUMN = {
    "tenants": "id",
    "workspaces": "tenant_id",
    "memberships": "tenant_id",
    "tenant_head": "tenant_id",
    "outbox": "tenant_id",
    "tenant_delivery": "tenant_id",
    "idempotency": "tenant_id",
    "audit": "tenant_id",
}


def upgrade() -> None:
    for statement in TABLES:
        op.execute(statement)
    op.execute(
        "INSERT INTO installation (id, database_epoch, store_epoch) VALUES (1, gen_random_uuid(), gen_random_uuid())"
    )
    op.execute("INSERT INTO relay_lease (shard) SELECT generate_series(0, 15)")
    op.execute("INSERT INTO tenant_head (tenant_id, shard, head_seq) VALUES ('~', 0, 0)")
    for role, grants in GRANTS.items():
        op.execute(_create_role(role))
        op.execute(f"GRANT {role} TO CURRENT_USER")
        op.execute(f"GRANT USAGE ON SCHEMA public TO {role}")
        for grant in grants:
            op.execute(f"GRANT {grant} TO {role}")
    for table, column in TENANT_COLUMN.items():
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(
            f"CREATE POLICY one_tenant ON {table} TO pemba_api "
            f"USING ({column} = current_setting('pemba.tenant_id', true))"
        )
        op.execute(f"CREATE POLICY every_tenant ON {table} TO pemba_system, pemba_relay USING (true)")


def downgrade() -> None:
    for statement in reversed(TABLES):
        if "CREATE TABLE" in statement:
            op.execute(f"DROP TABLE {statement.split()[2]}")
    for role in GRANTS:
        op.execute(f"REVOKE USAGE ON SCHEMA public FROM {role}")


def _create_role(role: str) -> str:
    """Roles belong to the cluster: another database may have made it, or be making it at this moment."""
    return f"""
    DO $$ BEGIN
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}') THEN
            CREATE ROLE {role} NOLOGIN NOSUPERUSER NOBYPASSRLS;
        END IF;
    EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
    END $$
    """
