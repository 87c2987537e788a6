"""Audit of what was refused: a row in a transaction of its own, as many a second as a table can bear."""

from __future__ import annotations

import asyncio

import structlog

from pemba.errors import BackendError, PembaError
from pemba.model import Caller, TenantId, TenantScope
from pemba.storage import journal
from pemba.storage.database import Database
from pemba.storage.journal import AuditEntry

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
        self, caller: Caller, tenant_id: TenantId, method: str, refusal: PembaError, about: str = ""
    ) -> None:
        """`about` is the object, by default the tenant.

        Never raises for a database that is away: the refusal itself is what the caller must get.
        """
        if not self._take():
            self._dropped += 1
            return
        if self._dropped:
            log.warning("audit.refusals_dropped", count=self._dropped)
            self._dropped = 0
        entry = AuditEntry(caller, method, about or f"tenant:{tenant_id}")
        try:
            async with self._database.begin(TenantScope(tenant_id)) as tx:
                await journal.append_refused(tx, entry, refusal.reason)
        except BackendError as error:
            log.warning("audit.refusal_not_recorded", method=method, reason=refusal.reason, error=error.message)

    def _take(self) -> bool:
        now = asyncio.get_running_loop().time()
        self._tokens = min(BURST, self._tokens + (now - self._at) * PER_SECOND)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
