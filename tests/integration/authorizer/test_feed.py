"""What a feed knows is never older than its last look, and who waits is woken."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import asyncpg
import pytest

from pemba.authorizer import feed as feed_module
from pemba.authorizer.feed import Feed
from pemba.authorizer.waiting import Positions, Wanted
from pemba.errors import PreconditionFailed, Reason, Unavailable
from pemba.model import GLOBAL_STREAM, ObjectRef, SystemScope, Tenant, TenantStatus, UserId
from pemba.storage import statuses
from pemba.storage.database import SYSTEM_ROLE, Database
from tests.integration.authorizer.conftest import SECONDS, Followed, HeldLoads, HeldPulse
from tests.integration.conftest import Parts
from tests.truth import as_owner, eventually, sql

NOWHERE = "postgresql://127.0.0.1:1/"

# -- what is remembered -----------------------------------------------------------------------------------


async def test_positions_stamped_between_two_looks_are_known_after_the_second(followed: Followed) -> None:
    tenants = [(await followed.parts.tenant())[0] for _ in range(5)]
    await followed.deliver(*tenants, seq=1)
    await followed.feed.poll()
    before = [await followed.position(tenant) for tenant in tenants]
    await followed.deliver(*tenants[:4], seq=2, zedtoken="y")
    await followed.deliver(*tenants[:2], seq=3, zedtoken=None)
    assert [await followed.position(tenant) for tenant in tenants] == before, "nobody has looked since"
    await followed.feed.poll()
    after = [await followed.position(tenant) for tenant in tenants]
    assert [position.delivered_seq for position in after] == [3, 3, 2, 2, 1]
    assert [position.zedtoken for position in after] == ["y", "y", "y", "y", "z"]
    assert all(new.serial > old.serial > 0 for new, old in zip(after[:4], before[:4], strict=True))
    assert after[4] == before[4]


async def by_a_delivery(followed: Followed, tenant: Tenant) -> None:
    await followed.deliver(tenant, seq=2)


async def by_a_suspension(followed: Followed, tenant: Tenant) -> None:
    await followed.parts.tenants.suspend_tenant(followed.parts.system, tenant.id, options=followed.parts.options())


async def by_a_schema(followed: Followed, _: Tenant) -> None:
    await followed.schema_number(2)


async def by_a_schema_under_way(followed: Followed, _: Tenant) -> None:
    await followed.schema_number(1)


async def by_a_restore(followed: Followed, tenant: Tenant) -> None:
    await followed.restored(tenant, 1)
    await followed.new_life()


@pytest.mark.parametrize("overtake", [by_a_delivery, by_a_suspension, by_a_schema, by_a_schema_under_way, by_a_restore])
async def test_a_load_that_a_look_has_overtaken_is_not_remembered(
    followed: Followed, held_loads: HeldLoads, overtake: Callable[[Followed, Tenant], Awaitable[None]]
) -> None:
    tenant, _ = await followed.parts.tenant()
    await followed.deliver(tenant)
    await followed.feed.poll()
    loading = asyncio.create_task(followed.feed.snapshot([tenant.id], []))
    release = await held_loads.next()
    await overtake(followed, tenant)
    await followed.feed.poll()
    release.set()
    snapshot = await loading
    assert not snapshot.current
    assert snapshot.positions[tenant.id].serial == 0, "nobody follows it"
    anew = asyncio.create_task(followed.feed.snapshot([tenant.id], []))
    (await held_loads.next()).set()
    assert (await anew).current


async def test_a_load_that_nothing_overtook_is_remembered_and_read_no_more(
    followed: Followed, held_loads: HeldLoads
) -> None:
    tenant, _ = await followed.parts.tenant()
    loading = asyncio.create_task(followed.feed.snapshot([tenant.id], []))
    (await held_loads.next()).set()
    first = await loading
    assert first.current
    assert (await followed.feed.snapshot([tenant.id], [])).positions == first.positions
    assert first.positions[tenant.id].serial > 0


async def test_looks_follow_one_another_so_that_the_slower_takes_nothing_back(
    followed: Followed, held_loads: HeldLoads, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant, _ = await followed.parts.tenant()
    pulse = HeldPulse(monkeypatch)
    loading = asyncio.create_task(followed.feed.snapshot([tenant.id], []))
    release = await held_loads.next()
    pulse.closed = True
    slow = asyncio.create_task(followed.feed.poll())
    await asyncio.wait_for(pulse.read.wait(), SECONDS)
    pulse.closed = False
    await followed.deliver(tenant)
    fast = asyncio.create_task(followed.feed.poll())
    await asyncio.wait({fast}, timeout=0.1)
    pulse.released.set()
    await asyncio.gather(slow, fast)
    release.set()
    assert (await loading).positions[tenant.id].serial == 0


async def test_a_tenant_loaded_twice_at_once_keeps_its_serial(followed: Followed) -> None:
    """Answers to many first questions are kept for one another."""
    tenant, _ = await followed.parts.tenant()
    found = await asyncio.gather(*(followed.position(tenant) for _ in range(20)))
    assert {position.serial for position in found} == {(await followed.position(tenant)).serial}


async def test_a_tenant_that_there_is_not_is_looked_for_each_time(followed: Followed) -> None:
    unknown = "ten_01h455vb4pex5vsknk084sn02q"
    for _ in range(2):
        position = (await followed.feed.snapshot([unknown], [])).positions[unknown]
        assert (position.status, position.delivered_seq, position.serial) == (None, 0, 0)


async def test_the_tenant_asked_about_longest_ago_is_forgotten_first_and_comes_back_with_another_serial(
    followed: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "MAX_TENANTS", 2)
    one, two, three = [(await followed.parts.tenant())[0] for _ in range(3)]
    first, second = [(await followed.position(tenant)).serial for tenant in (one, two)]
    assert (await followed.position(one)).serial == first
    await followed.position(three)
    assert (await followed.position(one)).serial == first
    assert (await followed.position(two)).serial > second


# -- statuses ---------------------------------------------------------------------------------------------


async def test_a_change_of_status_reaches_every_other_server_with_its_next_look(followed: Followed) -> None:
    parts, other = followed.parts, Followed(followed.parts, Feed(followed.parts.database, 60), followed.url)
    (tenant, _), (well, _) = [await parts.tenant() for _ in range(2)]
    await other.feed.poll()
    assert (await other.position(tenant)).status is TenantStatus.ACTIVE
    assert await other.inactive("alice", "bob") == set()
    well_before = await other.position(well)
    await parts.tenants.suspend_tenant(parts.system, tenant.id, options=parts.options())
    await followed.set_status("bob")
    await other.feed.poll()
    assert (await other.position(tenant)).status is TenantStatus.SUSPENDED
    assert await other.inactive("alice", "bob") == {"bob"}
    await parts.tenants.activate_tenant(parts.system, tenant.id, options=parts.options())
    await followed.set_status("bob", "active")
    await followed.set_status("alice")
    await other.feed.poll()
    assert (await other.position(tenant)).status is TenantStatus.ACTIVE
    assert await other.inactive("alice", "bob") == {"alice"}
    assert await other.position(well) == well_before, "nothing else is read anew"


async def too_many(followed: Followed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statuses, "MAX_CHANGES", 2)


async def pruned(followed: Followed, _: object) -> None:
    await as_owner(followed.url, "outbox", f"DELETE FROM outbox WHERE tenant_id = '{GLOBAL_STREAM}' AND seq = 2")


@pytest.mark.parametrize("how", [too_many, pruned])
async def test_where_the_changes_cannot_be_told_any_more_everything_is_read_anew(
    followed: Followed, monkeypatch: pytest.MonkeyPatch, how: Callable[..., Awaitable[None]]
) -> None:
    parts, (tenant, _) = followed.parts, await followed.parts.tenant()
    assert (await followed.position(tenant)).status is TenantStatus.ACTIVE
    await followed.set_status("bob")
    await parts.tenants.suspend_tenant(parts.system, tenant.id, options=parts.options())
    await followed.set_status("carol")
    await how(followed, monkeypatch)
    await followed.feed.poll()
    assert (await followed.position(tenant)).status is TenantStatus.SUSPENDED
    assert await followed.inactive("alice", "bob", "carol") == {"bob", "carol"}


async def test_of_more_inactive_users_than_can_be_known_those_asked_about_are(followed: Followed) -> None:
    await followed.set_status("bob")
    followed.feed = Feed(followed.parts.database, 60, max_inactive=1)
    await followed.feed.poll()
    assert await followed.inactive("alice", "bob", "carol") == {"bob"}
    await followed.set_status("carol")  # now they are too many
    await followed.feed.poll()
    assert followed.feed._inactive is None
    assert await followed.inactive("alice", "bob", "carol") == {"bob", "carol"}
    await followed.set_status("bob", "active")
    await followed.set_status("alice")
    assert await followed.inactive("alice", "bob", "carol") == {"bob", "carol"}, "known, until the next look"
    await followed.feed.poll()
    assert await followed.inactive("alice", "bob", "carol") == {"alice", "carol"}
    late = Followed(followed.parts, Feed(followed.parts.database, 60, max_inactive=1), followed.url)
    await late.feed.poll()  # too many from the first look on
    assert await late.inactive("alice", "bob", "carol") == {"alice", "carol"}


async def test_a_user_suspended_while_others_are_loaded_is_not_remembered_as_they_were(
    followed: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The load is as new as the look that told; what was known when it was asked for is not."""
    feed = followed.feed = Feed(followed.parts.database, 60, max_inactive=0)
    await followed.set_status("bob")
    await feed.poll()
    assert await followed.inactive("carol") == set()
    busy = [await enter(feed._loading) for _ in range(feed_module.MAX_LOADS)]
    loading = asyncio.create_task(followed.inactive("carol", "dave"))
    await eventually(lambda: waits(feed._loading))
    await followed.set_status("carol")
    await feed.poll()
    for leave in busy:
        leave()
    assert await loading == set(), "as of when it was asked"
    assert await followed.inactive("carol", "dave") == {"carol"}


