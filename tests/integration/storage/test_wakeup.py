"""The relay's session: one at a time, and none that is dead."""

from __future__ import annotations

import asyncio

import pytest

from pemba.storage import wakeup
from pemba.storage.wakeup import RelaySession


async def until_locked(session: RelaySession) -> None:
    async with asyncio.timeout(10):
        while not await session.try_lock():  # noqa: ASYNC110 - PostgreSQL changes it, which no event of ours tells
            await asyncio.sleep(0.05)


async def test_only_one_session_has_the_lock_and_its_end_frees_it(database_url: str) -> None:
    async with RelaySession.connect(database_url) as second:
        async with RelaySession.connect(database_url) as first:
            assert await first.try_lock()
            assert not await second.try_lock()
        await until_locked(second)


async def test_postgresql_ends_a_session_that_fell_silent_so_that_another_gets_its_lock(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert int(wakeup._SESSION_SETTINGS["idle_session_timeout"]) <= 10_000
    monkeypatch.setitem(wakeup._SESSION_SETTINGS, "idle_session_timeout", "300")
    async with RelaySession.connect(database_url) as silent, RelaySession.connect(database_url) as other:
        assert await silent.try_lock()
        await until_locked(other)
        async with asyncio.timeout(5):
            await silent.ended(1.0)


async def test_a_session_that_asks_is_not_ended(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(wakeup._SESSION_SETTINGS, "idle_session_timeout", "600")
    async with RelaySession.connect(database_url) as session:
        assert await session.try_lock()
        watching = asyncio.create_task(session.ended(0.1))
        await asyncio.wait({watching}, timeout=1.5)
        assert not watching.done()
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
