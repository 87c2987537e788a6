"""Parked operations for those who run Pemba: over gRPC and by commands, on real servers."""

from __future__ import annotations

import asyncio
import json

import grpc
import pytest

from pemba.model import GLOBAL_STREAM
from pemba.v1 import memberships_pb2, operations_pb2_grpc, types_pb2
from pemba.v1 import operations_pb2 as pb
from tests.integration.relay.test_delivery import add_rows, touch
from tests.stack import Ran, run_command
from tests.truth import eventually, is_delivered, sql


@pytest.fixture
def operations(api):
    return operations_pb2_grpc.OperationsServiceStub(api.channel)


async def pemba(api, *arguments: str) -> Ran:
    return await run_command(*arguments, endpoint=api.endpoint, key=api.key)


def nonsense(made, user="mallory") -> str:
    return f"workspace:{made.tenant.id}/{made.root_workspace.id}#no_such_relation@user:{user}"


async def poisoned(api, database_url: str, slug: str, *users: str):
    """A tenant of whose rows SpiceDB refuses one for each of these users."""
    made = await api.tenant(slug)
    for user in users:
        await add_rows(database_url, made.tenant, touch(nonsense(made, user)))
    await api.workspace(made.root_workspace, "wakes-the-relay")
    await eventually(lambda: is_delivered(database_url, made.tenant.id))
    return made


async def test_what_is_parked_is_listed_in_pages_for_one_tenant_and_for_all(api, operations, database_url) -> None:
    acme = await poisoned(api, database_url, "acme", "mallory", "eve")
    other = await poisoned(api, database_url, "other", "mallory")
    request = pb.ListParkedOperationsRequest(page_size=1)
    listed = []
    while True:
        page = await operations.ListParkedOperations(request, metadata=api.metadata())
        listed += page.parked_operations
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert len(listed) == 3
    assert {each.tenant_slug for each in listed} == {"acme", "other"}
    request = pb.ListParkedOperationsRequest(tenant_id=acme.tenant.id)
    answer = await operations.ListParkedOperations(request, metadata=api.metadata())
    first, second = answer.parked_operations
    assert (first.seq, first.since_seq, first.tuple) == (2, 2, nonsense(acme))
    assert (second.seq, second.tuple) == (3, nonsense(acme, "eve"))
    assert (first.operation, first.effect) == (pb.TUPLE_OPERATION_TOUCH, pb.PARKED_EFFECT_GRANTS_LESS)
    assert first.cause == "UNKNOWN_RELATION_OR_PERMISSION"
    assert "no_such_relation" in first.message
    status = await operations.GetRelayStatus(pb.GetRelayStatusRequest(), metadata=api.metadata())
    assert {(s.tenant_id, s.parked, s.closed) for s in status.streams} == {
        (acme.tenant.id, 2, False),
        (other.tenant.id, 1, False),
    }


async def test_a_retry_repairs_as_ordinary_rows_and_is_audited_with_who_what_and_of_whom(
    api, operations, database_url
) -> None:
    made = await poisoned(api, database_url, "acme", "mallory", "eve")
    await poisoned(api, database_url, "other", "mallory")
    answer = await operations.RetryParked(pb.RetryParkedRequest(tenant_id=made.tenant.id), metadata=api.metadata())
    assert answer.retried == 2
    assert await api.check(made.root_workspace, "alice", "own", answer.token)  # the records stand for neither
    [audited] = await sql(database_url, "SELECT * FROM audit WHERE method = 'RetryParked'")
    assert audited["principal"].startswith("system_key:")
    assert (audited["tenant_id"], audited["object"]) == (made.tenant.id, f"tenant:{made.tenant.id}")
    assert {o["tuple"] for o in json.loads(audited["ops"])} == {nonsense(made), nonsense(made, "eve")}
    left = await operations.ListParkedOperations(pb.ListParkedOperationsRequest(), metadata=api.metadata())
    assert [each.tenant_slug for each in left.parked_operations] == ["other"]


