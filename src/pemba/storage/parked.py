"""Operations that SpiceDB refuses: one row a tuple, until a later operation on that tuple is delivered.

The relay writes them, and sums them up in the tenant's delivery row in the same transaction, so that whoever sees how
far the tenant is delivered sees what is parked up to there.
"""

from __future__ import annotations

import datetime
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from asyncpg import Record

from pemba.model import Effect, Operation, Seq, TenantId, Tuple, TupleOperation
from pemba.storage.database import RelayTransaction, SystemTransaction, TenantTransaction, Transaction
from pemba.storage.leases import Lease
from pemba.storage.statement import Statement

MAX_MESSAGE_CHARACTERS = 500

_PUT = Statement(
    """
    INSERT INTO parked_operation
        (tenant_id, tuple, op, seq, since_seq, effect, reason, message, schema_number)
    SELECT tenant_id, tuple, op, seq, seq, effect, reason, message, CAST(:schema_number AS bigint)
    FROM unnest(CAST(:tenant_ids AS text[]), CAST(:tuples AS text[]), CAST(:ops AS text[]), CAST(:seqs AS bigint[]),
        CAST(:effects AS text[]), CAST(:reasons AS text[]), CAST(:messages AS text[]))
        AS given (tenant_id, tuple, op, seq, effect, reason, message)
    ON CONFLICT (tenant_id, split_part(tuple, '[', 1)) DO UPDATE SET
        tuple = excluded.tuple, op = excluded.op, seq = excluded.seq, effect = excluded.effect,
        reason = excluded.reason, message = excluded.message, schema_number = excluded.schema_number,
        retried_under = NULL, park_time = now()
    """
)
_END = Statement(
    """
    DELETE FROM parked_operation p
    USING unnest(CAST(:tenant_ids AS text[]), CAST(:tuples AS text[])) AS ended (tenant_id, tuple)
    WHERE p.tenant_id = ended.tenant_id AND split_part(p.tuple, '[', 1) = ended.tuple
    """
)
# The first parking of a tenant may come before anything of it is delivered: then its row begins here.
_SUM_UP = Statement(
    """
    INSERT INTO tenant_delivery
        (tenant_id, shard, delivered_seq, stamp, schema_number, store_epoch, parked_from, parked_under, closed)
    SELECT h.tenant_id, CAST(:shard AS smallint), 0, CAST(:stamp AS bigint), CAST(:schema_number AS bigint),
        h.store_epoch, p.parked_from, p.parked_under, coalesce(p.closed, false)
    FROM tenant_head h, LATERAL (
        SELECT min(since_seq) AS parked_from, min(schema_number) AS parked_under,
            bool_or(effect = 'restricts') AS closed
        FROM parked_operation WHERE tenant_id = h.tenant_id
    ) p
    WHERE h.tenant_id = ANY (CAST(:tenant_ids AS text[]))
    ON CONFLICT (tenant_id) DO UPDATE SET parked_from = excluded.parked_from, parked_under = excluded.parked_under,
        closed = excluded.closed, stamp = excluded.stamp
    """
)
_COLUMNS = """
    p.tenant_id, p.tuple, p.op, p.seq, p.since_seq, p.effect, p.reason, p.message, p.schema_number, p.park_time
"""
_UNDELIVERED = Statement(
    f"""
    SELECT {_COLUMNS} FROM parked_operation p JOIN tenant_delivery d ON d.tenant_id = p.tenant_id
    WHERE p.tenant_id = ANY (CAST(:tenant_ids AS text[])) AND p.seq > d.delivered_seq
    """
)
_AFTER = Statement(
    f"""
    SELECT {_COLUMNS} FROM parked_operation p
    WHERE (CAST(:tenant_id AS text) = '' OR p.tenant_id = CAST(:tenant_id AS text))
        AND (p.tenant_id, p.since_seq, p.tuple) >
            (CAST(:after_tenant AS text), CAST(:after_seq AS bigint), CAST(:after_tuple AS text))
    ORDER BY p.tenant_id, p.since_seq, p.tuple LIMIT :limit
    """
)
_TO_REPAIR = Statement(
    f"""
    SELECT {_COLUMNS} FROM parked_operation p
    WHERE p.tenant_id = :tenant_id AND p.tuple > :after
        AND greatest(p.schema_number, p.retried_under) < CAST(:below AS bigint)
    ORDER BY p.tuple LIMIT :limit
    """
)
_MARK_RETRIED = Statement(
    """
    UPDATE parked_operation SET retried_under = :schema_number
    WHERE tenant_id = :tenant_id AND tuple = ANY (CAST(:tuples AS text[]))
    """
)
_TENANTS = Statement(
    """
    SELECT DISTINCT tenant_id FROM parked_operation
    WHERE (CAST(:tenant_id AS text) = '' OR tenant_id = CAST(:tenant_id AS text))
        AND greatest(schema_number, retried_under) < CAST(:below AS bigint) ORDER BY tenant_id
    """
)
_COUNTS = Statement(
    """
    SELECT (SELECT count(*) FROM parked_operation) AS operations, count(*) AS tenants,
        count(*) FILTER (WHERE d.closed OR d.parked_under < i.schema_number OR i.schema_number % 2 = 1) AS closed
    FROM tenant_delivery d, installation i WHERE d.parked_from IS NOT NULL
    """
)
ANY_SCHEMA = 2**62
"""Above every number that a schema will have."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """An operation of a tenant's row that SpiceDB refuses; `reason` is SpiceDB's."""

    tenant_id: TenantId
    seq: Seq
    operation: TupleOperation
    effect: Effect
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Parked:
    """A refusal as it is stored: since row `since` the tuple is not what it should be."""

    refusal: Refusal
    since: Seq
    schema_number: int
    park_time: datetime.datetime


@dataclass(frozen=True, slots=True)
class Counts:
    """Parked operations, tenants that have any, and those of them whose checks are closed."""

    operations: int
    tenants: int
    closed: int


async def put(tx: RelayTransaction, refusals: Sequence[Refusal], schema_number: int) -> None:
    """Park these; one on a tuple that is parked already takes its place.  `sum_up` follows."""
    await _PUT.run(
        tx,
        schema_number=schema_number,
        tenant_ids=[r.tenant_id for r in refusals],
        tuples=[str(r.operation.tuple) for r in refusals],
        ops=[r.operation.operation.value for r in refusals],
        seqs=[r.seq for r in refusals],
        effects=[r.effect.value for r in refusals],
        reasons=[r.reason for r in refusals],
        messages=[r.message[:MAX_MESSAGE_CHARACTERS] for r in refusals],
    )


async def end(tx: RelayTransaction, ended: Sequence[tuple[TenantId, Tuple]]) -> None:
    """A later operation on each of these tuples is delivered.  `sum_up` follows."""
    await _END.run(tx, tenant_ids=[tenant_id for tenant_id, _ in ended], tuples=[str(t.plain) for _, t in ended])


async def sum_up(
    tx: RelayTransaction, lease: Lease, stamp: int, tenant_ids: Collection[TenantId], schema_number: int
) -> None:
    """Write what is parked of these tenants into their delivery rows, under a stamp of this transaction."""
    await _SUM_UP.run(tx, shard=lease.shard, stamp=stamp, tenant_ids=sorted(tenant_ids), schema_number=schema_number)


async def undelivered(tx: RelayTransaction, tenant_ids: Collection[TenantId]) -> dict[TenantId, list[Refusal]]:
    """Of these tenants, what is parked of rows that are not delivered yet."""
    found: dict[TenantId, list[Refusal]] = {}
    for record in await _UNDELIVERED.rows(tx, tenant_ids=sorted(tenant_ids)):
        found.setdefault(TenantId(record["tenant_id"]), []).append(_parked(record).refusal)
    return found


async def after(
    tx: SystemTransaction, tenant_id: TenantId | None, position: tuple[str, int, str], limit: int
) -> list[Parked]:
    """A tenant's (None: everybody's) parked operations by tenant, first row and tuple, after that position."""
    tenant, seq, text = position
    records = await _AFTER.rows(
        tx, tenant_id=tenant_id or "", after_tenant=tenant, after_seq=seq, after_tuple=text, limit=limit
    )
    return [_parked(record) for record in records]


async def to_repair(tx: TenantTransaction, below: int, after: str, limit: int) -> list[Parked]:
    """Those refused and last repaired under a schema below that number, by tuple, after that one."""
    records = await _TO_REPAIR.rows(tx, tenant_id=tx.tenant_id, below=below, after=after, limit=limit)
    return [_parked(record) for record in records]


async def mark_retried(tx: TenantTransaction, tuples: Collection[Tuple], schema_number: int) -> None:
    """A repair of these is committed with this transaction."""
    await _MARK_RETRIED.run(tx, tenant_id=tx.tenant_id, tuples=[str(t) for t in tuples], schema_number=schema_number)


async def tenants_to_repair(tx: SystemTransaction, tenant_id: TenantId | None, below: int) -> list[TenantId]:
    """Tenants (or that one) with operations for `to_repair`."""
    records = await _TENANTS.rows(tx, tenant_id=tenant_id or "", below=below)
    return [TenantId(record["tenant_id"]) for record in records]


async def counts(tx: Transaction) -> Counts:
    record = await _COUNTS.one(tx)
    return Counts(record["operations"], record["tenants"], record["closed"])


def _parked(record: Record) -> Parked:
    operation = TupleOperation(Operation(record["op"]), Tuple.parse(record["tuple"]))
    refusal = Refusal(
        TenantId(record["tenant_id"]),
        Seq(record["seq"]),
        operation,
        Effect(record["effect"]),
        record["reason"],
        record["message"],
    )
    return Parked(refusal, Seq(record["since_seq"]), record["schema_number"], record["park_time"])
