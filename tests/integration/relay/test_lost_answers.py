"""Answers of SpiceDB that are lost after the write landed, and stops in the middle of a write."""

from __future__ import annotations

import asyncio

import pytest

from pemba.errors import BackendError
from pemba.model import ObjectRef, Role, SubjectRef
from pemba.relay.relay import Relay, RelayOptions
from pemba.spicedb.client import CheckQuestion, FullyConsistent, SpiceDB
from pemba.storage.database import Database
from tests.integration.conftest import Parts
from tests.integration.relay.conftest import Relaying
from tests.proxy import Proxy, Side
from tests.truth import eventually, positions, require_truth, stored
from tests.watching import watching


async def holds(store: SpiceDB, tenant_id: str, user: str) -> bool:
    return user in {found.subject.id for found in await stored(store, tenant_id)}


async def test_a_landed_write_whose_answer_is_lost_is_covered_by_the_retry_with_all_that_came_since(
    parts: Parts, relaying: Relaying, store: SpiceDB, spicedb_proxy: Proxy, database_url: str
) -> None:
    tenant, root = await parts.tenant()
    async with relaying(poll_max_seconds=0.1), watching(store, f"{tenant.id}/") as seen:
        await require_truth(database_url, store, tenant.id)
        answer = spicedb_proxy.trap(b"mallory")
        await parts.role(root, "mallory", Role.VIEWER)
        await answer.answered.wait()
        await eventually(lambda: holds(store, tenant.id, "mallory"))
        assert await positions(database_url, tenant.id) == (2, 1), "nothing is recorded that was not acknowledged"
        await parts.remove(root, "mallory")
        await parts.role(root, "bob", Role.VIEWER)
        await spicedb_proxy.cut()
        await require_truth(database_url, store, tenant.id)
        assert not await holds(store, tenant.id, "mallory")
        await parts.role(root, "last", Role.VIEWER)
        writes = await seen.until("last")
    came = [write for write in writes if any(t.subject.id == "mallory" for t in write.touched)]
    assert len(came) == 1, "what was revoked never comes back"


async def test_the_retry_of_a_landed_batch_covers_at_least_that_batch(
    parts: Parts, relaying: Relaying, store: SpiceDB, spicedb_proxy: Proxy, database_url: str
) -> None:
    """Grant and revoke were in one batch that landed: a shorter retry would grant again for a moment."""
    tenant, root = await parts.tenant()
    await parts.role(root, "mallory", Role.VIEWER)
    await parts.remove(root, "mallory")
    await parts.role(root, "bob", Role.VIEWER)
    answer = spicedb_proxy.trap(b"mallory")
    async with watching(store, f"{tenant.id}/") as seen, relaying(poll_max_seconds=0.1):
        await answer.answered.wait()
        await eventually(lambda: holds(store, tenant.id, "bob"))
        await parts.role(root, "carol", Role.VIEWER)
        await spicedb_proxy.cut()
        await require_truth(database_url, store, tenant.id)
        await parts.role(root, "last", Role.VIEWER)
        writes = await seen.until("last")
    assert spicedb_proxy.seen(b"mallory") == 2
    assert not [write for write in writes if any(t.subject.id == "mallory" for t in write.touched)]


async def test_a_write_that_never_reached_spicedb_is_sent_again(
    parts: Parts, relaying: Relaying, store: SpiceDB, spicedb_proxy: Proxy, database_url: str
) -> None:
    tenant, root = await parts.tenant()
    async with relaying(poll_max_seconds=0.1):
        await require_truth(database_url, store, tenant.id)
        request = spicedb_proxy.trap(b"mallory", Side.REQUEST)
        await parts.role(root, "mallory", Role.VIEWER)
        await request.sprung.wait()
        await spicedb_proxy.cut()
        await require_truth(database_url, store, tenant.id)


async def test_a_stop_waits_for_the_write_under_way_and_records_it(
    parts: Parts,
    database: Database,
    store: SpiceDB,
    spicedb,
    spicedb_proxy: Proxy,
    database_url: str,
    relaying: Relaying,
) -> None:
    tenant, root = await parts.tenant()
    reached = SpiceDB.connect(spicedb_proxy.endpoint, spicedb.key)
    relay = Relay(database_url, database, reached, RelayOptions())
    running = asyncio.create_task(relay.run())
    await require_truth(database_url, store, tenant.id)
    answer = spicedb_proxy.trap(b"mallory")
    await parts.role(root, "mallory", Role.VIEWER)
    await answer.answered.wait()
    relay.stop()
    await parts.role(root, "bob", Role.VIEWER)
    assert not (await asyncio.wait({running}, timeout=0.2))[0], "it waits for the answer"
    answer.release()
    await asyncio.wait_for(running, 5)
    await reached.close()
    assert await positions(database_url, tenant.id) == (3, 2), "recorded, and nothing was begun after the stop"
    async with relaying():
        await require_truth(database_url, store, tenant.id)
    assert spicedb_proxy.seen(b"mallory") == 1, "nothing is delivered twice"


async def test_a_stop_waits_no_longer_than_the_deadline_of_a_write(
    parts: Parts, database: Database, store: SpiceDB, spicedb, spicedb_proxy: Proxy, database_url: str
) -> None:
    tenant, root = await parts.tenant()
    reached = SpiceDB.connect(spicedb_proxy.endpoint, spicedb.key)
    relay = Relay(database_url, database, reached, RelayOptions(rpc_seconds=0.5))
    running = asyncio.create_task(relay.run())
    await require_truth(database_url, store, tenant.id)
    answer = spicedb_proxy.trap(b"mallory")
    await parts.role(root, "mallory", Role.VIEWER)
    await answer.answered.wait()
    relay.stop()
    await asyncio.wait_for(running, 2)
    await reached.close()
    assert await positions(database_url, tenant.id) == (2, 1)


@pytest.mark.long
async def test_a_connection_to_spicedb_that_falls_silent_is_replaced_within_half_a_minute(
    spicedb, spicedb_proxy: Proxy
) -> None:
    """No reset, no answer, not even to pings; and calls too short and too rare to notice."""
    reached = SpiceDB.connect(spicedb_proxy.endpoint, spicedb.key)
    question = CheckQuestion(ObjectRef("workspace", "silent/silent"), "view", SubjectRef("user", "alice"))

    async def answers() -> bool:
        try:
            await reached.check(question, FullyConsistent(), 0.2)
        except BackendError:
            return False
        return True

    await eventually(answers)
    spicedb_proxy.keep_open()
    spicedb_proxy.trap(b"silent/silent")
    assert not await answers()
    await eventually(answers, 35, every=2.0)
    await reached.close()
