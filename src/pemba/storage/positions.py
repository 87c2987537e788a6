"""How far tenants are delivered and whose status denies, as a server follows them: counters, and what moved since.

Every writer of a shard's positions raises the shard's counter and stamps what it writes with it, in one transaction
under that row's lock.  So whoever has seen a counter has seen every position with a stamp up to it.
"""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from asyncpg import Record

from pemba.model import GLOBAL_STREAM, Seq, TenantId, TenantStatus, UserId
from pemba.storage.database import SystemTransaction
from pemba.storage.statement import Statement

MAX_MOVED = 5000
"""Of more positions that moved at once nobody keeps track."""

_PULSE_COLUMNS = f"""
    i.database_epoch, i.store_epoch, i.schema_number, pg_postmaster_start_time() AS server_start, now() AS now,
    (SELECT head_seq FROM tenant_head WHERE tenant_id = '{GLOBAL_STREAM}') AS statuses_seq,
    (SELECT array_agg(deliveries ORDER BY shard) FROM relay_lease) AS deliveries
"""
_POSITION_COLUMNS = """
    coalesce(d.delivered_seq, 0) AS delivered_seq, d.zedtoken, d.schema_number AS written_under,
    coalesce(d.stamp, 0) AS stamp, d.next_expiry,
    d.parked_from, d.parked_under, coalesce(d.closed, false) AS closed
"""
_PULSE = Statement(f"SELECT {_PULSE_COLUMNS} FROM installation i")
_LOAD = Statement(
    f"""
    SELECT {_PULSE_COLUMNS}, given.tenant_id, t.status, {_POSITION_COLUMNS},
        coalesce(d.store_epoch, h.store_epoch, i.store_epoch) = i.store_epoch AS in_store,
        (SELECT array_agg(id) FROM users WHERE id = ANY (CAST(:user_ids AS text[])) AND status <> 'active') AS inactive
    FROM installation i
    LEFT JOIN unnest(CAST(:tenant_ids AS text[])) AS given (tenant_id) ON true
    LEFT JOIN tenants t ON t.id = given.tenant_id AND t.status <> 'deleting'
    LEFT JOIN tenant_head h ON h.tenant_id = given.tenant_id
    LEFT JOIN tenant_delivery d ON d.tenant_id = given.tenant_id
    """
)
_MOVED = Statement(
    f"""
    SELECT d.tenant_id, {_POSITION_COLUMNS}, d.store_epoch = i.store_epoch AS in_store
    FROM installation i, unnest(CAST(:shards AS smallint[]), CAST(:stamps AS bigint[])) AS seen (shard, stamp)
    CROSS JOIN LATERAL (
        SELECT * FROM tenant_delivery
        WHERE shard = seen.shard AND stamp > seen.stamp ORDER BY stamp LIMIT {MAX_MOVED + 1}
    ) d
    LIMIT {MAX_MOVED + 1}
    """
)
_DECLARE_LOST = Statement(
    "UPDATE installation SET database_epoch = gen_random_uuid() WHERE database_epoch = :database_epoch"
)
_HEADS = Statement(
    """
    SELECT i.database_epoch, given.tenant_id, coalesce(h.head_seq, 0) AS head_seq
    FROM installation i, unnest(CAST(:tenant_ids AS text[])) AS given (tenant_id)
    LEFT JOIN tenant_head h ON h.tenant_id = given.tenant_id
    """
)


@dataclass(frozen=True, slots=True)
class Pulse:
    """Every counter at one moment; another `life` means that nothing remembered counts any more.

    `schema_number` is odd while a schema is being applied; `statuses_seq` is the head of the stream `~`.
    """

    life: tuple[uuid.UUID, uuid.UUID, datetime.datetime]
    """Database epoch, store epoch, and the start of the PostgreSQL server (a restored one starts anew)."""
    schema_number: int
    statuses_seq: Seq
    deliveries: tuple[int, ...]
    now: datetime.datetime
    """By the database's clock, which says when anything expires."""

    @property
    def database_epoch(self) -> uuid.UUID:
        return self.life[0]

    @property
    def epochs(self) -> tuple[uuid.UUID, uuid.UUID]:
        """The database's and the store's."""
        return self.life[:2]


