"""A lane: delivers one shard, one request in flight."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import structlog

from pemba.errors import PembaError
from pemba.model import TenantId, TupleOperation
from pemba.relay.backoff import Backoff
from pemba.relay.batches import Batch, batch, first_missing, pack
from pemba.spicedb.client import SpiceDB
from pemba.spicedb.errors import WriteFailed, WriteFailure
from pemba.storage import delivery, installation
from pemba.storage.database import Database
from pemba.storage.delivery import Delivered, DueTenant
from pemba.storage.outbox import OutboxRow
from pemba.telemetry import DELIVERY_LAG_SECONDS, OUTBOX_ROWS_DELIVERED, RELAY_WRITE_FAILURES, Event

MAX_TENANTS = 64
"""Tenants in one round of a lane: bounds what a round holds in memory."""

log = structlog.get_logger()


class TurnOver(Exception):
    """It is not certain any more that this relay is the one that delivers: nothing further may be written."""


class Lane:
    """Delivers what is due in one shard, round by round."""

    def __init__(self, shard: int, database: Database, spicedb: SpiceDB, rpc_seconds: float) -> None:
        self.shard = shard
        self._database = database
        self._spicedb = spicedb
        self._rpc_seconds = rpc_seconds
        self._due = asyncio.Event()
        self._backoff = Backoff()
        self._may_write: Callable[[], bool] = lambda: True
        # Tenants that cannot go on for a reason of their own: when (loop time) to try each again.
        self._aside: dict[TenantId, tuple[float, Backoff]] = {}

    def wake(self) -> None:
        """Something may be due."""
        self._due.set()

    async def run(self, stopping: asyncio.Event, may_write: Callable[[], bool]) -> None:
        """Deliver until `stopping` is set; a request under way is finished and recorded first.

        `may_write` is asked right before every request: what was read may be old by then.
        """
        self._may_write = may_write
        stop = asyncio.create_task(stopping.wait())
        try:
            while not stopping.is_set():
                due = asyncio.create_task(self._due.wait())
                await asyncio.wait({due, stop}, return_when=asyncio.FIRST_COMPLETED)
                due.cancel()
                self._due.clear()
                await self._drain(stopping, stop)
        finally:
            stop.cancel()

    async def _drain(self, stopping: asyncio.Event, stop: asyncio.Task[bool]) -> None:
        while not stopping.is_set():
            try:
                if not await self.run_once():
                    return
                self._backoff.succeeded()
            except TurnOver:
                return
            except PembaError as error:
                pause = self._backoff.failed()
                self._log_failure(error, pause)
                await asyncio.wait({stop}, timeout=pause)

    async def run_once(self) -> int:
        """One round: the next batch of each due tenant; how many rows were delivered.

        Raises Unavailable, WriteFailed and TurnOver; whatever was written and not recorded is written again by the
        next round, whoever's that is.
        """
        schema_number, batches = await self._read()
        delivered = 0
        for request in pack(batches):
            delivered += await self._deliver(request, schema_number)
        return delivered

    async def _read(self) -> tuple[int, list[Batch]]:
        async with self._database.begin_relay() as tx:
            # Read before the write: a schema applied since makes its revision look older than it is, never newer.
            schema_number = (await installation.read(tx)).schema_number
            due = await delivery.due_tenants(tx, self.shard, MAX_TENANTS, self._aside_now())
            rows = await delivery.prefixes(tx, due) if due else {}
        return schema_number, [
            batch(t.tenant_id, rows[t.tenant_id]) for t in due if self._is_contiguous(t, rows.get(t.tenant_id, []))
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
            if len(request) == 1:
                self._set_aside(
                    request[0].tenant_id,
                    kind=error.kind,
                    seq=request[0].rows[0].seq,
                    last_seq=request[0].last_seq,
                    error=str(error),
                    cause=str(error.__cause__),
                )
                return 0
        # One of them holds what SpiceDB refuses; nothing was written.  Alone, each shows whether it is the one.
        return sum([await self._deliver([single], schema_number) for single in request])

    async def _write_and_record(self, request: Sequence[Batch], schema_number: int) -> int:
        operations = [operation for b in request for operation in b.operations]
        zedtoken = await self._write(request, operations) if operations else None
        positions = [Delivered(b.tenant_id, b.last_seq, zedtoken if b.operations else None) for b in request]
        async with self._database.begin_relay() as tx:
            await delivery.mark_delivered(tx, self.shard, positions, schema_number)
        rows = [row for b in request for row in b.rows]
        OUTBOX_ROWS_DELIVERED.labels(str(self.shard)).inc(len(rows))
        for row in rows:
            DELIVERY_LAG_SECONDS.observe(row.age_seconds)
        for b in request:
            self._aside.pop(b.tenant_id, None)
        return len(rows)

    async def _write(self, request: Sequence[Batch], operations: Sequence[TupleOperation]) -> str:
        if not self._may_write():
            raise TurnOver
        metadata = dict(request[-1].rows[-1].trace)
        return await self._spicedb.write(operations, metadata=metadata, timeout=self._rpc_seconds)

    def _aside_now(self) -> list[TenantId]:
        now = asyncio.get_running_loop().time()
        return [tenant_id for tenant_id, (until, _) in self._aside.items() if until > now]

    def _set_aside(self, tenant_id: TenantId, **what: object) -> None:
        """Try this tenant again after a while; the others of the shard go on."""
        _, backoff = self._aside.get(tenant_id, (0.0, Backoff()))
        pause = backoff.failed()
        self._aside[tenant_id] = (asyncio.get_running_loop().time() + pause, backoff)
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
        event = Event.SHARD_PAUSED if kind == WriteFailure.SETTING else Event.DELIVERY_FAILED
        log.warning(
            event,
            shard=self.shard,
            kind=kind,
            error=str(error),
            failures=self._backoff.failures,
            retry_in_seconds=round(pause, 2),
        )