async def enter(loading: asyncio.Semaphore) -> Callable[[], None]:
    await loading.acquire()
    return loading.release


async def waits(loading: asyncio.Semaphore) -> bool:
    return bool(loading._waiters)


# -- other lives ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("max_inactive", [0, 10])
@pytest.mark.parametrize("column", ["database_epoch", "store_epoch"])
async def test_in_another_life_nothing_counts_that_was_known(
    followed: Followed, column: str, max_inactive: int
) -> None:
    followed.feed = Feed(followed.parts.database, 60, max_inactive)
    await followed.feed.poll()
    tenant, _ = await followed.parts.tenant()
    await followed.set_status("bob")
    await followed.set_status("carol")
    await followed.deliver(tenant, seq=2)
    await followed.feed.poll()
    before = await followed.position(tenant)
    assert (before.delivered_seq, await followed.inactive("bob")) == (2, {"bob"})
    await followed.restored(tenant, 1)
    await as_owner(followed.url, "users", "UPDATE users SET status = 'active', suspend_time = NULL WHERE id = 'bob'")
    await followed.feed.poll()
    assert await followed.position(tenant) == before, "nothing tells of a restore but another life"
    await followed.new_life(column)
    await followed.feed.poll()
    after = await followed.position(tenant)
    assert (after.delivered_seq, await followed.inactive("bob")) == (1, set())
    assert after.serial > before.serial


