"""Transactions: what ends one early leaves nothing open and no connection missing."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import asyncpg
import pytest

from pemba.errors import Unavailable
from pemba.model import GLOBAL_STREAM, SystemScope, TenantId, TenantScope
from pemba.storage.database import API_ROLE, SYSTEM_ROLE, Database

SYSTEM = SystemScope("test")
MARK = "INSERT INTO users (id) VALUES ($1)"


@pytest.fixture
async def narrow(database_url: str) -> AsyncIterator[Database]:
    """A database with one connection a role, so that a lost one shows."""
    database = Database(database_url, 1, (API_ROLE, SYSTEM_ROLE))
    await database.open()
    yield database
    await database.close()


async def users(database: Database) -> set[str]:
    async with database.begin(SYSTEM) as tx:
        return {row["id"] for row in await tx.connection.fetch("SELECT id FROM users")}


async def fail(database: Database) -> None:
    async with database.begin(SYSTEM) as tx:
        await tx.connection.execute(MARK, "failed")
        raise ZeroDivisionError


async def test_a_transaction_commits_at_its_end_and_rolls_back_on_an_error_or_when_discarded(narrow: Database) -> None:
    async with narrow.begin(SYSTEM) as tx:
        await tx.connection.execute(MARK, "kept")
    with pytest.raises(ZeroDivisionError):
        await fail(narrow)
    async with narrow.begin(SYSTEM) as tx:
        await tx.connection.execute(MARK, "discarded")
        tx.discard()
    assert await users(narrow) == {"kept"}


async def test_a_cancellation_at_any_moment_leaves_no_open_transaction_and_no_connection_missing(
    narrow: Database, database_url: str
) -> None:
    async def write(name: str) -> None:
        async with narrow.begin(SYSTEM) as tx:
            await tx.connection.execute(MARK, name)
            await tx.connection.execute("SELECT pg_sleep(0.001)")

    chance = random.Random(7)
    finished = set()
    for n in range(150):
        task = asyncio.create_task(write(f"user-{n}"))
        await asyncio.wait({task}, timeout=chance.uniform(0, 0.006))
        task.cancel()
        if not (await asyncio.gather(task, return_exceptions=True))[0]:
            finished.add(f"user-{n}")
    stored = await users(narrow)  # by the pool's only connection
    assert finished <= stored  # a COMMIT that was cut off may have landed all the same
    assert 0 < len(finished) < 150
    observer = await asyncpg.connect(database_url)
    open_ones = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in tr%'"
    assert await observer.fetchval(open_ones) == 0
    await observer.close()


async def test_no_free_connection_in_time_is_unavailable(narrow: Database, monkeypatch) -> None:
    async with narrow.begin(SYSTEM):
        monkeypatch.setattr("pemba.storage.database.ACQUIRE_SECONDS", 0.05)
        with pytest.raises(Unavailable, match="free"):
            async with narrow.begin(SYSTEM):
                pass


async def test_a_tenants_scope_takes_a_tenants_id_and_nothing_else(narrow: Database) -> None:
    for not_one in ("", "acme", "x'; DROP TABLE users; --", "ten_01h455vb4pex5vsknk084sn02q'"):
        with pytest.raises(ValueError, match="not a tenant id"):
            narrow.begin(TenantScope(TenantId(not_one)))
    async with narrow.begin(TenantScope(GLOBAL_STREAM)) as tx:
        assert await tx.connection.fetchval("SELECT current_setting('pemba.tenant_id')") == "~"
    async with narrow.begin(SYSTEM) as tx:
        assert await tx.connection.fetchval("SELECT current_user") == "pemba_system"


async def test_what_reads_writes_nothing_and_waits_for_no_change(database_url: str) -> None:
    database = Database(database_url, 1, (API_ROLE, SYSTEM_ROLE), read_url=database_url)
    await database.open()
    try:
        async with database.begin(SystemScope("hold the one connection for changes")):
            for _ in range(3):
                async with database.read(SystemScope("read beside it")) as tx:
                    assert await tx.connection.fetchval("SELECT count(*) FROM installation") == 1
            with pytest.raises(Unavailable):  # as after a failover, to a server that is still a standby
                async with database.read(SystemScope("write")) as tx:
                    await tx.connection.execute("UPDATE installation SET store_epoch = store_epoch")
    finally:
        await database.close()


async def test_without_an_address_for_reading_one_pool_does_both(database_url: str) -> None:
    database = Database(database_url, 1, (API_ROLE,))
    await database.open()
    try:
        async with database.read(TenantScope(GLOBAL_STREAM)) as tx:
            assert await tx.connection.fetchval("SELECT count(*) FROM workspaces") == 0
    finally:
        await database.close()
