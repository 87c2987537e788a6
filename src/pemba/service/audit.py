"""Reading the audit: what a tenant admin may see of a tenant, and a system key of the installation.

Whoever reads is recorded before anything is told, in the transaction of the first look.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime

from pemba.errors import NotFound, PreconditionFailed, Reason, Unavailable
from pemba.model import GLOBAL_STREAM, Caller, TenantId, TenantScope
from pemba.service import rights
from pemba.service.results import Page
from pemba.storage import audit, journal, outbox
from pemba.storage.audit import AuditEvent, AuditFilter, Outcome
from pemba.storage.database import Database, TenantTransaction
from pemba.storage.journal import AuditEntry
from pemba.tokens import Signer

__all__ = ["AuditEvent", "AuditFilter", "AuditService", "Exported", "Outcome"]

MAX_EXPORTS = 4
EXPORT_PAGE = 500
_RETRY_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Exported:
    """An event, or None where only `cursor` is new; an export goes on after it."""

    event: AuditEvent | None
    cursor: str


class AuditService:
    """At most MAX_EXPORTS run at a time."""

    def __init__(self, database: Database, signer: Signer) -> None:
        self._database = database
        self._signer = signer
        self._exports = 0

    async def list_events(
        self,
        caller: Caller,
        tenant_id: TenantId | None,
        *,
        wanted: AuditFilter,
        newest_first: bool,
        page_size: int,
        page_token: str,
    ) -> Page[AuditEvent]:
        """Those of a tenant, or (None) of the installation.  A page may hold less than it could, or nothing.

        Raises NotFound, Forbidden.
        """
        stream = tenant_id or GLOBAL_STREAM
        # Of one caller alone: another one's reading is to be recorded as well.
        arguments = ["ListAuditEvents", stream, _told(wanted), newest_first, caller.principal, caller.acting_user]
        position = self._signer.page_position(arguments, page_token)
        async with self._reading(caller, stream) as tx:
            if position is None:
                low, high = 0, await audit.last(tx) + 1
                await _record(tx, caller, "ListAuditEvents", wanted)
            else:
                low, high = map(int, position)
            look = await audit.look(tx, wanted, low, high, page_size, newest_first=newest_first)
        if look.more_from is None:
            return Page(look.events, "", "")
        low, high = (low, look.more_from) if newest_first else (look.more_from, high)
        return Page(look.events, self._signer.page_token(arguments, [str(low), str(high)]), "")

    async def export_events(
        self, caller: Caller, tenant_id: TenantId | None, *, wanted: AuditFilter, cursor: str
    ) -> AsyncGenerator[Exported]:
        """All of them, the oldest first, up to those of now; the last one has no event.

        Raises NotFound, Forbidden, PreconditionFailed (CURSOR_EXPIRED), Unavailable (OVERLOADED).
        """
        if self._exports >= MAX_EXPORTS:
            raise Unavailable(Reason.OVERLOADED, "too many exports are running", retry_seconds=_RETRY_SECONDS)
        self._exports += 1
        try:
            stream = tenant_id or GLOBAL_STREAM
            arguments = ["ExportAuditEvents", stream, _told(wanted), caller.acting_user]
            position = self._signer.page_position(arguments, cursor, "cursor")
            at: int | None = int(position[0]) if position else 0
            async with self._reading(caller, stream) as tx:
                up_to = await audit.last(tx)
                await _record(tx, caller, "ExportAuditEvents", wanted)
            while at is not None:
                async with self._reading(caller, stream) as tx:
                    await _require_kept(tx, at)
                    look = await audit.look(tx, wanted, at, up_to + 1, EXPORT_PAGE, newest_first=False)
                for event in look.events:
                    yield Exported(event, self._signer.page_token(arguments, [str(event.id)]))
                at = look.more_from
                yield Exported(None, self._signer.page_token(arguments, [str(up_to if at is None else at)]))
        finally:
            self._exports -= 1

    @asynccontextmanager
    async def _reading(self, caller: Caller, stream: TenantId) -> AsyncIterator[TenantTransaction]:
        """A transaction of the stream, for whom may read its audit; a deleted tenant's is kept."""
        if stream == GLOBAL_STREAM:
            rights.require_system(caller, "read the audit of the installation")
        if caller.tenant_id not in (None, stream):
            raise NotFound(f"tenant {stream}")
        async with self._database.begin(TenantScope(stream)) as tx:
            await rights.require_tenant_admin(tx, caller, "read the audit")
            if stream != GLOBAL_STREAM and not await outbox.head(tx, stream):
                raise NotFound(f"tenant {stream}")
            yield tx


async def _record(tx: TenantTransaction, caller: Caller, method: str, wanted: AuditFilter) -> None:
    about = "installation" if tx.tenant_id == GLOBAL_STREAM else f"tenant:{tx.tenant_id}"
    asked = {name: value for name, value in _told(wanted).items() if value}
    await journal.append_read(tx, tx.tenant_id, [AuditEntry(caller, method, about, after=asked or None)])


async def _require_kept(tx: TenantTransaction, at: int) -> None:
    """Raises PreconditionFailed (CURSOR_EXPIRED): the oldest events go first, so those after it may be gone as well."""
    if at and not await audit.is_there(tx, at):
        raise PreconditionFailed(
            Reason.CURSOR_EXPIRED, "events after the cursor may have been deleted; start over without a cursor"
        )


def _told(wanted: AuditFilter) -> dict[str, str | None]:
    """The filter in JSON."""
    values = {name: getattr(wanted, name) for name in AuditFilter.__slots__}
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in values.items()}
