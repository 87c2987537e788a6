"""Withdraws the roles of API keys that have expired: ordinary mutations, which any number of relays may carry out.

As callers they are refused from that moment by every server, whatever runs; this is about what checks say of them.
Everything is read again under the tenant's head, which who gives a role holds as well: an expired key gets none.
"""

from __future__ import annotations

from pemba import projection
from pemba.model import SystemScope, TenantId, TenantScope, Tuple
from pemba.service import key_roles
from pemba.service.mutation import Wakeup
from pemba.service.principal import as_maintenance
from pemba.storage import api_keys, journal, outbox
from pemba.storage.database import Database
from pemba.storage.journal import AuditEntry

METHOD = "ExpireApiKeys"
MAX_TENANTS = 100
MAX_KEYS = 50
"""Of one look, and of one change."""


class KeyExpiry:
    """Looks for what is due."""

    def __init__(self, database: Database, wakeup: Wakeup) -> None:
        self._database = database
        self._wakeup = wakeup

    async def run_once(self) -> int:
        """See to up to 50 keys of each of 100 tenants; how many they were."""
        async with self._database.begin(SystemScope("find API keys that have expired")) as tx:
            tenants = await api_keys.tenants_due(tx, MAX_TENANTS)
        return sum([await self._withdraw(tenant_id) for tenant_id in tenants])

    async def seconds_left(self) -> float:
        """Until the next key expires; infinity where none does, not above 0 where one has."""
        async with self._database.begin(SystemScope("when the next API key expires")) as tx:
            return await api_keys.seconds_to_next(tx)

    async def _withdraw(self, tenant_id: TenantId) -> int:
        async with self._database.begin(TenantScope(tenant_id)) as tx:
            seq = await outbox.advance(tx)
            due = await api_keys.due(tx, MAX_KEYS)
            if seq is None or not due:
                tx.discard()  # the number too
                return 0
            gone: set[Tuple] = set()
            for id_ in due:
                gone |= await key_roles.withdraw(tx, id_, seq)
            await api_keys.mark_swept(tx, due)
            rows = outbox.split(projection.difference(gone, ()))
            if len(rows) > 1:
                await outbox.advance(tx, len(rows) - 1)
            caller = as_maintenance()
            about = [f"api_key:{id_}" for id_ in due]
            entry = AuditEntry(caller, METHOD, f"tenant:{tenant_id}", about=about)
            await journal.append(tx, tenant_id, seq, rows, entry)
        self._wakeup.notify(tenant_id)
        return len(due)
