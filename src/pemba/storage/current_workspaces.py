"""The workspace that a user works in: one choice a tenant, the latest of which counts for all of them."""

from __future__ import annotations

from pemba.model import TenantId, UserId, Workspace, WorkspaceId
from pemba.storage.database import SystemTransaction, TenantTransaction
from pemba.storage.statement import Statement
from pemba.storage.workspaces import COLUMNS_OF_W, from_record

_PUT = Statement(
    "INSERT INTO user_current_workspace (user_id, tenant_id, workspace_id)"
    " VALUES (:user_id, :tenant_id, :workspace_id)"
    " ON CONFLICT (user_id, tenant_id) DO UPDATE SET workspace_id = excluded.workspace_id, update_time = now()"
)
_USABLE = "JOIN tenants t ON t.id = w.tenant_id AND t.status = 'active' WHERE w.archive_time IS NULL"
_CHOSEN = Statement(
    f"""
    SELECT {COLUMNS_OF_W} FROM user_current_workspace c
    JOIN workspaces w ON w.tenant_id = c.tenant_id AND w.id = c.workspace_id
    {_USABLE} AND c.user_id = :user_id AND (CAST(:tenant_id AS text) IS NULL OR c.tenant_id = :tenant_id)
    ORDER BY c.update_time DESC, c.tenant_id LIMIT 1
    """
)
# A role on a workspace comes before the root of a tenant that the user administers, one of their own before those of
# groups; of each kind the first one held.
_DEFAULT = Statement(
    f"""
    WITH RECURSIVE groups_of (tenant_id, id) AS (
        SELECT tenant_id, group_id FROM group_members WHERE user_id = :user_id
        UNION
        SELECT g.tenant_id, g.group_id FROM groups_of o JOIN group_members g
            ON g.tenant_id = o.tenant_id AND g.member_group_id = o.id
    ),
    held AS (
        SELECT tenant_id, workspace_id, role, join_time, false AS by_group FROM memberships WHERE user_id = :user_id
        UNION ALL
        SELECT m.tenant_id, m.workspace_id, m.role, m.join_time, true FROM groups_of o JOIN memberships m
            ON m.tenant_id = o.tenant_id AND m.group_id = o.id
    )
    SELECT {COLUMNS_OF_W} FROM held m
    JOIN users u ON u.id = :user_id AND u.status = 'active'
    JOIN workspaces w ON w.tenant_id = m.tenant_id AND (
        w.id = m.workspace_id OR m.workspace_id IS NULL AND m.role = 'admin' AND w.kind = 'root'
    )
    {_USABLE} AND (CAST(:tenant_id AS text) IS NULL OR m.tenant_id = :tenant_id)
    ORDER BY m.workspace_id IS NULL, m.by_group, m.join_time, w.tenant_id, w.id LIMIT 1
    """
)


async def put(
    tx: TenantTransaction | SystemTransaction, user_id: UserId, tenant_id: TenantId, workspace_id: WorkspaceId
) -> None:
    """The user's choice in the tenant."""
    await _PUT.run(tx, user_id=user_id, tenant_id=tenant_id, workspace_id=workspace_id)


async def chosen(tx: SystemTransaction, user_id: UserId, tenant_id: TenantId | None) -> Workspace | None:
    """The latest choice, of one tenant or of all, where it can be used; whether by this user is another question."""
    record = await _CHOSEN.row(tx, user_id=user_id, tenant_id=tenant_id)
    return None if record is None else from_record(record)


async def default(tx: SystemTransaction, user_id: UserId, tenant_id: TenantId | None) -> Workspace | None:
    """Where nothing was chosen: the workspace on which an active user has their first role, else the first root."""
    record = await _DEFAULT.row(tx, user_id=user_id, tenant_id=tenant_id)
    return None if record is None else from_record(record)
