"""A feed that looks when a test says so, and an authorizer before a SpiceDB that counts what it is asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest

from pemba.authorizer import Answer, Authorizer, Consistency, Question, feed
from pemba.authorizer.decisions import Decisions
from pemba.authorizer.feed import Feed
from pemba.model import SHARDS, ObjectRef, Role, Seq, SubjectRef, SystemScope, Tenant, TenantId, UserId, Workspace
from pemba.relay.batches import batch
from pemba.spicedb.client import CheckResult, Freshness, SpiceDB
from pemba.storage import delivery, installation, leases, positions, statuses
from pemba.storage.delivery import Delivered
from pemba.storage.leases import Lease
from pemba.storage.outbox import shard_of
from tests.integration.conftest import Parts, ref, tenant_of
from tests.truth import as_owner

SECONDS = 10.0


@pytest.fixture
def by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody looks but the test, however slow the machine is."""
    monkeypatch.setattr(feed, "LATE_SECONDS", 3600.0)


@pytest.fixture
async def followed(parts: Parts, database_url: str, by_hand: None) -> Followed:
    made = Followed(parts, Feed(parts.database, outage_seconds=60), database_url)
    await made.feed.poll()
    return made


@dataclass
class Followed:
    """A feed, and what it follows: positions are delivered, and users suspended, by the statements of the product."""

    parts: Parts
    feed: Feed
    url: str
    leases: dict[int, Lease] = field(default_factory=dict, kw_only=True)

    async def deliver(self, *tenants: Tenant, seq: int = 1, zedtoken: str | None = "z", schema_number: int = 0) -> None:
        """Record this position of each, as the relay does."""
        for tenant in tenants:
            await self.record(Delivered(tenant.id, Seq(seq), zedtoken), schema_number)

    async def record(self, delivered: Delivered, schema_number: int) -> None:
        """Under a lease on every shard, that no relay contests."""
        async with self.parts.database.begin_relay() as tx:
            if not self.leases:
                taken = await leases.take(tx, "test", SHARDS, (), ttl_seconds=3600)
                self.leases = {lease.shard: lease for lease in taken}
            lease = self.leases[shard_of(delivered.tenant_id)]
            await delivery.mark_delivered_if_leased(tx, lease, [delivered], schema_number)

    async def set_status(self, user: str, status: str = "suspended") -> None:
        """Of a user that need not be there yet."""
        when = "now()" if status == "suspended" else "NULL"
        async with self.parts.database.begin(SystemScope("test")) as tx:
            await tx.connection.execute(
                f"INSERT INTO users (id, status, suspend_time) VALUES ($1, $2, {when})"
                f" ON CONFLICT (id) DO UPDATE SET status = excluded.status, suspend_time = {when}",
                user,
                status,
            )
            await statuses.announce(tx, ObjectRef("user", user), {})

    async def restored(self, tenant: Tenant, seq: int) -> None:
        """Put a position back, as a restore does: no counter tells of it."""
        update = "UPDATE tenant_delivery SET delivered_seq = $2 WHERE tenant_id = $1"
        await as_owner(self.url, "tenant_delivery", update, tenant.id, seq)

    async def new_life(self, column: str = "database_epoch") -> None:
        await as_owner(self.url, "installation", f"UPDATE installation SET {column} = gen_random_uuid()")

    async def schema_number(self, number: int) -> None:
        await as_owner(self.url, "installation", "UPDATE installation SET schema_number = $1", number)

    async def position(self, tenant: Tenant):
        return (await self.feed.snapshot([tenant.id], [])).positions[tenant.id]

    async def inactive(self, *users: str) -> set[str]:
        return set((await self.feed.snapshot([], [UserId(user) for user in users])).inactive_users)


class HeldLoads:
    """Holds what the feed has read of tenants and users, before it looks at it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._load = positions.load
        self._held: asyncio.Queue[asyncio.Event] = asyncio.Queue()
        monkeypatch.setattr(positions, "load", self._hold)

    async def _hold(self, *given: Any) -> positions.Loaded:
        loaded = await self._load(*given)
        released = asyncio.Event()
        self._held.put_nowait(released)
        await released.wait()
        return loaded

    async def next(self) -> asyncio.Event:
        """Set it to let go of the next load, which has been read."""
        async with asyncio.timeout(SECONDS):
            return await self._held.get()


@pytest.fixture
def held_loads(monkeypatch: pytest.MonkeyPatch) -> HeldLoads:
    return HeldLoads(monkeypatch)


class HeldPulse:
    """Holds what a look has read of the counters while `closed`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._pulse = positions.pulse
        self.closed = False
        self.read, self.released = asyncio.Event(), asyncio.Event()
        monkeypatch.setattr(positions, "pulse", self._hold)

    async def _hold(self, *given: Any) -> positions.Pulse:
        pulse = await self._pulse(*given)
        if self.closed:
            self.read.set()
            await self.released.wait()
        return pulse


