"""Audit of what was refused: a row in a transaction of its own, as many a second as a server can bear."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from pemba.errors import BackendError, PembaError
from pemba.model import GLOBAL_STREAM, Caller, TenantId, TenantScope
from pemba.storage import journal
from pemba.storage.database import Database
from pemba.storage.journal import AuditEntry
from pemba.telemetry import Event

PER_SECOND = 20.0
BURST = 100.0

log = structlog.get_logger()


class Refusals:
    """Records refused mutations; those beyond the rate are counted in the log instead (a token bucket)."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._tokens = BURST
        self._at = 0.0
        self._dropped = 0

    async def record(
        self, caller: Caller, tenant_id: TenantId, method: str, refusal: PembaError, about: Sequence[str] = ()
    ) -> None:
        """`about` names the object and what else it was about, in text; by default the tenant.

        Of a tenant that there is not the installation's audit has it.
        Never raises for a database that is away: the refusal itself is what the caller must get.
        """
        if not self._take():
            self._dropped += 1
            return
        if self._dropped:
            log.warning(Event.AUDIT_DROPPED, refusals=self._dropped)
            self._dropped = 0
        object_text, *others = about or (_object_of(tenant_id),)
        entry = AuditEntry(caller, method, object_text, about=others, reason=refusal.reason)
        try:
            if not await self._append(tenant_id, entry):
                await self._append(GLOBAL_STREAM, entry)
        except BackendError as error:
            log.warning(Event.AUDIT_NOT_WRITTEN, method=method, reason=refusal.reason, error=error.message)

    async def _append(self, tenant_id: TenantId, entry: AuditEntry) -> bool:
        async with self._database.begin(TenantScope(tenant_id)) as tx:
            return await journal.append_refused(tx, tenant_id, entry)

    def _take(self) -> bool:
        now = asyncio.get_running_loop().time()
        self._tokens = min(BURST, self._tokens + (now - self._at) * PER_SECOND)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


def _object_of(tenant_id: TenantId) -> str:
    return "installation" if tenant_id == GLOBAL_STREAM else f"tenant:{tenant_id}"
