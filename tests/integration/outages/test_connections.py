"""Connections to PostgreSQL that break or fall silent: no call waits for ever, no connection is lost to the pool."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from pemba.errors import Reason, Unavailable
from pemba.model import SystemScope
from pemba.storage.database import SYSTEM_ROLE, Database
from tests.proxy import Proxy

SCOPE = SystemScope("test")


@pytest.fixture
async def proxy(database_url: str) -> AsyncIterator[Proxy]:
    proxy = Proxy.before_postgres(database_url)
    await proxy.accept()
    yield proxy
    proxy.thaw()
    await proxy.refuse()


@pytest.fixture
async def one_connection(proxy: Proxy, database_url: str) -> AsyncIterator[Database]:
    """A pool of one by way of the proxy, and connected."""
    database = Database(proxy.url(database_url), 1, (SYSTEM_ROLE,))
    await database.open()
    await one(database)
    yield database
    proxy.thaw()
    await database.close()


async def one(database: Database) -> int:
    async with database.begin(SCOPE) as tx:
        return await tx.connection.fetchval("SELECT 1")


async def test_a_statement_between_the_servers_last_words_and_the_end_of_the_connection_is_unavailable(
    one_connection: Database, proxy: Proxy, database_url: str
) -> None:
    proxy.keep_open()

    async def outlive_the_backend() -> None:
        async with one_connection.begin(SCOPE) as tx:
            await end_backend(database_url, await tx.connection.fetchval("SELECT pg_backend_pid()"))
            await proxy.ended.wait()
            for _ in range(5):  # rounds of the event loop: what lies in the socket has been read
                await asyncio.sleep(0)
            await tx.connection.execute("SELECT 1")

    with pytest.raises(Unavailable) as broken:
        await outlive_the_backend()
    assert broken.value.reason is Reason.POSTGRES_UNAVAILABLE
    assert await one(one_connection) == 1


async def end_backend(url: str, pid: int) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute("SELECT pg_terminate_backend($1)", pid)
    await connection.close()