@dataclass(frozen=True, slots=True)
class Delivery:
    """How far a tenant is delivered: `zedtoken` is of its last write, None before, `written_under` which schema.

    `next_expiry` is when the first of its tuples expires; None: none does.
    """

    seq: Seq
    zedtoken: str | None
    written_under: int | None
    stamp: int
    in_store: bool = True
    """Whether SpiceDB holds everything of the tenant up to there: not so between a loss and the repair."""
    parked_from: Seq | None = None
    """The first row of which an operation is parked; None where none is."""
    parked_under: int | None = None
    """The oldest schema under which one of them was refused."""
    closed: bool = False
    next_expiry: datetime.datetime | None = None


@dataclass(frozen=True, slots=True)
class Loaded:
    """What one statement said: a tenant that there is not has the status None."""

    pulse: Pulse
    tenants: dict[TenantId, tuple[TenantStatus | None, Delivery]]
    inactive_users: frozenset[UserId]


@dataclass(frozen=True, slots=True)
class Heads:
    """What is committed, by stream, in this life of the database."""

    database_epoch: uuid.UUID
    seqs: dict[TenantId, Seq]


async def pulse(tx: SystemTransaction) -> Pulse:
    return _pulse(await _PULSE.one(tx))


async def load(tx: SystemTransaction, tenant_ids: Collection[TenantId], user_ids: Collection[UserId]) -> Loaded:
    """Tenants and users with the counters of the same moment."""
    records = await _LOAD.rows(tx, tenant_ids=list(tenant_ids), user_ids=list(user_ids))
    tenants = {TenantId(r["tenant_id"]): (_status(r), _delivery(r)) for r in records if r["tenant_id"] is not None}
    return Loaded(_pulse(records[0]), tenants, frozenset(map(UserId, records[0]["inactive"] or ())))


async def moved(tx: SystemTransaction, shards: Sequence[int], stamps: Sequence[int]) -> dict[TenantId, Delivery] | None:
    """Whatever was stamped in these shards since those stamps; None where it is too much to follow."""
    records = await _MOVED.rows(tx, shards=list(shards), stamps=list(stamps))
    return None if len(records) > MAX_MOVED else {TenantId(r["tenant_id"]): _delivery(r) for r in records}


async def heads(tx: SystemTransaction, streams: Collection[TenantId]) -> Heads:
    """The last committed number of each stream, 0 where there is no such stream; at least one."""
    records = await _HEADS.rows(tx, tenant_ids=list(streams))
    return Heads(records[0]["database_epoch"], {TenantId(r["tenant_id"]): Seq(r["head_seq"]) for r in records})


async def declare_lost(tx: SystemTransaction, database_epoch: uuid.UUID) -> bool:
    """This life of the database is over, since it lost commits: no token of it counts any more.  False: it was."""
    return await _DECLARE_LOST.run(tx, database_epoch=database_epoch) == 1


def _pulse(record: Record) -> Pulse:
    life = (record["database_epoch"], record["store_epoch"], record["server_start"])
    return Pulse(life, record["schema_number"], Seq(record["statuses_seq"]), tuple(record["deliveries"]), record["now"])


def _status(record: Record) -> TenantStatus | None:
    return None if record["status"] is None else TenantStatus(record["status"])


def _delivery(record: Record) -> Delivery:
    return Delivery(
        Seq(record["delivered_seq"]),
        record["zedtoken"],
        record["written_under"],
        record["stamp"],
        record["in_store"],
        record["parked_from"],
        record["parked_under"],
        record["closed"],
        record["next_expiry"],
    )
