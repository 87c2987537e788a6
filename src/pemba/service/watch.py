"""Watching: a tenant's changes as they come into force, and how far they are.

::

    the feed: a position moved, or a status     every half second, for all who watch: heads
                    |                                   |
                    v                                   v
             may the caller still see it?  no: the watch ends
                    |
                    v
             rows of the audit after the last one told, up to the position that the feed knows
                    |
                    v
             told one by one, as fast as they are taken; whoever takes long is asked again in between

A change is told once this server's own checks have it in force.  Rights are those of the moment, by PostgreSQL,
whatever is delivered: who lost them is told nothing more.  Nothing is kept for a watch but a stretch of MAX_FOUND rows.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass

from pemba.authorizer.feed import FRESH_SECONDS, Feed
from pemba.authorizer.ground import Position, Snapshot, unknown
from pemba.errors import NotFound, PembaError, PreconditionFailed, Reason, Unavailable
from pemba.model import GLOBAL_STREAM, Caller, Permission, Seq, SystemScope, TenantId, TenantScope
from pemba.service import rights
from pemba.service.rights import Action
from pemba.service.watch_places import WatchPlaces
from pemba.service.watched import About
from pemba.storage import changes, outbox
from pemba.storage.changes import ChangeRow, Stretch
from pemba.storage.database import Database, TenantTransaction
from pemba.tokens import Signer

HEARTBEAT_SECONDS = 10.0
POSITIONS_SECONDS = 0.5
LOOK_SECONDS = 0.5
"""How often heads are looked at, and how old an answer about a right may be."""
PACE_SECONDS = 0.05
"""Between two reads of one watch: on a busy tenant it takes more at a time instead."""
MAX_READS = 4
"""Of all watches at one time."""


@dataclass(frozen=True, slots=True)
class Watched:
    """A row of a change, or None where only `cursor` is new; a watch goes on after it."""

    row: ChangeRow | None
    cursor: str
    token: str = ""
    held_back: Reason | None = None


@dataclass(frozen=True, slots=True)
class Positions:
    """Those that moved."""

    snapshot: Snapshot
    moved: dict[TenantId, Position]


class WatchService:
    """`run` it beside what watches."""

    def __init__(
        self,
        database: Database,
        signer: Signer,
        feed: Feed,
        max_watches: int,
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
    ) -> None:
        self._database = database
        self.signer = signer
        self._feed = feed
        self.heartbeat_seconds = heartbeat_seconds
        self._places = WatchPlaces(max_watches)
        self._reads = asyncio.Semaphore(MAX_READS)
        self._stopping = False

    def stop(self) -> None:
        """End every watch: each goes on from its cursor at another server."""
        self._stopping = True
        self._feed.followers.tell_all()

    async def run(self) -> None:
        """Look for what is committed, delivered or not: it may have taken rights away.  Until cancelled."""
        seen: dict[TenantId, Seq] = {}
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            followed = self._feed.followers.streams() - {GLOBAL_STREAM}
            if not followed:
                continue
            with suppress(PembaError):  # each watch finds out by itself that PostgreSQL is away
                heads = (await self._feed.heads(followed)).seqs
                for stream in followed:
                    if heads[stream] != seen.get(stream):
                        self._feed.followers.tell(stream)
                seen = heads

    async def changes(self, caller: Caller, about: About, cursor: str) -> AsyncGenerator[Watched]:
        """Without an end: close it.  The first has no row.

        Raises NotFound, Forbidden, RateLimited, PreconditionFailed (CURSOR_EXPIRED), Unavailable.
        """
        with self._watching(caller, [about.tenant_id]) as news:
            watch = _ChangesWatch(self, caller, about, news)
            async with aclosing(watch.follow(cursor)) as told:
                async for watched in told:
                    yield watched

    async def positions(self, caller: Caller, tenant_ids: Sequence[TenantId]) -> AsyncGenerator[Positions]:
        """Without an end: close it.  Raises NotFound, RateLimited, Unavailable."""
        with self._watching(caller, tenant_ids) as news:
            told: Snapshot | None = None
            news.set()
            while True:
                if news.is_set():
                    news.clear()
                    self.require_running()
                    await self._require_belongs(caller, tenant_ids)
                snapshot = await self.fresh_snapshot(tenant_ids)
                for tenant_id in tenant_ids:
                    if refused := unknown(caller, snapshot, tenant_id):
                        raise refused
                yield Positions(snapshot, _moved(told, snapshot))
                told = snapshot
                await asyncio.sleep(PACE_SECONDS)
                await until(news, POSITIONS_SECONDS - PACE_SECONDS)

    def token(self, snapshot: Snapshot, tenant_id: TenantId) -> str:
        """Of a tenant's position."""
        return self.signer.token({tenant_id: snapshot.positions[tenant_id].delivered_seq}, snapshot.database_epoch)

    async def fresh_snapshot(self, tenant_ids: Sequence[TenantId]) -> Snapshot:
        """As the feed knows it now.  Raises Unavailable where it has not heard of PostgreSQL for a second."""
        snapshot = await self._feed.snapshot(tenant_ids, [])
        if self._feed.age_seconds > FRESH_SECONDS:
            raise Unavailable(Reason.POSTGRES_UNAVAILABLE, "PostgreSQL does not answer")
        return snapshot

    @asynccontextmanager
    async def reading(self, tenant_id: TenantId) -> AsyncIterator[TenantTransaction]:
        """A transaction of one of the reads that there may be at one time."""
        async with self._reads, self._database.begin(TenantScope(tenant_id)) as tx:
            yield tx

    def require_running(self) -> None:
        """Raises Unavailable once `stop` was called."""
        if self._stopping:
            raise Unavailable(Reason.OVERLOADED, "this server stops; go on from the cursor", retry_seconds=0.5)

    @contextmanager
    def _watching(self, caller: Caller, tenant_ids: Sequence[TenantId]) -> Iterator[asyncio.Event]:
        for tenant_id in tenant_ids:
            if caller.tenant_id not in (None, tenant_id):
                raise NotFound(f"tenant {tenant_id}")
        with self._places.taken(caller), self._feed.followers.following([*tenant_ids, GLOBAL_STREAM]) as news:
            yield news

    async def _require_belongs(self, caller: Caller, tenant_ids: Sequence[TenantId]) -> None:
        if caller.is_system:
            return
        async with self._reads, self._database.begin(SystemScope("whose positions a caller may know")) as tx:
            for tenant_id in tenant_ids:
                await rights.require_belongs(tx.of(tenant_id), caller)