class CountingSpiceDB(SpiceDB):
    """The real one; what it is asked is noted, and waits while the gate is closed: a single question with
    its answer, several before they are asked."""

    def __init__(self, channel: grpc.aio.Channel, key: str, **given: Any) -> None:
        super().__init__(channel, key, **given)
        self.key = key
        self.asked: list[Freshness] = []
        self.heads: list[int] = []
        """How much was asked before each look for the head had its answer."""
        self.gate = asyncio.Event()
        self.gate.set()

    async def reach_head(self, timeout: float) -> None:
        await super().reach_head(timeout)
        self.heads.append(len(self.asked))

    async def check(self, question: Any, freshness: Freshness, timeout: float) -> CheckResult:
        self.asked.append(freshness)
        result = await super().check(question, freshness, timeout)
        await self.gate.wait()
        return result

    async def check_bulk(self, questions: Any, freshness: Freshness, timeout: float):
        self.asked += [freshness] * len(questions)
        await self.gate.wait()
        return await super().check_bulk(questions, freshness, timeout)


@dataclass
class Asking(Followed):
    """The whole read path; what is committed is delivered, and known, when the test says so."""

    spicedb: CountingSpiceDB
    decisions: Decisions = field(default_factory=lambda: Decisions(1000, 60))

    def __post_init__(self) -> None:
        self.use(self.decisions)

    def use(self, decisions: Decisions) -> None:
        self.decisions = decisions
        self.authorizer = Authorizer(self.parts.database, self.spicedb, self.parts.signer, self.feed, decisions, 10)

    async def in_force(self, *tenants: Tenant) -> None:
        """Deliver everything of these tenants, and look."""
        for tenant in tenants:
            async with self.parts.database.begin_relay() as tx:
                number = (await installation.read(tx)).schema_number
                due = [
                    d for d in await delivery.due_tenants(tx, shard_of(tenant.id), 64, []) if d.tenant_id == tenant.id
                ]
                rows = await delivery.prefixes(tx, due)
            for tenant_id, found in rows.items():
                made = batch(tenant_id, found)
                zedtoken = await self.spicedb.write(made.operations, metadata={}, timeout=SECONDS)
                expiry = found[-1].next_expiry
                await self.record(Delivered(tenant_id, made.last_seq, zedtoken, next_expiry=expiry), number)
        await self.feed.poll()

    async def tenant(self) -> tuple[Tenant, Workspace]:
        """With `alice` as its admin, in force."""
        tenant, root = await self.parts.tenant()
        await self.in_force(tenant)
        return tenant, root

    async def granted(self, on: Workspace, user: str) -> None:
        await self.parts.role(on, user, Role.VIEWER)

    async def ask(
        self,
        question: Question,
        tenant_id: TenantId,
        consistency: Consistency | None = None,
        seconds: float = SECONDS,
    ) -> Answer:
        deadline = asyncio.get_running_loop().time() + seconds
        return await self.authorizer.check(
            self.parts.system, tenant_id, question, consistency or Consistency(), deadline
        )

    async def may_view(self, on: Tenant | Workspace, user: str, **consistency: Any) -> str:
        question = Question(ref(on), "view", SubjectRef("user", user))
        return (await self.ask(question, tenant_of(on), Consistency(**consistency))).decision

    async def asks(self, *given: Any, **consistency: Any) -> int:
        """How often SpiceDB is asked for what `may_view` answers."""
        before = len(self.spicedb.asked)
        await self.may_view(*given, **consistency)
        return len(self.spicedb.asked) - before


@pytest.fixture
async def asking(followed: Followed, spicedb) -> AsyncIterator[Asking]:
    client = CountingSpiceDB.connect(spicedb.endpoint, spicedb.key)
    yield Asking(followed.parts, followed.feed, followed.url, client)
    await client.close()
