"""How far tenants are delivered, as checks need it, with the statuses that deny at once: one statement."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from asyncpg import Record

from pemba.model import Seq, TenantId, TenantStatus, UserId
from pemba.storage.database import SystemTransaction
from pemba.storage.statement import Statement

_READ = Statement(
    """
    SELECT given.tenant_id, t.status, coalesce(h.head_seq, 0) AS head_seq,
        -- What the stream `~` says is in force by its commit: nothing of it goes to SpiceDB.
        coalesce(CASE WHEN h.tenant_id = '~' THEN h.head_seq ELSE d.delivered_seq END, 0) AS delivered_seq, d.zedtoken,
        d.schema_number = i.schema_number AND i.schema_number % 2 = 0 AS same_schema, i.database_epoch,
        (SELECT array_agg(id) FROM users WHERE id = ANY (CAST(:user_ids AS text[])) AND status <> 'active') AS inactive
    FROM installation i, unnest(CAST(:tenant_ids AS text[])) AS given (tenant_id)
    LEFT JOIN tenants t ON t.id = given.tenant_id
    LEFT JOIN tenant_head h ON h.tenant_id = given.tenant_id
    LEFT JOIN tenant_delivery d ON d.tenant_id = given.tenant_id
    """
)


@dataclass(frozen=True, slots=True)
class Position:
    """A tenant's stream: what is committed (`head_seq`), what SpiceDB has (`delivered_seq`), and its status.

    `status` is None where there is no such tenant.  `zedtoken` is None where no revision is known to be fresh
    enough: nothing was written yet, or the schema was applied since.
    """

    database_epoch: uuid.UUID
    status: TenantStatus | None
    head_seq: Seq
    delivered_seq: Seq
    zedtoken: str | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Positions by tenant, and those of the users asked about who are suspended or deactivated; of one moment."""

    positions: Mapping[TenantId, Position]
    inactive_users: frozenset[UserId]


async def read(tx: SystemTransaction, tenant_ids: Collection[TenantId], user_ids: Collection[UserId]) -> Snapshot:
    """One statement; at least one tenant."""
    records = await _READ.rows(tx, tenant_ids=list(tenant_ids), user_ids=list(user_ids))
    return Snapshot({TenantId(r["tenant_id"]): _position(r) for r in records}, frozenset(records[0]["inactive"] or ()))


def _position(record: Record) -> Position:
    return Position(
        record["database_epoch"],
        None if record["status"] is None else TenantStatus(record["status"]),
        Seq(record["head_seq"]),
        Seq(record["delivered_seq"]),
        record["zedtoken"] if record["same_schema"] else None,
    )