async def test_whoever_acts_as_a_user_is_refused_and_a_retry_audited(api, operations, reason, database_url) -> None:
    made = await api.tenant("acme")
    metadata = api.metadata(pemba_on_behalf_of="user:alice")
    for ask in (
        lambda: operations.RetryParked(pb.RetryParkedRequest(tenant_id=made.tenant.id), metadata=metadata),
        lambda: operations.RetryParked(pb.RetryParkedRequest(), metadata=metadata),
        lambda: operations.ListParkedOperations(pb.ListParkedOperationsRequest(), metadata=metadata),
        lambda: operations.TailOutbox(pb.TailOutboxRequest(), metadata=metadata).read(),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ask()
        assert (caught.value.code(), reason(caught.value)) == (grpc.StatusCode.PERMISSION_DENIED, "ROLE_MISSING")
    refused = await sql(database_url, "SELECT * FROM audit WHERE method = 'RetryParked' ORDER BY id")
    assert [(row["tenant_id"], row["acting_user"], row["reason"]) for row in refused] == [
        (made.tenant.id, "alice", "ROLE_MISSING"),
        (GLOBAL_STREAM, "alice", "ROLE_MISSING"),
    ]


UNKNOWN = "ten_01kafa7q0ve8x9m1t2b3c4d5e6"


async def test_an_unknown_tenant_is_not_found(api, operations) -> None:
    for ask in (
        lambda: operations.RetryParked(pb.RetryParkedRequest(tenant_id=UNKNOWN), metadata=api.metadata()),
        lambda: operations.ListParkedOperations(
            pb.ListParkedOperationsRequest(tenant_id=UNKNOWN), metadata=api.metadata()
        ),
        lambda: operations.TailOutbox(pb.TailOutboxRequest(tenant_id=UNKNOWN), metadata=api.metadata()).read(),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ask()
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def grant(api, root, user: str) -> str:
    request = memberships_pb2.SetRoleRequest(
        tenant_id=root.tenant_id,
        object=types_pb2.ObjectRef(type="workspace", id=root.id),
        subject=types_pb2.SubjectRef(type="user", id=user),
        role=types_pb2.ROLE_VIEWER,
    )
    return (await api.memberships.SetRole(request, metadata=api.metadata())).token


async def test_rows_are_followed_as_they_are_committed_and_delivered(api, operations, database_url) -> None:
    made = await api.tenant("acme")
    root = made.root_workspace
    await eventually(lambda: is_delivered(database_url, root.tenant_id))
    tail = operations.TailOutbox(pb.TailOutboxRequest(tenant_id=root.tenant_id), metadata=api.metadata())
    reading = asyncio.create_task(tail.read())
    # What is committed before it has begun is not of now: the first that is told begins the rest.
    seq = 1
    while not reading.done():
        seq += 1
        await grant(api, root, f"user-{seq}")
        await asyncio.wait({reading}, timeout=0.3)
    other = await api.tenant("other")
    await grant(api, root, "last")
    events = [await reading]
    while not events or (events[-1].event, events[-1].seq) != (pb.OUTBOX_EVENT_DELIVERED, seq + 1):
        events.append(await asyncio.wait_for(tail.read(), 10))
    tail.cancel()
    assert {event.tenant_id for event in events} == {root.tenant_id} != {other.tenant.id}
    committed = [event for event in events if event.event == pb.OUTBOX_EVENT_COMMITTED]
    delivered = [event.seq for event in events if event.event == pb.OUTBOX_EVENT_DELIVERED]
    assert [event.seq for event in committed] == delivered == list(range(events[0].seq, seq + 2))
    assert [o.tuple.partition("#")[2] for o in committed[-1].operations] == ["viewer@user:last"]
    assert committed[-1].request_id
    for each in committed:
        assert events.index(each) < next(
            i for i, e in enumerate(events) if (e.event, e.seq) == (pb.OUTBOX_EVENT_DELIVERED, each.seq)
        )


async def test_a_tail_since_a_time_begins_with_the_rows_since_then(api, operations, database_url) -> None:
    made = await api.tenant("acme")
    other = await api.tenant("other")
    await grant(api, made.root_workspace, "bob")
    request = pb.TailOutboxRequest()
    request.since.FromSeconds(1_700_000_000)
    tail = operations.TailOutbox(request, metadata=api.metadata())
    seen = set()
    while len(seen) < 6:
        event = await asyncio.wait_for(tail.read(), 10)
        if event.tenant_id != GLOBAL_STREAM:
            seen.add((event.event, event.tenant_id, event.seq))
    tail.cancel()
    rows = [(made.tenant.id, 1), (made.tenant.id, 2), (other.tenant.id, 1)]
    assert seen == {(kind, *row) for row in rows for kind in (pb.OUTBOX_EVENT_COMMITTED, pb.OUTBOX_EVENT_DELIVERED)}


async def test_so_many_may_follow_at_a_time_and_whoever_goes_makes_room(api, operations) -> None:
    request = pb.TailOutboxRequest()
    request.since.FromSeconds(1_700_000_000)
    await api.tenant("acme")
    tails = [operations.TailOutbox(request, metadata=api.metadata()) for _ in range(8)]
    for tail in tails:
        await asyncio.wait_for(tail.read(), 10)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await operations.TailOutbox(request, metadata=api.metadata()).read()
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    tails[0].cancel()

    async def has_room() -> bool:
        again = operations.TailOutbox(request, metadata=api.metadata())
        try:
            return bool(await again.read())
        except grpc.aio.AioRpcError:
            return False
        finally:
            again.cancel()

    await eventually(has_room)
    for tail in tails:
        tail.cancel()


async def test_the_commands_tell_and_repair_and_doctor_and_status_say_what_is_parked(
    api, operations, database_url, spicedb
) -> None:
    made = await poisoned(api, database_url, "acme", "mallory")
    listed = await pemba(api, "outbox", "parked", "acme")
    assert nonsense(made) in listed.out
    status = await run_command("outbox", "status", database_url=database_url)
    header, row = (line.split() for line in status.out.splitlines())
    assert header[-3:] == ["PARKED", "CHECKS", "RELAY"]
    assert row[-3:-1] == ["1", "open"]
    settings = {"database_url": database_url, "spicedb_endpoint": spicedb.endpoint, "spicedb_key": spicedb.key}
    examined = await run_command("doctor", endpoint=api.endpoint, key=api.key, **settings)
    assert "SpiceDB refused 1 (tenants: 1)" in examined.out
    retried = await pemba(api, "outbox", "retry")
    assert (retried.code, retried.out.split()[0]) == (0, "1")
    await eventually(lambda: is_delivered(database_url, made.tenant.id))
    answer = await operations.ListParkedOperations(pb.ListParkedOperationsRequest(), metadata=api.metadata())
    assert not answer.parked_operations
