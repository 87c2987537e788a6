"""Fences: what was sent before never lands after, and whoever lost data is noticed before anything is written."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import structlog
from prometheus_client import REGISTRY

from pemba.model import ObjectRef, Operation, Role, SubjectRef, Tenant, Tuple, TupleOperation, Workspace
from pemba.relay import fence as fences
from pemba.relay.fence import Fence, FenceFault, FenceInDoubt, Mark, Verdict
from pemba.relay.relay import Relay
from pemba.service.memberships import RoleAssignment
from pemba.spicedb.client import SpiceDB
from pemba.spicedb.errors import WriteFailed, WriteFailure
from pemba.storage import delivery
from pemba.storage.database import Database
from pemba.storage.leases import LeaseLost
from pemba.storage.outbox import MAX_ROW_OPERATIONS, shard_of
from pemba.storage.statement import Statement
from tests.conftest import delete_fences
from tests.integration.conftest import SYSTEM, Parts
from tests.integration.relay.conftest import ALL, Relaying, Seized, delivers_all, take_over
from tests.integration.relay.test_delivery import add_rows, tenant_in, touch
from tests.proxy import Proxy, Side
from tests.truth import as_owner, eventually, positions, require_truth, sql, stored


class Unfenced(SpiceDB):
    """Writes whatever the fence says: what the guard is seen to be good for."""

    async def write(self, *operations: Any, must_match: object = (), must_be_empty: object = (), **given: Any) -> str:
        return await super().write(*operations, **given)


async def holds(store: SpiceDB, tenant_id: str, user: str) -> bool:
    return user in {found.subject.id for found in await stored(store, tenant_id)}


async def marks(store: SpiceDB) -> dict[str, Mark]:
    return await fences.read(store, 5.0) or {}


async def numbers(url: str) -> list[tuple[int, int]]:
    """Epoch and fence number of every shard."""
    return [(row["epoch"], row["n"]) for row in await sql(url, "SELECT epoch, n FROM relay_lease ORDER BY shard")]


async def has_left(relay: Relay, shard: int) -> bool:
    return shard not in relay.shards


@pytest.mark.parametrize("guarded", [True, False])
async def test_what_was_written_in_a_lease_that_is_lost_by_now_is_not_recorded(
    parts: Parts,
    database: Database,
    relaying: Relaying,
    store: SpiceDB,
    spicedb_proxy: Proxy,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    guarded: bool,
) -> None:
    if not guarded:
        anyhow = "UPDATE relay_lease SET deliveries = deliveries + 1 WHERE shard = :shard"
        anyhow += " AND :epoch > 0 AND :holder <> '' RETURNING deliveries"
        monkeypatch.setattr(delivery, "_COUNT", Statement(anyhow))
    tenant, root = await parts.tenant()
    shard = shard_of(tenant.id)
    async with relaying() as relay:
        await require_truth(database_url, store, tenant.id)
        answer = spicedb_proxy.trap(b"mallory")
        await parts.role(root, "mallory", Role.VIEWER)
        await answer.answered.wait()
        await take_over(database, shard)
        answer.release()
        await eventually(lambda: has_left(relay, shard))
    assert await positions(database_url, tenant.id) == (2, 1 if guarded else 2)


async def fill(parts: Parts, made: tuple[Tenant, Workspace], prefix: str) -> None:
    """A change that fills a batch: two of them fill a request."""
    tenant, root = made
    users = [f"{prefix}-{number:03}" for number in range(MAX_ROW_OPERATIONS)]
    assignments = [
        RoleAssignment(ObjectRef("workspace", root.id), SubjectRef("user", user), Role.VIEWER) for user in users
    ]
    await parts.memberships.set_roles(SYSTEM, tenant.id, assignments=assignments, options=parts.options("SetRoles"))


async def test_a_relay_that_lost_the_shard_sends_no_further_request_of_what_it_had_read(
    parts: Parts, relaying: Relaying, seized: Seized, store: SpiceDB, spicedb_proxy: Proxy, database_url: str
) -> None:
    made = sorted([await tenant_in(parts, 4) for _ in range(3)], key=lambda made: made[0].id)
    first = await seized(4)
    while await first.run_once():
        pass
    for number, each in enumerate(made):
        await fill(parts, each, f"user-{number}")
    late_tenant, late_root = made[2]
    answer = spicedb_proxy.trap(b"user-0-000")
    await as_owner(database_url, "outbox", "UPDATE relay_lease SET holder = NULL, lease_until = NULL")
    async with relaying() as zombie:
        await answer.answered.wait()
        assert spicedb_proxy.seen(b"user-2-000") == 0, "the third tenant's batch is in the second request"
        lane = await seized(4)
        while await lane.run_once():
            pass
        await parts.remove(late_root, "user-2-000")
        while await lane.run_once():
            pass
        answer.release()
        await eventually(lambda: has_left(zombie, 4))
        await require_truth(database_url, store, late_tenant.id)
    assert spicedb_proxy.seen(b"user-2-000") == 0


async def landed(url: str, shard: int) -> int:
    [row] = await sql(url, "SELECT landed FROM relay_lease WHERE shard = $1", shard)
    return row["landed"]


async def test_before_anything_is_written_under_the_first_fence_of_a_store_postgresql_knows_that_it_landed(
    parts: Parts, relaying: Relaying, store: SpiceDB, spicedb_proxy: Proxy, database_url: str
) -> None:
    """Else a store that is emptied then would look like one that never held anything."""
    tenant, _ = await parts.tenant()
    shard = shard_of(tenant.id)
    first = spicedb_proxy.trap(tenant.id.encode(), Side.REQUEST)
    async with relaying() as relay:
        await first.sprung.wait()
        assert (await marks(store))[fences.relation_of(shard)] == Mark(1, 0)
        assert await landed(database_url, shard) == 0
        first.release()
        await eventually(lambda: all_fenced(relay))
        await require_truth(database_url, store, tenant.id)
        assert len(await marks(store)) == 16


async def test_a_fence_moves_after_a_write_within_a_second_and_otherwise_stays(
    parts: Parts, seized: Seized, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant, _ = await parts.tenant()
    lane = await seized(shard_of(tenant.id))
    await lane.run_once()
    assert lane.fence.mark == Mark(1, 0)
    await lane.run_once()
    assert lane.fence.mark == Mark(1, 0), "not with every round"
    monkeypatch.setattr(fences, "BUSY_SECONDS", 0.0)
    await lane.run_once()
    assert lane.fence.mark == Mark(1, 1), "a second after the write"
    await lane.run_once()
    assert lane.fence.mark == Mark(1, 1), "nothing was written since"
    monkeypatch.setattr(fences, "IDLE_SECONDS", 0.0)
    await lane.run_once()
    assert lane.fence.mark == Mark(1, 2), "once a minute"
    monkeypatch.setattr(fences, "IDLE_SECONDS", 60.0)
    monkeypatch.setattr(fences, "BUSY_SECONDS", 0.0)
    await as_owner(database_url, "outbox", "UPDATE installation SET schema_number = 2")
    await lane.run_once()
    await lane.run_once()
    assert lane.fence.mark == Mark(1, 3), "after a schema apply"
    await lane.run_once()
    assert lane.fence.mark == Mark(1, 3)


@pytest.fixture
async def reached(spicedb, spicedb_proxy: Proxy):
    """A client that reaches SpiceDB by way of the proxy."""
    client = SpiceDB.connect(spicedb_proxy.endpoint, spicedb.key)
    yield client
    await client.close()


async def test_a_rotation_whose_answer_was_lost_has_landed(
    database: Database, reached: SpiceDB, spicedb_proxy: Proxy, store: SpiceDB, database_url: str
) -> None:
    fence = Fence(await take_over(database, 5), database, reached, 5.0)
    await fence.keep()
    answer = spicedb_proxy.trap(b"1/1")
    fence.doubt()
    rotating = asyncio.create_task(fence.keep())
    await answer.answered.wait()
    await spicedb_proxy.cut()
    with pytest.raises(WriteFailed) as lost:
        await rotating
    assert lost.value.kind is WriteFailure.UNCERTAIN
    assert fence.mark is None
    await fence.keep()
    assert fence.mark == Mark(1, 1) == (await marks(store))["shard_05"]
    assert (await numbers(database_url))[5] == (1, 1)


async def test_a_rotation_that_was_refused_because_an_earlier_try_landed_late_has_landed(
    database: Database, reached: SpiceDB, spicedb_proxy: Proxy, store: SpiceDB, database_url: str
) -> None:
    fence = Fence(await take_over(database, 5), database, reached, 5.0)
    await fence.keep()
    fence.doubt()
    late = spicedb_proxy.trap(b"1/1", Side.LATE)
    with pytest.raises(WriteFailed):
        await fence.keep()
    again = spicedb_proxy.trap(b"1/1", Side.REQUEST)
    rotating = asyncio.create_task(fence.keep())
    await again.sprung.wait()
    late.release()
    await late.answered.wait()
    again.release()
    with pytest.raises(WriteFailed) as refused:
        await rotating
    assert refused.value.kind is WriteFailure.PRECONDITION
    await fence.keep()
    assert fence.mark == Mark(1, 1) == (await marks(store))["shard_05"]
    assert (await numbers(database_url))[5] == (1, 1)


async def test_a_first_fence_that_arrives_late_does_not_stand_beside_another(
    database: Database, reached: SpiceDB, spicedb_proxy: Proxy, store: SpiceDB
) -> None:
    late = spicedb_proxy.trap(b"1/0", Side.LATE)
    with pytest.raises(WriteFailed):
        await Fence(await take_over(database, 5), database, reached, 5.0).keep()
    fence = Fence(await take_over(database, 5), database, store, 5.0)
    await fence.keep()
    late.release()
    await late.answered.wait()
    found = [stored async for stored in store.read_tuples("fence", fences.FullyConsistent(), 5, relation="shard_05")]
    assert found == [Mark(2, 0).on(5)]


async def test_a_fence_of_a_later_lease_is_never_overwritten(
    database: Database, store: SpiceDB, database_url: str
) -> None:
    first = Fence(await take_over(database, 5, "one"), database, store, 5.0)
    await first.keep()
    second = Fence(await take_over(database, 5, "two"), database, store, 5.0)
    await second.keep()
    before = await numbers(database_url)
    first.doubt()
    with pytest.raises(FenceFault) as stopped:
        await first.keep()
    assert stopped.value.verdict is Verdict.ZOMBIE
    assert (await marks(store))["shard_05"] == second.mark == Mark(2, 1)
    assert await numbers(database_url) == before


async def test_a_store_without_the_definition_has_lost_it_if_a_schema_was_ever_applied(
    database: Database, bare_spicedb, database_url: str
) -> None:
    bare = SpiceDB.connect(bare_spicedb.endpoint, bare_spicedb.key)
    fence = Fence(await take_over(database, 5), database, bare, 5.0)
    with pytest.raises(WriteFailed) as unknown:
        await fence.keep()
    assert unknown.value.kind is WriteFailure.OPERATION
    await as_owner(
        database_url,
        "outbox",
        "INSERT INTO schema_version (number, digest, text, state, zedtoken, finish_time)"
        " VALUES (1, 'd', 't', 'applied', 'z', now())",
    )
    with pytest.raises(FenceFault) as lost:
        await fence.keep()
    assert lost.value.verdict is Verdict.STORE_LOST
    assert await fences.there(bare, {5: Mark(1, 0)}, 5.0) == set()
    await bare.close()


@pytest.mark.parametrize("guarded", [True, False])
async def test_a_refusal_is_not_judged_before_the_fence_was_read(
    parts: Parts, seized: Seized, database_url: str, monkeypatch: pytest.MonkeyPatch, guarded: bool
) -> None:
    """SpiceDB looks at operations first: a zombie whose rows are refused for their own sake hears no other reason.

    Without that look only the lease keeps it from parking what another has to judge.
    """
    if not guarded:
        monkeypatch.setattr(Fence, "require_unchanged", lambda _: asyncio.sleep(0))
    made = await tenant_in(parts, 3)
    zombie = await seized(3)
    await zombie.run_once()
    lane = await seized(3)
    await lane.run_once()
    await add_rows(database_url, made[0], touch(f"workspace:{made[0].id}/x#no_such_relation@user:mallory"))
    if guarded:
        with pytest.raises(FenceInDoubt):
            await zombie.run_once()
        with pytest.raises(FenceFault):
            await zombie.run_once()
    else:
        with pytest.raises(LeaseLost):
            await zombie.run_once()


def shards_in(logged: list[Any], event: str) -> set[int]:
    return {line["shard"] for line in logged if line["event"] == event}


async def all_said(logged: list[Any], event: str) -> bool:
    return shards_in(logged, event) == set(ALL)


async def test_a_store_that_lost_its_writes_is_noticed_within_two_seconds_and_gets_nothing_more(
    parts: Parts, relaying: Relaying, store: SpiceDB, shared_spicedb, database_url: str
) -> None:
    tenant, root = await parts.tenant()
    before = stops("store_lost")
    with structlog.testing.capture_logs() as logged:
        async with relaying(poll_max_seconds=0.1) as relay:
            await eventually(lambda: delivers_all(relay))
            await require_truth(database_url, store, tenant.id)
            await eventually(lambda: all_at_rest(relay))
            stored_marks = await marks(store)
            await asyncio.to_thread(delete_fences, shared_spicedb)
            await eventually(lambda: all_said(logged, "store_lost"), 2)
            await parts.role(root, "mallory", Role.VIEWER)
            await eventually(lambda: looked_again(relay))
            assert await positions(database_url, tenant.id) == (2, 1)
            assert not await holds(store, tenant.id, "mallory")
            assert await marks(store) == {}
            for relation, mark in stored_marks.items():  # what was lost comes back
                shard = int(relation.removeprefix("shard_"))
                await store.write([TupleOperation(Operation.TOUCH, mark.on(shard))], metadata={}, timeout=5)
            await eventually(lambda: all_said(logged, "shard_well_again"))
            await require_truth(database_url, store, tenant.id)
    assert stops("store_lost") == before + 16, [line for line in logged if "retry_in_seconds" not in line]
    assert all("SpiceDB" in line["help"] for line in logged if line["event"] == "store_lost")


async def all_rotated(relay: Relay) -> bool:
    lanes = relay._leases.lanes.values()
    return len(lanes) == len(ALL) and all(lane.fence.mark is not None and lane.fence.mark.n > 0 for lane in lanes)


async def all_fenced(relay: Relay) -> bool:
    return all(lane.fence.mark is not None for lane in relay._leases.lanes.values())


async def all_at_rest(relay: Relay) -> bool:
    """Fenced, and not about to rotate for what was written: no number moves for a minute."""
    fences = [lane.fence for lane in relay._leases.lanes.values()]
    return all(fence.mark is not None and not fence._is_wanted for fence in fences)


def stops(why: str) -> float:
    return REGISTRY.get_sample_value("pemba_relay_shards_stopped_total", {"why": why}) or 0.0


async def looked_again(relay: Relay) -> bool:
    """The watch has woken every lane once more."""
    return await relay._watch.run_once() == 16


class Late(SpiceDB):
    """Its next read of a fence tells what was stored before the last write, as SpiceDB's may in a crowd."""

    older: tuple[Tuple, ...] = ()

    async def read_tuples(self, *what: Any, **given: Any) -> AsyncIterator[Tuple]:
        if self.older:
            answer, self.older = self.older, ()
        else:
            answer = tuple([found async for found in super().read_tuples(*what, **given)])
        for found in answer:
            yield found


