"""Repair of parked operations: ordinary rows of their tenant's stream, made while its head is held.

A tuple of Pemba's own types is brought to what the records say at that moment.  Of any other no record says anything:
there the parked operation itself is the last word, unless a later row has one.

Each operation is repaired by itself once under every schema that follows the one that refused it, and whenever an
operator says so.  What is refused again is parked again under the new number: nothing is tried for ever.
"""

from __future__ import annotations

from collections.abc import Sequence

from pemba import projection
from pemba.model import Caller, Operation, Seq, SystemScope, TenantId, TenantScope, Tuple, TupleOperation
from pemba.service import wanted
from pemba.service.mutation import Wakeup
from pemba.storage import installation, journal, outbox, parked, streams
from pemba.storage.database import Database, TenantTransaction
from pemba.storage.journal import AuditEntry
from pemba.storage.outbox import MAX_ROW_OPERATIONS
from pemba.storage.parked import ANY_SCHEMA, Parked

METHOD = "RetryParked"

_WHY = SystemScope("repair parked operations")


class Retries:
    """Repairs parked operations."""

    def __init__(self, database: Database, wakeup: Wakeup) -> None:
        self._database = database
        self._wakeup = wakeup

    async def everything(self, caller: Caller, tenant_id: TenantId | None) -> tuple[int, dict[TenantId, Seq]]:
        """Of that tenant, or (None) of all: how many operations, and the last row of each tenant that had any."""
        return await self._repair(caller, tenant_id, ANY_SCHEMA)

    async def of_earlier_schemas(self, caller: Caller) -> int:
        """Those that were not tried under the schema in force; none while one is being applied.  How many."""
        async with self._database.begin(_WHY) as tx:
            number = (await installation.read(tx)).schema_number
        return 0 if number % 2 == 1 else (await self._repair(caller, None, number))[0]

    async def _repair(self, caller: Caller, tenant_id: TenantId | None, below: int) -> tuple[int, dict[TenantId, Seq]]:
        async with self._database.begin(_WHY) as tx:
            tenants = await parked.tenants_to_repair(tx, tenant_id, below)
        count, positions = 0, dict[TenantId, Seq]()
        for each in tenants:
            after = ""
            while done := await self._append(caller, each, below, after):
                positions[each], tuples = done
                count += len(tuples)
                after = str(tuples[-1])
                self._wakeup.notify(each)
        return count, positions

    async def _append(
        self, caller: Caller, tenant_id: TenantId, below: int, after: str
    ) -> tuple[Seq, list[Tuple]] | None:
        """One row for the next up to 500 of them; None where there are no more."""
        async with self._database.begin(TenantScope(tenant_id)) as tx:
            seq = await outbox.advance(tx)
            assert seq is not None  # a stream outlives its tenant
            found = await parked.to_repair(tx, below, after, MAX_ROW_OPERATIONS)
            if not found:
                tx.discard()
                return None
            tuples = [each.refusal.operation.tuple for each in found]
            await parked.mark_retried(tx, tuples, (await installation.read(tx)).schema_number)
            operations = await _of_records(tx, tuples) + await _of_applications(tx, found)
            await journal.append(tx, tenant_id, seq, [operations], AuditEntry(caller, METHOD, f"tenant:{tenant_id}"))
            return seq, tuples


async def _of_records(tx: TenantTransaction, tuples: Sequence[Tuple]) -> list[TupleOperation]:
    """Read after the head's lock: until the commit no mutation of the tenant can change what this says."""
    own = {each for each in tuples if each.resource.type in projection.TYPES}
    expected = await wanted.among(tx, sorted(own, key=str))
    return projection.difference(own - expected, expected)


async def _of_applications(tx: TenantTransaction, found: Sequence[Parked]) -> list[TupleOperation]:
    refusals = {
        str(r.operation.tuple.plain): r
        for r in (each.refusal for each in found)
        if r.operation.tuple.resource.type not in projection.TYPES
    }
    if not refusals:
        return []
    first = min(refusal.seq for refusal in refusals.values())
    later = await streams.last_named(tx, first, list(refusals))
    latest = [r.operation for text, r in refusals.items() if later.get(text, r.seq) <= r.seq]
    return sorted(latest, key=lambda o: o.operation is not Operation.DELETE)
