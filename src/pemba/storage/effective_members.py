"""Who has access to a workspace or to the tenant, and through which memberships and shares."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import groupby

from asyncpg import Record

from pemba.model import Role, ShareId, SubjectRef, WorkspaceId
from pemba.storage.database import TenantTransaction
from pemba.storage.shares import IN_TIME
from pemba.storage.statement import Statement

# The rule is that of `authority`; what is archived gives nobody access, as in checks.
_OF_WORKSPACE = Statement(
    f"""
    WITH RECURSIVE line AS (
        SELECT id, parent_id, kind, 1 AS level FROM workspaces
        WHERE tenant_id = :tenant_id AND id = :workspace_id AND archive_time IS NULL
        UNION ALL
        SELECT w.id, w.parent_id, w.kind, line.level + 1 FROM line JOIN workspaces w
            ON w.tenant_id = :tenant_id AND w.id = line.parent_id
    ),
    granted AS (
        SELECT m.subject_type, m.subject_id, m.workspace_id, m.role, line.level, NULL AS share_id,
            NULL AS with_workspace_id, m.workspace_id IS NULL OR m.role = ANY (CAST(:roles AS text[])) AS counts
        FROM line JOIN memberships m ON m.tenant_id = :tenant_id AND (
            m.workspace_id = line.id OR m.workspace_id IS NULL AND m.role = 'admin' AND line.kind = 'root'
        )
        LEFT JOIN users u ON u.id = m.user_id
        WHERE m.user_id IS NULL OR u.status = 'active'
        UNION ALL
        SELECT m.subject_type, m.subject_id, line.id, s.role, line.level, s.id, v.id,
            s.role = ANY (CAST(:roles AS text[]))
        FROM line JOIN shares s ON s.tenant_id = :tenant_id AND s.workspace_id = line.id AND {IN_TIME}
        JOIN workspaces v ON v.tenant_id = :tenant_id AND v.id = s.with_workspace_id AND v.archive_time IS NULL
        JOIN memberships m ON m.tenant_id = :tenant_id AND m.workspace_id = v.id
        LEFT JOIN users u ON u.id = m.user_id
        WHERE m.user_id IS NULL OR u.status = 'active'
    ),
    page AS (
        SELECT subject_type, subject_id FROM granted
        WHERE counts AND (subject_type, subject_id) > (:after_type, :after_id)
        GROUP BY subject_type, subject_id ORDER BY subject_type, subject_id LIMIT :limit
    )
    SELECT * FROM page JOIN granted USING (subject_type, subject_id)
    ORDER BY subject_type, subject_id, level, workspace_id NULLS LAST, share_id NULLS FIRST
    """
)
_OF_TENANT = Statement(
    """
    SELECT m.subject_type, m.subject_id, m.workspace_id, m.role, NULL AS share_id, NULL AS with_workspace_id
    FROM memberships m LEFT JOIN users u ON u.id = m.user_id
    WHERE m.tenant_id = :tenant_id AND m.workspace_id IS NULL AND m.role = ANY (CAST(:roles AS text[]))
        AND (m.user_id IS NULL OR u.status = 'active')
        AND (m.subject_type, m.subject_id) > (:after_type, :after_id)
    ORDER BY m.subject_type, m.subject_id LIMIT :limit
    """
)


@dataclass(frozen=True, slots=True)
class Grant:
    """A role on a workspace (None: on the tenant itself): the subject's own, or one by a share that has both ids."""

    workspace_id: WorkspaceId | None
    role: Role
    share_id: ShareId | None
    with_workspace_id: WorkspaceId | None


async def list_after(
    tx: TenantTransaction, workspace_id: WorkspaceId | None, roles: Collection[Role], after: Sequence[str], limit: int
) -> list[tuple[SubjectRef, list[Grant]]]:
    """At most `limit` subjects with all their grants, whose (type, id) follow `after`, in that order.

    Those with one of `roles` on the workspace's line, and the tenant's admins; for the tenant (None): those with one
    of `roles` on it.  Grants run from the object upwards.
    """
    page = {"tenant_id": tx.tenant_id, "roles": list(roles), "limit": limit}
    page |= {"after_type": after[0], "after_id": after[1]}
    if workspace_id is None:
        records = await _OF_TENANT.rows(tx, **page)
    else:
        records = await _OF_WORKSPACE.rows(tx, workspace_id=workspace_id, **page)
    return [(subject, [_grant(r) for r in grants]) for subject, grants in groupby(records, _subject)]


def _subject(record: Record) -> SubjectRef:
    return SubjectRef(
        record["subject_type"], record["subject_id"], "member" if record["subject_type"] == "group" else ""
    )


def _grant(record: Record) -> Grant:
    return Grant(record["workspace_id"], Role(record["role"]), record["share_id"], record["with_workspace_id"])
