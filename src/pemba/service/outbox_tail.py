"""Rows of the outbox as they are committed and delivered, for whoever watches."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from pemba.errors import NotFound, PreconditionFailed, Reason, Unavailable
from pemba.model import Seq, SystemScope, TenantId
from pemba.storage import outbox_tail
from pemba.storage.database import Database
from pemba.storage.outbox_tail import Stand, TailedRow

POLL_SECONDS = 0.2
PAGE = 100
MAX_STREAMS = 100_000
"""Where each stands is kept for as long as somebody watches."""
MAX_WATCHERS = 8
_RETRY_SECONDS = 5.0

_WHY = SystemScope("follow the outbox")


@dataclass(frozen=True, slots=True)
class Committed:
    tenant_id: TenantId
    row: TailedRow


@dataclass(frozen=True, slots=True)
class Delivered:
    """The row of that number, less what of it is parked."""

    tenant_id: TenantId
    seq: Seq


TailEvent = Committed | Delivered


class OutboxTail:
    """At most MAX_WATCHERS at a time; each reads as fast as it is read."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._watchers = 0

    async def follow(self, tenant_id: TenantId | None, since: datetime.datetime | None) -> AsyncGenerator[TailEvent]:
        """Without an end: close it.  In each stream in order, each row committed before it is delivered.

        Raises NotFound, PreconditionFailed (RESULT_TOO_LARGE), Unavailable (OVERLOADED where too many watch).
        """
        if self._watchers >= MAX_WATCHERS:
            raise Unavailable(Reason.OVERLOADED, "too many follow the outbox", retry_seconds=_RETRY_SECONDS)
        self._watchers += 1
        try:
            at, last = await self._start(tenant_id, since)
            behind = set(at) if since is not None else {t for t, s in at.items() if s.delivered_seq < s.head_seq}
            while True:
                async with self._database.begin(_WHY) as tx:
                    now = await outbox_tail.now(tx)
                    found = await outbox_tail.moved(tx, tenant_id, behind, last)
                for stream, to in found.items():
                    since_then = at.get(stream, Stand(Seq(0), Seq(0)))
                    async with aclosing(self._between(stream, since_then, to)) as events:
                        async for event in events:
                            yield event
                at |= found
                behind, last = {t for t in behind | set(found) if at[t].delivered_seq < at[t].head_seq}, now
                await asyncio.sleep(POLL_SECONDS)
        finally:
            self._watchers -= 1

    async def _start(
        self, tenant_id: TenantId | None, since: datetime.datetime | None
    ) -> tuple[dict[TenantId, Stand], datetime.datetime]:
        async with self._database.begin(_WHY) as tx:
            now = await outbox_tail.now(tx)
            at = await outbox_tail.start(tx, tenant_id, since, MAX_STREAMS + 1)
        if tenant_id is not None and not at:
            raise NotFound(f"tenant {tenant_id}")
        if len(at) > MAX_STREAMS:
            raise PreconditionFailed(
                Reason.RESULT_TOO_LARGE,
                f"there are more than {MAX_STREAMS} streams; follow one tenant's",
                {"limit": str(MAX_STREAMS)},
            )
        return at, now

    async def _between(self, stream: TenantId, at: Stand, to: Stand) -> AsyncGenerator[TailEvent]:
        after = at.head_seq
        while after < to.head_seq:
            async with self._database.begin(_WHY) as tx:
                rows = await outbox_tail.rows(tx, stream, after, to.head_seq, PAGE)
            for row in rows:
                yield Committed(stream, row)
            after = rows[-1].seq if len(rows) == PAGE else to.head_seq
        for seq in range(at.delivered_seq + 1, to.delivered_seq + 1):
            yield Delivered(stream, Seq(seq))
