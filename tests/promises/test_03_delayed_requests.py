"""Promise 3: a request delayed past its holder's death, past its own retry, past a suspended machine's waking: changes
nothing."""

from __future__ import annotations

import asyncio
import time

import psutil
import pytest

from pemba.model import Role
from pemba.relay import fence as fences
from pemba.relay import lease as lease_module
from pemba.relay.fence import Fence
from pemba.relay.lease import Holding
from pemba.relay.relay import Relay, RelayOptions
from pemba.spicedb.client import SpiceDB
from pemba.storage.database import RELAY_ROLE, Database
from pemba.storage.outbox import shard_of
from tests.crash.test_relay import are_divided
from tests.integration.conftest import Parts
from tests.integration.relay.conftest import Relaying, Seized, delivers_all
from tests.integration.relay.test_fences import Unfenced, has_left
from tests.promises.conftest import holds, touches
from tests.proxy import Proxy, Side
from tests.stack import Processes
from tests.truth import as_owner, eventually, is_delivered, positions, require_truth
from tests.watching import watching


@pytest.mark.parametrize("without", ["nothing", "preconditions", "rotation"])
async def test_a_request_that_arrives_after_its_own_retry_changes_nothing(
    parts: Parts,
    relaying: Relaying,
    store: SpiceDB,
    spicedb_proxy: Proxy,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    without: str,
) -> None:
    monkeypatch.setattr(fences, "BUSY_SECONDS", 60.0)
    if without == "rotation":
        monkeypatch.setattr(Fence, "doubt", lambda _: None)
    tenant, root = await parts.tenant()
    async with relaying(Unfenced if without == "preconditions" else SpiceDB, poll_max_seconds=0.1):
        await require_truth(database_url, store, tenant.id)
        late = spicedb_proxy.trap(b"mallory", Side.LATE)
        await parts.role(root, "mallory", Role.VIEWER)
        await late.sprung.wait()
        await parts.remove(root, "mallory")
        await require_truth(database_url, store, tenant.id)
        late.release()
        await late.answered.wait()
        assert await holds(store, tenant.id, "mallory") is (without != "nothing")


@pytest.mark.parametrize("client", [SpiceDB, Unfenced])
async def test_a_request_that_arrives_after_its_sender_lost_the_shard_changes_nothing(
    parts: Parts,
    relaying: Relaying,
    seized: Seized,
    store: SpiceDB,
    spicedb_proxy: Proxy,
    database_url: str,
    client: type[SpiceDB],
) -> None:
    tenant, root = await parts.tenant()
    shard = shard_of(tenant.id)
    async with relaying(client) as zombie:
        await require_truth(database_url, store, tenant.id)
        request = spicedb_proxy.trap(b"mallory", Side.REQUEST)
        await parts.role(root, "mallory", Role.VIEWER)
        await request.sprung.wait()
        lane = await seized(shard)
        await lane.run_once()
        await parts.remove(root, "mallory")
        await lane.run_once()
        await require_truth(database_url, store, tenant.id)
        request.release()
        await eventually(lambda: has_left(zombie, shard))
    assert await holds(store, tenant.id, "mallory") is (client is Unfenced)
    assert await positions(database_url, tenant.id) == (3, 3)


async def test_a_relay_that_hangs_with_a_request_under_way_changes_nothing_any_more(
    running: Processes, parts: Parts, store: SpiceDB, spicedb_proxy: Proxy, database_url: str
) -> None:
    """The request arrives when its shard is another's; and the relay has its share again when it wakes."""
    first = await running.relay(spicedb_endpoint=spicedb_proxy.endpoint)
    tenant, root = await parts.tenant()
    await eventually(lambda: is_delivered(database_url, tenant.id))
    request = spicedb_proxy.trap(b"mallory", Side.REQUEST)
    async with watching(store, f"{tenant.id}/") as seen:
        await parts.role(root, "mallory", Role.VIEWER)
        await request.sprung.wait()
        hanging = psutil.Process(first.pid)
        hanging.suspend()
        try:
            second = await running.relay()
            await eventually(lambda: is_delivered(database_url, tenant.id), 15)
            await parts.remove(root, "mallory")
            await require_truth(database_url, store, tenant.id)
            request.release()
        finally:
            hanging.resume()
        await eventually(lambda: are_divided(database_url, 8, 8))
        await require_truth(database_url, store, tenant.id)
        await running.stop(second)
        await parts.role(root, "last", Role.VIEWER)
        assert touches(await seen.until("last"), "mallory") == 1, "the second relay's"
    await require_truth(database_url, store, tenant.id)


