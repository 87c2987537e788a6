"""Healing: what follows when a fence says that SpiceDB lost writes, or that PostgreSQL lost commits.

::

    a lane reports a loss, or a store was left unfilled
        |
    lock        one relay does this, the others look again in a second
    schema      written again as it was applied last, where SpiceDB lacks a part of it
    declare     under the locks of all leases: read the fences, judge them, begin another life of the store
        |         (of the database too, where it lost commits), with leases that nobody holds, above all that were used
    fences      one write, that must find what was read: nothing that was sent before can land from now on
    fill        tenant by tenant, by ordinary rows (service/filling.py); each can be asked about when its rows are there

From the declaration on no server answers from what it kept, and none asks about a tenant that is not filled.  It can be
cut off between any two of these: the next relay that looks goes on, or finds the loss once more.

Nothing of it happens to a store that is another installation's: the id of whose it is lies beside the fences, and
whoever finds another there stops.  A database that was copied has the same id as the one that it was copied from: give
the copy a SpiceDB of its own.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping, Sequence
from contextlib import aclosing

import structlog

from pemba.errors import ConfigError, PembaError, Rejected
from pemba.model import ObjectRef, Operation, Tuple, TupleOperation
from pemba.relay import fence
from pemba.relay.backoff import Backoff
from pemba.relay.fence import Mark, Verdict
from pemba.relay.principal import PRINCIPAL, as_relay
from pemba.service.filling import StoreFilling
from pemba.spicedb import schema_apply
from pemba.spicedb.client import SpiceDB
from pemba.spicedb.errors import WriteFailed, WriteFailure
from pemba.storage import lives
from pemba.storage.database import Database
from pemba.storage.lives import Lives, Numbers
from pemba.storage.schema_versions import SchemaVersions
from pemba.telemetry import LOSSES_DECLARED, TENANTS_MISSING_IN_STORE, Event

LOOK_SECONDS = 1.0
REPORT_SECONDS = 10.0
MAX_PAUSE_SECONDS = 5.0

log = structlog.get_logger()


class Healing:
    """For one relay; `report` is told of losses by its lanes."""

    def __init__(
        self, url: str, database: Database, spicedb: SpiceDB, filling: StoreFilling, rpc_seconds: float = 10.0
    ) -> None:
        self._url = url
        self._database = database
        self._spicedb = spicedb
        self._filling = filling
        self._rpc_seconds = rpc_seconds
        self._reported = asyncio.Event()
        self._is_owed = False
        """A report was taken up, and what followed from it failed."""

    def report(self) -> None:
        """A fence says that something was lost."""
        self._reported.set()

    async def claim(self) -> None:
        """Write into a store that is nobody's whose it is.

        Raises ConfigError where it is another installation's, Unavailable, Timeout, WriteFailed.
        """
        async with self._database.begin_relay() as tx:
            ours = str((await lives.standing(tx)).installation_id)
        if await self._owner(ours) is None:
            try:
                await self._write([_touch(ours)], must_be_empty=((fence.OBJECT, fence.INSTALLATION),))
            except WriteFailed as error:
                if error.kind is not WriteFailure.PRECONDITION:
                    raise
                await self._owner(ours)  # somebody was first

    async def run(self, stopping: asyncio.Event) -> None:
        """Until `stopping` is set: look every second, and at once after a report; failures are tried again."""
        backoff = Backoff(MAX_PAUSE_SECONDS)
        while not stopping.is_set():
            try:
                await self.run_once()
            except (PembaError, ConfigError) as error:
                pause = backoff.failed()
                self._is_owed = True
                log.warning(Event.HEALING_FAILED, error=str(error), retry_in_seconds=round(pause, 2))
                await _first(pause, stopping)
            else:
                backoff.succeeded()
                await _first(LOOK_SECONDS, stopping, self._reported)

    async def run_once(self) -> bool:
        """Heal what there is to heal; whether there was anything.

        Raises ConfigError for another installation's store, and what PostgreSQL and SpiceDB do when they fail.
        """
        is_reported = self._reported.is_set() or self._is_owed
        self._is_owed = False
        self._reported.clear()
        async with self._database.begin_relay() as tx:
            standing = await lives.standing(tx)
        if standing.is_filled and not is_reported:
            return False
        async with Lives.connect(self._url) as session:
            if session is None:
                return False
            await self.restore_schema()
            await self._renew_fences(session, str(standing.installation_id))
            async with self._database.begin_relay() as tx:
                standing = await lives.standing(tx)
            if not standing.is_filled:
                await self._fill(standing.store_epoch)
        return True

    async def restore_schema(self) -> bool:
        """Where SpiceDB lost a part of the schema that was applied last.  Raises as schema_apply.restore."""
        async with SchemaVersions.connect(self._url) as ledger:
            return await schema_apply.restore(self._spicedb, ledger)

    async def _renew_fences(self, session: Lives, ours: str) -> None:
        owner = await self._owner(ours)
        async with session.locked() as rows:
            await self._spicedb.reach_head(self._rpc_seconds)
            marks = await fence.read(self._spicedb, self._rpc_seconds)
            if marks is None:
                raise Rejected("SpiceDB has no schema, and none was applied that could be written again")
            found = {shard: marks[name] for shard in rows if (name := fence.relation_of(shard)) in marks}
            verdict = fence.judge_all(found, rows)
            if verdict is Verdict.WELL:
                return
            new = {shard: _above(found.get(shard), row) for shard, row in rows.items()}
            marked = {shard: (mark.epoch, mark.n) for shard, mark in new.items()}
            await session.begin(marked, PRINCIPAL, verdict, database_lost=verdict is Verdict.DATABASE_LOST)
        LOSSES_DECLARED.labels(verdict).inc()
        log.error(
            Event(verdict),
            spicedb={shard: f"{mark.epoch}/{mark.n}" for shard, mark in found.items()},
            postgres={shard: f"{row.epoch}/{row.n}, landed {row.landed}" for shard, row in rows.items()},
            help="declared; SpiceDB is being filled from the records, tenant by tenant",
        )
        await self._write_fences(found, new, owner, ours)

    async def _write_fences(
        self, found: Mapping[int, Mark], new: Mapping[int, Mark], owner: str | None, ours: str
    ) -> None:
        must_match = [mark.on(shard) for shard, mark in found.items()]
        must_be_empty = [(fence.OBJECT, fence.relation_of(shard)) for shard in new if shard not in found]
        if owner is None:
            must_be_empty.append((fence.OBJECT, fence.INSTALLATION))
        operations = [TupleOperation(Operation.DELETE, stored) for stored in must_match]
        operations += [TupleOperation(Operation.TOUCH, mark.on(shard)) for shard, mark in new.items()]
        await self._write([*operations, _touch(ours)], must_match=must_match, must_be_empty=must_be_empty)

    async def _write(
        self,
        operations: Sequence[TupleOperation],
        must_match: Sequence[Tuple] = (),
        must_be_empty: Sequence[tuple[ObjectRef, str]] = (),
    ) -> None:
        await self._spicedb.write(
            operations,
            metadata={},
            timeout=self._rpc_seconds,
            must_match=must_match,
            must_be_empty=must_be_empty,
        )

    async def _owner(self, ours: str) -> str | None:
        """Us, or (None) nobody.  Raises ConfigError where it is another installation."""
        owner = await fence.read_installation(self._spicedb, self._rpc_seconds)
        if owner not in (None, ours):
            log.error(Event.STORE_IS_ANOTHERS, owner=owner, ours=ours)
            raise ConfigError(
                f"SpiceDB belongs to another installation of Pemba ({owner}; the id of this database is {ours}): is "
                "PEMBA_SPICEDB_ENDPOINT or PEMBA_DATABASE_URL another one than it should be? To use this SpiceDB with "
                "this database empty it first"
            )
        return owner

    async def _fill(self, epoch: uuid.UUID) -> None:
        """Ends early where another loss is reported: what is filled then is of no use."""
        caller = as_relay(f"fill-{epoch}")
        next_report = 0.0
        async with aclosing(self._filling.run(caller, epoch)) as reports:
            async for filled in reports:
                if self._reported.is_set():
                    return
                TENANTS_MISSING_IN_STORE.set(filled.left)
                now = asyncio.get_running_loop().time()
                if now >= next_report:
                    log.info(Event.STORE_FILLING, tenants=filled.tenants, left=filled.left, tuples=filled.tuples)
                    next_report = now + REPORT_SECONDS
        log.info(Event.STORE_FILLED, tenants=filled.tenants, tuples=filled.tuples)


def _above(found: Mark | None, row: Numbers) -> Mark:
    """A mark that neither SpiceDB nor PostgreSQL has seen yet."""
    seen = found or Mark(0, 0)
    return Mark(max(row.epoch, seen.epoch) + 1, max(row.n, seen.n) + 1)


def _touch(installation_id: str) -> TupleOperation:
    return TupleOperation(Operation.TOUCH, fence.installation_tuple(installation_id))


async def _first(seconds: float, *events: asyncio.Event) -> None:
    """Until one of them is set, or so long."""
    waits = [asyncio.create_task(event.wait()) for event in events]
    await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()
