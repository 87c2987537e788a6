"""Positions as a question needs them, waited for where it names some: bounded in time, and in how many may wait."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pemba.authorizer.questions import Consistency
from pemba.errors import PembaError, PreconditionFailed, Reason, Unavailable
from pemba.model import Seq, SystemScope, TenantId, UserId
from pemba.storage import positions
from pemba.storage.database import Database
from pemba.storage.positions import Position, Snapshot
from pemba.tokens import ConsistencyToken

MAX_WAIT_SECONDS = 2.0
POLL_SECONDS = 0.005
RETRY_SECONDS = 0.2
_MARGIN_SECONDS = 0.05

_SCOPE = SystemScope("positions of delivery")


@dataclass(frozen=True, slots=True)
class Wanted:
    """Whose positions, which users' statuses, and until when to wait (loop time, seconds)."""

    tenants: frozenset[TenantId]
    users: frozenset[UserId]
    deadline: float


class Positions:
    """Reads positions, and waits for them."""

    def __init__(self, database: Database, max_waiters: int) -> None:
        self._database = database
        self._max_waiters = max_waiters
        self._waiting: set[_Waiter] = set()
        self._polling: asyncio.Task[None] | None = None

    async def meeting(self, wanted: Wanted, consistency: Consistency, token: ConsistencyToken | None) -> Snapshot:
        """The positions once they are what `consistency` (of which `token` is a part) asks for."""
        if token is not None:
            return await self.at_token(wanted, token)
        return await (self.at_head(wanted) if consistency.fully_consistent else self.now(wanted))

    async def now(self, wanted: Wanted) -> Snapshot:
        """The positions at this moment."""
        async with self._database.single(_SCOPE) as tx:
            return await positions.read(tx, wanted.tenants, wanted.users)

    async def at_token(self, wanted: Wanted, token: ConsistencyToken) -> Snapshot:
        """The positions once every pair of the token is delivered.

        Raises PreconditionFailed (TOKEN_LOST) at once for what this database never committed, and as `_reach`.
        """
        everything = Wanted(wanted.tenants | token.positions.keys(), wanted.users, wanted.deadline)
        first = await self.now(everything)
        _require_known(token, first.positions)
        return await self._reach(everything, token.positions, first)

    async def at_head(self, wanted: Wanted) -> Snapshot:
        """The positions once everything is delivered that is committed now."""
        first = await self.now(wanted)
        heads = {tenant: position.head_seq for tenant, position in first.positions.items()}
        return await self._reach(wanted, heads, first)

    async def _reach(self, wanted: Wanted, goal: Mapping[TenantId, Seq], first: Snapshot) -> Snapshot:
        """Raises Unavailable: TOKEN_NOT_YET_VISIBLE after the deadline or two seconds, OVERLOADED at once where too
        many wait already."""
        if not _missing(first, goal):
            return first
        if len(self._waiting) >= self._max_waiters:
            raise Unavailable(Reason.OVERLOADED, "too many checks are waiting for their tokens", retry_seconds=0.5)
        loop = asyncio.get_running_loop()
        waiter = _Waiter(wanted, goal, loop.create_future(), first)
        self._waiting.add(waiter)
        if self._polling is None or self._polling.done():
            self._polling = loop.create_task(self._poll())
        # A little before the caller's own deadline, so that the answer can say what is missing.
        seconds = min(wanted.deadline - _MARGIN_SECONDS - loop.time(), MAX_WAIT_SECONDS)
        try:
            async with asyncio.timeout(seconds):
                return await waiter.reached
        except TimeoutError:
            raise _not_yet_visible(waiter.last, _missing(waiter.last, goal) or dict(goal)) from None
        finally:
            self._waiting.discard(waiter)

    async def _poll(self) -> None:
        """One statement at a time for all who wait, however many they are."""
        while waiting := list(self._waiting):
            try:
                snapshot = await self._read_for(waiting)
            except PembaError as error:
                for waiter in waiting:
                    waiter.fail(error)
            else:
                for waiter in waiting:
                    waiter.look(snapshot)
            await asyncio.sleep(POLL_SECONDS)

    async def _read_for(self, waiting: Sequence[_Waiter]) -> Snapshot:
        tenants = frozenset().union(*(waiter.wanted.tenants for waiter in waiting))
        users = frozenset().union(*(waiter.wanted.users for waiter in waiting))
        return await self.now(Wanted(tenants, users, 0.0))


@dataclass(eq=False, slots=True)
class _Waiter:
    """One who waits; `last` is what the newest look saw."""

    wanted: Wanted
    goal: Mapping[TenantId, Seq]
    reached: asyncio.Future[Snapshot]
    last: Snapshot

    def look(self, snapshot: Snapshot) -> None:
        self.last = snapshot
        if not self.reached.done() and not _missing(snapshot, self.goal):
            self.reached.set_result(snapshot)

    def fail(self, error: PembaError) -> None:
        if not self.reached.done():
            self.reached.set_exception(error)


def _require_known(token: ConsistencyToken, found: Mapping[TenantId, Position]) -> None:
    """Another life of the database, or a commit that was lost with a restore."""
    for stream, seq in token.positions.items():
        position = found[stream]
        if token.database_epoch != position.database_epoch or seq > position.head_seq:
            raise PreconditionFailed(
                Reason.TOKEN_LOST,
                "the token names a commit that this database does not have (was it restored from a backup?); "
                "drop the token and ask anew",
            )


def _missing(snapshot: Snapshot, goal: Mapping[TenantId, Seq]) -> dict[TenantId, Seq]:
    return {stream: seq for stream, seq in goal.items() if snapshot.positions[stream].delivered_seq < seq}


def _not_yet_visible(snapshot: Snapshot, missing: Mapping[TenantId, Seq]) -> Unavailable:
    stream, want = next(iter(missing.items()))
    have = snapshot.positions[stream].delivered_seq
    return Unavailable(
        Reason.TOKEN_NOT_YET_VISIBLE,
        f"the change is not in force yet: {stream} is delivered to {have}, the token is of {want}",
        {"stream": stream, "want": str(want), "have": str(have)},
        retry_seconds=RETRY_SECONDS,
    )
