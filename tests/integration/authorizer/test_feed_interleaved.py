"""A feed under random interleavings of deliveries, statuses, restores, schemas, looks and loads, against a plain model.

The model keeps every state of each tenant and user, in order.  What a snapshot says must be a state no older than the
one at the beginning of the last look that had ended when the snapshot was asked for; and a serial stands for one state.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

import pytest

from pemba.authorizer import feed as feed_module
from pemba.authorizer.feed import Feed
from pemba.authorizer.ground import Snapshot
from pemba.errors import Unavailable
from pemba.model import Tenant, TenantStatus, UserId
from pemba.storage import positions, statuses
from tests.integration.authorizer.conftest import SECONDS, Followed, HeldLoads, HeldPulse
from tests.truth import as_owner

STEPS = 200
TENANTS, USERS = 4, ["alice", "bob", "carol"]
STATUSES = {True: "suspended", False: "active"}

State = tuple[object, ...]


@dataclass
class Load:
    """A snapshot being put together; `since` says how many states of each were there at the last look before it."""

    task: asyncio.Task[Snapshot]
    users: list[str]
    since: dict[str, int]
    release: asyncio.Event


@dataclass
class Run:
    """One feed, and all that happened to it."""

    followed: Followed
    tenants: list[Tenant]
    held: HeldLoads
    pulse: HeldPulse
    random: random.Random
    states: dict[str, list[State]] = field(default_factory=dict)
    looked: dict[str, int] = field(default_factory=dict)
    looking: tuple[asyncio.Task[None], dict[str, int]] | None = None
    loads: list[Load] = field(default_factory=list)
    serials: dict[int, State] = field(default_factory=dict)
    schema: int = 0
    version: int = 0

    def __post_init__(self) -> None:
        for tenant in self.tenants:
            self.states[tenant.id] = [(0, TenantStatus.ACTIVE)]
        for user in USERS:
            self.states[user] = [(False,)]

    def now(self) -> dict[str, int]:
        return {of: len(states) - 1 for of, states in self.states.items()}

    # -- what happens ---------------------------------------------------------------------------------------

    async def deliver(self) -> None:
        tenant = self.random.choice(self.tenants)
        self.version += 1000
        zedtoken = self.random.choice(["z", None])
        await self.followed.deliver(tenant, seq=self.version, zedtoken=zedtoken, schema_number=self.schema)
        self._is(tenant.id, (self.version, self.states[tenant.id][-1][1]))

    async def change_tenant(self) -> None:
        tenant = self.random.choice(self.tenants)
        seq, status = self.states[tenant.id][-1]
        suspend = status is TenantStatus.ACTIVE
        services = self.followed.parts.tenants
        change = services.suspend_tenant if suspend else services.activate_tenant
        await change(self.followed.parts.system, tenant.id, options=self.followed.parts.options())
        self._is(tenant.id, (seq, TenantStatus.SUSPENDED if suspend else TenantStatus.ACTIVE))

    async def change_user(self) -> None:
        user = self.random.choice(USERS)
        suspend = not self.states[user][-1][0]
        await self.followed.set_status(user, STATUSES[suspend])
        self._is(user, (suspend,))

    async def restore(self) -> None:
        """Another life, in which a tenant is behind what it was: told by the epoch alone."""
        tenant = self.random.choice(self.tenants)
        seq, status = self.states[tenant.id][-1]
        back = "UPDATE tenant_delivery SET delivered_seq = delivered_seq - 1 WHERE tenant_id = $1 AND delivered_seq > 1"
        life = "WITH life AS (UPDATE installation SET database_epoch = gen_random_uuid())"
        await as_owner(self.followed.url, "tenant_delivery", f"{life} {back}", tenant.id)
        self._is(tenant.id, (max(seq - 1, 0), status))

    async def change_schema(self) -> None:
        self.schema += 1
        await self.followed.schema_number(self.schema)

    # -- looks and loads ------------------------------------------------------------------------------------

    async def begin_look(self) -> None:
        """Read the counters, and come to nothing yet."""
        if self.looking is None:
            self.pulse.closed = True
            since = self.now()
            self.looking = asyncio.create_task(self.followed.feed.poll()), since
            await asyncio.wait_for(self.pulse.read.wait(), SECONDS)

    async def end_look(self) -> None:
        if self.looking is not None:
            task, self.looked = self.looking
            self.pulse.released.set()
            await asyncio.wait_for(task, SECONDS)
            self.looking, self.pulse.closed = None, False
            self.pulse.read.clear()
            self.pulse.released.clear()

    async def look(self) -> None:
        await self.begin_look()
        await self.end_look()

    async def ask(self) -> None:
        """Ended at once where all of it is known, else held after what it has read."""
        if len(self.loads) < feed_module.MAX_LOADS:
            tenants = self.random.sample(self.tenants, self.random.randint(1, 3))
            users = self.random.sample(USERS, self.random.randint(0, 2))
            snapshot = self.followed.feed.snapshot([t.id for t in tenants], [UserId(u) for u in users])
            task, since = asyncio.create_task(snapshot), self.looked
            holding = asyncio.create_task(self.held.next())
            await asyncio.wait({task, holding}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                holding.cancel()
                self.require_fresh(task.result(), users, since)
            else:
                self.loads.append(Load(task, users, since, await holding))

    async def end_load(self) -> None:
        if self.loads:
            load = self.loads.pop(self.random.randrange(len(self.loads)))
            load.release.set()
            with suppress(Unavailable):  # the life that it was asked in has ended
                self.require_fresh(await load.task, load.users, load.since)

    # -- what must be so ------------------------------------------------------------------------------------

    def require_fresh(self, snapshot: Snapshot, users: list[str], since: dict[str, int]) -> None:
        for tenant_id, position in snapshot.positions.items():
            # Its parts may be of different moments, each no older than that look.
            known = self.states[tenant_id][since[tenant_id] :]
            assert position.delivered_seq in [seq for seq, _ in known], (tenant_id, position, known)
            assert position.status in [status for _, status in known], (tenant_id, position, known)
            state = (tenant_id, position.delivered_seq, position.zedtoken)
            if position.serial:
                assert self.serials.setdefault(position.serial, state) == state
        for user in users:
            assert ((user in snapshot.inactive_users),) in self.states[user][since[user] :], user

    async def require_truth(self) -> None:
        """When all has come to rest."""
        await self.end_look()
        while self.loads:
            await self.end_load()
        await self.look()
        for _ in range(2):  # loaded, then known
            asking = asyncio.create_task(self.followed.feed.snapshot([t.id for t in self.tenants], USERS))
            holding = asyncio.create_task(self.held.next())
            await asyncio.wait({asking, holding}, return_when=asyncio.FIRST_COMPLETED)
            if holding.done():
                holding.result().set()
            holding.cancel()
            snapshot = await asking
            assert snapshot.current
            self.require_fresh(snapshot, USERS, self.now())

    def _is(self, of: str, state: State) -> None:
        self.states[of].append(state)


# Bounds so low that all of them are passed.
@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "MAX_TENANTS", TENANTS - 1)
    monkeypatch.setattr(feed_module, "MAX_USERS", len(USERS) - 1)
    monkeypatch.setattr(positions, "MAX_MOVED", 2)
    monkeypatch.setattr(statuses, "MAX_CHANGES", 3)


@pytest.mark.parametrize("max_inactive", [0, 1, 100])
@pytest.mark.parametrize("seed", range(2))
async def test_no_snapshot_is_older_than_the_last_look(
    followed: Followed, monkeypatch: pytest.MonkeyPatch, narrow: None, seed: int, max_inactive: int
) -> None:
    followed.feed = Feed(followed.parts.database, 60, max_inactive)
    tenants = [(await followed.parts.tenant())[0] for _ in range(TENANTS)]
    run = Run(followed, tenants, HeldLoads(monkeypatch), HeldPulse(monkeypatch), random.Random(seed))
    ways: dict[Callable[[], Awaitable[None]], int] = {
        run.deliver: 6,
        run.change_tenant: 2,
        run.change_user: 3,
        run.restore: 1,
        run.change_schema: 1,
        run.begin_look: 4,
        run.end_look: 4,
        run.look: 3,
        run.ask: 10,
        run.end_load: 8,
    }
    done: list[str] = []
    await run.look()
    try:
        for step in run.random.choices(list(ways), list(ways.values()), k=STEPS):
            done.append(step.__name__)
            await step()
        await run.require_truth()
    except AssertionError as error:
        error.add_note(f"seed {seed}, after {len(done)} steps, the last of them {done[-30:]}")
        raise
