"""What a user may do, decided from the records inside the transaction.

SpiceDB lags by design, so no decision about records is ever read from it.  This is the same rule as schema.zed's,
written in SQL over the tree; random tests hold the two against each other.  Archived workspaces count here, since
their owners may unarchive them, while in SpiceDB they are out of the graph.  The roster of one that is archived is
empty: a share with it gives nothing.
"""

from __future__ import annotations

from pemba.model import ROLE_PERMISSION, Permission, Role, UserId, WorkspaceId
from pemba.storage.database import TenantTransaction
from pemba.storage.shares import IN_TIME
from pemba.storage.statement import Statement

# What shares of `s` with the workspace `v` give the members `m` of it who are active.
_THROUGH_SHARES = f"""
    JOIN workspaces v ON v.tenant_id = s.tenant_id AND v.id = s.with_workspace_id
        AND v.archive_time IS NULL AND {IN_TIME}
    JOIN memberships m ON m.tenant_id = s.tenant_id AND m.workspace_id = v.id
    JOIN users u ON u.id = m.user_id AND u.status = 'active'
"""
# A tenant admin counts as owner of the root, and so of all that hangs below it (personal workspaces do not).
_ROLES = Statement(
    f"""
    WITH RECURSIVE line AS (
        SELECT id, parent_id, kind FROM workspaces WHERE tenant_id = :tenant_id AND id = :workspace_id
        UNION ALL
        SELECT w.id, w.parent_id, w.kind FROM line JOIN workspaces w
            ON w.tenant_id = :tenant_id AND w.id = line.parent_id
    )
    SELECT CASE WHEN m.workspace_id IS NULL THEN 'owner' ELSE m.role END AS role
    FROM memberships m JOIN users u ON u.id = m.user_id AND u.status = 'active'
    WHERE m.tenant_id = :tenant_id AND m.user_id = :user_id AND (
        m.workspace_id IN (SELECT id FROM line)
        OR m.workspace_id IS NULL AND m.role = 'admin' AND EXISTS (SELECT FROM line WHERE kind = 'root')
    )
    UNION ALL
    SELECT s.role FROM line JOIN shares s ON s.tenant_id = :tenant_id AND s.workspace_id = line.id {_THROUGH_SHARES}
    WHERE m.user_id = :user_id
    """
)
# The same rule the other way round, for lists: `reached (id)` are the workspaces on which a user holds one of `:roles`,
# where the user is active.  What is archived is out of the graph here, as it is for checks.
REACHED = f"""reached AS (
    SELECT w.id FROM workspaces w
    WHERE w.tenant_id = :tenant_id AND w.archive_time IS NULL AND EXISTS (
        SELECT FROM memberships m JOIN users u ON u.id = m.user_id AND u.status = 'active'
        WHERE m.tenant_id = :tenant_id AND m.user_id = CAST(:user_id AS text) AND (
            m.workspace_id = w.id AND m.role = ANY (CAST(:roles AS text[]))
            OR m.workspace_id IS NULL AND m.role = 'admin' AND w.kind = 'root'
        )
    )
    UNION
    SELECT w.id FROM shares s {_THROUGH_SHARES}
    JOIN workspaces w ON w.tenant_id = s.tenant_id AND w.id = s.workspace_id AND w.archive_time IS NULL
    WHERE s.tenant_id = :tenant_id AND m.user_id = CAST(:user_id AS text)
        AND s.role = ANY (CAST(:roles AS text[]))
    UNION
    SELECT w.id FROM reached JOIN workspaces w
        ON w.tenant_id = :tenant_id AND w.parent_id = reached.id AND w.archive_time IS NULL
)"""
_TENANT_ROLE = Statement(
    """
    SELECT m.role FROM memberships m JOIN users u ON u.id = m.user_id AND u.status = 'active'
    WHERE m.tenant_id = :tenant_id AND m.workspace_id IS NULL AND m.user_id = :user_id
    """
)
_BELONGS = Statement(
    """
    SELECT EXISTS (
        SELECT FROM memberships m JOIN users u ON u.id = m.user_id AND u.status = 'active'
        WHERE m.tenant_id = :tenant_id AND m.user_id = :user_id
    ) AS found
    """
)


async def belongs(tx: TenantTransaction, user_id: UserId) -> bool:
    """Whether the user is active and holds any role in the tenant, on itself or on a workspace."""
    return bool((await _BELONGS.one(tx, tenant_id=tx.tenant_id, user_id=user_id))["found"])


async def on_workspace(tx: TenantTransaction, user_id: UserId, workspace_id: WorkspaceId) -> Permission | None:
    """The highest permission that the user holds on the workspace; None where they may not even see it."""
    records = await _ROLES.rows(tx, tenant_id=tx.tenant_id, workspace_id=workspace_id, user_id=user_id)
    held = [ROLE_PERMISSION[Role(record["role"])] for record in records]
    return max(held, key=lambda permission: permission.rank, default=None)


async def on_tenant(tx: TenantTransaction, user_id: UserId) -> Permission | None:
    """`administer` for an admin, `view` for a member, None for anybody else."""
    record = await _TENANT_ROLE.row(tx, tenant_id=tx.tenant_id, user_id=user_id)
    if record is None:
        return None
    return Permission.ADMINISTER if record["role"] == Role.ADMIN else Permission.VIEW
