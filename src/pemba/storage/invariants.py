"""What must hold of records and no constraint keeps, or kept when they were written: what breaks it, found by reading.

Each statement reads a table from end to end: for a command that a person calls, and for nothing that serves.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from asyncpg import Record

from pemba.model import MAX_WORKSPACE_DEPTH, TenantId, UserId, WorkspaceId
from pemba.storage import outbox
from pemba.storage.database import SystemTransaction
from pemba.storage.statement import Statement


class Broken(StrEnum):
    """An invariant that does not hold."""

    PERSONAL_STRANGER = "personal_stranger"
    """Somebody else has a role on the personal workspace of a user who can have one, or that user another role."""
    PERSONAL_WITHOUT_OWNER = "personal_without_owner"
    """The user of a personal workspace is not its owner."""
    PERSONAL_SHARED = "personal_shared"
    PERSONAL_CHILDREN = "personal_children"
    PERSONAL_TWICE = "personal_twice"
    """A user has more than one in a tenant."""
    PERSONAL_OF_NOBODY = "personal_of_nobody"
    """Its user is deactivated, and nothing is left to do about that."""
    HEAD_MISSING = "head_missing"
    """A tenant without the head of its stream: no change of it is possible."""
    JOB_MISSING = "job_missing"
    """A change of a user's status is not carried out to its end, and no job is left to do it."""
    ROOT_MISSING = "root_missing"
    ADMIN_MISSING = "admin_missing"
    """A tenant in use without an active admin."""
    TREE_BROKEN = "tree_broken"
    """A workspace from which no way leads up to the root, within the levels that a tree has."""
    ARCHIVE_BROKEN = "archive_broken"
    """A workspace in use below an archived one."""


@dataclass(frozen=True, slots=True)
class Finding:
    """`tenant_id` is empty where it is a user's; `about` as in `workspace:ws_...`, `detail` for a person."""

    broken: Broken
    tenant_id: TenantId
    tenant_slug: str
    about: str
    detail: str

    @property
    def id(self) -> str:
        return self.about.partition(":")[2]


