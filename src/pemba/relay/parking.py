"""Parks what SpiceDB refuses, so that everything else of the stream goes on.

Found by probes (`relay.probe`), judged by what it comes to, committed first; then the whole batch goes, less what is
parked.  Whoever tries again reads what is parked with the rows, so a batch stays a function of what is committed.

What it comes to (`model.Effect`):

- A DELETE of what is not stored is as good as done, and is not parked.  Of what is stored it restricts.
- A TOUCH leaves somebody with less, unless more tuples could give anybody less: then it restricts.  They cannot where
  the schema subtracts nothing, as Pemba's own does not, nor under a relation that it does not have.  The type says
  nothing: an application's permission may subtract what it draws from a type of Pemba's.  With conditions (a caveat, an
  expiration) a plain DELETE stands in its place, since an earlier tuple may be there that holds without them.
- What restricts closes the tenant's checks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import structlog

from pemba.model import Effect, Operation, TenantId, Tuple, TupleOperation
from pemba.relay.batches import Batch
from pemba.relay.probe import Probe
from pemba.spicedb import left_out, schema
from pemba.spicedb.client import SpiceDB
from pemba.storage import delivery, parked
from pemba.storage.database import Database
from pemba.storage.leases import Lease
from pemba.storage.parked import Refusal
from pemba.telemetry import OPERATIONS_PARKED, Event

log = structlog.get_logger()


class Parking:
    """One shard's; `timeout` is each question's, in seconds."""

    def __init__(self, lease: Lease, database: Database, spicedb: SpiceDB, timeout: float) -> None:
        self._lease = lease
        self._database = database
        self._spicedb = spicedb
        self._timeout = timeout
        self._probe = Probe(spicedb, lease.shard, timeout)

    async def refusals(self, request: Sequence[Batch]) -> list[Refusal]:
        """What SpiceDB refuses of a request, and what each comes to; nothing is written anywhere.

        Raises WriteFailed, Unavailable, Timeout, Rejected: without a definite answer nothing is known.
        """
        refused = await self._probe.refused([operation for b in request for operation in b.operations])
        if not refused:
            return []
        await self._spicedb.reach_head(self._timeout)
        subtracts = schema.may_subtract(await schema.read(self._spicedb, self._timeout))
        sources = {o: (b.tenant_id, seq) for b in request for o, seq in b.rows_of(b.operations).items()}
        return [
            Refusal(
                *sources[each.operation],
                each.operation,
                await self._judge(each.operation, subtracts=subtracts),
                each.reason,
                each.message,
            )
            for each in refused
        ]

    async def park_if_leased(self, refusals: Sequence[Refusal], schema_number: int) -> None:
        """Commit them as parked, under the schema that was in force before they were refused.  Raises LeaseLost."""
        lasting = [refusal for refusal in refusals if refusal.effect is not Effect.NONE]
        if lasting:
            tenants = {refusal.tenant_id for refusal in lasting}
            async with self._database.begin_relay() as tx:
                stamp = await delivery.count_if_leased(tx, self._lease)
                await parked.put(tx, lasting, schema_number)
                await parked.sum_up(tx, self._lease, stamp, tenants, schema_number)
        _tell(refusals)

    async def _judge(self, operation: TupleOperation, *, subtracts: bool) -> Effect:
        stored = operation.tuple
        if operation.operation is Operation.DELETE:
            return Effect.RESTRICTS if await self._is_stored(stored) else Effect.NONE
        if subtracts and await left_out.has_relation(self._spicedb, stored, self._timeout):
            return Effect.RESTRICTS
        plain = stored.plain
        if stored == plain:
            return Effect.GRANTS_LESS
        if await self._probe.refusal([TupleOperation(Operation.DELETE, plain)]) is None:
            return Effect.WITHDRAWN
        return Effect.RESTRICTS if await self._is_stored(plain) else Effect.GRANTS_LESS

    async def _is_stored(self, stored: Tuple) -> bool:
        return await left_out.is_stored(self._spicedb, stored, self._timeout)


def _tell(refusals: Sequence[Refusal]) -> None:
    """One line a tenant, of its first; no more than an operator reads."""
    first: dict[TenantId, Refusal] = {}
    for refusal in refusals:
        OPERATIONS_PARKED.labels(refusal.reason, refusal.effect).inc()
        if refusal.tenant_id not in first or refusal.seq < first[refusal.tenant_id].seq:
            first[refusal.tenant_id] = refusal
    for tenant_id, refusal in first.items():
        its = Counter(r.effect.value for r in refusals if r.tenant_id == tenant_id)
        log.error(
            Event.DELIVERY_PARKED,
            tenant_id=tenant_id,
            seq=refusal.seq,
            operation=refusal.operation.operation.value,
            tuple=str(refusal.operation.tuple),
            cause=refusal.reason,
            error=refusal.message,
            checks_closed=Effect.RESTRICTS.value in its,
            help="see `pemba outbox parked` and `pemba schema check`; `pemba outbox retry` tries again",
            **its,
        )
