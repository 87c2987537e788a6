"""A relay in this process, before a SpiceDB that it reaches by way of a proxy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from pemba import app
from pemba.config import ServeSettings
from pemba.dev.health import is_serving
from pemba.model import SHARDS
from pemba.relay.fence import Fence
from pemba.relay.lane import Lane
from pemba.relay.relay import Relay, RelayOptions
from pemba.spicedb.client import SpiceDB
from pemba.storage.database import Database
from pemba.storage.leases import Lease
from tests.proxy import Proxy
from tests.stack import Calls, calling, serve_settings
from tests.truth import eventually

ALL = list(range(SHARDS))
Relaying = Callable[..., AbstractAsyncContextManager[Relay]]
Serving = Callable[..., AbstractAsyncContextManager[Calls]]
Seized = Callable[[int], Awaitable[Lane]]


async def delivers_all(relay: Relay) -> bool:
    return relay.shards == ALL


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
async def seized(database_url: str, database: Database, store: SpiceDB) -> Callable[[int], Awaitable[Lane]]:
    """A lane of another relay, which has just taken that shard over, whoever had it, and reaches SpiceDB directly."""

    async def seize(shard: int) -> Lane:
        return Lane(Fence(await take_over(database, shard), database, store, 5.0), database, store, 5.0)

    return seize


async def take_over(database: Database, shard: int, holder: str = "another") -> Lease:
    """A lease of an hour, whoever had the shard."""
    async with database.begin_relay() as tx:
        row = await tx.connection.fetchrow(
            "UPDATE relay_lease SET holder = $2, epoch = epoch + 1, lease_until = now() + interval '1 hour'"
            " WHERE shard = $1 RETURNING epoch",
            shard,
            holder,
        )
    return Lease(shard, row["epoch"], holder)


@pytest.fixture
async def relaying(database_url: str, database: Database, spicedb, spicedb_proxy: Proxy) -> Relaying:
    """Runs a relay with such options until the block ends."""

    @asynccontextmanager
    async def run(client: type[SpiceDB] = SpiceDB, **options: float) -> AsyncIterator[Relay]:
        reached = client.connect(spicedb_proxy.endpoint, spicedb.key)
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