_PERSONAL = "SELECT w.* FROM workspaces w WHERE w.kind = 'personal'"
_USERS_ROLE = "m.subject_type = 'user' AND m.subject_id = w.personal_user_id AND m.role = 'owner'"
_ON_IT = "m.tenant_id = w.tenant_id AND m.workspace_id = w.id"
# Of each: tenant_id, about, detail.
_FIND = {
    Broken.PERSONAL_STRANGER: f"""
        SELECT w.tenant_id, 'workspace:' || w.id, m.subject_type || ':' || m.subject_id || ' is ' || m.role
        FROM ({_PERSONAL}) w JOIN memberships m ON {_ON_IT} AND NOT ({_USERS_ROLE})
        JOIN users u ON u.id = w.personal_user_id AND u.status <> 'deactivated'
    """,
    Broken.PERSONAL_WITHOUT_OWNER: f"""
        SELECT w.tenant_id, 'workspace:' || w.id, 'user:' || w.personal_user_id FROM ({_PERSONAL}) w
        JOIN users u ON u.id = w.personal_user_id AND u.status <> 'deactivated'
        WHERE NOT EXISTS (SELECT FROM memberships m WHERE {_ON_IT} AND {_USERS_ROLE})
    """,
    Broken.PERSONAL_SHARED: f"""
        SELECT w.tenant_id, 'workspace:' || w.id, s.id FROM ({_PERSONAL}) w
        JOIN shares s ON s.tenant_id = w.tenant_id AND w.id IN (s.workspace_id, s.with_workspace_id)
    """,
    Broken.PERSONAL_CHILDREN: f"""
        SELECT w.tenant_id, 'workspace:' || w.id, 'workspace:' || c.id FROM ({_PERSONAL}) w
        JOIN workspaces c ON c.tenant_id = w.tenant_id AND c.parent_id = w.id
    """,
    Broken.PERSONAL_TWICE: f"""
        SELECT w.tenant_id, 'user:' || w.personal_user_id, string_agg('workspace:' || w.id, ', ' ORDER BY w.id)
        FROM ({_PERSONAL}) w GROUP BY w.tenant_id, w.personal_user_id HAVING count(*) > 1
    """,
    Broken.PERSONAL_OF_NOBODY: f"""
        SELECT w.tenant_id, 'workspace:' || w.id, 'user:' || w.personal_user_id FROM ({_PERSONAL}) w
        JOIN users u ON u.id = w.personal_user_id AND u.status = 'deactivated'
        WHERE NOT EXISTS (SELECT FROM user_job j WHERE j.user_id = u.id)
            AND NOT EXISTS (SELECT FROM memberships m WHERE m.user_id = u.id)
            AND NOT EXISTS (SELECT FROM group_members g WHERE g.user_id = u.id)
    """,
    Broken.HEAD_MISSING: """
        SELECT t.id, 'tenant:' || t.id, '' FROM tenants t
        WHERE NOT EXISTS (SELECT FROM tenant_head h WHERE h.tenant_id = t.id)
    """,
    Broken.JOB_MISSING: """
        SELECT '', 'user:' || u.id, CASE WHEN u.activating THEN 'activating' ELSE u.status END FROM users u
        WHERE NOT EXISTS (SELECT FROM user_job j WHERE j.user_id = u.id) AND (
            u.activating OR u.status = 'deactivated' AND (
                EXISTS (SELECT FROM memberships m WHERE m.user_id = u.id)
                OR EXISTS (SELECT FROM group_members g WHERE g.user_id = u.id)
            )
        )
    """,
    Broken.ROOT_MISSING: """
        SELECT t.id, 'tenant:' || t.id, '' FROM tenants t
        WHERE NOT EXISTS (SELECT FROM workspaces w WHERE w.tenant_id = t.id AND w.kind = 'root')
    """,
    Broken.ADMIN_MISSING: """
        SELECT t.id, 'tenant:' || t.id, '' FROM tenants t WHERE t.status = 'active' AND NOT EXISTS (
            SELECT FROM memberships m JOIN users u ON u.id = m.user_id AND u.status = 'active'
            WHERE m.tenant_id = t.id AND m.workspace_id IS NULL AND m.role = 'admin'
        )
    """,
    Broken.TREE_BROKEN: f"""
        WITH RECURSIVE reached (tenant_id, id, level) AS (
            SELECT tenant_id, id, 1 FROM workspaces WHERE kind = 'root'
            UNION ALL
            SELECT w.tenant_id, w.id, r.level + 1 FROM reached r
            JOIN workspaces w ON w.tenant_id = r.tenant_id AND w.parent_id = r.id
            WHERE r.level < {MAX_WORKSPACE_DEPTH}
        )
        SELECT w.tenant_id, 'workspace:' || w.id, 'parent workspace:' || w.parent_id FROM workspaces w
        WHERE w.kind = 'shared'
            AND NOT EXISTS (SELECT FROM reached r WHERE r.tenant_id = w.tenant_id AND r.id = w.id)
            AND NOT EXISTS (
                SELECT FROM workspaces p WHERE p.tenant_id = w.tenant_id AND p.id = w.parent_id AND p.kind = 'personal'
            )
    """,
    Broken.ARCHIVE_BROKEN: """
        SELECT w.tenant_id, 'workspace:' || w.id, 'parent workspace:' || p.id FROM workspaces w
        JOIN workspaces p ON p.tenant_id = w.tenant_id AND p.id = w.parent_id AND p.archive_time IS NOT NULL
        WHERE w.archive_time IS NULL
    """,
}
_STATEMENTS = {
    broken: Statement(
        f"SELECT f.tenant_id, coalesce(t.slug, '') AS slug, f.about, f.detail FROM ({sql}) f (tenant_id, about, detail)"
        " LEFT JOIN tenants t ON t.id = f.tenant_id"
        " WHERE CAST(:tenant_id AS text) IN ('', f.tenant_id) ORDER BY 1, 3, 4 LIMIT :limit"
    )
    for broken, sql in _FIND.items()
}
# With the number of the newest row that anybody knows of: the stream goes on without a gap.
_MAKE_HEAD = Statement(
    """
    INSERT INTO tenant_head (tenant_id, shard, head_seq, store_epoch)
    SELECT CAST(:tenant_id AS text), CAST(:shard AS smallint), greatest(
        coalesce((SELECT max(seq) FROM outbox WHERE tenant_id = :tenant_id), 0),
        coalesce((SELECT max(seq) FROM audit WHERE tenant_id = :tenant_id), 0),
        coalesce((SELECT max(delivered_seq) FROM tenant_delivery WHERE tenant_id = :tenant_id), 0)
    ), store_epoch FROM installation FOR SHARE
    ON CONFLICT DO NOTHING
    """
)
_PERSONAL_USER = Statement(
    "SELECT personal_user_id FROM workspaces WHERE tenant_id = :tenant_id AND id = :id AND kind = 'personal'"
)


async def find(tx: SystemTransaction, tenant_id: TenantId | None, limit: int) -> list[Finding]:
    """At most `limit` of each kind, in the order of `Broken`; of one tenant, or of all and of users."""
    found: list[Finding] = []
    for broken, statement in _STATEMENTS.items():
        found += _findings(broken, await statement.rows(tx, tenant_id=tenant_id or "", limit=limit))
    return found


def _findings(broken: Broken, records: Iterable[Record]) -> list[Finding]:
    return [Finding(broken, TenantId(r["tenant_id"]), r["slug"], r["about"], r["detail"]) for r in records]


async def make_head(tx: SystemTransaction, tenant_id: TenantId) -> bool:
    """The head of a tenant's stream; False where there is one."""
    return await _MAKE_HEAD.run(tx, tenant_id=tenant_id, shard=outbox.shard_of(tenant_id)) == 1


async def personal_user(tx: SystemTransaction, tenant_id: TenantId, workspace_id: WorkspaceId) -> UserId | None:
    """Whose personal workspace it is; None where it is none."""
    record = await _PERSONAL_USER.row(tx, tenant_id=tenant_id, id=workspace_id)
    return None if record is None else UserId(record["personal_user_id"])
