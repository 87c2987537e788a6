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
bounded time, and what is not known cannot be answered.  Where it is not away but nobody has looked for long (this
process or its machine stood still), the next question looks first.

Past the moment at which a tenant's next tuple expires, and until the row that says so is delivered, no answer of it
lasts and no revision of it is fresh: SpiceDB keeps answers for a revision as well, and an expiry makes none.  That
moment is by the database's clock, as the last pulse had it and this host's seconds since then: what the host believes
the time to be does not matter.
"""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TypeVar

import structlog

from pemba.authorizer.ground import Position, Snapshot, boot_seconds
from pemba.authorizer.watchers import Followers, Watchers
from pemba.errors import PembaError, Reason, Unavailable
from pemba.model import GLOBAL_STREAM, ObjectRef, Seq, SystemScope, TenantId, TenantStatus, UserId
from pemba.storage import positions, statuses
from pemba.storage.database import Database, SystemTransaction
from pemba.storage.positions import Delivery, Loaded, Pulse
from pemba.telemetry import POSITIONS_AGE_SECONDS, Event

IDLE_POLL_SECONDS = 0.05
WAITED_POLL_SECONDS = 0.005
POLL_TIMEOUT_SECONDS = 2.0
LATE_SECONDS = 0.2
"""After so long without a look a question waits for one, for at most CATCH_UP_SECONDS."""
CATCH_UP_SECONDS = 0.25
FRESH_SECONDS = 1.0
"""Longer without an answer from PostgreSQL is an outage."""
MAX_TENANTS = 10_000
MAX_INACTIVE = 100_000
"""Of more users who are not active, only those are known who were asked about."""
MAX_USERS = 100_000
MAX_LOADS = 3
"""At one time: a connection more, and no load ever holds up a poll."""

_SCOPE = SystemScope("positions of delivery, and statuses")

K = TypeVar("K")
V = TypeVar("V")
Told = Callable[[Collection[ObjectRef] | None, Seq], None]
"""Is told whom the rows of the stream `~`, up to that number, are about; None: whatever is known counts no more."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Tenant:
    delivery: Delivery
    position: Position


