"""Reads the fences every second: who lost something is noticed although nothing is written, and rotations come in time.

It only wakes lanes: what a fence means is for the lane alone to say, which looks again between two of its requests.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import structlog

from pemba.errors import BackendError
from pemba.relay import fence
from pemba.relay.fence import Mark
from pemba.relay.lane import Lane
from pemba.spicedb.client import SpiceDB
from pemba.storage import leases
from pemba.storage.database import Database
from pemba.storage.leases import Numbers

SECONDS = 1.0

log = structlog.get_logger()


class Watch:
    """Compares what SpiceDB and PostgreSQL hold of this relay's shards with what its lanes were told."""

    def __init__(
        self, database: Database, spicedb: SpiceDB, lanes: Callable[[], Mapping[int, Lane]], rpc_seconds: float
    ) -> None:
        self._database = database
        self._spicedb = spicedb
        self._lanes = lanes
        self._rpc_seconds = rpc_seconds

    async def run(self, stopping: asyncio.Event) -> None:
        """Until `stopping` is set.  With SpiceDB or PostgreSQL away there is nothing to compare, and lanes say so."""
        while not stopping.is_set():
            try:
                await self.run_once()
            except BackendError as error:
                log.debug("watch.failed", error=error.message)
            try:
                await asyncio.wait_for(stopping.wait(), SECONDS)
            except TimeoutError:
                continue

    async def run_once(self) -> int:
        """How many lanes have a reason to look at their fences."""
        told = {lane: lane.fence.mark for lane in self._lanes().values()}
        if not told:
            return 0
        found = await fence.read(self._spicedb, self._rpc_seconds) or {}
        async with self._database.begin_relay() as tx:
            numbers = await leases.numbers(tx)
        doubtful = [lane for lane, mark in told.items() if _has_reason(lane, mark, found, numbers)]
        for lane in doubtful:
            lane.wake_for_fence()
        return len(doubtful)


def _has_reason(lane: Lane, told: Mark | None, found: Mapping[str, Mark], numbers: Numbers) -> bool:
    """Whether the fence of a lane is due; it is in doubt where somebody says another thing than the lane was told."""
    lane.fence.saw_schema(numbers.schema_number)
    has_rotated_since = lane.fence.mark != told
    if told is not None and not has_rotated_since and not _agree(lane.shard, told, found, numbers):
        lane.fence.doubt()
    return lane.fence.is_due()


def _agree(shard: int, told: Mark, found: Mapping[str, Mark], numbers: Numbers) -> bool:
    epoch, n = numbers.by_shard[shard]
    return found.get(fence.relation_of(shard)) == told and epoch == told.epoch and n >= told.n
