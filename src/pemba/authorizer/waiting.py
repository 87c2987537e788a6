"""Positions as a question needs them, waited for where it names some: bounded in time, and in how many may wait."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from pemba.authorizer.feed import Feed
from pemba.authorizer.ground import Snapshot, is_nobodys
from pemba.authorizer.questions import Consistency
from pemba.errors import PreconditionFailed, Reason, Unavailable
from pemba.model import GLOBAL_STREAM, Seq, TenantId, UserId
from pemba.storage.positions import Heads
from pemba.tokens import ConsistencyToken

MAX_WAIT_SECONDS = 2.0
RETRY_SECONDS = 0.2
_MARGIN_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Wanted:
    """Whose positions, which users' statuses, and until when to wait (loop time, seconds)."""

    tenants: frozenset[TenantId]
    users: frozenset[UserId]
    deadline: float


class Positions:
    """What the feed knows, and waiting for what it does not know yet."""

    def __init__(self, feed: Feed, max_waiters: int) -> None:
        self._feed = feed
        self._max_waiters = max_waiters
        self._waiting = 0

    async def meeting(self, wanted: Wanted, consistency: Consistency, token: ConsistencyToken | None) -> Snapshot:
        """The positions once they are what `consistency` (of which `token` is a part) asks for."""
        if token is not None:
            return await self.at_token(wanted, token)
        return await (self.at_head(wanted) if consistency.fully_consistent else self.now(wanted))

    async def now(self, wanted: Wanted) -> Snapshot:
        """The positions as they are known."""
        return await self._feed.snapshot(wanted.tenants, wanted.users)

    async def at_token(self, wanted: Wanted, token: ConsistencyToken) -> Snapshot:
        """The positions once every pair of the token is in force.

        Raises PreconditionFailed (TOKEN_LOST) at once for what this database never committed, and as `_reach`.
        """
        everything = Wanted(wanted.tenants | token.positions.keys(), wanted.users, wanted.deadline)
        snapshot = await self.now(everything)
        if token.database_epoch == snapshot.database_epoch and not _missing(snapshot, token.positions):
            return snapshot
        # What is delivered is committed.  Of anything else only PostgreSQL itself can say whether it ever was.
        heads = await self._feed.heads(token.positions)
        if not _are_known(token, heads):
            if token.database_epoch == heads.database_epoch:
                await self._feed.declare_lost(token.database_epoch)
            raise _lost()
        gone = _nobodys(snapshot, wanted)
        goal = {stream: seq for stream, seq in token.positions.items() if stream not in gone}
        snapshot = await self._reach(everything, goal)
        if token.database_epoch != snapshot.database_epoch:  # restored meanwhile: these numbers are other changes'
            raise _lost()
        return snapshot

    async def at_head(self, wanted: Wanted) -> Snapshot:
        """The positions once everything is delivered that is committed now."""
        heads = await self._feed.heads(wanted.tenants - _nobodys(await self.now(wanted), wanted) | {GLOBAL_STREAM})
        return await self._reach(wanted, heads.seqs)

    async def _reach(self, wanted: Wanted, goal: Mapping[TenantId, Seq]) -> Snapshot:
        """Raises Unavailable: TOKEN_NOT_YET_VISIBLE after the deadline or two seconds, OVERLOADED at once where too
        many wait already, POSTGRES_UNAVAILABLE where it goes away meanwhile."""
        snapshot = await self.now(wanted)
        if not _missing(snapshot, goal):
            return snapshot
        if self._waiting >= self._max_waiters:
            raise Unavailable(Reason.OVERLOADED, "too many checks are waiting for their tokens", retry_seconds=0.5)
        # A little before the caller's own deadline, so that the answer can say what is missing.
        seconds = min(wanted.deadline - _MARGIN_SECONDS - asyncio.get_running_loop().time(), MAX_WAIT_SECONDS)
        self._waiting += 1
        try:
            async with asyncio.timeout(seconds):
                while missing := _missing(snapshot, goal):
                    if snapshot.current:  # else what it lacks may have been told already
                        await self._feed.moved(missing)
                    snapshot = await self.now(wanted)
        except TimeoutError:
            raise _not_yet_visible(snapshot, goal) from None
        finally:
            self._waiting -= 1
        return snapshot


def _nobodys(snapshot: Snapshot, wanted: Wanted) -> set[TenantId]:
    """Nothing is asked about these that delivery could still change."""
    return {tenant_id for tenant_id in wanted.tenants if is_nobodys(snapshot.positions[tenant_id])}


def _are_known(token: ConsistencyToken, heads: Heads) -> bool:
    """False: another life of the database, or a commit of this one that was lost with a restore."""
    lost = any(seq > heads.seqs[stream] for stream, seq in token.positions.items())
    return token.database_epoch == heads.database_epoch and not lost


def _lost() -> PreconditionFailed:
    return PreconditionFailed(
        Reason.TOKEN_LOST,
        "the token names a commit that this database does not have (was it restored from a backup?); "
        "drop the token and ask anew",
    )


def _missing(snapshot: Snapshot, goal: Mapping[TenantId, Seq]) -> dict[TenantId, Seq]:
    return {stream: seq for stream, seq in goal.items() if snapshot.reached(stream) < seq}


def _not_yet_visible(snapshot: Snapshot, goal: Mapping[TenantId, Seq]) -> Unavailable:
    stream, want = next(iter((_missing(snapshot, goal) or goal).items()))
    have = snapshot.reached(stream)
    return Unavailable(
        Reason.TOKEN_NOT_YET_VISIBLE,
        f"the change is not in force yet: {stream} is delivered to {have}, the token is of {want}",
        {"stream": stream, "want": str(want), "have": str(have)},
        retry_seconds=RETRY_SECONDS,
    )
