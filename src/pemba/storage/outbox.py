"""The outbox: one row for every number of a tenant's sequence, in the transaction of the change.

The head row's lock is held from `advance` to the end of the transaction, so the sequence has no gaps and follows
commit order, and whatever is checked after `advance` cannot change before the commit.
"""

from __future__ import annotations

import json
import uuid
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from pemba.errors import PreconditionFailed, Reason
from pemba.model import SHARDS, Operation, Seq, TenantId, Tuple, TupleOperation
from pemba.storage.database import SystemTransaction, TenantTransaction, Transaction
from pemba.storage.statement import Statement

MAX_ROW_OPERATIONS = 500
MAX_ROW_BYTES = 2 * 1024 * 1024
MAX_CHANGE_OPERATIONS = 50_000

# FOR SHARE: once another life of the store has begun, no stream comes to light that began in the last one.
_CREATE_HEAD = Statement(
    """
    INSERT INTO tenant_head (tenant_id, shard, head_seq, store_epoch)
    SELECT CAST(:tenant_id AS text), CAST(:shard AS smallint), 1, store_epoch FROM installation FOR SHARE
    """
)
_ENSURE_HEAD = Statement(
    """
    INSERT INTO tenant_head (tenant_id, shard, head_seq, store_epoch)
    SELECT CAST(:tenant_id AS text), CAST(:shard AS smallint), 0, store_epoch FROM installation FOR SHARE
    ON CONFLICT DO NOTHING
    """
)
_ADVANCE = Statement("UPDATE tenant_head SET head_seq = head_seq + :by WHERE tenant_id = :tenant_id RETURNING head_seq")
_LOCK_HEADS = Statement(
    "SELECT tenant_id FROM tenant_head WHERE tenant_id = ANY (CAST(:ids AS text[])) ORDER BY tenant_id FOR UPDATE"
)
_HEAD = Statement("SELECT head_seq FROM tenant_head WHERE tenant_id = :tenant_id")
_STATUS = Statement(
    """
    SELECT h.tenant_id, h.shard, h.head_seq, coalesce(d.delivered_seq, 0) AS delivered_seq,
        h.head_seq - coalesce(d.delivered_seq, 0) AS undelivered,
        extract(epoch FROM now() - o.create_time) AS oldest_seconds, coalesce(l.holder, '') AS relay,
        CASE WHEN d.parked_from IS NULL THEN 0
            ELSE (SELECT count(*) FROM parked_operation p WHERE p.tenant_id = h.tenant_id) END AS parked,
        coalesce(d.closed OR d.parked_under < i.schema_number
            OR d.parked_under IS NOT NULL AND i.schema_number % 2 = 1, false) AS closed
    FROM installation i CROSS JOIN tenant_head h
    LEFT JOIN relay_lease l ON l.shard = h.shard AND l.lease_until > now()
    LEFT JOIN tenant_delivery d ON d.tenant_id = h.tenant_id
    LEFT JOIN outbox o ON o.tenant_id = h.tenant_id AND o.seq = coalesce(d.delivered_seq, 0) + 1
    WHERE h.head_seq > coalesce(d.delivered_seq, 0) OR d.parked_from IS NOT NULL OR CAST(:all AS bool)
    ORDER BY undelivered DESC, h.tenant_id LIMIT :limit
    """
)
_SHARDS = Statement(
    """
    SELECT h.shard, count(*) AS streams, count(*) FILTER (WHERE h.head_seq > coalesce(d.delivered_seq, 0)) AS behind,
        CAST(sum(h.head_seq - coalesce(d.delivered_seq, 0)) AS bigint) AS undelivered,
        coalesce(max(extract(epoch FROM now() - o.create_time)), 0) AS oldest_seconds
    FROM tenant_head h
    LEFT JOIN tenant_delivery d ON d.tenant_id = h.tenant_id
    LEFT JOIN outbox o ON o.tenant_id = h.tenant_id AND o.seq = coalesce(d.delivered_seq, 0) + 1
    GROUP BY h.shard
    """
)


NextExpiry = datetime | None
"""When, by the database's clock, the first of a tenant's tuples expires; None: none does."""


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """What one number of a tenant's sequence carries; `trace` names the request that it comes from."""

    seq: Seq
    operations: tuple[TupleOperation, ...]
    trace: Mapping[str, str]
    age_seconds: float
    store_epoch: uuid.UUID | None = None
    """With this row everything of the tenant is in that life of the store."""
    next_expiry: NextExpiry = None
    """Once this is delivered, until a later row is."""


