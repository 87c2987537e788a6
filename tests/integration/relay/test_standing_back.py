"""A relay to which SpiceDB is silent leaves its shards to those that reach it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from pemba.model import Role
from pemba.relay.relay import Relay, RelayOptions
from pemba.spicedb.client import SpiceDB
from pemba.storage.database import Database
from tests.integration.conftest import Parts
from tests.integration.relay.conftest import ALL, Relaying
from tests.integration.relay.test_delivery import tenant_in
from tests.integration.relay.test_leases import are_divided
from tests.proxy import Proxy
from tests.truth import eventually, require_truth

QUICK = {"lease_seconds": 2.0, "rpc_seconds": 1.0}
BOUND_SECONDS = 15.0
"""Two leases, one deadline, and time for a machine with other work."""


@pytest.fixture
async def direct(database_url: str, database: Database, store: SpiceDB) -> AsyncIterator[Relay]:
    """A relay that no proxy stands before."""
    relay = Relay(database_url, database, store, RelayOptions(**QUICK))
    running = asyncio.create_task(relay.run())
    yield relay
    relay.stop()
    await asyncio.wait_for(running, 15)


async def test_its_shards_are_delivered_by_another_and_its_share_is_its_own_again_afterwards(
    parts: Parts, relaying: Relaying, direct: Relay, store: SpiceDB, spicedb_proxy: Proxy, database_url: str
) -> None:
    async with relaying(**QUICK) as cut_off:
        await eventually(lambda: are_divided([cut_off, direct], 8, 8), BOUND_SECONDS)
        tenant, root = await tenant_in(parts, cut_off.shards[0])
        await require_truth(database_url, store, tenant.id)
        await spicedb_proxy.refuse()
        await parts.role(root, "bob", Role.VIEWER)
        await require_truth(database_url, store, tenant.id, BOUND_SECONDS)
        await eventually(lambda: are_divided([cut_off, direct], 0, 16), BOUND_SECONDS)
        await spicedb_proxy.accept()
        await eventually(lambda: are_divided([cut_off, direct], 8, 8), BOUND_SECONDS)


async def test_the_last_one_stays_and_delivers_when_spicedb_is_back(
    parts: Parts, relaying: Relaying, store: SpiceDB, spicedb_proxy: Proxy, database_url: str
) -> None:
    tenant, root = await parts.tenant()
    async with relaying(**QUICK) as relay:
        await require_truth(database_url, store, tenant.id)
        await spicedb_proxy.refuse()
        await parts.role(root, "bob", Role.VIEWER)
        await eventually(lambda: is_silent(relay), BOUND_SECONDS)
        assert relay.shards == ALL
        await spicedb_proxy.accept()
        await require_truth(database_url, store, tenant.id, BOUND_SECONDS)


async def is_silent(relay: Relay) -> bool:
    """For so long that it would stand back, and a second more."""
    return relay._watch.silent_seconds > 2 * QUICK["lease_seconds"] + 1


async def test_all_of_them_deliver_when_spicedb_is_back_for_all(
    parts: Parts, relaying: Relaying, store: SpiceDB, spicedb_proxy: Proxy, database_url: str
) -> None:
    tenant, root = await parts.tenant()
    async with relaying(**QUICK) as one, relaying(**QUICK) as other:
        await eventually(lambda: are_divided([one, other], 8, 8), BOUND_SECONDS)
        await require_truth(database_url, store, tenant.id)
        await spicedb_proxy.refuse()
        await parts.role(root, "bob", Role.VIEWER)
        await eventually(lambda: is_silent(one), BOUND_SECONDS)
        await eventually(lambda: is_silent(other), BOUND_SECONDS)
        await spicedb_proxy.accept()
        await require_truth(database_url, store, tenant.id, BOUND_SECONDS)
        await eventually(lambda: are_divided([one, other], 8, 8), BOUND_SECONDS)
