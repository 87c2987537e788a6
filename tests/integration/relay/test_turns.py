"""A relay that has lost its turn writes nothing more, whatever it had read while it had it."""

from __future__ import annotations

import asyncio
import time

import pytest

from pemba.model import ObjectRef, Role, SubjectRef, Tenant, Workspace
from pemba.relay.lane import Lane, TurnOver
from pemba.relay.relay import Relay, RelayOptions
from pemba.service.memberships import RoleAssignment
from pemba.spicedb.client import SpiceDB
from pemba.storage.database import RELAY_ROLE, Database
from pemba.storage.outbox import MAX_ROW_OPERATIONS, shard_of
from tests.integration.conftest import SYSTEM, Parts
from tests.integration.relay.conftest import Relaying
from tests.integration.relay.test_delivery import tenant_in
from tests.integration.relay.test_wakeup import end_session, in_turn
from tests.proxy import Proxy
from tests.truth import eventually, is_delivered, positions, require_truth, stored


async def fill(parts: Parts, made: tuple[Tenant, Workspace], prefix: str) -> None:
    """A change that fills a batch: two of them fill a request."""
    tenant, root = made
    users = [f"{prefix}-{number:03}" for number in range(MAX_ROW_OPERATIONS)]
    assignments = [
        RoleAssignment(ObjectRef("workspace", root.id), SubjectRef("user", user), Role.VIEWER) for user in users
    ]
    await parts.memberships.set_roles(SYSTEM, tenant.id, assignments=assignments, options=parts.options("SetRoles"))


async def test_a_relay_whose_session_ended_sends_no_further_request_of_what_it_had_read(
    parts: Parts,
    relaying: Relaying,
    store: SpiceDB,
    spicedb,
    spicedb_proxy: Proxy,
    database: Database,
    database_url: str,
) -> None:
    made = sorted([await tenant_in(parts, 4) for _ in range(3)], key=lambda made: made[0].id)
    lane = Lane(4, database, store, 5.0)
    while await lane.run_once():
        pass
    for number, each in enumerate(made):
        await fill(parts, each, f"user-{number}")
    late_tenant, late_root = made[2]
    answer = spicedb_proxy.trap(b"user-0-000")
    async with relaying() as zombie:
        await answer.answered.wait()
        assert spicedb_proxy.seen(b"user-2-000") == 0, "the third tenant's batch is in the second request"
        await end_session(database_url)
        await eventually(lambda: is_over(zombie))
        while await lane.run_once():  # another relay's, which reaches SpiceDB directly
            pass
        await parts.remove(late_root, "user-2-000")
        while await lane.run_once():
            pass
        assert await is_delivered(database_url, late_tenant.id)
        answer.release()
        await eventually(lambda: in_turn(zombie))
        await require_truth(database_url, store, late_tenant.id)
    assert spicedb_proxy.seen(b"user-2-000") == 0


async def test_a_relay_that_wakes_from_a_suspended_machine_writes_nothing_that_it_read_before(
    parts: Parts,
    store: SpiceDB,
    spicedb_proxy: Proxy,
    spicedb,
    postgres_proxy: Proxy,
    database: Database,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its timers slept as well, and it has not heard yet that it lost its session."""
    tenant, root = await parts.tenant()
    lane = Lane(shard_of(tenant.id), database, store, 5.0)
    await lane.run_once()
    slow = Database(postgres_proxy.url(database_url), 4, (RELAY_ROLE,))
    await slow.open()
    reached = SpiceDB.connect(spicedb_proxy.endpoint, spicedb.key)
    relay = Relay(database_url, slow, reached, RelayOptions())
    running = asyncio.create_task(relay.run())
    await eventually(lambda: in_turn(relay))
    read = postgres_proxy.trap(b"COMMIT\0", after=tenant.id.encode())
    await parts.role(root, "mallory", Role.VIEWER)
    await read.answered.wait()
    monkeypatch.setattr("pemba.storage.wakeup._now", lambda: time.clock_gettime(time.CLOCK_BOOTTIME) + 60)
    await lane.run_once()  # another relay's, which has the turn by now
    await parts.remove(root, "mallory")
    await lane.run_once()
    read.release()
    await parts.role(root, "bob", Role.VIEWER)
    await require_truth(database_url, store, tenant.id)
    relay.stop()
    await running
    await reached.close()
    await slow.close()
    assert spicedb_proxy.seen(b"mallory") == 0
    assert spicedb_proxy.seen(b"bob") == 1, "it delivers again once it has asked"


async def is_over(relay) -> bool:
    return not relay.is_delivering


async def test_a_lane_asks_right_before_it_writes(
    parts: Parts, database: Database, store: SpiceDB, database_url: str
) -> None:
    tenant, _ = await parts.tenant()
    lane = Lane(shard_of(tenant.id), database, store, 5.0)
    over = asyncio.Event()
    over.set()
    await lane.run(over, lambda: False)
    with pytest.raises(TurnOver):
        await lane.run_once()
    assert await positions(database_url, tenant.id) == (1, 0)
    assert await stored(store, tenant.id) == set()
