"""Finding and repair: makes SpiceDB hold what the records say, and nothing else on Pemba's own types.

What is compared.  The store is read once, type by type, at one revision, whatever is on the objects of Pemba's own
types: objects without a record too, and tenants that never were.  It lies in a temporary table while the records pass
by in pages, projected as every mutation projects them; what is not struck off is too much, what was not there to
strike off is missing (storage/comparison.py says why).  No more than a page is in memory, and nobody waits for it.
Both are candidates alone: each is looked at a second time (service/drift.py), since a change may have come between.

What is repaired.  For up to 500 tuples of a tenant its head is taken and one ordinary row is inserted, with each
tuple's desired state *now*: TOUCH where the records stand for it, else DELETE.  So a finding that has become stale
only adds what is so already, a change that comes later follows in the stream, and no revoke is undone: one that
committed before is seen, one that commits after comes after.  Nothing but the relay writes to SpiceDB, as ever.

What has no stream.  Tuples under a well-formed tenant id that PostgreSQL does not know (the tenant was created after
the backup that the database was restored from, for instance) get a stream, as if that tenant had been deleted, and it
deletes them.  An id that no tenant can have is FOREIGN: no check can ever name it; it is told and left.
Types of applications' own are never looked at.

How much may be deleted.  Many tuples that are too much are rarely drift: the wrong database, a restored backup, a
migration that went wrong.  Beyond the budget none is deleted, what is missing is still added, and the summary says so.

A run that is cut off leaves rows that are right, and nothing else: run it again.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TypeVar

import structlog

from pemba import projection
from pemba.errors import NotFound
from pemba.model import Caller, Seq, SystemScope, TenantId, Tuple
from pemba.service import drift, wanted
from pemba.service.drift import Drift, Finding, Kind, Store
from pemba.service.mutation import Wakeup
from pemba.service.repair import repair
from pemba.storage import installation, streams
from pemba.storage.comparison import Comparison
from pemba.storage.database import Database
from pemba.telemetry import DRIFT_TUPLES, RECONCILE_TIME
from pemba.telemetry import Event as LogEvent

BATCH = 5000
"""Tuples set aside by one statement."""
PAGE = 500
"""Candidates looked at together."""
DELIVERY_POLL_SECONDS = 0.1
DEFAULT_MAX_DELETIONS = 1000
"""As many as a person may have looked through; of a small store it is a tenth, but always this many:"""
ALWAYS_DELETED = 10

T = TypeVar("T")

log = structlog.get_logger()

_WHY = SystemScope("compare SpiceDB with the records")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What to compare (`tenant_id` None: all of it), whether to repair it, and whether to wait for the delivery.

    `max_deletions` None: 1,000, or a tenth of what is stored if that is less, but 10 at least.
    """

    tenant_id: TenantId | None = None
    apply: bool = False
    max_deletions: int | None = None
    wait: bool = False


@dataclass(frozen=True, slots=True)
class Progress:
    """`store`, `records`, `repair`: tuples; `delivery`: tenants.  `total` is 0 where it is not known."""

    step: str
    done: int
    total: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What it came to; `positions` are the last repairs' numbers by tenant."""

    stored: int
    projected: int
    missing: int
    too_much: int
    foreign: int
    undelivered: int
    repaired: int
    deletions_withheld: bool
    max_deletions: int
    positions: dict[TenantId, Seq]


Event = Progress | Finding | Summary
Events = AsyncGenerator[Event]


class Reconciler:
    """Runs comparisons, one at a time in the whole installation."""

    def __init__(self, database: Database, database_url: str, store: Store, wakeup: Wakeup) -> None:
        self._database = database
        self._url = database_url
        self._store = store
        self._wakeup = wakeup

    async def run(self, caller: Caller, options: Options) -> Events:
        """Progress and findings as they come, and the summary last; close it where it is not read to its end.

        Raises NotFound, Unavailable (OVERLOADED while another runs, whoever runs it), Timeout.
        """
        if options.tenant_id is not None:
            await self._require_stream(options.tenant_id)
        async with Comparison.connect(self._url) as comparison:
            run = _Run(self._database, self._store, self._wakeup, comparison, caller, options)
            async with aclosing(run.events()) as events:
                async for event in events:
                    yield event
        summary = run.summary()
        if options.tenant_id is None:
            await self._record(summary)
        if options.wait:
            async with aclosing(self._deliveries(summary.positions)) as events:
                async for event in events:
                    yield event
        yield summary

    async def _require_stream(self, tenant_id: TenantId) -> None:
        async with self._database.begin(_WHY) as tx:
            if not await streams.positions(tx, [tenant_id]):
                raise NotFound(f"tenant {tenant_id}")

    async def _record(self, summary: Summary) -> None:
        async with self._database.begin(_WHY) as tx:
            at = await installation.mark_reconciled(tx)
        counts = {kind.value: getattr(summary, kind.value) for kind in Kind}
        if any(counts.values()):
            log.warning(LogEvent.DRIFT_FOUND, help="see `pemba reconcile`", repaired=summary.repaired, **counts)
        RECONCILE_TIME.set(at.timestamp())
        for kind, count in counts.items():
            DRIFT_TUPLES.labels(kind).set(count)

    async def _deliveries(self, positions: dict[TenantId, Seq]) -> Events:
        """Until every repair is delivered: as long as the relay takes, for ever where none runs."""
        waiting = dict(positions)
        while waiting:
            before = len(waiting)
            async with self._database.begin(_WHY) as tx:
                for part in _parts(list(waiting), BATCH):
                    reached = await streams.positions(tx, part)
                    for tenant_id in part:
                        if tenant_id in reached and reached[tenant_id][1] >= waiting[tenant_id]:
                            del waiting[tenant_id]
            if len(waiting) < before:
                yield Progress("delivery", len(positions) - len(waiting), len(positions))
            elif waiting:
                await asyncio.sleep(DELIVERY_POLL_SECONDS)