async def test_a_read_that_is_a_moment_old_is_not_taken_for_a_loss(database: Database, spicedb, store: SpiceDB) -> None:
    late = Late.connect(spicedb.endpoint, spicedb.key)
    fence = Fence(await take_over(database, 5), database, late, 5.0)
    await fence.keep()
    before = fence.mark
    fence.doubt()
    await fence.keep()
    assert before is not None
    late.older = (before.on(5),)
    fence.doubt()
    await fence.keep()
    assert fence.mark == Mark(1, 2) == (await marks(store))["shard_05"]
    await late.close()


async def test_a_store_that_was_restored_to_an_earlier_state_is_noticed_at_a_takeover(
    database: Database, store: SpiceDB
) -> None:
    fence = Fence(await take_over(database, 5), database, store, 5.0)
    await fence.keep()
    earlier = fence.mark
    for _ in range(2):
        fence.doubt()
        await fence.keep()
    assert earlier is not None
    assert fence.mark is not None
    back = [TupleOperation(Operation.DELETE, fence.mark.on(5)), TupleOperation(Operation.TOUCH, earlier.on(5))]
    await store.write(back, metadata={}, timeout=5)
    with pytest.raises(FenceFault) as lost:
        await Fence(await take_over(database, 5), database, store, 5.0).keep()
    assert lost.value.verdict is Verdict.STORE_LOST
    assert (await marks(store))["shard_05"] == earlier


