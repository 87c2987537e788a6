"""A client of the shared SpiceDB, and one of a SpiceDB that has no schema."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from pemba.spicedb.client import SpiceDB


@pytest.fixture
async def bare_client(bare_spicedb) -> AsyncIterator[SpiceDB]:
    client = SpiceDB.connect(bare_spicedb.endpoint, bare_spicedb.key)
    yield client
    await client.close()


@pytest.fixture
async def client(spicedb) -> AsyncIterator[SpiceDB]:
    client = SpiceDB.connect(spicedb.endpoint, spicedb.key)
    yield client
    await client.close()
