"""Memberships: roles of subjects on a tenant (`workspace_id` None) or on a workspace."""

from __future__ import annotations

from collections.abc import Sequence

from asyncpg import Record

from pemba.model import ApiKeyId, GroupId, Membership, Role, Seq, SubjectRef, TenantId, UserId, WorkspaceId
from pemba.storage.database import SystemTransaction, TenantTransaction
from pemba.storage.statement import Statement

_COLUMNS = "tenant_id, workspace_id, subject_type, subject_id, role, join_time, update_time, invited_by, changed_seq"
COLUMNS_OF_M = ", ".join(f"m.{column.strip()}" for column in _COLUMNS.split(","))
HAS_TUPLES = "u.id IS NULL OR u.status = 'active' OR u.activating AS has_tuples"
"""Of a membership joined with its user `u`: whether it stands for a tuple as far as its subject goes."""

# A changed role keeps join_time and invited_by; an unchanged one keeps everything.
_PUT = Statement(
    "INSERT INTO memberships (tenant_id, workspace_id, subject_type, subject_id, role, invited_by, changed_seq)"
    " VALUES (:tenant_id, :workspace_id, :subject_type, :subject_id, :role, :invited_by, :seq)"
    " ON CONFLICT ON CONSTRAINT memberships_subject_key"
    " DO UPDATE SET role = excluded.role, changed_seq = excluded.changed_seq, update_time = now()"
    f" RETURNING {_COLUMNS}"
)
_GET = Statement(
    f"SELECT {_COLUMNS} FROM memberships WHERE tenant_id = :tenant_id"
    " AND workspace_id IS NOT DISTINCT FROM CAST(:workspace_id AS text)"
    " AND subject_type = :subject_type AND subject_id = :subject_id"
)
_LIST = Statement(
    f"SELECT {_COLUMNS} FROM memberships WHERE tenant_id = :tenant_id"
    " AND workspace_id IS NOT DISTINCT FROM CAST(:workspace_id AS text)"
    " AND (subject_type, subject_id) > (:after_type, :after_id)"
    " ORDER BY subject_type, subject_id LIMIT :limit"
)
_OF_WORKSPACES = Statement(
    f"""
    SELECT {COLUMNS_OF_M}, {HAS_TUPLES}
    FROM memberships m LEFT JOIN users u ON u.id = m.user_id
    WHERE m.tenant_id = :tenant_id AND m.workspace_id = ANY (CAST(:workspace_ids AS text[]))
    ORDER BY m.workspace_id, m.subject_type, m.subject_id LIMIT :limit
    """
)
_OF_HOLDER = {
    column: Statement(
        f"""
        SELECT {COLUMNS_OF_M}, w.archive_time IS NOT NULL AS archived
        FROM memberships m LEFT JOIN workspaces w ON w.tenant_id = m.tenant_id AND w.id = m.workspace_id
        WHERE m.tenant_id = :tenant_id AND m.{column} = :id ORDER BY m.workspace_id NULLS FIRST LIMIT :limit
        """
    )
    for column in ("group_id", "api_key_id")
}
_OF_USER = Statement(
    f"SELECT {_COLUMNS} FROM memberships WHERE tenant_id = :tenant_id AND user_id = :user_id"
    " ORDER BY workspace_id NULLS FIRST LIMIT :limit"
)
_DELETE = Statement(
    "DELETE FROM memberships WHERE tenant_id = :tenant_id"
    " AND workspace_id IS NOT DISTINCT FROM CAST(:workspace_id AS text)"
    " AND subject_type = :subject_type AND subject_id = :subject_id"
)
_DELETE_OF_USER = Statement("DELETE FROM memberships WHERE tenant_id = :tenant_id AND user_id = :user_id")
_DELETE_OF_GROUP = Statement("DELETE FROM memberships WHERE tenant_id = :tenant_id AND group_id = :group_id")
_DELETE_OF_KEY = Statement("DELETE FROM memberships WHERE tenant_id = :tenant_id AND api_key_id = :id")
_DELETE_OF_WORKSPACE = Statement(
    "DELETE FROM memberships WHERE tenant_id = :tenant_id AND workspace_id = :workspace_id"
)
# The users of a tenant, where one of these got their first role or group in it by this very transaction; else 0.
_COUNT_IF_NEW = Statement(
    """
    SELECT CASE WHEN EXISTS (
        SELECT FROM unnest(CAST(:added AS text[])) AS added (user_id) WHERE NOT EXISTS (
            SELECT FROM memberships m
            WHERE m.tenant_id = :tenant_id AND m.user_id = added.user_id AND m.join_time <> now()
        ) AND NOT EXISTS (
            SELECT FROM group_members g
            WHERE g.tenant_id = :tenant_id AND g.user_id = added.user_id AND g.join_time <> now()
        )
    ) THEN (
        SELECT count(user_id) FROM (
            SELECT user_id FROM memberships WHERE tenant_id = :tenant_id
            UNION
            SELECT user_id FROM group_members WHERE tenant_id = :tenant_id
        ) AS users
    ) ELSE 0 END AS users
    """
)
_OTHER_ACTIVE_HOLDER = Statement(
    """
    SELECT EXISTS (
        SELECT FROM memberships m JOIN users u ON u.id = m.user_id AND u.status = 'active'
        WHERE m.tenant_id = :tenant_id AND m.workspace_id IS NOT DISTINCT FROM CAST(:workspace_id AS text)
            AND m.role = :role AND m.user_id <> ALL (CAST(:without AS text[]))
    ) AS found
    """
)


