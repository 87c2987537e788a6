"""A lane: delivers one shard, one request in flight."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import structlog

from pemba.errors import PembaError
from pemba.model import TenantId, TupleOperation
from pemba.relay.backoff import Backoff
from pemba.relay.batches import Batch, batch, first_missing
from pemba.relay.fence import Fence, FenceFault, FenceInDoubt, Verdict
from pemba.relay.parking import Parking
from pemba.spicedb.client import SpiceDB
from pemba.spicedb.errors import WriteFailed, WriteFailure
from pemba.storage import delivery, installation, parked
from pemba.storage.database import Database
from pemba.storage.delivery import Delivered, DueTenant
from pemba.storage.leases import LeaseLost
from pemba.storage.outbox import OutboxRow
from pemba.storage.parked import Refusal
from pemba.telemetry import (
    DELIVERY_LAG_SECONDS,
    OUTBOX_ROWS_DELIVERED,
    RELAY_SHARDS_STOPPED,
    RELAY_WRITE_FAILURES,
    Event,
)

MAX_TENANTS = 64
"""Tenants in one round of a lane."""

log = structlog.get_logger()


_WHAT_IT_MEANS = {
    Verdict.STORE_LOST: "SpiceDB lost writes: was it emptied, or restored to an earlier state? The shard stops until "
    "a relay has begun another life of the store (relay/healing.py); then SpiceDB is filled from the records",
    Verdict.DATABASE_LOST: "PostgreSQL lost commits: was it restored to an earlier state? The shard stops until a "
    "relay has begun another life of the database (relay/healing.py); tokens of before are refused from then on",
}


class Lane:
    """Delivers what is due in one shard, round by round, for as long as the lease of its fence lasts."""

    def __init__(
        self,
        fence: Fence,
        database: Database,
        spicedb: SpiceDB,
        rpc_seconds: float,
        report_loss: Callable[[], None] = lambda: None,
    ) -> None:
        """`report_loss` is called as often as the fence is looked at and says that something was lost."""
        self.fence = fence
        self.shard = fence.lease.shard
        self.is_over = False
        """The lease is lost, or may be: nothing more is written."""
        self._database = database
        self._spicedb = spicedb
        self._rpc_seconds = rpc_seconds
        self._report_loss = report_loss
        self._woken = asyncio.Event()
        self._woken.set()
        self._rows_due = True
        self._backoff = Backoff()
        self._parking = Parking(fence.lease, database, spicedb, rpc_seconds)
        self._stopped_for: Verdict | None = None
        # Tenants that cannot go on for a reason of their own: when (loop time) to try each again.
        self._aside: dict[TenantId, tuple[float, Backoff]] = {}

    def wake(self) -> None:
        """Something may be due."""
        self._rows_due = True
        self._woken.set()

    def wake_for_fence(self) -> None:
        """The fence wants a rotation, or a look."""
        self._woken.set()

    def lose(self, why: str) -> None:
        """The lease is not certain any more: come to rest, and record nothing more."""
        if not self.is_over:
            self.is_over = True
            RELAY_SHARDS_STOPPED.labels(Verdict.ZOMBIE).inc()
            log.warning(Event.LEASE_LOST, shard=self.shard, epoch=self.fence.lease.epoch, why=why)
        self._woken.set()

    async def run(self, stopping: asyncio.Event) -> None:
        """Deliver until `stopping` is set or the lease is lost; a request under way is finished and recorded first."""
        stop = asyncio.create_task(stopping.wait())
        try:
            while not (stop.done() or self.is_over):
                woken = asyncio.create_task(self._woken.wait())
                await asyncio.wait({woken, stop}, return_when=asyncio.FIRST_COMPLETED)
                woken.cancel()
                self._woken.clear()
                await self._work(stop)
        finally:
            stop.cancel()

    async def _work(self, stop: asyncio.Task[bool]) -> None:
        work, self._rows_due = (self.run_once if self._rows_due else self._keep_fence), False
        while not (stop.done() or self.is_over) and await self._attempt(work, stop):
            pass

    async def _attempt(self, work: Callable[[], Awaitable[int]], stop: asyncio.Task[bool]) -> bool:
        """Whether there may be more to do at once."""
        try:
            done = await work()
        except FenceInDoubt:
            return True
        except LeaseLost:
            self.lose("it ran out, or another relay has it")
            return False
        except FenceFault as fault:
            self._stop_for(fault)
            return False
        except PembaError as error:
            pause = self._backoff.failed()
            self._log_failure(error, pause)
            await asyncio.wait({stop}, timeout=pause)
            return True
        self._backoff.succeeded()
        self._go_on()
        return done > 0

    async def run_once(self) -> int:
        """One round: the next batches of those that waited the longest, one request; how many rows were delivered.

        Raises what `Fence.keep` does, FenceInDoubt, Unavailable, WriteFailed and LeaseLost; whatever was written and
        not recorded is written again by the next round, whoever's that is.
        """
        # Before the read: what was delivered under an older fence is recorded by now, or will never be.
        await self.fence.keep()
        schema_number, request = await self._read()
        self.fence.saw_schema(schema_number)
        return await self._deliver(request, schema_number) if request else 0

    async def _keep_fence(self) -> int:
        await self.fence.keep()
        return 0

    async def _read(self) -> tuple[int, list[Batch]]:
        async with self._database.begin_relay() as tx:
            # Read before the write: a schema applied since makes its revision look older than it is, never newer.
            schema_number = (await installation.read(tx)).schema_number
            due = await delivery.due_tenants(tx, self.shard, MAX_TENANTS, self._aside_now())
            rows = await delivery.prefixes(tx, due) if due else {}
            with_parked = {t.tenant_id for t in due if t.has_parked}
            refusals = await parked.undelivered(tx, with_parked) if with_parked else {}
        return schema_number, [
            batch(t.tenant_id, rows[t.tenant_id], has_parked=t.has_parked).without(refusals.get(t.tenant_id, ()))
            for t in due
            if t.tenant_id in rows and self._is_contiguous(t, rows[t.tenant_id])
        ]

    def _is_contiguous(self, due: DueTenant, rows: Sequence[OutboxRow]) -> bool:
        """False, and the tenant set aside, where a row is missing: to go on would deliver out of order."""
        missing = first_missing(due.delivered_seq, rows)
        if missing is not None:
            self._set_aside(due.tenant_id, kind="GAP", seq=missing, error="the outbox row is missing")
        return missing is None

    async def _deliver(self, request: Sequence[Batch], schema_number: int) -> int:
        try:
            return await self._write_and_record(request, schema_number)
        except WriteFailed as error:
            if error.kind is not WriteFailure.OPERATION:
                raise
            RELAY_WRITE_FAILURES.labels(error.kind).inc()
            refusal = error
        # Nothing was written: the same goes without what is refused.
        refusals = await self._parking.refusals(request)
        if refusals:
            await self.fence.require_unchanged()  # else it was another store that refused
            await self._parking.park_if_leased(refusals, schema_number)
            return await self._write_and_record([_less(b, refusals) for b in request], schema_number)
        if len(request) > 1:
            return sum([await self._deliver([single], schema_number) for single in request])
        self._set_aside(request[0].tenant_id, kind=refusal.kind, seq=request[0].rows[0].seq, error=str(refusal))
        return 0

    async def _write_and_record(self, request: Sequence[Batch], schema_number: int) -> int:
        operations = [operation for b in request for operation in b.operations]
        zedtoken = await self._write(request, operations) if operations else None
        positions = [
            Delivered(
                b.tenant_id,
                b.last_seq,
                zedtoken if b.operations else None,
                b.store_epoch,
                b.rows[-1].next_expiry,
            )
            for b in request
        ]
        ended = [(b.tenant_id, each) for b in request if b.has_parked for each in b.ended]
        async with self._database.begin_relay() as tx:
            stamp = await delivery.mark_delivered_if_leased(tx, self.fence.lease, positions, schema_number)
            if ended:
                await parked.end(tx, ended)
                tenants = {tenant_id for tenant_id, _ in ended}
                await parked.sum_up(tx, self.fence.lease, stamp, tenants, schema_number)
        rows = [row for b in request for row in b.rows]
        OUTBOX_ROWS_DELIVERED.labels(str(self.shard)).inc(len(rows))
        for row in rows:
            DELIVERY_LAG_SECONDS.observe(row.age_seconds)
        for b in request:
            self._aside.pop(b.tenant_id, None)
        return len(rows)

    async def _write(self, request: Sequence[Batch], operations: Sequence[TupleOperation]) -> str:
        metadata = dict(request[-1].rows[-1].trace)
        fence = self.fence.required()
        try:
            return await self._spicedb.write(
                operations, metadata=metadata, timeout=self._rpc_seconds, must_match=(fence,)
            )
        except WriteFailed as error:
            # Refused for whatever reason: the fence tells whether it is ours to judge it.  Without an answer the
            # request may be under way still: a fence that has moved on is what it then runs into.
            if error.kind is not WriteFailure.UNCERTAIN:
                await self.fence.require_unchanged()
            if error.kind in (WriteFailure.UNCERTAIN, WriteFailure.PRECONDITION):
                self.fence.doubt()
            raise

    def _stop_for(self, fault: FenceFault) -> None:
        if fault.verdict is Verdict.ZOMBIE:
            self.lose(str(fault))
            return
        self._rows_due = True
        self._report_loss()
        if self._stopped_for is not fault.verdict:
            self._stopped_for = fault.verdict
            RELAY_SHARDS_STOPPED.labels(fault.verdict).inc()
            log.error(Event(fault.verdict), shard=self.shard, found=str(fault), help=_WHAT_IT_MEANS[fault.verdict])

    def _go_on(self) -> None:
        if self._stopped_for is not None:
            log.info(Event.SHARD_WELL_AGAIN, shard=self.shard, after=self._stopped_for)
            self._stopped_for = None

    def _aside_now(self) -> list[TenantId]:
        now = asyncio.get_running_loop().time()
        return [tenant_id for tenant_id, (until, _) in self._aside.items() if until > now]

    def _set_aside(self, tenant_id: TenantId, **what: object) -> None:
        """Try this tenant again after a while; the others of the shard go on."""
        _, backoff = self._aside.get(tenant_id, (0.0, Backoff()))
        pause = backoff.failed()
        self._aside[tenant_id] = (asyncio.get_running_loop().time() + pause, backoff)
        self.wake()  # the round may have held nobody else
        RELAY_WRITE_FAILURES.labels(what["kind"]).inc()
        log.error(
            Event.DELIVERY_FAILED,
            tenant_id=tenant_id,
            retry_in_seconds=round(pause, 2),
            help="see `pemba schema check` and `pemba outbox status`",
            **what,
        )

    def _log_failure(self, error: PembaError, pause: float) -> None:
        kind = error.kind if isinstance(error, WriteFailed) else error.reason
        RELAY_WRITE_FAILURES.labels(kind).inc()
        event = Event.SHARD_PAUSED if kind in (WriteFailure.SETTING, WriteFailure.REFUSED) else Event.DELIVERY_FAILED
        log.warning(
            event,
            shard=self.shard,
            kind=kind,
            error=str(error),
            failures=self._backoff.failures,
            retry_in_seconds=round(pause, 2),
        )


def _less(batch: Batch, refusals: Sequence[Refusal]) -> Batch:
    return batch.without([refusal for refusal in refusals if refusal.tenant_id == batch.tenant_id])