async def test_a_relay_that_hung_between_reading_and_writing_writes_nothing_old_when_it_wakes(
    running: Processes, parts: Parts, store: SpiceDB, postgres_proxy: Proxy, spicedb_proxy: Proxy, database_url: str
) -> None:
    first = await running.relay(database_url=postgres_proxy.url(database_url), spicedb_endpoint=spicedb_proxy.endpoint)
    tenant, root = await parts.tenant()
    await eventually(lambda: is_delivered(database_url, tenant.id))
    read = postgres_proxy.trap(b"COMMIT\0", after=tenant.id.encode())
    await parts.role(root, "mallory", Role.VIEWER)
    await read.answered.wait()
    hanging = psutil.Process(first.pid)
    hanging.suspend()
    try:
        await running.relay()
        await eventually(lambda: is_delivered(database_url, tenant.id), 15)
        await parts.remove(root, "mallory")
        await eventually(lambda: is_delivered(database_url, tenant.id))
        read.release()
    finally:
        hanging.resume()

    async def says_so() -> bool:
        return "lease_lost" in first.log.read_text()

    await eventually(says_so)
    assert spicedb_proxy.seen(b"mallory") == 0
    await eventually(lambda: are_divided(database_url, 8, 8))
    await require_truth(database_url, store, tenant.id)
    assert not await holds(store, tenant.id, "mallory")


@pytest.mark.parametrize("without", ["nothing", "its own clock and preconditions"])
async def test_a_relay_that_wakes_from_a_suspended_machine_writes_nothing_that_it_read_before(
    parts: Parts,
    seized: Seized,
    store: SpiceDB,
    spicedb_proxy: Proxy,
    spicedb,
    postgres_proxy: Proxy,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    without: str,
) -> None:
    """Its timers slept as well, and it has not heard yet that it lost its leases."""
    tenant, root = await parts.tenant()
    await (await seized(shard_of(tenant.id))).run_once()
    await as_owner(database_url, "outbox", "UPDATE relay_lease SET holder = NULL, lease_until = NULL")
    slow = Database(postgres_proxy.url(database_url), 4, (RELAY_ROLE,))
    await slow.open()
    client = SpiceDB if without == "nothing" else Unfenced
    if client is Unfenced:
        monkeypatch.setattr(Holding, "is_certain", lambda _: True)
    reached = client.connect(spicedb_proxy.endpoint, spicedb.key)
    relay = Relay(database_url, slow, reached, RelayOptions())
    running = asyncio.create_task(relay.run())
    await eventually(lambda: delivers_all(relay))
    read = postgres_proxy.trap(b"COMMIT\0", after=tenant.id.encode())
    await parts.role(root, "mallory", Role.VIEWER)
    await read.answered.wait()
    monkeypatch.setattr(lease_module, "_now", lambda: time.clock_gettime(time.CLOCK_BOOTTIME) + 60)
    lane = await seized(shard_of(tenant.id))
    await lane.run_once()
    await parts.remove(root, "mallory")
    await lane.run_once()
    read.release()
    await eventually(lambda: has_left(relay, lane.shard))
    relay.stop()
    await running
    await reached.close()
    await slow.close()
    if client is Unfenced:
        assert await holds(store, tenant.id, "mallory")
        return
    await require_truth(database_url, store, tenant.id)
    assert spicedb_proxy.seen(b"mallory") == 0
    assert not await holds(store, tenant.id, "mallory")
