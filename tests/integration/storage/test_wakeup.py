"""The relay's session: relays know of each other by it, and not of one that is dead."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import asyncpg
import pytest

from pemba.errors import BackendError
from pemba.storage import wakeup
from pemba.storage.wakeup import RelaySession, Replicas
from tests.truth import eventually


async def test_each_counts_all_and_has_a_place_among_them(database_url: str, postgres) -> None:
    other = postgres.create_database()
    async with AsyncExitStack() as sessions:
        await (await sessions.enter_async_context(RelaySession.connect(postgres.url(other), 10))).replicas()
        three = [await sessions.enter_async_context(RelaySession.connect(database_url, 10)) for _ in range(3)]
        for session in three:
            await session.replicas()
        assert {await session.replicas() for session in three} == {Replicas(3, rank) for rank in range(3)}
    postgres.drop_database(other)


async def test_one_that_ends_is_counted_no_more(database_url: str) -> None:
    async with RelaySession.connect(database_url, 10) as stays:
        async with RelaySession.connect(database_url, 10) as leaves:
            await leaves.replicas()
            assert await stays.replicas() in (Replicas(2, 0), Replicas(2, 1))

        async def is_alone() -> bool:
            return await stays.replicas() == Replicas(1, 0)

        await eventually(is_alone)


async def test_postgresql_ends_a_session_that_fell_silent_and_not_one_that_asks(database_url: str) -> None:
    async with (
        RelaySession.connect(database_url, 0.4) as silent,
        RelaySession.connect(database_url, 0.4) as asking,
    ):
        await silent.replicas()
        began = asyncio.get_running_loop().time()

        async def is_alone() -> bool:
            return await asking.replicas() == Replicas(1, 0)

        await eventually(is_alone, every=0.05)
        assert asyncio.get_running_loop().time() - began > 0.3
        with pytest.raises(BackendError):
            await silent.replicas()


async def test_beside_a_relay_of_the_build_before_that_delivers_alone_it_has_no_place(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    await connection.execute("SELECT pg_advisory_lock($1)", wakeup._LOCK)
    async with RelaySession.connect(database_url, 10) as session:
        assert await session.replicas() is None
        await connection.close()

        async def has_a_place() -> bool:
            return await session.replicas() == Replicas(1, 0)

        await eventually(has_a_place)
