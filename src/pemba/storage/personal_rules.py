"""What PostgreSQL itself keeps of personal workspaces, where a CHECK does not reach.

That `personal_user_id` goes with the kind is a CHECK, that a user has one in a tenant a unique index, and both columns
never change because no role that a server takes on may update them.  What is left is between rows of several tables,
and so these triggers'.  They need no locks: what they read of a workspace never changes, and foreign keys keep it.
"""

from __future__ import annotations

import sqlalchemy as sa

# Raised as violations of constraints, which storage.errors knows.
MEMBERSHIP = "memberships_personal_check"
TREE = "workspaces_personal_parent_check"
SHARED = "shares_personal_check"

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


def attach(metadata: sa.MetaData) -> None:
    """Whatever makes these tables makes the triggers as well."""
    for statement in (*FUNCTIONS, *TRIGGERS):
        sa.event.listen(metadata, "after_create", sa.DDL(statement))  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it open
