"""What a server knows of positions and statuses without asking for each question.

::

    every 50 ms (5 while somebody waits)             asked about for the first time
      pulse: 16 counters, head of `~`                  load: its row, and the counters of the same moment
        a counter rose  -> positions stamped since        no counter below the pulse's -> remembered
        `~` grew        -> whose status, read again       else good for this question alone
        another life    -> everything forgotten

Of users it knows who are not active: all of them, as long as they are not too many, so that nobody else has to be
looked up.  What is remembered is never older than the last pulse: whatever moved since an earlier one is read with it,
and a load that a pulse has overtaken is not remembered.  While PostgreSQL is away, what is known stays good for a
bounded time, and what is not known cannot be answered.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import OrderedDict
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TypeVar

import structlog

from pemba.authorizer.ground import Position, Snapshot
from pemba.errors import PembaError, Reason, Unavailable
from pemba.model import GLOBAL_STREAM, ObjectRef, SystemScope, TenantId, TenantStatus, UserId
from pemba.storage import positions, statuses
from pemba.storage.database import Database, SystemTransaction
from pemba.storage.positions import Delivery, Loaded, Pulse
from pemba.telemetry import POSITIONS_AGE_SECONDS

IDLE_POLL_SECONDS = 0.05
WAITED_POLL_SECONDS = 0.005
POLL_TIMEOUT_SECONDS = 2.0
FRESH_SECONDS = 1.0
"""Longer without an answer from PostgreSQL is an outage."""
MAX_TENANTS = 10_000
MAX_INACTIVE = 100_000
"""Of more users who are not active, only those are known who were asked about."""
MAX_USERS = 100_000

_SCOPE = SystemScope("positions of delivery, and statuses")

K = TypeVar("K")
V = TypeVar("V")

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Tenant:
    delivery: Delivery
    position: Position


class Feed:
    """Follows PostgreSQL; `run` it beside what asks."""

    def __init__(self, database: Database, outage_seconds: float, max_inactive: int = MAX_INACTIVE) -> None:
        self._database = database
        self._max_inactive = max_inactive
        self._bound = max(outage_seconds, FRESH_SECONDS)
        self._pulse: Pulse | None = None
        self._pulse_at = 0.0
        self._tenants: OrderedDict[TenantId, _Tenant] = OrderedDict()
        self._inactive: set[UserId] | None = set()
        """All of them; None where they are too many: then by `_users`, whether active, as far as that is known."""
        self._users: OrderedDict[UserId, bool] = OrderedDict()
        self._serials = itertools.count(1)
        self._watchers: dict[TenantId, set[asyncio.Future[None]]] = {}
        self._watched = asyncio.Event()
        self._looking = asyncio.Lock()

    async def run(self) -> None:
        """Poll until cancelled; PostgreSQL away means trying again, for ever."""
        failing = False
        while True:
            try:
                async with asyncio.timeout(POLL_TIMEOUT_SECONDS):
                    await self.poll()
                failing = False
            except (PembaError, TimeoutError) as error:
                if not failing:
                    log.warning("positions.outage", error=str(error) or "PostgreSQL is silent")
                failing = True
                self._tell_all(_away())
            POSITIONS_AGE_SECONDS.set(_now() - self._pulse_at)
            await self._pause()

    async def look_again(self) -> None:
        """Look at once, where that is possible: what this server itself has just committed is known afterwards."""
        with suppress(PembaError, TimeoutError):
            async with asyncio.timeout(POLL_TIMEOUT_SECONDS):
                await self.poll()

    async def poll(self) -> None:
        """One look.  Raises Unavailable."""
        async with self._looking:  # one after the other, so that what is known never goes back
            await self._poll()

    async def _poll(self) -> None:
        asked_at = _now()
        async with self._database.single(_SCOPE) as tx:
            pulse = await positions.pulse(tx)
            seen = self._pulse
            followed = None if seen is None or seen.life != pulse.life else await _follow(tx, seen, pulse)
            # Read after the pulse: whatever else changes meanwhile, the next one tells.
            if followed is None:
                inactive = await statuses.inactive(tx, self._max_inactive)
            elif followed.users:
                now_inactive = await statuses.inactive_among(tx, followed.users)
        self._pulse, self._pulse_at = pulse, asked_at
        if followed is None:
            self._start_anew(inactive)
            return
        if seen is not None and pulse.schema_number != seen.schema_number:
            self._position_anew()
        for tenant_id, delivery in followed.moved.items():
            self._move(tenant_id, delivery)
        for tenant_id in followed.tenants:
            self._tenants.pop(tenant_id, None)
        if followed.users:
            self._note_users(followed.users, now_inactive)
        if followed.tenants or followed.users:
            self._tell(GLOBAL_STREAM)

    async def snapshot(self, tenants: Collection[TenantId], users: Collection[UserId]) -> Snapshot:
        """What is known of these, loaded where nothing is.  Raises Unavailable (POSTGRES_UNAVAILABLE)."""
        pulse = self._known_pulse()
        known = {t: self._tenants[t].position for t in tenants if t in self._tenants}
        missing = [t for t in tenants if t not in known and t != GLOBAL_STREAM]
        known_users = {u: active for u in users if (active := self._is_active(u)) is not None}
        missing_users = [u for u in users if u not in known_users]
        for tenant_id in known:
            self._tenants.move_to_end(tenant_id)
        if not missing and not missing_users:
            inactive = frozenset(u for u, active in known_users.items() if not active)
            return Snapshot(pulse.database_epoch, known, inactive, pulse.statuses_seq, True)
        async with self._database.single(_SCOPE) as tx:
            loaded = await positions.load(tx, missing, missing_users)
        return self._take_in(
            loaded, pulse, known, known_users | {u: u not in loaded.inactive_users for u in missing_users}
        )

    async def heads(self, streams: Collection[TenantId]) -> positions.Heads:
        """What is committed at this moment; always asked.  Raises Unavailable."""
        async with self._database.single(_SCOPE) as tx:
            return await positions.heads(tx, streams)

    async def moved(self, streams: Iterable[TenantId]) -> None:
        """Returns once any of these may have moved.  Raises Unavailable where PostgreSQL goes away meanwhile."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        watched = [self._watchers.setdefault(stream, set()) for stream in streams]
        for watchers in watched:
            watchers.add(future)
        self._watched.set()
        try:
            await future
        finally:
            for watchers in watched:
                watchers.discard(future)

    def _known_pulse(self) -> Pulse:
        if self._pulse is None or _now() - self._pulse_at > self._bound:
            raise _away()
        return self._pulse

    def _take_in(
        self, loaded: Loaded, asked: Pulse, known: dict[TenantId, Position], users: dict[UserId, bool]
    ) -> Snapshot:
        """A snapshot of what was known when it was asked and what was loaded; remembered unless a pulse overtook it."""
        if loaded.pulse.life != asked.life or self._pulse is None:
            raise _away()
        remembered = not _is_behind(loaded.pulse, self._pulse)
        for tenant_id, (status, delivery) in loaded.tenants.items():
            serial = next(self._serials) if remembered and status is not None else 0
            known[tenant_id] = _position(status, delivery, loaded.pulse, serial)
            if serial:
                _remember(self._tenants, tenant_id, _Tenant(delivery, known[tenant_id]), MAX_TENANTS)
        if remembered and self._inactive is None:
            for user_id, active in users.items():
                _remember(self._users, user_id, active, MAX_USERS)
        inactive = frozenset(user_id for user_id, active in users.items() if not active)
        return Snapshot(asked.database_epoch, known, inactive, asked.statuses_seq, remembered and self._pulse is asked)

    def _move(self, tenant_id: TenantId, delivery: Delivery) -> None:
        known = self._tenants.get(tenant_id)
        if known is not None and known.delivery.stamp < delivery.stamp:
            assert self._pulse is not None
            position = _position(known.position.status, delivery, self._pulse, next(self._serials))
            self._tenants[tenant_id] = _Tenant(delivery, position)
        self._tell(tenant_id)

    def _position_anew(self) -> None:
        """Another schema: what was answered under the last one counts no more."""
        for tenant_id, known in self._tenants.items():
            assert self._pulse is not None
            position = _position(known.position.status, known.delivery, self._pulse, next(self._serials))
            self._tenants[tenant_id] = replace(known, position=position)

    def _start_anew(self, inactive: set[UserId] | None) -> None:
        self._inactive = inactive
        self._tenants.clear()
        self._users.clear()
        self._tell_all()

    def _is_active(self, user_id: UserId) -> bool | None:
        """None where that is not known."""
        return self._users.get(user_id) if self._inactive is None else user_id not in self._inactive

    def _note_users(self, changed: set[UserId], inactive: set[UserId]) -> None:
        for user_id in changed:
            self._users.pop(user_id, None)
        if self._inactive is not None:
            self._inactive = (self._inactive - changed) | inactive
            if len(self._inactive) > self._max_inactive:
                self._inactive = None

    def _tell(self, stream: TenantId, error: PembaError | None = None) -> None:
        for future in self._watchers.pop(stream, ()):
            if not future.done() and error is not None:
                future.set_exception(error)
            elif not future.done():
                future.set_result(None)

    def _tell_all(self, error: PembaError | None = None) -> None:
        for stream in list(self._watchers):
            self._tell(stream, error)

    async def _pause(self) -> None:
        """Short while somebody waits, and cut short where somebody comes to wait."""
        for stream in [stream for stream, watchers in self._watchers.items() if not watchers]:
            del self._watchers[stream]
        if self._watchers:
            await asyncio.sleep(WAITED_POLL_SECONDS)
            return
        self._watched.clear()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._watched.wait(), IDLE_POLL_SECONDS)