async def test_another_start_of_postgresql_is_another_life(own_postgres, by_hand: None) -> None:
    postgres = own_postgres()
    url = postgres.url("pemba", "pemba")
    database = Database(url, 2, (SYSTEM_ROLE,))
    await database.open()
    feed = Feed(database, 60)
    tenant = "ten_01h455vb4pex5vsknk084sn02q"
    insert = "INSERT INTO tenants (id, slug, name, changed_seq) VALUES ($1, 'acme', 'Acme', 1)"
    await as_owner(url, "tenants", insert, tenant)
    await feed.poll()
    before = (await feed.snapshot([tenant], [])).positions[tenant]
    await as_owner(url, "tenants", "DELETE FROM tenants")
    await feed.poll()
    assert (await feed.snapshot([tenant], [])).positions[tenant] == before
    await asyncio.to_thread(postgres.stop)
    with pytest.raises(Unavailable):
        await feed.poll()
    assert (await feed.snapshot([tenant], [])).positions[tenant] == before, "known while it is away"
    await asyncio.to_thread(postgres.start)
    await feed.poll()
    assert (await feed.snapshot([tenant], [])).positions[tenant].status is None
    await database.close()


# -- schemas ----------------------------------------------------------------------------------------------


async def test_while_a_schema_is_applied_no_revision_is_fresh_and_no_answer_lasts(followed: Followed) -> None:
    known, unknown = [(await followed.parts.tenant())[0] for _ in range(2)]
    await followed.deliver(known, unknown)
    await followed.feed.poll()
    before = await followed.position(known)
    assert (before.zedtoken, before.serial > 0) == ("z", True)
    await followed.schema_number(1)
    await followed.deliver(known, seq=2, zedtoken="x", schema_number=1)
    await followed.feed.poll()
    for tenant, seq in ((known, 2), (unknown, 1)):
        position = await followed.position(tenant)
        assert (position.zedtoken, position.serial, position.delivered_seq) == (None, 0, seq)
    await followed.schema_number(2)
    await followed.feed.poll()
    for tenant in (known, unknown):
        after = await followed.position(tenant)
        assert (after.zedtoken, after.serial > before.serial) == (None, True), "written under the last schema"
    await followed.deliver(known, seq=3, schema_number=2, zedtoken="y")
    await followed.feed.poll()
    assert (await followed.position(known)).zedtoken == "y"