@dataclass(frozen=True, slots=True)
class StreamStatus:
    """How far a tenant's stream is delivered; `oldest_seconds` is the age of its first undelivered row.

    `relay` delivers it at present, by host, process id and a random part; empty where none does.  `parked` counts its
    parked operations; `closed`: its checks are, for their sake.
    """

    tenant_id: TenantId
    shard: int
    head_seq: Seq
    delivered_seq: Seq
    undelivered: int
    oldest_seconds: float | None
    relay: str = ""
    parked: int = 0
    closed: bool = False


@dataclass(frozen=True, slots=True)
class ShardStatus:
    """How far a lane is: its streams, how many of them are behind, and by how many rows."""

    shard: int
    streams: int
    streams_behind: int
    undelivered: int
    oldest_seconds: float


def shard_of(tenant_id: TenantId) -> int:
    """The lane that delivers this tenant: fixed for ever, so no random hash seed may come into it."""
    return zlib.crc32(tenant_id.encode()) % SHARDS


async def create_head(tx: SystemTransaction, tenant_id: TenantId) -> Seq:
    """A new tenant's stream; the first number is taken with it."""
    await _CREATE_HEAD.run(tx, tenant_id=tenant_id, shard=shard_of(tenant_id))
    return Seq(1)


async def ensure_head(tx: SystemTransaction, tenant_id: TenantId) -> None:
    """A stream for what is in SpiceDB under a tenant that never was one here: as if it had been deleted."""
    await _ENSURE_HEAD.run(tx, tenant_id=tenant_id, shard=shard_of(tenant_id))


async def advance(tx: TenantTransaction, by: int = 1) -> Seq | None:
    """Lock the head and take the next `by` numbers; the last of them.  None where there is no such tenant."""
    record = await _ADVANCE.row(tx, tenant_id=tx.tenant_id, by=by)
    return None if record is None else Seq(record["head_seq"])


async def lock_heads(tx: SystemTransaction, ids: Sequence[TenantId]) -> None:
    """Hold these streams to the end of the transaction, in the order of their ids, without taking a number."""
    if ids:
        await _LOCK_HEADS.rows(tx, ids=list(ids))


async def head(tx: Transaction, tenant_id: TenantId) -> Seq:
    """The last committed number; 0 where there is no such tenant."""
    record = await _HEAD.row(tx, tenant_id=tenant_id)
    return Seq(0 if record is None else record["head_seq"])


async def status(tx: Transaction, *, every: bool, limit: int) -> list[StreamStatus]:
    """Streams, the furthest behind first; without `every` only those that are behind or have parked operations."""
    return [
        StreamStatus(
            TenantId(r["tenant_id"]),
            r["shard"],
            Seq(r["head_seq"]),
            Seq(r["delivered_seq"]),
            r["undelivered"],
            None if r["oldest_seconds"] is None else float(r["oldest_seconds"]),
            r["relay"],
            r["parked"],
            r["closed"],
        )
        for r in await _STATUS.rows(tx, all=every, limit=limit)
    ]


async def shards(tx: Transaction) -> list[ShardStatus]:
    """Every lane, in order."""
    found = {r["shard"]: r for r in await _SHARDS.rows(tx)}
    return [
        ShardStatus(n, r["streams"], r["behind"], r["undelivered"], float(r["oldest_seconds"]))
        if (r := found.get(n))
        else ShardStatus(n, 0, 0, 0, 0.0)
        for n in range(SHARDS)
    ]


def split(operations: Sequence[TupleOperation]) -> list[list[TupleOperation]]:
    """The operations of one change in rows that each keep the bounds of a row; at least one row, empty or not.

    DELETEs come first, so that half of a change grants less than both states, never more.
    Raises PreconditionFailed (CHANGE_TOO_LARGE) beyond 50,000 operations.
    """
    if len(operations) > MAX_CHANGE_OPERATIONS:
        raise PreconditionFailed(
            Reason.CHANGE_TOO_LARGE,
            f"the change takes {len(operations)} tuple operations, more than {MAX_CHANGE_OPERATIONS}; "
            "do it in parts: the workspaces below it first",
        )
    ordered = sorted(operations, key=lambda o: o.operation is not Operation.DELETE)
    # An operation takes less than 4 KiB by the bounds on ids, so 500 of them are below 2 MiB.
    return [ordered[i : i + MAX_ROW_OPERATIONS] for i in range(0, len(ordered), MAX_ROW_OPERATIONS)] or [[]]


def to_json(operations: Sequence[TupleOperation]) -> str:
    """The stored form: ``[{"op": "touch", "tuple": "workspace:...#owner@user:alice"}, ...]``."""
    return json.dumps([{"op": o.operation.value, "tuple": str(o.tuple)} for o in operations])


def from_json(ops: Sequence[dict[str, str]]) -> tuple[TupleOperation, ...]:
    """The inverse, of what the driver has parsed."""
    return tuple(TupleOperation(Operation(o["op"]), Tuple.parse(o["tuple"])) for o in ops)