@dataclass(frozen=True, slots=True)
class _Followed:
    """What changed between two pulses."""

    moved: dict[TenantId, Delivery]
    tenants: set[TenantId]
    users: set[UserId]


async def _follow(tx: SystemTransaction, seen: Pulse, pulse: Pulse) -> _Followed | None:
    """None where it is too much to follow."""
    risen = [shard for shard, counter in enumerate(pulse.deliveries) if counter != seen.deliveries[shard]]
    moved = await positions.moved(tx, risen, [seen.deliveries[shard] for shard in risen]) if risen else {}
    changed: set[ObjectRef] | None = set()
    if pulse.statuses_seq != seen.statuses_seq:
        changed = await statuses.changed(tx, seen.statuses_seq, pulse.statuses_seq)
    if moved is None or changed is None:
        return None
    tenants = {TenantId(about.id) for about in changed if about.type == "tenant"}
    users = {UserId(about.id) for about in changed if about.type == "user"}
    return _Followed(moved, tenants, users)


def _position(status: TenantStatus | None, delivery: Delivery, pulse: Pulse, serial: int) -> Position:
    """While a schema is being applied nobody can say which one answers: no revision is fresh, no answer lasts."""
    applying = pulse.schema_number % 2 == 1
    fresh = delivery.written_under == pulse.schema_number and not applying
    return Position(status, delivery.seq, delivery.zedtoken if fresh else None, 0 if applying else serial)


def _is_behind(loaded: Pulse, pulse: Pulse) -> bool:
    """Whether something that this pulse counts may be missing from what was loaded."""
    return (
        loaded.schema_number != pulse.schema_number
        or loaded.statuses_seq < pulse.statuses_seq
        or any(ours < theirs for ours, theirs in zip(loaded.deliveries, pulse.deliveries, strict=True))
    )


def _remember(known: OrderedDict[K, V], key: K, value: V, limit: int) -> None:
    known[key] = value
    known.move_to_end(key)
    if len(known) > limit:
        known.popitem(last=False)


def _away() -> Unavailable:
    return Unavailable(Reason.POSTGRES_UNAVAILABLE, "PostgreSQL cannot be reached, and what is known is too old")


def _now() -> float:
    """Seconds on a clock that runs on while the machine is suspended: what is known ages meanwhile."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
