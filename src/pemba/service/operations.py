"""What those who run Pemba ask and do; it takes a system key in its own name."""

from __future__ import annotations

import datetime
from contextlib import aclosing
from dataclasses import dataclass

from pemba.errors import Forbidden
from pemba.model import GLOBAL_STREAM, Caller, SystemScope
from pemba.service import rights
from pemba.service.reconciliation import Events, Options, Reconciler, Summary
from pemba.service.refusals import Refusals
from pemba.service.repair import METHOD
from pemba.storage import installation, outbox
from pemba.storage.database import Database
from pemba.storage.outbox import ShardStatus, StreamStatus
from pemba.tokens import MAX_POSITIONS, Signer


@dataclass(frozen=True, slots=True)
class RelayStatus:
    """Every lane, the streams that are furthest behind, and when the whole store was last compared."""

    shards: list[ShardStatus]
    streams: list[StreamStatus]
    reconcile_time: datetime.datetime | None


class OperationsService:
    def __init__(self, database: Database, signer: Signer, reconciler: Reconciler, refusals: Refusals) -> None:
        self._database = database
        self._signer = signer
        self._reconciler = reconciler
        self._refusals = refusals

    async def get_relay_status(self, caller: Caller, *, limit: int) -> RelayStatus:
        """Raises Forbidden."""
        rights.require_system(caller, "see how far the relay is")
        async with self._database.begin(SystemScope("how far the relay is")) as tx:
            shards = await outbox.shards(tx)
            streams = await outbox.status(tx, every=False, limit=limit)
            reconcile_time, _ = await installation.reconciled(tx)
        return RelayStatus(shards, streams, reconcile_time)

    async def reconcile(self, caller: Caller, options: Options) -> Events:
        """As Reconciler.run; the last event is the summary.  Raises Forbidden, which is audited."""
        try:
            rights.require_system(caller, "reconcile SpiceDB with the records")
        except Forbidden as refusal:
            await self._refusals.record(caller, options.tenant_id or GLOBAL_STREAM, METHOD, refusal)
            raise
        async with aclosing(self._reconciler.run(caller, options)) as events:
            async for event in events:
                yield event

    def token(self, summary: Summary) -> str:
        """The position of the repairs; empty where there are none, or in more streams than a token names."""
        return self._signer.token(summary.positions) if 0 < len(summary.positions) <= MAX_POSITIONS else ""
