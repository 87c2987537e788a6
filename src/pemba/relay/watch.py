"""Looks for the fences every second: a loss is noticed although nothing is written, and rotations come in time.

It only wakes lanes: what a fence means is for the lane alone to say, which looks again between two of its requests.
By these looks it is known as well for how long SpiceDB has been silent.
"""

from __future__ import annotations

import asyncio
import time
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
from pemba.telemetry import Event

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
        self._answered = time.monotonic()

    @property
    def silent_seconds(self) -> float:
        """For how long SpiceDB has answered neither a look nor a write."""
        return time.monotonic() - max(self._answered, self._spicedb.written)

    async def run(self, stopping: asyncio.Event) -> None:
        """Until `stopping` is set.  With SpiceDB or PostgreSQL away there is nothing to compare, and lanes say so."""
        while not stopping.is_set():
            try:
                await self.run_once()
            except BackendError as error:
                log.debug(Event.FENCE_LOOK_FAILED, error=error.message)
            try:
                await asyncio.wait_for(stopping.wait(), SECONDS)
            except TimeoutError:
                continue

    async def run_once(self) -> int:
        """How many lanes have a reason to look at their fences."""
        lanes = self._lanes()
        told = {shard: lane.fence.mark for shard, lane in lanes.items()}
        marks = {shard: mark for shard, mark in told.items() if mark is not None}
        there = await self._there(marks)
        self._answered = time.monotonic()
        if not lanes:
            return 0
        async with self._database.begin_relay() as tx:
            numbers = await leases.numbers(tx)
        for shard, mark in marks.items():
            # One that has rotated since tells nothing: the next look does.
            if lanes[shard].fence.mark == mark and not (shard in there and _knows(numbers, shard, mark)):
                lanes[shard].fence.doubt()
        for lane in lanes.values():
            lane.fence.saw_schema(numbers.schema_number)
        due = [lane for lane in lanes.values() if lane.fence.is_due()]
        for lane in due:
            lane.wake_for_fence()
        return len(due)

    async def _there(self, marks: Mapping[int, Mark]) -> set[int]:
        if marks:
            return await fence.there(self._spicedb, marks, self._rpc_seconds)
        await fence.read_installation(self._spicedb, self._rpc_seconds)  # whether it answers at all
        return set()


def _knows(numbers: Numbers, shard: int, mark: Mark) -> bool:
    """Whether PostgreSQL holds what it committed for that mark."""
    epoch, n = numbers.by_shard[shard]
    return epoch == mark.epoch and n >= mark.n
