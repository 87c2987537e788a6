"""Who has access to a workspace or to the tenant, and through which memberships."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import groupby

from asyncpg import Record

from pemba.model import Role, SubjectRef, WorkspaceId
from pemba.storage.database import TenantTransaction
from pemba.storage.statement import Statement

# The rule is that of `authority`; what is archived gives nobody access, as in checks.
_OF_WORKSPACE = Statement(
    """
    WITH RECURSIVE line AS (
        SELECT id, parent_id, kind, 1 AS level FROM workspaces
        WHERE tenant_id = :tenant_id AND id = :workspace_id AND archive_time IS NULL
        UNION ALL
        SELECT w.id, w.parent_id, w.kind, line.level + 1 FROM line JOIN workspaces w
            ON w.tenant_id = :tenant_id AND w.id = line.parent_id
    ),
    granted AS (
        SELECT m.subject_type, m.subject_id, m.workspace_id, m.role, line.level,
            m.workspace_id IS NULL OR m.role = ANY (CAST(:roles AS text[])) AS counts
        FROM line JOIN memberships m ON m.tenant_id = :tenant_id AND (
            m.workspace_id = line.id OR m.workspace_id IS NULL AND m.role = 'admin' AND line.kind = 'root'
        )
        LEFT JOIN users u ON u.id = m.user_id
        WHERE m.user_id IS NULL OR u.status = 'active'
    ),
    page AS (
        SELECT subject_type, subject_id FROM granted
        WHERE counts AND (subject_type, subject_id) > (:after_type, :after_id)
        GROUP BY subject_type, subject_id ORDER BY subject_type, subject_id LIMIT :limit
    )
    SELECT * FROM page JOIN granted USING (subject_type, subject_id)
    ORDER BY subject_type, subject_id, level, workspace_id NULLS LAST
    """
)
_OF_TENANT = Statement(
    """
    SELECT m.subject_type, m.subject_id, m.workspace_id, m.role
    FROM memberships m LEFT JOIN users u ON u.id = m.user_id
    WHERE m.tenant_id = :tenant_id AND m.workspace_id IS NULL AND m.role = ANY (CAST(:roles AS text[]))
        AND (m.user_id IS NULL OR u.status = 'active')
        AND (m.subject_type, m.subject_id) > (:after_type, :after_id)
    ORDER BY m.subject_type, m.subject_id LIMIT :limit
    """
)

Grants = list[tuple[WorkspaceId | None, Role]]
"""(workspace, None for the tenant itself; role there), from the object upwards."""


async def list_after(
    tx: TenantTransaction, workspace_id: WorkspaceId | None, roles: Collection[Role], after: Sequence[str], limit: int
) -> list[tuple[SubjectRef, Grants]]:
    """At most `limit` subjects with all their grants, whose (type, id) follow `after`, in that order.

    Those with one of `roles` on the workspace's line, and the tenant's admins; for the tenant (None): those with one
    of `roles` on it.
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


def _grant(record: Record) -> tuple[WorkspaceId | None, Role]:
    return record["workspace_id"], Role(record["role"])
