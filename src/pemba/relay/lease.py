"""What one relay holds: takes shards, renews them, gives up what is above its share, and releases all at a stop."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import structlog

from pemba.errors import BackendError
from pemba.model import SHARDS
from pemba.relay.lane import Lane
from pemba.storage import leases
from pemba.storage.database import Database
from pemba.storage.leases import Lease
from pemba.storage.wakeup import Replicas
from pemba.telemetry import RELAY_SHARDS_HELD, Event

RELEASE_SECONDS = 2.0
"""How long a stop waits for PostgreSQL to say that it freed the shards; without it they are free after the TTL."""

RENEWALS = 3
"""How often a lease is renewed in the time that it lasts."""
CERTAIN_PART = 0.8
"""The part of that time, counted from our asking for it, in which we rely on it."""

MakeLane = Callable[[Lease, Callable[[], bool]], Lane]
Spawn = Callable[[str, Coroutine[Any, Any, None]], asyncio.Task[None]]

log = structlog.get_logger()


def share(replicas: Replicas) -> int:
    """How many shards a relay should have: as many as every other, and the first ones one of the rest each."""
    each, rest = divmod(SHARDS, replicas.count)
    return each + (replicas.rank < rest)


@dataclass(slots=True)
class Holding:
    """A shard of ours; from `certain_until` (by `_now`) on nothing is written in it."""

    lease: Lease
    certain_until: float
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    lane: Lane = field(init=False)
    task: asyncio.Task[None] = field(init=False)

    @property
    def is_ending(self) -> bool:
        return self.stopping.is_set() or self.lane.is_over

    def is_certain(self) -> bool:
        return _now() < self.certain_until


class Leases:
    """The shards of one relay.

    A lease lasts `ttl_seconds` by the database's clock from a moment after the one at which we asked for it.
    """

    def __init__(self, database: Database, make_lane: MakeLane, ttl_seconds: float) -> None:
        self.holder = f"{socket.gethostname()}/{os.getpid()}/{secrets.token_hex(4)}"
        self._database = database
        self._make_lane = make_lane
        self._ttl_seconds = ttl_seconds
        self._holdings: dict[int, Holding] = {}
        self._renewed = 0.0

    @property
    def lanes(self) -> dict[int, Lane]:
        """Those that deliver, by shard."""
        return {shard: held.lane for shard, held in self._holdings.items() if not held.is_ending}

    async def look(self, share: int | None, spawn: Spawn) -> None:
        """Renew what is due, free what has come to rest, and come nearer to the share; without one nothing is taken.

        Raises BackendError; the next look goes on from whatever is.
        """
        try:
            await self._renew_when_due()
            if self._forget_what_ended():
                await self._release()
            if share is not None:
                for surplus in list(self._holdings.values())[share:]:
                    surplus.stopping.set()
                if len(self._holdings) < share:
                    await self._take(share - len(self._holdings), spawn)
        finally:
            RELAY_SHARDS_HELD.set(len(self.lanes))

    async def stop(self, look_seconds: float) -> None:
        """Give everything up: each shard as soon as its lane has finished what is under way."""
        for held in self._holdings.values():
            held.stopping.set()
        postgres_answers = True
        while True:
            tasks = [held.task for held in self._holdings.values()]
            if tasks:
                await asyncio.wait(tasks, timeout=look_seconds, return_when=asyncio.FIRST_COMPLETED)
            self._forget_what_ended()
            postgres_answers = postgres_answers and await self._release_in_time()
            if not self._holdings:
                break
        RELAY_SHARDS_HELD.set(0)

    async def _release_in_time(self) -> bool:
        try:
            async with asyncio.timeout(RELEASE_SECONDS):
                await self._renew_when_due()
                await self._release()
        except (BackendError, TimeoutError):
            return False
        return True

    def _forget_what_ended(self) -> bool:
        """Whether there was any."""
        before = len(self._holdings)
        self._holdings = {shard: held for shard, held in self._holdings.items() if not held.task.done()}
        return len(self._holdings) < before

    async def _renew_when_due(self) -> None:
        asked = _now()
        if not self._holdings or asked - self._renewed < self._ttl_seconds / RENEWALS:
            return
        async with self._database.begin_relay() as tx:
            ours = await leases.renew(
                tx, self.holder, [held.lease for held in self._holdings.values()], self._ttl_seconds
            )
        self._renewed = asked
        for shard, held in self._holdings.items():
            if shard in ours:
                held.certain_until = self._certain_until(asked)
            else:
                held.certain_until = asked
                held.lane.lose("it was not renewed in time, or another relay has it")

    async def _release(self) -> None:
        """Free whatever has our name on it and no lane at work: also what was taken without our hearing of it."""
        async with self._database.begin_relay() as tx:
            freed = await leases.release(tx, self.holder, self._holdings)
        if freed:
            log.info(Event.SHARDS_RELEASED, count=freed, left=sorted(self._holdings))

    async def _take(self, limit: int, spawn: Spawn) -> None:
        asked = _now()
        async with self._database.begin_relay() as tx:
            taken = await leases.take(tx, self.holder, limit, self._holdings, self._ttl_seconds)
        for lease in taken:
            held = self._holdings[lease.shard] = Holding(lease, self._certain_until(asked))
            held.lane = self._make_lane(lease, held.is_certain)
            held.task = spawn(f"lane {lease.shard}", held.lane.run(held.stopping))
        if taken:
            log.info(Event.SHARDS_TAKEN, shards=sorted(lease.shard for lease in taken), holder=self.holder)

    def _certain_until(self, asked: float) -> float:
        return asked + self._ttl_seconds * CERTAIN_PART


def _now() -> float:
    """Seconds on a clock that runs on while the machine, and with it every other clock of ours, is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
