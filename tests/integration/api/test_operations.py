"""OperationsService and `pemba reconcile` over gRPC, on real servers."""

from __future__ import annotations

import json

import grpc
import pytest

from pemba.model import GLOBAL_STREAM, Operation, Tuple, TupleOperation
from pemba.spicedb.client import SpiceDB
from pemba.v1 import operations_pb2, operations_pb2_grpc
from pemba.v1.operations_pb2 import GetRelayStatusRequest, ReconcileRequest
from tests.stack import Ran, run_command
from tests.truth import eventually, is_delivered, require_truth, sql


async def pemba(api, *arguments: str) -> Ran:
    return await run_command(*arguments, endpoint=api.endpoint, key=api.key)


@pytest.fixture
async def store(spicedb):
    store = SpiceDB.connect(spicedb.endpoint, spicedb.key)
    yield store
    await store.close()


@pytest.fixture
def operations(api):
    return operations_pb2_grpc.OperationsServiceStub(api.channel)


async def behind_its_back(store: SpiceDB, put_in: str, taken_out: str) -> None:
    kinds = ((Operation.TOUCH, put_in), (Operation.DELETE, taken_out))
    await store.write([TupleOperation(kind, Tuple.parse(t)) for kind, t in kinds], metadata={}, timeout=5)


async def test_drift_is_told_over_grpc_and_repaired_with_a_token_that_has_the_repair_in_force(
    api, operations, store, database_url
) -> None:
    made = await api.tenant("acme")
    tenant_id, root = made.tenant.id, made.root_workspace
    await eventually(lambda: is_delivered(database_url, tenant_id))
    admin = f"tenant:{tenant_id}/{tenant_id}#admin@user:alice"
    await behind_its_back(store, f"workspace:{tenant_id}/{root.id}#owner@user:eve", admin)
    request = ReconcileRequest(tenant_id=tenant_id, apply=True, wait=True)
    *others, last = [m async for m in operations.Reconcile(request, metadata=api.metadata())]
    findings = {(m.finding.kind, m.finding.subject.id) for m in others if m.HasField("finding")}
    assert findings == {(operations_pb2.DRIFT_KIND_MISSING, "alice"), (operations_pb2.DRIFT_KIND_TOO_MUCH, "eve")}
    assert (last.summary.missing, last.summary.too_much, last.summary.repaired) == (1, 1, 2)
    assert await api.check(root, "alice", "own", last.token)
    assert not await api.check(root, "eve", "own", last.token)
    await require_truth(database_url, store, tenant_id)
    audit = await sql(
        database_url, "SELECT DISTINCT principal, tenant_id FROM audit WHERE method = 'Reconcile' AND seq IS NOT NULL"
    )
    assert [(row["principal"][:11], row["tenant_id"]) for row in audit] == [("system_key:", tenant_id)]


@pytest.mark.parametrize("named", [True, False], ids=["a tenant", "everything"])
async def test_whoever_acts_as_a_user_is_refused_and_that_is_audited(
    api, operations, reason, database_url, named
) -> None:
    made = await api.tenant("acme")  # alice is its admin
    tenant_id = made.tenant.id if named else ""
    metadata = api.metadata(pemba_on_behalf_of="user:alice")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await operations.Reconcile(ReconcileRequest(tenant_id=tenant_id, apply=True), metadata=metadata).read()
    assert (caught.value.code(), reason(caught.value)) == (grpc.StatusCode.PERMISSION_DENIED, "ROLE_MISSING")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await operations.GetRelayStatus(GetRelayStatusRequest(), metadata=metadata)
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    [refused] = await sql(database_url, "SELECT * FROM audit WHERE method = 'Reconcile'")
    assert (refused["tenant_id"], refused["acting_user"], refused["reason"], refused["seq"]) == (
        tenant_id or GLOBAL_STREAM,
        "alice",
        "ROLE_MISSING",
        None,
    )


async def test_the_relays_status_is_told_by_lane(api, operations, database_url) -> None:
    made = await api.tenant("acme")
    await eventually(lambda: is_delivered(database_url, made.tenant.id))
    answer = await operations.GetRelayStatus(GetRelayStatusRequest(), metadata=api.metadata())
    assert [shard.shard for shard in answer.shards] == list(range(16))
    assert sum(shard.streams for shard in answer.shards) == 2  # acme's and `~`
    assert {(shard.streams_behind, shard.undelivered) for shard in answer.shards} == {(0, 0)}
    assert not answer.HasField("reconcile_time")


async def test_a_person_reads_a_table_and_a_program_lines_of_json(api, store, database_url) -> None:
    made = await api.tenant("acme")
    tenant_id, root = made.tenant.id, made.root_workspace
    await eventually(lambda: is_delivered(database_url, tenant_id))
    well = await pemba(api, "reconcile", "--tenant", "acme")
    assert (well.code, well.out.splitlines()[-1]) == (0, "No drift.")

    admin = f"tenant:{tenant_id}/{tenant_id}#admin@user:alice"
    ghost = f"workspace:{tenant_id}/{root.id}#owner@user:eve"
    await behind_its_back(store, ghost, admin)
    found = await pemba(api, "reconcile", "--tenant", "acme")
    assert found.code == 1, found.err
    assert "  user:alice gains admin on tenant:acme" in found.out.splitlines()
    assert "  user:eve loses owner on workspace:acme/" in found.out.splitlines()

    lines = [json.loads(line) for line in (await pemba(api, "reconcile", "-t", "acme", "-o", "json")).out.splitlines()]
    assert {line["finding"]["tuple"] for line in lines[:-1]} == {admin, ghost}
    assert lines[-1]["summary"]["repaired"] == "0"

    repaired = await pemba(api, "reconcile", "--tenant", "acme", "--apply")
    assert (repaired.code, repaired.out.splitlines()[-1]) == (0, "2 of 2 tuples are repaired."), repaired.err
    await require_truth(database_url, store, tenant_id)
    assert (await pemba(api, "reconcile", "--tenant", "acme")).code == 0
