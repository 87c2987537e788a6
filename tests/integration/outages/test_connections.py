"""Connections to PostgreSQL that break or fall silent: no call waits for ever, no connection is lost to the pool."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import asyncpg
import pytest

from pemba.errors import Reason, Unavailable
from pemba.model import SystemScope
from pemba.storage import database as database_module
from pemba.storage import migrate
from pemba.storage.database import SYSTEM_ROLE, Database
from tests.proxy import Proxy, Side

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


async def two_statements(database: Database, between: Callable[[], None]) -> None:
    async with database.begin(SCOPE) as tx:
        await tx.connection.execute("SELECT 1")
        between()
        await tx.connection.execute("SELECT 1")


async def read_once(database: Database, before: Callable[[], None]) -> None:
    before()
    async with database.single(SCOPE) as tx:
        await tx.connection.fetchval("SELECT 1")


async def begin_late(database: Database, before: Callable[[], None]) -> None:
    before()
    await one(database)


@pytest.mark.parametrize("work", [two_statements, read_once, begin_late])
async def test_a_deadline_holds_when_postgresql_falls_silent_and_the_connection_is_free_again(
    one_connection: Database, proxy: Proxy, work, caplog: pytest.LogCaptureFixture
) -> None:
    began = time.monotonic()
    with pytest.raises((TimeoutError, Unavailable)):
        async with asyncio.timeout(0.2):
            await work(one_connection, proxy.freeze)
    assert time.monotonic() - began < 0.2 + database_module.ROLL_BACK_SECONDS + 1.0, "although it is silent still"
    proxy.thaw()
    assert await one(one_connection) == 1
    assert "active transaction" not in caplog.text


async def test_a_begin_that_was_cancelled_leaves_no_transaction_open(
    one_connection: Database, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    answer = proxy.trap(b"BEGIN")
    cancelled = asyncio.create_task(one(one_connection))
    await answer.answered.wait()
    cancelled.cancel()
    answer.release()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    assert await one(one_connection) == 1
    assert "active transaction" not in caplog.text


async def test_a_second_cancellation_does_not_cut_the_roll_back_short(
    one_connection: Database, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    frozen = asyncio.Event()

    def freeze() -> None:
        proxy.freeze()
        frozen.set()

    twice = asyncio.create_task(two_statements(one_connection, freeze))
    await frozen.wait()
    for _ in range(2):
        await asyncio.sleep(0)
        twice.cancel()
    with pytest.raises(asyncio.CancelledError):
        await twice
    proxy.thaw()
    assert await one(one_connection) == 1
    assert caplog.records == []


async def test_without_a_deadline_a_silent_postgresql_is_given_up_after_a_while(
    proxy: Proxy, database_url: str
) -> None:
    database = Database(proxy.url(database_url), 1, (SYSTEM_ROLE,), command_seconds=0.3)
    await database.open()
    await one(database)
    with pytest.raises(Unavailable) as given_up:
        async with asyncio.timeout(10):
            await two_statements(database, proxy.freeze)
    assert given_up.value.reason is Reason.POSTGRES_UNAVAILABLE
    proxy.thaw()
    assert await one(database) == 1
    await database.close()


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
    await proxy.cut()


async def test_a_transaction_that_is_refused_is_rolled_back_without_a_complaint_in_the_log(
    one_connection: Database, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ZeroDivisionError):
        async with one_connection.begin(SCOPE):
            raise ZeroDivisionError
    assert await one(one_connection) == 1
    assert caplog.records == []


async def end_backend(url: str, pid: int) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute("SELECT pg_terminate_backend($1)", pid)
    await connection.close()


@pytest.mark.parametrize("when", [b"pemba\0", b"pg_advisory_xact_lock", b"COMMIT"])
async def test_a_connection_that_breaks_under_a_look_at_the_revision_is_an_outage(
    proxy: Proxy, database_url: str, when: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    request = proxy.trap(when, Side.REQUEST)
    looking = asyncio.create_task(asyncio.to_thread(migrate.current, proxy.url(database_url)))
    await request.sprung.wait()
    await proxy.cut()
    with pytest.raises(Unavailable) as broken:
        await looking
    assert broken.value.reason is Reason.POSTGRES_UNAVAILABLE
    assert "refused" not in capsys.readouterr().out


async def test_migrations_take_every_url_that_the_servers_take(proxy: Proxy, database_url: str) -> None:
    """With sslmode, for instance, which is libpq's and the driver's, and not SQLAlchemy's."""
    url = proxy.url(database_url)
    assert "sslmode=disable" in url
    assert await asyncio.to_thread(migrate.current, url) == migrate.head()