class _ChangesWatch:
    """One caller's watch: where it stands, in which life of the database, and when it told something last."""

    def __init__(self, service: WatchService, caller: Caller, about: About, news: asyncio.Event) -> None:
        self._service = service
        self._caller = caller
        self._about = about
        self._news = news
        self._clock = asyncio.get_running_loop().time
        self._arguments = ["WatchChanges", about.tenant_id, about.text, caller.acting_user]
        self._epoch = uuid.UUID(int=0)
        self._at = Seq(0)
        self._told_at = 0.0
        self._asked_at = 0.0
        self._held_back: Reason | None = None

    async def follow(self, cursor: str) -> AsyncGenerator[Watched]:
        await self._require_may_see()
        await self._begin(cursor)
        yield self._tell(None)
        while True:
            self._news.clear()
            self._service.require_running()
            up_to = await self._in_force()
            stretch = await self._read(up_to)
            for row in stretch.rows:
                await self._require_may_see_still()
                self._at = row.seq
                if self._about.records(row) or self._about.operations(row):
                    yield self._tell(row)
            got_on, self._at = stretch.up_to > stretch.after, stretch.up_to
            if got_on and self._at < up_to:
                continue
            if self._clock() - self._told_at >= self._service.heartbeat_seconds:
                yield self._tell(None)
            await asyncio.sleep(PACE_SECONDS)
            await until(self._news, self._told_at + self._service.heartbeat_seconds - self._clock())

    async def _begin(self, cursor: str) -> None:
        position = self._service.signer.page_position(self._arguments, cursor, "cursor")
        snapshot = await self._service.fresh_snapshot([self._about.tenant_id])
        self._epoch = snapshot.database_epoch
        if position is None:
            its = snapshot.positions[self._about.tenant_id]
            self._at = its.delivered_seq if its.parked_from is None else Seq(its.parked_from - 1)
            return
        epoch, seq = position
        if epoch != str(self._epoch):
            raise _expired()
        self._at = Seq(int(seq))

    async def _in_force(self) -> Seq:
        """How far a check sees the tenant's changes.  Raises PreconditionFailed (CURSOR_EXPIRED) in another life."""
        snapshot = await self._service.fresh_snapshot([self._about.tenant_id])
        if snapshot.database_epoch != self._epoch:
            raise _expired()
        position = snapshot.positions[self._about.tenant_id]
        self._held_back = None
        if not position.in_store:
            self._held_back = Reason.SPICEDB_UNAVAILABLE
            return self._at
        if position.parked_from is not None:
            self._held_back = Reason.TENANT_PARKED
            return Seq(position.parked_from - 1)
        return position.delivered_seq

    async def _read(self, up_to: Seq) -> Stretch:
        async with self._service.reading(self._about.tenant_id) as tx:
            await _require_may_see(tx, self._caller, self._about)
            if up_to <= self._at:
                return Stretch((), self._at, self._at)
            found = await changes.stretch(tx, self._at, up_to, self._about.text)
        if found is None:
            raise _expired()
        self._asked_at = self._clock()
        return found

    async def _require_may_see_still(self) -> None:
        """Whoever takes long is asked again before the next is told."""
        if self._clock() - self._asked_at > LOOK_SECONDS:
            self._service.require_running()
            await self._require_may_see()

    async def _require_may_see(self) -> None:
        async with self._service.reading(self._about.tenant_id) as tx:
            await _require_may_see(tx, self._caller, self._about)
        self._asked_at = self._clock()

    def _tell(self, row: ChangeRow | None) -> Watched:
        self._told_at = self._clock()
        signer = self._service.signer
        token = signer.token({self._about.tenant_id: row.last_seq}, self._epoch) if row else ""
        cursor = signer.page_token(self._arguments, [str(self._epoch), str(self._at)])
        return Watched(row, cursor, token, self._held_back)


