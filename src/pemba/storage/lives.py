"""Lives of SpiceDB's data and of this database: what begins another one, and which tenants are in the present one yet.

A loss is declared in one transaction, under the locks of all shards' leases: while they are held nothing is recorded as
delivered, no fence gets its next number, and nobody takes a shard over.  It gives the store (and, where PostgreSQL
itself lost commits, the database) another epoch, and every shard a lease that nobody holds, above whatever was used
before.  One process at a time does this, and what follows from it: the lock goes with the session.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import asyncpg

from pemba.model import GLOBAL_STREAM, TenantId
from pemba.storage.database import CONNECT_SECONDS, RELAY_ROLE, SYSTEM_ROLE, RelayTransaction, SystemTransaction
from pemba.storage.errors import CONNECTION_FAILURES, translated
from pemba.storage.statement import Statement

_LOCK = 0x6C69766573  # "lives"
_SETTINGS = {
    "application_name": "pemba heal",
    "lock_timeout": "5000",
    "statement_timeout": "10000",
    "idle_in_transaction_session_timeout": "10000",
    # A session whose process is gone must not keep the lock for hours.
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
}
_COMMAND_SECONDS = 12.0

_SHARDS = "SELECT shard, epoch, n, landed FROM relay_lease ORDER BY shard FOR UPDATE"
_NEW_LEASES = """
    UPDATE relay_lease l SET epoch = given.epoch, n = given.n, holder = NULL, lease_until = NULL
    FROM unnest($1::smallint[], $2::bigint[], $3::bigint[]) AS given (shard, epoch, n) WHERE l.shard = given.shard
"""
_NEW_EPOCHS = """
    UPDATE installation SET store_epoch = gen_random_uuid(),
        database_epoch = CASE WHEN $1 THEN gen_random_uuid() ELSE database_epoch END
"""
_AUDIT = f"""
    INSERT INTO audit (tenant_id, principal, peer, request_id, method, object, reason, after, ops)
    SELECT '{GLOBAL_STREAM}', $1, 'relay', 'store-' || store_epoch, 'DeclareLoss', 'installation', upper($2),
        jsonb_build_object('store_epoch', store_epoch, 'database_epoch', database_epoch), '[]'
    FROM installation, (SELECT FROM tenant_head WHERE tenant_id = '{GLOBAL_STREAM}' FOR NO KEY UPDATE) AS head
"""
_STANDING = Statement("SELECT installation_id, store_epoch, filled_epoch FROM installation")
# Those whose stream does not hold the row yet with which they are complete.
_WITHOUT_ROW = f"""
    FROM tenant_head h LEFT JOIN tenant_delivery d ON d.tenant_id = h.tenant_id
    WHERE h.tenant_id <> '{GLOBAL_STREAM}' AND coalesce(d.store_epoch, h.store_epoch) <> CAST(:epoch AS uuid)
        AND NOT EXISTS (
            SELECT FROM outbox o WHERE o.tenant_id = h.tenant_id AND o.store_epoch = CAST(:epoch AS uuid)
                AND o.seq > coalesce(d.delivered_seq, 0)
        )
"""
_MISSING = Statement(f"SELECT h.tenant_id {_WITHOUT_ROW} AND h.tenant_id > :after ORDER BY h.tenant_id LIMIT :limit")
_COUNT_MISSING = Statement(f"SELECT count(*) AS tenants {_WITHOUT_ROW}")
_FILLED = Statement("UPDATE installation SET filled_epoch = store_epoch WHERE store_epoch = CAST(:epoch AS uuid)")


@dataclass(frozen=True, slots=True)
class Standing:
    """`installation_id` never changes; another `filled_epoch` than `store_epoch`: tenants are missing in the store."""

    installation_id: uuid.UUID
    store_epoch: uuid.UUID
    filled_epoch: uuid.UUID

    @property
    def is_filled(self) -> bool:
        return self.filled_epoch == self.store_epoch


@dataclass(frozen=True, slots=True)
class Numbers:
    """A shard's newest epoch and number, and the highest number that SpiceDB is known to have held (-1: none)."""

    epoch: int
    n: int
    landed: int


class Lives:
    """A session that holds the lock."""

    def __init__(self, connection: asyncpg.Connection[Any]) -> None:
        self._connection = connection

    @classmethod
    @asynccontextmanager
    async def connect(cls, url: str) -> AsyncIterator[Lives | None]:
        """None where another process is at it.  Raises Unavailable."""
        with translated():
            connection = await asyncpg.connect(
                url, timeout=CONNECT_SECONDS, command_timeout=_COMMAND_SECONDS, server_settings=_SETTINGS
            )
            try:
                is_ours = await connection.fetchval("SELECT pg_try_advisory_lock($1)", _LOCK)
                yield cls(connection) if is_ours else None
            finally:
                with suppress(*CONNECTION_FAILURES):
                    await connection.close(timeout=2)

    @asynccontextmanager
    async def locked(self) -> AsyncIterator[Mapping[int, Numbers]]:
        """Every shard's numbers; everything about leases stands still until the end of the block."""
        async with self._connection.transaction():
            await self._connection.execute(f"SET LOCAL ROLE {RELAY_ROLE}")
            records = await self._connection.fetch(_SHARDS)
            yield {r["shard"]: Numbers(r["epoch"], r["n"], r["landed"]) for r in records}

    async def begin(
        self, leases: Mapping[int, tuple[int, int]], principal: str, what: str, *, database_lost: bool
    ) -> None:
        """Inside `locked`: another life of the store (and the database), in which nobody holds a shard.

        The audit says that `principal` declared `what`.
        """
        shards = sorted(leases)
        epochs, numbers = ([leases[shard][i] for shard in shards] for i in (0, 1))
        await self._connection.execute(_NEW_LEASES, shards, epochs, numbers)
        await self._connection.execute("RESET ROLE")
        await self._connection.execute(_NEW_EPOCHS, database_lost)
        await self._connection.execute(f"SET LOCAL ROLE {SYSTEM_ROLE}")
        await self._connection.execute(_AUDIT, principal, what)


async def standing(tx: RelayTransaction | SystemTransaction) -> Standing:
    record = await _STANDING.one(tx)
    return Standing(record["installation_id"], record["store_epoch"], record["filled_epoch"])


async def missing(tx: SystemTransaction, epoch: uuid.UUID, after: TenantId, limit: int) -> list[TenantId]:
    """The next tenants, by id, whose repair for that life of the store is neither delivered nor in their stream."""
    records = await _MISSING.rows(tx, epoch=epoch, after=after, limit=limit)
    return [TenantId(record["tenant_id"]) for record in records]


async def count_missing(tx: SystemTransaction, epoch: uuid.UUID) -> int:
    """How many these are in all."""
    return int((await _COUNT_MISSING.one(tx, epoch=epoch))["tenants"])


async def mark_filled(tx: SystemTransaction, epoch: uuid.UUID) -> bool:
    """Every tenant's repair is in its stream; False where another life has begun meanwhile."""
    return await _FILLED.run(tx, epoch=epoch) == 1
