"""What the relay reads and records: due rows of the outbox, positions of delivery."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from pemba.model import Seq, TenantId
from pemba.storage.database import RelayTransaction
from pemba.storage.leases import Lease, LeaseLost
from pemba.storage.outbox import MAX_ROW_BYTES, MAX_ROW_OPERATIONS, NextExpiry, OutboxRow, from_json
from pemba.storage.statement import Statement

MAX_ROWS_OF_A_BATCH = 500
"""Empty rows count nothing towards the bounds of a batch; this bounds what one read brings."""

_DUE_SHARDS = Statement(
    """
    SELECT h.shard, CAST(sum(h.head_seq - coalesce(d.delivered_seq, 0)) AS bigint) AS undelivered
    FROM tenant_head h LEFT JOIN tenant_delivery d ON d.tenant_id = h.tenant_id
    WHERE h.shard = ANY (CAST(:shards AS smallint[])) AND h.head_seq > coalesce(d.delivered_seq, 0) GROUP BY h.shard
    """
)
# Those that waited for the longest first, so that none starves behind the others' backlog.
_DUE = Statement(
    """
    SELECT h.tenant_id, h.head_seq, coalesce(d.delivered_seq, 0) AS delivered_seq, d.parked_from
    FROM tenant_head h
    LEFT JOIN tenant_delivery d ON d.tenant_id = h.tenant_id
    WHERE h.shard = :shard AND h.head_seq > coalesce(d.delivered_seq, 0)
        AND h.tenant_id <> ALL (CAST(:without AS text[]))
    ORDER BY d.update_time NULLS FIRST, h.tenant_id LIMIT :limit
    """
)
# The longest contiguous prefix within a row's own bounds; the first row always counts.
_PREFIX = Statement(
    """
    SELECT due.tenant_id, prefix.seq, prefix.ops, prefix.trace, prefix.store_epoch, prefix.next_expiry,
        extract(epoch FROM now() - prefix.create_time) AS age_seconds
    FROM unnest(CAST(:tenant_ids AS text[]), CAST(:delivered AS bigint[])) AS due (tenant_id, delivered_seq)
    CROSS JOIN LATERAL (
        SELECT seq, ops, trace, create_time, store_epoch, next_expiry,
            sum(op_count) OVER w AS operations, sum(op_bytes) OVER w AS bytes, count(*) OVER w AS rows
        FROM (
            SELECT seq, ops, op_count, op_bytes, trace, create_time, store_epoch, next_expiry
            FROM outbox o
            WHERE o.tenant_id = due.tenant_id AND o.seq > due.delivered_seq ORDER BY o.seq LIMIT :max_rows
        ) next WINDOW w AS (ORDER BY seq)
    ) prefix
    WHERE prefix.rows = 1 OR prefix.operations <= :max_operations AND prefix.bytes <= :max_bytes
    ORDER BY due.tenant_id, prefix.seq
    """
)
# Every writer of positions raises its shard's counter first and stamps what it writes with it.  The row's lock is held
# to the commit, so nobody takes the shard over between this look at the lease and the record.
_COUNT = Statement(
    """
    UPDATE relay_lease SET deliveries = deliveries + 1
    WHERE shard = :shard AND epoch = :epoch AND holder = :holder AND lease_until > now() RETURNING deliveries
    """
)
_RECORD = Statement(
    """
    INSERT INTO tenant_delivery
        (tenant_id, shard, delivered_seq, zedtoken, stamp, schema_number, store_epoch, next_expiry)
    SELECT given.tenant_id, CAST(:shard AS smallint), given.delivered_seq, given.zedtoken, CAST(:stamp AS bigint),
        CAST(:schema_number AS bigint), coalesce(given.store_epoch, d.store_epoch, h.store_epoch),
        given.next_expiry
    FROM unnest(
        CAST(:tenant_ids AS text[]), CAST(:delivered AS bigint[]), CAST(:zedtokens AS text[]),
        CAST(:store_epochs AS uuid[]), CAST(:next_expiries AS timestamptz[])
    ) AS given (tenant_id, delivered_seq, zedtoken, store_epoch, next_expiry)
    JOIN tenant_head h ON h.tenant_id = given.tenant_id
    LEFT JOIN tenant_delivery d ON d.tenant_id = given.tenant_id
    ON CONFLICT (tenant_id) DO UPDATE SET
        delivered_seq = excluded.delivered_seq,
        zedtoken = CASE WHEN excluded.store_epoch = tenant_delivery.store_epoch
            THEN coalesce(excluded.zedtoken, tenant_delivery.zedtoken) ELSE excluded.zedtoken END,
        store_epoch = excluded.store_epoch,
        schema_number = CASE WHEN excluded.zedtoken IS NULL
            THEN tenant_delivery.schema_number ELSE excluded.schema_number END,
        stamp = excluded.stamp,
        next_expiry = excluded.next_expiry,
        update_time = now()
    WHERE tenant_delivery.delivered_seq < excluded.delivered_seq
    """
)
# Deleted only up to what is delivered, oldest first, a bounded number at a time.
_PRUNE_OUTBOX = Statement(
    """
    DELETE FROM outbox WHERE (tenant_id, seq) IN (
        SELECT o.tenant_id, o.seq FROM outbox o JOIN tenant_delivery d ON d.tenant_id = o.tenant_id
        WHERE o.create_time < now() - make_interval(secs => :age_seconds) AND o.seq <= d.delivered_seq
        ORDER BY o.create_time LIMIT :limit
    )
    """
)
_PRUNE_IDEMPOTENCY = Statement(
    """
    DELETE FROM idempotency WHERE (tenant_id, principal, acting_user, method, request_id) IN (
        SELECT tenant_id, principal, acting_user, method, request_id FROM idempotency
        WHERE create_time < now() - make_interval(secs => :age_seconds) ORDER BY create_time LIMIT :limit
    )
    """
)


@dataclass(frozen=True, slots=True)
class DueTenant:
    """A tenant with rows that are not delivered yet."""

    tenant_id: TenantId
    head_seq: Seq
    delivered_seq: Seq
    has_parked: bool = False


@dataclass(frozen=True, slots=True)
class Delivered:
    """A position to record; `zedtoken` None where its rows carried no operation."""

    tenant_id: TenantId
    seq: Seq
    zedtoken: str | None
    store_epoch: uuid.UUID | None = None
    """From now on the tenant stands in that life of the store; a revision of the last one means nothing in it."""
    next_expiry: NextExpiry = None


async def due_shards(tx: RelayTransaction, shards: Collection[int]) -> dict[int, int]:
    """Those of the shards in which any tenant has undelivered rows, with how many rows that are."""
    return {record["shard"]: record["undelivered"] for record in await _DUE_SHARDS.rows(tx, shards=list(shards))}


async def due_tenants(tx: RelayTransaction, shard: int, limit: int, without: Sequence[TenantId]) -> list[DueTenant]:
    """At most `limit` tenants of the shard with undelivered rows, the longest waiting first."""
    records = await _DUE.rows(tx, shard=shard, limit=limit, without=list(without))
    return [
        DueTenant(TenantId(r["tenant_id"]), Seq(r["head_seq"]), Seq(r["delivered_seq"]), r["parked_from"] is not None)
        for r in records
    ]


async def prefixes(tx: RelayTransaction, due: Sequence[DueTenant]) -> Mapping[TenantId, list[OutboxRow]]:
    """For each tenant the rows of its next batch, contiguous from the one after its delivered position."""
    records = await _PREFIX.rows(
        tx,
        tenant_ids=[tenant.tenant_id for tenant in due],
        delivered=[tenant.delivered_seq for tenant in due],
        max_rows=MAX_ROWS_OF_A_BATCH,
        max_operations=MAX_ROW_OPERATIONS,
        max_bytes=MAX_ROW_BYTES,
    )
    rows: dict[TenantId, list[OutboxRow]] = {}
    for record in records:
        row = OutboxRow(
            Seq(record["seq"]),
            from_json(record["ops"]),
            record["trace"],
            float(record["age_seconds"]),
            record["store_epoch"],
            record["next_expiry"],
        )
        rows.setdefault(TenantId(record["tenant_id"]), []).append(row)
    return rows


async def mark_delivered_if_leased(
    tx: RelayTransaction, lease: Lease, delivered: Sequence[Delivered], schema_number: int
) -> int:
    """Record positions; one that is not beyond what stands there changes nothing.  The stamp they have.

    Raises LeaseLost, and records nothing, where the lease is over or another's.
    """
    stamp = await count_if_leased(tx, lease)
    await _RECORD.run(
        tx,
        shard=lease.shard,
        stamp=stamp,
        schema_number=schema_number,
        tenant_ids=[d.tenant_id for d in delivered],
        delivered=[d.seq for d in delivered],
        zedtokens=[d.zedtoken for d in delivered],
        store_epochs=[d.store_epoch for d in delivered],
        next_expiries=[d.next_expiry for d in delivered],
    )
    return stamp


async def count_if_leased(tx: RelayTransaction, lease: Lease) -> int:
    """Raise the shard's counter: the stamp of whatever this transaction writes of its positions.

    Raises LeaseLost where the lease is over or another's.
    """
    counted = await _COUNT.row(tx, shard=lease.shard, epoch=lease.epoch, holder=lease.holder)
    if counted is None:
        raise LeaseLost
    return int(counted["deliveries"])


async def prune_outbox(tx: RelayTransaction, age_seconds: float, limit: int) -> int:
    """Delete at most `limit` delivered rows older than that; how many it were."""
    return await _PRUNE_OUTBOX.run(tx, age_seconds=age_seconds, limit=limit)


async def prune_idempotency(tx: RelayTransaction, age_seconds: float, limit: int) -> int:
    """Delete at most `limit` remembered responses older than that; how many it were."""
    return await _PRUNE_IDEMPOTENCY.run(tx, age_seconds=age_seconds, limit=limit)
