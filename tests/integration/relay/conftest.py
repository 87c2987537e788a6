"""A relay in this process, before a SpiceDB that it reaches by way of a proxy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from pemba import app
from pemba.config import ServeSettings
from pemba.dev.health import is_serving
from pemba.relay.relay import Relay, RelayOptions
from pemba.spicedb.client import SpiceDB
from pemba.storage.database import Database
from tests.proxy import Proxy
from tests.stack import Calls, calling, serve_settings
from tests.truth import eventually

Relaying = Callable[..., AbstractAsyncContextManager[Relay]]
Serving = Callable[..., AbstractAsyncContextManager[Calls]]


@pytest.fixture
async def store(spicedb) -> AsyncIterator[SpiceDB]:
    """SpiceDB, directly."""
    store = SpiceDB.connect(spicedb.endpoint, spicedb.key)
    yield store
    await store.close()


@pytest.fixture
async def spicedb_proxy(spicedb) -> AsyncIterator[Proxy]:
    """Between the relay and SpiceDB."""
    proxy = Proxy.before_tcp(spicedb.endpoint)
    await proxy.accept()
    yield proxy
    await proxy.refuse()


@pytest.fixture
async def postgres_proxy(database_url: str) -> AsyncIterator[Proxy]:
    """Before the test's PostgreSQL."""
    proxy = Proxy.before_postgres(database_url)
    await proxy.accept()
    yield proxy
    await proxy.refuse()


@pytest.fixture
async def relaying(database_url: str, database: Database, spicedb, spicedb_proxy: Proxy) -> Relaying:
    """Runs a relay with such options, in its turn, until the block ends."""

    @asynccontextmanager
    async def run(**options: float) -> AsyncIterator[Relay]:
        reached = SpiceDB.connect(spicedb_proxy.endpoint, spicedb.key)
        relay = Relay(database_url, database, reached, RelayOptions(**options))
        running = asyncio.create_task(relay.run())
        try:
            yield relay
        finally:
            relay.stop()
            await asyncio.wait_for(running, 15)
            await reached.close()

    return run


@pytest.fixture
async def serving(database_url: str, spicedb) -> Serving:
    """Runs a `pemba serve` in this process, without a relay."""

    @asynccontextmanager
    async def run(**settings: object) -> AsyncIterator[Calls]:
        reached = {"database_url": database_url, "spicedb_endpoint": spicedb.endpoint, "spicedb_key": spicedb.key}
        async with app.serving(ServeSettings(**serve_settings({**reached, **settings})), asyncio.Event()) as running:
            assert running is not None
            endpoint = f"127.0.0.1:{running.grpc_port}"
            await eventually(lambda: asyncio.to_thread(is_serving, endpoint))
            async with calling(endpoint) as calls:
                yield calls

    return run
