"""What a user may do, decided from the records inside the transaction.

SpiceDB lags by design, so no decision about records is ever read from it.  This is the same rule as schema.zed's,
written in SQL over the tree and the groups; random tests hold the two against each other.  Archived workspaces count
here, since their owners may unarchive them, while in SpiceDB they are out of the graph.  The roster of one that is
archived is empty: a share with it gives nothing.
"""

from __future__ import annotations

from pemba.model import ROLE_PERMISSION, GroupId, Permission, Role, UserId, WorkspaceId
from pemba.storage.database import TenantTransaction
from pemba.storage.shares import IN_TIME
from pemba.storage.statement import Statement
from pemba.storage.workspaces import PARENT_OF_LINE

# `groups_of (id)`: the groups that a user is in, by themselves or through groups in them, where the user is active.
GROUPS_OF = """groups_of (id) AS (
    SELECT g.group_id FROM group_members g JOIN users u ON u.id = g.user_id AND u.status = 'active'
    WHERE g.tenant_id = :tenant_id AND g.user_id = CAST(:user_id AS text)
    UNION
    SELECT g.group_id FROM groups_of JOIN group_members g
        ON g.tenant_id = :tenant_id AND g.member_group_id = groups_of.id
)"""
# `held (workspace_id, role)`: the roles that a user, being active, holds in the tenant by themselves and through these.
HELD = f"""{GROUPS_OF},
held AS (
    SELECT m.workspace_id, m.role FROM memberships m JOIN users u ON u.id = m.user_id AND u.status = 'active'
    WHERE m.tenant_id = :tenant_id AND m.user_id = CAST(:user_id AS text)
    UNION
    SELECT m.workspace_id, m.role FROM groups_of JOIN memberships m
        ON m.tenant_id = :tenant_id AND m.group_id = groups_of.id
)"""
# That the share `s` counts, and gives its role to the user whose roles `held` are: they hold one on the workspace with
# which it is, and so are of its roster.
_THROUGH_SHARE = f"""
    {IN_TIME} AND EXISTS (
        SELECT FROM workspaces v WHERE v.tenant_id = s.tenant_id AND v.id = s.with_workspace_id
            AND v.archive_time IS NULL AND v.id IN (SELECT workspace_id FROM held)
    )
"""
# A tenant admin counts as owner of the root, and so of all that hangs below it (personal workspaces do not).
_ROLES = Statement(
    f"""
    WITH RECURSIVE line AS (
        SELECT id, parent_id, kind FROM workspaces WHERE tenant_id = :tenant_id AND id = :workspace_id
        UNION ALL
        SELECT w.id, w.parent_id, w.kind FROM line {PARENT_OF_LINE}
    ),
    {HELD}
    SELECT CASE WHEN workspace_id IS NULL THEN 'owner' ELSE role END AS role FROM held
    WHERE workspace_id IN (SELECT id FROM line)
        OR workspace_id IS NULL AND role = 'admin' AND EXISTS (SELECT FROM line WHERE kind = 'root')
    UNION ALL
    SELECT s.role FROM line JOIN shares s ON s.tenant_id = :tenant_id AND s.workspace_id = line.id
    WHERE {_THROUGH_SHARE}
    """
)
# The same rule the other way round, for lists: `reached (id)` are the workspaces on which a user holds one of `:roles`,
# where the user is active.  What is archived is out of the graph here, as it is for checks.
REACHED = f"""{HELD},
reached AS (
    SELECT w.id FROM workspaces w
    WHERE w.tenant_id = :tenant_id AND w.archive_time IS NULL AND (
        w.id IN (SELECT workspace_id FROM held WHERE role = ANY (CAST(:roles AS text[])))
        OR w.kind = 'root' AND EXISTS (SELECT FROM held WHERE workspace_id IS NULL AND role = 'admin')
    )
    UNION
    SELECT w.id FROM shares s
    JOIN workspaces w ON w.tenant_id = s.tenant_id AND w.id = s.workspace_id AND w.archive_time IS NULL
    WHERE s.tenant_id = :tenant_id AND s.role = ANY (CAST(:roles AS text[])) AND {_THROUGH_SHARE}
    UNION
    SELECT w.id FROM reached JOIN workspaces w
        ON w.tenant_id = :tenant_id AND w.parent_id = reached.id AND w.archive_time IS NULL
)"""
_TENANT_ROLES = Statement(f"WITH RECURSIVE {HELD} SELECT role FROM held WHERE workspace_id IS NULL")
_GROUPS = Statement(f"WITH RECURSIVE {GROUPS_OF} SELECT id FROM groups_of")
_MANAGES = Statement(
    """
    SELECT EXISTS (
        SELECT FROM group_members g JOIN users u ON u.id = g.user_id AND u.status = 'active'
        WHERE g.tenant_id = :tenant_id AND g.group_id = :group_id AND g.user_id = :user_id AND g.manager
    ) AS found
    """
)
_BELONGS = Statement(
    """
    SELECT EXISTS (
        SELECT FROM users u JOIN tenants t ON t.id = :tenant_id AND t.status <> 'deleting'
        WHERE u.id = :user_id AND u.status = 'active' AND (
            EXISTS (SELECT FROM memberships m WHERE m.tenant_id = :tenant_id AND m.user_id = u.id)
            OR EXISTS (SELECT FROM group_members g WHERE g.tenant_id = :tenant_id AND g.user_id = u.id)
        )
    ) AS found
    """
)


async def belongs(tx: TenantTransaction, user_id: UserId) -> bool:
    """Whether the user is active and holds any role in the tenant, on itself or on a workspace, or is in a group."""
    return bool((await _BELONGS.one(tx, tenant_id=tx.tenant_id, user_id=user_id))["found"])


async def on_workspace(tx: TenantTransaction, user_id: UserId, workspace_id: WorkspaceId) -> Permission | None:
    """The highest permission that the user holds on the workspace; None where they may not even see it."""
    records = await _ROLES.rows(tx, tenant_id=tx.tenant_id, workspace_id=workspace_id, user_id=user_id)
    held = [ROLE_PERMISSION[Role(record["role"])] for record in records]
    return max(held, key=lambda permission: permission.rank, default=None)


async def on_tenant(tx: TenantTransaction, user_id: UserId) -> Permission | None:
    """`administer` for an admin, `view` for a member, None for anybody else."""
    held = {record["role"] for record in await _TENANT_ROLES.rows(tx, tenant_id=tx.tenant_id, user_id=user_id)}
    if not held:
        return None
    return Permission.ADMINISTER if Role.ADMIN in held else Permission.VIEW


async def groups_of(tx: TenantTransaction, user_id: UserId) -> set[GroupId]:
    """The groups that the user, being active, is in, by themselves or through groups in them."""
    return {GroupId(r["id"]) for r in await _GROUPS.rows(tx, tenant_id=tx.tenant_id, user_id=user_id)}


async def manages(tx: TenantTransaction, user_id: UserId, group_id: GroupId) -> bool:
    """Whether the user is active and a manager of the group."""
    record = await _MANAGES.one(tx, tenant_id=tx.tenant_id, group_id=group_id, user_id=user_id)
    return bool(record["found"])
