"""Withdraws shares that have expired: ordinary mutations, which any number of relays may carry out side by side.

Whether one is due says the database's clock.  Everything is read again under the tenant's head, so whoever comes second
finds nothing more to do, and takes no number.  An archive and a suspended tenant are no reason to wait.
"""

from __future__ import annotations

from pemba import projection
from pemba.model import SystemScope, TenantId, TenantScope
from pemba.service.mutation import Wakeup
from pemba.service.principal import as_maintenance
from pemba.service.shares import SHARES
from pemba.storage import journal, outbox, shares
from pemba.storage.database import Database
from pemba.storage.journal import AuditEntry
from pemba.storage.outbox import MAX_ROW_OPERATIONS

METHOD = "ExpireShares"
MAX_TENANTS = 100
"""Of one look."""


class ShareExpiry:
    """Looks for what is due."""

    def __init__(self, database: Database, wakeup: Wakeup) -> None:
        self._database = database
        self._wakeup = wakeup

    async def run_once(self) -> int:
        """Withdraw up to 500 shares of each of 100 tenants, the longest overdue first; how many they were."""
        async with self._database.begin(SystemScope("find shares that have expired")) as tx:
            tenants = await shares.tenants_due(tx, MAX_TENANTS)
        return sum([await self._withdraw(tenant_id) for tenant_id in tenants])

    async def seconds_left(self) -> float:
        """Until the next share expires; infinity where none does, not above 0 where one has."""
        async with self._database.begin(SystemScope("when the next share expires")) as tx:
            return await shares.seconds_to_next(tx)

    async def _withdraw(self, tenant_id: TenantId) -> int:
        async with self._database.begin(TenantScope(tenant_id)) as tx:
            seq = await outbox.advance(tx)
            due = await shares.due(tx, MAX_ROW_OPERATIONS)
            if seq is None or not due:
                tx.discard()  # the number too
                return 0
            gone = tuple(share for share, _ in due)
            tuples = {t for share, archived in due for t in projection.share_tuples(share, either_is_archived=archived)}
            await shares.delete(tx, [share.id for share in gone])
            before = SHARES.dump_python(gone, mode="json")
            caller = as_maintenance()
            entry = AuditEntry(caller, METHOD, f"tenant:{tenant_id}", before)
            await journal.append(tx, tenant_id, seq, [projection.difference(tuples, ())], entry)
        self._wakeup.notify(tenant_id)
        return len(gone)
