"""Promise 1: kill -9 after the SpiceDB write, before the record: same final tuples, at no moment is a revoked tuple
back, also when grant and revoke were in one batch and more rows arrived since."""

from __future__ import annotations

import asyncio

import pytest

from pemba.model import Role
from pemba.relay.lane import Lane
from pemba.spicedb.client import SpiceDB
from pemba.storage import delivery
from pemba.storage.delivery import Delivered
from tests.integration.conftest import Parts
from tests.integration.relay.conftest import Relaying
from tests.promises.conftest import holds, is_broken, touches
from tests.proxy import Proxy, Side
from tests.stack import Processes
from tests.truth import eventually, positions, require_truth
from tests.watching import watching


async def test_killed_after_the_write_and_before_the_record(
    running: Processes, parts: Parts, store: SpiceDB, spicedb_proxy: Proxy, database_url: str
) -> None:
    tenant, root = await parts.tenant()
    first = await running.relay(spicedb_endpoint=spicedb_proxy.endpoint)
    async with watching(store, f"{tenant.id}/") as seen:
        answer = spicedb_proxy.trap(b"mallory")
        await parts.role(root, "mallory", Role.VIEWER)
        await answer.answered.wait()
        await eventually(lambda: holds(store, tenant.id, "mallory"))
        await asyncio.to_thread(first.kill)
        assert (await positions(database_url, tenant.id))[1] < 2
        await parts.remove(root, "mallory")
        await parts.role(root, "bob", Role.VIEWER)
        await running.relay()
        await require_truth(database_url, store, tenant.id)
        assert not await holds(store, tenant.id, "mallory")
        await parts.role(root, "last", Role.VIEWER)
        assert touches(await seen.until("last"), "mallory") == 1


async def test_killed_before_the_write(
    running: Processes, parts: Parts, store: SpiceDB, spicedb_proxy: Proxy, database_url: str
) -> None:
    tenant, root = await parts.tenant()
    first = await running.relay(spicedb_endpoint=spicedb_proxy.endpoint)
    request = spicedb_proxy.trap(b"mallory", Side.REQUEST)
    await parts.role(root, "mallory", Role.VIEWER)
    await request.sprung.wait()
    await asyncio.to_thread(first.kill)
    await parts.remove(root, "mallory")
    await parts.role(root, "bob", Role.VIEWER)
    await running.relay()
    await require_truth(database_url, store, tenant.id)
    assert not await holds(store, tenant.id, "mallory")


async def killed_after_a_batch(
    running: Processes, relaying: Relaying, parts: Parts, store: SpiceDB, spicedb_proxy: Proxy, url: str
) -> None:
    """Grant and revoke were in one batch that landed, and more came since, when the next relay goes on."""
    tenant, root = await parts.tenant()
    await parts.role(root, "mallory", Role.VIEWER)
    await parts.remove(root, "mallory")
    await parts.role(root, "bob", Role.VIEWER)
    async with watching(store, f"{tenant.id}/") as seen:
        answer = spicedb_proxy.trap(b"mallory")
        first = await running.relay(spicedb_endpoint=spicedb_proxy.endpoint)
        await answer.answered.wait()
        await eventually(lambda: holds(store, tenant.id, "bob"))
        await asyncio.to_thread(first.kill)
        await parts.role(root, "carol", Role.VIEWER)
        async with relaying():
            await require_truth(url, store, tenant.id)
            await parts.role(root, "last", Role.VIEWER)
            assert touches(await seen.until("last"), "mallory") == 0, "for a moment it was granted again"


async def test_killed_after_a_batch_with_grant_and_revoke_landed_and_more_came_since(
    running: Processes, relaying: Relaying, parts: Parts, store: SpiceDB, spicedb_proxy: Proxy, database_url: str
) -> None:
    await killed_after_a_batch(running, relaying, parts, store, spicedb_proxy, database_url)


async def test_it_is_broken_by_a_retry_that_covers_less_than_what_landed(
    running: Processes,
    relaying: Relaying,
    parts: Parts,
    store: SpiceDB,
    spicedb_proxy: Proxy,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The relay that is killed has the guard, the next one has not."""
    monkeypatch.setattr(delivery, "MAX_ROWS_OF_A_BATCH", 1)
    with is_broken("for a moment it was granted again"):
        await killed_after_a_batch(running, relaying, parts, store, spicedb_proxy, database_url)


@pytest.mark.parametrize("first", ["write", "record"])
async def test_it_is_broken_by_a_record_before_the_write(
    relaying: Relaying,
    parts: Parts,
    store: SpiceDB,
    spicedb_proxy: Proxy,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    first: str,
) -> None:
    if first == "record":
        monkeypatch.setattr(Lane, "_write", recorded_before_it_is_written(Lane._write))
    tenant, root = await parts.tenant()
    async with relaying(rpc_seconds=1.0):
        await require_truth(database_url, store, tenant.id)
        request = spicedb_proxy.trap(b"mallory", Side.REQUEST)
        await parts.role(root, "mallory", Role.VIEWER)
        await request.sprung.wait()
        await spicedb_proxy.cut()
        if first == "write":
            await require_truth(database_url, store, tenant.id)
            return
        with is_broken():
            await require_truth(database_url, store, tenant.id)


def recorded_before_it_is_written(write):
    async def other(lane: Lane, request, operations) -> str:
        async with lane._database.begin_relay() as tx:
            done = [Delivered(batch.tenant_id, batch.last_seq, None) for batch in request]
            await delivery.mark_delivered_if_leased(tx, lane.fence.lease, done, 0)
        return await write(lane, request, operations)

    return other
