"""The daemon: its share of the sixteen shards, a lane for each, and what wakes them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog

from pemba.errors import BackendError, PembaError
from pemba.model import SHARDS, TenantId
from pemba.relay.backoff import Backoff
from pemba.relay.fence import Fence
from pemba.relay.healing import Healing
from pemba.relay.lane import Lane
from pemba.relay.lease import Leases, share
from pemba.relay.retention import Retention
from pemba.relay.watch import Watch
from pemba.spicedb.client import SpiceDB
from pemba.storage import delivery
from pemba.storage.database import Database
from pemba.storage.leases import Lease
from pemba.storage.outbox import shard_of
from pemba.storage.wakeup import RelaySession
from pemba.telemetry import OUTBOX_UNDELIVERED_ROWS, Event

POLL_PART = 0.1
"""Of the time, for looks at every stream of this relay's shards: each costs as much as there are tenants."""

LOOK_SECONDS = 0.5
"""How often relays are counted, and shards taken and given up."""

PATIENCE = 2
"""Leases for which SpiceDB is silent before a relay leaves its share to the others."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class RelayOptions:
    """`poll_min_seconds` while there is work, up to `poll_max_seconds` while there is none.

    `lease_seconds`: for so long a relay that fell silent keeps its shards.
    """

    poll_min_seconds: float = 0.05
    poll_max_seconds: float = 1.0
    rpc_seconds: float = 10.0
    keep_seconds: float = 7 * 24 * 3600.0
    audit_seconds: float = 0.0
    lease_seconds: float = 15.0


class Relay:
    """Delivers its share of the tenants' streams until it is stopped."""

    def __init__(
        self,
        url: str,
        database: Database,
        spicedb: SpiceDB,
        options: RelayOptions,
        healing: Healing | None = None,
    ) -> None:
        """Without `healing` a loss of data stops the shards, and another relay has to heal it."""
        self._url = url
        self._healing = healing
        self._database = database
        self._spicedb = spicedb
        self._options = options
        self._leases = Leases(database, self._make_lane, options.lease_seconds)
        self._watch = Watch(database, spicedb, lambda: self._leases.lanes, options.rpc_seconds)
        self._retention = Retention(database, options.keep_seconds, options.audit_seconds)
        self._stopping = asyncio.Event()
        self._share: int | None = None
        self._recounted = asyncio.Event()

    @property
    def shards(self) -> list[int]:
        """Those that it delivers."""
        return sorted(self._leases.lanes)

    def stop(self) -> None:
        """Finish the requests under way, record them, give up the shards, and end `run`."""
        self._stopping.set()

    async def run(self) -> None:
        """Deliver until `stop`; PostgreSQL or SpiceDB away means trying again, for ever.

        Raises ConfigError where SpiceDB is another installation's.
        """
        log.info(Event.STARTED, holder=self._leases.holder)
        await self._claim_store()
        if not self._stopping.is_set():  # else its tasks would be cancelled before they begin
            await self._deliver()
        log.info(Event.STOPPED)

    async def _deliver(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            side_tasks = [
                _spawn(tasks, "leases", self._hold_leases(partial(_spawn, tasks))),
                _spawn(tasks, "session", self._keep_session()),
                _spawn(tasks, "poll", self._poll()),
                _spawn(tasks, "watch", self._watch.run(self._stopping)),
                _spawn(tasks, "retention", self._retention.run(self._stopping, lambda: 0 in self._leases.lanes)),
            ]
            if self._healing is not None:
                side_tasks.append(_spawn(tasks, "healing", self._healing.run(self._stopping)))
            await self._stopping.wait()
            for task in side_tasks:  # the lanes have something to finish, these have not
                task.cancel()
            await asyncio.wait(side_tasks)
            await self._leases.stop(LOOK_SECONDS)

    async def _claim_store(self) -> None:
        backoff = Backoff(max_seconds=2.0)
        while self._healing is not None and not self._stopping.is_set():
            try:
                await self._healing.claim()
                return
            except BackendError as error:
                pause = backoff.failed()
                log.warning(Event.CLAIM_FAILED, error=error.message, retry_in_seconds=round(pause, 2))
                await self._pause(pause)

    def _make_lane(self, lease: Lease, is_certain: Callable[[], bool]) -> Lane:
        rpc_seconds = self._options.rpc_seconds
        fence = Fence(lease, self._database, self._spicedb, rpc_seconds, is_certain)
        report_loss = self._healing.report if self._healing is not None else lambda: None
        return Lane(fence, self._database, self._spicedb, rpc_seconds, report_loss)

    async def _hold_leases(self, spawn: Callable[[str, Coroutine[Any, Any, None]], asyncio.Task[None]]) -> None:
        while not self._stopping.is_set():
            try:
                await self._leases.look(self._share, spawn)
            except PembaError as error:
                log.warning(Event.LEASES_FAILED, error=error.message)
            self._recounted.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._recounted.wait(), LOOK_SECONDS)

    async def _keep_session(self) -> None:
        """Listen, and count the relays; what the last count said holds while there is no session.

        A relay that fell silent is counted for as long as its leases last.
        """
        backoff = Backoff(max_seconds=2.0)
        while not self._stopping.is_set():
            try:
                async with RelaySession.connect(self._url, self._options.lease_seconds) as session:
                    await session.listen(self._heard)
                    for lane in self._leases.lanes.values():  # nobody heard what was notified until now
                        lane.wake()
                    while not self._stopping.is_set():
                        self._divide(await self._share_now(session))
                        backoff.succeeded()
                        await self._pause(LOOK_SECONDS)
            except BackendError as error:
                pause = backoff.failed()
                log.warning(Event.SESSION_FAILED, error=error.message, retry_in_seconds=round(pause, 2))
                await self._pause(pause)

    async def _share_now(self, session: RelaySession) -> int | None:
        """Nothing while SpiceDB is silent here, and there were others, who may reach it, when that began to tell."""
        is_silent = self._watch.silent_seconds > PATIENCE * self._options.lease_seconds
        if is_silent and (self._share == 0 or await session.has_others()):
            await session.leave()
            return 0
        replicas = await session.replicas()
        return None if replicas is None else share(replicas)

    def _divide(self, share: int | None) -> None:
        if share != self._share:
            if 0 in (share, self._share):
                log.warning(Event.RELAY_STANDS_BACK if share == 0 else Event.RELAY_TAKES_PART_AGAIN)
            self._share = share
            self._recounted.set()

    def _heard(self, payload: str) -> None:
        lane = self._leases.lanes.get(shard_of(TenantId(payload)))
        if lane is not None:
            lane.wake()

    async def _poll(self) -> None:
        """The guarantee behind NOTIFY: find the shards in which anything is due, and wake them."""
        pause = self._options.poll_min_seconds
        before: dict[int, int] = {}
        while not self._stopping.is_set():
            began = time.monotonic()
            lanes = self._leases.lanes
            due: dict[int, int] = {}
            try:
                if lanes:
                    async with self._database.begin_relay() as tx:
                        due = await delivery.due_shards(tx, lanes)
            except BackendError as error:
                log.warning(Event.POLL_FAILED, error=error.message)
            else:
                for shard in range(SHARDS):
                    OUTBOX_UNDELIVERED_ROWS.labels(str(shard)).set(due.get(shard, 0))
            for shard in due:
                lanes[shard].wake()
            # What does not move (a tenant set aside, SpiceDB away) is no reason to look more often.
            moves = bool(due) and due != before
            pause = self._options.poll_min_seconds if moves else min(pause * 2, self._options.poll_max_seconds)
            before = due
            await self._pause(max(pause, (time.monotonic() - began) / POLL_PART))

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._stopping.wait(), seconds)
        except TimeoutError:
            return


def _spawn(tasks: asyncio.TaskGroup, name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    return tasks.create_task(_named(name, work))


async def _named(name: str, work: Coroutine[Any, Any, None]) -> None:
    """A task that dies is named in the log and takes the relay down: half a relay is worse than none."""
    try:
        await work
    except Exception:
        log.exception(Event.TASK_DIED, task=name)
        raise
