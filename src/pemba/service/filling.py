"""Filling a store that lost what it held: tenant by tenant, while those that are complete are answered about.

What SpiceDB holds is set aside once, as for a comparison (storage/comparison.py).  Then, for each tenant in turn, its
records pass by: what is not there, and what no record stands for, goes into ordinary repair rows of its stream, the
last of which (without operations where nothing differs) says that with it the tenant is complete in this life of the
store.  When the relay has delivered that row, servers answer about the tenant again.

Why one look is enough here.  Nothing of an earlier life can reach the store any more, so it changes by rows alone that
are not delivered yet when it is set aside, and a repair row holds what the records say under the tenant's head: what
was different only because a row was on its way is written once more, as it is; what changes later follows.

It can be cut off at any point: who goes on begins with the tenants that have no such row.  One that cannot be repaired
at the moment (somebody holds its head) holds up no other.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

import structlog

from pemba import projection
from pemba.errors import PembaError
from pemba.model import Caller, SystemScope, TenantId, Tuple
from pemba.service import wanted
from pemba.service.drift import Store
from pemba.service.mutation import Wakeup
from pemba.service.repair import MAX_TUPLES, repair
from pemba.storage import lives
from pemba.storage.comparison import Comparison
from pemba.storage.database import Database
from pemba.telemetry import Event

METHOD = "FillStore"
RETRY_SECONDS = 1.0
_SET_ASIDE = 5000
_TENANTS = 100
_WHY = SystemScope("fill SpiceDB after its data was lost")

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Filled:
    """How far it is: tenants whose repair is in their stream, tuples in it, and tenants that are left."""

    tenants: int
    tuples: int
    left: int


class StoreFilling:
    """Fills `store` from the records, one life of it at a time."""

    def __init__(self, database: Database, database_url: str, store: Store, wakeup: Wakeup) -> None:
        self._database = database
        self._url = database_url
        self._store = store
        self._wakeup = wakeup

    async def run(self, caller: Caller, epoch: uuid.UUID) -> AsyncGenerator[Filled]:
        """Until every tenant's repair for that life is in its stream, with a report after each tenant.

        Raises Unavailable (OVERLOADED while a reconciliation runs), Timeout; close it to stop in between.
        """
        tenants = tuples = 0
        async with Comparison.connect(self._url) as comparison:
            await self._set_aside(comparison)
            while left := await self._count_missing(epoch):
                before = tenants
                async with aclosing(self._pass(comparison, caller, epoch)) as repaired:
                    async for count in repaired:
                        tenants, tuples = tenants + 1, tuples + count
                        yield Filled(tenants, tuples, max(left - tenants + before, 0))
                if tenants == before:
                    await asyncio.sleep(RETRY_SECONDS)
            tuples += await self._delete_what_nobody_owns(comparison, caller)
        async with self._database.begin(_WHY) as tx:
            await lives.mark_filled(tx, epoch)
        yield Filled(tenants, tuples, 0)

    async def _set_aside(self, comparison: Comparison) -> None:
        for type_ in projection.TYPES:
            batch: list[str] = []
            async with aclosing(self._store.scan(type_, "")) as stored:
                async for each in stored:
                    batch.append(str(each))
                    if len(batch) == _SET_ASIDE:
                        await comparison.add(batch)
                        batch = []
            await comparison.add(batch)

    async def _count_missing(self, epoch: uuid.UUID) -> int:
        async with self._database.begin(_WHY) as tx:
            return await lives.count_missing(tx, epoch)

    async def _pass(self, comparison: Comparison, caller: Caller, epoch: uuid.UUID) -> AsyncGenerator[int]:
        """Once over all tenants that are missing; for each that could be repaired, how many tuples were."""
        after = TenantId("")
        while True:
            async with self._database.begin(_WHY) as tx:
                tenants = await lives.missing(tx, epoch, after, _TENANTS)
            if not tenants:
                return
            for tenant_id in tenants:
                after = tenant_id
                try:
                    count = await self._fill(comparison, caller, tenant_id, epoch)
                except PembaError as error:
                    log.warning(Event.STORE_FILLING_FAILED, tenant_id=tenant_id, error=error.message)
                    continue
                yield count

    async def _fill(self, comparison: Comparison, caller: Caller, tenant_id: TenantId, epoch: uuid.UUID) -> int:
        count = 0
        part: list[Tuple] = []
        async with aclosing(self._differing(comparison, tenant_id)) as differing:
            async for each in differing:
                if len(part) == MAX_TUPLES:  # and there is more: this is not the last row
                    await self._repair(caller, tenant_id, part)
                    part = []
                part.append(each)
                count += 1
        await self._repair(caller, tenant_id, part, epoch)
        for type_ in projection.TYPES:
            await comparison.forget(type_, tenant_id)
        return count

    async def _differing(self, comparison: Comparison, tenant_id: TenantId) -> AsyncGenerator[Tuple]:
        async with aclosing(wanted.pages(self._database, tenant_id)) as pages:
            async for page in pages:
                texts = {str(expected): expected for expected in page}
                struck = await comparison.strike(list(texts))
                for text in texts.keys() - struck:
                    yield texts[text]
        for type_ in projection.TYPES:
            after = ""
            while left := await comparison.left_on(type_, tenant_id, after, MAX_TUPLES):
                after = left[-1]
                for text in left:
                    yield Tuple.parse(text)

    async def _delete_what_nobody_owns(self, comparison: Comparison, caller: Caller) -> int:
        """On objects of tenants that PostgreSQL knows nothing of (it was restored to a point before they were)."""
        count = 0
        while left := await comparison.left("", MAX_TUPLES):
            await comparison.strike(left)
            by_owner: dict[TenantId, list[Tuple]] = {}
            for each in map(Tuple.parse, left):
                owner = projection.owner_of(each)
                if owner is not None:  # else no question can name it, and no stream can delete it
                    by_owner.setdefault(owner, []).append(each)
            for owner, its in by_owner.items():
                await self._repair(caller, owner, its)
                count += len(its)
        return count

    async def _repair(
        self, caller: Caller, tenant_id: TenantId, tuples: Sequence[Tuple], fills: uuid.UUID | None = None
    ) -> None:
        await repair(self._database, self._wakeup, caller, tenant_id, tuples, method=METHOD, fills=fills)
