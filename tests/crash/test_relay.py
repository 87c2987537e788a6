"""A relay that is killed: the next one ends with the same tuples, and nothing revoked is ever back."""

from __future__ import annotations

import asyncio
import json
import time

import grpc
import psutil
import pytest

from pemba.model import ObjectRef, Role, SubjectRef
from pemba.service.memberships import RoleAssignment
from pemba.spicedb.client import SpiceDB
from pemba.storage import outbox
from tests.crash.conftest import LEASE_SECONDS
from tests.integration.conftest import SYSTEM, Parts
from tests.proxy import Proxy, Side
from tests.stack import Calls, Processes, Refusal
from tests.truth import eventually, is_delivered, positions, require_truth, sql, stored
from tests.watching import Write, watching


def touches(writes: list[Write], user: str) -> int:
    return len([write for write in writes if any(t.subject.id == user for t in write.touched)])


async def holds(store: SpiceDB, tenant_id: str, user: str) -> bool:
    return user in {found.subject.id for found in await stored(store, tenant_id)}


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


async def test_killed_after_a_batch_with_grant_and_revoke_landed_and_more_came_since(
    running: Processes, parts: Parts, store: SpiceDB, spicedb_proxy: Proxy, database_url: str
) -> None:
    """The next relay's batch covers at least what landed: a shorter one would grant again for a moment."""
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
        await running.relay()
        await require_truth(database_url, store, tenant.id)
        await parts.role(root, "last", Role.VIEWER)
        assert touches(await seen.until("last"), "mallory") == 0


async def test_killed_between_the_rows_of_one_large_change(
    running: Processes, parts: Parts, store: SpiceDB, spicedb_proxy: Proxy, database_url: str
) -> None:
    """Its token is not visible, and until the next relay ends it nobody can do what neither state allows."""
    tenant, root = await parts.tenant()
    users = [f"user-{number:04}" for number in range(600)]
    await set_roles(parts, root, users, Role.VIEWER)
    second = await running.relay()
    await require_truth(database_url, store, tenant.id)
    await running.stop(second)
    token = await set_roles(parts, root, users, Role.MEMBER)
    first_seq, last_seq = await rows_of_the_last_change(database_url, tenant.id)
    assert last_seq - first_seq == 2, "DELETEs of 500, the rest of them with TOUCHes, the rest of those"
    request = spicedb_proxy.trap(await only_in_row(database_url, tenant.id, first_seq + 1), Side.REQUEST)
    first = await running.relay(spicedb_endpoint=spicedb_proxy.endpoint)
    await request.sprung.wait()
    await asyncio.to_thread(first.kill)
    assert await positions(database_url, tenant.id) == (last_seq, first_seq)
    roles = [found for found in await stored(store, tenant.id) if found.subject.id in set(users)]
    assert {found.relation for found in roles} == {"viewer"}
    assert len(roles) == 100
    serve = await running.serve(root_secrets="s" * 32)
    calls = Calls(serve.settings["PEMBA_GRPC_LISTEN"])
    async with calls.channel:
        await require_not_yet_visible(calls, root, token)
        await running.relay()
        await require_truth(database_url, store, tenant.id)
        assert await calls.may_view(root, users[0], token)
    assert {t.relation for t in await stored(store, tenant.id) if t.subject.id in set(users)} == {"member"}


async def set_roles(parts: Parts, root, users: list[str], role: Role) -> str:
    assignments = [RoleAssignment(ObjectRef("workspace", root.id), SubjectRef("user", user), role) for user in users]
    changed = await parts.memberships.set_roles(
        SYSTEM, root.tenant_id, assignments=assignments, options=parts.options("SetRoles")
    )
    return changed.token


async def rows_of_the_last_change(url: str, tenant_id: str) -> tuple[int, int]:
    rows = await sql(
        url,
        "SELECT min(seq), max(seq) FROM outbox WHERE tenant_id = $1 AND create_time ="
        " (SELECT max(create_time) FROM outbox WHERE tenant_id = $1)",
        tenant_id,
    )
    return rows[0]["min"], rows[0]["max"]


async def only_in_row(url: str, tenant_id: str, seq: int) -> bytes:
    """A user whom this row names and no earlier one of the change does."""
    rows = await sql(
        url, "SELECT ops::text FROM outbox WHERE tenant_id = $1 AND seq BETWEEN $2 AND $3", tenant_id, seq - 1, seq
    )
    earlier, this = ({o.tuple.subject.id for o in outbox.from_json(json.loads(row["ops"]))} for row in rows)
    return min(this - earlier).encode()


async def require_not_yet_visible(calls: Calls, root, token: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await calls.may_view(root, "alice", token)
    assert Refusal(error.value).reason == "TOKEN_NOT_YET_VISIBLE"


async def holders(url: str) -> dict[str, int]:
    """How many shards each relay holds whose lease lasts."""
    rows = await sql(url, "SELECT holder, count(*) FROM relay_lease WHERE lease_until > now() GROUP BY holder")
    return {row["holder"]: row["count"] for row in rows}


async def are_divided(url: str, *counts: int) -> bool:
    return sorted((await holders(url)).values()) == list(counts)


async def test_the_shards_of_a_relay_that_is_killed_are_another_s_when_its_leases_have_run_out(
    running: Processes, parts: Parts, store: SpiceDB, database_url: str
) -> None:
    first = await running.relay()
    await running.relay()
    await eventually(lambda: are_divided(database_url, 8, 8))
    made = [await parts.tenant() for _ in range(6)]
    await asyncio.to_thread(first.kill)
    began = time.monotonic()
    await eventually(lambda: are_divided(database_url, 16), LEASE_SECONDS + 2)
    for tenant, _ in made:
        await eventually(lambda tenant=tenant: is_delivered(database_url, tenant.id), 5)
    assert time.monotonic() - began < LEASE_SECONDS + 2
    for tenant, _ in made:
        await require_truth(database_url, store, tenant.id)


async def test_a_relay_that_is_stopped_hands_over_within_a_second(running: Processes, database_url: str) -> None:
    first = await running.relay(relay_lease_seconds=60)
    await running.relay(relay_lease_seconds=60)
    await eventually(lambda: are_divided(database_url, 8, 8))
    stopping = asyncio.create_task(running.stop(first))
    await eventually(lambda: are_divided(database_url, 16), 1)
    await stopping


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