async def put(
    tx: TenantTransaction | SystemTransaction,
    tenant_id: TenantId,
    workspace_id: WorkspaceId | None,
    subject: SubjectRef,
    role: Role,
    invited_by: UserId | None,
    seq: Seq,
) -> Membership:
    """Add or change a role."""
    return from_record(
        await _PUT.one(
            tx,
            tenant_id=tenant_id,
            workspace_id=workspace_id,
            subject_type=subject.type,
            subject_id=subject.id,
            role=role,
            invited_by=invited_by,
            seq=seq,
        )
    )


async def get(tx: TenantTransaction, workspace_id: WorkspaceId | None, subject: SubjectRef) -> Membership | None:
    record = await _GET.row(
        tx,
        tenant_id=tx.tenant_id,
        workspace_id=workspace_id,
        subject_type=subject.type,
        subject_id=subject.id,
    )
    return None if record is None else from_record(record)


async def list_after(
    tx: TenantTransaction, workspace_id: WorkspaceId | None, after: tuple[str, str], limit: int
) -> list[Membership]:
    """At most `limit` memberships whose (subject type, subject id) follow `after`, in that order."""
    records = await _LIST.rows(
        tx,
        tenant_id=tx.tenant_id,
        workspace_id=workspace_id,
        after_type=after[0],
        after_id=after[1],
        limit=limit,
    )
    return [from_record(record) for record in records]


async def of_workspaces(
    tx: TenantTransaction, workspace_ids: Sequence[WorkspaceId], limit: int
) -> list[tuple[Membership, bool]]:
    """(membership, whether its subject is one whose roles project) of these workspaces, at most `limit`."""
    records = await _OF_WORKSPACES.rows(tx, tenant_id=tx.tenant_id, workspace_ids=list(workspace_ids), limit=limit)
    return [(from_record(r), r["has_tuples"]) for r in records]


async def of_user(tx: TenantTransaction, user_id: UserId, limit: int) -> list[Membership]:
    """Every direct membership of the user in the tenant, the tenant's own first, at most `limit`."""
    records = await _OF_USER.rows(tx, tenant_id=tx.tenant_id, user_id=user_id, limit=limit)
    return [from_record(record) for record in records]


async def of_group(tx: TenantTransaction, group_id: GroupId, limit: int) -> list[tuple[Membership, bool]]:
    """(membership, whether what it is on is archived) of each role of the group, at most `limit`."""
    records = await _OF_HOLDER["group_id"].rows(tx, tenant_id=tx.tenant_id, id=group_id, limit=limit)
    return [(from_record(r), r["archived"]) for r in records]


async def of_key(tx: TenantTransaction, id_: ApiKeyId, limit: int) -> list[tuple[Membership, bool]]:
    """As `of_group`, of an API key."""
    records = await _OF_HOLDER["api_key_id"].rows(tx, tenant_id=tx.tenant_id, id=id_, limit=limit)
    return [(from_record(r), r["archived"]) for r in records]


async def delete(tx: TenantTransaction, workspace_id: WorkspaceId | None, subject: SubjectRef) -> None:
    await _DELETE.run(
        tx,
        tenant_id=tx.tenant_id,
        workspace_id=workspace_id,
        subject_type=subject.type,
        subject_id=subject.id,
    )


async def delete_of_user(tx: TenantTransaction, user_id: UserId) -> None:
    """Every direct membership of the user in the tenant."""
    await _DELETE_OF_USER.run(tx, tenant_id=tx.tenant_id, user_id=user_id)


async def delete_of_group(tx: TenantTransaction, group_id: GroupId) -> None:
    """Every role of the group."""
    await _DELETE_OF_GROUP.run(tx, tenant_id=tx.tenant_id, group_id=group_id)


async def delete_of_key(tx: TenantTransaction, id_: ApiKeyId) -> None:
    """Every role of the API key."""
    await _DELETE_OF_KEY.run(tx, tenant_id=tx.tenant_id, id=id_)


async def delete_of_workspace(tx: TenantTransaction, workspace_id: WorkspaceId) -> None:
    await _DELETE_OF_WORKSPACE.run(tx, tenant_id=tx.tenant_id, workspace_id=workspace_id)


async def has_other_active_holder(
    tx: TenantTransaction, workspace_id: WorkspaceId | None, role: Role, without: Sequence[UserId]
) -> bool:
    """Whether an active user other than these holds `role` there."""
    record = await _OTHER_ACTIVE_HOLDER.one(
        tx, tenant_id=tx.tenant_id, workspace_id=workspace_id, role=role, without=list(without)
    )
    return bool(record["found"])


async def count_users_if_new(tx: TenantTransaction, added: Sequence[UserId]) -> int:
    """How many users hold roles or are in groups; 0 where none of `added` is new to it with this transaction."""
    return int((await _COUNT_IF_NEW.one(tx, tenant_id=tx.tenant_id, added=list(added)))["users"])


def subject_of(type_: str, id_: str) -> SubjectRef:
    """A subject of its columns: a group stands for its members."""
    return SubjectRef(type_, id_, "member" if type_ == "group" else "")


def from_record(record: Record) -> Membership:
    """A membership of its columns."""
    return Membership(
        tenant_id=record["tenant_id"],
        workspace_id=record["workspace_id"],
        subject=subject_of(record["subject_type"], record["subject_id"]),
        role=Role(record["role"]),
        join_time=record["join_time"],
        update_time=record["update_time"],
        invited_by=None if record["invited_by"] is None else UserId(record["invited_by"]),
        etag=str(record["changed_seq"]),
    )
