"""The daemon: sixteen lanes, what wakes them, and the turn that lets one relay deliver."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass

import structlog

from pemba.errors import BackendError
from pemba.model import SHARDS, TenantId
from pemba.relay.backoff import Backoff
from pemba.relay.lane import Lane
from pemba.relay.retention import Retention
from pemba.spicedb.client import SpiceDB
from pemba.storage import delivery
from pemba.storage.database import Database
from pemba.storage.outbox import shard_of
from pemba.storage.wakeup import RelaySession
from pemba.telemetry import OUTBOX_UNDELIVERED_ROWS, Event

STAND_BY_SECONDS = 0.5
"""How often a relay that stands by asks for its turn."""

SESSION_CHECK_SECONDS = 2.0

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class RelayOptions:
    """`poll_min_seconds` while there is work, up to `poll_max_seconds` while there is none."""

    poll_min_seconds: float = 0.05
    poll_max_seconds: float = 1.0
    rpc_seconds: float = 10.0
    keep_seconds: float = 7 * 24 * 3600.0


class Relay:
    """Delivers every tenant's stream until it is stopped."""

    def __init__(self, url: str, database: Database, spicedb: SpiceDB, options: RelayOptions) -> None:
        self._url = url
        self._database = database
        self._options = options
        self._lanes = [Lane(shard, database, spicedb, options.rpc_seconds) for shard in range(SHARDS)]
        self._retention = Retention(database, options.keep_seconds)
        self._stopping = asyncio.Event()
        self._delivering = asyncio.Event()

    @property
    def is_delivering(self) -> bool:
        """Whether it is this relay's turn."""
        return self._delivering.is_set()

    def stop(self) -> None:
        """Finish the requests under way, record them, and end `run`."""
        self._stopping.set()

    async def run(self) -> None:
        """Take turns at delivering until `stop`; PostgreSQL away means trying again, for ever."""
        backoff = Backoff(max_seconds=2.0)
        while not self._stopping.is_set():
            try:
                async with RelaySession.connect(self._url) as session:
                    backoff.succeeded()
                    if await self._wait_for_turn(session):
                        await self._turn(session)
            except BackendError as error:
                pause = backoff.failed()
                log.warning("relay.session_failed", error=error.message, retry_in_seconds=round(pause, 2))
                await self._pause(pause)

    async def _wait_for_turn(self, session: RelaySession) -> bool:
        standing_by = False
        while not self._stopping.is_set():
            if await session.try_lock():
                return True
            if not standing_by:
                log.info("relay.standing_by", why="another relay delivers")
                standing_by = True
            await self._pause(STAND_BY_SECONDS)
        return False

    async def _turn(self, session: RelaySession) -> None:
        """Deliver until the session ends or the relay is stopped; then every lane has come to rest."""
        await session.listen(self._heard)
        turn_over = asyncio.Event()

        def may_write() -> bool:
            return not turn_over.is_set() and session.is_certain()

        log.info(Event.STARTED, shards=SHARDS)
        self._delivering.set()
        try:
            async with asyncio.TaskGroup() as tasks:
                for lane in self._lanes:
                    tasks.create_task(_named(f"lane {lane.shard}", lane.run(turn_over, may_write)))
                side_tasks = (
                    tasks.create_task(_named("poll", self._poll(turn_over))),
                    tasks.create_task(_named("retention", self._retention.run(turn_over))),
                )
                await self._session_or_stop(session)
                self._delivering.clear()
                turn_over.set()
                for task in side_tasks:  # a lane has something to finish, these have not
                    task.cancel()
        finally:
            self._delivering.clear()
        log.info(Event.STOPPED)

    async def _session_or_stop(self, session: RelaySession) -> None:
        ended = asyncio.create_task(session.ended(SESSION_CHECK_SECONDS))
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({ended, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended.cancel()
            stopping.cancel()
            await asyncio.gather(ended, stopping, return_exceptions=True)

    def _heard(self, payload: str) -> None:
        self._lanes[shard_of(TenantId(payload))].wake()

    async def _poll(self, turn_over: asyncio.Event) -> None:
        """The guarantee behind NOTIFY: find the shards in which anything is due, and wake them."""
        pause = self._options.poll_min_seconds
        before: dict[int, int] = {}
        while not turn_over.is_set():
            try:
                async with self._database.begin_relay() as tx:
                    due = await delivery.due_shards(tx)
            except BackendError as error:
                log.warning("relay.poll_failed", error=error.message)
                due = {}
            else:
                for lane in self._lanes:
                    OUTBOX_UNDELIVERED_ROWS.labels(str(lane.shard)).set(due.get(lane.shard, 0))
            for shard in due:
                self._lanes[shard].wake()
            # What does not move (a tenant set aside, SpiceDB away) is no reason to look more often.
            moves = bool(due) and due != before
            pause = self._options.poll_min_seconds if moves else min(pause * 2, self._options.poll_max_seconds)
            before = due
            try:
                await asyncio.wait_for(turn_over.wait(), pause)
            except TimeoutError:
                continue

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._stopping.wait(), seconds)
        except TimeoutError:
            return


async def _named(name: str, task: Awaitable[None]) -> None:
    """A task that dies is named in the log and takes the relay down: half a relay is worse than none."""
    try:
        await task
    except Exception:
        log.exception(Event.TASK_DIED, task=name)
        raise