class Feed:
    """Follows PostgreSQL; `run` it beside what asks."""

    def __init__(
        self,
        database: Database,
        outage_seconds: float,
        max_inactive: int = MAX_INACTIVE,
        begin_life: Callable[[uuid.UUID], None] = lambda _: None,
    ) -> None:
        """`begin_life` is told the database's epoch, at first and whenever that is another one."""
        self._database = database
        self._begin_life = begin_life
        self._max_inactive = max_inactive
        self._bound = max(outage_seconds, FRESH_SECONDS)
        self._pulse: Pulse | None = None
        self._pulse_at = 0.0
        self._tenants: OrderedDict[TenantId, _Tenant] = OrderedDict()
        self._inactive: set[UserId] | None = set()
        """All of them; None where they are too many: then by `_users`, whether active, as far as that is known."""
        self._users: OrderedDict[UserId, bool] = OrderedDict()
        self._serials = itertools.count(1)
        self._watchers = Watchers()
        self.followers = Followers()
        """Told whenever a stream may have moved; of `~` by its commits, of others as they are delivered."""
        self._looking = asyncio.Lock()
        self._loading = asyncio.Semaphore(MAX_LOADS)
        self._catching_up: asyncio.Task[None] | None = None
        self._is_away = False
        """A question has looked in vain, and nothing has been seen of PostgreSQL since."""
        self._told: list[Told] = []

    def tell(self, told: Told) -> None:
        """From the next look on, `told` hears of every row of `~` before this server knows of any later one."""
        self._told.append(told)

    async def now(self) -> datetime:
        """The database's clock is no further.  Raises Unavailable where PostgreSQL is away for too long."""
        await self._known_pulse()
        return self._latest_now()

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
                    log.warning(Event.POSITIONS_OUTAGE, error=str(error) or "PostgreSQL is silent")
                failing = True
                self._watchers.tell_all(_away())
            POSITIONS_AGE_SECONDS.set(self.age_seconds)
            await self._watchers.pause(IDLE_POLL_SECONDS, WAITED_POLL_SECONDS)

    @property
    def age_seconds(self) -> float:
        """Since when, by PostgreSQL's last answer, anything is known."""
        return boot_seconds() - self._pulse_at

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
        asked_at = boot_seconds()
        async with self._database.single(_SCOPE) as tx:
            pulse = await positions.pulse(tx)
            seen = self._pulse
            followed = None if seen is None or seen.life != pulse.life else await _follow(tx, seen, pulse)
            # Read after the pulse: whatever else changes meanwhile, the next one tells.
            if followed is None:
                inactive = await statuses.inactive(tx, self._max_inactive)
            elif followed.users:
                now_inactive = await statuses.inactive_among(tx, followed.users)
        self._pulse, self._pulse_at, self._is_away = pulse, asked_at, False
        if followed is None:
            self._begin_life(pulse.database_epoch)
            self._start_anew(inactive)
            self._tell_about(None, pulse)
            return
        if seen is not None and pulse.schema_number != seen.schema_number:
            self._position_anew()
        for tenant_id, delivery in followed.moved.items():
            self._move(tenant_id, delivery)
        for tenant_id in followed.tenants:
            self._tenants.pop(tenant_id, None)
        if followed.users:
            self._note_users(followed.users, now_inactive)
        if seen is not None and pulse.statuses_seq != seen.statuses_seq:
            self._tell_about(followed.about, pulse)
            self._watchers.tell(GLOBAL_STREAM)
            self.followers.tell(GLOBAL_STREAM)

    async def snapshot(self, tenants: Collection[TenantId], users: Collection[UserId]) -> Snapshot:
        """What is known of these, loaded where nothing is.  Raises Unavailable (POSTGRES_UNAVAILABLE)."""
        pulse = await self._known_pulse()
        known = {t: self._standing(self._tenants[t]) for t in tenants if t in self._tenants}
        missing = [t for t in tenants if t not in known and t != GLOBAL_STREAM]
        known_users = {u: active for u in users if (active := self._is_active(u)) is not None}
        missing_users = [u for u in users if u not in known_users]
        for tenant_id in known:
            self._tenants.move_to_end(tenant_id)
        if not missing and not missing_users:
            inactive = frozenset(u for u, active in known_users.items() if not active)
            return Snapshot(*pulse.epochs, known, inactive, pulse.statuses_seq, True)
        async with self._loading, self._database.single(_SCOPE) as tx:
            loaded = await positions.load(tx, missing, missing_users)
        loaded_users = {u: u not in loaded.inactive_users for u in missing_users}
        return self._take_in(loaded, pulse, known, known_users, loaded_users)

    async def heads(self, streams: Collection[TenantId]) -> positions.Heads:
        """What is committed at this moment; always asked.  Raises Unavailable."""
        async with self._loading, self._database.single(_SCOPE) as tx:
            return await positions.heads(tx, streams)

    async def declare_lost(self, database_epoch: uuid.UUID) -> None:
        """Somebody holds a token of a commit that is not there: no token of this life counts from now on.

        Raises Unavailable.
        """
        async with self._loading, self._database.single(_SCOPE) as tx:
            declared = await positions.declare_lost(tx, database_epoch)
        if declared:
            log.error(
                Event.DATABASE_LOST,
                found="a caller's token names a commit that PostgreSQL does not have",
                help="was it restored to an earlier state? Every token of before is refused from now on (TOKEN_LOST)",
            )

    async def moved(self, streams: Iterable[TenantId]) -> None:
        """Returns once any of these may have moved.  Raises Unavailable where PostgreSQL goes away meanwhile."""
        await self._watchers.watch(streams)

    async def _known_pulse(self) -> Pulse:
        if self.age_seconds > LATE_SECONDS and not self._is_away:
            await self._catch_up()
        if self._pulse is None or self.age_seconds > self._bound:
            raise _away()
        return self._pulse

    async def _catch_up(self) -> None:
        """One look for all who ask meanwhile; where it gives nothing, what is known stays good for its time."""
        late = self._pulse_at
        if self._catching_up is None or self._catching_up.done():
            self._catching_up = asyncio.create_task(self.look_again())
        await asyncio.wait({self._catching_up}, timeout=CATCH_UP_SECONDS)
        self._is_away = self._pulse_at == late

    def _take_in(
        self,
        loaded: Loaded,
        asked: Pulse,
        known: dict[TenantId, Position],
        known_users: dict[UserId, bool],
        loaded_users: dict[UserId, bool],
    ) -> Snapshot:
        """A snapshot of what was known when it was asked and what was loaded; remembered unless a pulse overtook it."""
        if loaded.pulse.life != asked.life or self._pulse is None:
            raise _away()
        remembered = not _is_behind(loaded.pulse, self._pulse)
        for tenant_id, (status, delivery) in loaded.tenants.items():
            if remembered and status is not None:
                tenant = self._note_tenant(tenant_id, status, delivery, loaded.pulse)
            else:
                tenant = _Tenant(delivery, _position(status, delivery, loaded.pulse, 0))
            known[tenant_id] = self._standing(tenant)
        if remembered and self._inactive is None:
            for user_id, active in loaded_users.items():
                _remember(self._users, user_id, active, MAX_USERS)
        users = known_users | loaded_users
        inactive = frozenset(user_id for user_id, active in users.items() if not active)
        return Snapshot(*asked.epochs, known, inactive, asked.statuses_seq, remembered and self._pulse is asked)

    def _standing(self, tenant: _Tenant) -> Position:
        """Its position; where something of it may have expired since, one that does not last."""
        expiry = tenant.delivery.next_expiry
        if expiry is None or self._latest_now() < expiry:
            return tenant.position
        return replace(tenant.position, zedtoken=None, serial=0)

    def _latest_now(self) -> datetime:
        """The database's clock is no further: it was read after the last pulse was asked for."""
        assert self._pulse is not None
        return self._pulse.now + timedelta(seconds=boot_seconds() - self._pulse_at)

    def _note_tenant(self, tenant_id: TenantId, status: TenantStatus, delivery: Delivery, pulse: Pulse) -> _Tenant:
        """Of several loads at once the first counts: the same state of affairs keeps its serial."""
        first = self._tenants.get(tenant_id)
        if first is not None and first.position.status is status and first.delivery.stamp >= delivery.stamp:
            return first
        tenant = _Tenant(delivery, _position(status, delivery, pulse, next(self._serials)))
        _remember(self._tenants, tenant_id, tenant, MAX_TENANTS)
        return tenant

    def _move(self, tenant_id: TenantId, delivery: Delivery) -> None:
        known = self._tenants.get(tenant_id)
        if known is not None and known.delivery.stamp < delivery.stamp:
            assert self._pulse is not None
            position = _position(known.position.status, delivery, self._pulse, next(self._serials))
            self._tenants[tenant_id] = _Tenant(delivery, position)
        self._watchers.tell(tenant_id)
        self.followers.tell(tenant_id)

    def _position_anew(self) -> None:
        """Another schema: what was answered under the last one counts no more."""
        for tenant_id, known in self._tenants.items():
            assert self._pulse is not None
            position = _position(known.position.status, known.delivery, self._pulse, next(self._serials))
            self._tenants[tenant_id] = replace(known, position=position)
        self.followers.tell_all()

    def _start_anew(self, inactive: set[UserId] | None) -> None:
        self._inactive = inactive
        self._tenants.clear()
        self._users.clear()
        self._watchers.tell_all()
        self.followers.tell_all()

    def _tell_about(self, about: set[ObjectRef] | None, pulse: Pulse) -> None:
        for told in self._told:
            told(about, pulse.statuses_seq)

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


@dataclass(frozen=True, slots=True)
class _Followed:
    """What changed between two pulses."""

    moved: dict[TenantId, Delivery]
    about: set[ObjectRef]
    """Whom the new rows of `~` are about, tenants and users among them."""
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
    return _Followed(moved, changed, tenants, users)


def _position(status: TenantStatus | None, delivery: Delivery, pulse: Pulse, serial: int) -> Position:
    """While a schema is being applied nobody can say which one answers: no revision is fresh, no answer lasts."""
    applying = pulse.schema_number % 2 == 1
    fresh = delivery.written_under == pulse.schema_number and not applying and delivery.in_store
    # What another schema refused may be what the new one needs: closed until it is repaired under the new one.
    outdated = delivery.parked_under is not None and (applying or delivery.parked_under < pulse.schema_number)
    return Position(
        status,
        delivery.seq,
        delivery.zedtoken if fresh else None,
        0 if applying else serial,
        delivery.in_store,
        delivery.parked_from,
        delivery.closed or outdated,
    )


def _is_behind(loaded: Pulse, pulse: Pulse) -> bool:
    """Whether something that this pulse counts may be missing from what was loaded."""
    return (
        loaded.life != pulse.life
        or loaded.schema_number != pulse.schema_number
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
