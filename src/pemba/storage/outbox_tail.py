"""What happens to rows of the outbox, found by where streams stand: commit times do not come in order, positions do."""

from __future__ import annotations

import datetime
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from pemba.model import Seq, TenantId, TupleOperation
from pemba.storage.database import SystemTransaction
from pemba.storage.outbox import from_json
from pemba.storage.statement import Statement

LONGEST_TRANSACTION_SECONDS = 60
"""A row's creation is when its transaction began: none is committed later than this after it."""

_START = Statement(
    """
    SELECT h.tenant_id, coalesce(young.before, h.head_seq) AS head_seq,
        least(coalesce(d.delivered_seq, 0), coalesce(young.before, h.head_seq)) AS delivered_seq
    FROM tenant_head h
    LEFT JOIN tenant_delivery d ON d.tenant_id = h.tenant_id
    LEFT JOIN (
        SELECT tenant_id, min(seq) - 1 AS before FROM outbox
        WHERE create_time >= coalesce(CAST(:since AS timestamptz), 'infinity') GROUP BY tenant_id
    ) young ON young.tenant_id = h.tenant_id
    WHERE CAST(:tenant_id AS text) IN ('', h.tenant_id) LIMIT :limit
    """
)
_NOW = Statement("SELECT now() AS now")
# Whoever has had a row lately, and whoever was behind at the last look.
_MOVED = Statement(
    f"""
    SELECT h.tenant_id, h.head_seq, coalesce(d.delivered_seq, 0) AS delivered_seq
    FROM tenant_head h LEFT JOIN tenant_delivery d ON d.tenant_id = h.tenant_id
    WHERE CAST(:tenant_id AS text) IN ('', h.tenant_id) AND (
        h.tenant_id = ANY (CAST(:behind AS text[])) OR h.tenant_id IN (
            SELECT tenant_id FROM outbox
            WHERE create_time > CAST(:last AS timestamptz) - interval '{LONGEST_TRANSACTION_SECONDS} s'
        )
    )
    """
)
_ROWS = Statement(
    """
    SELECT seq, ops, trace, create_time FROM outbox
    WHERE tenant_id = :tenant_id AND seq > :after AND seq <= :up_to ORDER BY seq LIMIT :limit
    """
)


@dataclass(frozen=True, slots=True)
class Stand:
    """How far a stream is committed and delivered."""

    head_seq: Seq
    delivered_seq: Seq


@dataclass(frozen=True, slots=True)
class TailedRow:
    """A row as it was committed."""

    seq: Seq
    operations: tuple[TupleOperation, ...]
    request_id: str
    create_time: datetime.datetime


async def now(tx: SystemTransaction) -> datetime.datetime:
    """The database's time."""
    found: datetime.datetime = (await _NOW.one(tx))["now"]
    return found


async def start(
    tx: SystemTransaction, tenant_id: TenantId | None, since: datetime.datetime | None, limit: int
) -> dict[TenantId, Stand]:
    """Where at most `limit` streams stand now, or stood before their first row that was created since then."""
    records = await _START.rows(tx, tenant_id=tenant_id or "", since=since, limit=limit)
    return {TenantId(r["tenant_id"]): Stand(Seq(r["head_seq"]), Seq(r["delivered_seq"])) for r in records}


async def moved(
    tx: SystemTransaction, tenant_id: TenantId | None, behind: Collection[TenantId], last: datetime.datetime
) -> Mapping[TenantId, Stand]:
    """Where those stand now that may have moved since the look at `last`, at which these were `behind`."""
    records = await _MOVED.rows(tx, tenant_id=tenant_id or "", behind=list(behind), last=last)
    return {TenantId(r["tenant_id"]): Stand(Seq(r["head_seq"]), Seq(r["delivered_seq"])) for r in records}


async def rows(tx: SystemTransaction, tenant_id: TenantId, after: Seq, up_to: Seq, limit: int) -> list[TailedRow]:
    """At most `limit` rows of a stream, in order; without those that are kept no longer."""
    records = await _ROWS.rows(tx, tenant_id=tenant_id, after=after, up_to=up_to, limit=limit)
    return [
        TailedRow(Seq(r["seq"]), from_json(r["ops"]), r["trace"].get("request_id", ""), r["create_time"])
        for r in records
    ]
