"""Audit of who read rosters: noted at no cost to the answer, and written a moment later.

The same caller's reads of the same roster within a minute are one event.  What is noted is bounded: what is too much
is counted in the log instead.  A process that is killed loses the last second of it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from contextlib import suppress

import structlog

from pemba.errors import BackendError
from pemba.model import GLOBAL_STREAM, Caller, TenantId, TenantScope
from pemba.storage import journal
from pemba.storage.database import Database
from pemba.storage.journal import AuditEntry
from pemba.telemetry import Event

FLUSH_SECONDS = 1.0
AGAIN_SECONDS = 60.0
MAX_NOTED = 10_000
BATCH = 200

_Reading = tuple[TenantId, str, str, str, str]

log = structlog.get_logger()


class RosterReads:
    """Notes who reads what; `run` it beside what answers."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._noted: OrderedDict[_Reading, float] = OrderedDict()
        """When each was last written down, the longest ago first."""
        self._waiting: dict[TenantId, list[AuditEntry]] = {}
        self._count = 0
        self._dropped = 0

    def note(self, caller: Caller, tenant_id: TenantId | None, method: str, about: tuple[str, ...]) -> None:
        """That it was answered; `about` is what the request names, the roster's object first."""
        stream = tenant_id or GLOBAL_STREAM
        object_text, *others = about or ("installation",)
        if self._count >= MAX_NOTED:
            self._dropped += 1
            return
        if self._is_known((stream, caller.principal, caller.acting_user or "", method, "\0".join(about))):
            return
        self._count += 1
        self._waiting.setdefault(stream, []).append(AuditEntry(caller, method, object_text, about=others))

    async def run(self) -> None:
        """Write every second what was noted, until cancelled, and then once more."""
        try:
            while True:
                await asyncio.sleep(FLUSH_SECONDS)
                await self.flush()
        finally:
            with suppress(TimeoutError):
                async with asyncio.timeout(FLUSH_SECONDS):
                    await self.flush()

    async def flush(self) -> None:
        """Write what was noted, up to BATCH of a tenant in one transaction; never fails."""
        if self._dropped:
            log.warning(Event.AUDIT_DROPPED, reads=self._dropped)
            self._dropped = 0
        waiting, self._waiting, self._count = self._waiting, {}, 0
        for stream, entries in waiting.items():
            for i in range(0, len(entries), BATCH):
                await self._write(stream, entries[i : i + BATCH])

    async def _write(self, stream: TenantId, entries: list[AuditEntry]) -> None:
        try:
            async with self._database.begin(TenantScope(stream)) as tx:
                await journal.append_read(tx, stream, entries)
        except BackendError as error:
            log.warning(Event.AUDIT_NOT_WRITTEN, reads=len(entries), error=error.message)

    def _is_known(self, reading: _Reading) -> bool:
        now = asyncio.get_running_loop().time()
        while self._noted and (len(self._noted) > MAX_NOTED or next(iter(self._noted.values())) <= now - AGAIN_SECONDS):
            self._noted.popitem(last=False)
        if reading in self._noted:
            return True
        self._noted[reading] = now
        return False
