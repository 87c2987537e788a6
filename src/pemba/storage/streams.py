"""Where tenants' streams stand, which tuples are still on their way, and what people call what tuples name."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import cast

from pemba.model import Seq, TenantId, UserId, WorkspaceId
from pemba.storage.database import SystemTransaction, TenantTransaction
from pemba.storage.statement import Statement

_POSITIONS = Statement(
    """
    SELECT h.tenant_id, h.head_seq, coalesce(d.delivered_seq, 0) AS delivered_seq
    FROM unnest(CAST(:tenant_ids AS text[])) AS given (tenant_id)
    JOIN tenant_head h ON h.tenant_id = given.tenant_id
    LEFT JOIN tenant_delivery d ON d.tenant_id = given.tenant_id
    """
)
_CHANGED_SINCE = Statement(
    """
    SELECT DISTINCT split_part(operation ->> 'tuple', '[', 1) AS tuple
    FROM unnest(CAST(:tenant_ids AS text[]), CAST(:seqs AS bigint[])) AS since (tenant_id, seq)
    JOIN outbox o ON o.tenant_id = since.tenant_id AND o.seq > since.seq
    CROSS JOIN LATERAL jsonb_array_elements(o.ops) AS operation
    WHERE split_part(operation ->> 'tuple', '[', 1) = ANY (CAST(:tuples AS text[]))
    """
)
_LAST_NAMED = Statement(
    """
    SELECT split_part(operation ->> 'tuple', '[', 1) AS tuple, max(o.seq) AS seq
    FROM outbox o CROSS JOIN LATERAL jsonb_array_elements(o.ops) AS operation
    WHERE o.tenant_id = :tenant_id AND o.seq > :since
        AND split_part(operation ->> 'tuple', '[', 1) = ANY (CAST(:tuples AS text[]))
    GROUP BY 1
    """
)
_NOW = Statement("SELECT now() AS now")
_WITH_JOBS = Statement("SELECT user_id FROM user_job WHERE user_id = ANY (CAST(:user_ids AS text[]))")
_SLUGS = Statement("SELECT id, slug FROM tenants WHERE id = ANY (CAST(:ids AS text[]))")
# From each workspace up: the path is put together on the way, and whole where there is no parent.  None leads to a
# personal one.
_PATHS = Statement(
    """
    WITH RECURSIVE line AS (
        SELECT w.tenant_id, w.id, w.parent_id, CASE WHEN w.parent_id IS NULL THEN '' ELSE w.slug END AS path
        FROM unnest(CAST(:tenant_ids AS text[]), CAST(:ids AS text[])) AS named (tenant_id, id)
        JOIN workspaces w ON w.tenant_id = named.tenant_id AND w.id = named.id AND w.kind <> 'personal'
        UNION
        SELECT line.tenant_id, line.id, p.parent_id,
            CASE WHEN p.parent_id IS NULL THEN line.path ELSE p.slug || '/' || line.path END
        FROM line JOIN workspaces p ON p.tenant_id = line.tenant_id AND p.id = line.parent_id
    )
    SELECT tenant_id, id, path FROM line WHERE parent_id IS NULL
    """
)


async def positions(tx: SystemTransaction, tenant_ids: Collection[TenantId]) -> Mapping[TenantId, tuple[Seq, Seq]]:
    """(head, delivered) of those of these tenants that have a stream."""
    records = await _POSITIONS.rows(tx, tenant_ids=list(tenant_ids))
    return {TenantId(r["tenant_id"]): (Seq(r["head_seq"]), Seq(r["delivered_seq"])) for r in records}


async def changed_since(tx: SystemTransaction, since: Mapping[TenantId, Seq], tuples: Sequence[str]) -> set[str]:
    """Those of these tuples (without expirations) that a row after that number of their tenant's stream names."""
    records = await _CHANGED_SINCE.rows(tx, tenant_ids=list(since), seqs=list(since.values()), tuples=list(tuples))
    return {r["tuple"] for r in records}


async def last_named(tx: TenantTransaction, since: Seq, tuples: Sequence[str]) -> Mapping[str, Seq]:
    """The last row after that number that names each of these tuples (without expirations), where one does."""
    records = await _LAST_NAMED.rows(tx, tenant_id=tx.tenant_id, since=since, tuples=list(tuples))
    return {r["tuple"]: Seq(r["seq"]) for r in records}


async def now(tx: SystemTransaction) -> datetime:
    """By the database's clock, when the transaction began."""
    return cast("datetime", (await _NOW.one(tx))["now"])


async def users_with_jobs(tx: SystemTransaction, user_ids: Collection[UserId]) -> set[UserId]:
    """Those of these users whose tuples are being withdrawn or restored, after a change of their status."""
    return {UserId(r["user_id"]) for r in await _WITH_JOBS.rows(tx, user_ids=list(user_ids))}


async def slugs(tx: SystemTransaction, tenant_ids: Collection[TenantId]) -> Mapping[TenantId, str]:
    """The slugs of those of these tenants that there are."""
    return {TenantId(r["id"]): r["slug"] for r in await _SLUGS.rows(tx, ids=list(tenant_ids))}


async def paths(
    tx: SystemTransaction, workspaces: Collection[tuple[TenantId, WorkspaceId]]
) -> Mapping[tuple[TenantId, WorkspaceId], str]:
    """The paths of those of these workspaces that there are; a root's is empty."""
    records = await _PATHS.rows(tx, tenant_ids=[t for t, _ in workspaces], ids=[id_ for _, id_ in workspaces])
    return {(TenantId(r["tenant_id"]), WorkspaceId(r["id"])): r["path"] for r in records}
