"""Secrets under the first root secret: what is under a later one is encrypted anew, tenant by tenant.

While a tenant's head is held, so that no change of a secret comes between; each batch is a row of the tenant's stream,
without operations, that says how many it were.
"""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from pemba.errors import PreconditionFailed
from pemba.model import Caller, SystemScope, TenantId, TenantScope
from pemba.service.mutation import Wakeup
from pemba.service.sealing import Sealer
from pemba.storage import journal, outbox, settings
from pemba.storage.database import Database
from pemba.storage.journal import AuditEntry
from pemba.storage.settings import Place
from pemba.telemetry import Event

METHOD = "ReencryptSecrets"
AT_ONCE = 200

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Resealed:
    """How many secrets were encrypted anew, and how many no root secret decrypts."""

    count: int
    unreadable: int


class Resealing:
    def __init__(self, database: Database, wakeup: Wakeup, sealer: Sealer) -> None:
        self._database = database
        self._wakeup = wakeup
        self._sealer = sealer

    async def everything(self, caller: Caller) -> Resealed:
        """Of all tenants.  A call that is cut off leaves the rest to the next one."""
        async with self._database.begin(SystemScope("find secrets under another root secret")) as tx:
            tenants = await settings.tenants_under_others(tx, self._sealer.under)
        count, unreadable = 0, 0
        for tenant_id in tenants:
            after: Place = ("", "", "")
            while done := await self._batch(caller, tenant_id, after):
                after, resealed = done
                count += resealed.count
                unreadable += resealed.unreadable
                self._wakeup.notify(tenant_id)
        return Resealed(count, unreadable)

    async def _batch(self, caller: Caller, tenant_id: TenantId, after: Place) -> tuple[Place, Resealed] | None:
        """The next ones, and the last of them; None where there are no more."""
        async with self._database.begin(TenantScope(tenant_id)) as tx:
            seq = await outbox.advance(tx)
            found = await settings.under_others(tx, self._sealer.under, after, AT_ONCE)
            if seq is None or not found:
                tx.discard()
                return None
            sealed = [(place, text) for place, old in found if (text := self._anew(tenant_id, place, old)) is not None]
            done = Resealed(len(sealed), len(found) - len(sealed))
            await settings.reseal(tx, sealed, self._sealer.under)
            told = {"secrets": done.count, "unreadable": done.unreadable}
            entry = AuditEntry(caller, METHOD, f"tenant:{tenant_id}", None, told)
            await journal.append(tx, tenant_id, seq, [[]], entry)
        return found[-1][0], done

    def _anew(self, tenant_id: TenantId, place: Place, sealed: str) -> str | None:
        where = (tenant_id, *place)
        try:
            return self._sealer.seal(where, self._sealer.open(where, sealed)).text
        except PreconditionFailed:
            log.warning(Event.SECRET_UNREADABLE, place="/".join(where))
            return None
