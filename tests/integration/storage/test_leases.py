"""Leases as PostgreSQL keeps them: one holder a shard, by the database's clock."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import asyncpg
import pytest

from pemba.model import SHARDS, Seq, SystemScope, TenantId
from pemba.storage import delivery, leases, outbox
from pemba.storage.database import RELAY_ROLE, Database
from pemba.storage.delivery import Delivered
from pemba.storage.leases import Lease, LeaseLost
from tests.truth import sql

TENANT = TenantId("ten_01h455vb4pex5vsknk084sn02q")


async def take(database: Database, holder: str, limit: int = SHARDS, *, seconds: float = 60) -> list[Lease]:
    async with database.begin_relay() as tx:
        return await leases.take(tx, holder, limit, (), seconds)


async def renew(database: Database, held: list[Lease]) -> set[int]:
    async with database.begin_relay() as tx:
        return await leases.renew(tx, held[0].holder, held, 60)


async def let_run_out(url: str, *shards: int) -> None:
    """As if their TTL had passed."""
    await as_relay(url, "UPDATE relay_lease SET lease_until = now() WHERE shard = ANY ($1::smallint[])", list(shards))


async def as_relay(url: str, statement: str, *arguments: object) -> None:
    connection = await asyncpg.connect(url, server_settings={"role": RELAY_ROLE})
    try:
        await connection.execute(statement, *arguments)
    finally:
        await connection.close()


async def test_a_shard_has_one_holder_and_every_hold_an_epoch_of_its_own(database: Database) -> None:
    first = await take(database, "one", 10)
    second = await take(database, "two")
    assert [lease.shard for lease in first] == list(range(10))
    assert [lease.shard for lease in second] == list(range(10, SHARDS))
    assert await take(database, "three") == []
    async with database.begin_relay() as tx:
        assert await leases.release(tx, "one", without=[0, 1]) == 8
    again = await take(database, "two", 100)
    assert {lease.shard: lease.epoch for lease in again if lease.shard < 10} == dict.fromkeys(range(2, 10), 2)


@pytest.fixture(autouse=True)
async def _head(database: Database) -> None:
    async with database.begin(SystemScope("test")) as tx:
        await outbox.create_head(tx, TENANT)


async def test_two_that_take_at_once_get_different_shards_and_neither_waits(database: Database) -> None:
    async with database.begin_relay() as tx:
        first = await leases.take(tx, "one", 4, (), 60)
        async with asyncio.timeout(2):
            second = await take(database, "two")
    assert {lease.shard for lease in first}.isdisjoint({lease.shard for lease in second})
    assert len(first) + len(second) == SHARDS


async def test_what_ran_out_is_taken_over_and_neither_renewed_nor_recorded_any_more(
    database: Database, database_url: str
) -> None:
    held = await take(database, "one")
    assert await renew(database, held) == set(range(SHARDS))
    await let_run_out(database_url, 3)
    assert await renew(database, held) == set(range(SHARDS)) - {3}
    with pytest.raises(LeaseLost):
        await record(database, held[3])
    assert [(lease.shard, lease.epoch) for lease in await take(database, "two")] == [(3, 2)]
    assert await renew(database, held) == set(range(SHARDS)) - {3}


async def test_a_holder_takes_again_what_it_took_without_hearing_of_it(database: Database) -> None:
    await take(database, "one", 4)
    again = await take(database, "one", 4)
    assert [(lease.shard, lease.epoch) for lease in again] == [(shard, 2) for shard in range(4)]


async def record(database: Database, lease: Lease, seq: int = 1) -> None:
    async with database.begin_relay() as tx:
        await delivery.mark_delivered_if_leased(tx, lease, [Delivered(TENANT, Seq(seq), None)], 0)


async def recorded(url: str) -> list[int]:
    return [row["delivered_seq"] for row in await sql(url, "SELECT delivered_seq FROM tenant_delivery")]


async def another_took_it(database: Database, url: str, lease: Lease) -> None:
    await let_run_out(url, lease.shard)
    await take(database, "two", 1)


async def it_took_it_anew(database: Database, url: str, lease: Lease) -> None:
    await take(database, lease.holder, 1)


async def it_gave_it_back(database: Database, url: str, lease: Lease) -> None:
    async with database.begin_relay() as tx:
        await leases.release(tx, lease.holder)


@pytest.mark.parametrize("lose", [another_took_it, it_took_it_anew, it_gave_it_back])
async def test_a_delivery_is_recorded_only_in_the_hold_in_which_it_was_made(
    database: Database, database_url: str, lose: Callable[[Database, str, Lease], Awaitable[None]]
) -> None:
    [lease] = await take(database, "one", 1)
    await record(database, lease)
    await lose(database, database_url, lease)
    with pytest.raises(LeaseLost):
        await record(database, lease, 2)
    assert await recorded(database_url) == [1]


async def test_nobody_takes_a_shard_over_between_the_look_at_the_lease_and_the_record(
    database: Database, database_url: str
) -> None:
    [lease] = await take(database, "one", 1, seconds=0.2)

    async with database.begin_relay() as tx:
        await delivery.mark_delivered_if_leased(tx, lease, [Delivered(TENANT, Seq(1), None)], 0)
        await tx.connection.execute("SELECT pg_sleep_until((SELECT lease_until FROM relay_lease WHERE shard = 0))")
        assert 0 not in {other.shard for other in await take(database, "two")}
    assert await recorded(database_url) == [1]
    assert [other.shard for other in await take(database, "three")] == [0]


async def test_a_number_is_raised_on_a_row_that_nobody_else_changes(database: Database, database_url: str) -> None:
    [lease] = await take(database, "one", 1)
    async with database.begin_relay() as tx:
        assert await leases.lock(tx, lease) == leases.LeaseRow(1, 0, -1, is_ours=True, has_schema=False)
        with pytest.raises(asyncpg.LockNotAvailableError):
            await as_relay(database_url, "SELECT FROM relay_lease WHERE shard = 0 FOR UPDATE NOWAIT")
        await leases.raise_number(tx, lease, 1)
        assert (await leases.lock(tx, lease)).n == 1
        assert (await leases.lock(tx, lease)).landed == 0, "from the one before, which was found"
        await leases.raise_number(tx, lease, 3)
        assert (await leases.lock(tx, lease)).n == 1, "by one each"
        await leases.mark_landed(tx, lease, 1)
        assert (await leases.lock(tx, lease)).landed == 1
        with pytest.raises(LeaseLost):
            await leases.mark_landed(tx, Lease(0, 2, "one"), 1)
    async with database.begin_relay() as tx:
        assert not (await leases.lock(tx, Lease(0, 1, "two"))).is_ours
        assert not (await leases.lock(tx, Lease(0, 2, "one"))).is_ours
