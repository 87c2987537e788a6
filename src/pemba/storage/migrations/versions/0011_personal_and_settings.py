"""Personal workspaces, at most one a user in a tenant, with that user alone as member; settings of workspaces.

Revision ID: 0011
Revises: 0010
"""

from __future__ import annotations

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

# Of a workspace these change; kind, personal_user_id, ids, slug and creator no server's role may.  Privileges, and no
# trigger: there is nothing to run, and nothing that a later statement could forget.
CHANGING = "name, parent_id, archive_time, archived_with, changed_seq, update_time"

INDEX = """
    CREATE UNIQUE INDEX workspaces_one_personal_key ON workspaces (tenant_id, personal_user_id)
    WHERE personal_user_id IS NOT NULL
"""
FUNCTIONS = (
    # Whoever else gets a role, or another than owner.
    """
    CREATE FUNCTION check_personal_member() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF EXISTS (
            SELECT FROM public.workspaces w
            WHERE w.tenant_id = NEW.tenant_id AND w.id = NEW.workspace_id AND w.kind = 'personal'
                AND (NEW.subject_type, NEW.subject_id, NEW.role) <> ('user', w.personal_user_id, 'owner')
        ) THEN
            RAISE EXCEPTION 'the member of a personal workspace is its user, as owner'
            USING ERRCODE = 'check_violation', CONSTRAINT = 'memberships_personal_check';
        END IF;
        RETURN NEW;
    END $$
    """,
    # At the end of a transaction: a personal workspace of a tenant in use whose user is no member of it.
    """
    CREATE FUNCTION check_personal_has_member() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
        of_tenant text := coalesce(NEW.tenant_id, OLD.tenant_id);
        named text := CASE TG_TABLE_NAME WHEN 'workspaces' THEN to_jsonb(NEW) ->> 'id'
            ELSE to_jsonb(OLD) ->> 'workspace_id' END;
    BEGIN
        IF EXISTS (
            SELECT FROM public.workspaces w
            JOIN public.tenants t ON t.id = w.tenant_id AND t.status IN ('active', 'suspended')
            WHERE w.tenant_id = of_tenant AND w.id = named AND w.kind = 'personal' AND NOT EXISTS (
                SELECT FROM public.memberships m WHERE m.tenant_id = w.tenant_id AND m.workspace_id = w.id
            )
        ) THEN
            RAISE EXCEPTION 'a personal workspace has its user as member'
            USING ERRCODE = 'check_violation', CONSTRAINT = 'memberships_personal_check';
        END IF;
        RETURN NULL;
    END $$
    """,
    # Its arguments are the columns that may name no personal workspace, after the constraint that it speaks for.
    """
    CREATE FUNCTION check_not_personal() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF EXISTS (
            SELECT FROM public.workspaces w
            WHERE w.tenant_id = NEW.tenant_id AND w.kind = 'personal'
                AND w.id IN (to_jsonb(NEW) ->> TG_ARGV[1], to_jsonb(NEW) ->> TG_ARGV[2])
        ) THEN
            RAISE EXCEPTION 'a personal workspace has no children and no shares'
            USING ERRCODE = 'check_violation', CONSTRAINT = TG_ARGV[0];
        END IF;
        RETURN NEW;
    END $$
    """,
)
TRIGGERS = (
    """
    CREATE TRIGGER memberships_personal BEFORE INSERT OR UPDATE ON memberships FOR EACH ROW
    WHEN (NEW.workspace_id IS NOT NULL) EXECUTE FUNCTION check_personal_member()
    """,
    """
    CREATE CONSTRAINT TRIGGER memberships_personal_left AFTER DELETE ON memberships
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
    WHEN (OLD.workspace_id IS NOT NULL AND OLD.role = 'owner') EXECUTE FUNCTION check_personal_has_member()
    """,
    """
    CREATE CONSTRAINT TRIGGER workspaces_personal_member AFTER INSERT ON workspaces
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
    WHEN (NEW.kind = 'personal') EXECUTE FUNCTION check_personal_has_member()
    """,
    """
    CREATE TRIGGER workspaces_personal_parent BEFORE INSERT OR UPDATE OF parent_id ON workspaces FOR EACH ROW
    WHEN (NEW.parent_id IS NOT NULL)
    EXECUTE FUNCTION check_not_personal('workspaces_personal_parent_check', 'parent_id', 'parent_id')
    """,
    """
    CREATE TRIGGER shares_personal BEFORE INSERT OR UPDATE ON shares FOR EACH ROW
    EXECUTE FUNCTION check_not_personal('shares_personal_check', 'workspace_id', 'with_workspace_id')
    """,
)

SETTINGS = (
    """
    CREATE TABLE workspace_settings (
        tenant_id TEXT NOT NULL,
        workspace_id TEXT NOT NULL,
        namespace TEXT NOT NULL,
        name TEXT NOT NULL,
        value JSONB,
        sealed TEXT,
        sealed_under TEXT,
        changed_seq BIGINT NOT NULL,
        update_time timestamptz DEFAULT now() NOT NULL,
        CONSTRAINT workspace_settings_pkey PRIMARY KEY (tenant_id, workspace_id, namespace, name),
        CONSTRAINT workspace_settings_tenant_id_workspace_id_fkey
            FOREIGN KEY (tenant_id, workspace_id) REFERENCES workspaces (tenant_id, id) ON DELETE CASCADE,
        CONSTRAINT workspace_settings_value_check CHECK ((value IS NULL) = (sealed IS NOT NULL)),
        CONSTRAINT workspace_settings_sealed_check CHECK ((sealed IS NULL) = (sealed_under IS NULL)),
        CONSTRAINT workspace_settings_names_check
            CHECK (char_length(namespace) BETWEEN 1 AND 64 AND char_length(name) BETWEEN 1 AND 128),
        CONSTRAINT workspace_settings_sealed_size_check CHECK (octet_length(sealed) <= 16384)
    )
    """,
    "GRANT SELECT, INSERT, UPDATE, DELETE ON workspace_settings TO pemba_api, pemba_system",
    "ALTER TABLE workspace_settings ENABLE ROW LEVEL SECURITY",
    "ALTER TABLE workspace_settings FORCE ROW LEVEL SECURITY",
    """
    CREATE POLICY one_tenant ON workspace_settings TO pemba_api
    USING (tenant_id = current_setting('pemba.tenant_id', true))
    """,
    "CREATE POLICY every_tenant ON workspace_settings TO pemba_system USING (true)",
)

# Personal workspaces stay as they are: an older build knows the kind, though none of what it must not do with it.
DOWN = (
    "DROP TABLE workspace_settings",
    "DROP TRIGGER shares_personal ON shares",
    "DROP TRIGGER workspaces_personal_parent ON workspaces",
    "DROP TRIGGER workspaces_personal_member ON workspaces",
    "DROP TRIGGER memberships_personal_left ON memberships",
    "DROP TRIGGER memberships_personal ON memberships",
    "DROP FUNCTION check_not_personal",
    "DROP FUNCTION check_personal_has_member",
    "DROP FUNCTION check_personal_member",
    "DROP INDEX workspaces_one_personal_key",
    "GRANT UPDATE ON workspaces TO pemba_api, pemba_system",
)


def upgrade() -> None:
    for statement in (INDEX, *FUNCTIONS, *TRIGGERS, *SETTINGS):
        op.execute(statement)
    op.execute("REVOKE UPDATE ON workspaces FROM pemba_api, pemba_system")
    op.execute(f"GRANT UPDATE ({CHANGING}) ON workspaces TO pemba_api, pemba_system")


def downgrade() -> None:
    for statement in DOWN:
        op.execute(statement)
