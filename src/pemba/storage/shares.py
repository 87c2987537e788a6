"""Shares: the role on one workspace of another one's roster.

One that is past its `expire_time` gives nothing any more, whether the relay has withdrawn it already or not: reads by
callers pass it over.  Who takes tuples out, and who lists them, needs to know of it all the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime

from asyncpg import Record

from pemba.model import Role, Seq, Share, ShareId, TenantId, UserId, WorkspaceId
from pemba.storage.database import SystemTransaction, TenantTransaction
from pemba.storage.statement import Statement
from pemba.storage.tenants import NOT_BEING_DELETED

_COLUMNS = "tenant_id, id, workspace_id, with_workspace_id, role, expire_time, created_by, create_time, changed_seq"
COLUMNS_OF_S = ", ".join(f"s.{column.strip()}" for column in _COLUMNS.split(","))
IN_TIME = "(s.expire_time IS NULL OR s.expire_time > now())"
"""Of a share `s`: whether it gives anything."""

_INSERT = Statement(
    "INSERT INTO shares (tenant_id, id, workspace_id, with_workspace_id, role, expire_time, created_by, changed_seq)"
    " VALUES (:tenant_id, :id, :workspace_id, :with_workspace_id, :role, :expire_time, :created_by, :seq)"
    f" RETURNING {_COLUMNS}"
)
_GET = Statement(f"SELECT {_COLUMNS} FROM shares s WHERE tenant_id = :tenant_id AND id = :id AND {IN_TIME}")
_OF_PAIR = Statement(
    f"SELECT {_COLUMNS} FROM shares WHERE tenant_id = :tenant_id"
    " AND workspace_id = :workspace_id AND with_workspace_id = :with_workspace_id"
)
_LIST = {
    incoming: Statement(
        f"SELECT {_COLUMNS} FROM shares s WHERE tenant_id = :tenant_id AND {column} = :workspace_id AND {IN_TIME}"
        " AND id > :after ORDER BY id LIMIT :limit"
    )
    for incoming, column in ((False, "workspace_id"), (True, "with_workspace_id"))
}
EITHER_ARCHIVED = "w.archive_time IS NOT NULL OR v.archive_time IS NOT NULL AS archived"
WORKSPACES_OF_S = """
    JOIN workspaces w ON w.tenant_id = s.tenant_id AND w.id = s.workspace_id
    JOIN workspaces v ON v.tenant_id = s.tenant_id AND v.id = s.with_workspace_id
