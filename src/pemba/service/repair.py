"""One repair: an ordinary row of a tenant's stream, made of what the records say while its head is held."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from pemba import projection
from pemba.model import Caller, Seq, SystemScope, TenantId, TenantScope, Tuple
from pemba.service import wanted
from pemba.service.mutation import Wakeup
from pemba.storage import journal, outbox
from pemba.storage.database import Database
from pemba.storage.journal import AuditEntry

METHOD = "Reconcile"
MAX_TUPLES = outbox.MAX_ROW_OPERATIONS


async def repair(
    database: Database,
    wakeup: Wakeup,
    caller: Caller,
    tenant_id: TenantId,
    tuples: Sequence[Tuple],
    *,
    method: str = METHOD,
    fills: uuid.UUID | None = None,
) -> Seq:
    """Bring up to 500 tuples of the tenant's objects to what the records say now; the number of the row.

    `fills` is the life of the store in which with this row everything of the tenant stands.
    A tenant that never was here gets a stream, in which all of them are deleted.
    """
    entry = AuditEntry(caller, method, f"tenant:{tenant_id}")
    seq = await _append(database, entry, tenant_id, tuples, fills)
    if seq is None:
        async with database.begin(SystemScope("a stream for what belongs to no tenant")) as tx:
            await outbox.ensure_head(tx, tenant_id)
        seq = await _append(database, entry, tenant_id, tuples, fills)
    assert seq is not None  # a stream outlives its tenant
    wakeup.notify(tenant_id)
    return seq


async def _append(
    database: Database, entry: AuditEntry, tenant_id: TenantId, tuples: Sequence[Tuple], fills: uuid.UUID | None
) -> Seq | None:
    async with database.begin(TenantScope(tenant_id)) as tx:
        seq = await outbox.advance(tx)
        if seq is None:
            return None
        # Read after the lock: until the commit no mutation of the tenant can change what this says.
        expected = await wanted.among(tx, tuples)
        operations = projection.difference(set(tuples) - expected, expected)
        await journal.append(tx, tenant_id, seq, [operations], entry, fills)
        return seq
