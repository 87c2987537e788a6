"""Who delivers which shard, and until when.  The database's clock alone decides; no caller brings a time of its own."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from pemba.storage.database import RelayTransaction
from pemba.storage.statement import Statement

# A shard is free when nobody holds it, when its holder let it expire, and when this holder does not know of its own
# hold (the answer to an earlier take was lost).  What another takes at this moment is left to it.
_TAKE = Statement(
    """
    WITH free AS MATERIALIZED (
        SELECT shard FROM relay_lease
        WHERE (lease_until IS NULL OR lease_until <= now() OR holder = CAST(:holder AS text))
            AND shard <> ALL (CAST(:without AS smallint[]))
        ORDER BY shard LIMIT :limit FOR UPDATE SKIP LOCKED
    )
    UPDATE relay_lease l SET holder = CAST(:holder AS text), epoch = l.epoch + 1,
        lease_until = now() + make_interval(secs => :ttl_seconds)
    FROM free WHERE l.shard = free.shard RETURNING l.shard, l.epoch
    """
)
_RENEW = Statement(
    """
    UPDATE relay_lease l SET lease_until = now() + make_interval(secs => :ttl_seconds)
    FROM unnest(CAST(:shards AS smallint[]), CAST(:epochs AS bigint[])) AS held (shard, epoch)
    WHERE l.shard = held.shard AND l.epoch = held.epoch AND l.holder = :holder AND l.lease_until > now()
    RETURNING l.shard
    """
)
_RELEASE = Statement(
    """
    UPDATE relay_lease SET holder = NULL, lease_until = NULL
    WHERE holder = :holder AND shard <> ALL (CAST(:without AS smallint[]))
    """
)
_LOCK = Statement(
    """
    SELECT l.epoch, l.n, l.landed, EXISTS (SELECT FROM schema_version WHERE state = 'applied') AS has_schema,
        coalesce(l.epoch = :epoch AND l.holder = :holder AND l.lease_until > now(), false) AS is_ours
    FROM relay_lease l WHERE l.shard = :shard FOR UPDATE OF l
    """
)
_RAISE = Statement("UPDATE relay_lease SET n = :n, landed = :n - 1 WHERE shard = :shard AND n = :n - 1")
_LAND = Statement(
    """
    UPDATE relay_lease SET landed = :n
    WHERE shard = :shard AND epoch = :epoch AND holder = :holder AND lease_until > now() AND n = :n
    """
)
_READ = Statement("SELECT l.shard, l.epoch, l.n, i.schema_number FROM relay_lease l, installation i")


class LeaseLost(Exception):
    """The shard is, or may be by now, another relay's: nothing was recorded, and nothing further may be written."""


@dataclass(frozen=True, slots=True)
class Lease:
    """One hold on a shard; no two ever have the same epoch."""

    shard: int
    epoch: int
    holder: str


@dataclass(frozen=True, slots=True)
class LeaseRow:
    """What PostgreSQL says of a shard, locked: its newest epoch, the newest fence number, and whose it is."""

    epoch: int
    n: int
    landed: int
    """The highest number that SpiceDB is known to have held; -1 before the first."""
    is_ours: bool
    has_schema: bool
    """A SpiceDB schema was applied once, so that a store without one has lost it."""


@dataclass(frozen=True, slots=True)
class Numbers:
    """What PostgreSQL holds of every shard, and the number of the schema."""

    by_shard: Mapping[int, tuple[int, int]]
    """(epoch, n)"""

    schema_number: int


async def take(
    tx: RelayTransaction, holder: str, limit: int, without: Collection[int], ttl_seconds: float
) -> list[Lease]:
    """At most `limit` free shards; the ones in `without` are left alone."""
    records = await _TAKE.rows(tx, holder=holder, limit=limit, without=list(without), ttl_seconds=ttl_seconds)
    return [Lease(record["shard"], record["epoch"], holder) for record in records]


async def renew(tx: RelayTransaction, holder: str, held: Collection[Lease], ttl_seconds: float) -> set[int]:
    """The shards that are still this holder's, for as long again; a lease that ran out is not brought back."""
    records = await _RENEW.rows(
        tx,
        holder=holder,
        shards=[lease.shard for lease in held],
        epochs=[lease.epoch for lease in held],
        ttl_seconds=ttl_seconds,
    )
    return {record["shard"] for record in records}


async def release(tx: RelayTransaction, holder: str, without: Collection[int] = ()) -> int:
    """Free every shard of this holder but those; how many it were."""
    return await _RELEASE.run(tx, holder=holder, without=list(without))


async def lock(tx: RelayTransaction, lease: Lease) -> LeaseRow:
    """The shard's row, which nobody else changes until the end of this transaction."""
    record = await _LOCK.one(tx, shard=lease.shard, epoch=lease.epoch, holder=lease.holder)
    return LeaseRow(record["epoch"], record["n"], record["landed"], record["is_ours"], record["has_schema"])


async def raise_number(tx: RelayTransaction, lease: Lease, n: int) -> None:
    """Make the shard's fence number `n`, from the one before it, which was found there; the row is locked."""
    await _RAISE.run(tx, shard=lease.shard, n=n)


async def mark_landed(tx: RelayTransaction, lease: Lease, n: int) -> None:
    """SpiceDB has held that number.  Raises LeaseLost where the lease is over or another's."""
    if not await _LAND.run(tx, shard=lease.shard, epoch=lease.epoch, holder=lease.holder, n=n):
        raise LeaseLost


async def numbers(tx: RelayTransaction) -> Numbers:
    records = await _READ.rows(tx)
    return Numbers({r["shard"]: (r["epoch"], r["n"]) for r in records}, records[0]["schema_number"])