"""
_OF_WORKSPACES = Statement(
    f"""
    SELECT {COLUMNS_OF_S}, {EITHER_ARCHIVED} FROM shares s {WORKSPACES_OF_S}
    WHERE s.tenant_id = :tenant_id AND (
        s.workspace_id = ANY (CAST(:ids AS text[])) OR s.with_workspace_id = ANY (CAST(:ids AS text[]))
    )
    ORDER BY s.id LIMIT :limit
    """
)
_DELETE = Statement("DELETE FROM shares WHERE tenant_id = :tenant_id AND id = ANY (CAST(:ids AS text[]))")
_DELETE_OF_WORKSPACE = Statement(
    "DELETE FROM shares WHERE tenant_id = :tenant_id AND (workspace_id = :id OR with_workspace_id = :id)"
)
_IS_FUTURE = Statement("SELECT CAST(:time AS timestamptz) > now() AS future")
_TENANTS_DUE = Statement(
    f"SELECT tenant_id FROM shares WHERE expire_time <= now() AND {NOT_BEING_DELETED}"
    " GROUP BY tenant_id ORDER BY min(expire_time) LIMIT :limit"
)
_SECONDS_TO_NEXT = Statement(
    f"SELECT extract(epoch FROM min(expire_time) - now()) AS seconds FROM shares WHERE {NOT_BEING_DELETED}"
)
_DUE = Statement(
    f"""
    SELECT {COLUMNS_OF_S}, {EITHER_ARCHIVED} FROM shares s {WORKSPACES_OF_S}
    WHERE s.tenant_id = :tenant_id AND s.expire_time <= now() ORDER BY s.expire_time, s.id LIMIT :limit
    """
)


async def insert(
    tx: TenantTransaction,
    share_id: ShareId,
    workspace_id: WorkspaceId,
    with_workspace_id: WorkspaceId,
    role: Role,
    expire_time: datetime | None,
    created_by: UserId | None,
    seq: Seq,
) -> Share:
    """Store a new share, where there is none of the two in this direction."""
    return from_record(
        await _INSERT.one(
            tx,
            tenant_id=tx.tenant_id,
            id=share_id,
            workspace_id=workspace_id,
            with_workspace_id=with_workspace_id,
            role=role,
            expire_time=expire_time,
            created_by=created_by,
            seq=seq,
        )
    )


async def get(tx: TenantTransaction, share_id: ShareId) -> Share | None:
    """One that is in time."""
    record = await _GET.row(tx, tenant_id=tx.tenant_id, id=share_id)
    return None if record is None else from_record(record)


async def of_pair(tx: TenantTransaction, workspace_id: WorkspaceId, with_workspace_id: WorkspaceId) -> Share | None:
    """The one share of the two in this direction, expired or not."""
    record = await _OF_PAIR.row(
        tx, tenant_id=tx.tenant_id, workspace_id=workspace_id, with_workspace_id=with_workspace_id
    )
    return None if record is None else from_record(record)


async def list_after(
    tx: TenantTransaction, workspace_id: WorkspaceId, after: str, limit: int, *, incoming: bool
) -> list[Share]:
    """At most `limit` of those in time of the workspace, or (`incoming`) with it; they follow `after`, by id."""
    records = await _LIST[incoming].rows(
        tx, tenant_id=tx.tenant_id, workspace_id=workspace_id, after=after, limit=limit
    )
    return [from_record(record) for record in records]


async def of_workspaces(
    tx: TenantTransaction, workspace_ids: Sequence[WorkspaceId], limit: int
) -> list[tuple[Share, bool]]:
    """(share, whether either of its workspaces is archived) with one of these on either side, expired ones too."""
    records = await _OF_WORKSPACES.rows(tx, tenant_id=tx.tenant_id, ids=list(workspace_ids), limit=limit)
    return [(from_record(r), r["archived"]) for r in records]


async def delete(tx: TenantTransaction, ids: Sequence[ShareId]) -> None:
    await _DELETE.run(tx, tenant_id=tx.tenant_id, ids=list(ids))


async def delete_of_workspace(tx: TenantTransaction, workspace_id: WorkspaceId) -> None:
    """Those with it on either side."""
    await _DELETE_OF_WORKSPACE.run(tx, tenant_id=tx.tenant_id, id=workspace_id)


async def is_future(tx: TenantTransaction, time: datetime) -> bool:
    """By the database's clock, which decides when a share expires."""
    return bool((await _IS_FUTURE.one(tx, time=time))["future"])


async def tenants_due(tx: SystemTransaction, limit: int) -> list[TenantId]:
    """At most `limit` tenants with expired shares, the longest overdue first."""
    return [TenantId(r["tenant_id"]) for r in await _TENANTS_DUE.rows(tx, limit=limit)]


async def seconds_to_next(tx: SystemTransaction) -> float:
    """Until the next share expires; infinity where none does."""
    seconds = (await _SECONDS_TO_NEXT.one(tx))["seconds"]
    return math.inf if seconds is None else float(seconds)


async def due(tx: TenantTransaction, limit: int) -> list[tuple[Share, bool]]:
    """At most `limit` of the tenant's expired shares, as `of_workspaces`, the longest overdue first."""
    records = await _DUE.rows(tx, tenant_id=tx.tenant_id, limit=limit)
    return [(from_record(r), r["archived"]) for r in records]


def from_record(record: Record) -> Share:
    """A share of its columns."""
    return Share(
        tenant_id=record["tenant_id"],
        id=ShareId(record["id"]),
        workspace_id=WorkspaceId(record["workspace_id"]),
        with_workspace_id=WorkspaceId(record["with_workspace_id"]),
        role=Role(record["role"]),
        expire_time=record["expire_time"],
        created_by=None if record["created_by"] is None else UserId(record["created_by"]),
        create_time=record["create_time"],
        etag=str(record["changed_seq"]),
    )