# -- waiting ----------------------------------------------------------------------------------------------


def wanted(*tenants: Tenant, seconds: float = SECONDS) -> Wanted:
    return Wanted(frozenset(t.id for t in tenants), frozenset(), asyncio.get_running_loop().time() + seconds)


async def waiting(followed: Followed, tenant: Tenant, token: str) -> asyncio.Task[object]:
    """For that token, and nothing else is to do."""
    positions = Positions(followed.feed, 10)
    task = asyncio.create_task(positions.at_token(wanted(tenant), followed.parts.signer.positions(token)))

    async def is_watching() -> bool:
        return task.done() or bool(followed.feed._watchers._futures)

    await eventually(is_watching)
    return task


async def test_who_waits_is_woken_by_the_look_that_finds_the_position(followed: Followed) -> None:
    tenant, _ = await followed.parts.tenant()
    task = await waiting(followed, tenant, followed.parts.signer.token({tenant.id: 1}))
    assert not task.done()
    await followed.deliver(tenant)
    await followed.feed.poll()
    assert (await asyncio.wait_for(task, 1)).positions[tenant.id].delivered_seq == 1


async def test_a_move_between_snapshot_and_watch_is_not_waited_for(followed: Followed, held_loads: HeldLoads) -> None:
    """Nobody was told of it, for nobody watched, and nothing moves afterwards."""
    tenant, _ = await followed.parts.tenant()
    other, _ = await followed.parts.tenant()
    token = followed.parts.signer.positions(followed.parts.signer.token({tenant.id: 1}))
    task = asyncio.create_task(Positions(followed.feed, 10).at_token(wanted(tenant), token))
    first = await held_loads.next()
    await followed.deliver(other)  # overtaken: the tenant is loaded once more
    await followed.feed.poll()
    first.set()
    second = await held_loads.next()
    await followed.deliver(tenant)
    await followed.feed.poll()
    second.set()
    (await held_loads.next()).set()
    assert (await asyncio.wait_for(task, 1)).positions[tenant.id].delivered_seq == 1


async def test_whatever_is_committed_to_the_global_stream_wakes_those_who_wait_for_it(followed: Followed) -> None:
    tenant, _ = await followed.parts.tenant()
    async with followed.parts.database.begin(SystemScope("test")) as tx:
        seq = await statuses.announce(tx, ObjectRef("api_key", "key"), {})
    task = await waiting(followed, tenant, followed.parts.signer.token({GLOBAL_STREAM: seq}))
    await followed.feed.poll()
    assert (await asyncio.wait_for(task, 1)).statuses_seq == seq


async def test_a_token_of_a_life_that_ends_while_it_is_waited_for_is_lost(followed: Followed) -> None:
    """What another life counts up to the same number is another change."""
    tenant, _ = await followed.parts.tenant()
    task = await waiting(followed, tenant, followed.parts.signer.token({tenant.id: 1}))
    await followed.deliver(tenant)
    await followed.new_life()
    await followed.feed.poll()
    with pytest.raises(PreconditionFailed) as lost:
        await asyncio.wait_for(task, 1)
    assert lost.value.reason is Reason.TOKEN_LOST


async def test_of_those_who_waited_nothing_is_left(followed: Followed) -> None:
    tenant, _ = await followed.parts.tenant()
    task = await waiting(followed, tenant, followed.parts.signer.token({tenant.id: 1}))
    task.cancel()
    await asyncio.wait({task})
    await followed.feed._watchers.pause(0, 0)
    assert not followed.feed._watchers._futures


async def test_the_loop_polls_at_once_for_who_comes_to_wait_and_wakes_all_when_postgresql_goes_away(
    followed: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "IDLE_POLL_SECONDS", 3600.0)
    tenant, _ = await followed.parts.tenant()
    running = asyncio.create_task(followed.feed.run())
    await followed.deliver(tenant)
    task = await waiting(followed, tenant, followed.parts.signer.token({tenant.id: 1}))
    await asyncio.wait_for(task, 1)
    task = asyncio.create_task(followed.feed.moved([tenant.id]))
    monkeypatch.setattr(followed.feed, "_database", Database(NOWHERE, 1, (SYSTEM_ROLE,)))
    await followed.feed._database.open()
    with pytest.raises(Unavailable) as away:
        await asyncio.wait_for(task, 5)
    assert away.value.reason is Reason.POSTGRES_UNAVAILABLE
    running.cancel()
    await asyncio.wait({running})
    await followed.feed._database.close()