@pytest.mark.parametrize(
    "lost", ["n = n - 1", "epoch = epoch - 1", "n = 0, epoch = 0, holder = NULL, lease_until = NULL"]
)
async def test_a_database_that_lost_commits_is_noticed_within_two_seconds_and_nothing_more_is_written(
    parts: Parts,
    relaying: Relaying,
    store: SpiceDB,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    lost: str,
) -> None:
    tenant, root = await parts.tenant()
    monkeypatch.setattr(fences, "IDLE_SECONDS", 0.0)
    with structlog.testing.capture_logs() as logged:
        async with relaying(poll_max_seconds=0.1) as relay:
            await require_truth(database_url, store, tenant.id)
            await eventually(lambda: all_rotated(relay))
            monkeypatch.setattr(fences, "IDLE_SECONDS", 60.0)
            monkeypatch.setattr(fences, "BUSY_SECONDS", 60.0)
            await eventually(lambda: all_fenced(relay))
            before = await marks(store)
            await as_owner(database_url, "outbox", f"UPDATE relay_lease SET {lost}")
            await eventually(lambda: all_said(logged, "database_lost"), 2)
            await parts.role(root, "mallory", Role.VIEWER)
            await eventually(lambda: looked_again(relay))
    assert await positions(database_url, tenant.id) == (2, 1)
    assert not await holds(store, tenant.id, "mallory")
    assert await marks(store) == before
    assert all("PostgreSQL" in line["help"] for line in logged if line["event"] == "database_lost")
