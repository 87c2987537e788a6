"""What the relay reads and records: due rows of the outbox, positions of delivery."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from asyncpg import Record

from pemba.model import Seq, TenantId
from pemba.storage.database import RelayTransaction
from pemba.storage.leases import Lease, LeaseLost
from pemba.storage.outbox import MAX_ROW_BYTES, MAX_ROW_OPERATIONS, NextExpiry, OutboxRow, from_json
from pemba.storage.statement import Statement

MAX_ROWS_OF_A_BATCH = 500
"""Empty rows count nothing towards the other bounds of a batch."""

MAX_REQUEST_OPERATIONS = 1000
"""What SpiceDB takes in one write: two full batches always fit."""

MAX_REQUEST_BYTES = 3 * 1024 * 1024
"""In the outbox's own form, which is no shorter than SpiceDB's; that takes 4 MiB."""

MAX_REQUEST_ROWS = 2 * MAX_ROWS_OF_A_BATCH

_DUE_SHARDS = Statement(
    """
    SELECT h.shard, CAST(sum(h.head_seq - coalesce(d.delivered_seq, 0)) AS bigint) AS undelivered
    FROM tenant_head h LEFT JOIN tenant_delivery d ON d.tenant_id = h.tenant_id AND d.shard = h.shard
    WHERE h.shard = ANY (CAST(:shards AS smallint[])) AND h.head_seq > coalesce(d.delivered_seq, 0) GROUP BY h.shard
    """
)
# Those that waited for the longest first, so that none starves behind the others' backlog.
_DUE = Statement(
    """
    SELECT h.tenant_id, h.head_seq, coalesce(d.delivered_seq, 0) AS delivered_seq, d.parked_from
    FROM tenant_head h
    LEFT JOIN tenant_delivery d ON d.tenant_id = h.tenant_id AND d.shard = h.shard
    WHERE h.shard = :shard AND h.head_seq > coalesce(d.delivered_seq, 0)
        AND h.tenant_id <> ALL (CAST(:without AS text[]))
    ORDER BY d.update_time NULLS FIRST, h.tenant_id LIMIT :limit
    """
)
# Of each tenant its batch, the longest prefix within a row's own bounds (the first row always counts); of the tenants,
# in the order given, as many as a request takes, whole.  Nothing is read of the tenants after those.
_ROUND = Statement(
    """
    WITH RECURSIVE due AS (
        SELECT tenant_id, delivered_seq, place
        FROM unnest(CAST(:tenant_ids AS text[]), CAST(:delivered AS bigint[])) WITH ORDINALITY
            AS given (tenant_id, delivered_seq, place)
    ), round AS (
        SELECT CAST(0 AS bigint) AS place, CAST('' AS text) AS tenant_id, CAST(0 AS bigint) AS delivered_seq,
            CAST(0 AS bigint) AS last_seq, CAST(0 AS bigint) AS operations, CAST(0 AS bigint) AS bytes,
            CAST(0 AS bigint) AS rows
        UNION ALL
        SELECT due.place, due.tenant_id, due.delivered_seq, batch.last_seq,
            round.operations + batch.operations, round.bytes + batch.bytes, round.rows + batch.rows
        FROM round JOIN due ON due.place = round.place + 1
        CROSS JOIN LATERAL (
            SELECT max(seq) AS last_seq, CAST(coalesce(max(operations), 0) AS bigint) AS operations,
                CAST(coalesce(max(bytes), 0) AS bigint) AS bytes, count(*) AS rows
            FROM (
                SELECT seq, sum(op_count) OVER w AS operations, sum(op_bytes) OVER w AS bytes, row_number() OVER w AS n
                FROM outbox WHERE tenant_id = due.tenant_id
                    AND seq > due.delivered_seq AND seq <= due.delivered_seq + CAST(:max_rows AS bigint)
                WINDOW w AS (ORDER BY seq)
            ) prefix
            WHERE n = 1 OR operations <= :batch_operations AND bytes <= :batch_bytes
        ) batch
        WHERE round.place = 0 OR round.operations + batch.operations <= :round_operations
            AND round.bytes + batch.bytes <= :round_bytes AND round.rows + batch.rows <= :round_rows
    )
    SELECT round.tenant_id, o.seq, o.ops, o.trace, o.store_epoch, o.next_expiry,
        extract(epoch FROM now() - o.create_time) AS age_seconds
    FROM round LEFT JOIN LATERAL (
        SELECT seq, ops, trace, store_epoch, next_expiry, create_time FROM outbox
        WHERE tenant_id = round.tenant_id AND seq > round.delivered_seq AND seq <= round.last_seq
        ORDER BY seq LIMIT CAST(:max_rows AS bigint)
    ) o ON true
    WHERE round.place > 0 ORDER BY round.place, o.seq
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
# Ids follow time closely enough: the lowest are the oldest, and a look at them needs no index of times.
_PRUNE_AUDIT = Statement(
    """
    WITH oldest AS (SELECT id, create_time FROM audit ORDER BY id LIMIT :limit),
    gone AS (
        DELETE FROM audit WHERE id IN (
            SELECT id FROM oldest WHERE create_time < now() - make_interval(secs => :age_seconds)
        ) RETURNING id, tenant_id, about
    ), unmentioned AS (
        DELETE FROM audit_mention m USING (SELECT id, tenant_id, unnest(about) AS object FROM gone) AS mentioned
        WHERE m.tenant_id = mentioned.tenant_id AND m.object = mentioned.object AND m.audit_id = mentioned.id
    )
    SELECT count(*) AS gone FROM gone
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


async def prefixes(tx: RelayTransaction, due: Sequence[DueTenant]) -> dict[TenantId, list[OutboxRow]]:
    """The rows of the next batch of each tenant, for as many of them, from the first on, as one request takes.

    A batch begins after what is delivered of its tenant, and is empty where the outbox holds nothing more.
    """
    records = await _ROUND.rows(tx, **_bounded(due))
    rows: dict[TenantId, list[OutboxRow]] = {}
    for record in records:
        its = rows.setdefault(TenantId(record["tenant_id"]), [])
        if record["seq"] is not None:
            its.append(_row(record))
    return rows


def _bounded(due: Sequence[DueTenant]) -> dict[str, object]:
    return {
        "tenant_ids": [tenant.tenant_id for tenant in due],
        "delivered": [tenant.delivered_seq for tenant in due],
        "max_rows": MAX_ROWS_OF_A_BATCH,
        "batch_operations": MAX_ROW_OPERATIONS,
        "batch_bytes": MAX_ROW_BYTES,
        "round_operations": MAX_REQUEST_OPERATIONS,
        "round_bytes": MAX_REQUEST_BYTES,
        "round_rows": MAX_REQUEST_ROWS,
    }


def _row(record: Record) -> OutboxRow:
    return OutboxRow(
        Seq(record["seq"]),
        from_json(record["ops"]),
        record["trace"],
        float(record["age_seconds"]),
        record["store_epoch"],
        record["next_expiry"],
    )


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


async def prune_audit(tx: RelayTransaction, age_seconds: float, limit: int) -> int:
    """Delete at most `limit` events of the audit that are older than that, the oldest first; how many it were."""
    return int((await _PRUNE_AUDIT.one(tx, age_seconds=age_seconds, limit=limit))["gone"])


assert 2 * MAX_ROW_OPERATIONS <= MAX_REQUEST_OPERATIONS
assert MAX_ROW_BYTES <= MAX_REQUEST_BYTES