# -- age --------------------------------------------------------------------------------------------------


class Clock:
    """The feed's, moved on by the test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._real, self.ahead = feed_module.boot_seconds, 0.0
        monkeypatch.setattr(feed_module, "boot_seconds", lambda: self._real() + self.ahead)


async def test_what_is_known_is_good_for_as_long_as_an_outage_may_last_and_then_fails(
    followed: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, (tenant, _) = Clock(monkeypatch), await followed.parts.tenant()
    before = await followed.position(tenant)
    clock.ahead = 59
    assert await followed.position(tenant) == before
    clock.ahead = 61
    with pytest.raises(Unavailable) as away:
        await followed.position(tenant)
    assert away.value.reason is Reason.POSTGRES_UNAVAILABLE
    await followed.feed.poll()
    assert await followed.position(tenant) == before


async def test_before_the_first_look_nothing_is_known_and_a_question_looks(parts: Parts) -> None:
    feed = Feed(parts.database, 60)
    assert (await feed.snapshot([], [UserId("alice")])).current
    nowhere = Database(NOWHERE, 1, (SYSTEM_ROLE,))
    await nowhere.open()
    with pytest.raises(Unavailable) as away:
        await Feed(nowhere, 60).snapshot([], [UserId("alice")])
    assert away.value.reason is Reason.POSTGRES_UNAVAILABLE
    await nowhere.close()


async def test_a_process_that_stood_still_looks_before_it_answers(
    followed: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All who ask meanwhile share one look."""
    monkeypatch.undo()  # questions look by themselves
    clock, (tenant, _) = Clock(monkeypatch), await followed.parts.tenant()
    await followed.position(tenant)
    await followed.deliver(tenant)
    clock.ahead = 30
    looks = 0
    poll = followed.feed._poll

    async def counted() -> None:
        nonlocal looks
        looks += 1
        await poll()

    monkeypatch.setattr(followed.feed, "_poll", counted)
    found = await asyncio.gather(*(followed.position(tenant) for _ in range(20)))
    assert {position.delivered_seq for position in found} == {1}
    assert looks == 1


async def test_where_postgresql_is_silent_only_the_first_questions_wait_and_not_for_long(
    followed: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    clock, (tenant, _) = Clock(monkeypatch), await followed.parts.tenant()
    before = await followed.position(tenant)
    pulse = HeldPulse(monkeypatch)
    pulse.closed, clock.ahead = True, 30
    first = [asyncio.create_task(followed.position(tenant)) for _ in range(5)]
    await asyncio.wait_for(pulse.read.wait(), SECONDS)
    assert set(await asyncio.wait_for(asyncio.gather(*first), 2)) == {before}
    await followed.deliver(tenant)
    known = followed.feed.snapshot([tenant.id], [])
    with pytest.raises(StopIteration):
        known.send(None)  # without waiting for anything
    pulse.released.set()
    pulse.closed = False
    await followed.feed.poll()
    await followed.deliver(tenant, seq=2)
    clock.ahead = 60
    assert (await followed.position(tenant)).delivered_seq == 2, "once it was seen again, questions look again"


async def test_loads_that_hang_do_not_keep_the_feed_from_looking(
    parts: Parts, database_url: str, by_hand: None
) -> None:
    database = Database(database_url, feed_module.MAX_LOADS + 1, (SYSTEM_ROLE,))
    await database.open()
    feed = Feed(database, 60)
    await feed.poll()
    tenants = [(await parts.tenant())[0].id for _ in range(8)]
    async with tenants_locked(database_url):
        loads = [asyncio.create_task(feed.snapshot([tenant], [])) for tenant in tenants]
        blocked = "SELECT 1 FROM pg_locks WHERE NOT granted AND database = (SELECT oid FROM pg_database"
        blocked += " WHERE datname = current_database())"

        async def all_hang() -> bool:
            return len(await sql(database_url, blocked)) >= feed_module.MAX_LOADS

        await eventually(all_hang)
        await asyncio.wait_for(feed.poll(), 1)
    await asyncio.gather(*loads)
    await database.close()


@asynccontextmanager
async def tenants_locked(url: str) -> AsyncIterator[None]:
    """Whoever reads tenants waits until the block ends."""
    connection = await asyncpg.connect(url, timeout=5)
    try:
        async with connection.transaction():
            await connection.execute("LOCK TABLE tenants IN ACCESS EXCLUSIVE MODE")
            yield
    finally:
        await connection.close()