class _Run:
    """One comparison, and what it has come to so far."""

    def __init__(
        self,
        database: Database,
        store: Store,
        wakeup: Wakeup,
        comparison: Comparison,
        caller: Caller,
        options: Options,
    ) -> None:
        self._database = database
        self._store = store
        self._wakeup = wakeup
        self._comparison = comparison
        self._caller = caller
        self._options = options
        self._stored = self._projected = self._undelivered = self._repaired = 0
        self._found: Counter[Kind] = Counter()
        self._positions: dict[TenantId, Seq] = {}

    async def events(self) -> Events:
        for step in (self._set_the_store_aside, self._strike_the_records_off, self._look_at_what_is_left, self._delete):
            async with aclosing(step()) as events:
                async for event in events:
                    yield event

    def summary(self) -> Summary:
        return Summary(
            stored=self._stored,
            projected=self._projected,
            missing=self._found[Kind.MISSING],
            too_much=self._found[Kind.TOO_MUCH],
            foreign=self._found[Kind.FOREIGN],
            undelivered=self._undelivered,
            repaired=self._repaired,
            deletions_withheld=self._options.apply and not self._may_delete(),
            max_deletions=self._max_deletions(),
            positions=self._positions,
        )

    async def _set_the_store_aside(self) -> Events:
        prefix = f"{self._options.tenant_id}/" if self._options.tenant_id else ""
        for type_ in projection.TYPES:
            async with aclosing(_in_batches(self._store.scan(type_, prefix))) as batches:
                async for batch in batches:
                    await self._comparison.add([str(stored) for stored in batch])
                    self._stored += len(batch)
                    yield Progress("store", self._stored)

    async def _strike_the_records_off(self) -> Events:
        async with aclosing(wanted.pages(self._database, self._options.tenant_id)) as pages:
            async for page in pages:
                texts = {str(expected): expected for expected in page}
                struck = await self._comparison.strike(list(texts))
                self._projected += len(texts)
                drifts = await self._look([expected for text, expected in texts.items() if text not in struck])
                # Deleted from the records since the page was read, and stored since the store was: for the next step.
                await self._comparison.add([str(d.tuple) for d in drifts if d.kind is not Kind.MISSING])
                for finding in await self._count([d for d in drifts if d.kind is Kind.MISSING]):
                    yield finding
                yield Progress("records", self._projected)

    async def _look_at_what_is_left(self) -> Events:
        """Then nothing is left but what is too much."""
        after = ""
        while left := await self._comparison.left(after, PAGE):
            after = left[-1]
            drifts = await self._look([Tuple.parse(text) for text in left])
            too_much = {str(d.tuple) for d in drifts if d.kind is Kind.TOO_MUCH}
            await self._comparison.strike([text for text in left if text not in too_much])
            for finding in await self._count(drifts):
                yield finding

    async def _delete(self) -> Events:
        if not self._options.apply or not self._may_delete():
            return
        after = ""
        while left := await self._comparison.left(after, PAGE):
            after = left[-1]
            await self._repair([Tuple.parse(text) for text in left])
            yield Progress("repair", self._repaired, self._found[Kind.MISSING] + self._found[Kind.TOO_MUCH])

    async def _look(self, candidates: Sequence[Tuple]) -> list[Drift]:
        if not candidates:
            return []
        looked = await drift.look(self._database, self._store, candidates)
        self._undelivered += looked.undelivered
        return looked.drifts

    async def _count(self, drifts: list[Drift]) -> list[Finding]:
        """What is missing is repaired at once: it takes no budget."""
        self._found.update(d.kind for d in drifts)
        if self._options.apply:
            await self._repair([d.tuple for d in drifts if d.kind is Kind.MISSING])
        return await drift.described(self._database, drifts) if drifts else []

    async def _repair(self, tuples: Sequence[Tuple]) -> None:
        by_owner: dict[TenantId, list[Tuple]] = {}
        for each in tuples:
            owner = projection.owner_of(each)
            assert owner is not None  # what no stream can write is FOREIGN
            by_owner.setdefault(owner, []).append(each)
        for owner, its in by_owner.items():
            for part in _parts(its, PAGE):
                self._positions[owner] = await repair(self._database, self._wakeup, self._caller, owner, part)
                self._repaired += len(part)

    def _may_delete(self) -> bool:
        return self._found[Kind.TOO_MUCH] <= self._max_deletions()

    def _max_deletions(self) -> int:
        if self._options.max_deletions is not None:
            return self._options.max_deletions
        return min(DEFAULT_MAX_DELETIONS, max(ALWAYS_DELETED, self._stored // 10))


async def _in_batches(tuples: AsyncGenerator[Tuple]) -> AsyncGenerator[list[Tuple]]:
    batch: list[Tuple] = []
    async with aclosing(tuples):
        async for each in tuples:
            batch.append(each)
            if len(batch) == BATCH:
                yield batch
                batch = []
    if batch:
        yield batch


def _parts(whole: list[T], size: int) -> list[list[T]]:
    return [whole[i : i + size] for i in range(0, len(whole), size)]
