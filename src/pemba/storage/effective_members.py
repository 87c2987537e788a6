"""Who has access to a workspace or to the tenant, and through which memberships, their own or of groups, and shares."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import groupby

from asyncpg import Record

from pemba.model import GroupId, Role, ShareId, SubjectRef, WorkspaceId
from pemba.storage.database import TenantTransaction
from pemba.storage.shares import IN_TIME
from pemba.storage.statement import Statement
from pemba.storage.workspaces import PARENT_OF_LINE

# What is `given (subject_type, subject_id, user_id, group_id, workspace_id, role, level, share_id, with_workspace_id,
# counts)`, that of groups as one for each who is in the group or in groups in it; then a page of the subjects, with all
# that each holds.
_GRANTED = """
    inside (holder, id) AS (
        SELECT group_id, group_id FROM given WHERE group_id IS NOT NULL
        UNION
        SELECT inside.holder, g.member_group_id FROM inside JOIN group_members g
            ON g.tenant_id = :tenant_id AND g.group_id = inside.id AND g.member_group_id IS NOT NULL
    ),
    everybody AS (
        SELECT subject_type, subject_id, user_id, '' AS holder, workspace_id, role, level, share_id,
            with_workspace_id, counts
        FROM given WHERE group_id IS NULL
        UNION
        SELECT g.subject_type, g.subject_id, g.user_id, given.group_id, workspace_id, role, level, share_id,
            with_workspace_id, counts
        FROM given JOIN inside ON inside.holder = given.group_id
        JOIN group_members g ON g.tenant_id = :tenant_id AND g.group_id = inside.id AND g.member_group_id IS NULL
    ),
    granted AS (
        SELECT e.* FROM everybody e LEFT JOIN users u ON u.id = e.user_id
        WHERE e.user_id IS NULL OR u.status = 'active'
    ),
    page AS (
        SELECT subject_type, subject_id FROM granted
        WHERE counts AND (subject_type, subject_id) > (:after_type, :after_id)
        GROUP BY subject_type, subject_id ORDER BY subject_type, subject_id LIMIT :limit
    )
    SELECT * FROM page JOIN granted USING (subject_type, subject_id)
    ORDER BY subject_type, subject_id, level, workspace_id NULLS LAST, share_id NULLS FIRST, holder
"""
# The rule is that of `authority`; what is archived gives nobody access, as in checks.
_OF_WORKSPACE = Statement(
    f"""
    WITH RECURSIVE line AS (
        SELECT id, parent_id, kind, 1 AS level FROM workspaces
        WHERE tenant_id = :tenant_id AND id = :workspace_id AND archive_time IS NULL
        UNION ALL
        SELECT w.id, w.parent_id, w.kind, line.level + 1 FROM line {PARENT_OF_LINE}
    ),
    given AS (
        SELECT m.subject_type, m.subject_id, m.user_id, m.group_id, m.workspace_id, m.role, line.level,
            NULL AS share_id, NULL AS with_workspace_id,
            m.workspace_id IS NULL OR m.role = ANY (CAST(:roles AS text[])) AS counts
        FROM line JOIN memberships m ON m.tenant_id = :tenant_id AND (
            m.workspace_id = line.id OR m.workspace_id IS NULL AND m.role = 'admin' AND line.kind = 'root'
        )
        UNION ALL
        SELECT m.subject_type, m.subject_id, m.user_id, m.group_id, line.id, s.role, line.level,
            s.id, v.id, s.role = ANY (CAST(:roles AS text[]))
        FROM line JOIN shares s ON s.tenant_id = :tenant_id AND s.workspace_id = line.id AND {IN_TIME}
        JOIN workspaces v ON v.tenant_id = :tenant_id AND v.id = s.with_workspace_id AND v.archive_time IS NULL
        JOIN memberships m ON m.tenant_id = :tenant_id AND m.workspace_id = v.id
    ),
    {_GRANTED}
    """
)
_OF_TENANT = Statement(
    f"""
    WITH RECURSIVE given AS (
        SELECT subject_type, subject_id, user_id, group_id, workspace_id, role, 1 AS level,
            NULL AS share_id, NULL AS with_workspace_id, true AS counts
        FROM memberships
        WHERE tenant_id = :tenant_id AND workspace_id IS NULL AND role = ANY (CAST(:roles AS text[]))
    ),
    {_GRANTED}
    """
)


@dataclass(frozen=True, slots=True)
class Grant:
    """A role on a workspace, or (None) on the tenant, of the subject or of a group that they are in.

    By a share, which has both ids: that of one of the roster of the workspace with which it is.
    """

    workspace_id: WorkspaceId | None
    role: Role
    group_id: GroupId | None
    share_id: ShareId | None
    with_workspace_id: WorkspaceId | None


async def list_after(
    tx: TenantTransaction, workspace_id: WorkspaceId | None, roles: Collection[Role], after: Sequence[str], limit: int
) -> list[tuple[SubjectRef, list[Grant]]]:
    """At most `limit` subjects, whose (type, id) follow `after`, in that order; each with what gives it, upwards.

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
    return SubjectRef(record["subject_type"], record["subject_id"])


def _grant(record: Record) -> Grant:
    return Grant(
        record["workspace_id"],
        Role(record["role"]),
        record["holder"] or None,
        record["share_id"],
        record["with_workspace_id"],
    )
