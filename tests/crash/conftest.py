"""Processes to kill, before a PostgreSQL and a SpiceDB that they reach by way of proxies of the test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pemba.spicedb.client import SpiceDB
from tests.integration.conftest import database, parts
from tests.proxy import Proxy
from tests.stack import Processes, processes

__all__ = ["database", "parts"]

LEASE_SECONDS = 2


@pytest.fixture
async def store(spicedb) -> AsyncIterator[SpiceDB]:
    """SpiceDB, directly."""
    store = SpiceDB.connect(spicedb.endpoint, spicedb.key)
    yield store
    await store.close()


@pytest.fixture
async def spicedb_proxy(spicedb) -> AsyncIterator[Proxy]:
    proxy = Proxy.before_tcp(spicedb.endpoint)
    await proxy.accept()
    yield proxy
    await proxy.refuse()


@pytest.fixture
async def postgres_proxy(database_url: str) -> AsyncIterator[Proxy]:
    proxy = Proxy.before_postgres(database_url)
    await proxy.accept()
    yield proxy
    await proxy.refuse()


@pytest.fixture
async def running(database_url: str, spicedb, tmp_path: Path) -> AsyncIterator[Processes]:
    """Processes that reach both directly, unless they are told otherwise; a dead relay's shards are free soon."""
    settings = {"database_url": database_url, "spicedb_endpoint": spicedb.endpoint, "spicedb_key": spicedb.key}
    async with processes(tmp_path, relay_lease_seconds=LEASE_SECONDS, **settings) as running:
        yield running