async def _require_may_see(tx: TenantTransaction, caller: Caller, about: About) -> None:
    """Raises NotFound, Forbidden."""
    if not await outbox.head(tx, about.tenant_id):
        raise NotFound(f"tenant {about.tenant_id}")
    if about.workspace_id is not None:
        await rights.visible(tx, caller, about.workspace_id, Action.SEE)
    elif about.user_id is None:
        await rights.require_tenant_admin(tx, caller, "watch all of the tenant")
    elif caller.acting_user == about.user_id and caller.workspace_id is None:
        await rights.require_belongs(tx, caller)
    elif await rights.on_tenant(tx, caller) is not Permission.ADMINISTER:
        raise NotFound(f"user {about.user_id}")


def _moved(told: Snapshot | None, now: Snapshot) -> dict[TenantId, Position]:
    """Those that are another than was told; all of them in another life of PostgreSQL's data or SpiceDB's."""
    if told is None or (told.database_epoch, told.store_epoch) != (now.database_epoch, now.store_epoch):
        return dict(now.positions)
    return {id_: position for id_, position in now.positions.items() if told.positions[id_] != position}


def _expired() -> PreconditionFailed:
    return PreconditionFailed(
        Reason.CURSOR_EXPIRED,
        "changes after the cursor are not kept any more, or were lost; read what is there and watch without a cursor",
    )


async def until(news: asyncio.Event, seconds: float) -> None:
    """Until there are any, or it took so long."""
    with suppress(TimeoutError):
        async with asyncio.timeout(max(seconds, 0)):
            await news.wait()
