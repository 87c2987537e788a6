"""What those who run Pemba ask and do; it takes a system key in its own name."""

from __future__ import annotations

import datetime
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass

from pemba.errors import Forbidden, NotFound
from pemba.model import GLOBAL_STREAM, Caller, Seq, SystemScope, TenantId
from pemba.service import parked as parked_retries
from pemba.service import resealing, rights
from pemba.service.outbox_tail import OutboxTail, TailEvent
from pemba.service.parked import Retries
from pemba.service.reconciliation import Events, Options, Reconciler, Summary
from pemba.service.refusals import Refusals
from pemba.service.repair import METHOD
from pemba.service.resealing import Resealed, Resealing
from pemba.service.results import Page
from pemba.storage import installation, outbox, parked, streams
from pemba.storage.database import Database
from pemba.storage.outbox import ShardStatus, StreamStatus
from pemba.storage.parked import Parked
from pemba.tokens import MAX_POSITIONS, Signer


@dataclass(frozen=True, slots=True)
class RelayStatus:
    """Every lane, the streams that are furthest behind, and when the whole store was last compared."""

    shards: list[ShardStatus]
    streams: list[StreamStatus]
    reconcile_time: datetime.datetime | None


@dataclass(frozen=True, slots=True)
class ListedParked:
    """A parked operation with its tenant's slug, empty where there is no such tenant any more."""

    parked: Parked
    tenant_slug: str


@dataclass(frozen=True, slots=True)
class Retried:
    """How many parked operations are in repairs that were committed, and the token of these."""

    count: int
    token: str


class OperationsService:
    def __init__(
        self,
        database: Database,
        signer: Signer,
        reconciler: Reconciler,
        retries: Retries,
        refusals: Refusals,
        resealing: Resealing,
    ) -> None:
        self._database = database
        self._signer = signer
        self._reconciler = reconciler
        self._retries = retries
        self._refusals = refusals
        self._resealing = resealing
        self._tail = OutboxTail(database)

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
        await self._require_system(caller, options.tenant_id, METHOD, "reconcile SpiceDB with the records")
        async with aclosing(self._reconciler.run(caller, options)) as events:
            async for event in events:
                yield event

    def token(self, summary: Summary) -> str:
        """The position of the repairs; empty where there are none, or in more streams than a token names."""
        return self._token_of(summary.positions)

    async def list_parked(
        self, caller: Caller, tenant_id: TenantId | None, *, page_size: int, page_token: str
    ) -> Page[ListedParked]:
        """What SpiceDB refused and delivery left out, of a tenant or of all.  Raises Forbidden, NotFound."""
        rights.require_system(caller, "list parked operations")
        await self._require_stream(tenant_id)
        arguments = ["ListParkedOperations", tenant_id or ""]
        tenant, seq, text = self._signer.page_position(arguments, page_token) or ["", "0", ""]
        async with self._database.begin(SystemScope("list parked operations")) as tx:
            found = await parked.after(tx, tenant_id, (tenant, int(seq), text), page_size + 1)
            slugs = await streams.slugs(tx, {each.refusal.tenant_id for each in found})
        shown = tuple(ListedParked(each, slugs.get(each.refusal.tenant_id, "")) for each in found[:page_size])
        last = shown[-1].parked if len(found) > page_size else None
        more = ""
        if last is not None:
            position = [last.refusal.tenant_id, str(last.since), str(last.refusal.operation.tuple)]
            more = self._signer.page_token(arguments, position)
        return Page(shown, more, "")

    async def retry_parked(self, caller: Caller, tenant_id: TenantId | None) -> Retried:
        """Repair them, of a tenant or of all; audited with each repair.  Raises Forbidden (audited too), NotFound."""
        await self._require_system(caller, tenant_id, parked_retries.METHOD, "retry parked operations")
        await self._require_stream(tenant_id)
        count, positions = await self._retries.everything(caller, tenant_id)
        return Retried(count, self._token_of(positions))

    async def reencrypt_secrets(self, caller: Caller) -> Resealed:
        """Every secret under the first root secret; audited in each tenant.  Raises Forbidden, which is audited too."""
        await self._require_system(caller, None, resealing.METHOD, "encrypt secrets anew")
        return await self._resealing.everything(caller)

    async def tail_outbox(
        self, caller: Caller, tenant_id: TenantId | None, since: datetime.datetime | None
    ) -> AsyncGenerator[TailEvent]:
        """As OutboxTail.follow.  Raises Forbidden."""
        rights.require_system(caller, "follow the outbox")
        async with aclosing(self._tail.follow(tenant_id, since)) as events:
            async for event in events:
                yield event

    async def _require_system(self, caller: Caller, tenant_id: TenantId | None, method: str, to: str) -> None:
        try:
            rights.require_system(caller, to)
        except Forbidden as refusal:
            await self._refusals.record(caller, tenant_id or GLOBAL_STREAM, method, refusal)
            raise

    async def _require_stream(self, tenant_id: TenantId | None) -> None:
        if tenant_id is None:
            return
        async with self._database.begin(SystemScope("whether there is such a tenant")) as tx:
            if not await streams.positions(tx, [tenant_id]):
                raise NotFound(f"tenant {tenant_id}")

    def _token_of(self, positions: Mapping[TenantId, Seq]) -> str:
        return self._signer.token(positions) if 0 < len(positions) <= MAX_POSITIONS else ""
