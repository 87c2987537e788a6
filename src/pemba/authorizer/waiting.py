"""Positions as a question needs them, waited for where it names some: bounded in time, and in how many may wait."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from pemba.errors import PreconditionFailed, Reason, Unavailable
from pemba.model import Seq, SystemScope, TenantId, UserId
from pemba.storage import positions
from pemba.storage.database import Database
from pemba.storage.positions import Position, Snapshot
from pemba.tokens import ConsistencyToken

MAX_WAIT_SECONDS = 2.0
FIRST_POLL_SECONDS = 0.005
LAST_POLL_SECONDS = 0.05
RETRY_SECONDS = 0.2

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
        self._waiters = 0

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
        if self._waiters >= self._max_waiters:
            raise Unavailable(Reason.OVERLOADED, "too many checks are waiting for their tokens", retry_seconds=0.5)
        self._waiters += 1
        try:
            return await self._poll(wanted, goal)
        finally:
            self._waiters -= 1

    async def _poll(self, wanted: Wanted, goal: Mapping[TenantId, Seq]) -> Snapshot:
        loop = asyncio.get_running_loop()
        # A little before the caller's own deadline, so that the answer can say what is missing.
        until = min(wanted.deadline - 0.02, loop.time() + MAX_WAIT_SECONDS)
        interval = FIRST_POLL_SECONDS
        while True:
            await asyncio.sleep(interval)
            snapshot = await self.now(wanted)
            missing = _missing(snapshot, goal)
            if not missing:
                return snapshot
            interval = min(interval * 1.2, LAST_POLL_SECONDS)
            if loop.time() + interval > until:
                raise _not_yet_visible(snapshot, missing)


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
